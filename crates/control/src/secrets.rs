//! Credentials of a task, as they are sealed with it.

use seal::Secret;
use serde::{Deserialize, Serialize};
use storage::s3::sign::Credentials;

/// One pair of keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreCredentials {
    /// Access key.
    pub ak: String,
    /// Secret key.
    pub sk: Secret,
    /// Session token of temporary keys.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Azure's connection string, instead of account and key.
    #[serde(default)]
    pub connection_string: Option<Secret>,
    /// Google's key file of a service account.
    #[serde(default)]
    pub json_auth: Option<Secret>,
}

impl StoreCredentials {
    /// As the S3 dialect needs them; none when there is no access key: anonymous.
    pub fn credentials(&self) -> Option<Credentials> {
        (!self.ak.is_empty()).then(|| Credentials {
            access_key: self.ak.clone(),
            secret_key: self.sk.expose().to_owned(),
            session_token: self.token.as_ref().map(|t| t.expose().to_owned()),
        })
    }
}

/// The credentials of both ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TaskSecrets {
    /// Of the source.
    #[serde(default)]
    pub source: StoreCredentials,
    /// Of the destination.
    #[serde(default)]
    pub target: StoreCredentials,
    /// The key of a source CDN.
    #[serde(default)]
    pub cdn: Secret,
}

impl TaskSecrets {
    /// As JSON, to be sealed.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From the JSON that was sealed; unreadable means none.
    pub fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}
