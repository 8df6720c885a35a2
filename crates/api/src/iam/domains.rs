//! `GET /v3/auth/domains` and `/v5/caller-identity`.

use axum::Extension;
use axum::extract::State;
use control::Control;
use control::identity::{Principal, id_of};
use serde_json::json as value;

use crate::reply::{Reply, json};

pub(crate) async fn list(State(control): State<Control>) -> Reply {
    let name = control.directory.accounts().domain();
    let id = id_of("domain", &name);
    json(&value!({
        "domains": [{"id": id, "name": name, "enabled": true, "description": "",
            "links": {"self": format!("/v3/domains/{id}")}}],
        "links": {"self": "/v3/auth/domains"}
    }))
}

pub(crate) async fn caller(State(control): State<Control>, Extension(caller): Extension<Principal>) -> Reply {
    let account = id_of("domain", &control.directory.accounts().domain());
    json(
        &value!({"account_id": account, "principal_id": caller.name, "principal_urn": format!("iam::{account}:user:{}", caller.name)}),
    )
}
