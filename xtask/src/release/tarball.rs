//! The tar.gz: one directory with the program, its completions, its manual page and the files of `deploy/`.

use super::archive::{Tree, gzip};
use super::{Input, Package};

pub(crate) fn build(input: &Input) -> Result<Package, String> {
    let name = format!("whimbrel-{}-{}-linux", input.version, input.program.machine.linux);
    let mut tree = Tree::default();
    tree.file("whimbrel", 0o755, input.program.bytes.as_slice());
    tree.file("LICENSE", 0o644, input.license.as_str());
    tree.file("LICENSES-THIRD-PARTY.txt", 0o644, input.third_party.as_str());
    tree.file("README.md", 0o644, input.readme.as_str());
    tree.file("CHANGELOG.md", 0o644, input.changelog.as_str());
    tree.file("man/whimbrel.1", 0o644, input.manual.as_str());
    for (shell, text) in &input.program.completions {
        tree.file(&format!("completions/{}", completion_file(shell)), 0o644, text.as_str());
    }
    for (file, text) in &input.deploy {
        tree.file(&format!("deploy/{file}"), 0o644, text.as_str());
    }
    let bytes = gzip(&tree.tar(&format!("{name}/"), input.time)?)?;
    Ok(Package { name: format!("{name}.tar.gz"), bytes })
}

/// The name under which a shell looks for completions of `whimbrel`.
pub(crate) fn completion_file(shell: &str) -> &'static str {
    match shell {
        "zsh" => "_whimbrel",
        "fish" => "whimbrel.fish",
        _ => "whimbrel",
    }
}
