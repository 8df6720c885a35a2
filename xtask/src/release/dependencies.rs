//! The crates that are built into the program: an SBOM in CycloneDX form, and the texts of their licences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::program::output;

/// The package of the program.
const PACKAGE: &str = "whimbrel";

struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    /// Directory of its sources.
    folder: std::path::PathBuf,
    /// In Cargo.lock; crates of the workspace have none.
    checksum: Option<String>,
    /// Linked into the program; else only run while it is built.
    is_linked: bool,
    /// Ids of the crates that it needs.
    needs: BTreeSet<String>,
}

/// Crates by their id in `cargo metadata`.
pub(crate) struct Dependencies {
    program: String,
    crates: BTreeMap<String, Crate>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Reads what the program depends on when it is built for Linux on a processor.
pub(crate) fn read(root: &Path, machine: &str) -> Result<Dependencies, String> {
    let platform = format!("{machine}-unknown-linux-gnu");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        &platform,
    ]);
    let metadata: Value = serde_json::from_str(&output(&mut command)?)
        .map_err(|e| format!("cannot read the output of cargo metadata: {e}"))?;
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).map_err(|e| format!("Cargo.lock: {e}"))?;
    parse(&metadata, &checksums(&lock)).ok_or_else(|| format!("cargo metadata has no package `{PACKAGE}`"))
}

fn parse(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Option<Dependencies> {
    let packages = items(&metadata["packages"]);
    let program = text(&packages.iter().find(|p| p["name"] == PACKAGE)?["id"]);
    let edges: BTreeMap<String, Vec<(String, bool)>> = items(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), items(&node["deps"]).iter().filter_map(edge).collect()))
        .collect();
    let linked = reach(&program, &edges, true);
    let crates = reach(&program, &edges, false)
        .into_iter()
        .filter_map(|id| {
            let package = packages.iter().find(|p| p["id"] == id.as_str())?;
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            let needs = edges.get(&id).into_iter().flatten().map(|(to, _)| to.clone()).collect();
            let found = Crate {
                checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
                license: package["license"].as_str().map(str::to_owned),
                folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
                is_linked: linked.contains(&id),
                needs,
                name,
                version,
            };
            Some((id, found))
        })
        .collect();
    Some(Dependencies { program, crates })
}

/// A dependency that is not for tests only: its id, and whether it is one of the program and not of a build script.
fn edge(dependency: &Value) -> Option<(String, bool)> {
    let kinds = items(&dependency["dep_kinds"]);
    let is_normal = kinds.iter().any(|kind| kind["kind"].is_null());
    let is_build = kinds.iter().any(|kind| kind["kind"] == "build");
    (is_normal || is_build).then(|| (text(&dependency["pkg"]), is_normal))
}

/// The crates that one needs, itself among them.
fn reach(from: &str, edges: &BTreeMap<String, Vec<(String, bool)>>, only_normal: bool) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::from([from.to_owned()]), vec![from.to_owned()]);
    while let Some(id) = open.pop() {
        for (to, is_normal) in edges.get(&id).into_iter().flatten() {
            if (*is_normal || !only_normal) && found.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    found
}

/// Checksums in Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1).filter_map(|package| {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            line.strip_suffix('"').map(str::to_owned)
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    });
    packages.collect()
}

impl Dependencies {
    /// The SBOM: CycloneDX 1.5, JSON. It has no time and no serial number, so that it is the same for the same sources.
    pub(crate) fn cyclonedx(&self) -> String {
        let others = self.crates.iter().filter(|(id, _)| **id != self.program);
        let components: Vec<Value> = others.map(|(_, found)| component(found, "library")).collect();
        let dependencies: Vec<Value> = self
            .crates
            .values()
            .map(|found| {
                let needs: Vec<String> =
                    found.needs.iter().filter_map(|id| Some(purl(self.crates.get(id)?))).collect();
                json!({"ref": purl(found), "dependsOn": needs})
            })
            .collect();
        let bom = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": self.crates.get(&self.program).map(|found| component(found, "application"))},
            "components": components,
            "dependencies": dependencies,
        });
        format!("{bom:#}\n")
    }

    /// The licence files of the linked crates from registries; equal texts stand once.
    pub(crate) fn licenses(&self) -> Result<String, String> {
        let mut texts = BTreeMap::<String, Vec<String>>::new();
        let mut out = "Crates that are linked into this program, with their licences:\n\n".to_owned();
        for found in self.crates.values().filter(|found| found.is_linked && found.checksum.is_some()) {
            let name = format!("{} {}", found.name, found.version);
            out.push_str(&format!("{name}: {}\n", found.license.as_deref().unwrap_or("see below")));
            for text in license_files(&found.folder)? {
                texts.entry(text).or_default().push(name.clone());
            }
        }
        for (text, names) in texts {
            out.push_str(&format!("\n----\n{}\n----\n\n{}\n", names.join(", "), text.trim_end()));
        }
        Ok(out)
    }
}

fn purl(found: &Crate) -> String {
    format!("pkg:cargo/{}@{}", found.name, found.version)
}

fn component(found: &Crate, kind: &str) -> Value {
    let mut value = json!({
        "type": kind,
        "bom-ref": purl(found),
        "purl": purl(found),
        "name": found.name,
        "version": found.version,
        "scope": if found.is_linked { "required" } else { "excluded" },
    });
    if let Some(license) = &found.license {
        // `MIT/Apache-2.0` is the older way to write `OR`.
        value["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(checksum) = &found.checksum {
        value["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    value
}

fn license_files(folder: &Path) -> Result<BTreeSet<String>, String> {
    let failed = |e: std::io::Error| format!("cannot read the licences in {}: {e}", folder.display());
    let mut texts = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let is_license =
            ["license", "licence", "copying", "copyright", "notice"].iter().any(|n| name.starts_with(n));
        if is_license && path.is_file() {
            texts.insert(
                String::from_utf8_lossy(&std::fs::read(&path).map_err(failed)?).replace("\r\n", "\n"),
            );
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_dependencies_are_left_out_and_build_dependencies_are_marked() {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "manifest_path": "/x/Cargo.toml"});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let packages = ["whimbrel", "linked", "script", "tests"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": [{"id": "whimbrel", "deps": [
                needs("linked", Value::Null), needs("script", json!("build")), needs("tests", json!("dev"))
            ]}]},
        });
        let bom = parse(&metadata, &BTreeMap::new()).unwrap().cyclonedx();
        let bom: Value = serde_json::from_str(&bom).unwrap();
        let scopes: Vec<_> = items(&bom["components"]).iter().map(|c| (&c["name"], &c["scope"])).collect();
        assert_eq!(scopes, [(&json!("linked"), &json!("required")), (&json!("script"), &json!("excluded"))]);
        assert_eq!(bom["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }

    #[test]
    fn checksums_are_read_from_the_lock_file() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("a".into(), "1.0.0".into()), "00ff".into())]));
    }
}
