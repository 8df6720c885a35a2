"""Azure and Google, as sources and as destinations, against Azurite and fake-gcs-server."""
import base64
import hashlib
import json
import os
import time
import urllib.parse
import urllib.request

from common import (bucket, client, code_of, E, listing, raw, request, s3, serve, start, STORE_AK, STORE_SK, until,
                    wait)

AZURE, AZURE_KEY = "whimbreltest", "d2hpbWJyZWwtdGVzdC1zZWNyZXQ="


def blobs():
    from azure.storage.blob import BlobServiceClient
    return BlobServiceClient("%s/%s" % (E["AZURITE"], AZURE), credential=AZURE_KEY,
                             api_version="2026-02-06")


def connection(key=AZURE_KEY, host=None):
    return "DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=%s/%s;" % (
        AZURE, key, host or E["AZURITE"], AZURE)


def fill(store, name):
    """Objects of all sizes with headers and metadata; answers their bytes."""
    bodies = {"d%d/f %02d+%%41 \u65e5" % (i % 5, i): os.urandom(i * 17) for i in range(120)}
    bodies["empty"] = b""
    bodies["large"] = os.urandom(40 << 20)
    for key, body in bodies.items():
        store.put_object(Bucket=name, Key=key, Body=body, ContentType="text/x-odd", CacheControl="no-cache",
                         ContentLanguage="de", Metadata={"my-key": "v w", "plain": "1"})
    return bodies


def azure():
    sdk, oms = client()
    weed, service = s3(E["WEED_A"]), blobs()
    src, back = bucket(weed, "az-from"), bucket(weed, "az-back")
    bodies = fill(weed, src)
    box = "az-%x" % (time.time_ns() // 1000)
    service.create_container(box)

    # To Azure, by account and key, stopped on the way.
    slow = [sdk.BandwidthPolicyDto(start="00:00", end="23:59", max_bandwidth=8 << 20)]
    body = request(sdk, ("weed-a", src), ("azurite", box), enable_metadata_migration=True, bandwidth_policy=slow)
    body.body.dst_node.ak, body.body.dst_node.sk = AZURE, AZURE_KEY
    made = oms.create_task(body)
    until(lambda: oms.show_task(sdk.ShowTaskRequest(task_id=made.id)).successful_num > 20)
    oms.stop_task(sdk.StopTaskRequest(task_id=made.id))
    wait(sdk, oms, made.id, {3})
    oms.update_bandwidth_policy(sdk.UpdateBandwidthPolicyRequest(
        task_id=made.id, body=sdk.UpdateBandwidthPolicyReq(bandwidth_policy=[])))
    again = start(sdk, made.id)
    again.body.dst_ak, again.body.dst_sk = AZURE, AZURE_KEY
    oms.start_task(again)
    done = wait(sdk, oms, made.id, {4, 5})
    assert (done.status, done.successful_num) == (5, len(bodies)), done
    there = service.get_container_client(box)
    for key, data in bodies.items():
        blob = there.get_blob_client(key)
        assert blob.download_blob().readall() == data, key
        about = blob.get_blob_properties()
        content = about.content_settings
        assert (content.content_type, content.cache_control, content.content_language) == ("text/x-odd", "no-cache", "de")
        assert about.metadata["plain"] == "1" and about.metadata["rename_my_key"] == "v w", about.metadata
    records = [b.name for b in there.list_blobs(name_starts_with="oms/task/%s/" % made.task_name)]
    assert any("/success_object_lists/" in name for name in records), records

    # From Azure, by connection string.
    def node(**fields):
        return sdk.SrcNodeReq(**dict(dict(cloud_type="Azure", bucket=box, object_key=["d", "empty", "large"],
                                          connection_string=connection()), **fields))
    body = request(sdk, ("weed-a", src), ("weed-a", back), enable_metadata_migration=True)
    body.body.src_node = node()
    made = oms.create_task(body)
    done = wait(sdk, oms, made.id, {4, 5})
    assert (done.status, done.successful_num) == (5, len(bodies)), done
    proof = raw("GET", "/v2/%s/tasks/%d" % (E["PROJECT"], made.id))[1]["whimbrel"]["proof"]
    assert proof["size"] <= 1, proof
    for key, data in bodies.items():
        got = weed.get_object(Bucket=back, Key=key)
        assert got["Body"].read() == data and got["ContentType"] == "text/x-odd", key
        assert got["Metadata"] == {"my-key": "v w", "plain": "1"}, got["Metadata"]
    text = json.dumps(oms.show_task(sdk.ShowTaskRequest(task_id=made.id)).to_json_object())
    assert AZURE_KEY not in text and "AccountKey" not in text

    # Looking at it, and what is refused.
    who = dict(cloud_type="Azure", connection_string=connection())
    seen = oms.show_bucket_list(sdk.ShowBucketListRequest(body=sdk.ListBucketsReq(**who))).body
    assert box in seen, seen
    page = oms.show_bucket_objects(sdk.ShowBucketObjectsRequest(body=sdk.ShowBucketReq(
        bucket_name=box, data_center="", file_path="", page_size=3, behind_filename="", **who)))
    assert [r.name for r in page.records] == ["d0/", "d1/", "d2/"] and page.next_page, page
    for wrong, codes in ((node(connection_string=connection("AAAA")), {"OMS.0057"}),
                         (node(bucket="no-such-box"), {"OMS.1014"}),
                         (node(connection_string="nonsense"), {"OMS.0057"}),
                         (node(connection_string=connection(host="http://10.0.0.1:1")), {"OMS.0057"})):
        body.body.src_node = wrong
        status, code = code_of(lambda: oms.create_task(body))
        assert status == 400 and code in codes, (code, wrong)
    region = oms.show_bucket_region(sdk.ShowBucketRegionRequest(body=sdk.ShowBucketRegionReq(bucket_name=box, **who)))
    assert region.id == "azurite", region

    # Blobs with snapshots are not deleted, and access rules that cannot be copied are rejected, not ignored.
    there.get_blob_client("d0/superfluous").upload_blob(b"old")
    there.get_blob_client("d0/with a past").upload_blob(b"old")
    there.get_blob_client("d0/with a past").create_snapshot()
    plan = {"task_type": "prefix", "whimbrel": {"delete": True},
            "src_node": {"cloud_type": "AWS", "region": "weed-a", "bucket": src, "ak": STORE_AK, "sk": STORE_SK,
                         "object_key": ["d0/"]},
            "dst_node": {"region": "azurite", "bucket": box, "ak": AZURE, "sk": AZURE_KEY}}
    made = raw("POST", "/v2/%s/tasks" % E["PROJECT"], json.dumps(plan).encode())[1]
    done = wait(sdk, oms, made["id"], {4})
    assert done.failed_num == 1, done
    deleted = raw("GET", "/v2/%s/tasks/%d" % (E["PROJECT"], made["id"]))[1]["whimbrel"]["deleted_num"]
    assert deleted == 1 and there.get_blob_client("d0/with a past").exists()
    plan["whimbrel"] = {"acl": True}
    made = raw("POST", "/v2/%s/tasks" % E["PROJECT"], json.dumps(plan).encode())[1]
    refused = wait(sdk, oms, made["id"], {4})
    assert "remove `acl`" in refused.error_reason.error_msg, refused
    print("azure: %d blobs there and back" % len(bodies))


def service_account(at):
    """A key file whose tokens a local server gives, and that server's memory."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    given = []

    def tokens(_, body):
        form = urllib.parse.parse_qs(body.decode())
        assertion = form["assertion"][0]
        text, _, signature = assertion.rpartition(".")
        padded = lambda t: base64.urlsafe_b64decode(t + "=" * (-len(t) % 4))
        try:
            key.public_key().verify(padded(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(padded(text.split(".")[1]))
            assert claims["iss"] == "mover@lab" and claims["exp"] - claims["iat"] == 3600
        except Exception:
            return 400, {}, b'{"error": "invalid_grant"}'
        given.append(claims)
        return 200, {"Content-Type": "application/json"}, b'{"access_token": "tok", "expires_in": 3600}'
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                            serialization.NoEncryption()).decode()
    return json.dumps({"type": "service_account", "client_email": "mover@lab", "private_key": pem,
                       "project_id": "lab", "token_uri": "http://%s/token" % serve(tokens)}), given


def gcs(method, path, body=None, kind="application/json"):
    call = urllib.request.Request(E["GCS"] + path, data=body, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(call) as answer:
        return answer.read()


def google():
    sdk, oms = client()
    weed = s3(E["WEED_A"])
    src, back = bucket(weed, "gs-from"), bucket(weed, "gs-back")
    bodies = fill(weed, src)
    box = "gs-%x" % (time.time_ns() // 1000)
    gcs("POST", "/storage/v1/b?project=lab", json.dumps({"name": box}).encode())
    key_file, given = service_account(E["GCS"])

    # To Google: the destination's key file is an extension, which SDKs do not have.
    body = {"task_type": "prefix", "enable_metadata_migration": True,
            "src_node": {"cloud_type": "AWS", "region": "weed-a", "bucket": src, "ak": STORE_AK, "sk": STORE_SK,
                         "object_key": [""]},
            "dst_node": {"region": "gcs", "bucket": box, "json_auth_file": key_file}}
    status, made, _ = raw("POST", "/v2/%s/tasks" % E["PROJECT"], json.dumps(body).encode(),
                          {"Content-Type": "application/json"})
    assert status == 200, made
    done = wait(sdk, oms, made["id"], {4, 5})
    assert (done.status, done.successful_num) == (5, len(bodies)), done
    assert len(given) == 2, "one exchange for the check, one for the task"
    items = {}
    for item in json.loads(gcs("GET", "/storage/v1/b/%s/o?maxResults=1000" % box))["items"]:
        items[item["name"]] = item
    assert not [n for n in items if n.startswith(".whimbrel/")], "parts are gone"
    assert any(n.startswith("oms/task/%s/success_object_lists/" % made["task_name"]) for n in items)
    for name, data in bodies.items():
        item = items[name]
        assert int(item["size"]) == len(data) and item["contentType"] == "text/x-odd", item
        assert item["metadata"] == {"my-key": "v w", "plain": "1"}, item
        got = gcs("GET", "/storage/v1/b/%s/o/%s?alt=media" % (box, urllib.parse.quote(name, safe="")))
        assert got == data, name

    # From Google, with the key file as base64.
    body = request(sdk, ("weed-a", src), ("weed-a", back), enable_metadata_migration=True)
    body.body.src_node = sdk.SrcNodeReq(cloud_type="Google", region="gcs", bucket=box,
                                        object_key=["d", "empty", "large"],
                                        json_auth_file=base64.b64encode(key_file.encode()).decode())
    made = oms.create_task(body)
    done = wait(sdk, oms, made.id, {4, 5})
    assert (done.status, done.successful_num) == (5, len(bodies)), done
    for key, data in bodies.items():
        got = weed.get_object(Bucket=back, Key=key)
        assert hashlib.md5(got["Body"].read()).digest() == hashlib.md5(data).digest(), key
        assert got["Metadata"] == {"my-key": "v w", "plain": "1"}, got["Metadata"]
    text = json.dumps(oms.show_task(sdk.ShowTaskRequest(task_id=made.id)).to_json_object())
    assert "PRIVATE KEY" not in text and "json_auth" not in text

    body.body.src_node.json_auth_file = '{"type": "service_account"}'
    assert code_of(lambda: oms.create_task(body)) == (400, "OMS.0057")
    other = json.loads(key_file)
    other["client_email"] = "stranger@lab"
    body.body.src_node.json_auth_file = json.dumps(other)
    assert code_of(lambda: oms.create_task(body)) == (400, "OMS.0057")
    other["token_uri"] = "http://10.0.0.1/token"
    body.body.src_node.json_auth_file = json.dumps(other)
    assert code_of(lambda: oms.create_task(body)) == (400, "OMS.0057")
    print("google: %d objects there and back" % len(bodies))


def vendor_checksums():
    """CRC-64/ECMA decides and proves between buckets whose ETags say nothing; the requester pays."""
    sdk, oms = client()

    def task(**fields):
        body = request(sdk, ("obs-a", "paid-from"), ("obs-b", "to"), enable_requester_pays=True,
                       object_overwrite_mode="CRC64_COMPARISON_OVERWRITE", consistency_check="crc64", **fields)
        body.body.src_node.cloud_type = "HuaweiCloud"
        made = oms.create_task(body)
        done = wait(sdk, oms, made.id, {4, 5})
        assert done.status == 5, done
        return done, raw("GET", "/v2/%s/tasks/%d" % (E["PROJECT"], made.id))[1]["whimbrel"]["proof"]
    done, proof = task()
    assert (done.successful_num, done.skipped_num) == (41, 0), done
    assert proof == {"digest": 0, "etag": 0, "crc64": 41, "size": 0}, proof
    done, proof = task()
    assert (done.successful_num, done.skipped_num) == (0, 41), done
    body = request(sdk, ("obs-a", "paid-from"), ("obs-b", "to"))
    body.body.src_node.cloud_type = "HuaweiCloud"
    assert code_of(lambda: oms.create_task(body)) == (400, "OMS.0057")
