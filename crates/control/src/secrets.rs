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

/// Credentials of a request that may leave those of an end out.
#[derive(Clone, Debug, Default)]
pub struct GivenSecrets {
    /// Of the source.
    pub source: Option<StoreCredentials>,
    /// Of the destination.
    pub target: Option<StoreCredentials>,
    /// The key of a source CDN.
    pub cdn: Option<Secret>,
}

impl GivenSecrets {
    /// These, and what is left out from those that are stored; none when it is not stored any more.
    pub fn over(self, held: Option<TaskSecrets>) -> Option<TaskSecrets> {
        let (source, target, cdn) = match held {
            Some(held) => (Some(held.source), Some(held.target), held.cdn),
            None => (None, None, Secret::default()),
        };
        Some(TaskSecrets {
            source: self.source.or(source)?,
            target: self.target.or(target)?,
            cdn: self.cdn.unwrap_or(cdn),
        })
    }
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
