"""Scenarios while the service is killed and started again."""
import hashlib
import json
import time

from common import bucket, client, E, launcher, listing, raw, request, s3, serve, STORE_AK, STORE_SK, until, wait


def service_kills():
    """Lists, groups, events, notifications, restores, a domain and histories, while the service is killed and started again."""
    import random
    import signal
    dice = random.Random(11)
    received = []
    hook = serve(lambda request, body: (received.append(json.loads(body)["about"]), (200, {}, b""))[1])
    with open(E["CONFIG"], "a") as f:
        f.write('\n[[notify]]\ntopic = "ops"\nwebhook = "http://%s/"\n' % hook)
    launch = launcher()
    service = launch()
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "crash-from"), bucket(b, "crash-to")
    for i in range(240):
        a.put_object(Bucket=src, Key="%s/%03d" % ("le"[i % 2], i), Body=b"x" * 60000)
    lines = "".join("l%%2F%03d\n" % i for i in range(0, 240, 2))
    b.put_object(Bucket=dst, Key="lists/l.txt", Body=lines.encode(), ContentType="text/plain")
    node = dict(cloud_type="AWS", region="weed-a", ak=STORE_AK, sk=STORE_SK, bucket=src)
    file = sdk.ListFile(list_file_key="lists/l.txt", obs_bucket=dst)
    slow = [sdk.BandwidthPolicyDto(start="00:00", end="23:59", max_bandwidth=1 << 20)]
    smn = sdk.SmnConfig(topic_urn="urn:smn:x:y:ops", trigger_conditions=["SUCCESS", "FAILURE"])
    task = oms.create_task(sdk.CreateTaskRequest(body=sdk.CreateTaskReq(
        task_type="list", src_node=sdk.SrcNodeReq(list_file=file, **node), bandwidth_policy=slow, smn_config=smn,
        dst_node=sdk.DstNodeReq(region="weed-b", bucket=dst, ak=STORE_AK, sk=STORE_SK, save_prefix="t/")))).id
    group = oms.create_task_group(sdk.CreateTaskGroupRequest(body=sdk.CreateTaskGroupReq(
        task_type="LIST", src_node=sdk.TaskGroupSrcNode(list_file=sdk.ListFile(list_file_key="lists/", obs_bucket=dst), **node),
        dst_node=sdk.TaskGroupDstNode(region="weed-b", bucket=dst, ak=STORE_AK, sk=STORE_SK, save_prefix="g/"),
        bandwidth_policy=slow, smn_config=smn))).group_id
    moto = s3(E["MOTO"])
    cold, history, copies = bucket(moto, "crash-cold"), bucket(moto, "crash-history"), bucket(moto, "crash-copies")
    for i in range(30):
        moto.put_object(Bucket=cold, Key="cold/%02d" % i, Body=b"c" * 100000, StorageClass="GLACIER")
    for name in (history, copies):
        moto.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for i in range(15):
        for n in range(3):
            moto.put_object(Bucket=history, Key="h/%02d" % i, Body=b"%d" % n * 30000)

    def domain(asked, _):
        key = asked.path[1:]
        data = b"x" * 60000
        tag = '"%s"' % hashlib.md5(data).hexdigest()
        return 200, {"ETag": tag, "Content-Length": str(len(data))}, data if key.startswith("e/") else b""
    front = sdk.SourceCdnReq(domain=serve(domain), protocol="http", authentication_type="NONE")
    restored = oms.create_task(request(sdk, (E["MOTO"], cold), ("weed-b", dst), save_prefix="r/", enable_restore=True,
                                       bandwidth_policy=slow)).id
    fronted = oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), object_key=["e/"], save_prefix="d/",
                                      source_cdn=front, bandwidth_policy=slow)).id
    versions = {"task_type": "prefix", "whimbrel": {"versions": True},
                "bandwidth_policy": [{"start": "00:00", "end": "23:59", "max_bandwidth": 1 << 20}],
                "src_node": {"cloud_type": "AWS", "region": E["MOTO"], "bucket": history, "ak": STORE_AK, "sk": STORE_SK,
                             "object_key": [""]},
                "dst_node": {"region": E["MOTO"], "bucket": copies, "ak": STORE_AK, "sk": STORE_SK}}
    status, answer, _ = raw("POST", "/v2/%s/tasks" % E["PROJECT"], json.dumps(versions).encode())
    assert status == 200, answer
    versions = answer["id"]
    made = oms.create_sync_task(sdk.CreateSyncTaskRequest(body=sdk.CreateSyncTaskReq(
        src_cloud_type="AWS", src_region="weed-a", src_bucket=src, dst_region="weed-b", dst_bucket=dst,
        src_ak=STORE_AK, src_sk=STORE_SK, dst_ak=STORE_AK, dst_sk=STORE_SK)))
    events = ["e/%03d" % i for i in range(1, 240, 2)]
    sent = 0
    for _ in range(8):
        deadline = time.time() + dice.uniform(0.05, 0.7)
        while time.time() < deadline:
            if sent < len(events):
                oms.create_sync_events(sdk.CreateSyncEventsRequest(
                    sync_task_id=made.sync_task_id, body=sdk.SyncObjectReq(object_keys=events[sent:sent + 10])))
                sent += 10
            time.sleep(0.05)
        service.send_signal(signal.SIGKILL)
        service.wait()
        service = launch()
    done = wait(sdk, oms, task, {5})
    assert (done.total_num, done.successful_num, done.skipped_num, done.failed_num) == (120, 120, 0, 0), done
    done = wait(sdk, oms, restored, {5})
    assert (done.total_num, done.successful_num, done.failed_num) == (30, 30, 0), done
    done = wait(sdk, oms, fronted, {5})
    assert (done.total_num, done.successful_num, done.failed_num) == (120, 120, 0), done
    done = wait(sdk, oms, versions, {5})
    assert done.failed_num == 0 and done.successful_num + done.skipped_num == 15, done
    made_of = lambda name: [(v["Key"], v["ETag"]) for v in moto.list_object_versions(Bucket=name)["Versions"]
                            if not v["Key"].startswith("oms/")]
    assert sorted(made_of(copies)) == sorted(made_of(history)), "no version is lost, none is doubled"
    ended = until(lambda: (lambda g: g if g.status in (5, 6) else None)(
        oms.show_task_group(sdk.ShowTaskGroupRequest(group_id=group))))
    assert (ended.status, ended.success_num, ended.skip_num) == (6, 120, 0), ended
    until(lambda: set(events[:sent]) <= set(listing(b, dst)))

    def settled():
        month = oms.show_sync_task(sdk.ShowSyncTaskRequest(sync_task_id=made.sync_task_id, query_time=int(time.time() * 1000)))
        return month if month.monthly_success_object + month.monthly_skip_object >= sent else None
    month = until(settled)
    assert month.monthly_acceptance_request == sent and month.monthly_failure_object == 0, month
    copied = set(listing(b, dst))
    assert {"t/l/%03d" % i for i in range(0, 240, 2)} <= copied and {"g/l/%03d" % i for i in range(0, 240, 2)} <= copied
    until(lambda: {str(task), group} <= set(received))
    service.send_signal(signal.SIGTERM)
    assert service.wait(12) == 0
    print("crash: 8 kills, %d events, received %s" % (sent, len(received)))
