"""Deletions are propagated, but never by mistake, and each is counted."""
import concurrent.futures
import csv
import io
import json
import signal

from extensions import create, plain, shown, urllib_get
from common import bucket, client, E, launcher, listing, raw, s3, STORE_AK, STORE_SK, until, wait


def deletions():
    """Mistaken selections delete nothing, a dry run is dry, and kills lose no count."""
    launch = launcher()
    service = launch()
    sdk, oms = client()
    a, b, moto = s3(E["WEED_A"]), s3(E["WEED_B"]), s3(E["MOTO"])
    src, dst = bucket(a, "prune-from"), bucket(b, "prune-to")
    ends = ((E["WEED_A"], src), (E["WEED_B"], dst))
    a.put_object(Bucket=src, Key="photos/1", Body=b"x")
    kept = ["photo/%d" % i for i in range(20)]
    for key in kept + ["photos/old"]:
        b.put_object(Bucket=dst, Key=key, Body=b"old")

    # A prefix that the source does not know is a mistake, alone or with another.
    status, made = create(*ends, {"delete": True}, object_key=["photo/"])
    wait(sdk, oms, made["id"], {4})
    task = shown(made["id"])
    assert task["whimbrel"]["deleted_num"] == 0 and "photo/" in task["whimbrel"]["note"], task
    status, made = create(*ends, {"delete": True}, object_key=["photos/", "photo/"])
    wait(sdk, oms, made["id"], {5})
    task = shown(made["id"])
    assert task["whimbrel"]["deleted_num"] == 1 and "photo/" in task["whimbrel"]["note"], task
    assert sorted(plain(b, dst)) == sorted(kept + ["photos/1"])
    empty = bucket(a, "prune-empty")
    status, made = create((E["WEED_A"], empty), ends[1], {"delete": True})
    wait(sdk, oms, made["id"], {5})
    assert len(plain(b, dst)) == 21 and shown(made["id"])["whimbrel"]["deleted_num"] == 0

    # Groups say what they deleted.
    b.put_object(Bucket=dst, Key="photos/old", Body=b"old")
    node = {"cloud_type": "AWS", "region": E["WEED_A"], "bucket": src, "ak": STORE_AK, "sk": STORE_SK}
    body = {"task_type": "PREFIX", "whimbrel": {"delete": True}, "src_node": dict(node, object_key=["photos/", "photo/"]),
            "dst_node": {"region": E["WEED_B"], "bucket": dst, "ak": STORE_AK, "sk": STORE_SK}}
    path = "/v2/%s/taskgroups" % E["PROJECT"]
    status, made, _ = raw("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert status == 200, made

    def group_ended():
        _, group, _ = raw("GET", "%s/%s" % (path, made["group_id"]))
        return group if group["status"] in (5, 6) else None
    group = until(group_ended)
    assert group["whimbrel"]["deleted_num"] == 1 and "photo/" in group["whimbrel"]["note"], group
    assert len(plain(b, dst)) == 21

    # A dry run of a sync task writes and deletes nothing.
    body = {"src_cloud_type": "AWS", "src_region": "weed-a", "src_bucket": src, "src_ak": STORE_AK, "src_sk": STORE_SK,
            "dst_region": "weed-b", "dst_bucket": dst, "dst_ak": STORE_AK, "dst_sk": STORE_SK,
            "whimbrel": {"delete": True, "dry_run": True}}
    path = "/v2/%s/sync-tasks" % E["PROJECT"]
    status, made, _ = raw("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert status == 200, made
    one = dict(sync_task_id=made["sync_task_id"])
    oms.create_sync_events(sdk.CreateSyncEventsRequest(body=sdk.SyncObjectReq(object_keys=["photo%2F1", "photo%2F2"]), **one))

    def settled():
        import time
        month = oms.show_sync_task(sdk.ShowSyncTaskRequest(query_time=int(time.time() * 1000), **one))
        return month if month.monthly_skip_object + month.monthly_success_object == 2 else None
    assert until(settled).monthly_success_object == 0
    assert len(plain(b, dst)) == 21, "a dry run deletes nothing"
    oms.stop_sync_task(sdk.StopSyncTaskRequest(**one))

    # A retry of failed objects is no complete copy.
    odd, odd_to = bucket(moto, "prune-odd"), bucket(b, "prune-odd-to")
    for key in ("good", "x//y", "x/y"):
        moto.put_object(Bucket=odd, Key=key, Body=key.encode())
    b.put_object(Bucket=odd_to, Key="precious", Body=b"p")
    status, made = create((E["MOTO"], odd), (E["WEED_B"], odd_to), {"delete": True})
    failed = wait(sdk, oms, made["id"], {4})
    # What this server would keep under another name fails, and overwrites nothing.
    assert (failed.successful_num, failed.failed_num) == (2, 1), failed
    assert b.get_object(Bucket=odd_to, Key="x/y")["Body"].read() == b"x/y"
    moto.delete_object(Bucket=odd, Key="x//y")
    oms.start_task(sdk.StartTaskRequest(task_id=made["id"], body=sdk.StartTaskReq(
        src_ak=STORE_AK, src_sk=STORE_SK, dst_ak=STORE_AK, dst_sk=STORE_SK, migrate_failed_object=True)))
    wait(sdk, oms, made["id"], {5})
    assert "only retried failed objects" in shown(made["id"])["whimbrel"]["note"] and "precious" in plain(b, odd_to)

    # What cannot work, and what is misspelt, is refused.
    for rules, field in (({"Delete": True}, "Delete"), ({"sweep_minutes": 5}, "sweep_minutes")):
        status, refused = create(*ends, rules)
        assert status == 400 and "whimbrel.%s" % field in refused["error_msg"], refused

    # Kills in the middle: the count is exact, and each key has its line.
    many, total = bucket(b, "prune-many"), 3000
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: b.put_object(Bucket=many, Key="n/%04d" % i, Body=b"x" * 10), range(total)))
    # OBJ-07: most of a target goes only when that is said.
    status, made = create((E["WEED_A"], src), (E["WEED_B"], many), {"delete": True})
    wait(sdk, oms, made["id"], {5})
    refused = shown(made["id"])["whimbrel"]
    assert refused["deleted_num"] == 0 and "delete_most" in refused["note"], refused
    status, made = create((E["WEED_A"], src), (E["WEED_B"], many), {"delete": True, "delete_most": True})
    for left in (2600, 1600, 700):
        until(lambda: len([k for k in listing(b, many) if k.startswith("n/")]) < left, pause=0.01)
        service.send_signal(signal.SIGKILL)
        service.wait()
        service = launch()
    wait(sdk, oms, made["id"], {5})
    assert not [k for k in listing(b, many) if k.startswith("n/")]
    task = shown(made["id"])
    assert (task["whimbrel"]["deleted_num"], task["skipped_num"]) == (total, 1), task
    report = urllib_get("/v2/%s/tasks/%d/report?form=csv" % (E["PROJECT"], made["id"]))
    rows = [r for r in csv.DictReader(io.StringIO(report.decode())) if r["outcome"] == "deleted"]
    assert len({r["key"] for r in rows}) == len(rows) == total, len(rows)
    service.send_signal(signal.SIGTERM)
    assert service.wait(12) == 0
