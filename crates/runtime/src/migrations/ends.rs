//! Where the ends of a migration are: a registered instance, after whatever cut-over moved it, or plain addresses.

use model::failure::{Failure, Kind, Result, Side};
use model::migration::End;
use replica::Node;
use seal::Secret;
use serde::{Deserialize, Serialize};

use crate::engine::Places;

/// A Redis that the operator registered.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where it is, and who asks there.
    pub node: Node,
}

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
    pub fn of(&self, side: Side) -> &Secret {
        if side == Side::Source { &self.source } else { &self.target }
    }
}

/// The server behind an end; `moved` says which instances stand in another's place.
///
/// # Errors
/// [`Kind::NotFound`] for an instance that is not registered, [`Kind::Invalid`] for what is no address.
pub fn node_of(
    end: &End,
    password: &Secret,
    places: &dyn Places,
    moved: &[(String, String)],
) -> Result<Node> {
    let mut node = match (&end.id, &end.addrs) {
        (Some(id), _) => {
            let stands = moved.iter().find(|(i, _)| i == id).map_or(id, |(_, s)| s);
            let gone =
                || Failure::new(Kind::NotFound, "instance", format!("no instance {stands} is registered"));
            places.instance(stands).ok_or_else(gone)?.node
        }
        (None, Some(addrs)) => Node { addrs: replica::node::addresses(addrs)?, ..Node::default() },
        (None, None) => {
            return Err(Failure::new(Kind::Invalid, "instance", "neither `id` nor `addrs` is given"));
        }
    };
    if !password.is_empty() {
        node.password = password.expose().to_owned();
    }
    Ok(node)
}
