//! A cluster as a source: one link to each of its masters, together one migration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::failure::Result;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::mover::{Mover, Options, Progress, Summary};
use crate::news::{News, Teller};
use crate::node::Node;
use crate::topology::Topology;

/// How often the numbers of the links are put together.
const TOGETHER: Duration = Duration::from_millis(50);

/// What is known of one link.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    loaded: Option<(u64, f64)>,
    level: bool,
}

/// Moves every shard of a cluster; the first failure ends all.
pub(crate) async fn run(whole: &Mover, topology: &Topology) -> Result<Summary> {
    let stop = whole.stop.child_token();
    let (mut links, mut progress, mut ears) = (JoinSet::new(), Vec::new(), Vec::new());
    // Whoever is left can say who has which slots.
    let mut everybody = Node { db: None, ..whole.source.clone() };
    for addr in topology.shards.iter().flat_map(|s| std::iter::once(&s.master).chain(&s.replicas)) {
        if !everybody.addrs.contains(addr) {
            everybody.addrs.push(addr.clone());
        }
    }
    for shard in &topology.shards {
        let (teller, news) = Teller::channel();
        let first = shard.ranges.first().map_or(0, |(from, _)| *from);
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
            names: whole.names.link(first),
            shard: Some((everybody.clone(), first)),
        };
        progress.push(link.progress.clone());
        ears.push(news);
        links.spawn(async move { link.run_link().await });
    }
    let mut all = Summary { done: true, ..Summary::default() };
    let mut known = vec![Link::default(); ears.len()];
    let mut tick = tokio::time::interval(TOGETHER);
    let mut broke = None;
    loop {
        tokio::select! {
            ended = links.join_next() => match ended {
                None => break,
                Some(Ok(Ok(one))) => add(&mut all, one),
                Some(Ok(Err(failure))) => {
                    // The others come to rest first, so that their positions are known.
                    stop.cancel();
                    broke.get_or_insert(failure);
                }
                Some(Err(_)) => stop.cancel(),
            },
            _ = tick.tick() => {
                hear(&whole.options.teller, &mut ears, &mut known);
                put_together(&whole.progress, &progress);
            }
        }
    }
    hear(&whole.options.teller, &mut ears, &mut known);
    put_together(&whole.progress, &progress);
    match broke {
        Some(failure) => Err(failure),
        None => Ok(all),
    }
}

fn add(all: &mut Summary, one: Summary) {
    all.done &= one.done;
    all.full.keys += one.full.keys;
    all.full.functions = all.full.functions.max(one.full.functions);
    for (what, n) in one.full.left_out {
        *all.full.left_out.entry(what).or_default() += n;
    }
    all.left_alone += one.left_alone;
    all.failed.extend(one.failed);
    all.full_seconds = all.full_seconds.max(one.full_seconds);
    all.full_syncs += one.full_syncs;
    all.partial_syncs += one.partial_syncs;
    all.notes.extend(one.notes);
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
                News::Lost { .. } => {}
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
