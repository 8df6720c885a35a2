"""OMS v1 by hand-signed requests."""
import json
import time

from common import bucket, E, listing, raw, s3, STORE_AK, STORE_SK


def v1_lifecycle():
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "v1-from"), bucket(b, "v1-to")
    for i in range(50):
        a.put_object(Bucket=src, Key="k%02d" % i, Body=b"x" * 300000)
    base = "/v1/%s/objectstorage/task" % E["PROJECT"]
    body = {
        "src_node": {"region": "weed-a", "ak": STORE_AK, "sk": STORE_SK, "bucket": src, "cloud_type": "AWS",
                     "object_key": {"path": "", "keys": []}},
        "dst_node": {"region": "weed-b", "ak": STORE_AK, "sk": STORE_SK, "bucket": dst, "object_key": "/"},
        "enableKMS": False, "thread_num": 20,
        "bandwidth_policy": [{"start": "00:00", "end": "23:59", "max_bandwidth": 5 << 20}]}
    # c08, c09
    for wrong, code in (({"thread_num": 51}, "S3M.0059"), ({"thread_num": -1}, "S3M.0059"), ({"description": "a (b)"}, "S3M.0078")):
        assert raw("POST", base, json.dumps(dict(body, **wrong)).encode())[1]["error_code"] == code, wrong
    status, made, _ = raw("POST", base, json.dumps(body).encode())
    assert status == 200, made
    task = "%s/%d" % (base, made["id"])
    while raw("GET", task)[1]["status"] == 1:
        time.sleep(0.02)
    assert raw("PUT", task, b'{"operation": "nonsense"}')[1]["error_code"] == "S3M.0064"
    status, answer, _ = raw("PUT", task, b'{"operation": "stop"}')
    assert (status, answer) == (200, None), answer
    while raw("GET", task)[1]["status"] == 2:
        time.sleep(0.02)
    shown = raw("GET", task)[1]
    assert shown["status"] == 3 and shown["thread_num"] == 20 and shown["src_node"]["object_key"] == ["/"], shown
    assert shown["error_reason"] == "" and isinstance(shown["failed_object_record"], str)
    assert raw("PUT", task, b'{"operation": "stop"}')[1]["error_code"] == "S3M.0066"
    change = {"operation": "change_bandwidthpolicy",
              "bandwidth_policy": [{"start": "00:00", "end": "23:59", "max_bandwidth": 50000000}]}
    assert raw("PUT", task, json.dumps(change).encode())[0] == 200
    go = {"operation": "start", "source_ak": STORE_AK, "source_sk": STORE_SK, "target_ak": STORE_AK,
          "target_sk": STORE_SK, "migration_failed_object": False}
    assert raw("PUT", task, json.dumps(go).encode())[0] == 200
    while raw("GET", task)[1]["status"] in (1, 2):
        time.sleep(0.05)
    ended = raw("GET", task)[1]
    assert (ended["status"], ended["success_num"], ended["fail_num"]) == (5, 50, 0), ended
    assert raw("PUT", task, json.dumps(go).encode())[1]["error_code"] == "S3M.0070"
    listed = raw("GET", base + "?start=0&limit=10")[1]
    assert [t["id"] for t in listed] == [made["id"]]
    assert raw("GET", base + "?totalcount=true&state=5")[1] == {"taskcount": 1}
    assert raw("GET", base + "?start=0&limit=101")[1]["error_code"] == "S3M.0051"
    assert raw("GET", "/v1/%s/objectstorage/version" % E["PROJECT"])[1]["versions"][0]["id"] == "v1.0"
    assert {k: v for k, v in listing(b, dst).items() if not k.startswith("oms/")} == listing(a, src)
    assert raw("DELETE", task)[0] == 200
    assert raw("GET", task)[1]["error_code"] == "S3M.0054"
