//! Sessions of the console.
//!
//! A session is a random number of 256 bits in a cookie. Here it is kept by hash only, in the memory of the process: a restart
//! ends all sessions, and where several processes serve one database each has its own. It ends 12 hours after the sign-in,
//! after 30 minutes without a request, at sign-out, and when the user is disabled or the password changes. Live updates do
//! not prolong it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::identity::same;
use control::secrets::TaskSecrets;
use model::error::Result;

/// A session ends so long after the sign-in, milliseconds.
const LIFE_MS: i64 = 12 * 3600 * 1000;
/// A session ends so long after its last request, milliseconds.
const IDLE_MS: i64 = 30 * 60 * 1000;
/// Sessions that are kept; beyond that the one that was used least recently ends.
const SESSIONS_MAX: usize = 4096;
/// Sessions of one user.
const SESSIONS_PER_USER: usize = 32;
/// Sets of credentials that a session keeps for forms that are not sent yet, at most 128 KiB each.
const DRAFTS_MAX: usize = 4;
/// Sets of credentials that all sessions keep.
const DRAFTS_IN_ALL: usize = 256;

/// The hash of a session's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; 32]);

/// What is known of a session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Id of the user.
    pub(crate) user: String,
    /// Fingerprint of what the user signed in with.
    pub(crate) stamp: String,
    /// Id of the project that is shown.
    pub(crate) project: String,
    /// Every form of the session carries it.
    pub(crate) csrf: String,
    created: i64,
    used: i64,
    drafts: VecDeque<(String, TaskSecrets)>,
}

/// The sessions of this process.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Session>>);

impl SessionId {
    /// Of the text of a cookie; none when it cannot be a session's.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let is_well_formed =
            text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let mut id = [0; 32];
        id.copy_from_slice(digest.as_ref());
        is_well_formed.then_some(Self(id))
    }
}

/// 32 random bytes as text.
pub(crate) fn random_text() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(seal::random::<32>()?))
}

impl Session {
    fn is_over(&self, now: i64) -> bool {
        !(0..LIFE_MS).contains(&(now - self.created)) || !(0..IDLE_MS).contains(&(now - self.used))
    }
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; its number, for the cookie.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(crate) fn begin(&self, user: &str, stamp: &str, project: &str, now: i64) -> Result<String> {
        let (text, csrf) = (random_text()?, random_text()?);
        let (user, stamp, project) = (user.to_owned(), stamp.to_owned(), project.to_owned());
        let session =
            Session { user, stamp, project, csrf, created: now, used: now, drafts: VecDeque::new() };
        let mut all = self.all();
        all.retain(|_, s| !s.is_over(now));
        let own = all.values().filter(|s| s.user == session.user).count();
        if own >= SESSIONS_PER_USER {
            end_oldest(&mut all, |s| s.user == session.user);
        }
        if all.len() >= SESSIONS_MAX {
            end_oldest(&mut all, |_| true);
        }
        if let Some(id) = SessionId::of(&text) {
            all.insert(id, session);
        }
        Ok(text)
    }

    /// The session, and that it is used now.
    pub(crate) fn use_now(&self, id: SessionId, now: i64) -> Option<Session> {
        let mut all = self.all();
        if all.get(&id).is_some_and(|s| s.is_over(now)) {
            all.remove(&id);
        }
        let session = all.get_mut(&id)?;
        session.used = now;
        Some(session.clone())
    }

    /// The session, without using it.
    pub(crate) fn peek(&self, id: SessionId, now: i64) -> Option<Session> {
        self.all().get(&id).filter(|s| !s.is_over(now)).cloned()
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: SessionId) {
        self.all().remove(&id);
    }

    /// Shows another project from now on.
    pub(crate) fn set_project(&self, id: SessionId, project: &str) {
        if let Some(session) = self.all().get_mut(&id) {
            project.clone_into(&mut session.project);
        }
    }

    /// Keeps credentials for a form that is shown again; the name under which they are kept.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(crate) fn keep_draft(&self, id: SessionId, secrets: TaskSecrets) -> Result<String> {
        let name = random_text()?;
        let mut all = self.all();
        if all.values().map(|s| s.drafts.len()).sum::<usize>() >= DRAFTS_IN_ALL {
            let with_drafts = all.values_mut().filter(|s| !s.drafts.is_empty());
            if let Some(oldest) = with_drafts.min_by_key(|s| s.used) {
                oldest.drafts.clear();
            }
        }
        if let Some(session) = all.get_mut(&id) {
            session.drafts.push_back((name.clone(), secrets));
            while session.drafts.len() > DRAFTS_MAX {
                session.drafts.pop_front();
            }
        }
        Ok(name)
    }

    /// The credentials that are kept under a name.
    pub(crate) fn draft(&self, id: SessionId, name: &str) -> Option<TaskSecrets> {
        let all = self.all();
        let drafts = &all.get(&id)?.drafts;
        drafts.iter().find(|(n, _)| same(n, name)).map(|(_, secrets)| secrets.clone())
    }

    /// Forgets the credentials that are kept under a name.
    pub(crate) fn drop_draft(&self, id: SessionId, name: &str) {
        if let Some(session) = self.all().get_mut(&id) {
            session.drafts.retain(|(n, _)| !same(n, name));
        }
    }
}

fn end_oldest(all: &mut HashMap<SessionId, Session>, among: impl Fn(&Session) -> bool) {
    let oldest = all.iter().filter(|(_, s)| among(s)).min_by_key(|(_, s)| s.used).map(|(id, _)| *id);
    if let Some(id) = oldest {
        all.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ends_after_its_life_and_when_it_is_idle() {
        let sessions = Sessions::default();
        let id = SessionId::of(&sessions.begin("u", "s", "p", 0).unwrap()).unwrap();
        let mut now = 0;
        while now + IDLE_MS - 1 < LIFE_MS {
            now += IDLE_MS - 1;
            assert!(sessions.use_now(id, now).is_some(), "{now}");
        }
        assert!(sessions.peek(id, LIFE_MS).is_none() && sessions.use_now(id, LIFE_MS).is_none());
        let id = SessionId::of(&sessions.begin("u", "s", "p", 0).unwrap()).unwrap();
        assert!(sessions.peek(id, IDLE_MS - 1).is_some(), "a look does not prolong it");
        assert!(sessions.use_now(id, IDLE_MS).is_none());
        assert!(sessions.all().is_empty(), "it is forgotten");
    }

    #[test]
    fn session_numbers_are_stored_by_hash_only() {
        let sessions = Sessions::default();
        let text = sessions.begin("u", "s", "p", 0).unwrap();
        assert_eq!(text.len(), 43);
        assert!(!format!("{sessions:?}").contains(&text));
        assert_eq!(SessionId::of("x"), None);
        assert_ne!(sessions.begin("u", "s", "p", 0).unwrap(), text);
    }

    #[test]
    fn sessions_of_one_user_are_bounded_and_leave_those_of_others() {
        let sessions = Sessions::default();
        let other = SessionId::of(&sessions.begin("other", "s", "p", 0).unwrap()).unwrap();
        let first = SessionId::of(&sessions.begin("u", "s", "p", 1).unwrap()).unwrap();
        for at in 0..SESSIONS_PER_USER as i64 {
            sessions.begin("u", "s", "p", 2 + at).unwrap();
        }
        assert!(sessions.peek(first, 9).is_none() && sessions.peek(other, 9).is_some());
        for i in 0..SESSIONS_MAX + 5 {
            sessions.begin(&i.to_string(), "s", "p", 50).unwrap();
        }
        assert_eq!(sessions.all().len(), SESSIONS_MAX);
    }

    #[test]
    fn drafts_of_credentials_are_bounded_and_belong_to_their_session() {
        let sessions = Sessions::default();
        let mine = SessionId::of(&sessions.begin("u", "s", "p", 0).unwrap()).unwrap();
        let other = SessionId::of(&sessions.begin("u", "s", "p", 0).unwrap()).unwrap();
        let first = sessions.keep_draft(mine, TaskSecrets::default()).unwrap();
        assert!(sessions.draft(mine, &first).is_some() && sessions.draft(other, &first).is_none());
        for _ in 0..DRAFTS_MAX {
            sessions.keep_draft(mine, TaskSecrets::default()).unwrap();
        }
        assert!(sessions.draft(mine, &first).is_none());
        for i in 0..DRAFTS_IN_ALL {
            let id = SessionId::of(&sessions.begin(&i.to_string(), "s", "p", 9).unwrap()).unwrap();
            sessions.keep_draft(id, TaskSecrets::default()).unwrap();
        }
        let kept: usize = sessions.all().values().map(|s| s.drafts.len()).sum();
        assert!(kept <= DRAFTS_IN_ALL, "{kept}");
    }
}
