//! Issued tokens, by hash only.

use model::error::Result;

use crate::{Row, StoreTx, args};

/// One token; the token itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// Who got it: a user's id, or `ak:` and an access key id.
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

/// Tokens of one user at once.
const TOKENS_MAX: u64 = 1000;

fn row(r: &Row) -> Result<TokenRow> {
    Ok(TokenRow {
        hash: r.text(0)?.to_owned(),
        user: r.text(1)?.to_owned(),
        project: r.opt_text(2)?.map(str::to_owned),
        stamp: r.text(3)?.to_owned(),
        issued_at: r.int(4)?,
        expires_at: r.int(5)?,
    })
}

impl StoreTx {
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
        // The oldest go: whoever asks for ever has a bound number of rows.
        let sql = "DELETE FROM tokens WHERE user_name = $1 AND hash NOT IN \
                   (SELECT hash FROM tokens WHERE user_name = $1 ORDER BY issued_at DESC, hash LIMIT $2)";
        self.tx.execute(sql, crate::args![t.user.as_str(), TOKENS_MAX]).await?;
        Ok(())
    }

    /// Tokens that have not ended, the newest first; of one user, or of all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live_tokens(&mut self, user: Option<&str>, now: i64) -> Result<Vec<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at FROM tokens \
                   WHERE ($1 = '' OR user_name = $1) AND expires_at > $2 ORDER BY issued_at DESC, hash LIMIT 1000";
        let rows = self.tx.query(sql, args![user.unwrap_or_default(), now]).await?;
        rows.iter().map(row).collect()
    }

    /// Forgets a token; false when there was none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_token(&mut self, hash: &str) -> Result<bool> {
        Ok(self.tx.execute("DELETE FROM tokens WHERE hash = $1", args![hash]).await? > 0)
    }

    /// Finds a token by its hash, ended or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token(&mut self, hash: &str) -> Result<Option<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at FROM tokens WHERE hash = $1";
        let rows = self.tx.query(sql, args![hash]).await?;
        rows.first().map(row).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn sec_f22_tokens_are_limited_listed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let token = |user: &str, i: i64| TokenRow {
            hash: format!("{user}{i:04}"),
            user: user.into(),
            project: None,
            stamp: String::new(),
            issued_at: i,
            expires_at: 10_000,
        };
        tx.insert_token(&token("bob", 0)).await.unwrap();
        for i in 0..1050 {
            tx.insert_token(&token("alice", i)).await.unwrap();
        }
        let mine = tx.live_tokens(Some("alice"), 200).await.unwrap();
        assert_eq!((mine.len(), mine[0].issued_at, mine[999].issued_at), (1000, 1049, 50));
        assert_eq!(tx.live_tokens(Some("bob"), 200).await.unwrap().len(), 1);
        assert!(tx.delete_token("alice1049").await.unwrap());
        assert!(!tx.delete_token("alice1049").await.unwrap());
        assert!(tx.token("alice1049").await.unwrap().is_none());
        assert!(tx.live_tokens(None, 10_000).await.unwrap().is_empty());
    }
}
