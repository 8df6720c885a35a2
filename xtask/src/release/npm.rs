//! The npm package: `npx` and `npm install` put the program on the PATH. It has no JavaScript and no install script.

use serde_json::json;

use super::archive::{Tree, gzip};
use super::{Input, Package};

pub(crate) fn build(input: &Input) -> Result<Package, String> {
    let program = &input.program;
    let mut manifest = json!({
        "name": "whimbrel",
        "version": input.version,
        "description": "Migrates object storage and Redis",
        "license": "Apache-2.0",
        "bin": {"whimbrel": "bin/whimbrel"},
        "man": ["man/whimbrel.1"],
        "os": ["linux"],
        "cpu": [program.machine.npm],
    });
    if program.glibc.is_some() {
        manifest["libc"] = json!(["glibc"]);
    }
    let mut tree = Tree::default();
    tree.file("package.json", 0o644, format!("{manifest:#}\n"));
    tree.file("bin/whimbrel", 0o755, program.bytes.as_slice());
    tree.file("man/whimbrel.1", 0o644, input.manual.as_str());
    tree.file("LICENSE", 0o644, input.license.as_str());
    tree.file("LICENSES-THIRD-PARTY.txt", 0o644, input.third_party.as_str());
    tree.file("README.md", 0o644, input.readme.as_str());
    let bytes = gzip(&tree.tar("package/", input.time)?)?;
    Ok(Package { name: format!("whimbrel-{}-{}.tgz", input.version, program.machine.npm), bytes })
}
