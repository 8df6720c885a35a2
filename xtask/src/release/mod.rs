//! `cargo x release`: packages of the program, below `dist/`.
//!
//! The same program and the same commit make the same bytes: entries are sorted, and their time is `SOURCE_DATE_EPOCH` or that of the last
//! commit. Needs `readelf` and `objcopy` (binutils) and git; tests of the packages are in `tests.rs`.

mod archive;
mod deb;
mod dependencies;
mod manual;
mod npm;
mod oci;
mod program;
mod tarball;
#[cfg(test)]
mod tests;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::{Program, output};

const USAGE: &str = "usage: cargo x release [--binary PATH] [--sign KEY]

  --binary PATH  package this program; default: build target/release/whimbrel and package it
  --sign KEY     sign SHA256SUMS with this SSH key";

const OUT: &str = "dist";
/// The namespace of signatures: a signature for another purpose is not one of a release.
const SIGNATURE_NAMESPACE: &str = "whimbrel-release";

/// What packages are made of.
struct Input {
    version: String,
    /// Seconds since 1970, of every entry.
    time: u64,
    program: Program,
    license: String,
    /// Licences of the linked crates.
    third_party: String,
    readme: String,
    changelog: String,
    /// whimbrel(1).
    manual: String,
    /// Files of `deploy/` by name.
    deploy: Vec<(String, String)>,
}

/// A file below `dist/`.
struct Package {
    name: String,
    bytes: Vec<u8>,
}

/// Runs the command.
pub(crate) fn run(rest: &[&str]) -> super::Done {
    let (mut binary, mut key) = (None, None);
    for pair in rest.chunks(2) {
        match pair {
            ["--binary", path] => binary = Some(PathBuf::from(path)),
            ["--sign", path] => key = Some(*path),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let binary = match binary {
        Some(path) => path,
        None => build()?,
    };
    let root = Path::new(".");
    for (name, size) in write(root, &binary, Path::new(OUT), time(root)?)? {
        println!("{OUT}/{name}  {size} bytes");
    }
    match key {
        Some(key) => sign(key, &Path::new(OUT).join("SHA256SUMS")),
        None => Ok(()),
    }
}

/// Builds the program; cargo does nothing when it is up to date.
fn build() -> Result<PathBuf, String> {
    super::cargo(&["build", "--release", "--locked", "-p", "whimbrel"], &[])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(Path::new(&target).join("release/whimbrel"))
}

/// `SOURCE_DATE_EPOCH`, or the time of the last commit.
fn time(root: &Path) -> Result<u64, String> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => output(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]))?,
    };
    text.trim().parse().map_err(|e| format!("SOURCE_DATE_EPOCH `{}`: {e}", text.trim()))
}

/// Makes all files in `out`, which holds nothing else afterwards. Returns their names and sizes.
fn write(root: &Path, binary: &Path, out: &Path, time: u64) -> Result<Vec<(String, usize)>, String> {
    let failed = |e: std::io::Error| format!("cannot write to {}: {e}", out.display());
    let scratch = out.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(failed)?;
    let packages = packages(root, binary, &scratch, time)?;
    // Files of an earlier version are not in SHA256SUMS. Removed last: the binary may be one of them.
    std::fs::remove_dir_all(out).map_err(failed)?;
    std::fs::create_dir(out).map_err(failed)?;
    for package in &packages {
        std::fs::write(out.join(&package.name), &package.bytes).map_err(failed)?;
    }
    Ok(packages.into_iter().map(|package| (package.name, package.bytes.len())).collect())
}

/// All files, sorted by name, and their checksums.
fn packages(root: &Path, binary: &Path, scratch: &Path, time: u64) -> Result<Vec<Package>, String> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    check_version(binary, &version)?;
    let program = program::read(binary, scratch)?;
    let dependencies = dependencies::read(root, program.machine.linux)?;
    let load =
        |name: &str| std::fs::read_to_string(root.join(name)).map_err(|e| format!("cannot read {name}: {e}"));
    let input = Input {
        time,
        program,
        license: load("LICENSE")?,
        third_party: dependencies.licenses()?,
        readme: load("README.md")?,
        changelog: load("CHANGELOG.md")?,
        manual: manual::page(&load("docs/generated/cli.md")?, &version),
        deploy: deploy(root)?,
        version,
    };
    let base = format!("whimbrel-{}-{}-linux", input.version, input.program.machine.linux);
    let mut packages = vec![
        tarball::build(&input)?,
        wheel::build(&input)?,
        npm::build(&input)?,
        deb::build(&input)?,
        oci::build(&input)?,
        Package { name: format!("{base}.debug.gz"), bytes: archive::gzip(&input.program.symbols)? },
        Package { name: format!("{base}.cdx.json"), bytes: dependencies.cyclonedx().into_bytes() },
    ];
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let sums = packages.iter().map(|p| format!("{}  {}\n", archive::hex_digest(&p.bytes), p.name));
    let sums: String = sums.collect();
    packages.push(Package { name: "SHA256SUMS".into(), bytes: sums.into_bytes() });
    Ok(packages)
}

/// A program of another version would get the names and notes of this one.
fn check_version(binary: &Path, version: &str) -> super::Done {
    if !binary.is_file() {
        return Err(format!("cannot package {}: no such file", binary.display()));
    }
    let said = output(Command::new(binary).arg("--version"))?;
    match said.split_whitespace().nth(1) == Some(version) {
        true => Ok(()),
        false => {
            let said = said.lines().next().unwrap_or_default();
            Err(format!("cannot package {}: it is `{said}`, not version {version}", binary.display()))
        }
    }
}

/// The files of `deploy/`, sorted by name.
fn deploy(root: &Path) -> Result<Vec<(String, String)>, String> {
    let failed = |e: std::io::Error| format!("cannot read deploy: {e}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("deploy")).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, std::fs::read_to_string(&path).map_err(failed)?));
    }
    files.sort();
    Ok(files)
}

/// Signs a file; the signature stands beside it with the ending `.sig`.
fn sign(key: &str, file: &Path) -> super::Done {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-Y", "sign", "-f", key, "-n", SIGNATURE_NAMESPACE]).arg(file);
    output(&mut command).map(|_| ())
}
