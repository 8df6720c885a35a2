//! IAM tokens: 32 random bytes that are stored by hash only, valid for a day, and void as soon as the user's
//! password or key changes (auth.md §3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::failure::Result;
use ring::digest;
use store::TokenRow;

use super::{People, Principal};
use crate::Control;

/// Milliseconds that a token is valid.
pub const VALID_MS: i64 = 24 * 3600 * 1000;

/// What a token is asked for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// User name, or `ak:` and an access key id.
    pub name: String,
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
    storage::checksum::hex(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// A fingerprint of what the subject proves itself with: it changes when that does.
fn stamp(people: &People, name: &str) -> Option<String> {
    let proof = match name.strip_prefix("ak:") {
        Some(ak) => people.keys.get(ak).filter(|k| k.enabled).map(|k| k.secret.expose().to_owned()),
        None => people.users.iter().find(|u| u.name == name && u.enabled).map(|u| u.hash.clone()),
    };
    Some(hash(&format!("stamp\0{}", proof?))[..32].to_owned())
}

/// What a subject may do.
pub fn principal(people: &People, name: &str) -> Option<Principal> {
    match name.strip_prefix("ak:") {
        Some(ak) => {
            let key = people.keys.get(ak)?;
            Some(Principal { name: ak.to_owned(), role: key.role, projects: vec![key.project.clone()] })
        }
        None => {
            let user = people.users.iter().find(|u| u.name == name)?;
            Some(Principal { name: name.to_owned(), role: user.role, projects: user.projects.clone() })
        }
    }
}

impl Control {
    /// Issues a token; the token and the instants of issue and end.
    ///
    /// # Errors
    /// When the store or the system's randomness fails.
    pub async fn issue_token(&self, subject: &Subject) -> Result<(String, i64, i64)> {
        let token = URL_SAFE_NO_PAD.encode(seal::random::<32>()?);
        let now = self.clock.now_ms();
        let stamp = stamp(&self.directory.people(), &subject.name).unwrap_or_default();
        let row = TokenRow {
            hash: hash(&token),
            user: subject.name.clone(),
            project: subject.project.clone(),
            stamp,
            issued_at: now,
            expires_at: now + VALID_MS,
        };
        let mut unit = self.engine.store().write().await?;
        unit.insert_token(&row).await?;
        unit.save().await?;
        Ok((token, now, row.expires_at))
    }

    /// Who holds a token, and its row.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn check_token(
        &self,
        token: &str,
    ) -> Result<std::result::Result<(Principal, TokenRow), TokenProblem>> {
        let Some(row) = self.engine.store().read().await?.token(&hash(token)).await? else {
            return Ok(Err(TokenProblem::Unknown));
        };
        if row.expires_at <= self.clock.now_ms() {
            return Ok(Err(TokenProblem::Expired(row.expires_at)));
        }
        let people = self.directory.people();
        if stamp(&people, &row.user).as_deref() != Some(&row.stamp) {
            return Ok(Err(TokenProblem::Unknown));
        }
        let Some(mut principal) = principal(&people, &row.user) else {
            return Ok(Err(TokenProblem::Unknown));
        };
        principal.projects.retain(|p| row.project.as_ref() == Some(p));
        Ok(Ok((principal, row)))
    }
}
