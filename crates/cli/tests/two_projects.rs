//! Two projects: what one of them has does not exist for the other (F5 in cases/security.md).
//!
//! The operations come from the generated description of the API, so an operation that this file does not know fails the
//! test: whoever adds a route says here which ids it takes.
#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::redis::Redis;
use testkit::{Options, S3Server};

use crate::support::Service;

const OTHER: &str = "b0000000000000000000000000000000";
const OTHER_AK: &str = "OTHERPROJECTKEY00001";
const OTHER_SK: &str = "other-project-secret";
const INSTANCE: &str = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10";
const DESCRIPTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/generated/openapi.json");

/// A caller with a token of one project.
struct Caller {
    at: String,
    token: String,
    project: String,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    /// Status and code, which a client decides by.
    fn verdict(&self) -> (u16, &str) {
        (self.status, self.body["error_code"].as_str().unwrap_or_default())
    }

    fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}")).to_owned()
    }
}

fn send(at: &str, method: &str, target: &str, headers: &str, body: Option<&Value>) -> Answer {
    let text = body.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n",
        text.len()
    );
    // A refusal may come before all is sent.
    let _ = stream.write_all((head + &text).as_bytes());
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while let Ok(n) = stream.read(&mut some) {
        if n == 0 {
            break;
        }
        all.extend_from_slice(&some[..n]);
    }
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {target}: no answer: {all:?}"));
    Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
}

/// The body of a sign-in with an access key.
fn sign_in(ak: &str, sk: &str, project: &str) -> Value {
    json!({"auth": {
        "identity": {"methods": ["hw_ak_sk"], "hw_ak_sk": {"access": {"key": ak}, "secret": {"key": sk}}},
        "scope": {"project": {"id": project}}
    }})
}

impl Caller {
    fn new(service: &Service, ak: &str, sk: &str, project: &str) -> Self {
        let at = service.endpoint.trim_start_matches("http://").to_owned();
        let answer = send(&at, "POST", "/v3/auth/tokens", "", Some(&sign_in(ak, sk, project)));
        let token = answer.head.lines().find_map(|l| l.strip_prefix("X-Subject-Token: "));
        let token = token.unwrap_or_else(|| panic!("{answer:?}")).trim().to_owned();
        Self { at, token, project: project.to_owned() }
    }

    fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        send(&self.at, method, target, &format!("X-Auth-Token: {}\r\n", self.token), body)
    }

    /// A call below `/v2/{project}` that succeeds.
    fn done(&self, method: &str, tail: &str, body: Option<&Value>) -> Answer {
        let answer = self.ask(method, &format!("/v2/{}/{tail}", self.project), body);
        assert!(answer.status < 300, "{method} {tail}: {answer:?}");
        answer
    }
}

/// Whatever a request can name.
struct Ids {
    project: String,
    task: String,
    group: String,
    sync: String,
    migration: String,
    job: String,
    instance: String,
    backup: String,
    token: String,
    /// Region of a store.
    store: String,
    /// Name of a bucket of backups.
    bucket: String,
}

impl Ids {
    /// Well-formed, and never given to anything.
    fn unknown() -> Self {
        let uuid = |n: u32| format!("99999999-9999-4999-8999-99999999999{n}");
        Self {
            project: "f".repeat(32),
            task: "1700000000000001".into(),
            group: uuid(1),
            sync: uuid(2),
            migration: uuid(3),
            job: uuid(4),
            instance: uuid(5),
            backup: uuid(6),
            token: "fedcba9876543210".into(),
            store: "no-such-store".into(),
            bucket: "no-such-dumps".into(),
        }
    }

    fn all(&self) -> [&str; 11] {
        [
            &self.project,
            &self.task,
            &self.group,
            &self.sync,
            &self.migration,
            &self.job,
            &self.instance,
            &self.backup,
            &self.token,
            &self.store,
            &self.bucket,
        ]
    }

    /// A path of the description with these ids in it, and a project.
    fn fill(&self, path: &str, project: &str) -> String {
        let task = if path.contains("/migration") { &self.migration } else { &self.task };
        let values = [
            ("{project_id}", project),
            ("{task_id}", task),
            ("{group_id}", &self.group),
            ("{sync_task_id}", &self.sync),
            ("{job_id}", &self.job),
            ("{instance_id}", &self.instance),
            ("{backup_id}", &self.backup),
            ("{version}", "v2"),
        ];
        let filled = values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
        assert!(!filled.contains('{'), "{path} takes an id that this test does not know: add it to Ids");
        filled
    }

    /// What was said, whatever id it was about.
    fn said(&self, answer: &Answer) -> String {
        let text = answer.body["error_msg"].as_str().unwrap_or_default().to_owned();
        self.all().iter().fold(text, |text, id| text.replace(id, "ID"))
    }
}

/// What the other project is to see.
#[derive(Clone, Copy, PartialEq)]
enum Want {
    /// Refused so, as for an id that was never given; the owner is answered otherwise.
    Unknown(u16, &'static str),
    /// The same, where the owner's answer proves nothing here.
    Refused(u16, &'static str),
    /// Done, whatever project the ids belong to: the other project is not affected.
    Done,
    /// An answer without anything of the other project.
    Nothing,
    /// Lines of the caller's project only.
    Audit,
}

struct Call {
    query: String,
    body: Option<Value>,
    want: Want,
}

fn call(want: Want) -> Call {
    Call { query: String::new(), body: None, want }
}

impl Call {
    fn query(self, query: impl Into<String>) -> Self {
        Self { query: query.into(), ..self }
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// Servers that everybody may name by their address.
struct Open {
    s3: String,
    redis: String,
}

/// How an operation is called with some ids; none for an operation that is not known here.
fn calls(operation: &str, ids: &Ids, open: &Open) -> Option<Vec<Call>> {
    use Want::{Audit, Done, Nothing, Refused, Unknown};
    const TASK: Want = Unknown(400, "OMS.1009");
    const TASK_V1: Want = Unknown(400, "S3M.0054");
    const GROUP: Want = Unknown(404, "OMS.1009");
    const SYNC: Want = Unknown(404, "OMS.1009");
    const MIGRATION: Want = Unknown(400, "DCS.4133");
    const MIGRATIONS: Want = Unknown(400, "DCS.4855");
    const REDIS: Want = Unknown(404, "DCS.3022");
    const SOURCE: Want = Unknown(400, "OMS.0079");
    const TARGET: Want = Unknown(400, "OMS.0080");
    let node =
        |region: &str, bucket: &str| json!({"region": region, "bucket": bucket, "ak": "AK", "sk": "SK"});
    let source = |region: &str| {
        let mut node = node(region, "from");
        (node["cloud_type"], node["object_key"]) = (json!("AWS"), json!([""]));
        node
    };
    let target = |region: &str| node(region, "to");
    let task = |from: &str, to: &str| json!({"task_type": "prefix", "src_node": source(from), "dst_node": target(to)});
    let instance = json!({"id": ids.instance});
    let at = |addrs: &str| json!({"addrs": addrs});
    let import = |target: &Value, files: Value| {
        json!({"task_name": "import", "migration_type": "backupfile_import",
            "migration_method": "full_amount_migration", "target_instance": target, "backup_files": files})
    };
    let record = json!({"file_source": "backup_record", "backup_id": ids.backup});
    let look = |cloud_type: &str| {
        json!({"cloud_type": cloud_type, "ak": "AK", "sk": "SK", "bucket_name": "from",
        "data_center": ids.store, "file_path": "", "file_name": "", "behind_filename": "", "page_size": 10})
    };
    let one = |call: Call| Some(vec![call]);
    match operation {
        // Without a project in the path.
        "ListApiVersions" | "ShowApiInfo" | "Health" | "Ready" | "Metrics" | "ShowToken" | "ListProjects"
        | "ListMyProjects" | "ListDomains" | "ShowCaller" => one(call(Nothing)),
        "CreateToken" => one(call(Refused(401, "")).body(sign_in(OTHER_AK, OTHER_SK, &ids.project))),
        "DeleteToken" => one(call(Refused(404, "")).query(format!("?id={}", ids.token))),
        // OMS v2: tasks.
        "CreateTask" => Some(vec![
            call(SOURCE).body(task(&ids.store, &open.s3)),
            call(TARGET).body(task(&open.s3, &ids.store)),
        ]),
        "ListTasks" => Some(vec![
            call(Nothing).query("?limit=100"),
            call(Nothing).query(format!("?group_id={}&limit=100", ids.group)),
        ]),
        "BatchUpdateTasks" => {
            let id: i64 = ids.task.parse().unwrap();
            Some(vec![
                call(TASK).body(json!({"ids": [id], "bandwidth_policy": []})),
                call(GROUP).body(json!({"group_id": ids.group, "bandwidth_policy": []})),
            ])
        }
        "ShowTask" | "ShowTaskReport" | "StopTask" | "DeleteTask" => one(call(TASK)),
        "StartTask" => one(call(TASK).body(json!({}))),
        "UpdateBandwidthPolicy" => one(call(TASK).body(json!({"bandwidth_policy": []}))),
        // Groups.
        "CreateTaskGroup" => {
            let body = json!({"task_type": "PREFIX", "src_node": source(&ids.store), "dst_node": target(&open.s3)});
            one(call(SOURCE).body(body))
        }
        "ListTaskGroup" => one(call(Nothing).query("?limit=100")),
        "ShowTaskGroup" | "DeleteTaskGroup" | "StopTaskGroup" => one(call(GROUP)),
        "StartTaskGroup" | "RetryTaskGroup" => one(call(GROUP).body(json!({}))),
        "UpdateTaskGroup" => one(call(GROUP).body(json!({"bandwidth_policy": []}))),
        // Sync tasks.
        "CreateSyncTask" => one(call(SOURCE).body(json!({
            "src_cloud_type": "AWS", "src_region": ids.store, "src_bucket": "from", "src_ak": "AK", "src_sk": "SK",
            "dst_region": open.s3, "dst_bucket": "to", "dst_ak": "AK", "dst_sk": "SK"
        }))),
        "ListSyncTasks" => one(call(Nothing).query("?limit=100")),
        "ShowSyncTask" => one(call(SYNC).query("?query_time=0")),
        "DeleteSyncTask" | "StopSyncTask" => one(call(SYNC)),
        "StartSyncTask" => one(call(SYNC).body(json!({}))),
        "CreateSyncEvents" => one(call(SYNC).body(json!({"object_keys": ["k"]}))),
        "ListSyncTaskStatistic" => {
            one(call(SYNC).query("?data_type=REQUEST&end_time=1000&start_time=0"))
        }
        // Buckets. `HEC` stands for the stores of the configuration; without one there is nobody to ask.
        "ShowBucketList" => one(call(Refused(400, "OMS.0153")).body(look("HEC"))),
        "ShowBucketRegion" => one(call(Unknown(400, "OMS.0155")).body(look("HEC"))),
        "ShowBucketObjects" | "CheckPrefix" => one(call(SOURCE).body(look("HEC"))),
        "ShowCdnInfo" => {
            let mut body = look("AWS");
            (body["region"], body["bucket"]) = (json!(ids.store), json!("from"));
            body["source_cdn"] =
                json!({"authentication_type": "NONE", "protocol": "http", "domain": "localhost"});
            one(call(TARGET).body(body))
        }
        "CheckUrlSourceListFileFormat" => one(call(TARGET).body(json!({
            "ak": "AK", "sk": "SK", "region": ids.store, "obs_bucket": "from", "list_file_key": "k"
        }))),
        "ShowCloudType" => one(call(Nothing).query("?type=src")),
        "ShowRegionInfo" => one(call(Nothing)),
        "UpdatePrivacyAgreementRecord" => one(call(Done)),
        "ListAudit" => one(call(Audit).query("?limit=1000")),
        // DCS.
        "CreateMigrationTask" => {
            let files = json!({"file_source": "self_build_obs", "bucket_name": ids.bucket,
                "files": [{"file_name": "one.aof"}]});
            let online = json!({"task_name": "online", "migration_type": "online_migration",
                "migration_method": "full_amount_migration", "source_instance": instance,
                "target_instance": at(&open.redis)});
            Some(vec![
                call(REDIS).body(online),
                call(REDIS).body(import(&instance, record.clone())),
                call(Unknown(400, "DCS.4087")).body(import(&at(&open.redis), record)),
                call(Unknown(400, "DCS.4800")).body(import(&at(&open.redis), files)),
            ])
        }
        "ListMigrationTask" => one(call(Nothing).query("?limit=1000")),
        "ShowMigrationTask" | "StopMigrationTask" | "StopMigrationTaskSync" | "ShowMigrationTaskStats"
        | "ListMigrationTaskLogs" | "RollbackExchangeInstanceIp" | "ShowJobInfo" => one(call(MIGRATION)),
        "UpdateMigrationTask" => one(call(MIGRATION).body(json!({"resume_mode": "auto"}))),
        "ExchangeInstanceIp" => one(call(MIGRATION).body(json!({}))),
        "BatchStopMigrationTasks" | "BatchRestartOnlineMigrationTasks" => {
            one(call(MIGRATIONS).body(json!({"migration_tasks": [ids.migration]})))
        }
        // An unknown one does not matter (dcs-migration.md §2.4); that it stays, the owner sees.
        "DeleteMigrationTask" => one(call(Done).body(json!({"task_id_list": [ids.migration]}))),
        "CreateOnlineMigrationTask" => one(call(Done).body(
            json!({"name": "mine", "vpc_id": "v", "subnet_id": "s", "security_group_id": "g"}),
        )),
        "SetOnlineMigrationTask" => one(call(MIGRATION).body(json!({
            "migration_method": "full_amount_migration", "resume_mode": "manual",
            "source_instance": at(&open.redis), "target_instance": at("127.0.0.1:1")
        }))),
        "ListInstances" => Some(vec![
            call(Nothing).query("?limit=1000"),
            call(Nothing).query(format!("?instance_id={}", ids.instance)),
        ]),
        "ShowInstance" | "ListBackupRecords" => one(call(REDIS)),
        "CopyInstance" => one(call(REDIS).body(json!({}))),
        "DeleteBackupFile" => one(call(Unknown(400, "DCS.4031"))),
        // OMS v1.
        "ShowVersionV1" | "ShowQuotasV1" => one(call(Nothing)),
        "CreateTaskV1" => {
            let (mut from, mut to) = (node(&ids.store, "from"), node(&open.s3, "to"));
            (from["cloud_type"], from["object_key"]) = (json!("AWS"), json!({"keys": ["k"]}));
            to["object_key"] = json!("");
            let body = json!({"enableKMS": false, "thread_num": 1, "src_node": from, "dst_node": to});
            one(call(Unknown(400, "S3M.0079")).body(body))
        }
        "ListTasksV1" => one(call(Nothing).query("?limit=100&start=0")),
        "ShowTaskV1" => one(call(TASK_V1)),
        "OperateTaskV1" => one(call(TASK_V1).body(json!({"operation": "stop"}))),
        // The task was deleted by its other name.
        "DeleteTaskV1" => one(call(Refused(400, "S3M.0054"))),
        _ => None,
    }
}

/// Method, path and name of every operation of the description.
fn operations() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(DESCRIPTION).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if let Some(name) = operation["operationId"].as_str() {
                all.push((method.to_uppercase(), path.clone(), name.to_owned()));
            }
        }
    }
    // What takes things away comes last.
    all.sort_by_key(|(method, ..)| method == "DELETE");
    assert!(all.len() >= 70, "{} operations in {DESCRIPTION}", all.len());
    all
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// One of each, made by the owner, and at rest.
fn make(service: &Service, owner: &Caller) -> Ids {
    let task = service.create(("store-of-a", "from"), ("store-of-a", "to"));
    assert_eq!(service.watch(task)["status"], 5);
    let node = |bucket: &str| json!({"region": "store-of-a", "bucket": bucket, "ak": "AK", "sk": "SK"});
    let mut source = node("from");
    (source["cloud_type"], source["object_key"]) = (json!("AWS"), json!([""]));
    let group = json!({"task_type": "PREFIX", "src_node": source, "dst_node": node("to")});
    let group = owner.done("POST", "taskgroups", Some(&group)).text("group_id");
    let show = format!("taskgroups/{group}");
    until("the group is complete", || owner.done("GET", &show, None).body["status"] == 6);
    let sync = owner.done(
        "POST",
        "sync-tasks",
        Some(&json!({
            "src_cloud_type": "AWS", "src_region": "store-of-a", "src_bucket": "from", "src_ak": "AK", "src_sk": "SK",
            "dst_region": "store-of-a", "dst_bucket": "to", "dst_ak": "AK", "dst_sk": "SK"
        })),
    );
    let body = json!({"name": "of-a", "vpc_id": "v", "subnet_id": "s", "security_group_id": "g"});
    let migration = owner.done("POST", "migration/instance", Some(&body));
    let backups = format!("instances/{INSTANCE}/backups");
    let backup = owner.done("POST", &backups, Some(&json!({}))).text("backup_id");
    until("the backup is made", || {
        owner.done("GET", &backups, None).body["backup_record_response"][0]["status"] == "succeed"
    });
    let tokens = owner.ask("GET", "/v3/auth/tokens", None);
    let token = tokens.body["tokens"][0]["id"].as_str().unwrap_or_else(|| panic!("{tokens:?}")).to_owned();
    Ids {
        project: owner.project.clone(),
        task: task.to_string(),
        group,
        sync: sync.text("sync_task_id"),
        migration: migration.text("instance_id"),
        job: migration.text("job_id"),
        instance: INSTANCE.to_owned(),
        backup,
        token,
        store: "store-of-a".to_owned(),
        bucket: "dumps-of-a".to_owned(),
    }
}

/// Everything of the owner, as it is shown.
fn seen(owner: &Caller, ids: &Ids) -> Vec<Value> {
    [
        format!("tasks/{}", ids.task),
        format!("taskgroups/{}", ids.group),
        format!("sync-tasks/{}?query_time=0", ids.sync),
        format!("migration-task/{}", ids.migration),
        format!("migration-task/{}/logs", ids.migration),
        format!("jobs/{}", ids.job),
        format!("instances/{}/backups", ids.instance),
        "migration-tasks".to_owned(),
        "tasks?limit=100".to_owned(),
    ]
    .iter()
    .map(|tail| owner.done("GET", tail, None).body)
    .collect()
}

/// One call as the other project makes it, with ids of the owner and with ids that were never given.
fn check(other: &Caller, owned: (&Ids, &Call), unknown: (&Ids, &Call), method: &str, path: &str) {
    let ask = |(ids, call): (&Ids, &Call)| {
        let target = ids.fill(path, &other.project) + &call.query;
        other.ask(method, &target, call.body.as_ref())
    };
    let (answer, fresh) = (ask(owned), ask(unknown));
    let what = format!("{method} {path}{}", owned.1.query);
    assert_eq!(
        answer.verdict(),
        fresh.verdict(),
        "{what}: {answer:?} is not as for an unknown id: {fresh:?}"
    );
    assert_eq!(owned.0.said(&answer), unknown.0.said(&fresh), "{what}");
    match owned.1.want {
        Want::Unknown(status, code) | Want::Refused(status, code) => {
            assert_eq!(answer.verdict(), (status, code), "{what}: {answer:?}");
        }
        Want::Done => assert!(answer.status < 300, "{what}: {answer:?}"),
        Want::Nothing => {
            assert!(answer.status < 400, "{what}: {answer:?}");
            let text = answer.body.to_string();
            let leak = owned.0.all().into_iter().find(|id| text.contains(id));
            assert_eq!(leak, None, "{what}: {text}");
        }
        Want::Audit => {
            let lines = answer.body["lines"].as_array().unwrap();
            let strange = lines.iter().find(|l| l["project_id"] != OTHER || l["principal"] != OTHER_AK);
            assert!(!lines.is_empty() && strange.is_none(), "{what}: {strange:?}");
        }
    }
}

/// A second project, and stores, instances and buckets of the first: `lab`, which `init` makes.
fn configuration(open: &Open, redis: u16, dumps: &Path) -> String {
    format!(
        "\n[[project]]\nid = \"{OTHER}\"\nname = \"other\"\n\
         \n[[access_key]]\nak = \"{OTHER_AK}\"\nsk = \"{OTHER_SK}\"\nproject = \"other\"\nrole = \"operator\"\n\
         \n[[store]]\nregion = \"store-of-a\"\nendpoint = \"{}\"\nprojects = [\"lab\"]\n\
         \n[[redis]]\nid = \"{INSTANCE}\"\nname = \"redis-of-a\"\naddrs = \"127.0.0.1:{redis}\"\nprojects = [\"lab\"]\n\
         \n[[bucket]]\nname = \"dumps-of-a\"\nlocation = \"{}\"\nprojects = [\"lab\"]\n",
        open.s3,
        dumps.display()
    )
}

#[test]
fn sec_f05_ids_of_another_project_are_not_found_in_every_operation() {
    let server = S3Server::start(Options::default());
    server.bucket("from").put("k", "x");
    server.bucket("to");
    let (redis, free) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    redis.run("SET secret of-a");
    let open = Open { s3: server.endpoint(), redis: format!("127.0.0.1:{}", free.port) };
    let (dir, dumps) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut aof = Vec::new();
    redis_proto::resp::command(&mut aof, &[b"SET".as_slice(), b"x", b"1"]);
    std::fs::write(dumps.path().join("one.aof"), aof).unwrap();
    let more = configuration(&open, redis.port, dumps.path());
    let service = Service::start(dir.path(), &more);
    let owner = Caller::new(&service, &service.ak, &service.sk, &service.project);
    let other = Caller::new(&service, OTHER_AK, OTHER_SK, OTHER);
    let (owned, unknown) = (make(&service, &owner), Ids::unknown());
    let (before, objects) = (seen(&owner, &owned), server.bucket("to").objects().len());
    server.clear_log();

    let operations = operations();
    let plan = |operation: &str, ids: &Ids| {
        calls(operation, ids, &open)
            .unwrap_or_else(|| panic!("{operation} is new: say in `calls` which ids of a project it takes"))
    };
    for (method, path, operation) in &operations {
        for (theirs, fresh) in plan(operation, &owned).iter().zip(&plan(operation, &unknown)) {
            check(&other, (&owned, theirs), (&unknown, fresh), method, path);
        }
    }
    // The other way in: by the owner's project.
    for (method, path, operation) in operations.iter().filter(|(_, path, _)| path.contains("{project_id}")) {
        for theirs in plan(operation, &owned) {
            let target = owned.fill(path, &owned.project) + &theirs.query;
            let answer = other.ask(method, &target, theirs.body.as_ref());
            assert_eq!(answer.verdict(), (403, "APIGW.0302"), "{method} {target}: {answer:?}");
        }
    }

    assert_eq!(seen(&owner, &owned), before, "something of the owner has changed");
    assert_eq!(server.log(), [], "the owner's store was asked for somebody else");
    assert_eq!(server.bucket("to").objects().len(), objects);
    assert_eq!(redis.run("DBSIZE").number(), Some(1));
    assert_eq!(redis.run("GET secret").text(), Some(b"of-a".as_slice()));

    // The owner is answered otherwise, so each of these calls did reach the look for its id.
    for (method, path, operation) in &operations {
        for own in plan(operation, &owned) {
            let Want::Unknown(status, code) = own.want else { continue };
            let target = owned.fill(path, &owner.project) + &own.query;
            let answer = owner.ask(method, &target, own.body.as_ref());
            assert_ne!(answer.verdict(), (status, code), "{method} {target}: {answer:?}");
        }
    }
}
