//! Replies of the identity subset (auth.md §3).

use schemars::JsonSchema;
use serde::Serialize;

/// A name with its identity.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Named {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
}

/// A project or user with its domain.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InDomain {
    /// The domain.
    pub domain: Named,
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// Users only: always empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_expires_at: Option<String>,
}

/// The body of a token.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of auth.md §3.1 by name")]
pub struct Token {
    pub catalog: Vec<serde_json::Value>,
    pub expires_at: String,
    pub issued_at: String,
    pub methods: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<InDomain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Named>,
    pub roles: Vec<Named>,
    pub user: InDomain,
}
