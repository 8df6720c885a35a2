//! `GET /v2/{project_id}/instances` (dcs-migration.md §2.18).

use axum::extract::{Path, Query, State};
use control::Control;
use wire::dcs::InstanceList;

use super::listed;
use crate::dcs::number;
use crate::query::Params;
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    Query(query): Query<Params>,
) -> Reply {
    let offset = number(&query, "offset", 0, (0, 2_147_483_647))?;
    let limit = number(&query, "limit", 10, (1, 1000))?;
    let asked = |name: &str| query.get(name).map(String::as_str).filter(|t| !t.is_empty());
    let exact = asked("name_equal") == Some("true");
    let mut seen = control.instances(&project).await.map_err(crate::dcs::migration_error)?;
    seen.retain(|i| {
        let named = |name: &str| if exact { i.name == name } else { i.name.contains(name) };
        let at = |ip: &str| i.node.addrs.iter().any(|(host, _)| host.contains(ip));
        asked("instance_id").is_none_or(|id| i.id == id)
            && asked("name").is_none_or(named)
            && asked("status").is_none_or(|status| i.status() == status)
            && asked("ip").is_none_or(at)
            && asked("capacity").is_none_or(|size| listed(i).capacity.to_string() == size)
            // No instance has tags here.
            && asked("tags").is_none()
    });
    let instance_num = seen.len() as u64;
    let page = seen.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(limit as usize);
    json(&InstanceList { instance_num, instances: page.map(listed).collect() })
}
