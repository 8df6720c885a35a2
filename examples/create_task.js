// Create an OMS task and follow it until it ends. Needs: npm install @huaweicloud/huaweicloud-sdk-core
"use strict";
const core = "@huaweicloud/huaweicloud-sdk-core";
const { BasicCredentials } = require(`${core}/auth/BasicCredentials`);
const { ClientBuilder } = require(`${core}/ClientBuilder`);

const E = process.env;
const keys = new BasicCredentials().withAk(E.WHIMBREL_AK).withSk(E.WHIMBREL_SK).withProjectId(E.WHIMBREL_PROJECT);
const client = new ClientBuilder((http) => http).withCredential(keys).withEndpoint(E.WHIMBREL_ENDPOINT).build();
const call = (method, path, data) => client.sendRequest({
  method, url: "/v2/{project_id}" + path, data, pathParams: {}, queryParams: {}, headers: {},
  contentType: data ? "application/json;charset=utf-8" : "application/json",
});

async function main() {
  const { id } = await call("POST", "/tasks", {
    task_type: "prefix", enable_metadata_migration: true,
    src_node: { cloud_type: "AWS", region: E.SOURCE_REGION, bucket: E.SOURCE_BUCKET, object_key: [""],
                ak: E.WHIMBREL_SOURCE_ACCESS_KEY, sk: E.WHIMBREL_SOURCE_SECRET_KEY },
    dst_node: { region: E.TARGET_REGION, bucket: E.TARGET_BUCKET,
                ak: E.WHIMBREL_TARGET_ACCESS_KEY, sk: E.WHIMBREL_TARGET_SECRET_KEY },
  });
  for (;;) {
    const task = await call("GET", `/tasks/${id}`);
    console.log(`status ${task.status}: ${task.successful_num} of ${task.total_num} objects, ${task.failed_num} failed`);
    if ([3, 4, 5].includes(task.status)) { // paused, failed, succeeded
      process.exitCode = task.status === 5 ? 0 : 1;
      return;
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

main().catch((error) => { console.error(error); process.exitCode = 1; });
