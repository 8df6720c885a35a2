//! Regression tests of the shared cases that need the whole program, by topic. Each test carries the id of its case; its set-up is here.

mod ci_script;
mod deletions;
mod errors;
mod integrity;
mod selection;
mod versions;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use testkit::content::Content;
use testkit::s3::Logged;
use testkit::{Call, Options, S3Server, Script, Step};

use crate::support::{copy, json, whimbrel};

const MIB: u64 = 1 << 20;
/// The MD5 of `1`.
const MD5_OF_1: &str = "c4ca4238a0b923820dcc509a6f75849b";

fn scripted(decide: impl Fn(&Call<'_>) -> Step + Send + Sync + 'static) -> S3Server {
    S3Server::start(Options { script: Some(Script::new(decide)), ..Options::default() })
}

/// A server with these objects in the bucket `from`.
fn source(objects: &[(&str, &str)]) -> S3Server {
    filled(S3Server::start(Options::default()), objects)
}

fn filled(server: S3Server, objects: &[(&str, &str)]) -> S3Server {
    let bucket = server.bucket("from");
    for (key, text) in objects {
        bucket.put(key, (*text).to_owned());
    }
    server
}

/// A server with an empty bucket `to`.
fn target(decide: impl Fn(&Call<'_>) -> Step + Send + Sync + 'static) -> S3Server {
    let server = scripted(decide);
    server.bucket("to");
    server
}

fn serve(_: &Call<'_>) -> Step {
    Step::Serve
}

/// `whimbrel copy s3://from s3://to`, with a ledger of its own.
fn run(from: &S3Server, to: &S3Server, more: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    copy((&from.endpoint(), "from"), (&to.endpoint(), "to"), state.path()).args(more).output().unwrap()
}

/// `whimbrel COMMAND s3://PLACE DIRECTORY`.
fn to_directory(command: &str, from: &S3Server, place: &str, to: &Path) -> Output {
    let state = tempfile::tempdir().unwrap();
    let mut command_line = whimbrel();
    command_line.args([command, &format!("s3://{place}")]).arg(to);
    command_line.args(["--json", "--source-endpoint", &from.endpoint()]);
    if command == "copy" {
        command_line.arg("--state-dir").arg(state.path());
    }
    command_line.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn keys(server: &S3Server, bucket: &str) -> Vec<String> {
    server.bucket(bucket).objects().into_iter().map(|(key, _)| key).collect()
}

fn count(summary: &Value, what: &str) -> u64 {
    summary["objects"][what].as_u64().unwrap_or_else(|| panic!("`{what}` is missing in {summary}"))
}

fn parts_sent(server: &S3Server) -> usize {
    let log = server.log();
    log.iter().filter(|l| l.method == "PUT" && l.status == 200 && is_part(&l.query)).count()
}

/// A part of an object. Parts from number 5000 on are samples, which show how the target verifies checksums.
fn is_part(query: &str) -> bool {
    let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")?.parse::<u32>().ok());
    number.is_some_and(|number| number < 5000)
}
