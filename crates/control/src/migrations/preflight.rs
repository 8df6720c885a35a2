//! Checks before a migration is accepted (dcs-migration.md §3.5): what is wrong is said now, with the member and the address,
//! not in a failed task later.

use std::time::Duration;

use model::error::{Error, Kind, Side};
use model::migration::{Backup, Method, MigrationSpec};
use redis_migration::Node;
use redis_migration::connection::RESERVED_PREFIX;
use redis_migration::connection::client::Client;
use redis_migration::connection::query_client::QueryClient;
use redis_migration::connection::server::MissingFeatures;
use redis_migration::connection::server::ServerInfo;
use redis_migration::route::Route;
use redis_proto::command::tag;
use runtime::StoreResolver;
use runtime::migrations::{EndSecrets, check_backup};

use super::error::from_failure;
use super::{MigrationError, MigrationReply, backup_of};
use crate::outgoing::OutgoingCall;

/// All checks together may take so long.
const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(20);
/// One end may take so long to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// A source that gives up a replica earlier than this may do so during the full phase, seconds.
const REPL_TIMEOUT: u64 = 60;

/// One end that has answered.
struct ReachedServer {
    client: Client,
    server: ServerInfo,
    node: Node,
}

impl OutgoingCall {
    /// Looks at both ends of an online migration; answers what is worth a warning. A password that a server does not want
    /// is forgotten.
    pub(super) async fn preflight(
        &self,
        spec: &mut MigrationSpec,
        secrets: &mut EndSecrets,
        own: Option<&str>,
    ) -> MigrationReply<Vec<String>> {
        let control = &self.control;
        let mut tx = control.engine.store().read().await?;
        let redirects = tx.redirects().await?;
        control.check_target(&mut tx, spec, secrets, own).await?;
        drop(tx);
        let source = control.node(spec, secrets, Side::Source, &redirects)?;
        let target = control.node(spec, secrets, Side::Target, &redirects)?;
        if source.addrs.iter().any(|a| target.addrs.contains(a)) {
            let why = "source and target are the same server";
            return Err(MigrationError::UnusableInstance("target_instance.addrs".into(), why.into()));
        }
        let looked = async {
            let mut warnings = Vec::new();
            let mut source = answering(source, spec, secrets, Side::Source, &mut warnings).await?;
            let mut target = answering(target, spec, secrets, Side::Target, &mut warnings).await?;
            check_source(&mut source, spec, &mut warnings).await?;
            spec.target_runs = Some(target.server.run_id.clone()).filter(|id| !id.is_empty());
            check_both(&source.server, &target.server, &mut warnings)?;
            let route = runtime::migrations::route(spec);
            check_dbs(&route, &source.server.dbs, &mut target).await?;
            if spec.method == Some(Method::Full) {
                warnings.push(
                    "full migration: writes to the source during the migration are not migrated".into(),
                );
            }
            Ok(warnings)
        };
        in_time(looked).await
    }

    /// Looks at the target and the files of an import.
    pub(super) async fn preflight_import(
        &self,
        project: &str,
        spec: &MigrationSpec,
        secrets: &mut EndSecrets,
    ) -> MigrationReply<Vec<String>> {
        let control = &self.control;
        let mut tx = control.engine.store().read().await?;
        let redirects = tx.redirects().await?;
        control.check_target(&mut tx, spec, secrets, None).await?;
        if let Backup::Record(id) = backup_of(spec)? {
            let found = tx.backup_of(project, id).await?;
            if found.is_none_or(|b| b.status != "succeed") || !control.engine.backup_path(id).is_file() {
                return Err(MigrationError::Backup(format!(
                    "backup_files.backup_id: `{id:.64}` is not a usable backup"
                )));
            }
        }
        drop(tx);
        let target = control.node(spec, secrets, Side::Target, &redirects)?;
        let looked = async {
            let mut warnings = Vec::new();
            let mut target = answering(target, spec, secrets, Side::Target, &mut warnings).await?;
            check_dbs(&runtime::migrations::route(spec), &[], &mut target).await?;
            if let Backup::Bucket { bucket, files } = backup_of(spec)? {
                for (i, file) in files.iter().enumerate() {
                    let member = format!("backup_files.files[{i}].file_name");
                    let opened = control.catalogue.backup(bucket, &file.name).await;
                    let opened = opened.map_err(|f| match f.kind {
                        Kind::NoBucket => {
                            MigrationError::UnusableInstance("backup_files.bucket_name".into(), f.message)
                        }
                        _ => MigrationError::UnusableInstance(member.clone(), f.message),
                    })?;
                    check_backup(&opened).await.map_err(|f| {
                        MigrationError::UnusableInstance(
                            member,
                            format!("`{:.200}`: {}", file.name, f.message),
                        )
                    })?;
                }
            }
            Ok(warnings)
        };
        in_time(looked).await
    }
}

async fn in_time<T>(looked: impl Future<Output = MigrationReply<T>>) -> MigrationReply<T> {
    tokio::time::timeout(PREFLIGHT_TIMEOUT, looked).await.unwrap_or_else(|_| {
        let why = "the checks did not finish within 20 s";
        Err(MigrationError::UnusableInstance("source_instance, target_instance".into(), why.into()))
    })
}

/// An end that answers; all its addresses do.
async fn answering(
    mut node: Node,
    spec: &MigrationSpec,
    secrets: &mut EndSecrets,
    side: Side,
    warnings: &mut Vec<String>,
) -> MigrationReply<ReachedServer> {
    let (member, end) = match side {
        Side::Source => ("source_instance", &spec.source),
        _ => ("target_instance", &spec.target),
    };
    let registered = end.as_ref().is_some_and(|e| e.id.is_some());
    let denied = |f: &Error| from_failure(member, registered, f);
    let opened = open(&node, side).await;
    let (client, server) = match opened {
        Err(f) if f.kind == Kind::BadCredentials && !node.password.is_empty() => {
            // A password that a server does not know of is no reason to stop.
            let bare = Node { password: String::new(), user: String::new(), ..node.clone() };
            let opened = open(&bare, side).await.map_err(|_| denied(&f))?;
            node = bare;
            warnings.push(format!(
                "{member}: the server has no password; the password of the request is not used"
            ));
            match side {
                Side::Source => secrets.source = seal::Secret::default(),
                _ => secrets.target = seal::Secret::default(),
            }
            opened
        }
        opened => opened.map_err(|f| denied(&f))?,
    };
    for addr in node.addrs.iter().skip(1) {
        open(&node.at_addr(addr), side).await.map_err(|f| denied(&f))?;
    }
    // A cluster is asked for its masters.
    if side == Side::Target && server.is_replica && !server.cluster {
        return Err(MigrationError::ReadOnly(format!(
            "{member}: {} is a replica; hint: use the address of its \
             master",
            node.display_url()
        )));
    }
    if side == Side::Target {
        check_writes(&node)
            .await
            .map_err(|f| MigrationError::ReadOnly(format!("{member}: {}", f.message)))?;
    }
    Ok(ReachedServer { client, server, node })
}

/// Writes a reserved key to each server of a target and deletes it: a server that rejects this rejects everything.
async fn check_writes(node: &Node) -> Result<(), Error> {
    let (mut query, _, topology) = QueryClient::open(node, Side::Target).await?;
    let slots: Vec<u16> = match &topology {
        Some(topology) => {
            topology.shards.iter().filter_map(|s| s.ranges.first().map(|(from, _)| *from)).collect()
        }
        None => vec![0],
    };
    for slot in slots {
        let key = [RESERVED_PREFIX, b"probe:{", tag(slot).as_bytes(), b"}"].concat();
        query.execute(&key, &[b"SET", &key, b"1", b"PX", b"1000"]).await?;
        query.execute(&key, &[b"DEL", &key]).await?;
    }
    Ok(())
}

async fn open(node: &Node, side: Side) -> Result<(Client, ServerInfo), Error> {
    let node = Node { db: None, ..node.clone() };
    let opened = async {
        let mut client = Client::open(&node).await?;
        let told = ServerInfo::query(&mut client).await;
        let server = if side == Side::Target { MissingFeatures::detect(&node, told).await? } else { told? };
        if server.missing != MissingFeatures::default() {
            // What it does not know may have ended the connection.
            client = Client::open(&node).await?;
        }
        Ok((client, server))
    };
    tokio::time::timeout(CONNECT_TIMEOUT, opened).await.unwrap_or_else(|_| {
        Err(Error::new(Kind::Timeout, "connect", format!("{}: no reply within 6 s", node.display_url())))
    })
}

/// The source lets itself be followed, and for long enough.
async fn check_source(
    source: &mut ReachedServer,
    spec: &MigrationSpec,
    warnings: &mut Vec<String>,
) -> MigrationReply<()> {
    if let Some(db) = spec.source.as_ref().and_then(|e| e.db).filter(|db| *db > 0)
        && source.client.execute(&[b"SELECT", db.to_string().as_bytes()]).await.is_err()
    {
        let why = format!("database {db} does not exist at {}", source.node.display_url());
        return Err(MigrationError::UnusableInstance("source_instance.db".into(), why));
    }
    let known = source.client.call(&[b"COMMAND", b"INFO", b"psync"]).await;
    let known = known.as_ref().map_or(true, |reply| {
        reply.array().is_none_or(|a| a.first().is_some_and(|c| c.array().is_some_and(|c| !c.is_empty())))
    });
    if !known {
        let why = format!(
            "source_instance: {} does not support PSYNC; hint: import a backup",
            source.node.display_url()
        );
        return Err(MigrationError::NotOnThisNode(why));
    }
    if let Ok(who) = source.client.call(&[b"ACL", b"WHOAMI"]).await
        && let Ok(may) = source
            .client
            .call(&[b"ACL", b"DRYRUN", who.text().unwrap_or_default(), b"PSYNC", b"?", b"-1"])
            .await
        && may.text() != Some(b"OK")
    {
        let why = format!(
            "source_instance: the user has no permission for PSYNC at {}; hint: grant +psync",
            source.node.display_url()
        );
        return Err(MigrationError::NotOnThisNode(why));
    }
    if let Some(seconds) = setting(&mut source.client, "repl-timeout").await
        && seconds.parse::<u64>().is_ok_and(|s| s < REPL_TIMEOUT)
    {
        warnings.push(format!(
            "source_instance: repl-timeout is {seconds} s; hint: set it to 300 s for the full sync"
        ));
    }
    if let Some(limits) = setting(&mut source.client, "client-output-buffer-limit").await {
        let words: Vec<&str> = limits.split_whitespace().collect();
        let replica = words.chunks(4).find(|w| matches!(w.first(), Some(&"slave" | &"replica")));
        let hard = replica.and_then(|w| w.get(1)?.parse::<u64>().ok()).unwrap_or(0);
        if hard > 0 && hard < source.server.used_memory / 5 {
            warnings.push(format!(
                "source_instance: client-output-buffer-limit of replicas is {hard} bytes; hint: raise it to {} bytes \
                 (a fifth of the data)",
                source.server.used_memory / 5
            ));
        }
    }
    Ok(())
}

async fn setting(client: &mut Client, name: &str) -> Option<String> {
    let reply = client.call(&[b"CONFIG", b"GET", name.as_bytes()]).await.ok()?;
    let value = reply.array()?.get(1)?.text()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn check_both(source: &ServerInfo, target: &ServerInfo, warnings: &mut Vec<String>) -> MigrationReply<()> {
    let one = !source.run_id.is_empty() && source.run_id == target.run_id;
    if one || (!source.replid.is_empty() && source.replid == target.replid) {
        let why = "source and target are the same server, or replicas of the same master";
        return Err(MigrationError::UnusableInstance("target_instance".into(), why.into()));
    }
    if target.rdb_version() < source.rdb_version() {
        warnings.push(format!(
            "the target ({}.{}) is older than the source ({}.{}): values in unsupported formats are rebuilt from \
             commands",
            target.version.0, target.version.1, source.version.0, source.version.1
        ));
    }
    if target.max_memory > 0 && target.max_memory < source.used_memory {
        warnings.push(format!(
            "maxmemory of the target ({} bytes) is below the used memory of the source ({} bytes)",
            target.max_memory, source.used_memory
        ));
    }
    Ok(())
}

/// Every database that data go to exists at the target.
async fn check_dbs(route: &Route, dbs: &[u32], target: &mut ReachedServer) -> MigrationReply<()> {
    let member = "target_instance.db";
    let missing = dbs.iter().find(|db| route.db(**db).is_some_and(|to| to != 0));
    if let (Some(db), true) = (missing, !target.server.has_databases()) {
        let why = format!(
            "the source has keys in database {db}, but the target has only database 0; hint: set the source db and \
             target db 0"
        );
        return Err(MigrationError::UnusableInstance(member.into(), why));
    }
    route.check(dbs).map_err(|f| MigrationError::UnusableInstance(member.into(), f.message))?;
    let mut named: Vec<u32> = dbs.iter().filter_map(|db| route.db(*db)).collect();
    named.extend(route.all_into.into_iter().chain(route.db_map.values().copied()));
    named.sort_unstable();
    named.dedup();
    for db in named.into_iter().filter(|db| *db > 0) {
        if target.client.execute(&[b"SELECT", db.to_string().as_bytes()]).await.is_err() {
            let why = format!("database {db} does not exist at {}", target.node.display_url());
            return Err(MigrationError::UnusableInstance(member.into(), why));
        }
    }
    Ok(())
}
