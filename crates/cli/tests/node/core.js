// The core ten operations by the official Node.js SDK. Its registry has the core, which signs and sends, but no package for
// OMS: requests are described here the way the packages of other services describe theirs.
"use strict";
const assert = require("assert");
const path = require("path");
const core = (name) => require(path.join(process.env.NODE_MODULES, "@huaweicloud/huaweicloud-sdk-core", name));
const { BasicCredentials } = core("auth/BasicCredentials");
const { ClientBuilder } = core("ClientBuilder");

const E = process.env;
const [STORE_AK, STORE_SK] = ["WHIMBRELTEST", "whimbrel-test-secret"];

class Oms {
  constructor(client) { this.client = client; }
  static newBuilder() { return new ClientBuilder((client) => new Oms(client)); }
  call(method, url, { data, queryParams = {}, pathParams = {} } = {}) {
    const contentType = data ? "application/json;charset=utf-8" : "application/json";
    return this.client.sendRequest({ method, url: "/v2/{project_id}" + url, contentType, queryParams, pathParams, headers: {}, data });
  }
  createTask(data) { return this.call("POST", "/tasks", { data }); }
  listTasks(queryParams) { return this.call("GET", "/tasks", { queryParams }); }
  showTask(task_id) { return this.call("GET", "/tasks/{task_id}", { pathParams: { task_id } }); }
  startTask(task_id, data) { return this.call("POST", "/tasks/{task_id}/start", { data, pathParams: { task_id } }); }
  stopTask(task_id) { return this.call("POST", "/tasks/{task_id}/stop", { pathParams: { task_id } }); }
  deleteTask(task_id) { return this.call("DELETE", "/tasks/{task_id}", { pathParams: { task_id } }); }
  updateBandwidthPolicy(task_id, data) { return this.call("PUT", "/tasks/{task_id}/bandwidth-policy", { data, pathParams: { task_id } }); }
  batchUpdateTasks(data) { return this.call("POST", "/tasks/batch-update", { data }); }
  showCloudType(queryParams) { return this.call("GET", "/objectstorage/cloud-type", { queryParams }); }
  showBucketObjects(data) { return this.call("POST", "/objectstorage/buckets/objects", { data }); }
}

async function refused(call, code) {
  await assert.rejects(call, (e) => { assert.strictEqual(e.errorCode || e.error_code, code, JSON.stringify(e)); return true; });
}

async function wait(oms, id, states) {
  for (;;) {
    const task = await oms.showTask(id);
    if (states.includes(task.status)) return task;
    assert.ok([1, 2, 6, 7].includes(task.status), JSON.stringify(task));
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function main() {
  const credentials = new BasicCredentials().withAk(E.AK).withSk(E.SK).withProjectId(E.PROJECT);
  const oms = Oms.newBuilder().withCredential(credentials).withEndpoint(E.ENDPOINT).build();
  const keys = { ak: STORE_AK, sk: STORE_SK };
  const body = {
    task_type: "prefix", description: "\u8fc1\u79fb \u00e9",
    src_node: { cloud_type: "AWS", region: "weed-a", bucket: E.FROM, object_key: [""], ...keys },
    dst_node: { region: "weed-b", bucket: E.TO, ...keys },
    bandwidth_policy: [{ start: "00:00", end: "23:59", max_bandwidth: 1048576 }],
  };
  assert.ok((await oms.showCloudType({ type: "src" })).includes("AWS"));
  const page = await oms.showBucketObjects({
    cloud_type: "AWS", data_center: "weed-a", bucket_name: E.FROM, file_path: "", page_size: 10, behind_filename: "", ...keys,
  });
  assert.ok(page.records.length > 0 && page.records.every((r) => typeof r.size === "string"), JSON.stringify(page));
  const made = await oms.createTask(body);
  assert.ok(Number.isSafeInteger(made.id), JSON.stringify(made));
  await wait(oms, made.id, [2]);
  await oms.stopTask(made.id);
  const paused = await wait(oms, made.id, [3]);
  assert.strictEqual(paused.description, body.description);
  await refused(() => oms.stopTask(made.id), "OMS.0066");
  await oms.updateBandwidthPolicy(made.id, { bandwidth_policy: [] });
  await oms.batchUpdateTasks({ ids: [made.id], bandwidth_policy: [], task_priority: "HIGH" });
  await oms.startTask(made.id, { src_ak: STORE_AK, src_sk: STORE_SK, dst_ak: STORE_AK, dst_sk: STORE_SK });
  const done = await wait(oms, made.id, [4, 5]);
  assert.deepStrictEqual([done.status, done.failed_num, done.successful_num], [5, 0, Number(E.COUNT)], JSON.stringify(done));
  const listed = await oms.listTasks({ limit: 10, offset: 0, task_name: made.task_name });
  assert.deepStrictEqual(listed.tasks.map((t) => t.id), [made.id]);
  await oms.deleteTask(made.id);
  await refused(() => oms.showTask(made.id), "OMS.1009");
  console.log("node: ten operations");
}

main().catch((e) => { console.error(e); process.exit(1); });
