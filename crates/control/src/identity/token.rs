//! IAM tokens: 32 random bytes that are stored by hash only, valid for a day, and void as soon as the user's
//! password or key changes (auth.md §3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::Role;
use model::error::Result;
use store::TokenRow;

use super::{Accounts, Principal};
use crate::Control;

/// Milliseconds that a token is valid.
pub const VALID_MS: i64 = 24 * 3600 * 1000;

/// What a token is asked for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// A user's id, or `ak:` and an access key id. Names are not enough: two domains may have the same.
    pub id: String,
    /// Project id; none: the domain.
    pub project: Option<String>,
}

/// Why a token does not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenProblem {
    /// Never issued, or void.
    Unknown,
    /// Ended at this instant, milliseconds.
    Expired(i64),
}

fn hash(token: &str) -> String {
    storage::checksum::sha256_hex(token.as_bytes())
}

/// 32 bytes in base64url; anything else was never issued.
fn is_token(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The name of a token in lists: the token cannot be derived from it.
pub fn token_id(row: &TokenRow) -> &str {
    row.hash.get(..16).unwrap_or_default()
}

/// A fingerprint of what the subject proves itself with: it changes when that does. None: nobody, or disabled.
pub fn stamp(accounts: &Accounts, id: &str) -> Option<String> {
    let proof = match id.strip_prefix("ak:") {
        Some(ak) => accounts.keys.get(ak).filter(|k| k.enabled).map(|k| k.secret.expose().to_owned()),
        None => accounts.user(id).filter(|u| u.enabled).map(|u| u.hash.clone()),
    };
    Some(hash(&format!("stamp\0{}", proof?))[..32].to_owned())
}

/// What a subject may do.
pub fn principal(accounts: &Accounts, id: &str) -> Option<Principal> {
    match id.strip_prefix("ak:") {
        Some(ak) => {
            let key = accounts.keys.get(ak)?;
            Some(Principal {
                subject: id.to_owned(),
                name: ak.to_owned(),
                role: key.role,
                projects: vec![key.project.clone()],
            })
        }
        None => {
            let user = accounts.user(id)?;
            Some(Principal {
                subject: id.to_owned(),
                name: user.name.clone(),
                role: user.role,
                projects: user.projects.clone(),
            })
        }
    }
}

impl Control {
    /// Issues a token, valid for a day; one that is exchanged for `from` ends with that. The token and the instants of issue
    /// and end.
    ///
    /// # Errors
    /// When the store or the system's randomness fails.
    pub async fn issue_token(
        &self,
        subject: &Subject,
        from: Option<&TokenRow>,
    ) -> Result<(String, i64, i64)> {
        let token = URL_SAFE_NO_PAD.encode(seal::random::<32>()?);
        let now = self.clock.now_ms();
        let stamp = stamp(&self.directory.accounts(), &subject.id).unwrap_or_default();
        let row = TokenRow {
            hash: hash(&token),
            user: subject.id.clone(),
            project: subject.project.clone(),
            stamp,
            issued_at: now,
            expires_at: from.map_or(i64::MAX, |f| f.expires_at).min(now + VALID_MS),
            parent: from.map(|f| f.hash.clone()).unwrap_or_default(),
        };
        let mut tx = self.engine.store().write().await?;
        tx.insert_token(&row).await?;
        tx.commit().await?;
        Ok((token, now, row.expires_at))
    }

    /// A page of the tokens that have not ended: the caller's own, or all for an admin.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tokens(&self, caller: &Principal, offset: u64, limit: u64) -> Result<Vec<TokenRow>> {
        let (mut tx, now) = (self.engine.store().read().await?, self.clock.now_ms());
        let user = (caller.role != Role::Admin).then_some(caller.subject.as_str());
        tx.live_tokens(user, now, offset, limit).await
    }

    /// Ends a token, given as it is or by its id in the list, and those that it was exchanged for; false when the caller has
    /// none such.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_token(&self, caller: &Principal, token: &str, id: &str) -> Result<bool> {
        let mut tx = self.engine.store().write().await?;
        let (hash, holder) = match token.is_empty() {
            false => {
                let hash = hash(token);
                // A token that newer ones have displaced may still have been exchanged for some of them.
                let found = match tx.token(&hash).await? {
                    Some(found) => Some(found),
                    None => tx.child_of_token(&hash).await?,
                };
                let Some(found) = found else { return Ok(false) };
                (hash, found.user)
            }
            true => {
                let mut found = tx.tokens_by_id(id).await?;
                // Of two with one id, neither is meant.
                let (Some(found), true) = (found.pop(), found.is_empty()) else { return Ok(false) };
                (found.hash, found.user)
            }
        };
        if caller.role != Role::Admin && holder != caller.subject {
            return Ok(false);
        }
        let ended = tx.revoke_token(&hash).await?;
        tx.commit().await?;
        Ok(ended > 0)
    }

    /// Forgets the tokens of users and keys that are disabled or removed: they stay void when the account is enabled later.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_tokens_of_disabled(&self) -> Result<()> {
        let accounts = self.directory.accounts();
        let mut tx = self.engine.store().write().await?;
        for user in tx.token_users().await? {
            if stamp(&accounts, &user).is_none() {
                tx.delete_tokens_of(&user).await?;
                tracing::info!(%user, "tokens of a disabled account deleted");
            }
        }
        tx.commit().await
    }

    /// Who holds a token, and its row.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn check_token(
        &self,
        token: &str,
    ) -> Result<std::result::Result<(Principal, TokenRow), TokenProblem>> {
        if !is_token(token) {
            return Ok(Err(TokenProblem::Unknown));
        }
        let Some(row) = self.engine.store().read().await?.token(&hash(token)).await? else {
            return Ok(Err(TokenProblem::Unknown));
        };
        if row.expires_at <= self.clock.now_ms() {
            return Ok(Err(TokenProblem::Expired(row.expires_at)));
        }
        let accounts = self.directory.accounts();
        if stamp(&accounts, &row.user).as_deref() != Some(&row.stamp) {
            return Ok(Err(TokenProblem::Unknown));
        }
        let Some(mut principal) = principal(&accounts, &row.user) else {
            return Ok(Err(TokenProblem::Unknown));
        };
        principal.projects.retain(|p| row.project.as_ref() == Some(p));
        Ok(Ok((principal, row)))
    }
}

#[cfg(test)]
mod tests {
    use config::Role;

    use super::super::{User, user_id};
    use super::*;

    #[test]
    fn sec_f03_token_is_valid_for_one_user_among_equal_names() {
        let mut accounts = Accounts::default();
        for (domain, project) in [("da", "pa"), ("db", "pb")] {
            accounts.users.push(User {
                name: "alice".into(),
                id: user_id(domain, "alice"),
                domain: domain.into(),
                hash: format!("hash of {domain}"),
                role: Role::Operator,
                projects: vec![project.into()],
                enabled: true,
            });
        }
        let (a, b) = (user_id("da", "alice"), user_id("db", "alice"));
        assert_eq!(principal(&accounts, &a).unwrap().projects, ["pa"]);
        assert_eq!(principal(&accounts, &b).unwrap().projects, ["pb"]);
        assert_ne!(stamp(&accounts, &a), stamp(&accounts, &b));
        assert!(principal(&accounts, "alice").is_none() && stamp(&accounts, "alice").is_none());
    }

    /// Whatever is looked up has the shape of a token: bounded, and of letters that need no escaping anywhere.
    #[test]
    fn fuzz_tokens() {
        let corpus =
            [URL_SAFE_NO_PAD.encode([255; 32]), URL_SAFE_NO_PAD.encode([0; 32]), "gAAAAAB-x_y".into()];
        testkit::fuzz::fuzz("tokens", &corpus.map(String::into_bytes), |input, _| {
            let text = String::from_utf8_lossy(input);
            if is_token(&text) {
                let is_letter = |b: u8| URL_SAFE_NO_PAD.decode([b'A', b'A', b'A', b]).is_ok();
                assert!(text.len() == 43 && text.bytes().all(is_letter), "{text}");
            }
            assert_eq!(hash(&text).len(), 64);
        });
    }

    #[test]
    fn sec_f21_malformed_token_is_rejected_without_lookup() {
        assert!(is_token(&URL_SAFE_NO_PAD.encode([255; 32])));
        assert!(!is_token("") && !is_token(&"x".repeat(44)) && !is_token(&"/".repeat(43)));
    }
}
