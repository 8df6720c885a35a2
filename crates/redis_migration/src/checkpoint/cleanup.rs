//! Removes and counts the reserved keys of migrations at a target.

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Reply;

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::slot_layout::SlotLayout;
use crate::checkpoint::{fencing, target_locks};
use crate::connection::RESERVED_PREFIX;
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;

/// Reserved keys of a migration at a single server; those at a cluster are not counted.
///
/// # Errors
/// An error of the connection.
pub async fn count_reserved_keys(query: &mut QueryClient, names: &KeyNames) -> Result<u64> {
    if query.is_cluster() {
        return Ok(0);
    }
    let mut all =
        SlotLayout::read(query, names).await.ok().flatten().map_or(vec![], |layout| layout.links(names));
    all.push(names.clone());
    let mut words: Vec<&[u8]> = vec![b"EXISTS"];
    let locks = target_locks::locks_key();
    words.push(&locks);
    words.extend(all.iter().flat_map(|n| {
        [&n.checkpoint[..], &n.suspects, &n.scripts, &n.fencing_token, &n.existing, &n.failed]
    }));
    let found = query.call(0, &names.checkpoint, &words).await?;
    Ok(found.number().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Takes away what stands at a target about a migration that will not go on; its data stay.
///
/// # Errors
/// An error of a connection.
pub async fn forget(target: &Node, names: &KeyNames) -> Result<()> {
    let (mut query, ..) = QueryClient::open(target, Side::Target).await?;
    // Where the source is a cluster, each of its links has names of its own.
    let mut all =
        SlotLayout::read(&mut query, names).await.ok().flatten().map_or(vec![], |layout| layout.links(names));
    all.push(names.clone());
    for names in &all {
        query.execute(&names.existing, &[b"DEL", &names.existing]).await?;
    }
    forget_links(&mut query, &all).await
}

/// Removes every key of migrations at a target, whichever migration left it; the data stay. Answers how many there were.
///
/// # Errors
/// [`Kind::Conflict`] while a migration writes there, unless `anyway`; an error of a connection.
pub async fn clean(target: &Node, anyway: bool) -> Result<u64> {
    let (mut query, server, _) = QueryClient::open(target, Side::Target).await?;
    let writers = String::from_utf8_lossy(&[RESERVED_PREFIX, b"writer:"].concat()).into_owned();
    let masters = query.masters();
    for addr in masters.iter().filter(|_| !anyway) {
        let reply = match query.client_at(addr).await?.call(&[b"CLIENT", b"LIST"]).await {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => {
                let m = format!(
                    "{}: cannot determine whether a migration is writing to this target: {}",
                    target.display_url(),
                    f.message
                );
                return Err(Error::new(Kind::Conflict, "clean", m).at(Side::Target));
            }
            reply => reply.map_err(|f| f.at(Side::Target))?,
        };
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        if text.split(' ').any(|word| word.strip_prefix("name=").is_some_and(|n| n.starts_with(&writers))) {
            let m = format!("{}: a migration is writing to this target", target.display_url());
            return Err(Error::new(Kind::Conflict, "clean", m).at(Side::Target));
        }
    }
    let mut dbs = server.dbs.clone();
    if server.has_databases() && !dbs.contains(&0) {
        dbs.push(0);
    }
    let (pattern, mut gone) = ([RESERVED_PREFIX, b"*"].concat(), 0);
    for db in dbs {
        query.select(db).await?;
        for addr in &masters {
            let mut cursor = b"0".to_vec();
            loop {
                let words: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", b"1000"];
                let page = query.client_at(addr).await?.call(&words).await.map_err(|f| f.at(Side::Target))?;
                let Some([next, keys]) = page.array() else { break };
                let keys = keys.array().unwrap_or_default().iter().filter_map(Reply::text);
                let keys: Vec<Vec<u8>> =
                    keys.filter(|k| k.starts_with(RESERVED_PREFIX)).map(<[u8]>::to_vec).collect();
                cursor = next.text().unwrap_or(b"0").to_vec();
                let done = query.call_each(&keys, &[b"DEL"], &[]).await?;
                gone += done.iter().filter(|reply| reply.number() == Some(1)).count() as u64;
                if cursor == b"0" {
                    break;
                }
            }
        }
    }
    Ok(gone)
}

/// What stands at a target about some links of a migration; its data stay.
///
/// # Errors
/// An error of a connection.
pub(crate) async fn forget_links(query: &mut QueryClient, links: &[KeyNames]) -> Result<()> {
    for names in links {
        fencing::invalidate(query, names).await?;
        query.execute(&names.fencing_token, &[b"DEL", &names.fencing_token]).await?;
        target_locks::release(query, names).await?;
    }
    Ok(())
}
