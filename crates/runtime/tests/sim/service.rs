//! Carries a scenario out with the engine of the service, from run to run, as a foreground copy does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use flow_control::backoff::Backoff;
use flow_control::clock::{Clock, MockClock};
use model::count::Counters;
use model::error::{Error, Result, Side};
use model::key::Key;
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::{Event, Priority, TaskId, Visible};
use runtime::engine::EngineConfig;
use runtime::{Engine, OpenedStore, StoreResolver, run_to_end};
use storage::key_list::{self, KeyListStore};
use storage::{Probe, SharedStore};
use store::{NewTask, Store, TaskRow};
use testkit::model::{Model, Object};
use tokio_util::sync::CancellationToken;

use crate::broken::Planted;
use crate::process::{Mortal, Process};
use crate::reference;
use crate::scenario::{BEGAN_MS, Interruption, Scenario};

/// Runs after which a task that has not ended never will.
const RUNS_MAX: usize = 40;
/// A run that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) state: Option<Visible>,
    pub(crate) error: Option<store::ErrorNote>,
    pub(crate) note: String,
    pub(crate) counters: Counters,
    pub(crate) failures: BTreeMap<Key, Error>,
    pub(crate) source: BTreeMap<Key, Object>,
    pub(crate) target: BTreeMap<Key, Object>,
    pub(crate) removed: BTreeSet<Key>,
    pub(crate) uploads: usize,
    /// Numbers of a second task of the same kind, where one was run.
    pub(crate) again: Option<(Counters, String)>,
    pub(crate) runs: usize,
    pub(crate) stuck: bool,
    /// A run in which bytes came faster than the task's limit.
    pub(crate) over_limit: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |keys: &BTreeMap<Key, Object>| {
            keys.iter().map(|(k, o)| format!("{k}:{}", o.bytes.len())).collect::<Vec<_>>().join(" ")
        };
        write!(
            f,
            "after {} runs: {:?} {:?} {:?}\n{:?}\nfailed: {:?}\nsource: {}\ntarget: {}\nremoved: {:?}\nagain: {:?}",
            self.runs,
            self.state,
            self.error,
            self.note,
            self.counters,
            self.failures.iter().map(|(k, f)| format!("{k}: {:?} {}", f.kind, f.message)).collect::<Vec<_>>(),
            names(&self.source),
            names(&self.target),
            self.removed,
            self.again
        )
    }
}

struct Both {
    source: SharedStore,
    target: SharedStore,
    /// Of the two clocks, milliseconds, as a probe tells it.
    skews: (i64, i64),
    data_dir: std::path::PathBuf,
    process: Arc<Process>,
}

#[async_trait]
impl StoreResolver for Both {
    async fn open(&self, task: &TaskRow, _: &str, side: Side) -> Result<OpenedStore> {
        let (store, skew) = match side {
            Side::Source => (self.source.clone(), self.skews.0),
            _ => (self.target.clone(), self.skews.1),
        };
        let probe = Probe { skew_ms: Some(skew), ..Probe::default() };
        let store: SharedStore = Arc::new(Mortal { inner: store, process: self.process.clone() });
        let store: SharedStore = match (&task.spec.selection, side) {
            // As the catalogue of the service does it.
            (Selection::Keys(keys), Side::Source) => {
                let list = key_list::sorted_keys(keys, &key_list::path_in(&self.data_dir, task.id))?;
                Arc::new(KeyListStore::new(store, list))
            }
            _ => store,
        };
        Ok(OpenedStore { store, probe, limit_key: format!("{side:?}") })
    }
}

/// Seeds that share a ledger. To make one costs more than a seed; an old one is slower.
const LEDGER_SEEDS: u64 = 200;

/// A ledger for several seeds, one after the other; each seed has two tasks of its own in it.
pub(crate) struct Ledger {
    dir: tempfile::TempDir,
    store: Store,
    used: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let base =
            if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(base).expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let store = runtime.block_on(Store::embedded(dir.path())).expect("a ledger");
        Self { dir, store, used: 0 }
    }

    /// This ledger for the next seed, or a new one.
    pub(crate) fn next(self) -> Self {
        match self.used + 1 {
            LEDGER_SEEDS => Self::new(),
            used => Self { used, ..self },
        }
    }
}

struct Bench<'a> {
    scenario: &'a Scenario,
    /// One for all runs: a ledger is held by its process, and what was killed here still has it in its hands.
    ledger: &'a Ledger,
    runtime: tokio::runtime::Runtime,
    clock: MockClock,
    source: Arc<Model>,
    target: Arc<Model>,
    ends: (SharedStore, SharedStore),
    /// The limit that the task is given, bytes per second; the scenario's, unless that is what is wrong.
    bandwidth: u64,
    /// What was found wrong with the speed of a run.
    over_limit: std::cell::RefCell<Option<String>>,
}

pub(crate) fn carry_out(scenario: &Scenario, planted: Option<Planted>, ledger: &Ledger) -> Outcome {
    let source = Model::new(scenario.source.clone(), scenario.seed ^ 1, BEGAN_MS);
    let target = Model::new(scenario.target.clone(), scenario.seed ^ 2, BEGAN_MS);
    for (model, given) in [(&source, &scenario.at_source), (&target, &scenario.at_target)] {
        for (key, one) in given {
            model.put(key, one.bytes.clone(), one.modified_ms, one.headers.clone());
        }
    }
    let around = |model: &Arc<Model>, side| -> SharedStore {
        match planted {
            Some(planted) => planted.around(model.clone(), side),
            None => model.clone(),
        }
    };
    let ends = (around(&source, Side::Source), around(&target, Side::Target));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let faster = if planted == Some(Planted::PassesLimit) { 16 } else { 1 };
    let bench = Bench {
        scenario,
        ledger,
        runtime,
        clock: MockClock::new(BEGAN_MS),
        source,
        target,
        ends,
        bandwidth: scenario.spec.bandwidth * faster,
        over_limit: Default::default(),
    };
    bench.all()
}

impl Bench<'_> {
    fn all(&self) -> Outcome {
        let mut interruptions = self.scenario.interruptions.iter();
        let first = (2 * self.ledger.used + 1) as TaskId;
        let second = first + 1;
        let (mut runs, mut stuck, mut ended) = (0, false, false);
        while runs < RUNS_MAX && !stuck && !ended {
            runs += 1;
            (ended, stuck) = self.one_run(first, interruptions.next().copied());
        }
        let mut outcome = self.look(first, runs, stuck);
        if outcome.state == Some(Visible::Succeeded) {
            self.source.heal();
            self.target.heal();
            (_, outcome.stuck) = self.one_run(second, None);
            let again = self.look(second, 1, false);
            outcome.again = Some((again.counters, again.note));
        }
        outcome
    }

    /// One run of a task in a process of its own; whether the task has ended, and whether the run was stuck.
    fn one_run(&self, task: TaskId, interruption: Option<(u64, Interruption)>) -> (bool, bool) {
        // Whatever else there is: time goes on, and retries of a task are due.
        self.clock.advance_ms(3_600_000);
        self.source.set_now(self.clock.now_ms());
        self.target.set_now(self.clock.now_ms());
        self.target.take_arrived();
        let began = Instant::now();
        let done =
            self.runtime.block_on(async { tokio::time::timeout(STUCK, self.run(task, interruption)).await });
        let (rate, arrived) = (self.scenario.spec.bandwidth, self.target.take_arrived());
        if let Some(wrong) = reference::over_limit(rate, began, &arrived) {
            self.over_limit.borrow_mut().get_or_insert(wrong);
        }
        match done {
            Ok(done) => (done.expect("the ledger"), false),
            Err(_) => (false, true),
        }
    }

    async fn run(&self, id: TaskId, interruption: Option<(u64, Interruption)>) -> Result<bool> {
        let store = self.ledger.store.clone();
        self.prepare(&store, id).await?;
        let process = Arc::new(Process::default());
        let engine = Engine::start(EngineConfig {
            store: store.clone(),
            clock: Arc::new(self.clock.clone()),
            resolver: Arc::new(Both {
                source: self.ends.0.clone(),
                target: self.ends.1.clone(),
                data_dir: self.ledger.dir.path().to_owned(),
                skews: (self.scenario.source.skew_ms, self.scenario.target.skew_ms),
                process: process.clone(),
            }),
            data_dir: self.ledger.dir.path().to_owned(),
            memory: 64 << 20,
            running_tasks: 1,
            zone_minutes: 0,
            works: true,
            threads: 1,
            backoff: Backoff {
                base: Duration::from_micros(50),
                cap: Duration::from_micros(500),
                attempts: 25,
                max_elapsed: Duration::from_secs(30),
            },
        })?;
        let (stop, kill) = (CancellationToken::new(), process.killed.clone());
        if let Some((n, how)) = interruption {
            let token = if how == Interruption::Kill { kill.clone() } else { stop.clone() };
            for model in [&self.source, &self.target] {
                let token = token.clone();
                model.at_request(model.requests() + n, move || token.cancel());
            }
        }
        let asked = async {
            stop.cancelled().await;
            let mut tx = store.write().await?;
            let _ = tx.apply(id, Event::Stop, self.clock.now_ms()).await?;
            tx.commit().await?;
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            biased;
            () = kill.cancelled() => {}
            done = asked => done?,
            done = run_to_end(&engine, id, stop.clone()) => drop(done?),
        }
        if kill.is_cancelled() {
            // Its lease ends before what still runs of it may notice anything.
            let mut tx = store.write().await?;
            tx.end_all_leases().await?;
            tx.commit().await?;
            process.buried.cancel();
            return Ok(false);
        }
        let task = store.read().await?.task(id).await?;
        Ok(task.is_some_and(|t| matches!(t.state.visible(), Visible::Succeeded | Visible::Failed)))
    }

    async fn prepare(&self, store: &Store, id: TaskId) -> Result<()> {
        let now = self.clock.now_ms();
        let mut tx = store.write().await?;
        tx.end_all_leases().await?;
        match tx.task(id).await?.map(|t| t.state.visible()) {
            None => {
                tx.insert_task(NewTask {
                    id,
                    project: "sim".into(),
                    name: format!("sim {id}"),
                    spec: TaskSpec { bandwidth: self.bandwidth, ..self.scenario.spec.clone() },
                    secrets: "{}".into(),
                    priority: Priority::Medium,
                    parent: model::parent::Parent::None,
                    now,
                })
                .await?;
            }
            Some(Visible::Paused) => {
                tx.must_apply(id, Event::Start, now).await?;
                tx.reset_task(id, false, true, now).await?;
            }
            Some(Visible::Pausing) => {
                tx.must_apply(id, Event::Drained, now).await?;
                tx.must_apply(id, Event::Start, now).await?;
            }
            Some(_) => {}
        }
        tx.commit().await
    }

    fn look(&self, id: TaskId, runs: usize, stuck: bool) -> Outcome {
        let (task, failures) = self
            .runtime
            .block_on(async {
                let mut tx = self.ledger.store.read().await?;
                let failures = tx.failures(id, &Key::default(), 100_000).await?;
                Ok::<_, Error>((tx.task(id).await?, failures))
            })
            .expect("the ledger");
        Outcome {
            state: task.as_ref().map(|t| t.state.visible()),
            error: task.as_ref().and_then(|t| t.error.clone()),
            note: task.as_ref().map(|t| t.note.clone()).unwrap_or_default(),
            counters: task.map(|t| t.counters).unwrap_or_default(),
            failures: failures.into_iter().map(|f| (f.key, f.failure)).collect(),
            source: self.source.objects(),
            target: self.target.objects(),
            removed: self.target.removed().into_iter().collect(),
            uploads: self.target.uploads(),
            again: None,
            runs,
            stuck,
            over_limit: self.over_limit.borrow().clone(),
        }
    }
}
