//! Keys, rates and lag of a migration, and comparing both ends for its log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::error::{Result, Side};
use redis_migration::checkpoint::cleanup;
use redis_migration::connection::query_client::QueryClient;
use redis_migration::connection::server::ServerInfo;
use redis_migration::route::Route;
use redis_migration::verify::{Depth, compare};
use redis_migration::{Node, Progress};
use store::{MigrationRow, MigrationStats};

use crate::engine::Engine;
use crate::migrations::identity::{names, route};
use crate::migrations::lease::LeasedMigration;
use crate::migrations::log::append_log;
use crate::migrations::log_messages::MessageCode;

/// A change of phase waits so long for the number of keys.
pub(super) const COUNT_TIMEOUT: Duration = Duration::from_millis(500);

/// Counting and comparing for the log may take so long.
pub(super) const COMPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// What an end says of itself, if it can be asked.
pub(super) async fn query_server(node: &Node) -> Option<ServerInfo> {
    let asked = tokio::time::timeout(Duration::from_secs(4), QueryClient::open(node, Side::Target)).await;
    asked.ok()?.ok().map(|(_, server, _)| server)
}

/// The same of both ends of a migration, where what stands at the target about it is not counted.
pub(super) async fn query_both(
    id: &str,
    route: &Route,
    source: Option<Node>,
    target: Option<Node>,
) -> (Option<ServerInfo>, Option<ServerInfo>) {
    let names = source.as_ref().zip(target.as_ref()).map(|(source, target)| names(id, source, target, route));
    let from = async { query_server(source.as_ref()?).await };
    let to = async {
        let asked = async {
            let (mut query, mut server, _) = QueryClient::open(target.as_ref()?, Side::Target).await.ok()?;
            let reserved = cleanup::count_reserved_keys(&mut query, names.as_ref()?).await.unwrap_or(0);
            server.keys = server.keys.saturating_sub(reserved);
            for (_, keys) in server.by_db.iter_mut().filter(|(db, _)| *db == 0) {
                *keys = keys.saturating_sub(reserved);
            }
            Some(server)
        };
        tokio::time::timeout(Duration::from_secs(4), asked).await.ok()?
    };
    tokio::join!(from, to)
}

/// Counts and compares both ends for the log of a migration that is held under a fence; what cannot be asked in time is left
/// out.
pub(super) async fn compare_ends(
    engine: Arc<Engine>,
    (id, fence): (String, i64),
    source: Node,
    target: Node,
    route: Route,
) {
    let compared = async {
        let counted = query_both(&id, &route, Some(source.clone()), Some(target.clone())).await;
        let (Some(a), Some(b)) = counted else { return Ok(()) };
        let found = compare(&source, &target, &route, Depth::Sample).await?;
        let now = engine.clock.now_ms();
        let mut tx = engine.store.write().await?;
        tx.hold_migration(&id, fence).await?;
        let parts = [a.keys, a.expires, b.keys, b.expires].map(|n| n.to_string());
        append_log(&mut tx, &id, MessageCode::Counted, now, &parts).await?;
        let keys = found.keys.to_string();
        if found.is_same() {
            append_log(&mut tx, &id, MessageCode::Compared, now, &[keys]).await?;
        } else {
            let differ = found.differ + found.expiry_differs + found.missing + found.extra;
            let first = found.examples.first().cloned().unwrap_or_default();
            append_log(&mut tx, &id, MessageCode::Different, now, &[keys, differ.to_string(), first]).await?;
        }
        tx.commit().await
    };
    let compared: std::result::Result<Result<()>, _> = tokio::time::timeout(COMPARE_TIMEOUT, compared).await;
    if let Ok(Err(failure)) = compared {
        tracing::debug!(migration = %id, "cannot compare source and target: {failure}");
    }
}

/// Keys at both ends, of the databases that are migrated.
pub(super) fn count_keys(
    stats: &mut MigrationStats,
    route: &Route,
    source: Option<&ServerInfo>,
    target: Option<&ServerInfo>,
) {
    let of = |server: &ServerInfo, wanted: &dyn Fn(u32) -> bool| {
        server.by_db.iter().filter(|(db, _)| wanted(*db)).map(|(_, keys)| keys).sum()
    };
    if let Some(source) = source {
        stats.source_keys = of(source, &|db| route.db(db).is_some());
    }
    if let Some(target) = target {
        let only = route.all_into.or(route.only_db.and_then(|db| route.db(db)));
        stats.target_keys = of(target, &|db| only.is_none_or(|only| only == db));
    }
}

/// Numbers of two moments make rates.
#[derive(Clone, Copy)]
pub(super) struct RateSample {
    pub(super) at: Instant,
    pub(super) bytes: u64,
    pub(super) commands: u64,
}

pub(super) fn rate_sample(progress: &Progress) -> RateSample {
    let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    RateSample {
        at: Instant::now(),
        bytes: get(&progress.full_bytes) + get(&progress.stream_bytes),
        commands: get(&progress.keys) + get(&progress.commands),
    }
}

impl LeasedMigration<'_> {
    /// Counts both ends for the phase that begins now; ends that take their time are counted by the next tick.
    pub(super) async fn count_now(&mut self) {
        let route = route(&self.row.spec);
        let (source, target) = (self.node(Side::Source).ok(), self.node(Side::Target).ok());
        let counted = tokio::time::timeout(COUNT_TIMEOUT, query_both(self.id, &route, source, target)).await;
        if let Ok((source, target)) = counted {
            count_keys(&mut self.row.stats, &route, source.as_ref(), target.as_ref());
        }
    }

    /// Writes the numbers of this moment down; a line of the log at each tenth of the snapshot.
    pub(super) async fn save_statistics(
        &mut self,
        last: &mut RateSample,
        mut logged_tenths: u64,
    ) -> Result<u64> {
        let progress = &self.running.progress;
        let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let now = rate_sample(progress);
        let seconds = (now.at - last.at).as_secs_f64().max(0.001);
        let rate = |a: u64, b: u64| (a.saturating_sub(b) as f64 / seconds) as u64;
        let stats = &mut self.row.stats;
        stats.kib_per_s = rate(now.bytes, last.bytes) / 1024;
        stats.ops_per_s = rate(now.commands, last.commands);
        (stats.lag_bytes, stats.lag_ms) = (get(&progress.lag_bytes), get(&progress.lag_ms));
        let (keys, expected) = (get(&progress.keys), get(&progress.keys_expected));
        let loading = get(&progress.phase) == 1 && stats.percent < 100;
        if loading {
            stats.percent = (keys * 100).checked_div(expected).unwrap_or(0).min(99).max(stats.percent);
        }
        let (percent, stats) = (stats.percent, stats.clone());
        *last = now;
        let mut tx = self.write().await?;
        if loading && percent / 10 > logged_tenths {
            logged_tenths = percent / 10;
            let parts = [percent, keys, expected].map(|n| n.to_string());
            append_log(&mut tx, self.id, MessageCode::FullSyncProgress, self.engine.clock.now_ms(), &parts)
                .await?;
        }
        tx.set_migration_stats(self.id, &stats).await?;
        tx.commit().await?;
        Ok(logged_tenths)
    }

    /// Counts both ends when it has stopped, while the response to the stop is sent.
    pub(super) fn count_once_more(&self) {
        let (source, target) = (self.node(Side::Source).ok(), self.node(Side::Target).ok());
        let (engine, id, route) = (self.engine.clone(), self.id.to_owned(), route(&self.row.spec));
        tokio::spawn(async move {
            let (source, target) = query_both(&id, &route, source, target).await;
            let noted = async {
                let mut tx = engine.store.write().await?;
                // Whoever has claimed it since counts for itself.
                let is_stopped = |m: &MigrationRow| !m.state.phase.is_open() && m.owner.is_none();
                let Some(row) = tx.migration(&id).await?.filter(is_stopped) else { return Ok(()) };
                let mut stats = row.stats;
                count_keys(&mut stats, &route, source.as_ref(), target.as_ref());
                tx.set_migration_stats(&id, &stats).await?;
                tx.commit().await
            };
            let noted: Result<()> = noted.await;
            if let Err(failure) = noted {
                tracing::debug!(migration = %id, "cannot save the final statistics: {failure}");
            }
        });
    }
}
