//! Every vector of auth.md appendix A and OMS §1.4.2, and every change that must be refused.

use super::super::Key;
use super::*;
use config::Role;
use seal::Secret;

const PROJECT: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const AGENT: &str = "huaweicloud-usdk-python/3.0";
const NOW: i64 = 1_768_465_800_000;
const STAMP: &str = "20260115T083000Z";

fn accounts() -> Accounts {
    let mut accounts = Accounts::default();
    let mut add = |ak: &str, sk: &str, project: &str| {
        let key =
            Key { secret: Secret::new(sk), project: project.into(), role: Role::Operator, enabled: true };
        accounts.keys.insert(ak.into(), key);
    };
    add("GODWITEXAMPLEAK00001", "GodwitExampleSecretKey0123456789abcdEFGH", PROJECT);
    add("AKEXAMPLE", "SKEXAMPLE", "2c0689c860ad4728a497c91ec0844383");
    add("GODWITEXAMPLEAK", "GodwitExampleSecretKey0123456789", "0123456789abcdef0123456789abcdef");
    add("OTHER", "OtherSecret", "other");
    accounts
}

#[derive(Clone)]
struct Case {
    method: &'static str,
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Case {
    fn check(&self) -> Result<Principal, SignatureRefused> {
        self.check_at(NOW)
    }

    fn check_at(&self, now: i64) -> Result<Principal, SignatureRefused> {
        let raw = RawRequest {
            method: self.method,
            path: &self.path,
            query: &self.query,
            headers: self.headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect(),
            body: self.body.as_bytes(),
        };
        verify(&raw, &accounts(), now)
    }

    fn with(&self, change: impl FnOnce(&mut Case)) -> Case {
        let mut case = self.clone();
        change(&mut case);
        case
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value.into()));
    }
}

fn case(
    method: &'static str,
    target: &str,
    extra: &[(&'static str, &str)],
    body: &str,
    signature: &str,
) -> Case {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = vec![
        ("host", "127.0.0.1:8080".to_owned()),
        ("user-agent", AGENT.to_owned()),
        ("x-sdk-date", STAMP.to_owned()),
    ];
    headers.extend(extra.iter().map(|(n, v)| (*n, v.to_string())));
    let mut names: Vec<&str> = headers.iter().map(|(n, _)| *n).collect();
    names.sort_unstable();
    let auth = format!(
        "SDK-HMAC-SHA256 Access=GODWITEXAMPLEAK00001, SignedHeaders={}, Signature={signature}",
        names.join(";")
    );
    headers.push(("authorization", auth));
    Case { method, path: path.into(), query: query.into(), headers, body: body.into() }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const JSON_UTF8: (&str, &str) = ("content-type", "application/json;charset=utf-8");
const IN_PROJECT: (&str, &str) = ("x-project-id", PROJECT);

fn vectors() -> Vec<Case> {
    let body = r#"{"task_type": "prefix", "src_node": {"cloud_type": "AWS", "region": "minio-a", "ak": "SRCAK", "sk": "SRCSK", "bucket": "src", "object_key": [""]}, "dst_node": {"ak": "DSTAK", "sk": "DSTSK", "bucket": "dst", "region": "minio-b"}, "description": "\u4e2d\u6587 \u00e9"}"#;
    let at = |tail: &str| format!("/v2/{PROJECT}/{tail}");
    vec![
        case(
            "GET",
            &at("tasks?limit=100&offset=0&status=2&task_name=nightly%20run%2F2026%2B%CE%B1~%2A"),
            &[JSON, IN_PROJECT],
            "",
            "b2ab10a90eb22819d7bda27d3c086519fc54c6ebba3e9a33f3d4ed506c935663",
        ),
        case(
            "POST",
            &at("tasks"),
            &[JSON_UTF8, IN_PROJECT],
            body,
            "4411acb86da597c5612607a840a9a8cbfacac0668df48a51d20939fb3ab627b7",
        ),
        case(
            "GET",
            &at("migration-task/we%20ird%2F%C3%BC%2541%2A~%281%29"),
            &[JSON, IN_PROJECT],
            "",
            "bc924b798c5566c6b3c4539789b816ea5d3c8129c94668ac5df2fdd964d626e7",
        ),
        case(
            "GET",
            "/v3/projects?name=godwit-1",
            &[],
            "",
            "ee1dfcc459950447bd6e420a427b26ca2f6550fc937363ddf98742d71cb3471a",
        ),
        case(
            "GET",
            "/v3/auth/domains",
            &[],
            "",
            "4120f3ead94f54b3f9fa84b089dbf5d0842743ba8e3176751ba7ffb4550c4ab4",
        ),
        case(
            "GET",
            "/",
            &[JSON, IN_PROJECT],
            "",
            "47630178dcc8b22faa7ffb652ca7c75a61c64f7eaa229e05d81b35decb255ede",
        ),
        case(
            "DELETE",
            &at("migration-tasks/delete"),
            &[JSON_UTF8, IN_PROJECT],
            r#"{"task_id_list": ["a"]}"#,
            "ca053d768960300be349cd3a60436513834530209d6d490201d320c459689032",
        ),
        case(
            "GET",
            &at("x?status=9&status=10"),
            &[JSON, IN_PROJECT],
            "",
            "0e614de0aef49c20a98634a7645554db0bc4b8ef0ec3568aa808e076d0f2b65b",
        ),
    ]
}

#[test]
fn signature_vectors_are_accepted() {
    for (i, case) in vectors().iter().enumerate() {
        assert_eq!(case.check().map(|p| p.projects), Ok(vec![PROJECT.to_owned()]), "vector {}", i + 1);
    }
}

#[test]
fn signature_vectors_of_oms_are_accepted() {
    let project = "2c0689c860ad4728a497c91ec0844383";
    let make = |method, path: String, query: &str, kind: &str, body: &str, signature: &str| Case {
        method,
        path,
        query: query.into(),
        headers: vec![
            ("content-type", kind.into()),
            ("host", "127.0.0.1:8080".into()),
            ("user-agent", AGENT.into()),
            ("x-project-id", project.into()),
            ("x-sdk-date", "20260102T030405Z".into()),
            (
                "authorization",
                format!(
                    "SDK-HMAC-SHA256 Access=AKEXAMPLE, SignedHeaders=content-type;host;user-agent;x-project-id;x-sdk-date, Signature={signature}"
                ),
            ),
        ],
        body: body.into(),
    };
    let now = instant("20260102T030405Z").unwrap();
    let get = make(
        "GET",
        format!("/v2/{project}/tasks"),
        "limit=10&offset=0&status=4&task_name=a%20b",
        "application/json",
        "",
        "7b24f4d3dad6e17af24a66d268f225713388b61bdb9a7aef0a7651c0a76282c2",
    );
    let post = make(
        "POST",
        format!("/v2/{project}/tasks/200477729979132/start"),
        "",
        "application/json;charset=utf-8",
        r#"{"dst_ak": "a", "dst_sk": "b"}"#,
        "90203caaa5e7048b4d5dea5dd989c6f101a74f72e1d7b0612a4e8c177b5d6779",
    );
    assert!(get.check_at(now).is_ok() && post.check_at(now).is_ok());
}

#[test]
fn signature_vector_with_derived_key_is_accepted() {
    let mut case = vectors()[0].clone();
    case.query = String::new();
    case.set("authorization", "V11-HMAC-SHA256 Credential=GODWITEXAMPLEAK00001/20260115/godwit-1/oms, SignedHeaders=content-type;host;user-agent;x-project-id;x-sdk-date, Signature=8a3930d5e16b30a46893e5b5a25c939188eef52eb93666cb5c190fa9c82ce3c2");
    assert!(case.check().is_ok());
    let other_day = case.with(|c| {
        let auth = c.headers.last().unwrap().1.replace("/20260115/", "/20260114/");
        c.set("authorization", &auth);
    });
    assert!(other_day.check().is_err());
}

#[test]
fn signature_ignores_order_and_unsigned_headers() {
    let base = &vectors()[0];
    let reordered = base
        .with(|c| c.query = "task_name=nightly%20run%2F2026%2B%CE%B1~%2A&status=2&offset=0&limit=100".into());
    let extra = base.with(|c| c.headers.push(("accept", "*/*".into())));
    let moved = base.with(|c| c.headers.reverse());
    for case in [reordered, extra, moved] {
        assert!(case.check().is_ok());
    }
    // Go signs neither host nor content-type and ends its JSON with a line feed: any subset verifies.
    assert!(vectors()[3].with(|c| c.headers.push(("content-type", "x".into()))).check().is_ok());
}

#[test]
fn request_changed_by_one_character_is_rejected() {
    let base = &vectors()[1];
    let refusals = [
        base.with(|c| c.method = "PUT"),
        base.with(|c| c.path.push('x')),
        base.with(|c| c.query = "a=b".into()),
        base.with(|c| c.body.push(' ')),
        base.with(|c| c.set("user-agent", "other")),
        base.with(|c| c.set("host", "127.0.0.1:8081")),
        base.with(|c| c.headers.retain(|(n, _)| *n != "content-type")),
        base.with(|c| c.headers.push(("x-security-token", "t".into()))),
        base.with(|c| c.headers.push(("x-sdk-content-sha256", "UNSIGNED-PAYLOAD".into()))),
        base.with(|c| c.headers.push(("authorization", "x".into()))),
        base.with(|c| c.set("authorization", "Basic dXNlcjpwdw==")),
        base.with(|c| c.set("authorization", &c.headers.last().unwrap().1.replace("SHA256", "SM3"))),
        base.with(|c| {
            c.set("authorization", &c.headers.last().unwrap().1.replace("GODWITEXAMPLEAK00001", "OTHER"))
        }),
        base.with(|c| {
            c.set("authorization", &c.headers.last().unwrap().1.replace("Access=", "Access=A, Access="))
        }),
        base.with(|c| c.set("authorization", &c.headers.last().unwrap().1.replace(";x-sdk-date", ""))),
        base.with(|c| {
            let auth = c.headers.last().unwrap().1.clone();
            let flipped = if auth.ends_with('0') { "1" } else { "0" };
            c.set("authorization", &format!("{}{flipped}", &auth[..auth.len() - 1]));
        }),
    ];
    for (i, case) in refusals.iter().enumerate() {
        assert!(case.check().is_err(), "change {i}");
    }
}

#[test]
fn signature_time_may_differ_by_15_minutes() {
    let base = &vectors()[0];
    let minute = 60_000;
    for (minutes, fine) in [(-16, false), (-15, true), (15, true), (16, false)] {
        assert_eq!(base.check_at(NOW + minutes * minute).is_ok(), fine, "{minutes}");
    }
    let text = base.check_at(NOW + 16 * minute).unwrap_err().text;
    assert!(text.contains("signature time:20260115T083000Z,server time:20260115T084600Z"), "{text}");
}

#[test]
fn signature_error_shows_the_canonical_request_without_the_token() {
    let case = vectors()[0].with(|c| c.method = "PUT");
    let text = case.check().unwrap_err().text;
    assert!(text.starts_with("verify aksk signature fail, canonicalRequest:PUT|/v2/"), "{text}");
    assert_eq!(mask("a\nx-security-token:secret\nb"), "a\nx-security-token:***\nb");
}

/// The three vectors of dcs-migration.md §1.4, at their time: as the Python SDK signs, and as the Terraform provider does. A
/// changed byte in any signed part is refused.
#[test]
fn signature_vectors_of_dcs_are_accepted() {
    const AT: i64 = 1_704_164_645_000;
    const AUTH: &str = "SDK-HMAC-SHA256 Access=GODWITEXAMPLEAK, SignedHeaders=";
    let project = "0123456789abcdef0123456789abcdef";
    let base = |method, path: &str, query: &str, body: &str, headers: &[(&'static str, &str)]| Case {
        method,
        path: format!("/v2/{project}{path}"),
        query: query.into(),
        headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
        body: body.into(),
    };
    let sdk = "content-type;host;x-project-id;x-sdk-date, Signature=";
    let first = format!("{AUTH}{sdk}4b3a3226d80efdbb0303d529394087486a05c149842f3c836339f34b6f5f48e9");
    let second = format!("{AUTH}{sdk}7851a5aafc407ccf485a346b47a206ca59a4bbb39f51f28d06848bf7c6625f06");
    let third = format!(
        "{AUTH}accept;user-agent;x-sdk-date, Signature=1d1bf3568df498748e4a6e5bd8db1678e53d0b677f1719fc01cc505f71c3bad0"
    );
    let host = ("host", "godwit.example:8635");
    let (id, date) = (("x-project-id", project), ("x-sdk-date", "20240102T030405Z"));
    let json = |kind| ("content-type", kind);
    let cases = [
        base(
            "GET",
            "/migration-tasks",
            "limit=10&name=a%20b&offset=0",
            "",
            &[json("application/json"), host, id, date, ("authorization", &first)],
        ),
        base(
            "POST",
            "/migration-task/batch-stop",
            "",
            "{\"migration_tasks\": [\"2944a563-6f27-4d5b-9c1e-0a1b2c3d4e5f\"]}",
            &[json("application/json;charset=utf-8"), host, id, date, ("authorization", &second)],
        ),
        base(
            "POST",
            "/migration-task/2944a563-6f27-4d5b-9c1e-0a1b2c3d4e5f/stop",
            "",
            "",
            &[
                ("accept", "application/json"),
                ("user-agent", "godwit-test/1"),
                date,
                ("authorization", &third),
                // Added after signing.
                id,
                ("x-domain-id", "0123456789abcdef0123456789abcdef"),
            ],
        ),
    ];
    for (i, case) in cases.iter().enumerate() {
        let principal = case.check_at(AT).unwrap_or_else(|r| panic!("vector {i}: {}", r.text));
        assert_eq!(principal.projects, [project]);
        assert!(case.with(|c| c.path.push('x')).check_at(AT).is_err(), "vector {i}: another path");
        assert!(case.with(|c| c.body.push(' ')).check_at(AT).is_err(), "vector {i}: another body");
        assert!(case.with(|c| c.query.push_str("&x=1")).check_at(AT).is_err(), "vector {i}: another query");
        assert!(case.check_at(AT + 20 * 60 * 1000).is_err(), "vector {i}: too late");
    }
    let late = cases[0].with(|c| c.set("x-project-id", "0123456789abcdef0123456789abcdee"));
    assert!(late.check_at(AT).is_err(), "another signed header");
}

#[test]
fn cl_f01_headers_added_after_signing_are_ignored() {
    let base = &vectors()[3];
    for (name, fine) in [
        ("x-project-id", true),
        ("x-domain-id", true),
        ("x-language", true),
        ("x-security-token", false),
        ("x-sdk-content-sha256", false),
    ] {
        let case = base.with(|c| c.headers.push((name, PROJECT.into())));
        assert_eq!(case.check().is_ok(), fine, "{name}");
    }
    // A signed one is still part of the signature.
    let signed = vectors()[0].with(|c| c.set("x-project-id", "other"));
    assert!(signed.check().is_err());
}

#[test]
fn cl_f02_unsigned_body_requires_a_signed_content_header() {
    let php = nine_clients().into_iter().filter(|s| s.client == "PHP");
    for sent in php {
        let case = sent.case();
        assert!(case.check().is_ok(), "{}", sent.method);
        assert!(case.with(|c| c.body.push('x')).check().is_ok(), "{}: the price", sent.method);
        let list = |c: &mut Case| {
            let auth = c.headers.iter().find(|(n, _)| *n == "authorization").unwrap().1.clone();
            c.set("authorization", &auth.replace(";x-sdk-content-sha256", ""));
        };
        assert!(case.with(list).check().is_err(), "{}: not among the signed", sent.method);
        let other = case.with(|c| c.set("x-sdk-content-sha256", "unsigned-payload"));
        assert!(other.check().is_err(), "{}: another word", sent.method);
        let gone = case.with(|c| c.headers.retain(|(n, _)| *n != "x-sdk-content-sha256"));
        assert!(gone.check().is_err(), "{}: signed and missing", sent.method);
    }
}

type Headers = &'static [(&'static str, &'static str)];

/// A request as one client sends it. What the client signs is written out as its own code makes it, so that nothing of the
/// verifier decides here what is right.
struct Sent {
    client: &'static str,
    method: &'static str,
    /// Path and query on the wire, and the two as the client signs them.
    target: String,
    path: String,
    query: &'static str,
    /// In the order of their names.
    signed: Headers,
    unsigned: Headers,
    body: &'static str,
    /// What is signed in place of the hash of the body; empty: that hash.
    payload: &'static str,
    /// Between the parts of `Authorization`.
    comma: &'static str,
}

impl Sent {
    fn case(&self) -> Case {
        let names: Vec<&str> = self.signed.iter().map(|(n, _)| *n).collect();
        let names = names.join(";");
        let lines: String = self.signed.iter().map(|(n, v)| format!("{n}:{}\n", v.trim())).collect();
        let payload =
            if self.payload.is_empty() { sha256_hex(self.body.as_bytes()) } else { self.payload.to_owned() };
        let canonical =
            format!("{}\n{}\n{}\n{lines}\n{names}\n{payload}", self.method, self.path, self.query);
        let text = format!("SDK-HMAC-SHA256\n{STAMP}\n{}", sha256_hex(canonical.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"GodwitExampleSecretKey0123456789abcdEFGH");
        let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        let comma = self.comma;
        let auth = format!(
            "SDK-HMAC-SHA256 Access=GODWITEXAMPLEAK00001{comma}SignedHeaders={names}{comma}Signature={signature}"
        );
        let sent = self.signed.iter().chain(self.unsigned).map(|(n, v)| (*n, (*v).to_owned()));
        let headers = sent.chain([("authorization", auth)]).collect();
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        Case { method: self.method, path: path.into(), query: query.into(), headers, body: self.body.into() }
    }
}

const DATE: (&str, &str) = ("x-sdk-date", STAMP);
const HOST: (&str, &str) = ("host", "127.0.0.1:8080");
const ACCEPT: (&str, &str) = ("accept", "application/json");
const PHP_AGENT: (&str, &str) = ("user-agent", "huaweicloud-usdk-php/3.0");
const PHP_PAYLOAD: (&str, &str) = ("x-sdk-content-sha256", "UNSIGNED-PAYLOAD");
const TERRAFORM: (&str, &str) = ("user-agent", "terraform-provider-iac golangsdk/2.0.0");
const GO_AGENT: (&str, &str) = ("user-agent", "huaweicloud-usdk-go/3.0");

fn nine_clients() -> Vec<Sent> {
    let at = |tail: &str| format!("/v2/{PROJECT}/{tail}");
    // Most clients: no query, the hash of the body, a comma and a space.
    let plain = |client: &'static str,
                 method: &'static str,
                 tail: &str,
                 signed: Headers,
                 unsigned: Headers,
                 body: &'static str| Sent {
        client,
        method,
        target: at(tail),
        path: format!("{}/", at(tail)),
        query: "",
        signed,
        unsigned,
        body,
        payload: "",
        comma: ", ",
    };
    let listed = |sent: Sent, wire: &str, query: &'static str| Sent {
        target: format!("{}?{wire}", sent.target),
        query,
        ..sent
    };
    vec![
        // Terraform signs what is set by then, and sets the ids afterwards; Host and the rest are its HTTP library's.
        plain(
            "Terraform",
            "POST",
            "tasks",
            &[ACCEPT, JSON, TERRAFORM, DATE],
            &[HOST, IN_PROJECT, ("x-domain-id", "d"), ("accept-encoding", "gzip")],
            "{\"task_type\":\"prefix\"}",
        ),
        plain("Terraform", "POST", "tasks/1/stop", &[ACCEPT, TERRAFORM, DATE], &[HOST, IN_PROJECT], ""),
        // Go signs neither host nor content-type; its JSON ends in a line feed, an empty value has no `=` on the wire.
        plain(
            "Go",
            "POST",
            "tasks",
            &[GO_AGENT, IN_PROJECT, DATE],
            &[HOST, JSON],
            "{\"description\":\"中文\"}\n",
        ),
        listed(
            plain("Go", "GET", "taskgroups", &[GO_AGENT, IN_PROJECT, DATE], &[HOST, JSON], ""),
            "limit=10&offset=0&status",
            "limit=10&offset=0&status=",
        ),
        // Java's query keeps its order on the wire and is signed sorted; its HTTP library completes the content type.
        listed(
            plain(
                "Java",
                "GET",
                "tasks",
                &[HOST, ("user-agent", "huaweicloud-usdk-java/3.0"), IN_PROJECT, DATE],
                &[("content-type", "application/json; charset=utf-8"), ("accept-encoding", "gzip")],
                "",
            ),
            "offset=0&limit=10&task_name=a%20b",
            "limit=10&offset=0&task_name=a%20b",
        ),
        // Values of a repeated name in the order in which they are sent.
        listed(
            plain(
                "Java",
                "GET",
                "tasks",
                &[HOST, ("user-agent", "huaweicloud-usdk-java/3.0"), IN_PROJECT, DATE],
                &[],
                "",
            ),
            "status=9&status=10",
            "status=9&status=10",
        ),
        // Node signs no user-agent, writes JSON without spaces and its query in no order.
        listed(
            plain(
                "Node",
                "GET",
                "tasks",
                &[JSON, HOST, IN_PROJECT, DATE],
                &[
                    ("user-agent", "huaweicloud-usdk-node-js/3.0"),
                    ("accept", "application/json, text/plain, */*"),
                ],
                "",
            ),
            "task_name=x%2By&offset=0&limit=10",
            "limit=10&offset=0&task_name=x%2By",
        ),
        plain("Node", "POST", "tasks", &[JSON, HOST, IN_PROJECT, DATE], &[], "{\"description\":\"é\"}"),
        // PHP signs no host, and a word in place of the hash: of all its JSON, and of requests without a body too.
        Sent {
            payload: "UNSIGNED-PAYLOAD",
            ..listed(
                plain(
                    "PHP",
                    "GET",
                    "tasks",
                    &[ACCEPT, JSON, PHP_AGENT, IN_PROJECT, PHP_PAYLOAD, DATE],
                    &[HOST],
                    "",
                ),
                "limit=1",
                "limit=1",
            )
        },
        Sent {
            payload: "UNSIGNED-PAYLOAD",
            ..plain(
                "PHP",
                "POST",
                "objectstorage/buckets",
                &[ACCEPT, JSON_UTF8, PHP_AGENT, IN_PROJECT, PHP_PAYLOAD, DATE],
                &[HOST],
                "{\"cloud_type\":\"AWS\"}",
            )
        },
        // Python signs all that it sets; what is in a path is signed decoded, with a slash as a slash.
        plain(
            "Python",
            "POST",
            "tasks",
            &[JSON_UTF8, HOST, ("user-agent", AGENT), IN_PROJECT, DATE],
            &[("accept-encoding", "gzip, deflate"), ("accept", "*/*"), ("connection", "keep-alive")],
            "{\"description\": \"\\u4e2d\"}",
        ),
        Sent {
            path: at("tasks/a/b%20c/"),
            ..plain(
                "Python",
                "GET",
                "tasks/a%2Fb%20c",
                &[JSON, HOST, ("user-agent", AGENT), IN_PROJECT, DATE],
                &[],
                "",
            )
        },
        plain(
            "Python 3.0.60",
            "POST",
            "tasks",
            &[
                ("content-type", "application/json;charset=UTF-8"),
                HOST,
                ("user-agent", AGENT),
                IN_PROJECT,
                DATE,
            ],
            &[("accept", "*/*")],
            "{\"src_node\": {}}",
        ),
        // .NET leaves the port out of Host, where it signs it and where it sends it, and says JSON on GETs.
        listed(
            plain(
                ".NET",
                "GET",
                "tasks",
                &[("host", "127.0.0.1"), ("user-agent", "huaweicloud-usdk-net/3.0"), IN_PROJECT, DATE],
                &[JSON, ("content-length", "0")],
                "",
            ),
            "limit=10&offset=0",
            "limit=10&offset=0",
        ),
        plain(
            ".NET",
            "POST",
            "tasks",
            &[("host", "127.0.0.1"), ("user-agent", "huaweicloud-usdk-net/3.0"), IN_PROJECT, DATE],
            &[JSON],
            "{\"task_type\":\"prefix\"}",
        ),
        // Scripts sign the least, put no space behind commas, and leave curl its own content type.
        Sent {
            comma: ",",
            target: format!("/v1/{PROJECT}/objectstorage/task"),
            path: format!("/v1/{PROJECT}/objectstorage/task/"),
            ..plain(
                "curl",
                "POST",
                "",
                &[HOST, DATE],
                &[
                    ("user-agent", "curl/8.5.0"),
                    ("accept", "*/*"),
                    ("content-type", "application/x-www-form-urlencoded"),
                ],
                "{\"thread_num\": 5}",
            )
        },
    ]
}

/// Each client's own header set and quirks pass; whatever it signs cannot be changed, whatever it does not sign can.
#[test]
fn issue_11_signatures_of_nine_clients_are_accepted() {
    let all = nine_clients();
    let clients: std::collections::BTreeSet<&str> = all.iter().map(|s| s.client).collect();
    assert_eq!(clients.len(), 9, "{clients:?}");
    for sent in &all {
        let what = format!("{} {} {}", sent.client, sent.method, sent.target);
        let case = sent.case();
        let found = case.check().unwrap_or_else(|r| panic!("{what}: {}", r.text));
        assert_eq!(found.projects, [PROJECT], "{what}");
        assert!(case.with(|c| c.headers.reverse()).check().is_ok(), "{what}: another order");
        assert!(case.with(|c| c.path.push('x')).check().is_err(), "{what}: another path");
        assert!(case.with(|c| c.query.push_str("&x=1")).check().is_err(), "{what}: another query");
        assert!(case.with(|c| c.method = "PATCH").check().is_err(), "{what}: another method");
        let covered = sent.payload.is_empty();
        assert_eq!(case.with(|c| c.body.push('x')).check().is_err(), covered, "{what}: another body");
        for &(name, value) in sent.signed {
            let other = case.with(|c| c.set(name, &format!("{value}x")));
            assert!(other.check().is_err(), "{what}: another {name}");
            let gone = case.with(|c| c.headers.retain(|(n, _)| *n != name));
            assert!(gone.check().is_err(), "{what}: without {name}");
        }
        for &(name, value) in sent.unsigned {
            let other = case.with(|c| c.set(name, &format!("{value}x")));
            assert!(other.check().is_ok(), "{what}: {name} is not signed");
        }
        let padded = case.with(|c| {
            for (_, value) in c.headers.iter_mut().filter(|(n, _)| *n != "authorization") {
                *value = format!(" {value} ");
            }
        });
        assert!(padded.check().is_ok(), "{what}: blanks around values");
    }
}

#[test]
fn sec_f31_unauthenticated_request_is_rejected_by_headers_alone() {
    let head = |authorization: &str, date: &str| {
        let raw = RawRequest {
            method: "POST",
            path: "/v2/p/tasks",
            query: "",
            headers: vec![
                ("authorization", authorization.as_bytes()),
                ("x-sdk-date", date.as_bytes()),
                ("host", b"h".as_slice()),
            ],
            body: b"",
        };
        check_head(&raw, &accounts(), NOW).map_err(|refused| refused.text)
    };
    let claim = |ak: &str| {
        format!("SDK-HMAC-SHA256 Access={ak}, SignedHeaders=host;x-sdk-date, Signature={}", "0".repeat(64))
    };
    assert_eq!(head(&claim("GODWITEXAMPLEAK00001"), STAMP), Ok(()), "the signature needs the body");
    assert_eq!(head(&claim("NOBODY"), STAMP).unwrap_err(), "ak NOBODY not exist");
    assert!(
        head(&claim("GODWITEXAMPLEAK00001"), "20250115T083000Z").unwrap_err().contains("signature expired")
    );
    assert_eq!(head(&claim(&"A".repeat(300)), STAMP).unwrap_err(), "unsupported authorization");
    assert!(head("Basic eA==", STAMP).is_err());
}

/// A request as one text: its first line, its headers, an empty line, its body.
fn as_text(case: &Case) -> Vec<u8> {
    let mut text = format!("{} {}?{}\n", case.method, case.path, case.query);
    for (name, value) in &case.headers {
        text.push_str(&format!("{name}:{value}\n"));
    }
    text.push('\n');
    text.push_str(&case.body);
    text.into_bytes()
}

/// An accepted signature is of a known key and of no other method; a refusal never shows a secret.
#[test]
fn fuzz_signatures() {
    let mut corpus: Vec<Vec<u8>> = vectors().iter().map(as_text).collect();
    corpus.extend(nine_clients().iter().map(|sent| as_text(&sent.case())));
    let accounts = accounts();
    testkit::fuzz::fuzz("signatures", &corpus, |input, _| {
        let (head, body) = match input.windows(2).position(|w| w == b"\n\n") {
            Some(at) => (&input[..at], &input[at + 2..]),
            None => (input, &b""[..]),
        };
        let head = String::from_utf8_lossy(head);
        let (first, lines) = head.split_once('\n').unwrap_or((&head, ""));
        let (method, target) = first.split_once(' ').unwrap_or((first, ""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers: Vec<(&str, &[u8])> =
            lines.lines().filter_map(|l| l.split_once(':')).map(|(n, v)| (n, v.as_bytes())).collect();
        let raw = |method| RawRequest { method, path, query, headers: headers.clone(), body };
        match verify(&raw(method), &accounts, NOW) {
            Ok(principal) => {
                assert!(accounts.keys.contains_key(&principal.name));
                assert!(check_head(&raw(method), &accounts, NOW).is_ok());
                assert!(verify(&raw("OTHER"), &accounts, NOW).is_err(), "signed for {method}");
            }
            Err(refused) => {
                let shown = accounts.keys.values().any(|key| refused.text.contains(key.secret.expose()));
                assert!(!shown, "{}", refused.text);
            }
        }
    });
}
