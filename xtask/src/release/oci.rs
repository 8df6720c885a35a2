//! The container image as an OCI image layout in a tar file, made without Docker and without a base image.
//!
//! The program is linked dynamically, so its shared libraries are copied from this machine, and the CA bundle as well when there is one.
//! Format: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use std::path::Path;

use serde_json::{Value, json};

use super::archive::{Tree, gzip, hex_digest};
use super::{Input, Package};

/// User and group of the service in the image.
const USER: u32 = 65_532;
const CA_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

pub(crate) fn build(input: &Input) -> Result<Package, String> {
    let machine = input.program.machine;
    let layer = root(input)?.tar("", input.time)?;
    let compressed = gzip(&layer)?;
    let config = json!({
        "architecture": machine.oci,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": {"8790/tcp": {}},
            "Entrypoint": ["/usr/bin/whimbrel"],
            "Cmd": ["serve", "--config", "/etc/whimbrel/whimbrel.toml", "--log-format", "json"],
            "WorkingDir": "/var/lib/whimbrel",
            "Volumes": {"/var/lib/whimbrel": {}},
            "Labels": {
                "org.opencontainers.image.title": "whimbrel",
                "org.opencontainers.image.version": input.version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex_digest(&layer))]},
    });
    let mut layout = Tree::default();
    let config =
        blob(&mut layout, "application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let layer = blob(&mut layout, "application/vnd.oci.image.layer.v1.tar+gzip", compressed);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let mut manifest = blob(&mut layout, media_type, manifest.to_string().into_bytes());
    manifest["platform"] = json!({"architecture": machine.oci, "os": "linux"});
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": input.version});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    layout.file("index.json", 0o644, index.to_string());
    layout.file("oci-layout", 0o644, json!({"imageLayoutVersion": "1.0.0"}).to_string());
    let name = format!("whimbrel-{}-{}.oci.tar", input.version, machine.oci);
    Ok(Package { name, bytes: layout.tar("", input.time)? })
}

/// Adds a blob and returns its descriptor.
fn blob(layout: &mut Tree, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = hex_digest(&bytes);
    let descriptor =
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
    layout.file(&format!("blobs/sha256/{digest}"), 0o644, bytes);
    descriptor
}

/// The file system of the image.
fn root(input: &Input) -> Result<Tree, String> {
    let mut tree = Tree::default();
    tree.file("usr/bin/whimbrel", 0o755, input.program.bytes.as_slice());
    for library in &input.program.libraries {
        let (path, bytes) = find_library(library, input.program.machine.linux)?;
        tree.file(&path, 0o755, bytes);
    }
    tree.file("usr/share/doc/whimbrel/LICENSE", 0o644, input.license.as_str());
    tree.file("usr/share/doc/whimbrel/LICENSES-THIRD-PARTY.txt", 0o644, input.third_party.as_str());
    let passwd = format!("whimbrel:x:{USER}:{USER}:Whimbrel:/var/lib/whimbrel:/usr/sbin/nologin\n");
    tree.file("etc/passwd", 0o644, format!("root:x:0:0:root:/root:/usr/sbin/nologin\n{passwd}"));
    tree.file("etc/group", 0o644, format!("root:x:0:\nwhimbrel:x:{USER}:\n"));
    tree.file("etc/nsswitch.conf", 0o644, "hosts: files dns\n");
    if let Ok(bundle) = std::fs::read(Path::new("/").join(CA_BUNDLE)) {
        tree.file(CA_BUNDLE, 0o644, bundle);
    }
    tree.directory("etc/whimbrel", 0o700, USER);
    tree.directory("var/lib/whimbrel", 0o700, USER);
    tree.directory("tmp", 0o1777, 0);
    Ok(tree)
}

/// A shared library of this machine with its path, where the loader of this machine looks for it in the image too.
fn find_library(name: &str, machine: &str) -> Result<(String, Vec<u8>), String> {
    // The program names its loader with its path, and the path is not that of the other libraries.
    let folders: &[String] = match name {
        "ld-linux-x86-64.so.2" => &["lib64".into()],
        "ld-linux-aarch64.so.1" => &["lib".into()],
        _ => &[
            format!("lib/{machine}-linux-gnu"),
            format!("usr/lib/{machine}-linux-gnu"),
            "lib64".into(),
            "usr/lib64".into(),
            "usr/lib".into(),
        ],
    };
    let paths = folders.iter().map(|folder| format!("{folder}/{name}"));
    let mut found = paths.filter_map(|path| Some((path.clone(), std::fs::read(format!("/{path}")).ok()?)));
    found
        .next()
        .ok_or_else(|| format!("cannot build the image: shared library `{name}` not found in {folders:?}"))
}
