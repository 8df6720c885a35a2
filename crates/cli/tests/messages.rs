//! Errors say what is wrong and what to do; exit codes are those of the contract.

use crate::support::{copy, whimbrel};
use testkit::{Options, S3Server};

#[test]
fn usage_and_configuration_errors_exit_2() {
    for args in [
        &["copy"][..],
        &["copy", "ftp://a/b", "/tmp/x"],
        &["nonsense"],
        &["copy", "a", "b", "--bandwidth", "fast"],
    ] {
        let output = whimbrel().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("w.toml");
    std::fs::write(&config, "lisen = \"x\"").unwrap();
    let output = whimbrel().args(["serve", "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `listen`?"));
}

#[test]
fn missing_bucket_and_unreachable_endpoint_exit_3_with_a_hint() {
    let server = S3Server::start(Options::default());
    server.bucket("to");
    let state = tempfile::tempdir().unwrap();
    let at = server.endpoint();
    let output = copy((&at, "none"), (&at, "to"), state.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("bucket `none` does not exist") && text.contains("create the bucket"), "{text}");
}

#[test]
fn init_refuses_to_overwrite_and_prints_secrets_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("w.toml");
    let init = || {
        let mut command = whimbrel();
        command.args(["init", "--config"]).arg(&config).arg("--data-dir").arg(dir.path().join("d"));
        command.output().unwrap()
    };
    let first = init();
    assert!(first.status.success());
    let shown = String::from_utf8_lossy(&first.stdout).into_owned();
    let secret = shown.lines().find_map(|l| l.strip_prefix("export WHIMBREL_SK=")).unwrap();
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(!written.contains(secret), "the secret is sealed, not written");
    assert_eq!(init().status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), written);
    let doctor = whimbrel().args(["doctor", "--config"]).arg(&config).output().unwrap();
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[test]
fn completions_and_version_need_no_configuration() {
    let output = whimbrel().args(["completions", "bash"]).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("_whimbrel"));
    assert!(whimbrel().arg("--version").output().unwrap().status.success());
}

#[test]
fn sec_f33_init_force_restricts_file_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("w.toml");
    std::fs::write(&config, "").unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = whimbrel();
    command.args(["init", "--force", "--config"]).arg(&config).arg("--data-dir").arg(dir.path().join("d"));
    assert!(command.output().unwrap().status.success());
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
}
