//! Signing in with a password: the same permits, the same count of failures and the same answer for an unknown name, whichever
//! face asks.

use std::net::IpAddr;

use super::{Accounts, NAME_MAX, User, user_id};
use crate::Control;

/// Whom a password is checked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What failures are counted under: the one identity of an account, however it was written, whether it exists or not.
    pub id: String,
    /// The hash of its password; none: nobody.
    pub hash: Option<String>,
}

/// Why a password does not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInRefused {
    /// No such user, or another password.
    Wrong,
    /// Too many failures in a row: nothing is compared for five minutes.
    Locked,
    /// Too many sign-ins at once, or the caller has left.
    Busy,
}

impl Accounts {
    /// The only enabled user that is meant; none when there are several.
    pub fn only_user(&self, is_meant: impl Fn(&User) -> bool) -> Option<&User> {
        let mut found = self.users.iter().filter(|u| u.enabled && is_meant(u));
        match (found.next(), found.next()) {
            (Some(user), None) => Some(user),
            _ => None,
        }
    }

    /// The account of a name as a person types it: `name`, or `name@domain` where several domains have the name. None: no
    /// account can have that name.
    pub fn typed(&self, text: &str) -> Option<Account> {
        if text.is_empty() || text.len() > NAME_MAX {
            return None;
        }
        let by_name = self.only_user(|u| u.name == text);
        let found = by_name.or_else(|| {
            let (name, domain) = text.rsplit_once('@')?;
            self.only_user(|u| u.name == name && u.domain == domain)
        });
        let id = found.map_or_else(|| user_id(&self.domain(), text), |u| u.id.clone());
        Some(Account { id, hash: found.map(|u| u.hash.clone()) })
    }
}

impl Control {
    /// Checks a password and counts it. Passwords can be guessed, so an account whose passwords fail is closed for a while.
    /// `gone` ends when nobody waits for the answer any more: whoever leaves the queue makes room in it.
    ///
    /// # Errors
    /// [`SignInRefused`].
    pub async fn check_password(
        &self,
        account: &Account,
        given: String,
        from: IpAddr,
        gone: impl Future<Output = ()>,
    ) -> Result<(), SignInRefused> {
        let (failures, id, ip) = (&self.directory.failures, account.id.as_str(), Some(from));
        let now = || self.clock.now_ms();
        // Nothing is compared with an empty password.
        let is_right = !given.is_empty() && {
            if failures.is_locked(id, ip, now()) {
                return Err(SignInRefused::Locked);
            }
            let turn = tokio::select! {
                turn = self.directory.passwords.acquire(id, from) => turn,
                () = gone => None,
            };
            let turn = turn.ok_or(SignInRefused::Busy)?;
            // Others may have failed while this one waited for its turn.
            if failures.is_locked(id, ip, now()) {
                return Err(SignInRefused::Locked);
            }
            turn.matches(given, account.hash.clone()).await
        };
        if is_right {
            failures.succeeded(id, ip);
            self.directory.passwords.signed_in(id, from);
            return Ok(());
        }
        let was_locked = failures.is_locked(id, ip, now());
        failures.failed(id, ip, now());
        Err(if was_locked { SignInRefused::Locked } else { SignInRefused::Wrong })
    }
}

#[cfg(test)]
mod tests {
    use config::Role;

    use super::*;

    #[test]
    fn typed_name_means_one_user_or_nobody() {
        let mut accounts = Accounts::default();
        for (name, domain, enabled) in [
            ("alice", "da", true),
            ("alice", "db", true),
            ("bob", "da", true),
            ("eve@x", "da", true),
            ("out", "da", false),
        ] {
            accounts.users.push(User {
                name: name.into(),
                id: user_id(domain, name),
                domain: domain.into(),
                hash: format!("{name} of {domain}"),
                role: Role::Viewer,
                projects: vec![],
                enabled,
            });
        }
        let hash = |text: &str| accounts.typed(text).and_then(|a| a.hash);
        assert_eq!(hash("bob").as_deref(), Some("bob of da"));
        assert_eq!(hash("alice"), None, "two domains have the name");
        assert_eq!(hash("alice@db").as_deref(), Some("alice of db"));
        assert_eq!(hash("eve@x").as_deref(), Some("eve@x of da"), "a name may have an @");
        assert_eq!((hash("out"), hash("nobody")), (None, None));
        assert_eq!(accounts.typed("bob").unwrap().id, user_id("da", "bob"));
        assert!(accounts.typed("").is_none() && accounts.typed(&"x".repeat(256)).is_none());
    }
}
