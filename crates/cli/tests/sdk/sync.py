"""Sync tasks."""
import time

from common import bucket, client, code_of, E, listing, s3, STORE_AK, STORE_SK, until


def sync():
    """A sync task: events, counts, stop and start."""
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "sync-from"), bucket(b, "sync-to")
    keys = dict(src_ak=STORE_AK, src_sk=STORE_SK, dst_ak=STORE_AK, dst_sk=STORE_SK)
    made = oms.create_sync_task(sdk.CreateSyncTaskRequest(body=sdk.CreateSyncTaskReq(
        src_cloud_type="AWS", src_region="weed-a", src_bucket=src, dst_region="weed-b", dst_bucket=dst,
        enable_metadata_migration=True, consistency_check="no_check", description="events", **keys)))
    one = dict(sync_task_id=made.sync_task_id)
    now = int(time.time() * 1000)

    # c09
    odd = sdk.CreateSyncTaskReq(src_cloud_type="AWS", src_region="weed-a", src_bucket=src, dst_region="weed-b",
                                dst_bucket=dst, description="a (b)", **keys)
    assert code_of(lambda: oms.create_sync_task(sdk.CreateSyncTaskRequest(body=odd))) == (400, "OMS.0078")

    def month():
        return oms.show_sync_task(sdk.ShowSyncTaskRequest(query_time=now, **one))
    assert month().status == "SYNCHRONIZING" and month().object_overwrite_mode == "SIZE_LAST_MODIFIED_COMPARISON_OVERWRITE"

    def event(*names):
        oms.create_sync_events(sdk.CreateSyncEventsRequest(body=sdk.SyncObjectReq(object_keys=list(names)), **one))
    a.put_object(Bucket=src, Key="a b+c/\u65e5", Body=b"one", Metadata={"x": "y"})
    a.put_object(Bucket=src, Key="plain", Body=b"two")
    event("a+b%2Bc%2F%E6%97%A5", "plain")
    event("plain", "not-there")
    shown = until(lambda: (lambda m: m if m.monthly_failure_object == 1 and m.monthly_success_object >= 2 else None)(month()))
    assert shown.monthly_acceptance_request == 4, shown
    assert b.get_object(Bucket=dst, Key="a b+c/\u65e5")["Metadata"] == {"x": "y"}
    assert b.get_object(Bucket=dst, Key="plain")["Body"].read() == b"two"
    event("plain")
    until(lambda: month().monthly_skip_object >= 1)
    records = [k for k in listing(b, dst) if k.startswith("oms/sync_task/%s/" % made.sync_task_id)]
    assert any("/failed_object_lists/" in k for k in records), records

    counts = oms.list_sync_task_statistic(sdk.ListSyncTaskStatisticRequest(
        data_type="REQUEST,SIZE", start_time=str(now - 600000), end_time=str(now + 600000), **one))
    assert counts.statistic_time_type == "FIVE_MINUTES", counts
    sums = {d.data_type: sum(p.statistic_num for p in d.data) for d in counts.statistic_datas}
    assert sums["REQUEST"] == 5 and sums["SIZE"] >= 6, sums
    for bad, code in ((dict(data_type="NO"), "OMS.0064"), (dict(end_time="1"), "OMS.0051")):
        query = dict(dict(data_type="SIZE", start_time=str(now), end_time=str(now), **one), **bad)
        assert code_of(lambda: oms.list_sync_task_statistic(sdk.ListSyncTaskStatisticRequest(**query))) == (400, code)

    assert code_of(lambda: event(*["k"] * 11)) == (400, "OMS.0064")
    assert code_of(lambda: oms.show_sync_task(sdk.ShowSyncTaskRequest(**one))) == (400, "OMS.1007")
    begin = sdk.StartSyncTaskRequest(body=sdk.StartSyncTaskReq(**keys), **one)
    assert code_of(lambda: oms.start_sync_task(begin)) == (400, "OMS.0065")
    assert code_of(lambda: oms.delete_sync_task(sdk.DeleteSyncTaskRequest(**one))) == (400, "OMS.0063")
    oms.stop_sync_task(sdk.StopSyncTaskRequest(**one))
    assert month().status == "STOPPED"
    assert code_of(lambda: event("plain")) == (400, "OMS.0066")
    listed = oms.list_sync_tasks(sdk.ListSyncTasksRequest(status="STOPPED"))
    assert made.sync_task_id in {t.sync_task_id for t in listed.tasks}
    oms.start_sync_task(begin)
    a.put_object(Bucket=src, Key="later", Body=b"three")
    event("later")
    until(lambda: "later" in listing(b, dst))
    oms.stop_sync_task(sdk.StopSyncTaskRequest(**one))
    oms.delete_sync_task(sdk.DeleteSyncTaskRequest(**one))
    assert code_of(month) == (404, "OMS.1009")
    # Deleted while a batch is under way: nothing of it stays.
    again = oms.create_sync_task(sdk.CreateSyncTaskRequest(body=sdk.CreateSyncTaskReq(
        src_cloud_type="AWS", src_region="weed-a", src_bucket=src, dst_region="weed-b", dst_bucket=dst, **keys)))
    one = dict(sync_task_id=again.sync_task_id)
    for i in range(10):
        event("plain", "missing-%d" % i)
    oms.stop_sync_task(sdk.StopSyncTaskRequest(**one))
    oms.delete_sync_task(sdk.DeleteSyncTaskRequest(**one))
    until(lambda: oms.list_tasks(sdk.ListTasksRequest(group_id=again.sync_task_id)).count == 0)
