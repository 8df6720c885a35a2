//! Checking passwords.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};

/// A hash that no password has, so that an unknown user costs as much as a known one.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// True when the password is that of the hash; takes as long without a hash.
pub fn matches(password: &str, hash: Option<&str>) -> bool {
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_matches() {
        let hash = config::template::hash_password("correct horse").unwrap();
        assert!(matches("correct horse", Some(&hash)));
        assert!(!matches("correct hors", Some(&hash)));
        assert!(!matches("", None));
    }
}
