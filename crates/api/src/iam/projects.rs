//! `GET /v3/projects` and `/v3/auth/projects`: a client that knows only its region finds its project.

use axum::Extension;
use axum::extract::{Query, State};
use control::Control;
use control::identity::token::principal;
use control::identity::{Principal, Project, id_of};
use serde_json::{Value, json as value};

use crate::error::{ApiError, OmsVersion};
use crate::query::{Params, number};
use crate::reply::{Reply, json};

fn entry(project: &Project, name: &str, domain: &str) -> Value {
    value!({
        "id": project.id, "name": name, "domain_id": domain, "parent_id": domain, "is_domain": false,
        "enabled": true, "description": "",
        "links": {"self": format!("/v3/projects/{}", project.id), "next": null, "previous": null}
    })
}

fn reply(projects: Vec<Value>) -> Reply {
    json(&value!({"projects": projects, "links": {"self": "/v3/projects", "next": null, "previous": null}}))
}

/// The page that `page`, from 1, and `per_page` select; all without them.
fn page(found: Vec<Value>, query: &Params) -> Result<Vec<Value>, ApiError> {
    let refused = |e| ApiError::from_task_error(OmsVersion::V2, &e);
    let page = number(query, "page", 1, (1, 100_000)).map_err(refused)?;
    let per_page = number(query, "per_page", 5000, (1, 5000)).map_err(refused)?;
    let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(found.into_iter().skip(place((page - 1) * per_page)).take(place(per_page)).collect())
}

pub(crate) async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Principal>,
    Query(query): Query<Params>,
) -> Reply {
    let accounts = control.directory.accounts();
    let domain = id_of("domain", &accounts.domain());
    let wanted = crate::query::given(&query, "name");
    let mut found = Vec::new();
    for project in accounts.projects.iter().filter(|p| caller.projects.contains(&p.id)) {
        match wanted {
            None => found.push(entry(project, &project.name, &domain)),
            Some(name) if name == project.name || project.names.iter().any(|n| n == name) => {
                found.push(entry(project, name, &domain));
            }
            Some(_) => {}
        }
    }
    let is = |name: &str, value: &str| crate::query::given(&query, name).is_none_or(|v| v == value);
    let is_listed = is("domain_id", &domain)
        && is("parent_id", &domain)
        && is("enabled", "true")
        && is("is_domain", "false");
    if !is_listed {
        found.clear();
    }
    // Exactly one project must come back for a name (auth.md §3.4).
    if wanted.is_some() {
        found.truncate(1);
    }
    reply(page(found, &query)?)
}

/// All projects that the caller may have a token for, whatever the scope of the token that it shows.
pub(crate) async fn mine(State(control): State<Control>, Extension(caller): Extension<Principal>) -> Reply {
    let accounts = control.directory.accounts();
    let domain = id_of("domain", &accounts.domain());
    let all = principal(&accounts, &caller.subject).map_or(caller.projects, |of| of.projects);
    let own = accounts.projects.iter().filter(|p| all.contains(&p.id));
    reply(own.map(|p| entry(p, &p.name, &domain)).collect())
}
