//! Regression tests for public bug reports of other tools, by topic. Each test carries the id of its case; its set-up is here.
#![allow(clippy::disallowed_methods, reason = "a test connects to the server that it starts")]

mod backups;
mod commands;
mod databases;
mod functions;
mod permissions;
mod sessions;
mod streams;
mod topology;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::error::{Error, Kind, Result};
use redis_migration::import::Import;
use redis_migration::session::scan::ScanMigration;
use redis_migration::verify::{Depth, compare};
use redis_migration::{Migration, Options, Summary, Until};
use redis_proto::resp::Reply;
use testkit::redis::{Cluster, Redis};
use tokio_util::sync::CancellationToken;

use crate::support::{Following, migration, migration_at, node, same};

/// Runs lines on one connection.
fn run(redis: &Redis, lines: &[&str]) {
    let mut client = redis.connect();
    for line in lines {
        let reply = client.run(line);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
    }
}

fn get(redis: &Redis, key: &str) -> Option<String> {
    redis.run(&format!("GET {key}")).text().map(|t| String::from_utf8_lossy(t).into_owned())
}

fn info(redis: &Redis, section: &str, name: &str) -> Option<i64> {
    let text = redis.run(&format!("INFO {section}"));
    let text = String::from_utf8_lossy(text.text().unwrap()).into_owned();
    text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))?.trim().parse().ok())
}

fn scan(source: &Redis, target: &Redis) -> ScanMigration {
    ScanMigration {
        source: node(source),
        target: node(target),
        options: Options { until: Until::CaughtUp, ..migration(source, target, Until::Full).options.clone() },
        clock: flow_control::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    }
}

/// Imports files.
pub(crate) async fn import(files: Vec<PathBuf>, target: &Redis) -> Result<Summary> {
    import_with(files, target, migration(target, target, Until::Full)).await
}

pub(crate) async fn import_with(files: Vec<PathBuf>, target: &Redis, like: Migration) -> Result<Summary> {
    let import = Import {
        files,
        target: node(target),
        options: like.options,
        skip_unsafe_commands: false,
        clock: flow_control::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    };
    import.run().await
}

/// A dump of a server.
fn dump(redis: &Redis) -> PathBuf {
    assert_eq!(redis.run("SAVE"), Reply::Simple("OK".into()));
    redis.dir().join("dump.rdb")
}

fn refused(done: Result<Summary>) -> Error {
    done.expect_err("it was refused")
}

fn keys(redis: &Redis) -> Vec<String> {
    let reply = redis.run("KEYS *");
    let mut keys: Vec<String> = reply
        .array()
        .unwrap()
        .iter()
        .filter_map(|k| Some(String::from_utf8_lossy(k.text()?).into_owned()))
        .filter(|k| !k.starts_with("whimbrel:"))
        .collect();
    keys.sort();
    keys
}

/// Runs words that may hold anything.
fn call(redis: &Redis, words: &[&[u8]]) -> Reply {
    let reply = redis.connect().call(words);
    assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
    reply
}

/// A library whose function `f` returns `new`.
const ONE: &[u8] = b"#!lua name=slib\nredis.register_function('f', function(k,a) return 'new' end)";

/// What the function `f` of a server returns.
fn called(redis: &Redis) -> String {
    let said = redis.connect().call(&[b"FCALL", b"f", b"0"]);
    said.text().map_or_else(|| format!("{said:?}"), |t| String::from_utf8_lossy(t).into_owned())
}
