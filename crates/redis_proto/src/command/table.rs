//! The commands that change something, and the few others that stand in a replication stream. Sources: the servers'
//! command documents (`commands/*.json`) up to Redis 8.2 and Valkey 9.

/// Where keys stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Nowhere.
    None,
    /// From the first to the last place (counted from the end where negative), by steps.
    Range {
        /// The first place.
        first: usize,
        /// The last place; -1 is the last argument.
        last: isize,
        /// Distance of two keys.
        step: usize,
    },
    /// So many as the argument at `count` says, behind it; `target` is a further key in front.
    Counted {
        /// Place of a further key.
        target: Option<usize>,
        /// Place of the number.
        count: usize,
        /// Arguments of each key, the key included.
        width: usize,
    },
    /// The first argument, and the one behind `STORE`.
    Sort,
    /// The first argument, and the one behind `STORE` or `STOREDIST`.
    Radius,
    /// The first half of what stands behind `STREAMS`.
    Streams,
}

/// What is known of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, upper case.
    pub name: &'static str,
    /// Where its keys stand.
    pub keys: Keys,
}

const fn range(first: usize, last: isize, step: usize) -> Keys {
    Keys::Range { first, last, step }
}

const ONE: Keys = range(1, 1, 1);
const TWO: Keys = range(1, 2, 1);
const SECOND: Keys = range(2, 2, 1);
const ALL: Keys = range(1, -1, 1);
const COUNTED_1: Keys = Keys::Counted { target: None, count: 1, width: 1 };
const COUNTED_2: Keys = Keys::Counted { target: None, count: 2, width: 1 };
const STORE: Keys = Keys::Counted { target: Some(1), count: 2, width: 1 };
const COUNTED_PAIRS: Keys = Keys::Counted { target: None, count: 1, width: 2 };

/// By name, in order.
static TABLE: &[(&str, Keys)] = &[
    ("APPEND", ONE),
    ("BITFIELD", ONE),
    ("BITOP", range(2, -1, 1)),
    ("BLMOVE", TWO),
    ("BLMPOP", COUNTED_2),
    ("BLPOP", range(1, -2, 1)),
    ("BRPOP", range(1, -2, 1)),
    ("BRPOPLPUSH", TWO),
    ("BZMPOP", COUNTED_2),
    ("BZPOPMAX", range(1, -2, 1)),
    ("BZPOPMIN", range(1, -2, 1)),
    ("COPY", TWO),
    ("DECR", ONE),
    ("DECRBY", ONE),
    ("DEL", ALL),
    ("DELEX", ONE),
    ("EVAL", COUNTED_2),
    ("EVALSHA", COUNTED_2),
    ("EXEC", Keys::None),
    ("EXPIRE", ONE),
    ("EXPIREAT", ONE),
    ("FCALL", COUNTED_2),
    ("FLUSHALL", Keys::None),
    ("FLUSHDB", Keys::None),
    ("FUNCTION", Keys::None),
    ("GEOADD", ONE),
    ("GEORADIUS", Keys::Radius),
    ("GEORADIUSBYMEMBER", Keys::Radius),
    ("GEOSEARCHSTORE", TWO),
    ("GETDEL", ONE),
    ("GETEX", ONE),
    ("GETSET", ONE),
    ("HDEL", ONE),
    ("HEXPIRE", ONE),
    ("HEXPIREAT", ONE),
    ("HGETDEL", ONE),
    ("HGETEX", ONE),
    ("HINCRBY", ONE),
    ("HINCRBYFLOAT", ONE),
    ("HMSET", ONE),
    ("HPERSIST", ONE),
    ("HPEXPIRE", ONE),
    ("HPEXPIREAT", ONE),
    ("HSET", ONE),
    ("HSETEX", ONE),
    ("HSETNX", ONE),
    ("INCR", ONE),
    ("INCRBY", ONE),
    ("INCRBYFLOAT", ONE),
    ("LINSERT", ONE),
    ("LMOVE", TWO),
    ("LMPOP", COUNTED_1),
    ("LPOP", ONE),
    ("LPUSH", ONE),
    ("LPUSHX", ONE),
    ("LREM", ONE),
    ("LSET", ONE),
    ("LTRIM", ONE),
    ("MIGRATE", Keys::None),
    ("MOVE", ONE),
    ("MSET", range(1, -1, 2)),
    ("MSETEX", COUNTED_PAIRS),
    ("MSETNX", range(1, -1, 2)),
    ("MULTI", Keys::None),
    ("PERSIST", ONE),
    ("PEXPIRE", ONE),
    ("PEXPIREAT", ONE),
    ("PFADD", ONE),
    // It notes the count in the key, and is said to replicas.
    ("PFCOUNT", ALL),
    ("PFMERGE", ALL),
    ("PING", Keys::None),
    ("PSETEX", ONE),
    ("PUBLISH", Keys::None),
    ("RENAME", TWO),
    ("RENAMENX", TWO),
    ("REPLCONF", Keys::None),
    ("RESTORE", ONE),
    ("RESTORE-ASKING", ONE),
    ("RPOP", ONE),
    ("RPOPLPUSH", TWO),
    ("RPUSH", ONE),
    ("RPUSHX", ONE),
    ("SADD", ONE),
    ("SCRIPT", Keys::None),
    ("SDIFFSTORE", ALL),
    ("SELECT", Keys::None),
    ("SET", ONE),
    ("SETBIT", ONE),
    ("SETEX", ONE),
    ("SETNX", ONE),
    ("SETRANGE", ONE),
    ("SINTERSTORE", ALL),
    ("SMOVE", TWO),
    ("SORT", Keys::Sort),
    ("SPOP", ONE),
    ("SPUBLISH", Keys::None),
    ("SREM", ONE),
    ("SUNIONSTORE", ALL),
    ("SWAPDB", Keys::None),
    ("UNLINK", ALL),
    ("VADD", ONE),
    ("VREM", ONE),
    ("VSETATTR", ONE),
    ("XACK", ONE),
    ("XACKDEL", ONE),
    ("XADD", ONE),
    ("XAUTOCLAIM", ONE),
    ("XCLAIM", ONE),
    ("XDEL", ONE),
    ("XDELEX", ONE),
    ("XGROUP", SECOND),
    ("XREADGROUP", Keys::Streams),
    ("XSETID", ONE),
    ("XTRIM", ONE),
    ("ZADD", ONE),
    ("ZDIFFSTORE", STORE),
    ("ZINCRBY", ONE),
    ("ZINTERSTORE", STORE),
    ("ZMPOP", COUNTED_1),
    ("ZPOPMAX", ONE),
    ("ZPOPMIN", ONE),
    ("ZRANGESTORE", TWO),
    ("ZREM", ONE),
    ("ZREMRANGEBYLEX", ONE),
    ("ZREMRANGEBYRANK", ONE),
    ("ZREMRANGEBYSCORE", ONE),
    ("ZUNIONSTORE", STORE),
];

/// What is known of a command, whatever the case of its name.
pub fn spec(name: &[u8]) -> Option<Spec> {
    let mut upper = [0; 24];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let at = TABLE.binary_search_by(|(known, _)| known.as_bytes().cmp(upper)).ok()?;
    let (name, keys) = TABLE[at];
    Some(Spec { name, keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_table_is_sorted_and_case_insensitive() {
        assert!(TABLE.windows(2).all(|w| w[0].0 < w[1].0));
        for (name, keys) in TABLE {
            assert_eq!(spec(name.to_ascii_lowercase().as_bytes()).map(|s| s.keys), Some(*keys));
        }
        assert_eq!(spec(b"GET"), None);
        // A data command without keys would pass every filter, and has no slot.
        let keyless: Vec<&str> =
            TABLE.iter().filter(|(_, keys)| *keys == Keys::None).map(|(n, _)| *n).collect();
        let want = "EXEC FLUSHALL FLUSHDB FUNCTION MIGRATE MULTI PING PUBLISH REPLCONF SCRIPT SELECT SPUBLISH SWAPDB";
        assert_eq!(keyless.join(" "), want);
        assert_eq!(spec(&[b'x'; 99]), None);
    }
}
