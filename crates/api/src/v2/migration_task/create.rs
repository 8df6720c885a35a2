//! `POST /v2/{project_id}/migration-task`: creates and starts (dcs-migration.md §2.1).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::{MigrationError, MigrationReply, MigrationRequest, canonical};
use model::migration::{Backup, BackupFile, Endpoint, Method, MigrationKind, MigrationSpec, ResumeMode};
use runtime::migrations::EndSecrets;
use seal::Secret;
use wire::dcs::MigrationStarted;
use wire::fields::Fields;

use crate::dcs::{METHODS, field_error, method, migration_error, object};
use crate::reply::{Reply, json};

/// Longest name of a migration, characters.
const NAME_MAX: usize = 64;
/// Longest description of a migration, characters.
const DESCRIPTION_MAX: usize = 1024;
/// Longest text of addresses, characters.
const ADDRS_MAX: usize = 65_535;
/// Longest password, characters.
const PASSWORD_MAX: usize = 512;
/// Files of one import.
const FILES_MAX: usize = 1000;
/// The largest database number that any server has room for.
const DB_MAX: u32 = 65_535;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(&body)?;
    let (kind, described) = read(&Fields::root(&map)).map_err(migration_error)?;
    let row = control.create_migration(&project, kind, described).await.map_err(migration_error)?;
    json(&MigrationStarted { id: row.id, name: row.name, status: "MIGRATING".into(), error: String::new() })
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<(MigrationKind, MigrationRequest)> {
    let name = name(f, "task_name")?;
    let description = description(f)?;
    let kinds = ["backupfile_import", "online_migration"];
    let kind = match f.one_of("migration_type", &kinds).map_err(field_error)? {
        "backupfile_import" => MigrationKind::Import,
        _ => MigrationKind::Online,
    };
    let chosen = method(f.one_of("migration_method", &METHODS).map_err(field_error)?);
    let network =
        f.opt_one_of("network_type", &["vpc", "vpn"]).map_err(field_error)?.unwrap_or("vpc").to_owned();
    let (target, target_secret) = end(&f.object("target_instance").map_err(field_error)?)?;
    let mut secrets = EndSecrets { source: Secret::default(), target: target_secret };
    let mut spec = MigrationSpec {
        method: Some(chosen),
        resume: if chosen == Method::Incremental { ResumeMode::Auto } else { ResumeMode::Manual },
        network,
        target: Some(target),
        own: super::own::read(f)?,
        ..MigrationSpec::default()
    };
    match kind {
        MigrationKind::Import if chosen == Method::Incremental => {
            let why = "a backup import is a full_amount_migration";
            return Err(MigrationError::Field("migration_method".into(), why.into()));
        }
        MigrationKind::Import => spec.backup = Some(backup(&f.object("backup_files").map_err(field_error)?)?),
        MigrationKind::Online => {
            let (source, secret) = end(&f.object("source_instance").map_err(field_error)?)?;
            (spec.source, secrets.source) = (Some(source), secret);
        }
    }
    Ok((kind, MigrationRequest { name, description, spec, secrets }))
}

/// A name: 1 to 64 characters that can be seen.
pub(crate) fn name(f: &Fields<'_>, field: &str) -> MigrationReply<String> {
    let name = f.filled(field, NAME_MAX).map_err(field_error)?;
    if name.chars().any(char::is_control) {
        return Err(MigrationError::Field(f.name(field), "it holds a control character".into()));
    }
    Ok(name.to_owned())
}

pub(crate) fn description(f: &Fields<'_>) -> MigrationReply<String> {
    Ok(f.opt_text("description", DESCRIPTION_MAX).map_err(field_error)?.unwrap_or_default().to_owned())
}

/// An end with its password; `id` wins over `addrs`, an empty text is as none.
pub(crate) fn end(f: &Fields<'_>) -> MigrationReply<(Endpoint, Secret)> {
    let text = |field: &str, max: usize| {
        f.opt_text(field, max).map_err(field_error).map(|t| t.filter(|t| !t.is_empty()).map(str::to_owned))
    };
    let (id, mut addrs) = (text("id", 64)?, text("addrs", ADDRS_MAX)?);
    let (ip, port) = (text("ip", 1024)?, f.opt_text_or_number("port", 5).map_err(field_error)?);
    if let Some(id) = &id {
        canonical(id).filter(|c| c == id).ok_or_else(|| MigrationError::InstanceId(id.clone()))?;
    } else if addrs.is_none() {
        addrs = ip.map(|ip| port.map_or(ip.clone(), |port| format!("{ip}:{port}")));
    }
    if id.is_some() {
        addrs = None;
    } else if let Some(addrs) = &addrs {
        redis_migration::connection::node::addresses(addrs).map_err(|e| {
            // A URL may hold a password: it is not repeated.
            let why = match addrs.contains('@') {
                true => {
                    "it must be host:port, separated by commas; hint: passwords have a field of their own"
                        .into()
                }
                false => e.message,
            };
            MigrationError::Field(f.name("addrs"), why)
        })?;
    } else {
        return Err(MigrationError::Field(f.name("addrs"), "either id or addrs is required".into()));
    }
    let db = match f.opt_text_or_number("db", 10).map_err(field_error)?.filter(|t| !t.is_empty()) {
        None => None,
        Some(text) => {
            let db = text.parse().ok().filter(|db| *db <= DB_MAX);
            Some(db.ok_or_else(|| {
                MigrationError::Field(f.name("db"), format!("`{text}` is not a database number"))
            })?)
        }
    };
    let end = Endpoint {
        id,
        addrs,
        name: text("name", 128)?,
        db,
        proxy_multi_db: f.opt_bool_or_text("proxy_multi_db").map_err(field_error)?.unwrap_or(false),
    };
    Ok((end, Secret::new(text("password", PASSWORD_MAX)?.unwrap_or_default())))
}

fn backup(f: &Fields<'_>) -> MigrationReply<Backup> {
    if f.one_of("file_source", &["self_build_obs", "backup_record"]).map_err(field_error)? == "backup_record"
    {
        let id = f.filled("backup_id", 64).map_err(field_error)?;
        let id = canonical(id)
            .ok_or_else(|| MigrationError::Backup(format!("backup_files.backup_id: `{id}` is not a UUID")))?;
        return Ok(Backup::Record(id));
    }
    let bucket = f.filled("bucket_name", 255).map_err(field_error)?.to_owned();
    let mut files = Vec::new();
    for file in f.opt_objects("files", FILES_MAX).map_err(field_error)?.unwrap_or_default() {
        let name = file.filled("file_name", 1024).map_err(field_error)?.to_owned();
        if name.split('/').any(|s| s == "..") {
            return Err(MigrationError::Field(
                file.name("file_name"),
                "it points outside of the bucket".into(),
            ));
        }
        files.push(BackupFile {
            name,
            size: file.opt_text_or_number("size", 64).map_err(field_error)?,
            updated: file.opt_text("update_at", 64).map_err(field_error)?.map(str::to_owned),
        });
    }
    if files.is_empty() {
        return Err(MigrationError::Field(f.name("files"), "it must contain at least one file".into()));
    }
    Ok(Backup::Bucket { bucket, files })
}
