//! Registered Redis instances and their backups (dcs-migration.md §2.18, §2.20).

pub(crate) mod backups;
pub(crate) mod list;
pub(crate) mod show;

use control::migrations::InstanceView;
use wire::dcs::InstanceListed;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a list and a look have in common.
pub(crate) fn listed(seen: &InstanceView) -> InstanceListed {
    let hosts: Vec<&str> = seen.node.addrs.iter().map(|(host, _)| host.as_str()).collect();
    let server = seen.server.as_ref();
    let memory = server.map_or(0, |s| s.max_memory);
    let features = [
        ("support_acl", server.is_some_and(|s| s.is_at_least((6, 0)))),
        ("support_transparent_client_ip", false),
        ("support_ssl", seen.node.tls),
        ("support_audit_log", false),
    ];
    InstanceListed {
        instance_id: seen.id.clone(),
        name: seen.name.clone(),
        engine: "Redis".into(),
        engine_version: server.map_or(String::new(), |s| format!("{}.{}", s.version.0, s.version.1)),
        status: seen.status().into(),
        sub_status: "normal".into(),
        ip: hosts.join(","),
        port: seen.node.addrs.first().map_or(0, |(_, port)| *port),
        domain_name: hosts.iter().find(|h| h.parse::<std::net::IpAddr>().is_err()).map(|h| (*h).to_owned()),
        no_password_access: seen.node.password.is_empty().to_string(),
        access_user: seen.node.user.clone(),
        capacity: memory / GIB,
        capacity_minor: format!(".{:03}", memory % GIB * 1000 / GIB),
        max_memory: memory / MIB,
        used_memory: server.map_or(0, |s| s.used_memory) / MIB,
        enable_ssl: seen.node.tls,
        features: features.into_iter().map(|(name, can)| (name.to_owned(), can)).collect(),
        ..InstanceListed::default()
    }
}
