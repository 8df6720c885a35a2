//! `GET /v2/{project_id}/migration-task/{task_id}` (dcs-migration.md §2.3).

use std::net::{IpAddr, UdpSocket};

use axum::extract::{Path, State};
use control::Control;
use control::migrations::{EndpointView, MigrationView};
use model::migration::{Backup, MigrationKind};
use wire::dcs::{MigrationBackup, MigrationBackupRecord, MigrationFile, MigrationInstance, MigrationShown};

use crate::dcs::{method_name, migration_error, mode_name, status, task_status, time_text};
use crate::reply::{Reply, json};

/// An address that is reserved for documentation: only the route to it is asked for.
const NOBODY: &str = "192.0.2.1:9";

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let shown = control.show_migration(&project, &id).await.map_err(migration_error)?;
    json(&reply(&shown))
}

/// The address from which this machine would reach an end, to be put on its list of who may come.
pub(crate) fn egress(ends: &[&Option<EndpointView>]) -> String {
    let hosts = ends.iter().filter_map(|e| e.as_ref()).flat_map(|e| &e.addrs);
    let known = hosts.filter_map(|(host, port)| Some((host.parse::<IpAddr>().ok()?, *port)));
    let mut all: Vec<String> =
        known.map(|(ip, port)| std::net::SocketAddr::new(ip, port).to_string()).collect();
    all.push(NOBODY.to_owned());
    let mut found: Vec<String> = Vec::new();
    for to in all {
        if !found.is_empty() && to == NOBODY {
            break;
        }
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        // Nothing is sent: the system only chooses the way.
        let from = UdpSocket::bind(any).and_then(|s| s.connect(&to).and_then(|()| s.local_addr()));
        let from = from.map_or("127.0.0.1".to_owned(), |a| a.ip().to_string());
        if !found.contains(&from) {
            found.push(from);
        }
    }
    found.join(",")
}

/// `online_migration` or `backupfile_import`.
pub(crate) fn kind_word(kind: MigrationKind) -> &'static str {
    match kind {
        MigrationKind::Online => "online_migration",
        MigrationKind::Import => "backupfile_import",
    }
}

fn instance(shown: &EndpointView) -> MigrationInstance {
    let end = &shown.end;
    let ips: Vec<&str> = shown.addrs.iter().map(|(host, _)| host.as_str()).collect();
    MigrationInstance {
        addrs: end.addrs.clone(),
        id: end.id.clone(),
        name: shown.name.clone().or_else(|| end.name.clone()),
        ip: (!ips.is_empty()).then(|| ips.join(",")),
        port: shown.addrs.first().map(|(_, port)| port.to_string()),
        proxy_multi_db: end.proxy_multi_db,
        password: None,
        task_status: "RUNNING".into(),
        db: end.db.map(|db| db.to_string()),
    }
}

fn backup(backup: &Backup) -> MigrationBackup {
    match backup {
        Backup::Bucket { bucket, files } => MigrationBackup {
            file_source: "self_build_obs".into(),
            bucket_name: Some(bucket.clone()),
            files: files
                .iter()
                .map(|f| MigrationFile {
                    file_name: f.name.clone(),
                    size: f.size.clone(),
                    update_at: f.updated.clone(),
                })
                .collect(),
            backup_id: None,
            backup_record: None,
        },
        Backup::Record(id) => MigrationBackup {
            file_source: "backup_record".into(),
            bucket_name: None,
            files: vec![],
            backup_id: Some(id.clone()),
            backup_record: Some(MigrationBackupRecord { backup_id: id.clone() }),
        },
    }
}

pub(crate) fn reply(shown: &MigrationView) -> MigrationShown {
    let (row, spec) = (&shown.row, &shown.row.spec);
    MigrationShown {
        task_id: row.id.clone(),
        task_name: row.name.clone(),
        description: row.description.clone(),
        status: status(row.state).into(),
        migration_type: kind_word(row.state.kind).into(),
        migration_method: spec.method.map(|m| method_name(m).into()),
        ecs_tenant_private_ip: egress(&[&shown.source, &shown.target]),
        backup_files: spec.backup.as_ref().map(backup),
        network_type: spec.network.clone(),
        source_instance: shown.source.as_ref().map(instance),
        target_instance: shown.target.as_ref().map(instance),
        created_at: time_text(row.created_at),
        updated_at: row.updated_at.map(time_text),
        released_at: row.released_at.map(time_text),
        version: env!("CARGO_PKG_VERSION").into(),
        resume_mode: mode_name(spec.resume).into(),
        supported_features: vec![],
        tenant_vpc_id: spec.vpc.clone(),
        tenant_subnet_id: spec.subnet.clone(),
        tenant_security_group_id: spec.security_group.clone(),
        bandwidth_limit_mb: spec.bandwidth_mb.map(|mb| mb.to_string()),
        task_status: row.state.cutover.map(|s| task_status(s).into()),
        error_message: row.error.clone(),
        whimbrel: super::own::shown(&spec.own),
    }
}
