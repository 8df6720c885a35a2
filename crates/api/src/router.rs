//! Every route, in one list.

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post, put};
use control::Control;
use http::{Method, StatusCode, Uri};

use crate::error::Error;
use crate::{auth, health, iam, v1, v2, versions};

/// The whole surface.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/", get(versions::list))
        .route("/{version}", get(versions::show))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        // identity
        .route("/v3/auth/tokens", post(iam::tokens::create).get(iam::tokens::show))
        .route("/v3/projects", get(iam::projects::list))
        .route("/v3/auth/projects", get(iam::projects::mine))
        .route("/v3/auth/domains", get(iam::domains::list))
        .route("/v5/caller-identity", get(iam::domains::caller))
        // OMS v2
        .route("/v2/{project_id}/tasks", post(v2::tasks::create::handle).get(v2::tasks::list::handle))
        .route("/v2/{project_id}/tasks/batch-update", post(v2::tasks::batch_update::handle))
        .route(
            "/v2/{project_id}/tasks/{task_id}",
            get(v2::tasks::show::handle).delete(v2::tasks::delete::handle),
        )
        .route("/v2/{project_id}/tasks/{task_id}/report", get(v2::tasks::report::handle))
        .route("/v2/{project_id}/tasks/{task_id}/start", post(v2::tasks::start::handle))
        .route("/v2/{project_id}/tasks/{task_id}/stop", post(v2::tasks::stop::handle))
        .route("/v2/{project_id}/tasks/{task_id}/bandwidth-policy", put(v2::tasks::bandwidth_policy::handle))
        .route("/v2/{project_id}/objectstorage/cloud-type", get(v2::objectstorage::cloud_type::handle))
        .route("/v2/{project_id}/objectstorage/data-center", get(v2::objectstorage::data_center::handle))
        .route("/v2/{project_id}/objectstorage/buckets", post(v2::objectstorage::buckets::list::handle))
        .route(
            "/v2/{project_id}/objectstorage/buckets/objects",
            post(v2::objectstorage::buckets::objects::handle),
        )
        .route(
            "/v2/{project_id}/objectstorage/buckets/regions",
            post(v2::objectstorage::buckets::regions::handle),
        )
        .route(
            "/v2/{project_id}/objectstorage/buckets/prefix",
            post(v2::objectstorage::buckets::prefix::handle),
        )
        .route(
            "/v2/{project_id}/taskgroups",
            post(v2::taskgroups::create::handle).get(v2::taskgroups::list::handle),
        )
        .route(
            "/v2/{project_id}/taskgroups/{group_id}",
            get(v2::taskgroups::show::handle).delete(v2::taskgroups::delete::handle),
        )
        .route("/v2/{project_id}/taskgroups/{group_id}/start", put(v2::taskgroups::start::handle))
        .route("/v2/{project_id}/taskgroups/{group_id}/stop", put(v2::taskgroups::stop::handle))
        .route("/v2/{project_id}/taskgroups/{group_id}/retry", put(v2::taskgroups::retry::handle))
        .route("/v2/{project_id}/taskgroups/{group_id}/update", put(v2::taskgroups::update::handle))
        .route(
            "/v2/{project_id}/sync-tasks",
            post(v2::sync_tasks::create::handle).get(v2::sync_tasks::list::handle),
        )
        .route(
            "/v2/{project_id}/sync-tasks/{sync_task_id}",
            get(v2::sync_tasks::show::handle).delete(v2::sync_tasks::delete::handle),
        )
        .route("/v2/{project_id}/sync-tasks/{sync_task_id}/start", post(v2::sync_tasks::start::handle))
        .route("/v2/{project_id}/sync-tasks/{sync_task_id}/stop", post(v2::sync_tasks::stop::handle))
        .route("/v2/{project_id}/sync-tasks/{sync_task_id}/events", post(v2::sync_tasks::events::handle))
        .route(
            "/v2/{project_id}/sync-tasks/{sync_task_id}/statistics",
            get(v2::sync_tasks::statistics::handle),
        )
        .route(
            "/v2/{project_id}/objectstorage/buckets/cdn-info",
            post(v2::objectstorage::buckets::cdn_info::handle),
        )
        .route(
            "/v2/{project_id}/objectstorage/buckets/url-source-list-file",
            post(v2::objectstorage::buckets::url_source_list_file::handle),
        )
        .route("/v2/{project_id}/privacy-agreements", post(v2::privacy_agreements::handle))
        // OMS v1
        .route("/v1/{project_id}/objectstorage/version", get(v1::version::handle))
        .route("/v1/{project_id}/objectstorage/task", post(v1::create::handle).get(v1::list::handle))
        .route(
            "/v1/{project_id}/objectstorage/task/{task_id}",
            get(v1::show::handle).put(v1::operate::handle),
        )
        .route("/v1/{project_id}/objectstorage/task/{task_id}", delete(v1::delete::handle))
        .route("/v1/{project_id}/objectstorage/quotas", get(v1::quotas::handle))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(control.clone(), auth::layer))
        .with_state(control)
}

async fn unknown(uri: Uri) -> Error {
    let m = format!("The API does not exist or has not been published in the environment: {}", uri.path());
    Error::gateway(StatusCode::NOT_FOUND, "APIGW.0101", m)
}

async fn wrong_method(method: Method, uri: Uri) -> Error {
    let code = if uri.path().starts_with("/v1") { "S3M.0005" } else { "OMS.1008" };
    Error::gateway(StatusCode::METHOD_NOT_ALLOWED, code, format!("{method} is not supported here"))
}
