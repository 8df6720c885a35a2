"""What the scenarios share: clients, waiting, and a local web server."""
import hashlib
import hmac
import json
import os
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


def until(what, seconds=120, pause=0.05):
    """Polls until `what` gives something."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        found = what()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError("it did not happen")


def listing(store, name):
    found = {}
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", []):
            found[entry["Key"]] = (entry["Size"], entry["ETag"])
    return found


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


def raw(method, path, body=b"", headers=None, sign=True):
    """A request signed by hand, as scripts of v1 are."""
    headers = dict(headers or {})
    if sign:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers["X-Sdk-Date"] = stamp
        target, _, query = path.partition("?")
        decoded = urllib.request.unquote(target)
        canonical_path = urllib.request.quote(decoded, safe="/-_.~").rstrip("/") + "/"
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


def launcher():
    """Ends the service of this test for good; answers what starts it anew, at one address, as often as it is called."""
    import os
    import signal
    import socket
    import subprocess
    os.kill(int(E["SERVICE_PID"]), signal.SIGKILL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    E["ENDPOINT"] = "http://127.0.0.1:%d" % port
    log = open(os.path.join(os.path.dirname(E["CONFIG"]), "log"), "a")

    def begin():
        child = subprocess.Popen([E["WHIMBREL"], "serve", "--config", E["CONFIG"], "--listen", "127.0.0.1:%d" % port],
                                 stdout=subprocess.DEVNULL, stderr=log)
        while child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return child
            except OSError:
                time.sleep(0.02)
    return lambda: until(begin)
