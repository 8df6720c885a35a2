//! Issued tokens, by hash only.

use model::failure::Result;

use crate::{Unit, args};

/// One token; the token itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// Who got it.
    pub user: String,
    /// Project it is for; none: the domain.
    pub project: Option<String>,
    /// Fingerprint of the user's password or key at issue: a change ends the token.
    pub stamp: String,
    /// Issued, milliseconds.
    pub issued_at: i64,
    /// Ends, milliseconds.
    pub expires_at: i64,
}

impl Unit {
    /// Stores a token and forgets those that have ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_token(&mut self, t: &TokenRow) -> Result<()> {
        self.tx.execute("DELETE FROM tokens WHERE expires_at < $1", args![t.issued_at]).await?;
        let sql = "INSERT INTO tokens (hash, user_name, project, stamp, issued_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let args = args![
            t.hash.as_str(),
            t.user.as_str(),
            t.project.clone(),
            t.stamp.as_str(),
            t.issued_at,
            t.expires_at
        ];
        self.tx.execute(sql, args).await?;
        Ok(())
    }

    /// Finds a token by its hash, ended or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token(&mut self, hash: &str) -> Result<Option<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at FROM tokens WHERE hash = $1";
        let rows = self.tx.query(sql, args![hash]).await?;
        let Some(r) = rows.first() else { return Ok(None) };
        Ok(Some(TokenRow {
            hash: r.text(0)?.to_owned(),
            user: r.text(1)?.to_owned(),
            project: r.opt_text(2)?.map(str::to_owned),
            stamp: r.text(3)?.to_owned(),
            issued_at: r.int(4)?,
            expires_at: r.int(5)?,
        }))
    }
}
