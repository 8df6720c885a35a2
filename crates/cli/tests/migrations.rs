//! Redis migrations of the service, driven by the official SDK against real servers.

use std::io::Write;

use testkit::redis::Redis;

use crate::sdk::scenario_with;

const PASSWORD: &str = "a'quoted-secret";
const SOURCE_ID: &str = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10";
const TARGET_ID: &str = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f11";

/// Two servers, and what a scenario needs to know of them.
fn ends(source: &[&str], target: &[&str]) -> (Redis, Redis, Vec<(&'static str, String)>) {
    let (source, target) = (Redis::start("REDIS_7_0", source), Redis::start("REDIS_7_0", target));
    let told = vec![
        ("SOURCE_PORT", source.port.to_string()),
        ("TARGET_PORT", target.port.to_string()),
        ("SOURCE_PW", PASSWORD.to_owned()),
        ("SOURCE_ID", SOURCE_ID.to_owned()),
        ("TARGET_ID", TARGET_ID.to_owned()),
    ];
    (source, target, told)
}

/// Both as registered instances.
fn registered(source: &Redis, target: &Redis, target_password: &str) -> String {
    let one = |id: &str, name: &str, port: u16, password: &str| {
        let secret = if password.is_empty() { String::new() } else { format!("password = \"{password}\"\n") };
        format!("\n[[redis]]\nid = \"{id}\"\nname = \"{name}\"\naddrs = \"127.0.0.1:{port}\"\n{secret}")
    };
    one(SOURCE_ID, "orders", source.port, PASSWORD)
        + &one(TARGET_ID, "orders-new", target.port, target_password)
}

#[test]
fn cl_f09_fifteen_dcs_calls_return_consistent_statistics() {
    let (_source, _target, told) = ends(&["--requirepass", PASSWORD], &[]);
    scenario_with("dcs_lifecycle", "", &told);
}

#[test]
fn dcs_backups_are_imported_from_buckets_and_instances() {
    let (source, target, mut told) = ends(&["--requirepass", PASSWORD], &[]);
    let dir = tempfile::tempdir().unwrap();
    let maker = Redis::start("REDIS_7_0", &[]);
    // Three dumps with keys of their own: 100, 200 and 300.
    let dump = |prefix: &str, n: usize| {
        maker.run("FLUSHALL");
        let mut client = maker.connect();
        for i in 0..n {
            client.call(&[b"SET", format!("{prefix}{i}").as_bytes(), b"value"]);
        }
        maker.run("SAVE");
        std::fs::read(maker.dir().join("dump.rdb")).unwrap()
    };
    let (one, two, three) = (dump("one", 100), dump("two", 200), dump("three", 300));
    std::fs::create_dir(dir.path().join("nested")).unwrap();
    std::fs::write(dir.path().join("one.rdb"), &one).unwrap();
    std::fs::write(dir.path().join("cut.rdb"), &two[..two.len() / 2]).unwrap();
    std::fs::write(dir.path().join("text.rdb"), b"hello").unwrap();
    let file = std::fs::File::create(dir.path().join("nested/two.tar.gz")).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(two.len() as u64);
    tar.append_data(&mut header, "backup/two.rdb", &two[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(dir.path().join("three.zip")).unwrap());
    zip.start_file("three.rdb", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&three).unwrap();
    zip.finish().unwrap();
    told.push(("KEYS", "600".to_owned()));
    let bucket = format!("\n[[bucket]]\nname = \"dumps\"\nlocation = \"{}\"\n", dir.path().display());
    scenario_with("dcs_import", &(registered(&source, &target, "") + &bucket), &told);
}

#[test]
fn cutover_switches_clients_and_back() {
    let both = ["--requirepass", PASSWORD];
    let (source, target, told) = ends(&both, &both);
    scenario_with("dcs_address_exchange", &registered(&source, &target, PASSWORD), &told);
}

#[test]
fn dcs_migration_recovers_from_faults() {
    use std::os::unix::fs::PermissionsExt;
    let (_source, _target, mut told) = ends(&[], &[]);
    let dir = tempfile::tempdir().unwrap();
    let (hook, mode) = (dir.path().join("hook"), dir.path().join("mode"));
    // Ends as the test says, and writes down what it was told.
    let script = format!("#!/bin/sh\ncat >> {0}.log; echo >> {0}.log; exit $(cat {0})\n", mode.display());
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let commands = |lines: &[&str]| {
        let mut out = Vec::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            redis_proto::resp::command(&mut out, &words);
        }
        out
    };
    let ruling = [
        "SELECT 0",
        "SET x 1",
        "FLUSHALL",
        "REPLICAOF 127.0.0.1 1",
        "CONFIG SET maxmemory 123mb",
        "SHUTDOWN",
        "SET y 2",
    ];
    // The last command is cut off, as by a server that was killed.
    let mut bytes = commands(&ruling);
    bytes.extend_from_slice(&commands(&["SET z 3"])[..10]);
    std::fs::write(dir.path().join("ruling.aof"), bytes).unwrap();
    std::fs::write(dir.path().join("beyond.aof"), commands(&["SET pre 1", "SELECT 99", "SET post 1"]))
        .unwrap();
    told.push(("HOOK_MODE", mode.display().to_string()));
    let more = format!(
        "\n[cutover]\nhook = [\"{}\"]\n\n[[bucket]]\nname = \"dumps\"\nlocation = \"{}\"\n",
        hook.display(),
        dir.path().display()
    );
    scenario_with("dcs_recovery", &more, &told);
}

/// Cut-overs under a writer; every second time the service is killed during one.
pub(crate) fn cutovers(runs: u32) {
    let both = ["--requirepass", PASSWORD];
    let (source, target, mut told) = ends(&both, &both);
    told.push(("RUNS", runs.to_string()));
    scenario_with("dcs_cutover", &registered(&source, &target, PASSWORD), &told);
}

#[test]
fn cutover_survives_service_kill() {
    cutovers(4);
}
