//! Pure: which commands of a source are replicated.

use redis_proto::command;

/// Commands that control a server or a connection instead of changing data: they are never replicated.
const ADMINISTRATIVE: [&[u8]; 38] = [
    b"ACL",
    b"ASKING",
    b"AUTH",
    b"BGREWRITEAOF",
    b"BGSAVE",
    b"CLIENT",
    b"CLUSTER",
    b"CONFIG",
    b"DEBUG",
    b"DISCARD",
    b"FAILOVER",
    b"HELLO",
    b"LATENCY",
    b"MIGRATE",
    b"MODULE",
    b"MONITOR",
    b"PSUBSCRIBE",
    b"PSYNC",
    b"PUNSUBSCRIBE",
    b"QUIT",
    b"READONLY",
    b"READWRITE",
    b"REPLICAOF",
    b"RESET",
    b"SAVE",
    b"SENTINEL",
    b"SHUTDOWN",
    b"SLAVEOF",
    b"SLOWLOG",
    b"SSUBSCRIBE",
    b"SUBSCRIBE",
    b"SUNSUBSCRIBE",
    b"SYNC",
    b"UNSUBSCRIBE",
    b"UNWATCH",
    b"WAIT",
    b"WAITAOF",
    b"WATCH",
];
/// Commands of a backup that reach beyond single keys: they could change data that was at the target before.
const UNSAFE: [&[u8]; 7] = [b"EVAL", b"EVALSHA", b"FCALL", b"FLUSHALL", b"FLUSHDB", b"SCRIPT", b"SWAPDB"];

/// Whether a command (its name in upper case) changes data. `all`: every such command may be applied, because the source is a
/// server of the user's, or a backup for an empty target. From any other backup only commands that are known to be harmless are
/// applied.
pub(crate) fn is_data(name: &[u8], first: Option<&[u8]>, all: bool) -> bool {
    if all {
        return !ADMINISTRATIVE.contains(&name);
    }
    match name {
        b"FUNCTION" => first.is_some_and(|word| word.eq_ignore_ascii_case(b"LOAD")),
        _ if ADMINISTRATIVE.contains(&name) || UNSAFE.contains(&name) => false,
        // Names of modules' commands have a dot.
        _ => command::spec(name).is_some() || name.contains(&b'.'),
    }
}

/// Commands of a backup that are data, and may be applied only where nothing else is.
pub(crate) fn needs_empty_target(name: &[u8], first: Option<&[u8]>) -> bool {
    const CONTROL: [&[u8]; 7] = [b"SELECT", b"MULTI", b"EXEC", b"PING", b"PUBLISH", b"SPUBLISH", b"OPINFO"];
    !CONTROL.contains(&name)
        && name != b"REPLCONF"
        && is_data(name, first, true)
        && !is_data(name, first, false)
}

/// Commands by which servers inform their replicas of slots that move, and commands for all masters.
pub(crate) fn is_administrative(name: &[u8], first: Option<&[u8]>) -> bool {
    let is = |word: &[u8]| first.is_some_and(|w| w.eq_ignore_ascii_case(word));
    match name {
        b"RESTORE-ASKING" | b"TRIMSLOTS" | b"FLUSHALL" | b"FLUSHDB" => true,
        b"CLUSTER" => is(b"SYNCSLOTS") || is(b"FLUSHSLOT"),
        _ => false,
    }
}

/// The positions of the arguments that are numbers of databases.
pub(crate) fn db_arguments(name: &[u8], words: &[&[u8]]) -> Vec<usize> {
    match name {
        b"SWAPDB" => vec![1, 2],
        b"MOVE" => vec![2],
        _ => words
            .iter()
            .skip(3)
            .position(|w| w.eq_ignore_ascii_case(b"DB"))
            .map(|i| i + 4)
            .into_iter()
            .collect(),
    }
}
