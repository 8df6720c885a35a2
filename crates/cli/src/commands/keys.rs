//! `whimbrel keys`: which keys seal the secrets of a data directory, and the rotation of these keys.
//!
//! `keys rotate` works on a data directory whose service runs or does not run. Each step is durable before the next
//! one begins:
//!
//! | step | who | what | a stop behind it leaves |
//! |---|---|---|---|
//! | 1 | command | checks that keyring, database and configuration belong together | nothing |
//! | 2 | command | puts key N+1 first into `seal.key`: new file, fsync, rename, fsync of the directory | both keys; old secrets open with key N |
//! | 3 | command | seals the values of the configuration file again, in the same way | values of key N or N+1; both keys are there |
//! | 4 | service, or the command while no service runs | re-reads `seal.key`, makes it durable, seals new secrets with key N+1 | rows of both keys |
//! | 5 | the same | seals old rows again in small transactions (`store/src/sealing.rs`) | rows of both keys |
//! | 6 | the same | seals the proof (`sealing.proof`) with key N+1 | no row needs key N |
//! | 7 | command | removes every older key that the configuration does not need | one key |
//!
//! The running service needs no call: it reads `seal.key` once a second ([`follow`]) and at SIGHUP, and does steps 4
//! to 6 also at its start. The proof is its answer: the command reads it from the database and begins step 7 only
//! then. A command that is stopped leaves keys in the file that are not needed; the next `keys rotate` removes them
//! with the key that it replaces. A configuration that cannot be written keeps its sealed values and their key.
//! While no service runs, the command holds the data directory: a service that starts then is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use config::Config;
use model::error::{Error, Kind, Reason, Result};
use seal::{KeyFile, Keyring};
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::args::{Keys, KeysAction};
use crate::exit::Exit;
use crate::printer::Printer;

/// How often the service looks at the keyring file.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How often the command looks at the proof.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Polls between two counts of the rows that are left.
const COUNT_POLLS: u32 = 25;
/// Polls after which a service that re-seals nothing is given up: 60 s.
const IDLE_POLLS: u32 = 300;

pub(crate) async fn run(args: &Keys, printer: &Printer) -> Result<Exit> {
    let mut env: BTreeMap<String, String> = std::env::vars().collect();
    if let Some(dir) = &args.data_dir {
        env.insert("WHIMBREL_DATA_DIR".into(), dir.display().to_string());
    }
    let config = config::load(&args.config, &env)?;
    if config.database != "sqlite" {
        let m = "database: the keys of a PostgreSQL database cannot be listed or rotated by this version";
        return Err(Error::new(Kind::Unsupported, "keys", m));
    }
    match args.action {
        KeysAction::List => list(args, &config, printer),
        KeysAction::Rotate => rotate(args, &config, printer).await,
    }
}

fn list(args: &Keys, config: &Config, printer: &Printer) -> Result<Exit> {
    let data_dir = Path::new(&config.data_dir);
    let (_, keys) = Keyring::read(&config::keyring_path(data_dir))?;
    let rows = store::sealed_rows(data_dir, &keys)?;
    let values = config::sealed::keys(&args.config)?;
    let values = |name: &str| values.get(name).copied().unwrap_or(0);
    if args.json {
        let keys = rows.by_key.iter().map(
            |(name, rows)| serde_json::json!({"name": name, "rows": rows, "configuration": values(name)}),
        );
        let keys: Vec<_> = keys.collect();
        printer.result(&serde_json::json!({"keys": keys, "unknown_rows": rows.unknown}).to_string());
        return Ok(Exit::Done);
    }
    for (name, rows) in &rows.by_key {
        printer.result(&format!("{name}: {rows} rows, {} configuration values", values(name)));
    }
    if rows.unknown > 0 {
        printer.result(&format!("not in the keyring: {} rows", rows.unknown));
    }
    Ok(Exit::Done)
}

async fn rotate(args: &Keys, config: &Config, printer: &Printer) -> Result<Exit> {
    let data_dir = Path::new(&config.data_dir);
    let file = KeyFile::lock(data_dir)?;
    let before = file.keyring()?;
    config::sealed::check(&args.config, &before)?;
    // The data directory is free, or a service has it.
    let own = match Store::embedded(data_dir).await {
        Ok(store) => Some(store),
        Err(f) if f.kind == Kind::Conflict => {
            store::check_keyring(data_dir, &before)?;
            None
        }
        Err(f) => return Err(f),
    };
    let keys = file.add()?;
    printer.note(&format!("Added key {} to {}.", keys.newest(), file.path().display()));
    if let Err(f) = config::sealed::reseal(&args.config, &keys) {
        printer.note(&format!("The sealed values of the configuration were not changed: {}.", f.message));
    }
    match &own {
        Some(store) => {
            store.reload_keys()?;
            store.reseal().await?;
        }
        None => {
            printer.note("Waiting for the running service to seal its secrets with the new key.");
            wait(data_dir, &keys).await?;
        }
    }
    let needed = config::sealed::keys(&args.config)?;
    let removed = file.retain(|name| needed.contains_key(name))?;
    let left = file.keyring()?;
    let kept: Vec<&str> = left.names().skip(1).collect();
    if args.json {
        let done = serde_json::json!({"key": keys.newest(), "removed": removed, "kept": kept});
        printer.result(&done.to_string());
    } else {
        printer.result(&format!("All secrets of {} are sealed with {}.", data_dir.display(), keys.newest()));
        if !removed.is_empty() {
            printer.result(&format!("Removed: {}.", removed.join(", ")));
        }
        if !kept.is_empty() {
            let path = args.config.display();
            printer.result(&format!("Kept, because {path} still needs it: {}.", kept.join(", ")));
        }
    }
    Ok(if kept.is_empty() { Exit::Done } else { Exit::Differs })
}

/// Waits until the service has sealed everything with the newest key, for as long as it makes progress.
async fn wait(data_dir: &Path, keys: &Keyring) -> Result<()> {
    let (mut left, mut polls, mut idle) = (u64::MAX, 0u32, 0u32);
    while idle < IDLE_POLLS {
        // A service that stops or starts now may keep the database from being read for a moment.
        if let Ok(proof) = store::proof_key(data_dir)
            && proof.as_deref() == Some(keys.newest())
        {
            return Ok(());
        }
        if polls.is_multiple_of(COUNT_POLLS)
            && let Ok(rows) = store::sealed_rows(data_dir, keys)
        {
            let old: u64 = rows.by_key.iter().skip(1).map(|(_, rows)| rows).sum();
            if old < left {
                (left, idle) = (old, 0);
            }
        }
        (polls, idle) = (polls + 1, idle + 1);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    // The service may have been stopped meanwhile.
    match Store::embedded(data_dir).await {
        Ok(store) => store.reseal().await.map(drop),
        Err(f) if f.kind == Kind::Conflict => {
            let m = format!(
                "the running service did not seal its secrets with {}: no progress for 60 s; both keys stay in \
                 seal.key",
                keys.newest()
            );
            Err(Error::new(Kind::Timeout, "rotate", m).because(Reason::KeyRotation))
        }
        Err(f) => Err(f),
    }
}

/// Follows the keyring file while the service runs: takes new keys over and seals the secrets again with the newest.
pub(crate) async fn follow(store: Store, stop: CancellationToken) {
    let mut logged = String::new();
    loop {
        let done = match store.reload_keys() {
            Ok(_) => store.reseal().await,
            // What the ring here still seals may be what keeps the file from being taken over.
            Err(f) => match store.reseal().await {
                Ok(None) if store.reload_keys().is_err() => Err(f),
                done => done,
            },
        };
        match done {
            Ok(Some(done)) => {
                logged.clear();
                tracing::info!(
                    key = done.key.as_str(),
                    rows = done.rows,
                    unreadable = done.unreadable,
                    "secrets re-sealed"
                );
            }
            Ok(None) => logged.clear(),
            Err(f) if f.message == logged => {}
            Err(f) => {
                tracing::error!("cannot seal the secrets with the new key: {f}");
                logged = f.message;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
        }
    }
}
