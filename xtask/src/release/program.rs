//! The release binary: for which machines it is, without symbols, and its completions.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shells that the packages have completions for.
pub(crate) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Processors by the `e_machine` of an ELF file, as Linux, Debian, npm and OCI name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) linux: &'static str,
    pub(crate) debian: &'static str,
    pub(crate) npm: &'static str,
    pub(crate) oci: &'static str,
}

const X86_64: Machine = Machine { linux: "x86_64", debian: "amd64", npm: "x64", oci: "amd64" };
const AARCH64: Machine = Machine { linux: "aarch64", debian: "arm64", npm: "arm64", oci: "arm64" };

/// What the packages have of the program.
pub(crate) struct Program {
    /// Without symbols.
    pub(crate) bytes: Vec<u8>,
    /// Symbols and line tables, for a debugger.
    pub(crate) symbols: Vec<u8>,
    pub(crate) machine: Machine,
    /// The oldest glibc that has all the symbols used, such as (2, 34); none for a static program.
    pub(crate) glibc: Option<(u32, u32)>,
    /// Names of the shared libraries, such as `libc.so.6`.
    pub(crate) libraries: Vec<String>,
    /// (shell, text)
    pub(crate) completions: Vec<(&'static str, String)>,
}

/// Runs a program and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("cannot run {name}: {e}\n\nhint: install {name}"))?;
    if out.status.success() {
        return String::from_utf8(out.stdout).map_err(|e| format!("cannot read the output of {name}: {e}"));
    }
    let message = String::from_utf8_lossy(&out.stderr);
    Err(format!("cannot run {name} ({}): {}", out.status, message.trim_end()))
}

/// Reads and strips a binary; `scratch` is a directory for its parts.
pub(crate) fn read(binary: &Path, scratch: &Path) -> Result<Program, String> {
    let file = std::fs::read(binary).map_err(|e| format!("cannot read {}: {e}", binary.display()))?;
    let machine = machine(&file).ok_or_else(|| {
        format!("cannot package {}: not a Linux program for x86-64 or arm64", binary.display())
    })?;
    let headers =
        output(Command::new("readelf").args(["--wide", "--version-info", "--dynamic"]).arg(binary))?;
    let (stripped, symbols) = strip(binary, scratch)?;
    Ok(Program {
        bytes: load(&stripped)?,
        symbols: load(&symbols)?,
        machine,
        glibc: newest_glibc(&headers),
        libraries: libraries(&headers),
        completions: completions(binary)?,
    })
}

fn load(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// The processor of a 64-bit ELF file.
fn machine(file: &[u8]) -> Option<Machine> {
    let is_elf64 = file.starts_with(b"\x7fELF\x02\x01");
    match (is_elf64, file.get(18..20)?) {
        (true, [62, 0]) => Some(X86_64),
        (true, [183, 0]) => Some(AARCH64),
        _ => None,
    }
}

/// The newest `GLIBC_x.y` in the output of `readelf --version-info`.
fn newest_glibc(headers: &str) -> Option<(u32, u32)> {
    let versions = headers.split("GLIBC_").skip(1).filter_map(|rest| {
        let version = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = version.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    versions.max()
}

/// The `NEEDED` lines in the output of `readelf --dynamic`.
fn libraries(headers: &str) -> Vec<String> {
    let needed = headers.lines().filter(|line| line.contains("(NEEDED)"));
    needed.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
}

/// Writes the program without symbols, and the symbols with a link from the program to them. Returns both paths.
fn strip(binary: &Path, scratch: &Path) -> Result<(PathBuf, PathBuf), String> {
    // A debugger finds the symbols by this name, beside the program or below /usr/lib/debug.
    let (stripped, symbols) = (scratch.join("whimbrel"), scratch.join("whimbrel.debug"));
    let objcopy = std::env::var("OBJCOPY").unwrap_or_else(|_| "objcopy".into());
    output(Command::new(&objcopy).arg("--only-keep-debug").arg(binary).arg(&symbols))?;
    let link = format!("--add-gnu-debuglink={}", symbols.display());
    output(Command::new(&objcopy).arg("--strip-all").arg(link).arg(binary).arg(&stripped))?;
    Ok((stripped, symbols))
}

/// Runs the program, which must therefore be for this machine.
fn completions(binary: &Path) -> Result<Vec<(&'static str, String)>, String> {
    let text = |shell| output(Command::new(binary).args(["completions", shell]));
    SHELLS.into_iter().map(|shell| Ok((shell, text(shell)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_versions_are_compared_as_numbers() {
        assert_eq!(newest_glibc("GLIBC_2.9 GLIBC_2.34\nName: GLIBC_2.2.5"), Some((2, 34)));
        assert_eq!(newest_glibc("No version information found in this file."), None);
    }

    #[test]
    fn libraries_are_read_from_the_dynamic_section() {
        let text = " 0x0001 (NEEDED) Shared library: [libc.so.6]\n 0x000e (SONAME) Library soname: [x.so]\n";
        assert_eq!(libraries(text), ["libc.so.6"]);
    }

    #[test]
    fn a_script_is_not_a_program_for_a_machine() {
        assert_eq!(machine(b"#!/bin/sh\necho a longer line\n"), None);
    }
}
