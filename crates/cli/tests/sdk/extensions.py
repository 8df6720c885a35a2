"""Scenarios of the extensions of the API: the object `whimbrel` of requests and replies, and reports."""
import csv
import io
import json
import urllib.request

from common import bucket, client, E, listing, raw, s3, STORE_AK, STORE_SK, until, wait


def create(src, dst, rules, **fields):
    body = dict({"task_type": "prefix", "whimbrel": rules,
                 "src_node": {"cloud_type": "AWS", "region": src[0], "bucket": src[1], "ak": STORE_AK, "sk": STORE_SK,
                              "object_key": fields.pop("object_key", [""])},
                 "dst_node": {"region": dst[0], "bucket": dst[1], "ak": STORE_AK, "sk": STORE_SK,
                              "save_prefix": fields.pop("save_prefix", "")}}, **fields)
    status, made, _ = raw("POST", "/v2/%s/tasks" % E["PROJECT"], json.dumps(body).encode(),
                          {"Content-Type": "application/json"})
    return status, made


def shown(task_id):
    return raw("GET", "/v2/%s/tasks/%d" % (E["PROJECT"], task_id))[1]


def plain(store, name):
    return {k: v for k, v in listing(store, name).items() if not k.startswith("oms/")}


def filters():
    """Globs, a dry run, deletions, and reports in both forms."""
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "rules-from"), bucket(b, "rules-to")
    for i in range(60):
        a.put_object(Bucket=src, Key="keep/%02d.txt" % i, Body=b"x" * i)
        a.put_object(Bucket=src, Key="drop/%02d.tmp" % i, Body=b"y")
    ends = ((E["WEED_A"], src), (E["WEED_B"], dst))
    rules = {"include": ["**.txt"], "exclude": ["keep/0*"], "dry_run": True, "reports": ["csv", "parquet"]}
    status, made = create(*ends, rules)
    assert status == 200, made
    wait(sdk, oms, made["id"], {5})
    task = shown(made["id"])
    assert (task["skipped_num"], task["successful_num"]) == (50, 0) and task["whimbrel"]["dry_run"], task
    assert listing(b, dst) == {}, "a dry run writes nothing"
    report = urllib_get("/v2/%s/tasks/%d/report?form=csv" % (E["PROJECT"], made["id"]))
    rows = list(csv.DictReader(io.StringIO(report.decode())))
    assert len(rows) == 50 and {r["result"] for r in rows} == {"would be copied"}, rows[:2]

    rules["dry_run"] = False
    status, made = create(*ends, rules)
    wait(sdk, oms, made["id"], {5})
    assert sorted(plain(b, dst)) == ["keep/%02d.txt" % i for i in range(10, 60)]
    records = [k for k in listing(b, dst) if k.startswith("oms/task/%s/reports/" % made["task_name"])]
    assert {k.rsplit(".", 1)[1] for k in records} == {"csv", "parquet"}, records
    for key in records:
        data = b.get_object(Bucket=dst, Key=key)["Body"].read()
        if key.endswith(".csv"):
            rows = list(csv.DictReader(io.StringIO(data.decode())))
            assert len(rows) == 50 and {r["outcome"] for r in rows} == {"copied"} and rows[0]["method"] == "etag"
        else:
            assert data[:4] == data[-4:] == b"PAR1"

    # Deletions: only what the selection and the globs cover, only below the prefix, never records.
    b.put_object(Bucket=dst, Key="p/keep/superfluous.txt", Body=b"z")
    b.put_object(Bucket=dst, Key="p/keep/other.tmp", Body=b"z")
    b.put_object(Bucket=dst, Key="elsewhere.txt", Body=b"z")
    rules = {"include": ["**.txt"], "delete": True}
    status, made = create(*ends, dict(rules, dry_run=True), save_prefix="p/", object_key=["keep/"])
    wait(sdk, oms, made["id"], {5})
    assert "p/keep/superfluous.txt" in listing(b, dst) and shown(made["id"])["skipped_num"] == 61
    status, made = create(*ends, rules, save_prefix="p/", object_key=["keep/"])
    wait(sdk, oms, made["id"], {5})
    task = shown(made["id"])
    assert (task["successful_num"], task["whimbrel"]["deleted_num"]) == (60, 1), task
    after = listing(b, dst)
    assert "p/keep/superfluous.txt" not in after and {"p/keep/other.tmp", "elsewhere.txt"} <= set(after)
    for rules, field in (({"reports": ["xml"]}, "reports"), ({"delete": 1}, "delete"), ({"include": "x"}, "include")):
        status, refused = create(*ends, rules)
        assert status == 400 and "whimbrel.%s" % field in refused["error_msg"], refused


def urllib_get(path):
    """The bytes of an answer that is no JSON."""
    import hashlib
    import hmac
    import time
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target, _, query = path.partition("?")
    canonical = "\n".join(["GET", target + "/", query, "x-sdk-date:" + stamp, "", "x-sdk-date",
                           hashlib.sha256(b"").hexdigest()])
    text = "\n".join(["SDK-HMAC-SHA256", stamp, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(E["SK"].encode(), text.encode(), hashlib.sha256).hexdigest()
    call = urllib.request.Request(E["ENDPOINT"] + path, headers={
        "X-Sdk-Date": stamp, "Authorization":
        "SDK-HMAC-SHA256 Access=%s, SignedHeaders=x-sdk-date, Signature=%s" % (E["AK"], signature)})
    with urllib.request.urlopen(call) as answer:
        return answer.read()


def versions():
    """Histories arrive whole, deletions included; access rules are copied; a second run adds what is new."""
    sdk, oms = client()
    moto = s3(E["MOTO"])
    src, dst = bucket(moto, "history-from"), bucket(moto, "history-to")
    moto.put_bucket_versioning(Bucket=src, VersioningConfiguration={"Status": "Enabled"})
    for i in range(3):
        moto.put_object(Bucket=src, Key="thrice", Body=b"v%d" % i, Metadata={"n": str(i)})
    moto.put_object(Bucket=src, Key="gone", Body=b"was here")
    moto.delete_object(Bucket=src, Key="gone")
    moto.put_object(Bucket=src, Key="big", Body=b"1" * (20 << 20))
    moto.put_object(Bucket=src, Key="big", Body=b"2" * (20 << 20))
    moto.put_object(Bucket=src, Key="open", Body=b"for all", ACL="public-read")
    ends = ((E["MOTO"], src), (E["MOTO"], dst))
    rules = {"versions": True, "acl": True}
    status, made = create(*ends, rules, enable_metadata_migration=True)
    assert status == 200, made
    refused = wait(sdk, oms, made["id"], {4})
    assert "versioning is not enabled" in refused.error_reason.error_msg, refused.error_reason
    moto.put_bucket_versioning(Bucket=dst, VersioningConfiguration={"Status": "Enabled"})

    def history(name):
        page = moto.list_object_versions(Bucket=name)
        # The server lists the newest first, deletions apart, and tells times in whole seconds.
        found = [(v["Key"], v["ETag"]) for v in reversed(page.get("Versions", []))]
        found += [(v["Key"], "deleted") for v in page.get("DeleteMarkers", []) if v["IsLatest"]]
        return sorted((v for v in found if not v[0].startswith("oms/")), key=lambda v: v[0])
    status, made = create(*ends, rules, enable_metadata_migration=True)
    done = wait(sdk, oms, made["id"], {4, 5})
    assert (done.status, done.successful_num) == (5, 4), done
    assert history(dst) == history(src), (history(src), history(dst))
    grants = moto.get_object_acl(Bucket=dst, Key="open")["Grants"]
    assert any(g["Grantee"].get("URI", "").endswith("AllUsers") and g["Permission"] == "READ" for g in grants), grants
    assert moto.get_object(Bucket=dst, Key="thrice")["Metadata"] == {"n": "2"}
    moto.put_object(Bucket=src, Key="thrice", Body=b"v3")
    status, made = create(*ends, rules)
    done = wait(sdk, oms, made["id"], {5})
    assert (done.successful_num, done.skipped_num) == (1, 3), done
    assert history(dst) == history(src)
    status, refused = create(*ends, dict(rules, delete=True), migrate_since=5)
    assert status == 400 and "whimbrel.delete" in refused["error_msg"], refused


def sync_by_listing():
    """A sync task that also looks for itself, and that propagates deletions."""
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "sweep-from"), bucket(b, "sweep-to")
    for i in range(20):
        a.put_object(Bucket=src, Key="before/%02d" % i, Body=b"x")
    b.put_object(Bucket=dst, Key="superfluous", Body=b"x")
    body = {"src_cloud_type": "AWS", "src_region": "weed-a", "src_bucket": src, "src_ak": STORE_AK, "src_sk": STORE_SK,
            "dst_region": "weed-b", "dst_bucket": dst, "dst_ak": STORE_AK, "dst_sk": STORE_SK,
            "whimbrel": {"delete": True, "sweep_minutes": 1}}
    path = "/v2/%s/sync-tasks" % E["PROJECT"]
    status, made, _ = raw("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert status == 200, made
    one = dict(sync_task_id=made["sync_task_id"])
    # The first look finds what stood there before, without an event.
    until(lambda: sorted(plain(b, dst)) == ["before/%02d" % i for i in range(20)])
    # A key that is named by an event and is not there any more is removed.
    a.delete_object(Bucket=src, Key="before/07")
    oms.create_sync_events(sdk.CreateSyncEventsRequest(body=sdk.SyncObjectReq(object_keys=["before%2F07"]), **one))
    until(lambda: "before/07" not in listing(b, dst))
    # What no event told of is found by the next look.
    a.put_object(Bucket=src, Key="missed", Body=b"x")
    a.delete_object(Bucket=src, Key="before/03")
    until(lambda: "missed" in listing(b, dst) and "before/03" not in listing(b, dst))
    oms.stop_sync_task(sdk.StopSyncTaskRequest(**one))
    oms.delete_sync_task(sdk.DeleteSyncTaskRequest(**one))
