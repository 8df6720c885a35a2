//! The console as a browser without script uses it: pages and forms of a running service.
#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

use testkit::content::Content;
use testkit::{Options, S3Server};

use crate::support::Service;
use crate::support::browser::{Browser, fields};

const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&\u{7f}\u{202e}";
const OTHER: &str = "b0000000000000000000000000000000";

/// All pages that have no id in their path.
const PAGES: [&str; 9] = [
    "/console/",
    "/console/tasks",
    "/console/tasks?state=failed&q=x",
    "/console/tasks/new",
    "/console/syncs",
    "/console/redis",
    "/console/stores",
    "/console/keys",
    "/console/audit",
];

/// The fields of a new task between two buckets of one endpoint.
fn new_task<'a>(endpoint: &'a str, from: &'a str, to: &'a str) -> Vec<(&'a str, &'a str)> {
    let (ak, sk) = testkit::servers::KEYS;
    vec![
        ("src_store", ""),
        ("src_vendor", "AWS"),
        ("src_region", endpoint),
        ("src_bucket", from),
        ("src_ak", ak),
        ("src_sk", sk),
        ("dst_store", ""),
        ("dst_region", endpoint),
        ("dst_bucket", to),
        ("dst_ak", ak),
        ("dst_sk", sk),
        ("what", "prefix"),
        ("metadata", "1"),
    ]
}

/// Creates a task by its form; the path of its page.
fn create(browser: &mut Browser, form: &[(&str, &str)]) -> String {
    browser.get("/console/tasks/new");
    let all: Vec<_> = form.iter().copied().chain([("do", "start")]).collect();
    let made = browser.post("/console/tasks/new", &all);
    let at = made.header("location").to_owned();
    assert_eq!(made.status, 303, "{made:?}");
    at.split('?').next().unwrap().to_owned()
}

#[test]
fn console_signs_in_and_out() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut browser = Browser::new(&service);
    for path in PAGES {
        let page = browser.get(path);
        assert!(
            page.status == 303 && page.header("location").starts_with("/console/signin"),
            "{path}: {page:?}"
        );
    }
    assert_eq!(browser.get("/console/live?topic=overview").status, 401);
    let page = browser.get("/console/tasks?q=a%26b");
    assert_eq!(page.header("location"), "/console/signin?next=%2Fconsole%2Ftasks%3Fq%3Da%2526b");
    let page = browser.sign_in("admin", &service.password());
    assert_eq!(page.header("location"), "/console/");
    let cookie = page.head.lines().find(|l| l.contains("whimbrel_session=")).unwrap();
    assert!(cookie.ends_with("; Path=/console; HttpOnly; SameSite=Strict"), "{cookie}");
    for path in PAGES {
        let page = browser.get(path);
        assert_eq!(page.status, 200, "{path}: {page:?}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        let csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
        assert_eq!(page.header("content-security-policy"), csp, "{path}");
        assert!(!page.says(" style=\"") && !page.says(" onclick=") && !page.says("<script>"), "{path}");
        assert!(!page.says(&service.sk) && !page.says(&service.password()), "{path}");
    }
    assert_eq!(browser.get("/console/no-such-page").status, 404);
    let session = browser.cookies["whimbrel_session"].clone();
    browser.get("/console/");
    assert_eq!(browser.post("/console/signout", &[]).header("location"), "/console/signin");
    browser.cookies.insert("whimbrel_session".into(), session);
    assert_eq!(browser.get("/console/").status, 303, "the number of an ended session is worth nothing");
}

#[test]
fn console_forms_of_other_sites_and_sessions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut browser = Browser::signed_in(&service);
    let host = service.endpoint.clone();
    let body = fields(&[("csrf", &browser.csrf)]);
    for headers in [
        "",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
    ] {
        let page = browser.post_with("/console/signout", &body, headers);
        assert_eq!(page.status, 403, "{headers}: {page:?}");
    }
    let csrf = browser.csrf.clone();
    for wrong in ["", "x", &csrf.to_lowercase(), &csrf[1..]] {
        let page = browser.post_with(
            "/console/signout",
            &fields(&[("csrf", wrong)]),
            "Sec-Fetch-Site: same-origin\r\n",
        );
        assert_eq!(page.status, 403, "{wrong}");
    }
    let mut other = Browser::signed_in(&service);
    let theirs = fields(&[("csrf", &other.csrf)]);
    let page = browser.post_with("/console/signout", &theirs, "Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(page.status, 403, "the token of another session");
    assert_eq!(browser.get("/console/signout").status, 404, "GET changes nothing");
    assert_eq!(browser.get("/console/").status, 200);
    // A browser without Sec-Fetch-Site says where the form comes from.
    let page = browser.post_with("/console/signout", &body, &format!("Origin: {host}\r\n"));
    assert_eq!(page.status, 303, "{page:?}");
    assert_eq!(other.get("/console/").status, 200);
    // The form of the sign-in belongs to the browser that got it.
    let mut fresh = Browser::new(&service);
    fresh.get("/console/signin");
    fresh.cookies.clear();
    let password = service.password();
    let page = fresh.post("/console/signin", &[("user", "admin"), ("password", &password)]);
    assert_eq!(page.status, 403);
}

#[test]
fn console_wrong_passwords_are_throttled() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut browser = Browser::new(&service);
    for _ in 0..6 {
        let page = browser.sign_in("admin", "wrong");
        assert!(page.status == 401 && page.says("Unknown user or wrong password"), "{page:?}");
    }
    let page = browser.sign_in("admin", &service.password());
    assert!(
        page.status == 429 && page.says("five minutes"),
        "the right one is not compared any more: {page:?}"
    );
    let page = browser.sign_in(HOSTILE, "x");
    assert!(page.status == 401 && !page.says("<img"), "{page:?}");
    assert!(!browser.cookies.contains_key("whimbrel_session"));
    let audit = String::from_utf8_lossy(&service.task(&["audit"]).stdout).into_owned();
    assert!(!audit.contains(&service.password()), "{audit}");
}

#[test]
fn console_task_is_created_stopped_started_and_deleted_by_forms() {
    let server =
        S3Server::start(Options { delay: std::time::Duration::from_millis(20), ..Options::default() });
    for i in 0..2000 {
        server.bucket("from").put(&format!("k{i:05}"), format!("{i}"));
    }
    server.bucket("to");
    let at = server.endpoint();
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut browser = Browser::signed_in(&service);
    // The check writes nothing and keeps the keys, which the page does not show.
    let form = new_task(&at, "from", "to");
    browser.get("/console/tasks/new");
    let checked: Vec<_> = form.iter().copied().chain([("do", "check")]).collect();
    let page = browser.post("/console/tasks/new", &checked);
    assert!(page.status == 200 && page.says("whimbrel task create"), "{}", page.body);
    let (ak, sk) = testkit::servers::KEYS;
    assert!(!page.says(sk) && !page.says(ak), "{}", page.body);
    let draft = page.field("draft");
    assert_eq!(draft.len(), 43);
    let without: Vec<_> =
        form.iter().copied().filter(|(n, _)| !n.ends_with("_ak") && !n.ends_with("_sk")).collect();
    let with_draft: Vec<_> = without.iter().copied().chain([("draft", draft.as_str())]).collect();
    let task = create(&mut browser, &with_draft);
    let id: i64 = task.rsplit('/').next().unwrap().parse().unwrap();

    browser.wait_for(&task, ">Running<");
    let page = browser.post(&format!("{task}/delete"), &[("name", "x")]);
    assert!(page.status == 409 && page.says("not the name"), "{page:?}");
    assert_eq!(browser.post(&format!("{task}/stop"), &[]).header("location"), format!("{task}?done=stop"));
    browser.wait_for(&task, ">Paused<");
    let page = browser.post(&format!("{task}/stop"), &[]);
    assert!(page.status == 409 && page.says("The task is not running."), "{page:?}");
    let limit = [("from", "08:00"), ("until", "20:00"), ("most", "100")];
    assert_eq!(browser.post(&format!("{task}/limit"), &limit).status, 303);
    assert!(browser.get(&task).says("08:00–20:00 100 MiB/s"));
    let bad = [("from", "20:00"), ("until", "08:00"), ("most", "100")];
    assert_eq!(browser.post(&format!("{task}/limit"), &bad).status, 409);
    assert_eq!(browser.post(&format!("{task}/start"), &[]).status, 303, "with the stored keys");
    let page = browser.wait_for(&task, ">Succeeded<");
    assert!(page.says("2,000 of 2,000 objects") && page.says("100 %"), "{}", page.body);
    assert!(page.says("Stopped by request") && page.says("admin · console"), "{}", page.body);
    assert_eq!(service.show(id)["successful_num"], 2000);
    let report = browser.get(&format!("{task}/report"));
    assert_eq!(report.header("content-disposition"), format!("attachment; filename=\"{id}.csv\""));
    assert!(report.body.lines().count() == 2001 && report.says("k01999"), "{:.300}", report.body);
    let name = service.show(id)["name"].as_str().unwrap().to_owned();
    let page = browser.post(&format!("{task}/delete"), &[("name", &name)]);
    assert_eq!(page.header("location"), "/console/tasks?did=delete", "{page:?}");
    assert_eq!(browser.get(&task).status, 404);
    let audit = browser.get("/console/audit");
    for line in [format!("{task}/stop"), format!("created {id}"), format!("{task}/delete")] {
        assert!(audit.says(&line), "{line} is missing");
    }
}

#[test]
fn console_failed_objects_are_grouped_by_cause_with_hostile_keys_escaped() {
    let server = S3Server::start(Options::default());
    for i in 0..3 {
        server.bucket("from").put(&format!("a//{HOSTILE}{i}"), "x");
    }
    server.bucket("from").put("good", "x");
    let at = server.endpoint();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("buckets/to")).unwrap();
    let store =
        format!("\n[[store]]\nregion = \"disk\"\npath = \"{}\"\n", dir.path().join("buckets").display());
    let service = Service::start(dir.path(), &store);
    let mut browser = Browser::signed_in(&service);
    let (ak, sk) = testkit::servers::KEYS;
    let description = "plain";
    let form = [
        ("src_store", ""),
        ("src_vendor", "AWS"),
        ("src_region", at.as_str()),
        ("src_bucket", "from"),
        ("src_ak", ak),
        ("src_sk", sk),
        ("dst_store", "disk"),
        ("dst_bucket", "to"),
        ("dst_ak", "x"),
        ("description", description),
    ];
    let task = create(&mut browser, &form);
    let page = browser.wait_for(&task, ">Failed<");
    assert!(
        page.says("This key cannot be stored there") && page.says("retrying does not help"),
        "{}",
        page.body
    );
    let shown = "&lt;img src=x onerror=alert(1)&gt;";
    let escaped = |body: &str| body.contains(shown) || body.contains("&#60;img src=x onerror=alert(1)&#62;");
    for path in
        [task.clone(), format!("{task}/failed"), format!("{task}/failed?kind=key_refused&side=target")]
    {
        let page = browser.get(&path);
        assert!(page.status == 200 && !page.says("<img"), "{path}: {}", page.body);
        assert!(escaped(&page.body) && page.says("\\u{7f}\\u{202e}"), "{path}: {}", page.body);
        assert!(!page.says("\u{7f}") && !page.says("\u{202e}"), "{path}");
    }
    assert!(!browser.get(&format!("{task}/failed?kind=forbidden&side=source")).says("onerror"));
    // Keys of an ended task are erased: a retry asks for those of the source, and a directory has none.
    let page = browser.get(&task);
    assert!(page.says("name=\"src_sk\"") && !page.says("name=\"dst_sk\""), "{}", page.body);
    let page = browser.post(&format!("{task}/retry"), &[]);
    assert!(page.status == 409 && page.says("the access key of the source"), "{page:?}");
    let again = browser.post(&format!("{task}/retry"), &[("src_ak", ak), ("src_sk", sk)]);
    assert_eq!(again.header("location"), format!("{task}?done=retry"), "{again:?}");
    browser.wait_for(&task, ">Failed<");
    let id = task.rsplit('/').next().unwrap();
    let events = browser.listen(&format!("/console/live?topic=task:{id}"), "event: failed");
    assert!(!events.contains("<img"), "{events}");
    // What a person types comes back as text.
    let q = fields(&[("q", HOSTILE)]);
    let page = browser.get(&format!("/console/tasks?{q}"));
    assert!(!page.says("<img") && page.says("No task matches"), "{}", page.body);
    let page = browser.post("/console/tasks/new", &[("src_bucket", HOSTILE), ("do", "start")]);
    assert!(page.status == 422 && !page.says("<img"), "{}", page.body);
}

#[test]
fn console_tasks_of_other_projects_are_unknown_and_viewers_change_nothing() {
    let server =
        S3Server::start(Options { delay: std::time::Duration::from_millis(100), ..Options::default() });
    for i in 0..5000 {
        server.bucket("from").put_with(&format!("k{i:05}"), Content::Pattern(1 << 10), None, &[]);
    }
    server.bucket("to");
    let at = server.endpoint();
    let dir = tempfile::tempdir().unwrap();
    let hash = config::template::hash_password("a password of the test").unwrap();
    let extra = format!(
        "\n[[project]]\nid = \"{OTHER}\"\nname = \"other\"\n\
         [[user]]\nname = \"bob\"\ndomain = \"lab\"\npassword_hash = \"{hash}\"\nrole = \"admin\"\nprojects = [\"other\"]\n\
         [[user]]\nname = \"eve\"\ndomain = \"lab\"\npassword_hash = \"{hash}\"\nrole = \"viewer\"\nprojects = [\"lab\"]\n"
    );
    let service = Service::start(dir.path(), &extra);
    let mut admin = Browser::signed_in(&service);
    let task = create(&mut admin, &new_task(&at, "from", "to"));
    let id = task.rsplit('/').next().unwrap().to_owned();
    admin.wait_for(&task, ">Running<");

    let mut bob = Browser::new(&service);
    assert_eq!(bob.sign_in("bob", "a password of the test").status, 303);
    let page = bob.get("/console/tasks");
    assert!(page.says("No tasks yet") && page.says("other"), "{}", page.body);
    for tail in ["", "/failed", "/report"] {
        assert_eq!(bob.get(&format!("{task}{tail}")).status, 404, "{tail}");
    }
    for path in ["/console/tasks/1700000000000001", "/console/tasks/x"] {
        assert_eq!(bob.get(path).status, 404, "{path}");
    }
    for action in ["stop", "start", "retry", "limit", "delete"] {
        assert_eq!(bob.post(&format!("{task}/{action}"), &[]).status, 404, "{action}");
    }
    let page = bob.post("/console/tasks/batch", &[("id", &id), ("do", "stop")]);
    assert!(page.header("location").contains("done=0&skipped=1"), "{page:?}");
    assert_eq!(bob.post("/console/project", &[("project", &service.project)]).status, 404);
    assert!(bob.listen(&format!("/console/live?topic=task:{id}"), "event: gone").contains("event: hello"));
    let audit = bob.get("/console/audit");
    assert!(audit.says("bob") && !audit.says(&format!("created {id}")), "lines of the other project");

    let mut eve = Browser::new(&service);
    assert_eq!(eve.sign_in("eve", "a password of the test").status, 303);
    let page = eve.get(&task);
    assert!(page.status == 200 && !page.says("/stop\"") && page.says("The role viewer"), "{}", page.body);
    for (method, path) in [
        ("post", format!("{task}/stop")),
        ("get", "/console/audit".into()),
        ("get", "/console/tasks/new".into()),
    ] {
        let page = if method == "post" { eve.post(&path, &[]) } else { eve.get(&path) };
        assert_eq!(page.status, 403, "{path}");
    }
    assert!(!eve.get("/console/keys").says(&service.ak), "other accounts are for admins");
    assert_eq!(eve.post("/console/signout", &[]).status, 303);
    assert_eq!(service.show(id.parse().unwrap())["status"], 2, "it still runs");
    assert_eq!(admin.post("/console/tasks/batch", &[("id", &id), ("do", "stop")]).status, 303);
    admin.wait_for(&task, ">Paused<");
}

#[test]
fn console_pages_are_small_and_in_two_languages() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut browser = Browser::signed_in(&service);
    for path in PAGES {
        let page = browser.get(path);
        let mut sum = page.body.len();
        for part in page.body.split("/console/assets/").skip(1) {
            let name = part.split('"').next().unwrap();
            let file = browser.get(&format!("/console/assets/{name}"));
            assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable", "{name}");
            sum += file.body.len();
        }
        assert!(sum <= 200 << 10, "{path}: {sum} bytes");
        assert!(page.body.len() <= 60 << 10, "{path}: {} bytes of HTML", page.body.len());
    }
    assert_eq!(browser.get("/console/assets/console.css").status, 404, "without the hash");
    assert!(browser.get("/console/").says("<link rel=\"icon\""), "else browsers ask the API for an icon");
    let page = browser.get("/console/tasks?lang=zh&theme=dark&q=x");
    assert_eq!((page.status, page.header("location")), (303, "/console/tasks?q=x"));
    let page = browser.get("/console/tasks");
    assert!(page.says("<html lang=\"zh-CN\" data-theme=\"dark\">") && page.says("任务"), "{}", page.body);
}

#[test]
fn console_live_updates_follow_a_task_and_end_with_the_session() {
    let server =
        S3Server::start(Options { delay: std::time::Duration::from_millis(100), ..Options::default() });
    for i in 0..5000 {
        server.bucket("from").put(&format!("k{i:05}"), "x");
    }
    server.bucket("to");
    let at = server.endpoint();
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut browser = Browser::signed_in(&service);
    let task = create(&mut browser, &new_task(&at, "from", "to"));
    let id = task.rsplit('/').next().unwrap().to_owned();
    let events = browser.listen(&format!("/console/live?topic=task:{id}"), "Running</span>");
    assert!(
        events.contains("event: at\ndata: Live, ") && events.contains("event: progress\ndata: "),
        "{events}"
    );
    let events = browser.listen("/console/live?topic=tasks", &format!("event: progress-{id}"));
    assert!(events.contains(&format!("event: state-{id}")), "{events}");
    let events = browser.listen("/console/live?topic=overview", "event: running");
    assert!(events.contains(&format!("/console/tasks/{id}")), "{events}");
    assert_eq!(browser.get("/console/live?topic=secrets").status, 404);
    // The stream of a session that has ended is closed.
    let path = format!("/console/live?topic=task:{id}");
    let mut stream = browser.open(&path);
    stream.read_until("event: progress");
    assert_eq!(browser.post("/console/signout", &[]).status, 303);
    stream.read_to_end();
}
