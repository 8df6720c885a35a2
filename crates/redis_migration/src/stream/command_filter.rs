//! Pure: which commands of a source are a copy's business.

use redis_proto::command;

/// Commands that rule a server or a connection instead of changing data: whoever sends them, they stop here.
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
/// What a backup may not do to what was at the target before: it reaches beyond single keys.
const UNSAFE: [&[u8]; 7] = [b"EVAL", b"EVALSHA", b"FCALL", b"FLUSHALL", b"FLUSHDB", b"SCRIPT", b"SWAPDB"];

/// Whether a command (its name in upper case) changes data; `all`: of a source whose commands may do whatever they do, be it a
/// server of the user's or a backup that is all that its target will hold. From any other backup only what is known to be
/// harmless is taken.
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

/// Slots that come from another master, in each of the ways in which servers tell their replicas so, and what is to
/// be done at all masters.
pub(crate) fn is_administrative(name: &[u8], first: Option<&[u8]>) -> bool {
    let is = |word: &[u8]| first.is_some_and(|w| w.eq_ignore_ascii_case(word));
    match name {
        b"RESTORE-ASKING" | b"TRIMSLOTS" | b"FLUSHALL" | b"FLUSHDB" => true,
        b"CLUSTER" => is(b"SYNCSLOTS") || is(b"FLUSHSLOT"),
        _ => false,
    }
}

/// Where the words of a command name databases.
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
