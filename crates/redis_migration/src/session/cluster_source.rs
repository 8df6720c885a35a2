//! A cluster as a source: one link to each of its masters, together one migration.
//!
//! Decision: ADR 0013, `docs/adr/0013-full-resync-on-source-slot-migration.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::error::{Error, Kind, Reason, Result, Side};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::selection::Selection;
use crate::checkpoint::slot_layout::SlotLayout;
use crate::checkpoint::{cleanup, fencing, slot_layout, target_locks};
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::topology::Topology;
use crate::events::{Event, EventSender};
use crate::migration::{Migration, Options, SourceMaster, Until};
use crate::progress::{Progress, Summary};
use crate::snapshot::load::add_counts;
use crate::stream::apply::full_resync_needed;

/// How often the numbers of the links are put together.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// How often the source is asked whether slots are being migrated.
const SLOT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Looks at slots that are on their way, before that is given up.
const SLOT_RETRIES_MAX: u32 = 600;

/// What is known of one link.
#[derive(Clone, Copy, Debug, Default)]
struct LinkState {
    loaded: Option<(u64, f64)>,
    caught_up: bool,
}

/// Moves every master of a cluster. When slots go from one to another, a full resynchronisation begins as soon as they are stable.
pub(crate) async fn run(migration: &Migration) -> Result<Summary> {
    let mut all = Summary::default();
    let mut full_resync = false;
    loop {
        let Some(topology) = stable_topology(migration, full_resync).await? else {
            all.done = false;
            return Ok(all);
        };
        if let Some((what, slots)) = topology.uncovered_slots() {
            all.full.unsupported.insert(what, slots);
        }
        let target_was_empty = prepare_target(migration, &topology, full_resync, &mut all).await?;
        let failure = match run_links(migration, &topology, target_was_empty, &mut all).await {
            Err(f) if f.reason == Reason::FullResync => f,
            done => {
                done?;
                if all.done && migration.options.until == Until::Full {
                    let (mut query, ..) = QueryClient::open(&migration.target, Side::Target).await?;
                    cleanup::forget_links(&mut query, std::slice::from_ref(&migration.names)).await?;
                }
                return Ok(all);
            }
        };
        tracing::warn!("{failure}");
        let m = format!("{}: a full sync will start when slot migration has finished", failure.message);
        migration
            .options
            .event_sender
            .send(Event::Disconnected { failure: Error { message: m, ..failure }, delay: SLOT_RETRY_DELAY });
        migration.progress.phase.store(0, Ordering::Relaxed);
        full_resync = true;
    }
}

/// Waits until no slot is on its way; `moved`: slots moved a moment ago, and may go on to. None when a stop came.
async fn stable_topology(migration: &Migration, moved: bool) -> Result<Option<Topology>> {
    let (mut before, mut said) = (None, None);
    for _ in 0..SLOT_RETRIES_MAX {
        let topology = Topology::query(&migration.source).await.map_err(|f| f.at(Side::Source))?;
        let layout = SlotLayout::from_topology(&topology, false);
        let masters = topology.masters();
        let migrating =
            slot_layout::migrating_slot(&migration.source, &masters).await.map_err(|f| f.at(Side::Source))?;
        if migrating.is_none() && (!moved || before.as_ref() == Some(&layout)) {
            return Ok(Some(topology));
        }
        if let Some(migrating) = migrating.filter(|migrating| said.as_ref() != Some(migrating)) {
            let m = format!(
                "{migrating}; waiting for slot migration to finish; hint: `CLUSTER SETSLOT … STABLE` or `redis-cli \
                 --cluster fix` ends it"
            );
            let failure = Error::new(Kind::Unavailable, "source_cluster", m).at(Side::Source);
            migration.options.event_sender.send(Event::Disconnected { failure, delay: SLOT_RETRY_DELAY });
            said = Some(migrating);
        }
        before = Some(layout);
        tokio::select! {
            () = tokio::time::sleep(SLOT_RETRY_DELAY) => {}
            () = migration.stop.cancelled() => return Ok(None),
        }
    }
    let migrating = said.unwrap_or_else(|| "slots of the source are migrating".into());
    let m = format!(
        "{migrating} for 10 minutes; hint: finish or cancel the slot migration first (`CLUSTER SETSLOT`)"
    );
    Err(Error::new(Kind::Unavailable, "source_cluster", m).at(Side::Source))
}

/// What stands at the target counts only when the source is divided as it was; `full_resync`: it does not in any case. Answers
/// whether the target holds nothing but what this migration has brought.
async fn prepare_target(
    migration: &Migration,
    topology: &Topology,
    full_resync: bool,
    all: &mut Summary,
) -> Result<bool> {
    let (mut query, server, _) = QueryClient::open(&migration.target, Side::Target).await?;
    let reserved = if server.missing.transactions { 0 } else { target_locks::count_keys(&mut query).await? };
    let mut layout = SlotLayout::from_topology(topology, server.keys <= reserved);
    if let Some(known) = SlotLayout::read(&mut query, &migration.names).await? {
        layout.target_was_empty = known.target_was_empty;
        if !full_resync && known == layout {
            return Ok(layout.target_was_empty);
        }
        let links = known.links(&migration.names);
        fencing::evict_link_writers(&migration.target, &mut query, &links).await?;
        // Clients may use the target since an earlier run: it is not emptied.
        layout.target_was_empty &= full_resync;
        if layout.target_was_empty {
            let route = &migration.options.route;
            let selection = Selection { dbs: route.db(0).into_iter().collect(), route, ranges: None };
            migration.note(selection.delete(&mut query, &migration.names, None).await?, all);
        } else {
            let note = "slots moved between masters of the source, so a new full sync was made. Keys that the source \
                 deleted in between may remain at the target";
            migration.note(Some(note.into()), all);
        }
        cleanup::forget_links(&mut query, &links).await?;
    }
    layout.write(&mut query, &migration.names).await?;
    Ok(layout.target_was_empty)
}

/// The links to all masters of a cluster, in the order of its shards.
struct Links {
    tasks: JoinSet<Result<Summary>>,
    progress: Vec<Arc<Progress>>,
    receivers: Vec<mpsc::Receiver<Event>>,
}

fn start_links(
    migration: &Migration,
    topology: &Topology,
    layout: &SlotLayout,
    all_addrs: &Node,
    stop: &CancellationToken,
) -> Links {
    let mut links = Links { tasks: JoinSet::new(), progress: Vec::new(), receivers: Vec::new() };
    let target_was_empty = layout.target_was_empty;
    for (i, (shard, names)) in topology.shards.iter().zip(layout.links(&migration.names)).enumerate() {
        let (event_sender, receiver) = EventSender::channel();
        // Who follows the master may take its place.
        let addrs = std::iter::once(&shard.master).chain(&shard.replicas).cloned().collect();
        let master = SourceMaster {
            cluster: all_addrs.clone(),
            ranges: shard.ranges.clone(),
            target_was_empty,
            is_first: i == 0,
        };
        let link = Migration {
            source: Node { addrs, ..migration.source.clone() },
            target: migration.target.clone(),
            options: Options { event_sender, ..migration.options.clone() },
            clock: migration.clock.clone(),
            progress: Arc::default(),
            stop: stop.clone(),
            finish: migration.finish.clone(),
            names,
            shard: Some(master),
        };
        links.progress.push(link.progress.clone());
        links.receivers.push(receiver);
        links.tasks.spawn(async move { link.run_link().await });
    }
    links
}

/// One link to each master, until all of them are done; the first failure ends all.
async fn run_links(
    migration: &Migration,
    topology: &Topology,
    target_was_empty: bool,
    all: &mut Summary,
) -> Result<()> {
    let stop = migration.stop.child_token();
    // Any node that is left knows the slot layout.
    let all_addrs = Node { db: None, ..migration.source.clone() }.with_addrs(topology.all_addrs());
    let layout = SlotLayout::from_topology(topology, target_was_empty);
    let Links { mut tasks, progress, mut receivers } =
        start_links(migration, topology, &layout, &all_addrs, &stop);
    (all.done, all.resumable) = (true, true);
    let mut known = vec![LinkState::default(); receivers.len()];
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    let mut broke = None;
    let mut moved = std::pin::pin!(wait_for_slot_move(&all_addrs, &layout));
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok(Ok(one))) => add_summary(all, one),
                Some(Ok(Err(failure))) => {
                    // The other links stop first, so that their offsets are known.
                    stop.cancel();
                    broke.get_or_insert(failure);
                }
                Some(Err(e)) => {
                    stop.cancel();
                    broke.get_or_insert(Error::new(Kind::Internal, "source_cluster", e.to_string()));
                }
            },
            failure = &mut moved, if broke.is_none() => {
                stop.cancel();
                broke = Some(failure);
            }
            _ = tick.tick() => {
                forward_events(&migration.options.event_sender, &mut receivers, &mut known);
                merge_progress(&migration.progress, &progress);
            }
        }
    }
    forward_events(&migration.options.event_sender, &mut receivers, &mut known);
    merge_progress(&migration.progress, &progress);
    if let Some(failure) = broke {
        return Err(failure);
    }
    // A slot may have gone since the last look, and the end would be none.
    if all.done && !is_stable(&all_addrs, &layout).await.map_err(|f| f.at(Side::Source))? {
        return Err(slots_moved());
    }
    Ok(())
}

/// True while the source is divided as it was, and no slot is on its way.
async fn is_stable(all_addrs: &Node, layout: &SlotLayout) -> Result<bool> {
    let topology = Topology::query(all_addrs).await?;
    Ok(SlotLayout::from_topology(&topology, layout.target_was_empty) == *layout
        && slot_layout::migrating_slot(all_addrs, &topology.masters()).await?.is_none())
}

/// Looks again and again how the source is divided, until that changes.
async fn wait_for_slot_move(all_addrs: &Node, layout: &SlotLayout) -> Error {
    loop {
        tokio::time::sleep(SLOT_RETRY_DELAY).await;
        // While a master fails its slots are not served; its link handles that.
        if let Ok(false) = is_stable(all_addrs, layout).await {
            return slots_moved();
        }
    }
}

fn slots_moved() -> Error {
    let m = "a slot moved between masters of the source; their replication streams cannot be ordered";
    full_resync_needed(m)
}

fn add_summary(all: &mut Summary, one: Summary) {
    all.done &= one.done;
    all.full.keys += one.full.keys;
    all.full.empty += one.full.empty;
    all.full.functions = all.full.functions.max(one.full.functions);
    add_counts(&mut all.full.unsupported, one.full.unsupported);
    all.skipped_existing += one.skipped_existing;
    all.failed.extend(one.failed);
    all.full_seconds = all.full_seconds.max(one.full_seconds);
    all.resumable &= one.resumable;
    all.full_syncs += one.full_syncs;
    all.partial_syncs += one.partial_syncs;
    for note in one.notes {
        if !all.notes.contains(&note) {
            all.notes.push(note);
        }
    }
}

/// Passes on what the links say; that something is reached only when all of them have reached it.
fn forward_events(
    event_sender: &EventSender,
    receivers: &mut [mpsc::Receiver<Event>],
    known: &mut [LinkState],
) {
    for i in 0..receivers.len() {
        while let Ok(event) = receivers[i].try_recv() {
            let was = (known.iter().all(|l| l.loaded.is_some()), known.iter().all(|l| l.caught_up));
            match &event {
                Event::SnapshotStarted { .. } => known[i] = LinkState::default(),
                Event::SnapshotLoaded { keys, seconds } => known[i].loaded = Some((*keys, *seconds)),
                Event::Resumed { .. } => known[i].loaded = Some((0, 0.0)),
                Event::CaughtUp => known[i].caught_up = true,
                Event::Disconnected { .. } | Event::Note(_) => {}
            }
            let (loaded, caught_up) =
                (known.iter().all(|l| l.loaded.is_some()), known.iter().all(|l| l.caught_up));
            match event {
                Event::SnapshotLoaded { .. } if loaded && !was.0 => {
                    let call_each = || known.iter().filter_map(|l| l.loaded);
                    let seconds = call_each().map(|(_, s)| s).fold(0.0, f64::max);
                    event_sender
                        .send(Event::SnapshotLoaded { keys: call_each().map(|(n, _)| n).sum(), seconds });
                }
                Event::CaughtUp if caught_up && !was.1 => event_sender.send(Event::CaughtUp),
                Event::SnapshotLoaded { .. } | Event::CaughtUp => {}
                Event::Resumed { offset } if loaded => event_sender.send(Event::Resumed { offset }),
                Event::Resumed { .. } => {}
                // All of them have the same target.
                Event::Note(_) if i > 0 => {}
                other => event_sender.send(other),
            }
        }
    }
}

/// The numbers of all links as those of one migration: the least phase, the greatest delay, everything else summed.
fn merge_progress(migration: &Progress, links: &[Arc<Progress>]) {
    let sum =
        |of: fn(&Progress) -> &AtomicU64| links.iter().map(|p| of(p).load(Ordering::Relaxed)).sum::<u64>();
    let least = links.iter().map(|p| p.phase.load(Ordering::Relaxed)).min().unwrap_or(0);
    let slowest = links.iter().map(|p| p.lag_ms.load(Ordering::Relaxed)).max().unwrap_or(0);
    let set = |n: &AtomicU64, to: u64| n.store(to, Ordering::Relaxed);
    set(&migration.phase, least);
    set(&migration.lag_ms, slowest);
    set(&migration.keys, sum(|p| &p.keys));
    set(&migration.keys_expected, sum(|p| &p.keys_expected));
    set(&migration.full_bytes, sum(|p| &p.full_bytes));
    set(&migration.commands, sum(|p| &p.commands));
    set(&migration.stream_bytes, sum(|p| &p.stream_bytes));
    set(&migration.applied, sum(|p| &p.applied));
    set(&migration.lag_bytes, sum(|p| &p.lag_bytes));
}
