//! What is needed to open a bucket.

use std::sync::Arc;

use super::token::ServiceAccount;
use crate::egress::Egress;
use crate::http::Client;

/// The usual endpoint.
pub const ENDPOINT: &str = "https://storage.googleapis.com";

/// What is needed to open a bucket.
#[derive(Clone, Debug)]
pub struct GoogleConfig {
    /// The endpoint.
    pub client: Client,
    /// Who asks; none: anybody.
    pub account: Option<Arc<ServiceAccount>>,
    /// The bucket.
    pub bucket: String,
    /// The account's project pays for what is read.
    pub requester_pays: bool,
    /// Where tokens may be asked for.
    pub egress: Egress,
}
