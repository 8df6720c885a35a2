//! Translates changes of a newer source for an older target.
//!
//! A command that the target lacks is replaced by others where that is possible. Otherwise it is not applied: its keys are
//! suspect, and are read again at the source (`stream::key_repair`).

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use model::error::Result;
use redis_proto::resp::Reply;

use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;

/// A command's words.
pub(crate) type CommandWords<'a> = Vec<Cow<'a, [u8]>>;

/// How a change is said to the target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Translation<'a> {
    /// As it is.
    Unchanged,
    /// By these commands; none where the target needs none.
    Commands(Vec<CommandWords<'a>>),
    /// The target has no place for what it changes.
    Dropped,
    /// The target cannot make this change.
    Impossible,
}

/// A `SET` that was made under a condition, without that: the source has found it has_condition. None where it has none.
pub(crate) fn unconditional<'a>(args: &[&'a [u8]]) -> Option<CommandWords<'a>> {
    let mut words = owned(args.get(..3)?);
    let mut rest = args.iter().skip(3);
    let mut has_condition = false;
    while let Some(word) = rest.next() {
        match &word.to_ascii_uppercase()[..] {
            b"XX" | b"NX" | b"GET" => has_condition = true,
            b"IFEQ" | b"IFNE" | b"IFDEQ" | b"IFDNE" => {
                has_condition = true;
                rest.next();
            }
            b"EX" | b"PX" | b"EXAT" | b"PXAT" => {
                words.push(Cow::Borrowed(*word));
                words.extend(rest.next().map(|value| Cow::Borrowed(*value)));
            }
            _ => words.push(Cow::Borrowed(*word)),
        }
    }
    has_condition.then_some(words)
}

/// What a target understands.
#[derive(Clone, Debug)]
pub(crate) struct CommandTranslator {
    /// Names of its commands, upper case; empty: it does not say.
    commands: HashSet<Vec<u8>>,
    /// What the target is.
    pub(crate) target: ServerInfo,
    before_6_0: bool,
    before_6_2: bool,
    before_7_0: bool,
    before_8_2: bool,
}

/// Commands about one key that any proxy can be trusted to know; what else changes keys is asked for at the source.
const PROXY_COMMANDS: [&str; 45] = [
    "APPEND",
    "DECR",
    "DECRBY",
    "DEL",
    "EXPIRE",
    "EXPIREAT",
    "GETSET",
    "HDEL",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HMSET",
    "HSET",
    "HSETNX",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINSERT",
    "LPOP",
    "LPUSH",
    "LPUSHX",
    "LREM",
    "LSET",
    "LTRIM",
    "MSET",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PSETEX",
    "RPOP",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SET",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SPOP",
    "SREM",
    "ZADD",
    "ZINCRBY",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
];

impl CommandTranslator {
    /// That of a target with its answer to `COMMAND`, where it answers.
    fn new(target: &ServerInfo, commands: Option<&Reply>) -> Self {
        let name = |one: &Reply| Some(one.array()?.first()?.text()?.to_ascii_uppercase());
        let all = commands.and_then(Reply::array).unwrap_or_default();
        Self {
            commands: all.iter().filter_map(name).collect(),
            target: target.clone(),
            before_6_0: !target.is_at_least((6, 0)),
            before_6_2: !target.is_at_least((6, 2)),
            before_7_0: !target.is_at_least((7, 0)),
            before_8_2: target.family != redis_proto::rdb::Family::Redis || target.version < (8, 2),
        }
    }

    /// That of a target, which is asked for its commands.
    ///
    /// # Errors
    /// An error of the connection.
    pub(crate) async fn query(target: &ServerInfo, query: &mut QueryClient) -> Result<Self> {
        // A proxy may close the connection after the query, and after every command that it does not know.
        if target.missing.transactions {
            return Ok(Self {
                commands: PROXY_COMMANDS.iter().map(|name| name.as_bytes().to_vec()).collect(),
                ..Self::new(target, None)
            });
        }
        match query.call(0, b"", &[b"COMMAND"]).await {
            Ok(told) => Ok(Self::new(target, Some(&told))),
            Err(f) if f.is_temporary() => Err(f),
            Err(_) => Ok(Self::new(target, None)),
        }
    }

    /// How a command, its name in upper case, is said to the target.
    pub(crate) fn translate<'a>(&self, name: &[u8], args: &[&'a [u8]]) -> Translation<'a> {
        if name == b"SET" && args.len() == 3 {
            return Translation::Unchanged;
        }
        let is = |i: usize, word: &[u8]| args.get(i).is_some_and(|w| w.eq_ignore_ascii_case(word));
        // What stands behind the options is data, whatever it is called.
        let options = options(name, args);
        let has = |words: &[&[u8]]| {
            let given = args.get(options.clone()).unwrap_or_default();
            given.iter().any(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word)))
        };
        if !self.commands.is_empty() && !self.commands.contains(name) {
            return match name {
                b"UNLINK" => {
                    let mut words = owned(args);
                    words[0] = Cow::Borrowed(b"DEL");
                    Translation::Commands(vec![words])
                }
                b"LMOVE" if is(3, b"RIGHT") && is(4, b"LEFT") => {
                    let mut words = owned(args.get(..3).unwrap_or_default());
                    words[0] = Cow::Borrowed(b"RPOPLPUSH");
                    Translation::Commands(vec![words])
                }
                // The source says when a field has expired.
                b"HPEXPIREAT" | b"HEXPIREAT" | b"HPEXPIRE" | b"HEXPIRE" | b"HPERSIST" | b"FUNCTION" => {
                    Translation::Dropped
                }
                _ => Translation::Impossible,
            };
        }
        match name {
            b"SET" if self.before_6_2 => self.set(args),
            b"LPOP" | b"RPOP" if self.before_6_2 && args.len() == 3 => as_ltrim(name, args),
            b"XGROUP" if self.before_6_2 && is(1, b"CREATECONSUMER") => as_xreadgroup(args),
            b"XGROUP" if self.before_7_0 => without_option(args, options, b"ENTRIESREAD", 2),
            b"XSETID" if self.before_7_0 && args.len() > 3 => Translation::Commands(vec![owned(&args[..3])]),
            b"ZADD" if self.before_6_2 && has(&[b"GT", b"LT"]) => Translation::Impossible,
            b"XADD" | b"XTRIM" if self.before_8_2 && has(&[b"DELREF", b"ACKED"]) => Translation::Impossible,
            b"XADD" | b"XTRIM" if self.before_6_2 && has(&[b"MINID", b"LIMIT"]) => Translation::Impossible,
            b"XADD" if self.before_6_2 && has(&[b"NOMKSTREAM"]) => {
                without_option(args, options, b"NOMKSTREAM", 1)
            }
            b"XADD" | b"XTRIM" if self.before_8_2 && has(&[b"KEEPREF"]) => {
                without_option(args, options, b"KEEPREF", 1)
            }
            b"BITOP" if self.before_8_2 && has(&[b"DIFF", b"DIFF1", b"ANDOR", b"ONE"]) => {
                Translation::Impossible
            }
            _ => Translation::Unchanged,
        }
    }

    /// `SET` without what came with 6.0 and 6.2. Whether it was to be made at all is decided: the source has made it.
    fn set<'a>(&self, args: &[&'a [u8]]) -> Translation<'a> {
        let mut words = owned(args.get(..3).unwrap_or(args));
        let mut then: Option<CommandWords<'a>> = None;
        let mut rest = args.iter().skip(3);
        while let Some(word) = rest.next() {
            let upper = word.to_ascii_uppercase();
            let expire: &[u8] = match &upper[..] {
                b"KEEPTTL" if self.before_6_0 => return Translation::Impossible,
                b"KEEPTTL" => {
                    words.push(Cow::Borrowed(*word));
                    continue;
                }
                b"PXAT" => b"PEXPIREAT",
                b"EXAT" => b"EXPIREAT",
                b"PX" => b"PEXPIRE",
                b"EX" => b"EXPIRE",
                _ => continue,
            };
            if let (Some(key), Some(at)) = (args.get(1), rest.next()) {
                then = Some(vec![Cow::Borrowed(expire), Cow::Borrowed(*key), Cow::Borrowed(*at)]);
            }
        }
        Translation::Commands(std::iter::once(words).chain(then).collect())
    }
}

fn owned<'a>(args: &[&'a [u8]]) -> CommandWords<'a> {
    args.iter().map(|arg| Cow::Borrowed(*arg)).collect()
}

/// Before 6.2 a consumer is created by its first command: it reads again what it has read, which is nothing.
fn as_xreadgroup<'a>(args: &[&'a [u8]]) -> Translation<'a> {
    let [_, _, key, group, name] = args else { return Translation::Impossible };
    let words: [&'a [u8]; 7] = [b"XREADGROUP", b"GROUP", group, name, b"STREAMS", key, b"0"];
    Translation::Commands(vec![owned(&words)])
}

/// Where the options of a command stand: what follows them are identifiers, names and values.
fn options(name: &[u8], args: &[&[u8]]) -> Range<usize> {
    let is = |i: usize, words: &[&[u8]]| {
        args.get(i).is_some_and(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word)))
    };
    let mut end = 2;
    match name {
        b"XADD" => loop {
            end += match () {
                () if is(end, &[b"NOMKSTREAM", b"KEEPREF", b"DELREF", b"ACKED"]) => 1,
                () if is(end, &[b"MAXLEN", b"MINID"]) && is(end + 1, &[b"=", b"~"]) => 3,
                () if is(end, &[b"MAXLEN", b"MINID", b"LIMIT", b"IDMPAUTO"]) => 2,
                () if is(end, &[b"IDMP"]) => 3,
                () => return 2..end.min(args.len()),
            };
        },
        b"ZADD" => {
            while is(end, &[b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"]) {
                end += 1;
            }
            2..end
        }
        b"BITOP" => 1..2,
        b"XGROUP" => 5..args.len().max(5),
        _ => 2..args.len().max(2),
    }
}

/// The same without an option, and what belongs to it.
fn without_option<'a>(
    args: &[&'a [u8]],
    options: Range<usize>,
    word: &[u8],
    width: usize,
) -> Translation<'a> {
    let given = args.get(options.clone()).unwrap_or_default();
    match given.iter().position(|arg| arg.eq_ignore_ascii_case(word)) {
        None => Translation::Unchanged,
        Some(at) => {
            let (from, to) = (at + options.start, at + options.start + width);
            let kept = args.iter().enumerate().filter(|(i, _)| *i < from || *i >= to);
            Translation::Commands(vec![kept.map(|(_, arg)| Cow::Borrowed(*arg)).collect()])
        }
    }
}

/// `LPOP key n` leaves what stands behind the first n.
fn as_ltrim<'a>(name: &[u8], args: &[&'a [u8]]) -> Translation<'a> {
    let Some(n) = std::str::from_utf8(args[2]).ok().and_then(|n| n.parse::<i64>().ok()) else {
        return Translation::Impossible;
    };
    let (from, to) = if name == b"LPOP" { (n, -1) } else { (0, -1 - n) };
    let number = |n: i64| Cow::Owned(n.to_string().into_bytes());
    Translation::Commands(vec![vec![
        Cow::Borrowed(b"LTRIM"),
        Cow::Borrowed(args[1]),
        number(from),
        number(to),
    ]])
}

#[cfg(test)]
mod tests {
    use redis_proto::rdb::Family;

    use super::*;

    fn said(version: (u32, u32), line: &str) -> String {
        let known = "SET GET DEL LPOP RPOP XGROUP XSETID ZADD XADD XTRIM BITOP COPY RPOPLPUSH";
        let known: Vec<Reply> =
            known.split(' ').map(|name| Reply::Array(vec![Reply::Bulk(name.into())])).collect();
        let server = ServerInfo::for_tests(Family::Redis, version);
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        match CommandTranslator::new(&server, Some(&Reply::Array(known))).translate(args[0], &args) {
            Translation::Unchanged => "=".into(),
            Translation::Dropped => "nowhere".into(),
            Translation::Impossible => "not".into(),
            Translation::Commands(all) => {
                let text =
                    |words: &CommandWords<'_>| String::from_utf8_lossy(&words.join(&b' ')).into_owned();
                all.iter().map(text).collect::<Vec<_>>().join("; ")
            }
        }
    }

    #[test]
    fn conditions_that_were_met_are_removed() {
        let said = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            unconditional(&args).map(|words| String::from_utf8_lossy(&words.join(&b' ')).into_owned())
        };
        for (line, want) in [
            ("SET k xx", None),
            ("SET k v PXAT 5", None),
            ("SET k v KEEPTTL", None),
            ("SET k nx XX", Some("SET k nx")),
            ("SET k v nx PXAT 5 GET", Some("SET k v PXAT 5")),
            ("SET k v IFEQ XX KEEPTTL", Some("SET k v KEEPTTL")),
        ] {
            assert_eq!(said(line).as_deref(), want, "{line}");
        }
    }

    #[test]
    fn commands_are_translated_for_older_targets() {
        for (version, line, want) in [
            ((5, 0), "SET k v", "="),
            ((5, 0), "SET k v PXAT 5", "SET k v; PEXPIREAT k 5"),
            ((5, 0), "SET k v NX GET", "SET k v"),
            ((5, 0), "SET k v KEEPTTL", "not"),
            ((6, 0), "SET k v KEEPTTL GET", "SET k v KEEPTTL"),
            ((6, 2), "SET k v PXAT 5", "="),
            ((6, 0), "LPOP k 3", "LTRIM k 3 -1"),
            ((6, 0), "RPOP k 3", "LTRIM k 0 -4"),
            ((6, 0), "RPOP k", "="),
            ((6, 0), "LMOVE a b RIGHT LEFT", "RPOPLPUSH a b"),
            ((6, 0), "LMOVE a b LEFT LEFT", "not"),
            ((6, 0), "XGROUP CREATECONSUMER s g c", "XREADGROUP GROUP g c STREAMS s 0"),
            ((6, 2), "XGROUP CREATECONSUMER s g c", "="),
            ((6, 2), "XGROUP SETID s g 1-1 ENTRIESREAD 4", "XGROUP SETID s g 1-1"),
            ((6, 2), "XSETID s 1-1 ENTRIESADDED 4 MAXDELETEDID 0-0", "XSETID s 1-1"),
            ((6, 0), "XADD s NOMKSTREAM 1-1 a b", "XADD s 1-1 a b"),
            ((6, 0), "ZADD z GT 1 a", "not"),
            ((8, 0), "XTRIM s MAXLEN KEEPREF = 5", "XTRIM s MAXLEN = 5"),
            ((8, 0), "BITOP DIFF d a b", "not"),
            // Data that is called like an option.
            ((7, 0), "XADD s 1-1 policy KEEPREF", "="),
            ((7, 0), "XADD s MAXLEN ~ 5 KEEPREF 1-1 keepref acked", "XADD s MAXLEN ~ 5 1-1 keepref acked"),
            ((7, 0), "XADD s * state acked", "="),
            ((6, 0), "XADD s 1-1 NOMKSTREAM LIMIT", "="),
            ((7, 0), "XADD s MAXLEN 5 DELREF 1-1 a b", "not"),
            ((6, 2), "XGROUP CREATE s ENTRIESREAD 0 ENTRIESREAD 4", "XGROUP CREATE s ENTRIESREAD 0"),
            ((6, 0), "ZADD z 1 GT", "="),
            ((7, 0), "BITOP AND one a b", "="),
            ((3, 2), "UNLINK a b", "DEL a b"),
            ((7, 0), "HPEXPIREAT h 5 FIELDS 1 f", "nowhere"),
            ((7, 0), "VADD v VALUES 1 1 e", "not"),
        ] {
            assert_eq!(said(version, line), want, "{version:?} {line}");
        }
    }
}
