//! `/v2/{project_id}/instances/{instance_id}/backups` (dcs-migration.md §2.20).

use axum::extract::{Path, Query, State};
use bytes::Bytes;
use control::Control;
use control::migrations::{MigrationError, MigrationReply};
use store::BackupRow;
use time::macros::format_description;
use wire::dcs::{BackupBegun, BackupList, BackupShown};
use wire::fields::Fields;

use crate::dcs::{field_error, migration_error, number, object_or_nothing, time_text};
use crate::query::Params;
use crate::reply::{Reply, json};
use crate::v2::migration_task::no_content;

/// Longest remark of a backup, characters.
const REMARK_MAX: usize = 128;

/// `POST …/backups`
pub(crate) async fn create(
    State(control): State<Control>,
    Path((project, instance)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object_or_nothing(&body)?;
    let remark = read(&Fields::root(&map)).map_err(migration_error)?;
    let backup_id = control.create_backup(&project, &instance, remark).await.map_err(migration_error)?;
    json(&BackupBegun { backup_id })
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<String> {
    let remark = f.opt_text("remark", REMARK_MAX).map_err(field_error)?.unwrap_or_default().to_owned();
    match f.opt_one_of("backup_format", &["rdb", "aof"]).map_err(field_error)? {
        Some("aof") => {
            let why = "only rdb is supported";
            Err(MigrationError::Field("backup_format".into(), why.into()))
        }
        _ => Ok(remark),
    }
}

/// `yyyyMMddHHmmss`, UTC, as milliseconds.
fn instant(query: &Params, name: &str) -> Result<Option<i64>, MigrationError> {
    let Some(text) = query.get(name).filter(|t| !t.is_empty()) else { return Ok(None) };
    let form = format_description!("[year][month][day][hour][minute][second]");
    let read = time::PrimitiveDateTime::parse(text, &form).ok();
    let read = read
        .ok_or_else(|| MigrationError::Field(name.into(), format!("`{text:.40}` is not yyyyMMddHHmmss")))?;
    Ok(Some(read.assume_utc().unix_timestamp() * 1000))
}

/// `GET …/backups`
pub(crate) async fn list(
    State(control): State<Control>,
    Path((project, instance)): Path<(String, String)>,
    Query(query): Query<Params>,
) -> Reply {
    let offset = number(&query, "offset", 0, (0, 2_147_483_647))?;
    let limit = number(&query, "limit", 10, (1, 1000))?;
    let from = instant(&query, "begin_time").map_err(migration_error)?.unwrap_or(0);
    let to = instant(&query, "end_time").map_err(migration_error)?.unwrap_or(i64::MAX);
    if to < from {
        return Err(migration_error(MigrationError::Period));
    }
    let (rows, total_num) = control
        .list_backups(&project, &instance, (from, to), offset, limit)
        .await
        .map_err(migration_error)?;
    if total_num == 0 {
        return Ok(no_content());
    }
    json(&BackupList { total_num, backup_record_response: rows.into_iter().map(shown).collect() })
}

fn shown(row: BackupRow) -> BackupShown {
    let over = row.status == "succeed";
    BackupShown {
        backup_name: format!("backup-{}", &row.id[..8]),
        instance_id: row.instance,
        period: String::new(),
        size: row.size,
        backup_type: "manual".into(),
        created_at: time_text(row.created_at),
        updated_at: time_text(row.updated_at),
        execution_at: time_text(row.created_at),
        progress: if over { "100.00" } else { "0.00" }.into(),
        error_code: row.error.map(|_| "dcs.08.0001".into()),
        remark: row.remark,
        status: row.status,
        is_support_restore: if over { "TRUE" } else { "FALSE" }.into(),
        backup_format: "rdb".into(),
        backup_id: row.id,
    }
}

/// `DELETE …/backups/{backup_id}`
pub(crate) async fn delete(
    State(control): State<Control>,
    Path((project, instance, id)): Path<(String, String, String)>,
) -> Reply {
    control.delete_backup(&project, &instance, &id).await.map_err(migration_error)?;
    Ok(no_content())
}
