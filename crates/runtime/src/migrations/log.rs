//! Lines of the log of a migration.

use model::error::Result;
use model::migration::{MigrationEvent, Phase};
use store::{LogLine, StoreTx};

use crate::migrations::log_messages::{MessageCode, log_line};

/// A line for the log of a migration, in an open unit.
///
/// # Errors
/// When the store fails.
pub async fn append_log(
    tx: &mut StoreTx,
    id: &str,
    code: MessageCode,
    at: i64,
    parts: &[String],
) -> Result<()> {
    let line: LogLine = log_line(code, at, parts);
    tx.log_migration(id, &line).await
}

/// A migration that cannot go on: its phase, its error and its log say the same.
pub(super) async fn fail(tx: &mut StoreTx, id: &str, why: &str, now: i64) -> Result<()> {
    if tx.apply_migration(id, MigrationEvent::Failed, now).await?.is_ok_and(|s| s.phase == Phase::Failed) {
        tx.set_migration_error(id, Some(why)).await?;
    }
    append_log(tx, id, MessageCode::Failed, now, &[why.to_owned()]).await
}
