"""Many objects, and odd ones, byte for byte."""
import hashlib
import os
import time

from common import bucket, client, E, listing, request, s3, same_objects, wait


def many_objects():
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


def unusual_keys():
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
