"""Downloads through a domain."""
import hashlib
import os

from common import bucket, client, code_of, E, request, s3, serve, start, STORE_AK, STORE_SK, until, wait


def cdn():
    """Objects that are listed at the bucket and downloaded through a domain that checks signatures."""
    import urllib.parse
    sdk, oms = client()
    moto = s3(E["MOTO"])
    src, dst = bucket(moto, "cdn-from"), bucket(moto, "cdn-to")
    bodies = {"a b/\u65e5": b"one", "plain": b"two" * 1000, "big": os.urandom(20 << 20)}
    for key, body in bodies.items():
        moto.put_object(Bucket=src, Key=key, Body=body, ContentType="text/odd")
    served, stale, unsigned = [], [], []

    def domain(request, _):
        path, _, query = request.path.partition("?")
        stamp, nonce, uid, digest = dict(urllib.parse.parse_qsl(query)).get("auth_key", "0-0-0-0").split("-")
        if hashlib.md5(("%s-%s-%s-%s-cdnkey" % (path, stamp, nonce, uid)).encode()).hexdigest() != digest:
            if "auth_key=" not in query:
                unsigned.append(request.path)
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
    assert not unsigned, unsigned  # c10
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
