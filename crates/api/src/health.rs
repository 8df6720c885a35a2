//! `GET /healthz`, `/readyz`, `/metrics`.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::Control;
use control::identity::Principal;
use http::StatusCode;
use model::error::Kind;

use crate::error::ApiError;
use crate::reply::{Reply, json};

pub(crate) async fn healthz() -> Reply {
    json(&serde_json::json!({"status": "ok"}))
}

pub(crate) async fn readyz(State(control): State<Control>) -> Reply {
    let tried = async {
        control.engine.store().check_writable(control.clock.now_ms()).await?;
        storage::disk_space::check(control.engine.data_dir())
    };
    match tried.await {
        Ok(()) => json(&serde_json::json!({"status": "ready"})),
        Err(failure) => {
            tracing::error!("not ready: {failure}");
            let m = match failure.kind {
                Kind::NoSpace | Kind::ReadOnly => "the service cannot write: the disk is full or read-only",
                _ => "the database does not answer",
            };
            Err(ApiError::gateway(StatusCode::SERVICE_UNAVAILABLE, "OMS.2004", m))
        }
    }
}

/// Whose numbers are told one by one.
enum MetricsScope<'a> {
    /// Nobody's: a program on this machine asks, or somebody through a proxy on it, which cannot be told apart. It reads sums.
    Sums,
    /// Those of a caller's projects.
    Of(&'a Principal),
    /// Everybody's.
    All,
}

impl MetricsScope<'_> {
    fn includes(&self, project: &str) -> bool {
        match self {
            Self::Sums => false,
            Self::Of(caller) => caller.projects.iter().any(|p| p == project),
            Self::All => true,
        }
    }
}

/// Open to this machine (contract §3), which reads sums; a caller also reads the numbers of each of its tasks.
pub(crate) async fn metrics(
    State(control): State<Control>,
    caller: Option<Extension<Principal>>,
) -> Response {
    match &caller {
        Some(Extension(caller)) => render(&control, MetricsScope::Of(caller)).await,
        None => render(&control, MetricsScope::Sums).await,
    }
}

/// All numbers, for an address of their own.
pub(crate) async fn all_metrics(State(control): State<Control>) -> Response {
    render(&control, MetricsScope::All).await
}

async fn render(control: &Control, shown: MetricsScope<'_>) -> Response {
    let tasks = async { control.engine.store().read().await?.open_tasks().await };
    let Ok(tasks) = tasks.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut text = String::from("# TYPE whimbrel_open_tasks gauge\n");
    text.push_str(&format!("whimbrel_open_tasks {}\n", tasks.len()));
    let (mut speed, mut objects, mut each) = (0.0, 0, String::new());
    for task in &tasks {
        if let Some(progress) = control.engine.progress(task.id) {
            let now = progress.snapshot();
            let settled = now.settled.settled().objects;
            (speed, objects) = (speed + now.speed, objects + settled);
            if shown.includes(&task.project) {
                each.push_str(&format!(
                    "whimbrel_task_bytes_per_second{{task=\"{id}\"}} {:.0}\nwhimbrel_task_objects{{task=\"{id}\"}} {settled}\n",
                    now.speed,
                    id = task.id
                ));
            }
        }
    }
    text.push_str(&format!(
        "# TYPE whimbrel_bytes_per_second gauge\nwhimbrel_bytes_per_second {speed:.0}\n\
         # TYPE whimbrel_running_objects gauge\nwhimbrel_running_objects {objects}\n\
         # TYPE whimbrel_task_bytes_per_second gauge\n# TYPE whimbrel_task_objects counter\n{each}"
    ));
    if let Err(failure) = migrations(control, &shown, &mut text).await {
        tracing::error!("cannot read the metrics of migrations: {failure}");
    }
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}

/// Redis migrations: how far each is behind, and how often it had to begin anew.
async fn migrations(
    control: &Control,
    shown: &MetricsScope<'_>,
    text: &mut String,
) -> model::error::Result<()> {
    let open = control.engine.store().read().await?.open_migrations().await?;
    text.push_str(&format!(
        "# TYPE whimbrel_open_migrations gauge\nwhimbrel_open_migrations {}\n\
         # TYPE whimbrel_migration_lag_bytes gauge\n# TYPE whimbrel_migration_lag_seconds gauge\n\
         # TYPE whimbrel_migration_full_syncs counter\n# TYPE whimbrel_migration_keys gauge\n",
        open.len()
    ));
    for m in open.iter().filter(|m| shown.includes(&m.project)) {
        let (id, stats) = (&m.id, &m.stats);
        let seconds = stats.lag_ms as f64 / 1000.0;
        text.push_str(&format!(
            "whimbrel_migration_lag_bytes{{migration=\"{id}\"}} {}\n\
             whimbrel_migration_lag_seconds{{migration=\"{id}\"}} {seconds:.3}\n\
             whimbrel_migration_full_syncs{{migration=\"{id}\"}} {}\n\
             whimbrel_migration_keys{{migration=\"{id}\"}} {}\n",
            stats.lag_bytes, stats.full_syncs, stats.target_keys
        ));
    }
    Ok(())
}
