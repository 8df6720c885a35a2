"""The official Python SDK 3.0.60: all that it has of OMS v2."""
import os
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
import huaweicloudsdkcore
import huaweicloudsdkoms.v2 as sdk

E = os.environ
assert "old-sdk" in huaweicloudsdkcore.__file__, huaweicloudsdkcore.__file__
oms = (sdk.OmsClient.new_builder()
       .with_credentials(BasicCredentials(E["AK"], E["SK"], E["PROJECT"]))
       .with_endpoint(E["ENDPOINT"]).build())


def wait(task, wanted):
    deadline = time.time() + 120
    while True:
        shown = oms.show_task(sdk.ShowTaskRequest(task_id=task))
        if shown.status in wanted:
            return shown
        assert time.time() < deadline, shown
        time.sleep(0.05)


assert {v.id for v in oms.list_api_versions(sdk.ListApiVersionsRequest()).versions} == {"v1", "v2"}
slow = [sdk.BandwidthPolicyDto(start="00:00", end="23:59", max_bandwidth=1 << 20)]
made = oms.create_task(sdk.CreateTaskRequest(body=sdk.CreateTaskReq(
    task_type="prefix", bandwidth_policy=slow,
    src_node=sdk.SrcNodeReq(cloud_type="AWS", region="weed-a", bucket=E["FROM"], ak=E["STORE_AK"], sk=E["STORE_SK"],
                            object_key=[""]),
    dst_node=sdk.DstNodeReq(region="weed-b", bucket=E["TO"], ak=E["STORE_AK"], sk=E["STORE_SK"]))))
wait(made.id, {2})
oms.stop_task(sdk.StopTaskRequest(task_id=made.id))
wait(made.id, {3})
fast = sdk.UpdateBandwidthPolicyReq(bandwidth_policy=[
    sdk.BandwidthPolicyDto(start="00:00", end="23:59", max_bandwidth=200 << 20)])
oms.update_bandwidth_policy(sdk.UpdateBandwidthPolicyRequest(task_id=made.id, body=fast))
oms.start_task(sdk.StartTaskRequest(task_id=made.id, body=sdk.StartTaskReq(
    src_ak=E["STORE_AK"], src_sk=E["STORE_SK"], dst_ak=E["STORE_AK"], dst_sk=E["STORE_SK"])))
ended = wait(made.id, {4, 5})
assert (ended.status, ended.successful_num, ended.failed_num) == (5, int(E["COUNT"]), 0), ended
assert [t.id for t in oms.list_tasks(sdk.ListTasksRequest(limit=10, offset=0)).tasks] == [made.id]
oms.delete_task(sdk.DeleteTaskRequest(task_id=made.id))
