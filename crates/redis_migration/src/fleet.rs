//! A cluster as a source: one link to each of its masters, together one migration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::failure::{Failure, Kind, Result, Side};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::apply::ANEW;
use crate::asker::Asker;
use crate::claims;
use crate::mover::{Master, Mover, Options, Until};
use crate::news::{News, Teller};
use crate::node::Node;
use crate::parts::{self, Parts};
use crate::progress::{Progress, Summary};
use crate::topology::Topology;

/// How often the numbers of the links are put together.
const TOGETHER: Duration = Duration::from_millis(50);

/// How often it is looked whether slots of the source move, and whether they rest again.
const REST: Duration = Duration::from_secs(1);
/// Looks at slots that are on their way, before that is given up.
const RESTS: u32 = 600;

/// What is known of one link.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    loaded: Option<(u64, f64)>,
    level: bool,
}

/// Moves every master of a cluster. When slots go from one to another, everything begins anew as soon as they rest.
pub(crate) async fn run(whole: &Mover) -> Result<Summary> {
    let mut all = Summary::default();
    let mut anew = false;
    loop {
        let Some(topology) = settled(whole, anew).await? else {
            all.done = false;
            return Ok(all);
        };
        if let Some((what, slots)) = topology.not_served() {
            all.full.left_out.insert(what, slots);
        }
        let alone = begin(whole, &topology, anew, &mut all).await?;
        let failure = match links(whole, &topology, alone, &mut all).await {
            Err(f) if f.op == ANEW => f,
            done => {
                done?;
                if all.done && whole.options.until == Until::Full {
                    let (mut ask, ..) = Asker::open(&whole.target, Side::Target).await?;
                    parts::forget(&mut ask, std::slice::from_ref(&whole.names)).await?;
                }
                return Ok(all);
            }
        };
        tracing::warn!("{failure}");
        let m = format!("{}: a full sync will start when slot migration has finished", failure.message);
        whole.options.teller.tell(News::Lost { failure: Failure { message: m, ..failure }, delay: REST });
        whole.progress.phase.store(0, Ordering::Relaxed);
        anew = true;
    }
}

/// Waits until no slot is on its way; `moved`: slots moved a moment ago, and may go on to. None when a stop came.
async fn settled(whole: &Mover, moved: bool) -> Result<Option<Topology>> {
    let (mut before, mut said) = (None, None);
    for _ in 0..RESTS {
        let topology = Topology::ask(&whole.source).await.map_err(|f| f.at(Side::Source))?;
        let parts = Parts::of(&topology, false);
        let masters = topology.masters();
        let way = parts::on_the_way(&whole.source, &masters).await.map_err(|f| f.at(Side::Source))?;
        if way.is_none() && (!moved || before.as_ref() == Some(&parts)) {
            return Ok(Some(topology));
        }
        if let Some(way) = way.filter(|way| said.as_ref() != Some(way)) {
            let m = format!(
                "{way}; waiting for slot migration to finish; hint: `CLUSTER SETSLOT … STABLE` or `redis-cli \
                 --cluster fix` ends it"
            );
            let failure = Failure::new(Kind::Unavailable, "fleet", m).at(Side::Source);
            whole.options.teller.tell(News::Lost { failure, delay: REST });
            said = Some(way);
        }
        before = Some(parts);
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = whole.stop.cancelled() => return Ok(None),
        }
    }
    let way = said.unwrap_or_else(|| "slots of the source are migrating".into());
    let m =
        format!("{way} for 10 minutes; hint: finish or cancel the slot migration first (`CLUSTER SETSLOT`)");
    Err(Failure::new(Kind::Unavailable, "fleet", m).at(Side::Source))
}

/// What stands at the target counts only when the source is divided as it was; `anew`: it does not in any case. Answers
/// whether the target holds nothing but what this migration has brought.
async fn begin(whole: &Mover, topology: &Topology, anew: bool, all: &mut Summary) -> Result<bool> {
    let (mut ask, server, _) = Asker::open(&whole.target, Side::Target).await?;
    let ours = if server.lacks.transactions { 0 } else { claims::keys(&mut ask).await? };
    let mut parts = Parts::of(topology, server.keys <= ours);
    if let Some(known) = Parts::read(&mut ask, &whole.names).await? {
        parts.alone = known.alone;
        if !anew && known == parts {
            return Ok(parts.alone);
        }
        let links = known.links(&whole.names);
        parts::shut_out(&whole.target, &mut ask, &links).await?;
        // Since an earlier run somebody may have begun to work with the target: that is not emptied.
        parts.alone &= anew;
        if parts.alone {
            parts::empty(&mut ask, &server, whole.options.route.db(0)).await?;
        } else {
            let note = "slots moved between masters of the source, so a new full sync was made. Keys that the source \
                 deleted in between may remain at the target";
            all.notes.push(note.into());
        }
        parts::forget(&mut ask, &links).await?;
    }
    parts.write(&mut ask, &whole.names).await?;
    Ok(parts.alone)
}

/// One link to each master, until all of them are done; the first failure ends all.
async fn links(whole: &Mover, topology: &Topology, alone: bool, all: &mut Summary) -> Result<()> {
    let stop = whole.stop.child_token();
    let (mut links, mut progress, mut ears) = (JoinSet::new(), Vec::new(), Vec::new());
    // Whoever is left can say who has which slots.
    let everybody = Node { db: None, ..whole.source.clone() }.with(topology.everybody());
    let parts = Parts::of(topology, alone);
    for (i, (shard, names)) in topology.shards.iter().zip(parts.links(&whole.names)).enumerate() {
        let (teller, news) = Teller::channel();
        // Who follows the master may take its place.
        let addrs = std::iter::once(&shard.master).chain(&shard.replicas).cloned().collect();
        let link = Mover {
            source: Node { addrs, ..whole.source.clone() },
            target: whole.target.clone(),
            options: Options { teller, ..whole.options.clone() },
            clock: whole.clock.clone(),
            progress: Arc::default(),
            stop: stop.clone(),
            finish: whole.finish.clone(),
            names,
            shard: Some(Master {
                whole: everybody.clone(),
                ranges: shard.ranges.clone(),
                alone,
                leads: i == 0,
            }),
        };
        progress.push(link.progress.clone());
        ears.push(news);
        links.spawn(async move { link.run_link().await });
    }
    (all.done, all.resumable) = (true, true);
    let mut known = vec![Link::default(); ears.len()];
    let mut tick = tokio::time::interval(TOGETHER);
    let mut broke = None;
    let mut moved = std::pin::pin!(moved(&everybody, &parts));
    loop {
        tokio::select! {
            ended = links.join_next() => match ended {
                None => break,
                Some(Ok(Ok(one))) => add(all, one),
                Some(Ok(Err(failure))) => {
                    // The others come to rest first, so that their positions are known.
                    stop.cancel();
                    broke.get_or_insert(failure);
                }
                Some(Err(e)) => {
                    stop.cancel();
                    broke.get_or_insert(Failure::new(Kind::Internal, "fleet", e.to_string()));
                }
            },
            failure = &mut moved, if broke.is_none() => {
                stop.cancel();
                broke = Some(failure);
            }
            _ = tick.tick() => {
                hear(&whole.options.teller, &mut ears, &mut known);
                put_together(&whole.progress, &progress);
            }
        }
    }
    hear(&whole.options.teller, &mut ears, &mut known);
    put_together(&whole.progress, &progress);
    if let Some(failure) = broke {
        return Err(failure);
    }
    // A slot may have gone since the last look, and the end would be none.
    if all.done && !rests(&everybody, &parts).await.map_err(|f| f.at(Side::Source))? {
        return Err(moves());
    }
    Ok(())
}

/// True while the source is divided as it was, and no slot is on its way.
async fn rests(everybody: &Node, parts: &Parts) -> Result<bool> {
    let topology = Topology::ask(everybody).await?;
    Ok(Parts::of(&topology, parts.alone) == *parts
        && parts::on_the_way(everybody, &topology.masters()).await?.is_none())
}

/// Looks again and again how the source is divided, until that changes.
async fn moved(everybody: &Node, parts: &Parts) -> Failure {
    loop {
        tokio::time::sleep(REST).await;
        // While a master fails there is nobody for its slots; its link knows what to do.
        if let Ok(false) = rests(everybody, parts).await {
            return moves();
        }
    }
}

fn moves() -> Failure {
    let m = "a slot moved between masters of the source; their replication streams cannot be ordered";
    Failure::new(Kind::Changed, ANEW, m).at(Side::Source)
}

fn add(all: &mut Summary, one: Summary) {
    all.done &= one.done;
    all.full.keys += one.full.keys;
    all.full.empty += one.full.empty;
    all.full.functions = all.full.functions.max(one.full.functions);
    for (what, n) in one.full.left_out {
        *all.full.left_out.entry(what).or_default() += n;
    }
    all.left_alone += one.left_alone;
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
fn hear(teller: &Teller, ears: &mut [mpsc::Receiver<News>], known: &mut [Link]) {
    for i in 0..ears.len() {
        while let Ok(news) = ears[i].try_recv() {
            let was = (known.iter().all(|l| l.loaded.is_some()), known.iter().all(|l| l.level));
            match &news {
                News::Snapshot { .. } => known[i] = Link::default(),
                News::Loaded { keys, seconds } => known[i].loaded = Some((*keys, *seconds)),
                News::Continued { .. } => known[i].loaded = Some((0, 0.0)),
                News::CaughtUp => known[i].level = true,
                News::Lost { .. } | News::Note(_) => {}
            }
            let (loaded, level) = (known.iter().all(|l| l.loaded.is_some()), known.iter().all(|l| l.level));
            match news {
                News::Loaded { .. } if loaded && !was.0 => {
                    let each = || known.iter().filter_map(|l| l.loaded);
                    let seconds = each().map(|(_, s)| s).fold(0.0, f64::max);
                    teller.tell(News::Loaded { keys: each().map(|(n, _)| n).sum(), seconds });
                }
                News::CaughtUp if level && !was.1 => teller.tell(News::CaughtUp),
                News::Loaded { .. } | News::CaughtUp => {}
                News::Continued { offset } if loaded => teller.tell(News::Continued { offset }),
                News::Continued { .. } => {}
                // All of them have the same target.
                News::Note(_) if i > 0 => {}
                other => teller.tell(other),
            }
        }
    }
}

/// The numbers of all links as those of one migration: the least phase, the greatest delay, everything else summed.
fn put_together(whole: &Progress, links: &[Arc<Progress>]) {
    let sum =
        |of: fn(&Progress) -> &AtomicU64| links.iter().map(|p| of(p).load(Ordering::Relaxed)).sum::<u64>();
    let least = links.iter().map(|p| p.phase.load(Ordering::Relaxed)).min().unwrap_or(0);
    let slowest = links.iter().map(|p| p.lag_ms.load(Ordering::Relaxed)).max().unwrap_or(0);
    let set = |n: &AtomicU64, to: u64| n.store(to, Ordering::Relaxed);
    set(&whole.phase, least);
    set(&whole.lag_ms, slowest);
    set(&whole.keys, sum(|p| &p.keys));
    set(&whole.keys_expected, sum(|p| &p.keys_expected));
    set(&whole.full_bytes, sum(|p| &p.full_bytes));
    set(&whole.commands, sum(|p| &p.commands));
    set(&whole.stream_bytes, sum(|p| &p.stream_bytes));
    set(&whole.applied, sum(|p| &p.applied));
    set(&whole.lag_bytes, sum(|p| &p.lag_bytes));
}
