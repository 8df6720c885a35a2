//! What is needed to open a container.

use model::error::Result;

use super::connection::Connection;
use super::sign::Access;
use crate::egress::Egress;
use crate::http::Client;

/// What is needed to open a container.
#[derive(Clone, Debug)]
pub struct AzureConfig {
    /// The blob endpoint.
    pub client: Client,
    /// In front of each path: empty, or `/account` where the host does not name the account.
    pub base: String,
    /// Account name.
    pub account: String,
    /// Who asks.
    pub access: Access,
    /// The container; empty for calls on the account.
    pub container: String,
}

impl AzureConfig {
    /// A container of an account.
    ///
    /// # Errors
    /// [`Kind::Invalid`](model::error::Kind::Invalid) when the account's endpoint is no endpoint.
    pub fn new(connection: Connection, container: &str, egress: Egress) -> Result<Self> {
        Ok(Self {
            client: Client::new(&connection.endpoint, egress)?,
            base: connection.base,
            account: connection.account,
            access: connection.access,
            container: container.to_owned(),
        })
    }
}
