//! What a migration is called at its target, and what it migrates where.

use std::collections::BTreeMap;
use std::time::Duration;

use model::migration::{Libraries, MigrationSpec, Own};
use redis_migration::checkpoint::keys::KeyNames;
use redis_migration::route::Route;
use redis_migration::{FunctionPolicy, Node};

/// Removing what stands at the target may take so long.
const FORGET_TIMEOUT: Duration = Duration::from_secs(30);

/// What stands at the target is called so. Another source, target or mapping is another migration: its position is not this
/// one's.
pub(super) fn names(id: &str, source: &Node, target: &Node, route: &Route) -> KeyNames {
    let text = format!("{} {} {}", source.display_url(), target.display_url(), route.identity());
    KeyNames::new(&format!("{id}:{}", &storage::checksum::sha256_hex(text.as_bytes())[..8]))
}

/// Takes away what stands at the target about a migration that will not go on, as far as the ends can be reached now.
pub(super) async fn forget(id: String, source: Node, target: Node, route: Route) {
    let done = async {
        let names = names(&id, &source, &target, &route);
        redis_migration::checkpoint::cleanup::forget(&target, &names).await
    };
    match tokio::time::timeout(FORGET_TIMEOUT, done).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::info!(migration = %id, "the checkpoint stays at the target: {failure}"),
        Err(_) => {
            tracing::info!(migration = %id, "the checkpoint stays at the target, which does not answer")
        }
    }
}

/// What happens to libraries that the target refuses, in the words of the engine.
pub(super) fn functions(own: &Own) -> FunctionPolicy {
    match own.functions {
        Libraries::Stop => FunctionPolicy::Stop,
        Libraries::Replace => FunctionPolicy::Replace,
        Libraries::Skip => FunctionPolicy::Skip,
    }
}

/// Which keys are migrated, and where to (dcs-migration.md §4.7).
pub fn route(spec: &MigrationSpec) -> Route {
    let db = |end: &Option<model::migration::Endpoint>| end.as_ref().and_then(|e| e.db);
    let (from, to) = (db(&spec.source), db(&spec.target));
    Route {
        only_db: from,
        db_map: from.zip(to).into_iter().collect::<BTreeMap<u32, u32>>(),
        all_into: if from.is_none() { to } else { None },
        ..Route::default()
    }
}
