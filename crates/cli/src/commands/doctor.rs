//! `whimbrel doctor`: each finding in one sentence, with its remedy.

use std::collections::BTreeMap;
use std::path::Path;

use config::Config;
use model::failure::{Failure, Result};
use seal::Keyring;
use storage::ObjectStore;
use storage::http::Client;
use storage::s3::{Addressing, S3, S3Config};

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

fn bad(what: impl Into<String>, failure: &Failure) -> Finding {
    let found = format!("{}; {}", failure.message, failure.kind.remedy());
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
            for store in &config.store {
                findings.push(check_store(store).await);
            }
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
    let keys = match Keyring::open_or_create(&path) {
        Ok(keys) => keys,
        Err(failure) => return findings.push(bad("keyring", &failure)),
    };
    for key in &config.access_key {
        let what = format!("access key {}", key.ak);
        findings.push(match config::reveal(&what, &key.sk, env, &keys) {
            Ok(_) => good(what, "its secret can be read"),
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
        Ok(()) => good("data directory", format!("{} can be written", dir.display())),
        Err(e) => {
            let f = Failure::new(model::failure::Kind::ReadOnly, "doctor", format!("{}: {e}", dir.display()));
            bad("data directory", &f)
        }
    });
}

/// An anonymous look: the endpoint answers, and its clock agrees with ours.
async fn check_store(store: &config::Store) -> Finding {
    let what = format!("store {}", store.region);
    if !store.path.is_empty() {
        return match Path::new(&store.path).is_dir() {
            true => good(what, format!("{} is a directory", store.path)),
            false => {
                let m = format!("{} is no directory", store.path);
                bad(what, &Failure::new(model::failure::Kind::NoBucket, "doctor", m))
            }
        };
    }
    let open = async {
        let config = S3Config {
            client: Client::new(&store.endpoint, None)?,
            bucket: String::new(),
            addressing: Addressing::Path,
            region: store.signing_region.clone(),
            credentials: None,
            order: None,
            requester_pays: false,
        };
        S3::new(config, pace::clock::system())?.probe().await
    };
    use model::failure::Kind;
    match open.await {
        Ok(probe) => match probe.skew_ms {
            Some(ms) if ms.abs() > 5 * 60_000 => {
                let m = format!("{} answers, but its clock differs by {} s", store.endpoint, ms / 1000);
                bad(what, &Failure::new(Kind::ClockSkew, "doctor", m))
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
