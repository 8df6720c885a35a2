"""Archived objects."""

from common import bucket, client, E, request, s3, wait


def archived_objects():
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
