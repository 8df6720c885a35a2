//! The ledger: ranges with their cursors and counters, and open uploads with their finished parts.
//!
//! Decision: ADR 0001, `docs/adr/0001-the-ledger-is-ranges-not-objects.md`.

use model::count::{Counters, Tally};
use model::error::{Error, Kind, Result};
use model::key::Key;
use model::selection::Scope;
use model::task::TaskId;
use serde::{Deserialize, Serialize};

use crate::value::{enum_text, from_json, to_json};
use crate::{Row, StoreTx, args};

/// What a range is walked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// To copy.
    Copy,
    /// To count only.
    #[serde(rename = "survey")]
    Precount,
    /// To remove from the target what the source does not have.
    #[serde(rename = "prune")]
    DeleteExtras,
}

/// One range of a task's key space.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeRow {
    /// Identity within the task.
    pub id: i64,
    /// What it is walked for.
    pub pass: Pass,
    /// The scope that it is a piece of.
    pub scope: Scope,
    /// Last key that belongs to it; none: the end of the scope.
    pub upto: Option<Key>,
    /// Every key up to this one is settled.
    pub cursor: Key,
    /// Keys after the cursor that are settled already.
    pub ahead: Vec<Key>,
    /// Nothing is left to do.
    pub done: bool,
    /// Settled in it.
    pub counters: Counters,
    /// Lease number.
    pub fence: i64,
}

/// A range about to be added.
#[derive(Clone, Debug)]
pub struct NewRange {
    /// Identity within the task.
    pub id: i64,
    /// What it is walked for.
    pub pass: Pass,
    /// The scope that it is a piece of.
    pub scope: Scope,
    /// Keys after this.
    pub after: Key,
    /// Last key that belongs to it.
    pub upto: Option<Key>,
}

/// What a range has reached; replaces what was stored.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The range.
    pub id: i64,
    /// Lease number under which the work was done.
    pub fence: i64,
    /// New cursor.
    pub cursor: Key,
    /// Keys settled ahead of it.
    pub ahead: Vec<Key>,
    /// Nothing is left to do.
    pub done: bool,
    /// The last key that belonged to the range when it was done; none: the end of the scope.
    pub upto: Option<Key>,
    /// Settled in it, in all.
    pub counters: Counters,
}

/// An open multipart upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Key at the source.
    pub key: Key,
    /// The source's ETag when it was begun.
    pub etag: String,
    /// The target's upload id.
    pub upload: String,
    /// Bytes per part.
    pub part_size: u64,
    /// Bytes of the whole object.
    pub size: u64,
    /// Finished parts, as JSON of the storage crate's parts.
    pub parts: String,
    /// Whether another upload of this key may have begun.
    pub unresolved: UnresolvedUpload,
}

/// An upload that was asked for, whose answer an interruption swallowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnresolvedUpload {
    /// There is none.
    #[default]
    None,
    /// There may be one in addition to the upload of the row.
    AnotherUpload,
    /// There may be one, and the object itself is done.
    OnlyUpload,
}

/// The sums that every task row carries: fourteen counters of the copy pass, two of the precount.
pub(crate) const SUMS: [&str; 16] = [
    "SUM(CASE WHEN r.pass = 'copy' THEN r.copied END)",
    "SUM(CASE WHEN r.pass = 'copy' THEN r.copied_bytes END)",
    "SUM(r.skipped)",
    "SUM(r.skipped_bytes)",
    "SUM(r.failed)",
    "SUM(r.failed_bytes)",
    "SUM(r.gone)",
    "SUM(r.gone_bytes)",
    "SUM(r.deleted)",
    "SUM(r.deleted_bytes)",
    "SUM(r.proof_digest)",
    "SUM(r.proof_etag)",
    "SUM(r.proof_crc64)",
    "SUM(r.proof_size)",
    "SUM(CASE WHEN r.pass = 'survey' THEN r.copied END)",
    "SUM(CASE WHEN r.pass = 'survey' THEN r.copied_bytes END)",
];

/// Counters from fourteen columns that begin at `at`.
pub(crate) fn counters_at(r: &Row, at: usize) -> Result<Counters> {
    let tally = |i: usize| Ok::<_, Error>(Tally { objects: r.count(at + i)?, bytes: r.count(at + i + 1)? });
    Ok(Counters {
        copied: tally(0)?,
        skipped: tally(2)?,
        failed: tally(4)?,
        gone: tally(6)?,
        deleted: tally(8)?,
        proof: [r.count(at + 10)?, r.count(at + 11)?, r.count(at + 12)?, r.count(at + 13)?],
    })
}

fn pack(keys: &[Key]) -> Vec<u8> {
    let mut out = Vec::with_capacity(keys.iter().map(|k| k.as_bytes().len() + 4).sum());
    for key in keys {
        out.extend_from_slice(&u32::try_from(key.as_bytes().len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
    }
    out
}

fn unpack(mut bytes: &[u8]) -> Result<Vec<Key>> {
    let bad = || Error::new(Kind::Internal, "store", "the settled keys after a cursor are corrupt");
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
        let len = u32::from_le_bytes(*len) as usize;
        let key = rest.get(..len).ok_or_else(bad)?;
        keys.push(Key::new(key));
        bytes = &rest[len..];
    }
    Ok(keys)
}

impl StoreTx {
    /// Adds ranges that `owner` has leased.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when an id exists.
    pub async fn insert_ranges(
        &mut self,
        task: TaskId,
        ranges: &[NewRange],
        owner: &str,
        until: i64,
        fence: i64,
    ) -> Result<()> {
        let sql = "INSERT INTO ranges (task_id, id, pass, scope, upto, cursor, ahead, owner, lease_until, fence) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        for r in ranges {
            let args = args![
                task,
                r.id,
                enum_text(r.pass),
                to_json(&r.scope)?,
                r.upto.as_ref().map(Key::as_bytes),
                r.after.as_bytes(),
                Vec::new(),
                owner,
                until,
                fence,
            ];
            self.tx.execute(sql, args).await?;
        }
        Ok(())
    }

    /// The ranges of a task in one pass.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ranges(&mut self, task: TaskId, pass: Pass) -> Result<Vec<RangeRow>> {
        let sql = "SELECT id, scope, upto, cursor, ahead, done, fence, copied, copied_bytes, skipped, \
                   skipped_bytes, failed, failed_bytes, gone, gone_bytes, deleted, deleted_bytes, proof_digest, \
                   proof_etag, proof_crc64, proof_size FROM ranges WHERE task_id = $1 AND pass = $2 ORDER BY id";
        let rows = self.tx.query(sql, args![task, enum_text(pass)]).await?;
        rows.iter()
            .map(|r| {
                Ok(RangeRow {
                    id: r.int(0)?,
                    pass,
                    scope: from_json(r.text(1)?)?,
                    upto: r.opt_blob(2)?.map(Key::new),
                    cursor: Key::new(r.opt_blob(3)?.unwrap_or_default()),
                    ahead: unpack(r.opt_blob(4)?.unwrap_or_default())?,
                    done: r.int(5)? != 0,
                    fence: r.int(6)?,
                    counters: counters_at(r, 7)?,
                })
            })
            .collect()
    }

    /// Lowers the end of a range in favour of a new one: a split, in one transaction.
    ///
    /// # Errors
    /// [`Kind::LeaseLost`] when the fence is old.
    pub async fn lower_end(&mut self, task: TaskId, id: i64, fence: i64, upto: &Key) -> Result<()> {
        let sql = "UPDATE ranges SET upto = $4 WHERE task_id = $1 AND id = $2 AND fence = $3";
        let n = self.tx.execute(sql, args![task, id, fence, upto.as_bytes()]).await?;
        held(n, task)
    }

    /// Stores what a range has reached. False when it is done up to an end that is not stored yet: a split of it is on
    /// its way, and the range counts as done only behind that.
    ///
    /// # Errors
    /// [`Kind::LeaseLost`] when the fence is old: somebody else works on it now.
    pub async fn checkpoint(&mut self, task: TaskId, c: &Checkpoint) -> Result<bool> {
        let sql = "UPDATE ranges SET cursor = $4, ahead = $5, \
            done = CASE WHEN $6 = 1 AND (upto = $21 OR (upto IS NULL AND $21 IS NULL)) THEN 1 ELSE 0 END, \
            copied = $7, copied_bytes = $8, skipped = $9, skipped_bytes = $10, failed = $11, failed_bytes = $12, \
            gone = $13, gone_bytes = $14, deleted = $15, deleted_bytes = $16, \
            proof_digest = $17, proof_etag = $18, proof_crc64 = $19, proof_size = $20 \
            WHERE task_id = $1 AND id = $2 AND fence = $3";
        let t = &c.counters;
        let n = self
            .tx
            .execute(
                sql,
                args![
                    task,
                    c.id,
                    c.fence,
                    c.cursor.as_bytes(),
                    pack(&c.ahead),
                    c.done,
                    t.copied.objects,
                    t.copied.bytes,
                    t.skipped.objects,
                    t.skipped.bytes,
                    t.failed.objects,
                    t.failed.bytes,
                    t.gone.objects,
                    t.gone.bytes,
                    t.deleted.objects,
                    t.deleted.bytes,
                    t.proof[0],
                    t.proof[1],
                    t.proof[2],
                    t.proof[3],
                    c.upto.as_ref().map(Key::as_bytes),
                ],
            )
            .await?;
        held(n, task)?;
        if !c.done {
            return Ok(true);
        }
        let sql = "SELECT done FROM ranges WHERE task_id = $1 AND id = $2";
        let rows = self.tx.query(sql, args![task, c.id]).await?;
        rows.first().map_or(Ok(false), |r| Ok(r.int(0)? != 0))
    }

    /// Removes all ranges of a pass, to begin it again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_ranges(&mut self, task: TaskId, pass: Pass) -> Result<()> {
        self.tx
            .execute("DELETE FROM ranges WHERE task_id = $1 AND pass = $2", args![task, enum_text(pass)])
            .await?;
        Ok(())
    }

    /// Stores an open upload and its finished parts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_upload(&mut self, task: TaskId, u: &Upload) -> Result<()> {
        let sql = "INSERT INTO uploads (task_id, key, etag, upload, part_size, size, parts, doubt) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (task_id, key) DO UPDATE SET \
                   etag = excluded.etag, upload = excluded.upload, part_size = excluded.part_size, \
                   size = excluded.size, parts = excluded.parts, doubt = excluded.doubt";
        let args = args![
            task,
            u.key.as_bytes(),
            u.etag.as_str(),
            u.upload.as_str(),
            u.part_size,
            u.size,
            u.parts.as_str(),
            u.unresolved as u32
        ];
        self.tx.execute(sql, args).await?;
        Ok(())
    }

    /// Forgets an upload.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_upload(&mut self, task: TaskId, key: &Key) -> Result<()> {
        self.tx
            .execute("DELETE FROM uploads WHERE task_id = $1 AND key = $2", args![task, key.as_bytes()])
            .await?;
        Ok(())
    }

    /// The open uploads of a task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn uploads(&mut self, task: TaskId) -> Result<Vec<Upload>> {
        let sql = "SELECT key, etag, upload, part_size, size, parts, doubt FROM uploads WHERE task_id = $1 ORDER BY key";
        let rows = self.tx.query(sql, args![task]).await?;
        rows.iter()
            .map(|r| {
                Ok(Upload {
                    key: Key::new(r.opt_blob(0)?.unwrap_or_default()),
                    etag: r.text(1)?.to_owned(),
                    upload: r.text(2)?.to_owned(),
                    part_size: r.count(3)?,
                    size: r.count(4)?,
                    parts: r.text(5)?.to_owned(),
                    unresolved: match r.count(6)? {
                        0 => UnresolvedUpload::None,
                        1 => UnresolvedUpload::AnotherUpload,
                        _ => UnresolvedUpload::OnlyUpload,
                    },
                })
            })
            .collect()
    }
}

pub(crate) fn held(changed: u64, task: TaskId) -> Result<()> {
    if changed == 1 {
        return Ok(());
    }
    Err(Error::new(
        Kind::LeaseLost,
        "checkpoint",
        format!(
            "the lease of task {task} was taken over by another \
         worker"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_keys_round_trip_and_damage_is_an_error() {
        let keys = [Key::from("a"), Key::new(*b"\0\xff"), Key::from("")];
        let packed = pack(&keys);
        assert_eq!(unpack(&packed).unwrap(), keys);
        assert!(unpack(&packed[..packed.len() - 5]).is_err());
    }
}
