//! `GET /metrics`: every number that the service exports, from one table.
//!
//! `FAMILIES` is the only list. The response, in the Prometheus text format or in OpenMetrics when the client asks for it, and
//! `docs/generated/metrics.md` are made from it. `prometheus-client` writes both formats: the order of HELP, TYPE and samples,
//! the suffix `_total` of counters, and escaped labels are its work. The numbers are read at each request; nothing is kept.

use std::fmt::Write as _;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::Control;
use control::health::OpenWork;
use control::identity::Principal;
use http::{HeaderMap, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;
use store::MigrationStats;

/// The media type of the OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text";

/// One family of metrics.
struct Family {
    /// Name as the formats declare it; samples of a counter add `_total`.
    name: &'static str,
    help: &'static str,
    value: Value,
}

/// What a family counts or measures, and for what it has samples.
enum Value {
    /// One sample for the service.
    Service(fn(&Numbers) -> Number),
    /// A sample for each visible task that runs in this process.
    Task(fn(&TaskNumbers) -> Number),
    /// A sample for each visible migration that is not over.
    Migration(fn(&MigrationStats) -> Number),
}

/// The value of a sample, which also says whether it can fall.
enum Number {
    Gauge(u64),
    Measure(f64),
    Counter(u64),
}

use Number::{Counter, Gauge, Measure};

/// Every family, in the order of the response.
static FAMILIES: &[Family] = &[
    Family {
        name: "whimbrel_open_tasks",
        help: "Object tasks that are waiting, running or retrying",
        value: Value::Service(|n| Gauge(n.open_tasks)),
    },
    Family {
        name: "whimbrel_bytes_per_second",
        help: "Bytes read from sources per second, all running object tasks together",
        value: Value::Service(|n| Measure(n.speed.round())),
    },
    Family {
        name: "whimbrel_running_objects",
        help: "Objects settled by the object tasks that are running now",
        value: Value::Service(|n| Gauge(n.objects)),
    },
    Family {
        name: "whimbrel_task_bytes_per_second",
        help: "Bytes read from the source per second",
        value: Value::Task(|t| Measure(t.speed.round())),
    },
    Family {
        name: "whimbrel_task_objects",
        help: "Objects settled: copied, skipped, failed, or gone from the source",
        value: Value::Task(|t| Counter(t.objects)),
    },
    Family {
        name: "whimbrel_open_migrations",
        help: "Redis migrations that are loading, replicating, stopping or cutting over",
        value: Value::Service(|n| Gauge(n.open_migrations)),
    },
    Family {
        name: "whimbrel_migration_lag_bytes",
        help: "Replication bytes of the source that are not yet applied at the target",
        value: Value::Migration(|m| Gauge(m.lag_bytes)),
    },
    Family {
        name: "whimbrel_migration_lag_seconds",
        help: "Time by which the target is behind the source",
        value: Value::Migration(|m| Measure(m.lag_ms as f64 / 1000.0)),
    },
    Family {
        name: "whimbrel_migration_full_syncs",
        help: "Snapshots taken for full syncs",
        value: Value::Migration(|m| Counter(m.full_syncs)),
    },
    Family {
        name: "whimbrel_migration_keys",
        help: "Keys at the target",
        value: Value::Migration(|m| Gauge(m.target_keys)),
    },
];

impl Family {
    /// The type is that of any value.
    fn kind(&self) -> MetricType {
        let value = match self.value {
            Value::Service(read) => read(&Numbers::default()),
            Value::Task(read) => read(&TaskNumbers::default()),
            Value::Migration(read) => read(&MigrationStats::default()),
        };
        if matches!(value, Counter(_)) { MetricType::Counter } else { MetricType::Gauge }
    }

    /// The name of its label; none for numbers of the service.
    fn label(&self) -> Option<&'static str> {
        match self.value {
            Value::Service(_) => None,
            Value::Task(_) => Some("task"),
            Value::Migration(_) => Some("migration"),
        }
    }
}

/// What one response tells.
#[derive(Debug, Default)]
struct Numbers {
    open_tasks: u64,
    /// Bytes per second of all running tasks.
    speed: f64,
    /// Settled by all running tasks.
    objects: u64,
    open_migrations: u64,
    /// Visible running tasks, by id.
    tasks: Vec<(String, TaskNumbers)>,
    /// Visible open migrations, by id.
    migrations: Vec<(String, MigrationStats)>,
}

#[derive(Debug, Default)]
struct TaskNumbers {
    speed: f64,
    objects: u64,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        for family in FAMILIES {
            let mut samples = encoder.encode_descriptor(family.name, family.help, None, family.kind())?;
            let labelled = |id: &str| family.label().map(|name| [(name, id.to_owned())]);
            match family.value {
                Value::Service(read) => sample(&mut samples, None, read(self))?,
                Value::Task(read) => {
                    for (id, task) in &self.tasks {
                        sample(&mut samples, labelled(id), read(task))?;
                    }
                }
                Value::Migration(read) => {
                    for (id, stats) in &self.migrations {
                        sample(&mut samples, labelled(id), read(stats))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes one sample with its label.
fn sample(
    samples: &mut MetricEncoder,
    label: Option<[(&'static str, String); 1]>,
    value: Number,
) -> std::fmt::Result {
    let labels = label.as_ref().map(|l| l.as_slice()).unwrap_or_default();
    let mut encoder = samples.encode_family(&labels)?;
    match value {
        Gauge(n) => encoder.encode_gauge(&n),
        Measure(n) => encoder.encode_gauge(&n),
        Counter(n) => encoder.encode_counter(&n, None::<&Exemplar<NoLabelSet, f64>>),
    }
}

/// The response as a client asks for it: its media type and its text.
fn exposition(numbers: Numbers, openmetrics: bool) -> (&'static str, String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(numbers));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let (kind, _written) = if openmetrics {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text::encode(&mut text, &registry))
    } else {
        (prometheus_text::CONTENT_TYPE, prometheus_text::encode(&mut text, &registry))
    };
    (kind, text)
}

/// The table of `docs/generated/metrics.md`.
pub fn page() -> String {
    let mut text = String::from(
        "# Metrics\n\nWritten by `cargo x gen`; do not edit. Every family of `GET /metrics`, from the table in \
         `crates/api/src/metrics.rs`. A caller sees the tasks and migrations of its own projects, `metrics_listen` shows all, and \
         a request from this machine without credentials shows only families without a label.\n\n\
         | sample | type | label | meaning |\n|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let (kind, suffix) = match family.kind() {
            MetricType::Counter => ("counter", "_total"),
            _ => ("gauge", ""),
        };
        let label = family.label().map_or("–".to_owned(), |label| format!("`{label}`"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}{suffix}` | {kind} | {label} | {} |", family.name, family.help);
    }
    text
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
    headers: HeaderMap,
) -> Response {
    match &caller {
        Some(Extension(caller)) => respond(&control, MetricsScope::Of(caller), &headers).await,
        None => respond(&control, MetricsScope::Sums, &headers).await,
    }
}

/// All numbers, for an address of their own.
pub(crate) async fn all_metrics(State(control): State<Control>, headers: HeaderMap) -> Response {
    respond(&control, MetricsScope::All, &headers).await
}

async fn respond(control: &Control, shown: MetricsScope<'_>, headers: &HeaderMap) -> Response {
    match read_numbers(control, &shown).await {
        Ok(numbers) => {
            let (kind, text) = exposition(numbers, accepts_openmetrics(headers));
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(failure) => {
            tracing::error!("cannot read the metrics: {failure}");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

/// Prometheus names the format in `Accept`; everybody else gets the older one.
fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|text| text.contains(OPENMETRICS)))
}

async fn read_numbers(control: &Control, shown: &MetricsScope<'_>) -> model::error::Result<Numbers> {
    let OpenWork { tasks, tasks_here, migrations } = control.open_work().await?;
    let mut numbers =
        Numbers { open_tasks: tasks, open_migrations: migrations.len() as u64, ..Numbers::default() };
    for (id, project) in &tasks_here {
        let Some(progress) = control.engine.progress(*id) else { continue };
        let now = progress.snapshot();
        let own = TaskNumbers { speed: now.speed, objects: now.settled.settled().objects };
        numbers.speed += own.speed;
        numbers.objects += own.objects;
        if shown.includes(project) {
            numbers.tasks.push((id.to_string(), own));
        }
    }
    let visible = migrations.into_iter().filter(|m| shown.includes(&m.project));
    numbers.migrations = visible.map(|m| (m.id, m.stats)).collect();
    Ok(numbers)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
