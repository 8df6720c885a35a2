"""Looking at buckets before a task is created."""

from common import bucket, client, code_of, E, s3, STORE_AK, STORE_SK


def bucket_levels():
    """c05: pages of every size show each name of a level once, in the order of each store."""
    sdk, oms = client()
    keys = ["d%d/%s" % (i, name) for i in range(5) for name in "xyz"]
    keys += ["d%d-f" % i for i in range(5)] + ["d%d.txt" % i for i in range(5)]
    wanted = sorted({key.split("/")[0] + "/" if "/" in key else key for key in keys})
    for region, store in (("weed-a", s3(E["WEED_A"])), (E["MOTO"], s3(E["MOTO"]))):
        name = bucket(store, "levels")
        for key in keys:
            store.put_object(Bucket=name, Key=key, Body=b"x")
        for size in (1, 2, 3, 4, 15):
            shown, behind = [], ""
            for _ in range(20):
                page = oms.show_bucket_objects(sdk.ShowBucketObjectsRequest(body=sdk.ShowBucketReq(
                    cloud_type="AWS", ak=STORE_AK, sk=STORE_SK, bucket_name=name, data_center=region, file_path="",
                    page_size=size, behind_filename=behind)))
                shown += [record.name for record in page.records]
                if not page.next_page:
                    break
                behind = page.next_marker
            assert sorted(shown) == wanted, (region, size, shown)


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
