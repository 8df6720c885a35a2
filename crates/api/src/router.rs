//! Every route, in one list, each with the name of its operation.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::routing::{delete, get, post, put};
use control::Control;
use http::{Method, StatusCode, Uri};

use crate::error::ApiError;
use crate::{auth, dcs, health, iam, metrics, v1, v2, versions};

/// Builds the router and the list of its operations out of one table.
macro_rules! routes {
    ($($method:ident $path:literal $operation:literal => $handler:path;)*) => {
        fn routes() -> Router<Control> {
            Router::new()$(.route($path, $method($handler)))*
        }

        /// Method, path and name of every operation.
        pub(crate) const OPERATIONS: &[(&str, &str, &str)] =
            &[$((stringify!($method), $path, $operation)),*];
    };
}

routes! {
    get "/" "ListApiVersions" => versions::list;
    get "/{version}" "ShowApiInfo" => versions::show;
    get "/healthz" "Health" => health::healthz;
    get "/readyz" "Ready" => health::readyz;
    get "/metrics" "Metrics" => metrics::metrics;
    // identity
    post "/v3/auth/tokens" "CreateToken" => iam::tokens::create;
    get "/v3/auth/tokens" "ShowToken" => iam::tokens::show;
    delete "/v3/auth/tokens" "DeleteToken" => iam::tokens::revoke;
    get "/v3/projects" "ListProjects" => iam::projects::list;
    get "/v3/auth/projects" "ListMyProjects" => iam::projects::mine;
    get "/v3/auth/domains" "ListDomains" => iam::domains::list;
    get "/v5/caller-identity" "ShowCaller" => iam::domains::caller;
    // OMS v2
    post "/v2/{project_id}/tasks" "CreateTask" => v2::tasks::create::handle;
    get "/v2/{project_id}/tasks" "ListTasks" => v2::tasks::list::handle;
    post "/v2/{project_id}/tasks/batch-update" "BatchUpdateTasks" => v2::tasks::batch_update::handle;
    get "/v2/{project_id}/tasks/{task_id}" "ShowTask" => v2::tasks::show::handle;
    delete "/v2/{project_id}/tasks/{task_id}" "DeleteTask" => v2::tasks::delete::handle;
    get "/v2/{project_id}/tasks/{task_id}/report" "ShowTaskReport" => v2::tasks::report::handle;
    post "/v2/{project_id}/tasks/{task_id}/start" "StartTask" => v2::tasks::start::handle;
    post "/v2/{project_id}/tasks/{task_id}/stop" "StopTask" => v2::tasks::stop::handle;
    put "/v2/{project_id}/tasks/{task_id}/bandwidth-policy" "UpdateBandwidthPolicy" => v2::tasks::bandwidth_policy::handle;
    post "/v2/{project_id}/taskgroups" "CreateTaskGroup" => v2::taskgroups::create::handle;
    get "/v2/{project_id}/taskgroups" "ListTaskGroup" => v2::taskgroups::list::handle;
    get "/v2/{project_id}/taskgroups/{group_id}" "ShowTaskGroup" => v2::taskgroups::show::handle;
    delete "/v2/{project_id}/taskgroups/{group_id}" "DeleteTaskGroup" => v2::taskgroups::delete::handle;
    put "/v2/{project_id}/taskgroups/{group_id}/start" "StartTaskGroup" => v2::taskgroups::start::handle;
    put "/v2/{project_id}/taskgroups/{group_id}/stop" "StopTaskGroup" => v2::taskgroups::stop::handle;
    put "/v2/{project_id}/taskgroups/{group_id}/retry" "RetryTaskGroup" => v2::taskgroups::retry::handle;
    put "/v2/{project_id}/taskgroups/{group_id}/update" "UpdateTaskGroup" => v2::taskgroups::update::handle;
    post "/v2/{project_id}/sync-tasks" "CreateSyncTask" => v2::sync_tasks::create::handle;
    get "/v2/{project_id}/sync-tasks" "ListSyncTasks" => v2::sync_tasks::list::handle;
    get "/v2/{project_id}/sync-tasks/{sync_task_id}" "ShowSyncTask" => v2::sync_tasks::show::handle;
    delete "/v2/{project_id}/sync-tasks/{sync_task_id}" "DeleteSyncTask" => v2::sync_tasks::delete::handle;
    post "/v2/{project_id}/sync-tasks/{sync_task_id}/start" "StartSyncTask" => v2::sync_tasks::start::handle;
    post "/v2/{project_id}/sync-tasks/{sync_task_id}/stop" "StopSyncTask" => v2::sync_tasks::stop::handle;
    post "/v2/{project_id}/sync-tasks/{sync_task_id}/events" "CreateSyncEvents" => v2::sync_tasks::events::handle;
    get "/v2/{project_id}/sync-tasks/{sync_task_id}/statistics" "ListSyncTaskStatistic" => v2::sync_tasks::statistics::handle;
    post "/v2/{project_id}/objectstorage/buckets" "ShowBucketList" => v2::objectstorage::buckets::list::handle;
    post "/v2/{project_id}/objectstorage/buckets/objects" "ShowBucketObjects" => v2::objectstorage::buckets::objects::handle;
    post "/v2/{project_id}/objectstorage/buckets/regions" "ShowBucketRegion" => v2::objectstorage::buckets::regions::handle;
    post "/v2/{project_id}/objectstorage/buckets/prefix" "CheckPrefix" => v2::objectstorage::buckets::prefix::handle;
    post "/v2/{project_id}/objectstorage/buckets/cdn-info" "ShowCdnInfo" => v2::objectstorage::buckets::cdn_info::handle;
    post "/v2/{project_id}/objectstorage/buckets/url-source-list-file" "CheckUrlSourceListFileFormat" => v2::objectstorage::buckets::url_source_list_file::handle;
    get "/v2/{project_id}/objectstorage/cloud-type" "ShowCloudType" => v2::objectstorage::cloud_type::handle;
    get "/v2/{project_id}/objectstorage/data-center" "ShowRegionInfo" => v2::objectstorage::data_center::handle;
    post "/v2/{project_id}/privacy-agreements" "UpdatePrivacyAgreementRecord" => v2::privacy_agreements::handle;
    get "/v2/{project_id}/audit" "ListAudit" => v2::audit::handle;
    // DCS
    post "/v2/{project_id}/migration-task" "CreateMigrationTask" => v2::migration_task::create::handle;
    get "/v2/{project_id}/migration-tasks" "ListMigrationTask" => v2::migration_tasks::list::handle;
    get "/v2/{project_id}/migration-task/{task_id}" "ShowMigrationTask" => v2::migration_task::show::handle;
    delete "/v2/{project_id}/migration-tasks/delete" "DeleteMigrationTask" => v2::migration_tasks::delete::handle;
    post "/v2/{project_id}/migration-task/{task_id}/stop" "StopMigrationTask" => v2::migration_task::stop::handle;
    post "/v2/{project_id}/migration-task/{task_id}/sync-stop" "StopMigrationTaskSync" => v2::migration_task::sync_stop::handle;
    post "/v2/{project_id}/migration-task/batch-stop" "BatchStopMigrationTasks" => v2::migration_task::batch_stop::handle;
    post "/v2/{project_id}/migration-tasks/batch-restart" "BatchRestartOnlineMigrationTasks" => v2::migration_tasks::batch_restart::handle;
    post "/v2/{project_id}/migration/instance" "CreateOnlineMigrationTask" => v2::migration::instance::handle;
    post "/v2/{project_id}/migration/{task_id}/task" "SetOnlineMigrationTask" => v2::migration::task::handle;
    put "/v2/{project_id}/migration-task/{task_id}" "UpdateMigrationTask" => v2::migration_task::update::handle;
    get "/v2/{project_id}/migration-task/{task_id}/stats" "ShowMigrationTaskStats" => v2::migration_task::stats::handle;
    get "/v2/{project_id}/migration-task/{task_id}/logs" "ListMigrationTaskLogs" => v2::migration_task::logs::handle;
    post "/v2/{project_id}/migration-task/{task_id}/exchange-ip" "ExchangeInstanceIp" => v2::migration_task::exchange_ip::handle;
    post "/v2/{project_id}/migration-task/{task_id}/rollback-ip" "RollbackExchangeInstanceIp" => v2::migration_task::rollback_ip::handle;
    get "/v2/{project_id}/jobs/{job_id}" "ShowJobInfo" => v2::jobs::handle;
    get "/v2/{project_id}/instances" "ListInstances" => v2::instances::list::handle;
    get "/v2/{project_id}/instances/{instance_id}" "ShowInstance" => v2::instances::show::handle;
    post "/v2/{project_id}/instances/{instance_id}/backups" "CopyInstance" => v2::instances::backups::create;
    get "/v2/{project_id}/instances/{instance_id}/backups" "ListBackupRecords" => v2::instances::backups::list;
    delete "/v2/{project_id}/instances/{instance_id}/backups/{backup_id}" "DeleteBackupFile" => v2::instances::backups::delete;
    // OMS v1
    get "/v1/{project_id}/objectstorage/version" "ShowVersionV1" => v1::version::handle;
    post "/v1/{project_id}/objectstorage/task" "CreateTaskV1" => v1::create::handle;
    get "/v1/{project_id}/objectstorage/task" "ListTasksV1" => v1::list::handle;
    get "/v1/{project_id}/objectstorage/task/{task_id}" "ShowTaskV1" => v1::show::handle;
    put "/v1/{project_id}/objectstorage/task/{task_id}" "OperateTaskV1" => v1::operate::handle;
    delete "/v1/{project_id}/objectstorage/task/{task_id}" "DeleteTaskV1" => v1::delete::handle;
    get "/v1/{project_id}/objectstorage/quotas" "ShowQuotasV1" => v1::quotas::handle;
}

/// Only the metrics of the whole service, for every client that can reach the address.
pub fn metrics_only(control: Control) -> Router {
    Router::new().route("/metrics", get(metrics::all_metrics)).with_state(control)
}

/// The whole surface.
pub fn router(control: Control) -> Router {
    let surface: Router = routes()
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        // The layer around it has read the body under bounds of its own.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(auth::AuthLayer::new(control.clone()), auth::layer))
        .with_state(control);
    // Layers of a router run behind its routing, so this one stands around the whole.
    Router::new().fallback_service(surface).layer(middleware::map_request(shorten))
}

/// One slash at the end of a path means nothing (dcs-migration.md §1.1). Signatures are the same with and without it.
async fn shorten(mut request: Request) -> Request {
    if let Some(uri) = without_slash(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn without_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|p| !p.is_empty() && !p.ends_with('/'))?;
    let shorter = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(shorter.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Health alone, for connections beyond the places that there are; everything else is told to come again.
pub fn health_only(control: Control) -> Router {
    let busy = || async {
        let m = "Too many connections; hint: close idle connections, or retry in a few seconds.";
        ApiError::gateway(StatusCode::SERVICE_UNAVAILABLE, "APIGW.0308", m)
    };
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(busy)
        .with_state(control)
}

async fn unknown(uri: Uri) -> ApiError {
    if dcs::is_dcs(uri.path()) {
        return dcs::error(
            StatusCode::NOT_FOUND,
            "DCS.4001",
            format!("the path does not exist: {}", uri.path()),
        );
    }
    let m = format!("The API does not exist or has not been published in the environment: {}", uri.path());
    ApiError::gateway(StatusCode::NOT_FOUND, "APIGW.0101", m)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let code = match uri.path() {
        path if dcs::is_dcs(path) => "DCS.5001",
        path if path.starts_with("/v1") => "S3M.0005",
        _ => "OMS.1008",
    };
    ApiError::gateway(
        StatusCode::METHOD_NOT_ALLOWED,
        code,
        format!("method {method} is not supported for this path"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl_f10_one_trailing_slash_is_ignored() {
        let of = |text: &str| without_slash(&text.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(of("/v2/p/tasks/").as_deref(), Some("/v2/p/tasks"));
        assert_eq!(of("/v2/p/tasks/?limit=1").as_deref(), Some("/v2/p/tasks?limit=1"));
        assert_eq!(of("http://h:1/v3/").as_deref(), Some("http://h:1/v3"));
        for same in ["/", "/v2/p/tasks", "/v2/p/tasks//", "//", "/v2/p/tasks?prefix=a/"] {
            assert_eq!(of(same), None, "{same}");
        }
    }
}
