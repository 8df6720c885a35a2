//! Where the ends of a migration are: a registered instance, after whatever cut-over moved it, or plain addresses.

use model::error::{Error, Kind, Result, Side};
use model::migration::Endpoint;
use redis_migration::Node;
use seal::Secret;
use serde::{Deserialize, Serialize};

use crate::environment::StoreResolver;

/// Passwords of a migration, as they are sealed with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndSecrets {
    /// Of the source.
    pub source: Secret,
    /// Of the target.
    pub target: Secret,
}

impl EndSecrets {
    /// As JSON, in clear.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Out of that.
    pub fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The password of one side.
    pub fn for_side(&self, side: Side) -> &Secret {
        if side == Side::Source { &self.source } else { &self.target }
    }
}

/// The server behind an end; `moved` maps instances to those that replace them after a cut-over.
///
/// # Errors
/// [`Kind::NotFound`] for an instance that is not registered, [`Kind::Invalid`] for what is no address.
pub fn resolve_node(
    end: &Endpoint,
    password: &Secret,
    resolver: &dyn StoreResolver,
    redirects: &[(String, String)],
) -> Result<Node> {
    let mut node = match (&end.id, &end.addrs) {
        (Some(id), _) => {
            let current = redirects.iter().find(|(i, _)| i == id).map_or(id, |(_, s)| s);
            let gone =
                || Error::new(Kind::NotFound, "instance", format!("instance {current} is not registered"));
            resolver.instance(current).ok_or_else(gone)?.node
        }
        (None, Some(addrs)) => Node {
            addrs: redis_migration::connection::node::addresses(addrs)?,
            egress: resolver.egress(),
            ..Node::default()
        },
        (None, None) => {
            return Err(Error::new(Kind::Invalid, "instance", "either `id` or `addrs` is required"));
        }
    };
    if !password.is_empty() {
        node.password = password.expose().to_owned();
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use storage::egress::Egress;
    use store::TaskRow;

    use super::*;
    use crate::environment::OpenedStore;

    struct Public;

    #[async_trait]
    impl StoreResolver for Public {
        async fn open(&self, _: &TaskRow, _: &str, _: Side) -> Result<OpenedStore> {
            Err(Error::new(Kind::Unsupported, "open", "nothing is opened here"))
        }

        fn egress(&self) -> Egress {
            Egress::public(&["10.1.0.0/16".to_owned()])
        }
    }

    #[tokio::test]
    async fn sec_f07_requested_addresses_must_be_allowed_by_the_operator() {
        let end = Endpoint { addrs: Some("127.0.0.1:1".into()), ..Endpoint::default() };
        let node = resolve_node(&end, &Secret::default(), &Public, &[]).unwrap();
        let refused = redis_migration::connection::client::connect(&node).await.map(drop).unwrap_err();
        assert_eq!(refused.kind, Kind::Forbidden, "{refused}");
        // What a cluster announces has the guard of the node that announced it.
        let announced = node.at_addr(&("169.254.169.254".to_owned(), 80));
        let refused = redis_migration::connection::client::connect(&announced).await.map(drop).unwrap_err();
        assert_eq!(refused.kind, Kind::Forbidden, "{refused}");
        assert!(node.egress.allows("x", "10.1.2.3".parse().unwrap()));
    }
}
