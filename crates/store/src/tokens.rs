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
    /// Hash of the token that it was exchanged for; empty: it was issued for a password or a key.
    pub parent: String,
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
        parent: r.text(6)?.to_owned(),
    })
}

impl StoreTx {
    /// Stores a token and forgets those that have ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_token(&mut self, t: &TokenRow) -> Result<()> {
        self.tx.execute("DELETE FROM tokens WHERE expires_at < $1", args![t.issued_at]).await?;
        let sql = "INSERT INTO tokens (hash, user_name, project, stamp, issued_at, expires_at, parent) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let args = args![
            t.hash.as_str(),
            t.user.as_str(),
            t.project.clone(),
            t.stamp.as_str(),
            t.issued_at,
            t.expires_at,
            t.parent.as_str()
        ];
        self.tx.execute(sql, args).await?;
        // The oldest go: whoever asks for ever has a bound number of rows.
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at, parent FROM tokens \
                   WHERE user_name = $1 ORDER BY issued_at DESC, hash LIMIT 100 OFFSET $2";
        for old in self.tx.query(sql, args![t.user.as_str(), TOKENS_MAX]).await? {
            let old = row(&old)?;
            // What came of it stays below those that it came of.
            if !old.parent.is_empty() {
                let sql = "UPDATE tokens SET parent = $2 WHERE parent = $1";
                self.tx.execute(sql, args![old.hash.as_str(), old.parent.as_str()]).await?;
            }
            self.tx.execute("DELETE FROM tokens WHERE hash = $1", args![old.hash.as_str()]).await?;
        }
        Ok(())
    }

    /// A page of the tokens that have not ended, the newest first; of one user, or of all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live_tokens(
        &mut self,
        user: Option<&str>,
        now: i64,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at, parent FROM tokens \
                   WHERE ($1 = '' OR user_name = $1) AND expires_at > $2 \
                   ORDER BY issued_at DESC, hash LIMIT $3 OFFSET $4";
        let args = args![user.unwrap_or_default(), now, limit, offset];
        let rows = self.tx.query(sql, args).await?;
        rows.iter().map(row).collect()
    }

    /// Finds a token by the first 16 characters of its hash, ended or not; two where that is ambiguous.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens_by_id(&mut self, id: &str) -> Result<Vec<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at, parent FROM tokens \
                   WHERE substr(hash, 1, 16) = $1 ORDER BY hash LIMIT 2";
        let rows = self.tx.query(sql, args![id]).await?;
        rows.iter().map(row).collect()
    }

    /// Forgets a token and those that it was exchanged for, and what came of these; how many there were. Its own row may be
    /// gone before those of others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_token(&mut self, hash: &str) -> Result<u64> {
        let sql = "WITH RECURSIVE revoked(hash) AS (\
                     SELECT hash FROM tokens WHERE hash = $1 OR parent = $1 \
                     UNION SELECT t.hash FROM tokens t JOIN revoked r ON t.parent = r.hash) \
                   DELETE FROM tokens WHERE hash IN (SELECT hash FROM revoked)";
        self.tx.execute(sql, args![hash]).await
    }

    /// A token that was exchanged for one, which may be gone itself.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn child_of_token(&mut self, hash: &str) -> Result<Option<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at, parent FROM tokens \
                   WHERE parent = $1 LIMIT 1";
        let rows = self.tx.query(sql, args![hash]).await?;
        rows.first().map(row).transpose()
    }

    /// Whoever has tokens.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_users(&mut self) -> Result<Vec<String>> {
        let rows = self.tx.query("SELECT DISTINCT user_name FROM tokens", args![]).await?;
        rows.iter().map(|r| Ok(r.text(0)?.to_owned())).collect()
    }

    /// Forgets all tokens of a user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_tokens_of(&mut self, user: &str) -> Result<u64> {
        self.tx.execute("DELETE FROM tokens WHERE user_name = $1", args![user]).await
    }

    /// Finds a token by its hash, ended or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token(&mut self, hash: &str) -> Result<Option<TokenRow>> {
        let sql = "SELECT hash, user_name, project, stamp, issued_at, expires_at, parent FROM tokens WHERE hash = $1";
        let rows = self.tx.query(sql, args![hash]).await?;
        rows.first().map(row).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn token(user: &str, i: i64) -> TokenRow {
        TokenRow {
            hash: format!("{user:0>11}{i:05}{}", "f".repeat(48)),
            user: user.into(),
            project: None,
            stamp: String::new(),
            issued_at: i,
            expires_at: 10_000,
            parent: String::new(),
        }
    }

    fn exchanged(i: i64, from: &TokenRow) -> TokenRow {
        TokenRow { parent: from.hash.clone(), ..token(&from.user, i) }
    }

    #[tokio::test]
    async fn sec_f22_tokens_are_limited_listed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        tx.insert_token(&token("bob", 0)).await.unwrap();
        for i in 0..1050 {
            tx.insert_token(&token("alice", i)).await.unwrap();
        }
        let mine = tx.live_tokens(Some("alice"), 200, 0, 10_000).await.unwrap();
        assert_eq!((mine.len(), mine[0].issued_at, mine[999].issued_at), (1000, 1049, 50));
        assert_eq!(tx.live_tokens(Some("bob"), 200, 0, 10_000).await.unwrap().len(), 1);
        let page = tx.live_tokens(None, 200, 1000, 10).await.unwrap();
        assert_eq!(page, [token("bob", 0)], "older than all others");
        let newest = token("alice", 1049).hash;
        assert_eq!(tx.tokens_by_id(&newest[..16]).await.unwrap().len(), 1);
        assert_eq!(tx.tokens_by_id(&token("bob", 0).hash[..16]).await.unwrap(), [token("bob", 0)]);
        assert_eq!(tx.revoke_token(&newest).await.unwrap(), 1);
        assert_eq!(tx.revoke_token(&newest).await.unwrap(), 0);
        assert!(tx.token(&newest).await.unwrap().is_none());
        assert!(tx.live_tokens(None, 10_000, 0, 10_000).await.unwrap().is_empty());
        assert_eq!(tx.token_users().await.unwrap().len(), 2);
        assert_eq!(tx.delete_tokens_of("alice").await.unwrap(), 999);
    }

    #[tokio::test]
    async fn sec_f22_revoked_token_ends_those_that_it_was_exchanged_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let first = token("alice", 1);
        let second = exchanged(2, &first);
        let (third, other) = (exchanged(3, &second), token("alice", 4));
        for t in [&first, &second, &third, &other] {
            tx.insert_token(t).await.unwrap();
        }
        assert_eq!(tx.revoke_token(&second.hash).await.unwrap(), 2);
        let left = tx.live_tokens(None, 0, 0, 10_000).await.unwrap();
        assert_eq!(left, [other, first]);
    }

    /// A flood of exchanged tokens displaces the older ones, and hides none from a revocation.
    #[tokio::test]
    async fn sec_f22_displaced_token_still_ends_those_that_it_was_exchanged_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let first = token("alice", 1);
        let second = exchanged(2, &first);
        tx.insert_token(&first).await.unwrap();
        tx.insert_token(&second).await.unwrap();
        for i in 0..1000 {
            tx.insert_token(&exchanged(3 + i, &second)).await.unwrap();
        }
        assert!(tx.token(&second.hash).await.unwrap().is_none());
        assert!(tx.child_of_token(&first.hash).await.unwrap().is_some());
        assert_eq!(tx.revoke_token(&first.hash).await.unwrap(), TOKENS_MAX);
    }
}
