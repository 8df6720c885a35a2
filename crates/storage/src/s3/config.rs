//! What is needed to open a bucket.

use model::key::Order;

use super::addressing::Addressing;
use super::sign::Credentials;
use super::vendor::Vendor;
use crate::http::Client;

/// What is needed to open a bucket.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The endpoint.
    pub client: Client,
    /// The bucket; empty for calls on the account.
    pub bucket: String,
    /// How the bucket is named.
    pub addressing: Addressing,
    /// Region to sign for.
    pub region: String,
    /// None: anonymous.
    pub credentials: Option<Credentials>,
    /// Set when the operator knows better than detection.
    pub order: Option<Order>,
    /// Says on reads that the requester pays.
    pub requester_pays: bool,
    /// Whose dialect is spoken.
    pub vendor: &'static Vendor,
}
