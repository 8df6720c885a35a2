//! The Debian package: program, systemd units, user, completions and manual page.
//!
//! It has no file below `/etc`: `postinst` makes `/etc/whimbrel` when it is not there, `whimbrel init` writes into it, and only a purge
//! removes it. Format: deb(5).

use super::archive::{Tree, gzip};
use super::program::Program;
use super::tarball::completion_file;
use super::{Input, Package};

const POSTINST: &str = include_str!("debian/postinst");
const PRERM: &str = include_str!("debian/prerm");
const POSTRM: &str = include_str!("debian/postrm");
const SYSUSERS: &str = include_str!("debian/sysusers.conf");

pub(crate) fn build(input: &Input) -> Result<Package, String> {
    let data = data(input)?;
    let mut control = Tree::default();
    control.file("control", 0o644, control_file(input, &data));
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        control.file(name, 0o755, script);
    }
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&control.tar("./", input.time)?)?),
        ("data.tar.gz", gzip(&data.tar("./", input.time)?)?),
    ];
    let name = format!("whimbrel_{}_{}.deb", debian_version(&input.version), input.program.machine.debian);
    Ok(Package { name, bytes: ar(&members, input.time) })
}

/// Files of the package.
fn data(input: &Input) -> Result<Tree, String> {
    let mut tree = Tree::default();
    tree.file("usr/bin/whimbrel", 0o755, input.program.bytes.as_slice());
    tree.file("usr/lib/sysusers.d/whimbrel.conf", 0o644, SYSUSERS);
    let doc = "usr/share/doc/whimbrel";
    for (file, text) in &input.deploy {
        if file.ends_with(".service") {
            let unit = text.replace("/usr/local/bin/whimbrel", "/usr/bin/whimbrel");
            tree.file(&format!("usr/lib/systemd/system/{file}"), 0o644, unit);
        } else {
            tree.file(&format!("{doc}/examples/{file}"), 0o644, text.as_str());
        }
    }
    for (shell, text) in &input.program.completions {
        let folder = match *shell {
            "zsh" => "zsh/vendor-completions",
            "fish" => "fish/vendor_completions.d",
            _ => "bash-completion/completions",
        };
        tree.file(&format!("usr/share/{folder}/{}", completion_file(shell)), 0o644, text.as_str());
    }
    tree.file("usr/share/man/man1/whimbrel.1.gz", 0o644, gzip(input.manual.as_bytes())?);
    tree.file(&format!("{doc}/README.md"), 0o644, input.readme.as_str());
    tree.file(&format!("{doc}/changelog.gz"), 0o644, gzip(input.changelog.as_bytes())?);
    let copyright = format!("{}\n\n{}", input.license.trim_end(), input.third_party);
    tree.file(&format!("{doc}/copyright"), 0o644, copyright);
    Ok(tree)
}

fn control_file(input: &Input, data: &Tree) -> String {
    let kib: usize = data.files().map(|(_, _, bytes)| bytes.len().div_ceil(1024)).sum();
    format!(
        "Package: whimbrel\nVersion: {}\nArchitecture: {}\nMaintainer: Whimbrel maintainers <whimbrel@localhost>\n\
         Installed-Size: {kib}\nDepends: {}\nRecommends: ca-certificates\nSection: net\nPriority: optional\n\
         Description: migrates object storage and Redis\n A service with the REST APIs of Huawei Cloud OMS and DCS data migration, and a\n \
         command line with the same engine. A migration can be stopped at any time and\n resumes without lost, duplicated or partial data.\n",
        debian_version(&input.version),
        input.program.machine.debian,
        depends(&input.program),
    )
}

/// The packages that have the shared libraries of the program, and `passwd` for `useradd`.
fn depends(program: &Program) -> String {
    let mut packages = Vec::new();
    if let Some((major, minor)) = program.glibc {
        packages.push(format!("libc6 (>= {major}.{minor})"));
    }
    if program.libraries.iter().any(|name| name == "libgcc_s.so.1") {
        packages.push("libgcc-s1".to_owned());
    }
    packages.push("passwd".to_owned());
    packages.join(", ")
}

/// A pre-release such as `1.0.0-rc.1` is older than `1.0.0`, which Debian writes with `~`.
fn debian_version(version: &str) -> String {
    version.replace('-', "~")
}

/// An ar(5) archive, of root.
fn ar(members: &[(&str, Vec<u8>)], time: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let header = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", bytes.len());
        out.extend(header.bytes());
        out.extend(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prerelease_sorts_before_its_release() {
        assert_eq!(super::debian_version("1.0.0-rc.1"), "1.0.0~rc.1");
    }
}
