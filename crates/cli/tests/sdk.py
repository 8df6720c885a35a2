"""Drives a running service as its users do: the official SDK for v2, boto3 for the buckets, signed raw HTTP for v1.

Run by tests/sdk.rs with the name of a scenario; everything else comes from the environment.
"""
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request

import boto3
from botocore.config import Config

E = os.environ
STORE_AK, STORE_SK = "WHIMBRELTEST", "whimbrel-test-secret"


def s3(endpoint):
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=STORE_AK, aws_secret_access_key=STORE_SK,
        region_name="us-east-1", config=Config(s3={"addressing_style": "path"}, max_pool_connections=32))


def client():
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    import huaweicloudsdkoms.v2 as sdk
    made = (sdk.OmsClient.new_builder()
            .with_credentials(BasicCredentials(E["AK"], E["SK"], E["PROJECT"]))
            .with_endpoint(E["ENDPOINT"]).build())
    return sdk, made


def code_of(call):
    from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
    try:
        call()
    except ServiceResponseException as e:
        assert e.request_id, "every error carries X-Request-Id"
        return e.status_code, e.error_code
    raise AssertionError("the call succeeded")


def bucket(store, name):
    name = "%s-%x" % (name, time.time_ns() // 1000)
    store.create_bucket(Bucket=name)
    return name


def request(sdk, src, dst, **fields):
    """A whole bucket from one region to another; regions are names of the catalogue or endpoints."""
    keys = fields.pop("object_key", [""])
    return sdk.CreateTaskRequest(body=sdk.CreateTaskReq(
        task_type=fields.pop("task_type", "prefix"),
        src_node=sdk.SrcNodeReq(cloud_type="AWS", region=src[0], bucket=src[1], ak=STORE_AK, sk=STORE_SK,
                                object_key=keys),
        dst_node=sdk.DstNodeReq(region=dst[0], bucket=dst[1], ak=STORE_AK, sk=STORE_SK,
                                save_prefix=fields.pop("save_prefix", None)),
        **fields))


def start(sdk, task_id, **fields):
    body = sdk.StartTaskReq(src_ak=STORE_AK, src_sk=STORE_SK, dst_ak=STORE_AK, dst_sk=STORE_SK, **fields)
    return sdk.StartTaskRequest(task_id=task_id, body=body)


def wait(sdk, oms, task_id, wanted, seconds=240):
    deadline = time.time() + seconds
    while time.time() < deadline:
        task = oms.show_task(sdk.ShowTaskRequest(task_id=task_id))
        if task.status in wanted:
            return task
        assert task.status in (1, 2, 6, 7), (task.status, task.error_reason)
        time.sleep(0.05)
    raise AssertionError("task %s did not reach %s" % (task_id, wanted))


def listing(store, name):
    found = {}
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", []):
            found[entry["Key"]] = (entry["Size"], entry["ETag"])
    return found


def buckets():
    """Looking at buckets before a task is created."""
    sdk, oms = client()
    a = s3(E["WEED_A"])
    name = bucket(a, "look")
    for key in ("top.txt", "a/1", "a/2", "a/b/3", "z/4"):
        a.put_object(Bucket=name, Key=key, Body=b"x" * 7)
    who = dict(cloud_type="AWS", ak=STORE_AK, sk=STORE_SK)

    listed = oms.show_bucket_list(sdk.ShowBucketListRequest(body=sdk.ListBucketsReq(**who))).body
    assert name in listed and isinstance(listed, list), listed
    where = oms.show_bucket_region(sdk.ShowBucketRegionRequest(
        body=sdk.ShowBucketRegionReq(bucket_name=name, **who)))
    assert (where.id, where.support) == ("weed-a", True), where
    missing = sdk.ShowBucketRegionReq(bucket_name="no-such-bucket-here", **who)
    assert code_of(lambda: oms.show_bucket_region(sdk.ShowBucketRegionRequest(body=missing))) == (400, "OMS.0155")
    for prefix, there in (("a/", True), ("a/b/3", True), ("nothing", False)):
        found = oms.check_prefix(sdk.CheckPrefixRequest(body=sdk.CheckPrefixReq(
            bucket_name=name, file_name=prefix, data_center="weed-a", **who)))
        assert found.exist is there, prefix

    def level(path, size=100, behind=""):
        return oms.show_bucket_objects(sdk.ShowBucketObjectsRequest(body=sdk.ShowBucketReq(
            bucket_name=name, data_center="weed-a", file_path=path, page_size=size, behind_filename=behind, **who)))
    top = level("")
    assert [(r.name, r.size) for r in top.records] == [("a/", "--"), ("top.txt", "7"), ("z/", "--")], top
    assert top.next_page is False and top.next_marker == ""
    first = level("", 1)
    assert (first.next_page, first.next_marker) == (True, "a/"), first
    assert [r.name for r in level("", 1, first.next_marker).records] == ["top.txt"]
    assert [r.name for r in level("a/").records] == ["a/1", "a/2", "a/b/"]
    assert code_of(lambda: level("", 101)) == (400, "OMS.0051")
    oms.update_privacy_agreement_record(sdk.UpdatePrivacyAgreementRecordRequest())


def lists():
    """Tasks whose objects a list file names: keys of a bucket, then URLs."""
    import http.server
    import threading
    import urllib.parse
    sdk, oms = client()
    moto = s3(E["MOTO"])
    src, dst = bucket(moto, "list-from"), bucket(moto, "list-to")
    keys = ["plain.txt", "oms/\u8003\u8bd5.doc", "a b+c", "deep//x", "lit%2Fslash"] + ["n/%04d" % i for i in range(600)]
    for key in keys + ["not/listed"]:
        moto.put_object(Bucket=src, Key=key, Body=key.encode())
    lines = [urllib.parse.quote(k, safe="+") for k in keys]
    # Unsorted, one key twice, one that is not there, an empty line, both line ends.
    text = "\r\n".join(reversed(lines)) + "\n\n" + lines[0] + "\nmissing%2Fkey\n"

    def put_list(name, text, **meta):
        moto.put_object(Bucket=dst, Key=name, Body=text.encode(), **{"ContentType": "text/plain", **meta})
        return sdk.ListFile(list_file_key=name, obs_bucket=dst)

    def create(kind, node, **fields):
        dst_node = sdk.DstNodeReq(region=E["MOTO"], bucket=dst, ak=STORE_AK, sk=STORE_SK, save_prefix="to/")
        return oms.create_task(sdk.CreateTaskRequest(body=sdk.CreateTaskReq(
            task_type=kind, src_node=node, dst_node=dst_node, **fields)))

    def of_keys(file):
        return sdk.SrcNodeReq(cloud_type="AWS", region=E["MOTO"], bucket=src, ak=STORE_AK, sk=STORE_SK, list_file=file)
    made = create("list", of_keys(put_list("lists/one.txt", text)))
    done = wait(sdk, oms, made.id, {4})
    assert (done.successful_num, done.failed_num, done.total_num) == (len(keys), 1, len(keys) + 1), done
    assert done.task_type == "list" and done.src_node.object_key is None, done
    assert done.src_node.list_file.list_file_key == "lists/one.txt" and done.progress == 1.0
    copied = {k for k in listing(moto, dst) if k.startswith("to/")}
    assert copied == {"to/" + k for k in keys}, copied ^ {"to/" + k for k in keys}
    failed = moto.get_object(Bucket=dst, Key=done.failed_object_record.list_file_key)["Body"].read().decode()
    assert failed.startswith("GET_SRC_OBJ_META_FAILURE\t") and "\tmissing/key\t" in failed, failed
    # Only what failed, once it is there.
    moto.put_object(Bucket=src, Key="missing/key", Body=b"late")
    oms.start_task(start(sdk, made.id, migrate_failed_object=True))
    again = wait(sdk, oms, made.id, {5})
    assert (again.successful_num, again.total_num, again.skipped_num) == (1, 1, 0), again

    for name, text, meta, code in (("x.csv", "a\n", {}, "OMS.0057"), ("bad.txt", "a\n", {"ContentType": "image/png"}, "OMS.0057"),
                                   ("gz.txt", "a\n", {"ContentEncoding": "gzip"}, "OMS.0057")):
        file = put_list(name, text, **meta)
        assert code_of(lambda: create("list", of_keys(file))) == (400, code), name
    assert code_of(lambda: create("list", of_keys(sdk.ListFile(list_file_key="no.txt", obs_bucket=dst))))[1] == "OMS.0057"
    empty = create("list", of_keys(put_list("empty.txt", "\n\n")))
    assert wait(sdk, oms, empty.id, {4}).error_reason.error_code == "TRF.0017"
    long = create("list", of_keys(put_list("long.txt", "x" * 70000)))
    assert wait(sdk, oms, long.id, {4}).error_reason.error_code == "TRF.0018"

    big = os.urandom(40 << 20)

    class Web(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body):
            path = self.path.split("?")[0]
            if path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/plain")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path == "/no-head" and not body:
                self.send_error(405)
                return
            if path == "/gone":
                self.send_error(404)
                return
            data = big if path == "/ranges" else ("content of " + path).encode() * 100
            start, end, status = 0, len(data), 200
            if path == "/ranges" and self.headers.get("Range"):
                start, end = self.headers["Range"][6:].split("-")
                start, end, status = int(start), int(end) + 1, 206
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            if path == "/ranges":
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", '"v1"')
            if status == 206:
                self.send_header("Content-Range", "bytes %d-%d/%d" % (start, end - 1, len(data)))
            if path == "/chunked" and body:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for i in range(0, len(data), 100):
                    piece = data[i:i + 100]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
                return
            if path != "/chunked":
                self.send_header("Content-Length", str(end - start))
            self.end_headers()
            if body:
                self.wfile.write(data[start:end])

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    at = "http://127.0.0.1:%d" % web.server_port
    pages = {"/plain?sig=1": "u/plain", "/ranges": "u/ranges.bin", "/chunked": "u/chunked", "/moved": "u/moved%20here",
             "/no-head": "u/nohead", "/gone": "u/gone"}
    text = "".join("%s%s\t%s\n" % (at, path, key) for path, key in pages.items())
    urls = sdk.SrcNodeReq(cloud_type="URLSource", list_file=put_list("urls.txt", text))
    made = create("url_list", urls)
    assert made.task_name.startswith("url-"), made
    done = wait(sdk, oms, made.id, {4})
    assert (done.successful_num, done.failed_num) == (5, 1), done
    for path, key in pages.items():
        if path != "/gone":
            got = moto.get_object(Bucket=dst, Key="to/" + urllib.parse.unquote(key))
            name = "/plain" if path in ("/moved", "/plain?sig=1") else path
            want = big if path == "/ranges" else ("content of " + name).encode() * 100
            assert got["Body"].read() == want, path
            assert got["ContentType"] == "text/html"
    restart = sdk.StartTaskReq(dst_ak=STORE_AK, dst_sk=STORE_SK)
    oms.start_task(sdk.StartTaskRequest(task_id=made.id, body=restart))
    wait(sdk, oms, made.id, {4})
    wrong = sdk.SrcNodeReq(cloud_type="URLSource", list_file=put_list("wrong.txt", at + "/plain u/x\n"))
    failed = wait(sdk, oms, create("url_list", wrong).id, {4})
    assert failed.error_reason.error_code == "TRF.0016" and "line 1" in failed.error_reason.error_msg, failed
    secret = sdk.SrcNodeReq(cloud_type="URLSource", list_file=put_list("secret.txt", "http://u:hush-hush@127.0.0.1/\tx\n"))
    failed = wait(sdk, oms, create("url_list", secret).id, {4})
    assert failed.error_reason.error_code == "TRF.0016" and "hush" not in failed.error_reason.error_msg, failed
    mixed = sdk.SrcNodeReq(cloud_type="AWS", list_file=put_list("m.txt", text))
    assert code_of(lambda: create("url_list", mixed)) == (400, "OMS.0057")


def until(what, seconds=120):
    """Polls until `what` gives something."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def serve(handler):
    """A local web server; answers its address."""
    import http.server
    import threading

    class Web(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_any(self):
            length = int(self.headers.get("Content-Length") or 0)
            status, headers, data = handler(self, self.rfile.read(length))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
        do_GET = do_HEAD = do_POST = do_any
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    return "127.0.0.1:%d" % web.server_port


def cdn():
    """Objects that are listed at the bucket and downloaded through a domain that checks signatures."""
    import urllib.parse
    sdk, oms = client()
    moto = s3(E["MOTO"])
    src, dst = bucket(moto, "cdn-from"), bucket(moto, "cdn-to")
    bodies = {"a b/\u65e5": b"one", "plain": b"two" * 1000, "big": os.urandom(20 << 20)}
    for key, body in bodies.items():
        moto.put_object(Bucket=src, Key=key, Body=body, ContentType="text/odd")
    served, stale = [], []

    def domain(request, _):
        path, _, query = request.path.partition("?")
        stamp, nonce, uid, digest = dict(urllib.parse.parse_qsl(query)).get("auth_key", "0-0-0-0").split("-")
        if hashlib.md5(("%s-%s-%s-%s-cdnkey" % (path, stamp, nonce, uid)).encode()).hexdigest() != digest:
            return 403, {}, b""
        key = urllib.parse.unquote(path[1:])
        if key not in bodies:
            return 404, {}, b""
        data, status, headers = bodies[key], 200, {"x-amz-request-id": "1"}
        headers["ETag"] = '"%s"' % (stale or [hashlib.md5(data).hexdigest()])[0]
        if request.headers.get("Range"):
            first, last = request.headers["Range"][6:].split("-")
            headers["Content-Range"] = "bytes %s-%s/%d" % (first, last, len(data))
            data, status = data[int(first):int(last) + 1], 206
        if request.command == "GET":
            served.append(key)
        headers["Content-Length"] = str(len(data))
        return status, headers, data
    at = serve(domain)

    def front(key="cdnkey", kind="ALIYUN_OSS_A"):
        return sdk.SourceCdnReq(domain=at, protocol="http", authentication_type=kind, authentication_key=key)
    who = dict(cloud_type="AWS", ak=STORE_AK, sk=STORE_SK, region=E["MOTO"], bucket=src)
    info = oms.show_cdn_info(sdk.ShowCdnInfoRequest(body=sdk.ShowCdnInfoReq(source_cdn=front(), **who)))
    assert info.is_download_available and info.is_same_cloud_type, info
    checked = {(k.key, k.is_etag_matching, k.is_object_existing) for k in info.checked_keys}
    assert {c[0] for c in checked} == set(bodies) and all(c[2] for c in checked), checked
    wrong = oms.show_cdn_info(sdk.ShowCdnInfoRequest(body=sdk.ShowCdnInfoReq(source_cdn=front("other"), **who)))
    assert not wrong.is_download_available, wrong

    made = oms.create_task(request(sdk, (E["MOTO"], src), (E["MOTO"], dst), source_cdn=front()))
    done = wait(sdk, oms, made.id, {4, 5})
    assert (done.status, done.successful_num) == (5, 3), done
    assert done.source_cdn.domain == at and done.source_cdn.authentication_type == "ALIYUN_OSS_A"
    for key, body in bodies.items():
        got = moto.get_object(Bucket=dst, Key=key)
        assert got["Body"].read() == body and got["ContentType"] == "text/odd", key
    assert set(served) == set(bodies), served
    for domain in ("127.0.0.1:9", "10.0.0.1", "169.254.169.254"):
        nowhere = sdk.SourceCdnReq(domain=domain, protocol="http", authentication_type="NONE")
        bad = request(sdk, (E["MOTO"], src), (E["MOTO"], dst), source_cdn=nowhere)
        assert code_of(lambda: oms.create_task(bad)) == (400, "OMS.0081"), domain
    keyless = request(sdk, (E["MOTO"], src), (E["MOTO"], dst), source_cdn=front(""))
    assert code_of(lambda: oms.create_task(keyless)) == (400, "OMS.1032")
    # A domain that serves another version is never mixed in.
    stale.append("0" * 32)
    bodies["plain"] = b"new" * 999
    moto.put_object(Bucket=src, Key="plain", Body=bodies["plain"])
    before = len(served)
    again = oms.create_task(request(sdk, (E["MOTO"], src), (E["MOTO"], dst), source_cdn=front()))
    until(lambda: len(served) > before + 1)
    assert moto.get_object(Bucket=dst, Key="plain")["Body"].read() == b"two" * 1000
    oms.stop_task(sdk.StopTaskRequest(task_id=again.id))
    wait(sdk, oms, again.id, {3})
    assert code_of(lambda: oms.start_task(start(sdk, again.id))) == (400, "OMS.1032")
    stale.clear()
    oms.start_task(start(sdk, again.id, source_cdn_authentication_key="cdnkey"))
    wait(sdk, oms, again.id, {5})
    assert moto.get_object(Bucket=dst, Key="plain")["Body"].read() == b"new" * 999

    for text, ok in (("http://h/a\tx\nhttps://h/b\ty\n", True), ("http://h/a x\n", False)):
        moto.put_object(Bucket=dst, Key="urls.txt", Body=text.encode(), ContentType="text/plain")
        check = sdk.CheckUrlSourceListFileFormatRequest(body=sdk.CheckUrlSourceListFileFormatReq(
            obs_bucket=dst, list_file_key="urls.txt", ak=STORE_AK, sk=STORE_SK, region=E["MOTO"]))
        if ok:
            oms.check_url_source_list_file_format(check)
        else:
            assert code_of(lambda: oms.check_url_source_list_file_format(check)) == (400, "OMS.0064")


def notices():
    """Webhooks hear of ended tasks: signed, tried again, once per end."""
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "smn-from"), bucket(b, "smn-to")
    a.put_object(Bucket=src, Key="k", Body=b"v")
    heard = []

    def hook(request, body):
        want = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
        heard.append((request.headers.get("X-Whimbrel-Signature") == want, json.loads(body)))
        return (500, {}, b"not now") if len(heard) == 1 else (200, {}, b"")
    at = serve(hook)
    with open(E["CONFIG"], "a") as f:
        f.write('\n[[notify]]\ntopic = "ops"\nwebhook = "http://%s/hook?x=1"\nsecret = "hush"\n' % at)
    os.kill(int(E["SERVICE_PID"]), 1)

    def smn(*conditions):
        return sdk.SmnConfig(topic_urn="urn:smn:here:%s:ops" % E["PROJECT"], language="en-us",
                             trigger_conditions=list(conditions))

    def create(**fields):
        return oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), **fields)).id

    def accepted():
        try:
            return create(smn_config=smn("SUCCESS", "FAILURE"))
        except Exception as e:
            assert e.error_code == "OMS.0157", e
    made = until(accepted)
    wait(sdk, oms, made, {5})

    def told():
        return oms.show_task(sdk.ShowTaskRequest(task_id=made)).smn_info
    first = until(told)
    assert (first.notify_result, first.notify_error_message, first.topic_name) == (False, "OMS.0156", "ops"), first
    info = until(lambda: told() if told().notify_result else None, 60)
    assert info.notify_error_message == "", info
    assert len(heard) == 2 and all(signed for signed, _ in heard), heard
    assert heard[1][1]["about"] == str(made) and heard[1][1]["variables"]["Task_Status"] == "succeeded", heard
    quiet = create(smn_config=smn("FAILURE"), object_overwrite_mode="FULL_OVERWRITE")
    wait(sdk, oms, quiet, {5})
    assert oms.show_task(sdk.ShowTaskRequest(task_id=quiet)).smn_info is None and len(heard) == 2
    unknown = sdk.SmnConfig(topic_urn="urn:smn:here:p:nobody", trigger_conditions=["SUCCESS"])
    assert code_of(lambda: create(smn_config=unknown)) == (400, "OMS.0157")


def crash():
    """Lists, groups, events and notices, while the service is killed again and again."""
    import random
    import signal
    import socket
    import subprocess
    dice = random.Random(11)
    heard = []
    hook = serve(lambda request, body: (heard.append(json.loads(body)["about"]), (200, {}, b""))[1])
    with open(E["CONFIG"], "a") as f:
        f.write('\n[[notify]]\ntopic = "ops"\nwebhook = "http://%s/"\n' % hook)
    os.kill(int(E["SERVICE_PID"]), signal.SIGKILL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    E["ENDPOINT"] = "http://127.0.0.1:%d" % port
    log = open(os.path.join(os.path.dirname(E["CONFIG"]), "log"), "a")

    def launch():
        def begin():
            child = subprocess.Popen([E["WHIMBREL"], "serve", "--config", E["CONFIG"], "--listen", "127.0.0.1:%d" % port],
                                     stdout=subprocess.DEVNULL, stderr=log)
            while child.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    return child
                except OSError:
                    time.sleep(0.02)
        return until(begin)
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
    until(lambda: {str(task), group} <= set(heard))
    service.send_signal(signal.SIGTERM)
    assert service.wait(12) == 0
    print("crash: 8 kills, %d events, heard %s" % (sent, len(heard)))


def restore():
    """Archived objects fail, or are restored and waited for."""
    sdk, oms = client()
    moto = s3(E["MOTO"])
    src, dst = bucket(moto, "cold-from"), bucket(moto, "cold-to")
    moto.put_object(Bucket=src, Key="warm", Body=b"warm")
    for i in range(30):
        moto.put_object(Bucket=src, Key="cold/%02d" % i, Body=b"cold %d" % i, StorageClass="GLACIER")
    moto.put_object(Bucket=src, Key="cold/large", Body=b"l" * (20 << 20), StorageClass="DEEP_ARCHIVE")
    made = oms.create_task(request(sdk, (E["MOTO"], src), (E["MOTO"], dst)))
    failed = wait(sdk, oms, made.id, {4})
    assert (failed.successful_num, failed.failed_num) == (1, 31), failed
    records = moto.get_object(Bucket=dst, Key=failed.failed_object_record.list_file_key)["Body"].read().decode()
    assert records.count("MIGRATE_SRC_ARCHIVE_OBJ_FAILURE") == 31, records
    made = oms.create_task(request(sdk, (E["MOTO"], src), (E["MOTO"], dst), enable_restore=True))
    done = wait(sdk, oms, made.id, {4, 5})
    assert (done.status, done.successful_num, done.skipped_num, done.failed_num) == (5, 31, 1, 0), done
    assert done.total_num == 32 and done.enable_restore is True
    for key in ("cold/07", "cold/large"):
        want = moto.get_object(Bucket=src, Key=key)["Body"].read()
        assert moto.get_object(Bucket=dst, Key=key)["Body"].read() == want, key


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


def v2():
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
    assert shown.migrate_since == 123456789000 and shown.description == "\u4e2d\u6587"
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


def bad_input():
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "bad-from"), bucket(b, "bad-to")
    a.put_object(Bucket=src, Key="k", Body=b"x")

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


def raw(method, path, body=b"", headers=None, sign=True):
    """A request signed by hand, as scripts of v1 are."""
    headers = dict(headers or {})
    if sign:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers["X-Sdk-Date"] = stamp
        target, _, query = path.partition("?")
        decoded = urllib.request.unquote(target)
        canonical_path = urllib.request.quote(decoded, safe="/-_.~") + "/"
        pairs = sorted(p if "=" in p else p + "=" for p in query.split("&") if p)
        canonical = "\n".join([method, canonical_path, "&".join(pairs), "x-sdk-date:" + stamp, "", "x-sdk-date",
                               hashlib.sha256(body).hexdigest()])
        text = "\n".join(["SDK-HMAC-SHA256", stamp, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(E["SK"].encode(), text.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = "SDK-HMAC-SHA256 Access=%s, SignedHeaders=x-sdk-date, Signature=%s" % (
            E["AK"], signature)
    call = urllib.request.Request(E["ENDPOINT"] + path, data=body or None, method=method, headers=headers)
    try:
        with urllib.request.urlopen(call) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None, answer.headers
    except urllib.error.HTTPError as e:
        text = e.read()
        assert e.headers.get("X-Request-Id")
        return e.code, json.loads(text), e.headers


def v1():
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


def identity():
    status, body, _ = raw("GET", "/v2/%s/tasks" % E["PROJECT"], sign=False)
    assert (status, body["error_code"]) == (401, "APIGW.0301") and "x-auth-token not found" in body["error_msg"]
    status, found, _ = raw("GET", "/v3/projects?name=lab")
    assert status == 200 and [p["id"] for p in found["projects"]] == [E["PROJECT"]]
    assert raw("GET", "/v3/projects?name=other")[1]["projects"] == []
    assert len(raw("GET", "/v3/auth/domains")[1]["domains"]) == 1
    ask = {"auth": {"identity": {"methods": ["hw_ak_sk"], "hw_ak_sk": {
        "access": {"key": E["AK"]}, "secret": {"key": E["SK"]}}}, "scope": {"project": {"name": "lab"}}}}
    status, token, headers = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
    assert status == 201 and token["token"]["project"]["id"] == E["PROJECT"] and len(token["token"]["expires_at"]) == 27
    mine = {"X-Auth-Token": headers["X-Subject-Token"], "Authorization": ""}
    assert raw("GET", "/v2/%s/tasks" % E["PROJECT"], headers=mine, sign=False)[0] == 200
    assert raw("GET", "/v2/%s/tasks" % ("0" * 32), headers=mine, sign=False)[0] == 403
    ask["auth"]["identity"]["hw_ak_sk"]["secret"]["key"] = "wrong"
    for _ in range(6):
        status, refused, _ = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
        assert status == 401 and refused["error"]["code"] == 401
    status, refused, _ = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
    assert "locked" in refused["error"]["message"], refused
    # A client that knows only its region finds its project by itself.
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.region.region import Region
    import huaweicloudsdkoms.v2 as sdk
    credentials = BasicCredentials(E["AK"], E["SK"]).with_iam_endpoint(E["ENDPOINT"])
    oms = (sdk.OmsClient.new_builder().with_credentials(credentials)
           .with_region(Region("lab", E["ENDPOINT"])).build())
    assert oms.list_tasks(sdk.ListTasksRequest()).count == 0


def same_objects(a, src, b, dst, keys):
    from concurrent.futures import ThreadPoolExecutor

    def compare(key):
        x, y = a.get_object(Bucket=src, Key=key), b.get_object(Bucket=dst, Key=key)
        assert x["Body"].read() == y["Body"].read(), key
        assert x["ContentType"] == y["ContentType"], key
        assert x["Metadata"] == y["Metadata"], (key, x["Metadata"], y["Metadata"])
        for name in ("CacheControl", "ContentLanguage", "ContentEncoding", "ContentDisposition"):
            assert x.get(name) == y.get(name), (key, name)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(compare, keys))


def many():
    """5,000 objects of 0 B to 200 MiB between two SeaweedFS, with headers and user metadata."""
    from concurrent.futures import ThreadPoolExecutor
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "many-from"), bucket(b, "many-to")
    keys = ["d%02d/f %04d+%%41 \u65e5\u672c.bin" % (i % 37, i) for i in range(4980)]

    def put(key):
        i = int(hashlib.md5(key.encode()).hexdigest()[:6], 16)
        a.put_object(Bucket=src, Key=key, Body=key.encode() * (i % 50), ContentType="text/x-%d" % (i % 5),
                     CacheControl="no-cache", Metadata={"owner": "team-%d" % (i % 7), "k": "v w"})
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, keys))
    for name in ("emoji/\U0001f600", "nfc/caf\u00e9", "nfc/cafe\u0301", "case/A", "case/a", "sp ace /x ", "q?a=1&b#c"):
        a.put_object(Bucket=src, Key=name, Body=name.encode(), Metadata={"n": "1"})
        keys.append(name)
    a.put_object(Bucket=src, Key="empty", Body=b"")
    keys.append("empty")
    block = os.urandom(1 << 20)
    for size in (1, 5, 17, 33, 64):
        a.put_object(Bucket=src, Key="size/%d" % size, Body=block * size)
        keys.append("size/%d" % size)
    upload = a.create_multipart_upload(Bucket=src, Key="size/200", ContentType="big/part", Metadata={"p": "q"})
    parts = []
    for n in range(1, 26):
        part = a.upload_part(Bucket=src, Key="size/200", UploadId=upload["UploadId"], PartNumber=n, Body=block * 8)
        parts.append({"PartNumber": n, "ETag": part["ETag"]})
    a.complete_multipart_upload(Bucket=src, Key="size/200", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts})
    keys.append("size/200")
    began = time.time()
    made = oms.create_task(request(sdk, (E["WEED_A"], src), (E["WEED_B"], dst), enable_metadata_migration=True))
    done = wait(sdk, oms, made.id, {4, 5})
    assert done.status == 5, done
    assert done.successful_num == len(keys) == done.total_num, (done.successful_num, len(keys))
    same_objects(a, src, b, dst, keys)
    etag = lambda store, name: store.head_object(Bucket=name, Key="size/200")["ETag"]
    assert etag(a, src) == etag(b, dst), "the source's part layout is kept"
    print("many: %d objects in %.1f s, all equal" % (len(keys), time.time() - began))


def hostile():
    """Keys that only a faithful server can hold, on moto."""
    sdk, oms = client()
    moto = s3(E["MOTO"])
    src, dst = bucket(moto, "hostile-from"), bucket(moto, "hostile-to")
    keys = ["a b", "a+b", "lit%2Fslash", "x//y", "/lead", "trail/", "\U0001f600/\U0001f601", "caf\u00e9", "cafe\u0301",
            "k" * 1024, "Case", "case", "per%41cent", "a/../b", "./c", "sp ", " lead", "<&>\"'", "tab\there", "\\back",
            "?q=1#f", "a;b,c=d", "%", "%zz", "+", "~tilde*star"]
    for key in keys:
        moto.put_object(Bucket=src, Key=key, Body=b"" if key.endswith("/") else key.encode(),
                        ContentType="text/odd", Metadata={"x": "y z"}, Tagging="team=a%20b")
    made = oms.create_task(request(sdk, (E["MOTO"], src), (E["MOTO"], dst), enable_metadata_migration=True))
    done = wait(sdk, oms, made.id, {4, 5})
    assert done.status == 5, done
    copied = {k: v for k, v in listing(moto, dst).items() if not k.startswith("oms/")}
    assert copied == listing(moto, src), set(listing(moto, src)) ^ set(copied)
    same_objects(moto, src, moto, dst, keys)
    tags = moto.get_object_tagging(Bucket=dst, Key="a+b")["TagSet"]
    assert tags == [{"Key": "team", "Value": "a b"}], tags
    print("hostile: %d keys arrived byte for byte" % len(keys))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
