//! The Python wheel: `uvx` and `pip` put the program on the PATH. It has no Python code.
//!
//! Format: <https://packaging.python.org/en/latest/specifications/binary-distribution-format/>.

use std::io::{Cursor, Write};

use base64::Engine;
use zip::write::SimpleFileOptions;

use super::archive::{Tree, digest};
use super::program::Program;
use super::tarball::completion_file;
use super::{Input, Package};

pub(crate) fn build(input: &Input) -> Result<Package, String> {
    let (name, tag) = (format!("whimbrel-{}", input.version), tag(&input.program));
    let mut tree = Tree::default();
    tree.file(&format!("{name}.data/scripts/whimbrel"), 0o755, input.program.bytes.as_slice());
    for (shell, text) in &input.program.completions {
        let folder = match *shell {
            "zsh" => "zsh/site-functions",
            "fish" => "fish/vendor_completions.d",
            _ => "bash-completion/completions",
        };
        let path = format!("{name}.data/data/share/{folder}/{}", completion_file(shell));
        tree.file(&path, 0o644, text.as_str());
    }
    tree.file(&format!("{name}.data/data/share/man/man1/whimbrel.1"), 0o644, input.manual.as_str());
    let info = format!("{name}.dist-info");
    tree.file(&format!("{info}/METADATA"), 0o644, metadata(&input.version, &input.readme));
    tree.file(&format!("{info}/WHEEL"), 0o644, wheel(&tag));
    tree.file(&format!("{info}/licenses/LICENSE"), 0o644, input.license.as_str());
    tree.file(&format!("{info}/licenses/LICENSES-THIRD-PARTY.txt"), 0o644, input.third_party.as_str());
    let record = record(&tree, &info);
    let bytes = zip(&tree, (&format!("{info}/RECORD"), &record))
        .map_err(|e| format!("cannot write the wheel: {e}"))?;
    Ok(Package { name: format!("{name}-py3-none-{tag}.whl"), bytes })
}

/// The platforms that run the program, by the glibc that it needs. A static program runs with every C library.
pub(crate) fn tag(program: &Program) -> String {
    let machine = program.machine.linux;
    match program.glibc {
        Some((major, minor)) => format!("manylinux_{major}_{minor}_{machine}"),
        None => format!("manylinux_2_17_{machine}.musllinux_1_1_{machine}"),
    }
}

fn metadata(version: &str, readme: &str) -> String {
    format!(
        "Metadata-Version: 2.1\nName: whimbrel\nVersion: {version}\nSummary: Migrates object storage and Redis\n\
         License: Apache-2.0\nRequires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{readme}"
    )
}

fn wheel(tag: &str) -> String {
    let mut text = "Wheel-Version: 1.0\nGenerator: cargo x release\nRoot-Is-Purelib: false\n".to_owned();
    for platform in tag.split('.') {
        text.push_str(&format!("Tag: py3-none-{platform}\n"));
    }
    text
}

/// The digest and size of each file; its own are absent.
fn record(tree: &Tree, info: &str) -> String {
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let lines = tree
        .files()
        .map(|(path, _, bytes)| format!("{path},sha256={},{}\n", base64.encode(digest(bytes)), bytes.len()));
    lines.chain([format!("{info}/RECORD,,\n")]).collect()
}

fn zip(tree: &Tree, last: (&str, &str)) -> zip::result::ZipResult<Vec<u8>> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let last = (last.0, 0o644, last.1.as_bytes());
    for (path, mode, bytes) in tree.files().chain([last]) {
        // The default time of an entry is 1980-01-01, whatever the clock says.
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(mode);
        writer.start_file(path, options)?;
        writer.write_all(bytes)?;
    }
    Ok(writer.finish()?.into_inner())
}
