"""Tasks whose objects a list file names."""
import os

from common import bucket, client, code_of, E, listing, s3, start, STORE_AK, STORE_SK, wait


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
    # cl_f04: uploaders that name no type, or one that says nothing.
    for name, kind in (("octets.txt", "binary/octet-stream"), ("app.txt", "application/octet-stream")):
        made = create("list", of_keys(put_list(name, "plain.txt\n", ContentType=kind)))
        assert wait(sdk, oms, made.id, {5}).total_num == 1, name
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
