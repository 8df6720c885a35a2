//! Real servers that `cargo x servers` started; a test that needs one fails without it.

/// Endpoint of a real server by the name of its variable.
///
/// # Panics
/// When the variable is not set: a missing server is a failure, never a reason to skip.
pub fn endpoint(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(url) if !url.is_empty() => url,
        _ => {
            panic!("{variable} is not set; hint: run the tests with `cargo x test`, which starts the servers")
        }
    }
}

/// Access key and secret key of the real servers.
pub const KEYS: (&str, &str) = ("WHIMBRELTEST", "whimbrel-test-secret");

/// Account and key of the Azure Blob server.
pub const AZURE: (&str, &str) = ("whimbreltest", "d2hpbWJyZWwtdGVzdC1zZWNyZXQ=");
