"""Task groups."""

from common import bucket, client, code_of, E, listing, s3, STORE_AK, STORE_SK, until


def groups():
    """Task groups of prefixes and of list files."""
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "group-from"), bucket(b, "group-to")
    for i in range(300):
        a.put_object(Bucket=src, Key="%s/%04d" % ("abc"[i % 3], i), Body=b"x" * 20000)
    node = dict(cloud_type="AWS", region="weed-a", ak=STORE_AK, sk=STORE_SK, bucket=src)
    to = sdk.TaskGroupDstNode(region="weed-b", bucket=dst, ak=STORE_AK, sk=STORE_SK, save_prefix="g/")

    def create(**fields):
        return oms.create_task_group(sdk.CreateTaskGroupRequest(body=sdk.CreateTaskGroupReq(dst_node=to, **fields))).group_id

    def show(group):
        return oms.show_task_group(sdk.ShowTaskGroupRequest(group_id=group))

    def reach(group, wanted):
        return until(lambda: (lambda g: g if g.status in wanted else None)(show(group)))
    slow = [sdk.BandwidthPolicyDto(start="00:00", end="23:59", max_bandwidth=1 << 20)]
    group = create(task_type="PREFIX", description="three", bandwidth_policy=slow,
                   src_node=sdk.TaskGroupSrcNode(object_key=["a/", "b/", "c/"], **node))
    keys = sdk.StartTaskGroupReq(src_ak=STORE_AK, src_sk=STORE_SK, dst_ak=STORE_AK, dst_sk=STORE_SK)
    begin = sdk.StartTaskGroupRequest(group_id=group, body=keys)
    assert code_of(lambda: oms.start_task_group(begin)) == (400, "OMS.1039")
    assert code_of(lambda: oms.retry_task_group(sdk.RetryTaskGroupRequest(group_id=group))) == (400, "OMS.1040")
    shown = reach(group, {2})
    assert (shown.total_task_num, shown.task_type, shown.src_node.cloud_type) == (3, "PREFIX", "AWS"), shown
    assert code_of(lambda: oms.delete_task_group(sdk.DeleteTaskGroupRequest(group_id=group))) == (400, "OMS.0063")
    members = oms.list_tasks(sdk.ListTasksRequest(group_id=group))
    assert members.count == 3 and {t.group_type for t in members.tasks} == {"GROUP_TASK"}, members
    member = members.tasks[0].id
    oms.stop_task_group(sdk.StopTaskGroupRequest(group_id=group))
    assert show(group).status in (3, 7)
    rested = reach(group, {3})
    assert rested.paused_task_num == 3 and rested.success_num < 300, rested
    assert code_of(lambda: oms.stop_task_group(sdk.StopTaskGroupRequest(group_id=group))) == (400, "OMS.1038")
    assert code_of(lambda: oms.delete_task(sdk.DeleteTaskRequest(task_id=member))) == (400, "OMS.1036")
    oms.update_task_group(sdk.UpdateTaskGroupRequest(group_id=group, body=sdk.UpdateBandwidthPolicyReq(bandwidth_policy=[])))
    oms.batch_update_tasks(sdk.BatchUpdateTasksRequest(body=sdk.BatchUpdateTasksReq(
        group_id=group, bandwidth_policy=[], task_priority="HIGH")))
    oms.start_task_group(begin)
    done = reach(group, {5, 6})
    assert (done.status, done.success_num, done.fail_num, done.complete_task_num) == (6, 300, 0, 3), done
    assert done.error_reason is None and done.total_size == 300 * 20000
    copied = listing(b, dst)
    assert {k[2:] for k in copied if k.startswith("g/")} == set(listing(a, src))
    assert any(k.startswith("oms/task_group/%s/success_object_lists/" % group) for k in copied), copied
    assert code_of(lambda: oms.stop_task_group(sdk.StopTaskGroupRequest(group_id=group))) == (400, "OMS.0066")
    listed = oms.list_task_group(sdk.ListTaskGroupRequest(status=6, limit=100))
    assert group in {g.group_id for g in listed.taskgroups} and listed.count >= 1
    oms.delete_task_group(sdk.DeleteTaskGroupRequest(group_id=group))

    def gone():
        try:
            assert show(group).status in (8, 9)
        except Exception as e:
            assert (e.status_code, e.error_code) == (404, "OMS.1009"), e
            return True
    until(gone)
    assert code_of(lambda: oms.show_task(sdk.ShowTaskRequest(task_id=member))) == (400, "OMS.1009")

    # A folder of lists; one of them names what is not there yet.
    for name, text in (("lists/one.txt", "a%2F0000\na%2F0003\n"), ("lists/two.txt", "b%2F0001\nlate\n"), ("lists/no.csv", "x")):
        b.put_object(Bucket=dst, Key=name, Body=text.encode(), ContentType="text/plain")
    folder = sdk.ListFile(list_file_key="lists/", obs_bucket=dst)
    group = create(task_type="LIST", src_node=sdk.TaskGroupSrcNode(list_file=folder, **node))
    failed = reach(group, {5, 6})
    assert (failed.status, failed.total_task_num, failed.failed_task_num) == (5, 2, 1), failed
    assert "1 tasks of the group failed" in failed.error_reason.error_msg, failed.error_reason
    a.put_object(Bucket=src, Key="late", Body=b"now")
    oms.retry_task_group(sdk.RetryTaskGroupRequest(group_id=group, body=sdk.RetryTaskGroupReq(migrate_failed_object=True)))
    assert reach(group, {5, 6}).status == 6
    assert b.get_object(Bucket=dst, Key="g/late")["Body"].read() == b"now"

    # Hundreds of members have names of their own, and no more of them run at once than tasks may.
    many = create(task_type="PREFIX", src_node=sdk.TaskGroupSrcNode(object_key=["a/%03d" % i for i in range(300)], **node))
    most = []

    def over():
        shown = show(many)
        most.append(shown.executing_task_num)
        return shown if shown.status in (4, 5, 6) else None
    shown = until(over)
    assert (shown.status, shown.total_task_num, shown.complete_task_num) == (6, 300, 300), shown
    assert max(most) <= 5, most

    # A folder without lists cannot be made into members.
    empty = sdk.ListFile(list_file_key="nothing/", obs_bucket=dst)
    group = create(task_type="LIST", src_node=sdk.TaskGroupSrcNode(list_file=empty, **node))
    broken = reach(group, {4})
    assert broken.error_reason.error_code == "TRF.0013", broken
    oms.delete_task_group(sdk.DeleteTaskGroupRequest(group_id=group))
    until(gone)
