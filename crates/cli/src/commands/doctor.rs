//! `whimbrel doctor`: each finding in one sentence, with its remedy.

use std::collections::BTreeMap;
use std::path::Path;

use config::Config;
use model::error::{Error, Kind, Result, Side};
use redis_migration::Node;
use redis_migration::connection::node::TlsFiles;
use redis_migration::connection::query_client::QueryClient;
use seal::Keyring;
use storage::ObjectStore;
use storage::egress::Egress;
use storage::http::Client;
use storage::s3::{Addressing, S3, S3Config};
use store::postgres::schema;

use crate::args::Doctor;
use crate::exit::Exit;
use crate::printer::Printer;

#[derive(serde::Serialize)]
struct Finding {
    ok: bool,
    what: String,
    found: String,
}

fn good(what: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding { ok: true, what: what.into(), found: found.into() }
}

fn bad(what: impl Into<String>, failure: &Error) -> Finding {
    let (why, hint) = failure.with_hint();
    let found = format!("{why}; hint: {hint}");
    Finding { ok: false, what: what.into(), found }
}

pub(crate) async fn run(args: &Doctor, printer: &Printer) -> Result<Exit> {
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let mut findings = Vec::new();
    match config::load(&args.config, &env) {
        Err(failure) => findings.push(bad("configuration", &failure)),
        Ok(config) => {
            findings.push(good("configuration", format!("{} is valid", args.config.display())));
            secrets(&config, &env, &mut findings);
            data_dir(&config, &mut findings);
            findings.push(database(&config).await);
            findings.push(listen(&config).await);
            tls(&config, &mut findings);
            for store in &config.stores {
                findings.push(check_store(store).await);
            }
            instances(&config, &env, &mut findings).await;
        }
    }
    let broken = findings.iter().filter(|f| !f.ok).count();
    if args.json {
        printer.result(&serde_json::json!({"findings": findings, "broken": broken}).to_string());
    } else {
        for f in &findings {
            printer.result(&format!("{} {}: {}", if f.ok { "ok  " } else { "BAD " }, f.what, f.found));
        }
    }
    Ok(if broken == 0 { Exit::Done } else { Exit::Differs })
}

fn secrets(config: &Config, env: &BTreeMap<String, String>, findings: &mut Vec<Finding>) {
    let path = config::keyring_path(Path::new(&config.data_dir));
    let data_dir = Path::new(&config.data_dir);
    if !path.exists() && !data_dir.join("whimbrel.db").exists() {
        return findings
            .push(good("keyring", format!("{} will be created at the first start", path.display())));
    }
    let keys = match Keyring::in_data_dir(data_dir) {
        Ok(keys) => keys,
        Err(failure) => return findings.push(bad("keyring", &failure)),
    };
    for key in &config.access_keys {
        let what = format!("access key {}", key.ak);
        findings.push(match config::reveal(&what, &key.sk, env, &keys) {
            Ok(_) => good(what, "the secret key can be read"),
            Err(failure) => bad(what, &failure),
        });
    }
}

fn data_dir(config: &Config, findings: &mut Vec<Finding>) {
    let dir = Path::new(&config.data_dir);
    let probe = dir.join(".doctor");
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, b"x"));
    let _ = std::fs::remove_file(&probe);
    findings.push(match written {
        Ok(()) => good("data directory", format!("{} is writable", dir.display())),
        Err(e) => {
            let f = Error::new(Kind::ReadOnly, "doctor", format!("{}: {e}", dir.display())).caused_by(e);
            bad("data directory", &f)
        }
    });
}

async fn database(config: &Config) -> Finding {
    if config.database.is_empty() || config.database == "sqlite" {
        return good("database", "embedded SQLite in the data directory");
    }
    // The URL may hold a password: it is not shown.
    match schema::version(&config.database).await {
        Ok(version) if version.is_current() => {
            good("database", format!("PostgreSQL, schema version {}", version.database))
        }
        Ok(version) if version.database == 0 => {
            good("database", "PostgreSQL, empty; `serve` makes the schema")
        }
        Ok(version) => {
            let m = format!(
                "PostgreSQL has schema version {}, this program needs {}; hint: run `whimbrel db migrate`",
                version.database, version.program
            );
            bad("database", &Error::new(Kind::Invalid, "doctor", m))
        }
        Err(failure) => bad("database", &failure),
    }
}

/// The address is free, or a service answers there: this one, when it runs already.
async fn listen(config: &Config) -> Finding {
    let what = format!("address {}", config.listen);
    if tokio::net::TcpListener::bind(&config.listen).await.is_ok() {
        return good(what, "is free");
    }
    #[expect(clippy::disallowed_methods, reason = "the address of this service itself")]
    let found = tokio::net::TcpStream::connect(&config.listen).await;
    match found {
        Ok(_) => good(what, "is in use; hint: stop the other program, unless it is this service"),
        Err(e) => {
            bad(what, &Error::new(Kind::Invalid, "doctor", format!("cannot listen on this address: {e}")))
        }
    }
}

fn tls(config: &Config, findings: &mut Vec<Finding>) {
    let files = config.tls.iter().flat_map(|tls| [&tls.cert, &tls.key]);
    for file in files.filter(|f| !Path::new(f).is_file()) {
        let failure = Error::new(Kind::Invalid, "doctor", format!("{file} is not a file"));
        findings.push(bad("tls", &failure));
    }
}

/// Each Redis instance answers, with its password.
async fn instances(config: &Config, env: &BTreeMap<String, String>, findings: &mut Vec<Finding>) {
    if config.redis_instances.is_empty() {
        return;
    }
    let keys = match Keyring::in_data_dir(Path::new(&config.data_dir)) {
        Ok(keys) => keys,
        Err(failure) => return findings.push(bad("redis", &failure)),
    };
    for r in &config.redis_instances {
        let what = format!("redis {}", r.name);
        let asked = async {
            let password = match &r.password {
                Some(secret) => config::reveal(&what, secret, env, &keys)?.expose().to_owned(),
                None => String::new(),
            };
            let addrs = redis_migration::connection::node::addresses(&r.addrs)?;
            let egress = Egress::anywhere();
            let user = r.user.clone();
            let tls_files = TlsFiles { ca: r.ca.clone(), cert: r.cert.clone(), key: r.key.clone() };
            let node = Node { addrs, user, password, tls: r.tls, tls_files, egress, ..Node::default() };
            QueryClient::open(&node, Side::Source).await.map(|(_, server, _)| server)
        };
        findings.push(match asked.await {
            Ok(s) => {
                let kind = if s.cluster { "a cluster" } else { "one server" };
                good(
                    what,
                    format!(
                        "{} answers: {kind}, version {}.{}, {} keys",
                        r.addrs, s.version.0, s.version.1, s.keys
                    ),
                )
            }
            Err(failure) => bad(what, &failure),
        });
    }
}

/// An anonymous request: the endpoint responds, and its clock agrees with that of this machine.
async fn check_store(store: &config::Store) -> Finding {
    let what = format!("store {}", store.region);
    if !store.path.is_empty() {
        return match Path::new(&store.path).is_dir() {
            true => good(what, format!("{} is a directory", store.path)),
            false => {
                let m = format!("{} is not a directory", store.path);
                bad(what, &Error::new(Kind::NoBucket, "doctor", m))
            }
        };
    }
    let open = async {
        let config = S3Config {
            client: Client::with_base(&store.endpoint, Egress::anywhere())?,
            bucket: String::new(),
            addressing: Addressing::Path,
            region: store.signing_region.clone(),
            credentials: None,
            order: None,
            requester_pays: false,
            vendor: &storage::s3::vendor::GENERIC,
        };
        S3::new(config, flow_control::clock::system())?.probe("").await
    };
    match open.await {
        // It answered that it does not know us: that is an answer.
        Ok(probe) if probe.list_refused.is_some() => good(what, format!("{} answers", store.endpoint)),
        Ok(probe) => match probe.skew_ms {
            Some(ms) if ms.abs() > 5 * 60_000 => {
                let m = format!("{} answers, but its clock differs by {} s", store.endpoint, ms / 1000);
                bad(what, &Error::new(Kind::ClockSkew, "doctor", m))
            }
            _ => good(what, format!("{} answers ({})", store.endpoint, probe.server)),
        },
        // It answered that it does not know us: that is an answer.
        Err(f)
            if matches!(f.kind, Kind::Forbidden | Kind::BadCredentials | Kind::Invalid | Kind::NoBucket) =>
        {
            good(what, format!("{} answers", store.endpoint))
        }
        Err(failure) => bad(what, &failure),
    }
}
