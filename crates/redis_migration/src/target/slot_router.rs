//! Pure: the slots of a cluster that an operation belongs to.

use model::error::{Error, Kind, Result, Side};
use redis_proto::command::{self, slot};
use redis_proto::resp::{command as encode, header, text};

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::suspects::KeyRef;
use crate::operation::{CommandForm, ExpiryCheck, Operation, ServerCommand, encode_cleared, encode_suspects};
use crate::target::functions::LibraryCommand;

/// A command for every server that may be written, when nothing else is in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broadcast {
    /// Deletes all keys.
    Flush(Vec<Vec<u8>>),
    /// Changes the cache of scripts.
    Scripts(Vec<Vec<u8>>),
    /// Changes libraries of functions.
    Libraries(LibraryCommand),
}

/// Receives the parts of operations.
pub(crate) trait SlotSink {
    /// Commands for the server of a slot, which `write` appends to what is sent there.
    fn to_slot(&mut self, slot: u16, count: u32, write: &dyn Fn(&mut Vec<u8>));

    /// A command for every server.
    fn to_all(&mut self, command: Broadcast);

    /// A command that no server can execute: its keys belong to different slots.
    ///
    /// # Errors
    /// Where that is not allowed.
    fn across_slots(&mut self, args: &[&[u8]]) -> Result<()>;

    /// A transaction of the source begins or ends.
    fn source_transaction(&mut self, is_open: bool);
}

/// A change whose keys belong to different slots cannot be made.
pub(crate) fn cross_slot_failure(args: &[&[u8]]) -> Error {
    refused(args.first().copied().unwrap_or_default(), "its keys map to different slots of the target")
}

fn refused(name: &[u8], why: &str) -> Error {
    let m = format!("cannot replicate {}: {why}", String::from_utf8_lossy(name));
    Error::new(Kind::Unsupported, "route", m).at(Side::Source)
}

/// Gives each part of an operation to the slot that it belongs to.
///
/// # Errors
/// [`Kind::Unsupported`] with the command that has no key, or whose keys cannot be determined.
pub(crate) fn route(operation: Operation<'_>, names: &KeyNames, sink: &mut dyn SlotSink) -> Result<()> {
    match operation {
        Operation::Begin => sink.source_transaction(true),
        Operation::End => sink.source_transaction(false),
        Operation::Set { key, value, .. } => {
            sink.to_slot(slot(key), 1, &|out| encode(out, &[b"SET", key, value]));
        }
        Operation::Data { name, command, .. } => return route_command(name, command, sink),
        Operation::Value { key, bytes, count, .. } => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            sink.to_slot(slot(key), count, &|out| out.extend_from_slice(bytes));
        }
        Operation::Server { command, .. } => {
            let owned = |command: CommandForm<'_>| command.args().iter().map(|word| word.to_vec()).collect();
            sink.to_all(match command {
                ServerCommand::Flush(command) => Broadcast::Flush(owned(command)),
                ServerCommand::Scripts(command) => Broadcast::Scripts(owned(command)),
                ServerCommand::Libraries(library) => Broadcast::Libraries(library.clone()),
            });
        }
        Operation::Check { db, check } => return route_check(db, check, &[], names, sink),
        Operation::CheckedChange { db, check, change } => {
            return route_check(db, check, change, names, sink);
        }
        Operation::Suspect { key_refs, always_refetch } => {
            for one in key_refs {
                let (at, one) = (slot(&one.1), std::slice::from_ref(one));
                let list = names.slot_suspects(at);
                sink.to_slot(at, 1, &|out| encode_suspects(&list, one, always_refetch, out));
            }
        }
        Operation::ClearSuspects(key_refs) => route_cleared(key_refs, names, sink),
        Operation::Internal { key, args, .. } => sink.to_slot(slot(key), 1, &|out| encode(out, args)),
        // A cluster has one database.
        Operation::RequireDb(_) | Operation::SwapSuspects(..) => {}
    }
    Ok(())
}

/// Suspect keys are listed in their own slots, so that both change together.
fn route_cleared(key_refs: &[KeyRef], names: &KeyNames, sink: &mut dyn SlotSink) {
    for one in key_refs {
        let (at, one) = (slot(&one.1), std::slice::from_ref(one));
        let list = names.slot_suspects(at);
        sink.to_slot(at, 1, &|out| encode_cleared(&list, one, out));
    }
}

fn route_command(name: &[u8], command: CommandForm<'_>, sink: &mut dyn SlotSink) -> Result<()> {
    let args = command.args();
    let keys = command::keys(&args).ok_or_else(|| refused(name, "its keys cannot be determined"))?;
    let Some((_, first)) = keys.first() else {
        return Err(refused(name, "it has no key and cannot be routed in a cluster"));
    };
    let home = slot(first);
    if keys.iter().all(|(_, key)| slot(key) == home) {
        sink.to_slot(home, 1, &|out| command.encode(out));
        return Ok(());
    }
    match name {
        b"DEL" | b"UNLINK" => split(&args, &keys, 1, sink),
        b"MSET" => split(&args, &keys, 2, sink),
        _ => sink.across_slots(&args),
    }
}

/// Divides a command that repeats a group of `width` arguments for each key.
fn split(args: &[&[u8]], keys: &[(usize, &[u8])], width: usize, sink: &mut dyn SlotSink) -> Result<()> {
    let mut slots: Vec<(u16, Vec<&[u8]>)> = Vec::new();
    for (i, key) in keys {
        let Some(part) = args.get(*i..*i + width) else {
            return Err(refused(args[0], "a value is missing"));
        };
        let at = slot(key);
        match slots.iter_mut().find(|(s, _)| *s == at) {
            Some((_, all)) => all.extend(part),
            None => slots.push((at, part.to_vec())),
        }
    }
    for (at, parts) in slots {
        sink.to_slot(at, 1, &|out| {
            header(out, b'*', 1 + parts.len() as u64);
            text(out, args[0]);
            parts.iter().for_each(|part| text(out, part));
        });
    }
    Ok(())
}

/// A check goes to the slot of its keys. The keys of several slots become suspect with the change: either the change that
/// follows is found to be one of several slots, or the check contains it.
fn route_check(
    db: u32,
    check: &ExpiryCheck<'_>,
    change: &[&[u8]],
    names: &KeyNames,
    sink: &mut dyn SlotSink,
) -> Result<()> {
    let Some(at) = check.keys.first().map(|key| slot(key)) else { return Ok(()) };
    if check.keys.iter().any(|key| slot(key) != at) {
        return if change.is_empty() { Ok(()) } else { sink.across_slots(change) };
    }
    let list = names.slot_suspects(at);
    sink.to_slot(at, 1, &|out| check.encode(db, &list, change, out));
    Ok(())
}

#[cfg(test)]
mod tests {
    use redis_proto::resp::Commands;

    use super::*;

    /// What each slot is given, one command a line.
    #[derive(Default)]
    struct Lines(Vec<String>);

    fn line(args: &[&[u8]]) -> String {
        String::from_utf8_lossy(&args.join(&b' '))
            .replace(&*String::from_utf8_lossy(crate::operation::CHECK_SCRIPT), "x")
    }

    impl SlotSink for Lines {
        fn to_slot(&mut self, slot: u16, _: u32, write: &dyn Fn(&mut Vec<u8>)) {
            let mut bytes = Vec::new();
            write(&mut bytes);
            let mut commands = Commands::starting_at(0);
            commands.push(&bytes);
            while let Some(command) = commands.next_command().unwrap() {
                self.0.push(format!("{slot} {}", line(&command.args().collect::<Vec<_>>())));
            }
        }

        fn to_all(&mut self, command: Broadcast) {
            self.0.push(format!("{command:?}"));
        }

        fn across_slots(&mut self, args: &[&[u8]]) -> Result<()> {
            self.0.push(format!("across {}", line(args)));
            Ok(())
        }

        fn source_transaction(&mut self, _: bool) {}
    }

    fn routed(operation: Operation<'_>) -> Result<Vec<String>> {
        let mut lines = Lines::default();
        route(operation, &KeyNames::new("t"), &mut lines)?;
        Ok(lines.0)
    }

    fn divided(line: &str) -> Result<Vec<String>> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        routed(Operation::Data { db: 0, name: args[0], command: CommandForm::Built(&args) })
    }

    #[test]
    fn commands_are_split_by_slot_where_possible() {
        assert_eq!(routed(Operation::Set { db: 0, key: b"foo", value: b"1" }).unwrap(), ["12182 SET foo 1"]);
        assert_eq!(divided("MSET foo 1 bar 2").unwrap(), ["12182 MSET foo 1", "5061 MSET bar 2"]);
        assert_eq!(divided("DEL foo bar {foo}x").unwrap(), ["12182 DEL foo {foo}x", "5061 DEL bar"]);
        assert_eq!(divided("RENAME {foo}a {foo}b").unwrap(), ["12182 RENAME {foo}a {foo}b"]);
        assert_eq!(divided("SUNIONSTORE d foo bar").unwrap(), ["across SUNIONSTORE d foo bar"]);
    }

    #[test]
    fn commands_that_cannot_be_split_are_rejected_by_name() {
        for (line, said) in [("NO.SUCH foo", "cannot be determined"), ("SWAPDB 0 1", "has no key")] {
            let failure = divided(line).unwrap_err();
            assert!(failure.message.contains(said), "{failure}");
        }
    }

    #[test]
    fn suspect_keys_are_listed_in_their_own_slots() {
        let at = |key: &[u8]| String::from_utf8(KeyNames::new("t").slot_suspects(slot(key))).unwrap();
        let key_refs = [(0, b"foo".to_vec()), (0, b"bar".to_vec())];
        assert_eq!(
            routed(Operation::ClearSuspects(&key_refs)).unwrap(),
            [format!("12182 ZREM {} 0:foo", at(b"foo")), format!("5061 ZREM {} 0:bar", at(b"bar"))]
        );
        let suspect = |always_refetch| Operation::Suspect { key_refs: &key_refs[..1], always_refetch };
        assert_eq!(routed(suspect(true)).unwrap(), [format!("12182 ZADD {} 1 0:foo", at(b"foo"))]);
        assert_eq!(routed(suspect(false)).unwrap(), [format!("12182 ZADD {} NX 0 0:foo", at(b"foo"))]);
    }

    #[test]
    fn checks_go_to_the_slot_of_their_keys() {
        let at = String::from_utf8(KeyNames::new("t").slot_suspects(slot(b"foo"))).unwrap();
        let check = |keys: &[&'static [u8]]| ExpiryCheck {
            keys: keys.to_vec(),
            key_refs: keys.iter().map(|key| (0, key.to_vec())).collect(),
            near_ms: 9,
            always_refetch: false,
        };
        let (one, two) = (check(&[b"foo"]), check(&[b"foo", b"bar"]));
        assert_eq!(
            routed(Operation::Check { db: 0, check: &one }).unwrap(),
            [format!("12182 EVAL x 2 {at} foo 0 9 0 1 0:foo")]
        );
        assert_eq!(routed(Operation::Check { db: 0, check: &two }).unwrap(), [""; 0]);
        let change: [&[u8]; 3] = [b"RENAME", b"foo", b"bar"];
        assert_eq!(
            routed(Operation::CheckedChange { db: 0, check: &two, change: &change }).unwrap(),
            ["across RENAME foo bar"]
        );
    }
}
