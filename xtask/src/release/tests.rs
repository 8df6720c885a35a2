//! Packages of a stand-in program, installed without the network by the tools that users have.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::program::output;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// 2026-01-01, the time of every entry.
const TIME: u64 = 1_767_225_600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a program that must succeed.
fn run(program: &str, configure: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(program);
    configure(&mut command);
    output(&mut command).unwrap_or_else(|e| panic!("{e}"))
}

/// The packages of the stand-in, built once for all tests.
struct Built {
    folder: TempDir,
    program: PathBuf,
}

impl Built {
    fn get() -> &'static Self {
        static BUILT: OnceLock<Built> = OnceLock::new();
        BUILT.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let program = folder.path().join("stand-in");
            run("rustc", |c| {
                c.args(["--edition=2024", "-g", "-o"]).arg(&program).env("STAND_IN_VERSION", VERSION);
                c.arg(root().join("xtask/src/release/stand_in.rs"));
            });
            let built = Self { folder, program };
            built.write("dist");
            built
        })
    }

    fn write(&self, name: &str) -> PathBuf {
        let out = self.folder.path().join(name);
        super::write(&root(), &self.program, &out, TIME).unwrap_or_else(|e| panic!("{e}"));
        out
    }

    fn dist(&self) -> PathBuf {
        self.folder.path().join("dist")
    }

    /// The path of the file with this ending.
    fn file(&self, ending: &str) -> PathBuf {
        let mut paths = std::fs::read_dir(self.dist()).unwrap().map(|e| e.unwrap().path());
        paths
            .find(|path| path.to_string_lossy().ends_with(ending))
            .unwrap_or_else(|| panic!("no {ending} in dist"))
    }
}

/// All files of a directory by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect()
}

/// Permission bits of a path.
fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    metadata.permissions().mode() & 0o7777
}

/// Runs an installed program and checks that it is the one of this version.
fn assert_runs(program: &Path) {
    assert_eq!(run(&program.to_string_lossy(), |c| _ = c.arg("--version")), format!("whimbrel {VERSION}\n"));
}

#[test]
fn packages_built_twice_are_the_same_bytes() {
    let built = Built::get();
    let (first, second) = (contents(&built.dist()), contents(&built.write("again")));
    assert!(first.len() >= 8, "{:?}", first.keys());
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(*bytes == second[name], "{name} differs");
    }
}

#[test]
fn checksums_cover_every_other_file() {
    let dist = Built::get().dist();
    let checked = run("sha256sum", |c| _ = c.current_dir(&dist).args(["--check", "--strict", "SHA256SUMS"]));
    assert_eq!(checked.matches(": OK").count() + 1, contents(&dist).len(), "{checked}");
}

#[test]
fn checksums_are_signed_with_an_ssh_key() {
    let folder = tempfile::tempdir().unwrap();
    let (key, sums) = (folder.path().join("key"), folder.path().join("SHA256SUMS"));
    std::fs::copy(Built::get().file("SHA256SUMS"), &sums).unwrap();
    run("ssh-keygen", |c| _ = c.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    super::sign(&key.to_string_lossy(), &sums).unwrap();
    let signers = folder.path().join("signers");
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    std::fs::write(&signers, format!("release {public}")).unwrap();
    run("ssh-keygen", |c| {
        c.args(["-Y", "verify", "-I", "release", "-n", super::SIGNATURE_NAMESPACE, "-f"]).arg(&signers);
        c.arg("-s").arg(folder.path().join("SHA256SUMS.sig")).stdin(std::fs::File::open(&sums).unwrap());
    });
}

#[test]
fn tarball_has_one_directory_with_everything() {
    let folder = tempfile::tempdir().unwrap();
    run("tar", |c| _ = c.arg("-xzf").arg(Built::get().file("-linux.tar.gz")).arg("-C").arg(folder.path()));
    let tops: Vec<_> = contents_names(folder.path());
    assert_eq!(tops.len(), 1, "{tops:?}");
    let top = folder.path().join(&tops[0]);
    assert_runs(&top.join("whimbrel"));
    for file in [
        "LICENSE",
        "LICENSES-THIRD-PARTY.txt",
        "README.md",
        "CHANGELOG.md",
        "man/whimbrel.1",
        "completions/whimbrel",
        "completions/_whimbrel",
        "completions/whimbrel.fish",
        "deploy/whimbrel.service",
    ] {
        assert_eq!(mode(&top.join(file)), 0o644, "{file}");
    }
}

fn contents_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
    entries.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn program_is_stripped_and_names_its_symbols() {
    let folder = tempfile::tempdir().unwrap();
    let built = Built::get();
    run("tar", |c| {
        c.args(["--strip-components=1", "-xzf"])
            .arg(built.file("-linux.tar.gz"))
            .arg("-C")
            .arg(folder.path());
    });
    let sections = run("readelf", |c| _ = c.args(["--wide", "-S"]).arg(folder.path().join("whimbrel")));
    assert!(sections.contains(".gnu_debuglink"), "{sections}");
    assert!(!sections.contains(".debug_info") && !sections.contains(".symtab"), "{sections}");
    std::fs::copy(built.file(".debug.gz"), folder.path().join("whimbrel.debug.gz")).unwrap();
    run("gzip", |c| _ = c.arg("-d").arg(folder.path().join("whimbrel.debug.gz")));
    let sections = run("readelf", |c| _ = c.args(["--wide", "-S"]).arg(folder.path().join("whimbrel.debug")));
    assert!(sections.contains(".debug_info"), "{sections}");
}

#[test]
fn wheel_is_installed_by_pip() {
    let folder = tempfile::tempdir().unwrap();
    run("python3", |c| {
        c.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--target"]);
        c.arg(folder.path()).arg(Built::get().file(".whl"));
    });
    assert_runs(&folder.path().join("bin/whimbrel"));
    let info = folder.path().join(format!("whimbrel-{VERSION}.dist-info"));
    assert!(info.join("licenses/LICENSE").exists());
    assert!(folder.path().join("share/bash-completion/completions/whimbrel").exists());
    let metadata = std::fs::read_to_string(info.join("METADATA")).unwrap();
    assert!(metadata.contains(&format!("\nVersion: {VERSION}\n")), "{metadata}");
}

#[test]
fn npm_package_is_installed_by_npm() {
    let folder = tempfile::tempdir().unwrap();
    run("npm", |c| {
        c.args(["install", "--offline", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(folder.path());
        c.arg(Built::get().file(".tgz")).env("npm_config_cache", folder.path().join("cache"));
    });
    assert_runs(&folder.path().join("node_modules/.bin/whimbrel"));
    let manifest = std::fs::read(folder.path().join("node_modules/whimbrel/package.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["version"], VERSION);
    assert_eq!(manifest["scripts"], Value::Null, "npm must run nothing when it installs");
}

#[test]
fn deb_has_units_completions_and_no_file_below_etc() {
    let folder = tempfile::tempdir().unwrap();
    let deb = Built::get().file(".deb");
    run("dpkg-deb", |c| _ = c.arg("--extract").arg(&deb).arg(folder.path()));
    run("dpkg-deb", |c| _ = c.arg("--control").arg(&deb).arg(folder.path().join("control")));
    assert_runs(&folder.path().join("usr/bin/whimbrel"));
    for file in [
        "usr/lib/systemd/system/whimbrel-worker.service",
        "usr/lib/sysusers.d/whimbrel.conf",
        "usr/share/bash-completion/completions/whimbrel",
        "usr/share/zsh/vendor-completions/_whimbrel",
        "usr/share/fish/vendor_completions.d/whimbrel.fish",
        "usr/share/man/man1/whimbrel.1.gz",
        "usr/share/doc/whimbrel/copyright",
        "usr/share/doc/whimbrel/examples/alerts.yml",
    ] {
        assert_eq!(mode(&folder.path().join(file)), 0o644, "{file}");
    }
    let unit =
        std::fs::read_to_string(folder.path().join("usr/lib/systemd/system/whimbrel.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/whimbrel serve"), "{unit}");
    // What `whimbrel init` wrote must not be the package's: dpkg would ask about it, or replace it.
    assert!(!folder.path().join("etc").exists());
    assert!(!folder.path().join("control/conffiles").exists());
    for script in ["postinst", "prerm", "postrm"] {
        let script = folder.path().join("control").join(script);
        assert_eq!(mode(&script), 0o755);
        run("sh", |c| _ = c.arg("-n").arg(&script));
    }
    let listing = run("dpkg-deb", |c| _ = c.arg("--contents").arg(&deb));
    assert!(listing.lines().all(|line| line.contains(" root/root ") || line.contains(" 0/0 ")), "{listing}");
    let control = run("dpkg-deb", |c| _ = c.arg("--field").arg(&deb));
    assert!(control.contains("Depends: libc6 (>= 2."), "{control}");
}

/// A root directory that dpkg installs into, without chroot.
struct DebianRoot(TempDir);

impl DebianRoot {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["etc", "var/lib/dpkg/updates", "var/lib/dpkg/info", "var/log"] {
            std::fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        // Only root may lock the list of users, so another user finds one that has the user of the package.
        let user = if is_root() { "" } else { "whimbrel:x:999:999::/var/lib/whimbrel:/usr/sbin/nologin\n" };
        std::fs::write(folder.path().join("etc/passwd"), format!("root:x:0:0::/root:/bin/sh\n{user}"))
            .unwrap();
        std::fs::write(folder.path().join("etc/group"), "root:x:0:\n").unwrap();
        std::fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(folder)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Runs dpkg; the root has no libc6, so dependencies are not checked.
    fn dpkg(&self, action: &str, what: &Path) {
        let program = if is_root() { "dpkg" } else { "fakeroot" };
        run(program, |c| {
            if !is_root() {
                c.arg("dpkg");
            }
            c.arg(format!("--root={}", self.0.path().display()));
            // dpkg writes the log of the machine, whatever the root is.
            c.arg(format!("--log={}", self.path("var/log/dpkg.log").display()));
            c.args(["--force-script-chrootless", "--force-depends", "--force-bad-path", action]).arg(what);
        });
    }
}

fn is_root() -> bool {
    run("id", |c| _ = c.arg("-u")).trim() == "0"
}

#[test]
fn deb_keeps_the_configuration_until_it_is_purged() {
    let (root, deb) = (DebianRoot::new(), Built::get().file(".deb"));
    root.dpkg("--install", &deb);
    assert_runs(&root.path("usr/bin/whimbrel"));
    let users = std::fs::read_to_string(root.path("etc/passwd")).unwrap();
    assert!(users.contains("\nwhimbrel:"), "{users}");
    for directory in ["etc/whimbrel", "var/lib/whimbrel"] {
        assert_eq!(mode(&root.path(directory)), 0o700, "{directory}");
    }

    let (configuration, ledger) = (root.path("etc/whimbrel/whimbrel.toml"), root.path("var/lib/whimbrel/db"));
    std::fs::write(&configuration, "listen = \"127.0.0.1:1\"\n").unwrap();
    std::fs::write(&ledger, "").unwrap();
    std::fs::set_permissions(root.path("etc/whimbrel"), PermissionsExt::from_mode(0o750)).unwrap();
    root.dpkg("--install", &deb);
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), "listen = \"127.0.0.1:1\"\n");
    assert_eq!(mode(&root.path("etc/whimbrel")), 0o750, "an upgrade changes no mode");

    root.dpkg("--remove", Path::new("whimbrel"));
    assert!(!root.path("usr/bin/whimbrel").exists());
    assert!(configuration.exists() && ledger.exists());

    root.dpkg("--purge", Path::new("whimbrel"));
    assert!(!root.path("etc/whimbrel").exists() && !root.path("var/lib/whimbrel").exists());
}

#[test]
fn image_runs_with_its_own_libraries() {
    let folder = tempfile::tempdir().unwrap();
    run("tar", |c| _ = c.arg("-xf").arg(Built::get().file(".oci.tar")).arg("-C").arg(folder.path()));
    let json = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.path().join(path)).unwrap()).unwrap()
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        format!("blobs/{digest}")
    };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let manifest = json(&blob(&json("index.json")["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    assert_eq!(config["config"]["User"], "65532:65532");

    let layer = folder.path().join(blob(&manifest["layers"][0]));
    let bytes = std::fs::read(&layer).unwrap();
    assert_eq!(manifest["layers"][0]["size"], bytes.len());
    assert_eq!(layer.file_name().unwrap().to_string_lossy(), super::archive::hex_digest(&bytes));
    let plain = run("sh", |c| _ = c.args(["-c", "gzip -dc \"$0\" | sha256sum"]).arg(&layer));
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap();
    assert_eq!(diff_id.strip_prefix("sha256:"), plain.split_whitespace().next());

    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    run("tar", |c| _ = c.args(["--no-same-owner", "-xzf"]).arg(&layer).arg("-C").arg(&root));
    assert_eq!(mode(&root.join("var/lib/whimbrel")), 0o700);
    // The loader of the image with the libraries of the image only, as in a container.
    let loaders = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"].map(|path| root.join(path));
    let loader = loaders.iter().find(|path| path.exists()).expect("the image has no loader");
    let folders = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "usr/lib64"];
    let folders = folders.map(|folder| root.join(folder).display().to_string()).join(":");
    let said = run(&loader.to_string_lossy(), |c| {
        c.args(["--inhibit-cache", "--library-path", &folders])
            .arg(root.join("usr/bin/whimbrel"))
            .arg("--version");
    });
    assert_eq!(said, format!("whimbrel {VERSION}\n"));
}

#[test]
fn sbom_and_licences_name_the_linked_crates() {
    let bom: Value = serde_json::from_slice(&std::fs::read(Built::get().file(".cdx.json")).unwrap()).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = bom["components"].as_array().unwrap();
    let rustls = components.iter().find(|c| c["name"] == "rustls").expect("rustls is linked");
    assert_eq!(rustls["hashes"][0]["alg"], "SHA-256");
    assert!(components.iter().all(|c| c["name"] != "testkit"), "crates for tests are not in the program");
    let folder = tempfile::tempdir().unwrap();
    run("tar", |c| {
        c.args(["--strip-components=1", "-xzf"])
            .arg(Built::get().file("-linux.tar.gz"))
            .arg("-C")
            .arg(folder.path());
    });
    let licences = std::fs::read_to_string(folder.path().join("LICENSES-THIRD-PARTY.txt")).unwrap();
    assert!(licences.contains("\nrustls 0.") && licences.contains("\nring 0."), "{licences}");
    assert!(licences.contains("Permission is hereby granted"), "the text of the MIT licence");
}

#[test]
fn program_of_another_version_is_not_packaged() {
    let folder = tempfile::tempdir().unwrap();
    let failed = super::write(&root(), Path::new("/bin/ls"), &folder.path().join("dist"), TIME).unwrap_err();
    assert!(failed.starts_with("cannot package /bin/ls: it is `ls "), "{failed}");
}
