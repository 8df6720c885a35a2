"""Tasks of v2: their life, and what is refused."""
import json
import os
import urllib.error
import urllib.request

from common import bucket, client, code_of, E, listing, raw, request, s3, start, STORE_AK, STORE_SK, wait


def v2_lifecycle():
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "v2-from"), bucket(b, "v2-to")
    for i in range(400):
        a.put_object(Bucket=src, Key="k%04d" % i, Body=b"x" * i)
    a.put_object(Bucket=src, Key="big", Body=os.urandom(24 << 20))

    versions = oms.list_api_versions(sdk.ListApiVersionsRequest())
    assert {v.id for v in versions.versions} == {"v1", "v2"}
    assert oms.show_cloud_type(sdk.ShowCloudTypeRequest(type="src")).body[0] == "AWS"
    regions = oms.show_region_info(sdk.ShowRegionInfoRequest()).body
    assert {"weed-a", "weed-b"} <= {r.value for g in regions for r in g.region_list}

    # By catalogue name, slowly, so that it can be stopped in the middle.
    slow = [sdk.BandwidthPolicyDto(start="00:00", end="23:59", max_bandwidth=1 << 20)]
    made = oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), bandwidth_policy=slow,
                                   migrate_since=123456789, description="\u4e2d\u6587"))
    assert isinstance(made.id, int) and made.id < 2**53 and made.task_name.startswith("%s-%s-" % (src, dst))
    wait(sdk, oms, made.id, {2})
    shown = oms.show_task(sdk.ShowTaskRequest(task_id=made.id))
    assert shown.migrate_since == 123456789 and shown.description == "\u4e2d\u6587"
    assert shown.group_type == "NORMAL_TASK" and shown.obs_system == "BUCKET" and shown.task_priority == "MEDIUM"
    assert code_of(lambda: oms.delete_task(sdk.DeleteTaskRequest(task_id=made.id))) == (400, "OMS.0063")
    assert code_of(lambda: oms.start_task(start(sdk, made.id))) == (400, "OMS.0065")
    oms.stop_task(sdk.StopTaskRequest(task_id=made.id))
    after = oms.show_task(sdk.ShowTaskRequest(task_id=made.id))
    assert after.status in (3, 7), after.status
    paused = wait(sdk, oms, made.id, {3})
    assert paused.successful_num < 401
    assert code_of(lambda: oms.stop_task(sdk.StopTaskRequest(task_id=made.id))) == (400, "OMS.0066")
    missing = sdk.StartTaskReq(src_ak=STORE_AK, src_sk=STORE_SK)
    status, code = code_of(lambda: oms.start_task(sdk.StartTaskRequest(task_id=made.id, body=missing)))
    assert (status, code) == (400, "OMS.1004"), code
    oms.update_bandwidth_policy(sdk.UpdateBandwidthPolicyRequest(
        task_id=made.id, body=sdk.UpdateBandwidthPolicyReq(bandwidth_policy=[])))
    oms.batch_update_tasks(sdk.BatchUpdateTasksRequest(body=sdk.BatchUpdateTasksReq(
        ids=[made.id], bandwidth_policy=[], task_priority="HIGH")))
    oms.start_task(start(sdk, made.id))
    done = wait(sdk, oms, made.id, {5})
    assert (done.total_num, done.successful_num, done.failed_num) == (401, 401, 0), done
    assert done.progress == 1.0 and done.is_query_over and done.error_reason is None
    assert done.failed_object_record.result is None and done.task_priority == "HIGH"
    assert code_of(lambda: oms.start_task(start(sdk, made.id))) == (400, "OMS.0070")
    assert code_of(lambda: oms.stop_task(sdk.StopTaskRequest(task_id=made.id))) == (400, "OMS.0066")
    copied = listing(b, dst)
    records = [k for k in copied if k.startswith("oms/")]
    plain, wanted = {k: v for k, v in copied.items() if not k.startswith("oms/")}, listing(a, src)
    assert plain == wanted, [(k, plain.get(k), wanted.get(k)) for k in set(plain) | set(wanted)
                             if plain.get(k) != wanted.get(k)][:10]
    assert any("/success_object_lists/" in k for k in records), records

    typo = oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), object_key=["no-such-prefix"]))
    assert wait(sdk, oms, typo.id, {4}).error_reason.error_code == "TRF.0012"
    oms.delete_task(sdk.DeleteTaskRequest(task_id=typo.id))

    # Again with a prefix: two tasks, newest first, by pages and by state.
    second = oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), object_key=["k000"], save_prefix="p/"))
    wait(sdk, oms, second.id, {5})
    assert len([k for k in listing(b, dst) if k.startswith("p/k000")]) == 10
    page = oms.list_tasks(sdk.ListTasksRequest(limit=1, offset=1))
    assert page.count == 2 and [t.id for t in page.tasks] == [made.id]
    assert oms.list_tasks(sdk.ListTasksRequest(status=3)).count == 0
    assert oms.list_tasks(sdk.ListTasksRequest(task_name=made.task_name)).count == 1
    assert oms.list_tasks(sdk.ListTasksRequest(offset=50)).tasks == []
    raw = json.dumps(oms.show_task(sdk.ShowTaskRequest(task_id=second.id)).to_json_object())
    assert STORE_SK not in raw and '""' not in raw.replace('"group_id": ""', "").replace(
        '"description": ""', "").replace('"app_id": ""', "").replace('"save_prefix": ""', "")
    for task in (made.id, second.id):
        oms.delete_task(sdk.DeleteTaskRequest(task_id=task))
        assert code_of(lambda: oms.show_task(sdk.ShowTaskRequest(task_id=task))) == (400, "OMS.1009")


def v2_invalid_input():
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "bad-from"), bucket(b, "bad-to")
    a.put_object(Bucket=src, Key="k", Body=b"x")
    # cl_f10
    assert raw("GET", "/v2/%s/tasks/?limit=1" % E["PROJECT"])[0] == 200
    for path in ("tasks?status=&limit=&offset=", "taskgroups?status=&limit=", "sync-tasks?status=&limit=",
                 "migration-tasks?limit=&name="):
        assert raw("GET", "/v2/%s/%s" % (E["PROJECT"], path))[0] == 200, path

    def refused(src_node=None, dst_node=None, **fields):
        body = request(sdk, ("weed-a", src), ("weed-b", dst), **fields)
        for node, changes in ((body.body.src_node, src_node), (body.body.dst_node, dst_node)):
            for name, value in (changes or {}).items():
                setattr(node, name, value)
        return code_of(lambda: oms.create_task(body))[1]

    def windows(*list_of):
        return [sdk.BandwidthPolicyDto(start=s, end=e, max_bandwidth=m) for s, e, m in list_of]

    mib = 1 << 20
    assert refused(task_type="nonsense") == "OMS.0064"
    chinese = urllib.request.Request(E["ENDPOINT"] + "/v2/%s/tasks" % E["PROJECT"], headers={"X-Language": "zh-cn"})
    try:
        urllib.request.urlopen(chinese)
    except urllib.error.HTTPError as e:
        assert "\u8eab\u4efd\u8ba4\u8bc1" in json.loads(e.read())["error_msg"]
    assert refused(src_node={"region": "nowhere"}) == "OMS.0079"
    assert refused(dst_node={"region": "nowhere"}) == "OMS.0080"
    assert refused(src_node={"region": "http://10.9.9.9:1"}) == "OMS.0079"
    assert refused(src_node={"bucket": "no-such-bucket-here"}) == "OMS.1014"
    assert refused(src_node={"sk": "wrong"}) == "OMS.0057"
    assert refused(dst_node={"bucket": "no-such-bucket-here"}) == "OMS.1020"
    assert refused(dst_node={"sk": "wrong"}) == "OMS.0058"
    assert refused(dst_node={"ak": None}) == "OMS.1004"
    assert refused(src_node={"region": "http://127.0.0.1:9"}) == "OMS.1014"
    assert refused(object_key=[]) == "OMS.0057"
    assert refused(object_key=["x" * 1025]) == "OMS.1003"
    assert refused(object_key=["none"], task_type="object") == "OMS.0089"
    assert refused(description="a<b") == "OMS.0078"
    assert refused(description="x" * 256) == "OMS.1003"
    assert refused(migrate_since=-1) == "OMS.0064"
    assert refused(bandwidth_policy=windows(("15:00", "16:01", mib), ("16:00", "17:00", mib))) == "OMS.0085"
    assert refused(bandwidth_policy=windows(*[("00:00", "00:01", mib)] * 6)) == "OMS.0083"
    assert refused(bandwidth_policy=windows(("00:00", "00:01", mib - 1))) == "OMS.0084"
    assert refused(bandwidth_policy=windows(("16:00", "15:00", mib))) == "OMS.0087"
    ok = oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), bandwidth_policy=windows(
        ("15:00", "16:00", mib), ("16:00", "17:00", mib))))
    wait(sdk, oms, ok.id, {5})
    assert code_of(lambda: oms.list_tasks(sdk.ListTasksRequest(limit=101))) == (400, "OMS.0051")
    assert code_of(lambda: oms.list_tasks(sdk.ListTasksRequest(status=9))) == (400, "OMS.0052")
    assert code_of(lambda: oms.show_task(sdk.ShowTaskRequest(task_id="abc"))) == (400, "OMS.0054")
    assert code_of(lambda: oms.show_task(sdk.ShowTaskRequest(task_id=1))) == (400, "OMS.1009")
    status, body, _ = raw("POST", "/v2/%s/tasks" % E["PROJECT"], b"{not json")
    assert status == 400 and body["error_code"] == "OMS.0067", body
    status, body, _ = raw("POST", "/v2/%s/tasks" % E["PROJECT"], b'{"src_node": 5}')
    assert body["error_code"] == "OMS.1002" and "src_node" in body["error_msg"], body
    status, body, _ = raw("GET", "/v2/%s/nonsense" % E["PROJECT"])
    assert (status, body["error_code"]) == (404, "APIGW.0101")
    status, body, _ = raw("PATCH", "/v2/%s/tasks" % E["PROJECT"])
    assert (status, body["error_code"]) == (405, "OMS.1008")
    status, body, _ = raw("GET", "/v2/%7Bproject_id%7D/tasks")
    assert status == 400 and "project_id is missing" in body["error_msg"], body


def unrecorded_failures():
    """c04: failed objects that were not recorded cannot be retried; recorded ones can."""
    sdk, oms = client()
    moto, b = s3(E["MOTO"]), s3(E["WEED_B"])
    src, dst = bucket(moto, "unrecorded-from"), bucket(b, "unrecorded-to")
    # The target would keep `x//y` under another name, so it fails.
    for key in ("good", "x//y"):
        moto.put_object(Bucket=src, Key=key, Body=b"x")
    for recorded in (False, True):
        made = oms.create_task(request(sdk, (E["MOTO"], src), ("weed-b", dst), enable_failed_object_recording=recorded))
        assert wait(sdk, oms, made.id, {4}).failed_num == 1
        again = start(sdk, made.id, migrate_failed_object=True)
        if recorded:
            oms.start_task(again)
            wait(sdk, oms, made.id, {4})
        else:
            assert code_of(lambda: oms.start_task(again)) == (400, "OMS.0167")


def task_list_order():
    """c11: what is accepted later is listed first, however long its checks took."""
    import threading
    import time
    from common import serve, until
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "order-from"), bucket(b, "order-to")
    a.put_object(Bucket=src, Key="k", Body=b"x")
    asked, made = threading.Event(), []

    def slow(_request, _body):
        asked.set()
        time.sleep(2)
        return 503, {}, b""
    at = "http://" + serve(slow)
    late = threading.Thread(target=lambda: made.append(oms.create_task(request(sdk, (at, src), ("weed-b", dst))).id))
    late.start()
    assert asked.wait(20)
    early = [oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst))).id for _ in range(3)]
    late.join()
    wanted = made + early[::-1]
    assert [t.id for t in oms.list_tasks(sdk.ListTasksRequest(limit=100)).tasks] == wanted
    listed = raw("GET", "/v1/%s/objectstorage/task?start=0&limit=10" % E["PROJECT"])[1]
    assert [t["id"] for t in listed] == wanted
    for task in early:
        wait(sdk, oms, task, {5})

    def stopped():
        try:
            oms.stop_task(sdk.StopTaskRequest(task_id=made[0]))
        except Exception as e:
            assert e.error_code == "OMS.0066", e
        return oms.show_task(sdk.ShowTaskRequest(task_id=made[0])).status in (3, 4)
    until(stopped)
