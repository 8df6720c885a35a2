//! `GET /healthz`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::Control;
use http::StatusCode;

use crate::body::{Reply, json};
use crate::error::Error;

pub(crate) async fn healthz() -> Reply {
    json(&serde_json::json!({"status": "ok"}))
}

pub(crate) async fn readyz(State(control): State<Control>) -> Reply {
    let asked = async { control.engine.store().read().await?.audit_lines(1).await };
    match asked.await {
        Ok(_) => json(&serde_json::json!({"status": "ready"})),
        Err(failure) => {
            tracing::error!("not ready: {failure}");
            Err(Error::gateway(StatusCode::SERVICE_UNAVAILABLE, "OMS.2004", "the database does not answer"))
        }
    }
}

/// Needs a caller, as everything else does.
pub(crate) async fn metrics(State(control): State<Control>) -> Response {
    let tasks = async { control.engine.store().read().await?.open_tasks().await };
    let Ok(tasks) = tasks.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut text = String::from("# TYPE whimbrel_open_tasks gauge\n");
    text.push_str(&format!("whimbrel_open_tasks {}\n", tasks.len()));
    text.push_str("# TYPE whimbrel_task_bytes_per_second gauge\n# TYPE whimbrel_task_objects counter\n");
    for task in &tasks {
        if let Some(progress) = control.engine.progress(task.id) {
            let now = progress.snapshot();
            text.push_str(&format!(
                "whimbrel_task_bytes_per_second{{task=\"{}\"}} {:.0}\n",
                task.id, now.speed
            ));
            let objects = now.settled.settled().objects;
            text.push_str(&format!("whimbrel_task_objects{{task=\"{}\"}} {objects}\n", task.id));
        }
    }
    if let Err(failure) = migrations(&control, &mut text).await {
        tracing::error!("the numbers of migrations are missing: {failure}");
    }
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}

/// Redis migrations: how far each is behind, and how often it had to begin anew.
async fn migrations(control: &Control, text: &mut String) -> model::failure::Result<()> {
    let open = control.engine.store().read().await?.open_migrations().await?;
    text.push_str(
        "# TYPE whimbrel_migration_lag_bytes gauge\n# TYPE whimbrel_migration_lag_seconds gauge\n\
         # TYPE whimbrel_migration_full_syncs counter\n# TYPE whimbrel_migration_keys gauge\n",
    );
    for m in &open {
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
