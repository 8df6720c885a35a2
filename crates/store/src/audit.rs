//! One line for each changing call, sign-in and refusal: who did what to which, from where, and what came of it.

use model::error::Result;

use crate::{Row, StoreTx, args};

/// Lines older than this are forgotten, milliseconds (a year).
const KEEP_MS: i64 = 366 * 24 * 3600 * 1000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// When, milliseconds.
    pub at: i64,
    /// Request id, as answered.
    pub request_id: String,
    /// Project.
    pub project: String,
    /// Access key or user.
    pub principal: String,
    /// Method and route.
    pub action: String,
    /// The path as asked for.
    pub target: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Address of the caller; empty where it is not known.
    pub address: String,
    /// What the caller was recognised as; empty: not at all.
    pub role: String,
}

impl StoreTx {
    /// Adds a line.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, line: &AuditLine) -> Result<()> {
        let sql = "INSERT INTO audit (at, request_id, project, principal, action, target, status, address, role) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let args = args![
            line.at,
            line.request_id.as_str(),
            line.project.as_str(),
            line.principal.as_str(),
            line.action.as_str(),
            line.target.as_str(),
            i64::from(line.status),
            line.address.as_str(),
            line.role.as_str(),
        ];
        self.tx.execute(sql, args).await?;
        self.tx.execute("DELETE FROM audit WHERE at < $1", args![line.at - KEEP_MS]).await?;
        Ok(())
    }

    /// The newest lines of a project before an instant; with `all`, also those that belong to no project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_lines(
        &mut self,
        project: &str,
        all: bool,
        before: i64,
        limit: u64,
    ) -> Result<Vec<AuditLine>> {
        let sql = "SELECT at, request_id, project, principal, action, target, status, address, role FROM audit \
                   WHERE (project = $1 OR ($2 = 1 AND project = '')) AND at < $3 ORDER BY at DESC LIMIT $4";
        let rows = self.tx.query(sql, args![project, all, before, limit]).await?;
        rows.iter().map(line).collect()
    }

    /// The newest successful changes of a project whose path contains a text, since an instant.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_lines_about(
        &mut self,
        project: &str,
        text: &str,
        since: i64,
        limit: u64,
    ) -> Result<Vec<AuditLine>> {
        let sql = "SELECT at, request_id, project, principal, action, target, status, address, role FROM audit \
                   WHERE project = $1 AND at >= $2 AND status < 400 AND REPLACE(target, $3, '') <> target \
                   ORDER BY at DESC LIMIT $4";
        self.tx.query(sql, args![project, since, text, limit]).await?.iter().map(line).collect()
    }
}

fn line(r: &Row) -> Result<AuditLine> {
    Ok(AuditLine {
        at: r.int(0)?,
        request_id: r.text(1)?.to_owned(),
        project: r.text(2)?.to_owned(),
        principal: r.text(3)?.to_owned(),
        action: r.text(4)?.to_owned(),
        target: r.text(5)?.to_owned(),
        status: u16::try_from(r.int(6)?).unwrap_or(0),
        address: r.text(7)?.to_owned(),
        role: r.text(8)?.to_owned(),
    })
}
