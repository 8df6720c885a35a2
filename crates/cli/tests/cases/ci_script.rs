//! The script that installs what the tests need.

use super::*;

/// Runs `.ci/run` in a directory of programs that do nothing but `apt-get`, which notes its words; answers them.
fn gate_without(missing: &[&str]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let noted = dir.path().join("noted");
    let program = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let all = [
        "cc",
        "make",
        "pgrep",
        "python3",
        "npm",
        "chromium",
        "redis-server",
        "nutcracker",
        "curl",
        "openssl",
        "readelf",
        "ssh-keygen",
        "cargo",
    ];
    for name in all.iter().filter(|name| !missing.contains(name)) {
        program(name, "#!/bin/sh\nexit 0\n");
    }
    program("apt-get", &format!("#!/bin/sh\necho \"$@\" >> {}\n", noted.display()));
    std::os::unix::fs::symlink("/usr/bin/dirname", dir.path().join("dirname")).unwrap();
    let gate = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/run");
    let output = Command::new("/bin/bash").arg(gate).env("PATH", dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    std::fs::read_to_string(noted).unwrap_or_default()
}

#[test]
fn c14_ci_script_installs_only_missing_tools() {
    assert_eq!(gate_without(&[]), "", "nothing is missing, so nothing is installed");
    let installed = gate_without(&["make"]);
    assert!(installed.lines().last().is_some_and(|line| line.ends_with(" make")), "{installed}");
    // An npm of another origin stays: Debian's conflicts with it.
    assert!(!installed.contains("npm") && !installed.contains("nodejs"), "{installed}");
}
