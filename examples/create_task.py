"""Create an OMS task and follow it until it ends. Needs: pip install huaweicloudsdkoms"""
import os
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkoms.v2 import (CreateTaskReq, CreateTaskRequest, DstNodeReq, OmsClient,
                                  ShowTaskRequest, SrcNodeReq)

E = os.environ
keys = BasicCredentials(E["WHIMBREL_AK"], E["WHIMBREL_SK"], E["WHIMBREL_PROJECT"])
oms = OmsClient.new_builder().with_credentials(keys).with_endpoint(E["WHIMBREL_ENDPOINT"]).build()

source = SrcNodeReq(cloud_type="AWS", region=E["SOURCE_REGION"], bucket=E["SOURCE_BUCKET"],
                    object_key=[""], ak=E["WHIMBREL_SOURCE_ACCESS_KEY"], sk=E["WHIMBREL_SOURCE_SECRET_KEY"])
target = DstNodeReq(region=E["TARGET_REGION"], bucket=E["TARGET_BUCKET"],
                    ak=E["WHIMBREL_TARGET_ACCESS_KEY"], sk=E["WHIMBREL_TARGET_SECRET_KEY"])
body = CreateTaskReq(task_type="prefix", src_node=source, dst_node=target, enable_metadata_migration=True)
task_id = oms.create_task(CreateTaskRequest(body=body)).id

while True:
    task = oms.show_task(ShowTaskRequest(task_id=task_id))
    print(f"status {task.status}: {task.successful_num} of {task.total_num} objects, {task.failed_num} failed")
    if task.status in (3, 4, 5):  # paused, failed, succeeded
        break
    time.sleep(1)
raise SystemExit(0 if task.status == 5 else f"{task.error_reason}")
