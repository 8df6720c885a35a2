//! `GET /v3/projects` and `/v3/auth/projects`: a client that knows only its region finds its project.

use axum::Extension;
use axum::extract::{Query, State};
use control::Control;
use control::identity::{Principal, Project, id_of};
use serde_json::{Value, json as value};
use std::collections::HashMap;

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

pub(crate) async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Principal>,
    Query(query): Query<HashMap<String, String>>,
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
    // Exactly one project must come back for a name (auth.md §3.4).
    if wanted.is_some() {
        found.truncate(1);
    }
    reply(found)
}

pub(crate) async fn mine(State(control): State<Control>, Extension(caller): Extension<Principal>) -> Reply {
    let accounts = control.directory.accounts();
    let domain = id_of("domain", &accounts.domain());
    let own = accounts.projects.iter().filter(|p| caller.projects.contains(&p.id));
    reply(own.map(|p| entry(p, &p.name, &domain)).collect())
}
