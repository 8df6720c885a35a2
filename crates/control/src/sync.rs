//! Sync tasks (oms.md §2.5, §3.3): driven by events, worked off by batches.

use model::error::Side;
use model::spec::TaskSpec;
use runtime::naming::uuid;
use store::{PENDING_MAX, SLOT_MS, StoreTx, SyncRow};

use crate::Control;
use crate::catalogue::StoreLocation;
use crate::secrets::TaskSecrets;
use crate::task_error::{TaskError, TaskResult};

/// Sync tasks of one project that accept events at once, or work off what they accepted before they were stopped (oms.md
/// §8.1).
const RUNNING_MAX: u64 = 5;
/// Sync tasks that one project has, stopped ones included.
const KEPT_MAX: u64 = 1000;
/// Keys of one event (oms.md §4.14).
pub const EVENT_MAX: usize = 10;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What is counted.
pub const KINDS: [&str; 5] = ["REQUEST", "SUCCESS", "FAILURE", "SKIP", "SIZE"];

/// A sync task and its sums over one month.
#[derive(Debug)]
pub struct SyncView {
    /// As stored.
    pub sync: SyncRow,
    /// Sums in the order of [`KINDS`].
    pub sums: [u64; 5],
}

/// Counts over time.
#[derive(Debug)]
pub struct Statistic {
    /// Each point covers an hour, not five minutes.
    pub hourly: bool,
    /// By kind as asked for: points of (begin in milliseconds, count), oldest first, without empty ones.
    pub data: Vec<(&'static str, Vec<(i64, u64)>)>,
}

impl Control {
    /// Accepts a sync task, which takes events at once.
    ///
    /// # Errors
    /// As [`Control::create`]; [`TaskError::Quota`] when too many run.
    pub async fn create_sync(
        &self,
        project: &str,
        spec: &TaskSpec,
        secrets: &TaskSecrets,
    ) -> TaskResult<String> {
        crate::create::check_sync(spec)?;
        self.for_project(project).check_places(spec)?;
        check_sync_quota(&mut self.engine.store().read().await?, project, "").await?;
        self.begin_outgoing(project)?.precheck(spec, secrets).await?;
        let id = uuid()?;
        let mut tx = self.engine.store().write().await?;
        // Others may have been accepted while the ends were asked.
        check_sync_quota(&mut tx, project, "").await?;
        tx.insert_sync(&id, project, spec, &secrets.to_json(), self.clock.now_ms()).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// A page of sync tasks, newest first, and how many match.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_syncs(
        &self,
        project: &str,
        running: Option<bool>,
        offset: u64,
        limit: u64,
    ) -> TaskResult<(Vec<SyncRow>, u64)> {
        Ok(self.engine.store().read().await?.list_syncs(project, running, offset, limit).await?)
    }

    /// One sync task, with its sums of the month that holds `at`, milliseconds.
    ///
    /// # Errors
    /// [`TaskError::NotFound`] when the project has none of that identity.
    pub async fn show_sync(&self, project: &str, id: &str, at: i64) -> TaskResult<SyncView> {
        let mut tx = self.engine.store().read().await?;
        let sync = tx.sync_of(project, id).await?;
        let (from, until) = month_of(at, self.zone_minutes);
        let mut sums = [0; 5];
        for (kind, _, n) in tx.sync_counts(id, from, until).await? {
            if let Some(i) = KINDS.iter().position(|k| *k == kind) {
                sums[i] += n;
            }
        }
        Ok(SyncView { sync, sums })
    }

    /// Starts with new credentials.
    ///
    /// # Errors
    /// [`TaskError::SyncStarted`] when it runs.
    pub async fn start_sync(&self, project: &str, id: &str, secrets: &TaskSecrets) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        check_sync_quota(&mut tx, project, id).await?;
        if tx.sync_of(project, id).await?.running {
            return Err(TaskError::SyncStarted);
        }
        tx.start_sync(id, &secrets.to_json(), self.clock.now_ms()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Stops; what was accepted is still synchronised.
    ///
    /// # Errors
    /// [`TaskError::SyncStopped`] when it does not run.
    pub async fn stop_sync(&self, project: &str, id: &str) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        if !tx.sync_of(project, id).await?.running {
            return Err(TaskError::SyncStopped);
        }
        tx.stop_sync(id).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Deletes a stopped sync task with the events that still wait.
    ///
    /// # Errors
    /// [`TaskError::SyncRunning`] while it runs.
    pub async fn delete_sync(&self, project: &str, id: &str) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        let sync = tx.sync_of(project, id).await?;
        if sync.running {
            return Err(TaskError::SyncRunning);
        }
        tx.delete_sync(id).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Takes keys to synchronise; when this answers, they are durable.
    ///
    /// # Errors
    /// [`TaskError::SyncStopped`], or [`TaskError::Quota`] when too many wait.
    pub async fn sync_events(&self, project: &str, id: &str, keys: &[String]) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        if !tx.sync_of(project, id).await?.running {
            return Err(TaskError::SyncStopped);
        }
        if tx.pending_events(id).await? + keys.len() as u64 > PENDING_MAX {
            return Err(TaskError::Quota(format!("{PENDING_MAX} keys are waiting to be synchronised")));
        }
        tx.put_events(id, keys, self.clock.now_ms()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Counts between two instants, milliseconds: by five minutes up to a day, by hours up to 31 days.
    ///
    /// # Errors
    /// [`TaskError::Range`] for a span that is reversed or longer.
    pub async fn sync_statistic(
        &self,
        project: &str,
        id: &str,
        kinds: &[&'static str],
        from: i64,
        until: i64,
    ) -> TaskResult<Statistic> {
        if until < from || until.saturating_sub(from) > 31 * DAY_MS {
            return Err(TaskError::Range("`end_time` must be after `start_time`, by at most 31 days".into()));
        }
        let hourly = until - from > DAY_MS;
        let width = if hourly { HOUR_MS } else { SLOT_MS };
        let mut tx = self.engine.store().read().await?;
        tx.sync_of(project, id).await?;
        let counts = tx.sync_counts(id, from - from.rem_euclid(width), until + 1).await?;
        let data = kinds
            .iter()
            .map(|kind| {
                let mut points: Vec<(i64, u64)> = Vec::new();
                for (_, slot, n) in counts.iter().filter(|(k, ..)| k == kind) {
                    let begin = slot - slot.rem_euclid(width);
                    match points.last_mut() {
                        Some((at, sum)) if *at == begin => *sum += n,
                        _ => points.push((begin, *n)),
                    }
                }
                (*kind, points)
            })
            .collect();
        Ok(Statistic { hourly, data })
    }

    pub(crate) fn check_places(&self, spec: &TaskSpec) -> TaskResult<()> {
        let Some(target) = self.catalogue.find(&spec.target, Side::Target) else {
            return Err(TaskError::TargetRegion(spec.target.region.clone()));
        };
        let is_directory = matches!(target, StoreLocation::Directory(_));
        if let Some(fault) = prefix_fault(&spec.save_prefix, is_directory) {
            return Err(TaskError::Invalid("save_prefix".into(), fault.into()));
        }
        let urls = matches!(spec.selection, model::selection::Selection::UrlList(_));
        if !urls && self.catalogue.find(&spec.source, Side::Source).is_none() {
            return Err(TaskError::SourceRegion(spec.source.region.clone()));
        }
        Ok(())
    }
}

/// Why no key can be written below a prefix.
fn prefix_fault(prefix: &str, is_directory: bool) -> Option<&'static str> {
    match () {
        () if prefix.contains('\0') => Some("contains a NUL character"),
        () if !is_directory => None,
        () if prefix.starts_with('/') => {
            Some("begins with `/`, and the target is a directory; hint: write it relative to the bucket")
        }
        () if prefix.split('/').any(|s| s == ".." || s == ".") => {
            Some("contains `.` or `..`, and the target is a directory")
        }
        () if prefix.split('/').next() == Some(storage::fs::RESERVED_DIR) => {
            Some("begins with `.whimbrel`, which the service uses in directories")
        }
        () => None,
    }
}

/// Whether a project may have another sync task that accepts events, or start `id`; asked in the transaction that does so.
async fn check_sync_quota(tx: &mut StoreTx, project: &str, id: &str) -> TaskResult<()> {
    let (kept, busy) = tx.sync_usage(project, id).await?;
    if busy >= RUNNING_MAX {
        return Err(TaskError::Quota(format!("{busy} sync tasks are running or have keys left")));
    }
    if id.is_empty() && kept >= KEPT_MAX {
        return Err(TaskError::Quota(format!("the project has {kept} sync tasks")));
    }
    Ok(())
}

/// The month that holds an instant, as milliseconds from and until, by the service's zone.
fn month_of(at: i64, zone_minutes: i32) -> (i64, i64) {
    let zone = i64::from(zone_minutes) * 60_000;
    let local = |ms: i64| model::instant::utc(ms + zone);
    let first = local(at).date().replace_day(1).unwrap_or(time::Date::MIN);
    let next = if first.month() == time::Month::December {
        time::Date::from_calendar_date(first.year() + 1, time::Month::January, 1)
    } else {
        time::Date::from_calendar_date(first.year(), first.month().next(), 1)
    };
    let ms = |d: time::Date| d.midnight().assume_utc().unix_timestamp() * 1000 - zone;
    (ms(first), ms(next.unwrap_or(time::Date::MAX)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use flow_control::backoff::Backoff;
    use flow_control::clock::MockClock;
    use runtime::Engine;
    use runtime::engine::EngineConfig;
    use store::Store;

    use super::*;
    use crate::{Catalogue, Directory, SharedLimits};

    async fn control(dir: &std::path::Path) -> Control {
        let config =
            config::Config { data_dir: dir.to_string_lossy().into_owned(), ..config::Config::default() };
        let clock = Arc::new(MockClock::new(1_000_000));
        let store = Store::embedded(dir).await.unwrap();
        let catalogue = Arc::new(Catalogue::new(&config, clock.clone()));
        let directory = Arc::new(Directory::new(&config, &BTreeMap::new(), &store.keys()).unwrap());
        let engine = Engine::start(EngineConfig {
            store,
            clock: clock.clone(),
            resolver: catalogue.clone(),
            data_dir: dir.to_owned(),
            memory: 64 << 20,
            running_tasks: 1,
            zone_minutes: 0,
            works: true,
            threads: 1,
            backoff: Backoff::default(),
        })
        .unwrap();
        Control {
            engine,
            catalogue,
            directory,
            clock,
            limits: Arc::new(SharedLimits::default()),
            zone_minutes: 0,
            outgoing: Default::default(),
            reports: Default::default(),
            requests: Default::default(),
            audit_file: Arc::new(crate::audit_file::AuditFile::start(Default::default()).unwrap()),
        }
    }

    #[tokio::test]
    async fn f20_sync_task_limit_holds_for_every_way_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let control = control(dir.path()).await;
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        let spec: TaskSpec = serde_json::from_str(spec).unwrap();
        let mut tx = control.engine.store().write().await.unwrap();
        for i in 0..=RUNNING_MAX {
            tx.insert_sync(&format!("s{i}"), "p", &spec, "{}", 1).await.unwrap();
        }
        tx.stop_sync("s0").await.unwrap();
        tx.stop_sync("s1").await.unwrap();
        tx.commit().await.unwrap();
        // Somebody else holds the ledger while one is started, and starts another one first.
        let mut tx = control.engine.store().write().await.unwrap();
        let late = control.clone();
        let late = tokio::spawn(async move { late.start_sync("p", "s0", &TaskSecrets::default()).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        tx.start_sync("s1", "{}", 2).await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(late.await.unwrap(), Err(TaskError::Quota(_))));
        let mut tx = control.engine.store().read().await.unwrap();
        assert_eq!(tx.list_syncs("p", Some(true), 0, 1).await.unwrap().1, RUNNING_MAX);
    }

    #[tokio::test]
    async fn m1_stopped_sync_task_with_keys_left_counts_as_running() {
        let dir = tempfile::tempdir().unwrap();
        let control = control(dir.path()).await;
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        let spec: TaskSpec = serde_json::from_str(spec).unwrap();
        let mut tx = control.engine.store().write().await.unwrap();
        let keys = ["a", "b", "a"].map(str::to_owned);
        for i in 0..=RUNNING_MAX {
            let id = format!("s{i}");
            tx.insert_sync(&id, "p", &spec, "{}", 1).await.unwrap();
            tx.put_events(&id, &keys, 2).await.unwrap();
            tx.stop_sync(&id).await.unwrap();
        }
        assert_eq!(tx.pending_events("s0").await.unwrap(), 2, "a key waits once");
        let seen = tx.sync_of("p", "s0").await.unwrap();
        tx.commit().await.unwrap();
        let start = async || control.start_sync("p", "s1", &TaskSecrets::default()).await;
        assert!(matches!(start().await, Err(TaskError::Quota(_))), "five others have keys left");
        let mut tx = control.engine.store().write().await.unwrap();
        tx.end_batch(&SyncRow { batch_upto: i64::MAX, ..seen }, true, 0).await.unwrap();
        assert_eq!(tx.pending_events("s0").await.unwrap(), 0);
        tx.commit().await.unwrap();
        assert!(start().await.is_ok());
    }

    #[tokio::test]
    async fn l3_span_of_a_statistic_does_not_overflow() {
        let dir = tempfile::tempdir().unwrap();
        let control = control(dir.path()).await;
        for (from, until) in [(i64::MIN, 0), (i64::MIN, i64::MAX), (0, i64::MAX)] {
            let refused = control.sync_statistic("p", "s", &KINDS, from, until).await;
            assert!(matches!(refused, Err(TaskError::Range(_))), "{from} to {until}: {refused:?}");
        }
    }

    #[test]
    fn sec_f22_prefix_leads_nowhere_else_in_a_directory() {
        for bad in ["/etc/", "..", "a/../b", "../", ".whimbrel/x", "./a"] {
            assert!(prefix_fault(bad, true).is_some() && prefix_fault(bad, false).is_none(), "{bad}");
        }
        for good in ["", "a/", "a..b/", ".whimbrel-x/", "a/.whimbrel/"] {
            assert!(prefix_fault(good, true).is_none(), "{good}");
        }
        assert!(prefix_fault("a\0b", false).is_some());
    }

    #[test]
    fn statistics_months_begin_at_local_midnight() {
        // 2026-01-31T23:30Z is in February at UTC+1.
        let at = 1_769_902_200_000;
        assert_eq!(month_of(at, 0), (1_767_225_600_000, 1_769_904_000_000));
        assert_eq!(month_of(at, 60).0, 1_769_904_000_000 - HOUR_MS);
        let december = 1_796_083_200_000;
        assert!(month_of(december, 0).1 > december);
    }
}
