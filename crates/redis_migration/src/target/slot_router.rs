//! Pure: what is written for one server, divided among the slots of a cluster.

use model::error::{Error, Kind, Result, Side};
use redis_proto::command::{self, slot};
use redis_proto::resp::{Commands, command as write};

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::suspects::decode_key_ref;

/// Part of what one command of the source becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotCommand {
    /// For the server of a slot: bytes, and how many commands they are.
    Slot(u16, Vec<u8>, u32),
    /// For every server that may be written, when nothing else is under way: its words.
    Broadcast(Vec<Vec<u8>>),
    /// For nobody: its keys belong to different slots.
    CrossSlot(Vec<Vec<u8>>),
}

/// A change whose keys belong to different slots cannot be made.
pub(crate) fn cross_slot_failure(words: &[Vec<u8>]) -> Error {
    let name = words.first().map(Vec::as_slice).unwrap_or_default();
    refused(name, "its keys map to different slots of the target")
}

fn refused(name: &[u8], why: &str) -> Error {
    let m = format!("cannot replicate {}: {why}", String::from_utf8_lossy(name));
    Error::new(Kind::Unsupported, "scatter", m).at(Side::Source)
}

/// Divides commands.
///
/// # Errors
/// [`Kind::Unsupported`], with the command that names no key, or of which nobody knows where they are.
pub(crate) fn route_commands(bytes: &[u8], names: &KeyNames) -> Result<Vec<SlotCommand>> {
    let mut commands = Commands::starting_at(0);
    commands.push(bytes);
    let mut commands_by_slot = Vec::new();
    let own = |e: redis_proto::ProtocolError| Error::new(Kind::Internal, "scatter", e.to_string());
    while let Some(command) = commands.next_command().map_err(own)? {
        let args: Vec<&[u8]> = command.args().collect();
        route_one(&args, command.raw, names, &mut commands_by_slot)?;
    }
    Ok(commands_by_slot)
}

fn route_one(
    args: &[&[u8]],
    raw: &[u8],
    names: &KeyNames,
    commands_by_slot: &mut Vec<SlotCommand>,
) -> Result<()> {
    let Some(name) = args.first().map(|n| n.to_ascii_uppercase()) else { return Ok(()) };
    if args.get(1).is_some_and(|key| **key == names.suspects) {
        return route_suspects(args, names, commands_by_slot);
    }
    if args.get(3).is_some_and(|key| **key == names.suspects) {
        return route_check(args, names, commands_by_slot);
    }
    match &name[..] {
        b"FLUSHALL" | b"FLUSHDB" | b"FUNCTION" | b"SCRIPT" => {
            commands_by_slot.push(SlotCommand::Broadcast(args.iter().map(|a| a.to_vec()).collect()));
            return Ok(());
        }
        // Messages are no data.
        b"PUBLISH" | b"SPUBLISH" => return Ok(()),
        _ => {}
    }
    let keys = command::keys(args).ok_or_else(|| refused(&name, "its keys cannot be determined"))?;
    let Some((_, first)) = keys.first() else {
        return Err(refused(&name, "it has no key and cannot be routed in a cluster"));
    };
    let home = slot(first);
    if keys.iter().all(|(_, key)| slot(key) == home) {
        commands_by_slot.push(SlotCommand::Slot(home, raw.to_vec(), 1));
        return Ok(());
    }
    let width = match &name[..] {
        b"DEL" | b"UNLINK" => 1,
        b"MSET" => 2,
        _ => {
            commands_by_slot.push(SlotCommand::CrossSlot(args.iter().map(|word| word.to_vec()).collect()));
            return Ok(());
        }
    };
    let mut slots: Vec<(u16, Vec<&[u8]>)> = Vec::new();
    for (i, key) in &keys {
        let Some(part) = args.get(*i..*i + width) else { return Err(refused(&name, "a value is missing")) };
        let at = slot(key);
        match slots.iter_mut().find(|(s, _)| *s == at) {
            Some((_, all)) => all.extend(part),
            None => slots.push((at, std::iter::once(args[0]).chain(part.iter().copied()).collect())),
        }
    }
    for (at, args) in slots {
        let mut out = Vec::new();
        write(&mut out, &args);
        commands_by_slot.push(SlotCommand::Slot(at, out, 1));
    }
    Ok(())
}

/// Suspect keys are listed in their own slots, so that both change together: `ZREM list member…`, `ZADD list [NX] weight member…`.
fn route_suspects(args: &[&[u8]], names: &KeyNames, commands_by_slot: &mut Vec<SlotCommand>) -> Result<()> {
    // Weights stand before members, and `NX` before all.
    let (width, flag) = match (args[0], args.get(2)) {
        (b"ZADD", Some(&b"NX")) => (2, 1),
        (b"ZADD", _) => (2, 0),
        _ => (1, 0),
    };
    let flags = &args[2..2 + flag];
    for words in args[2 + flag..].chunks(width) {
        let found = words.last().and_then(|member| decode_key_ref(member));
        let at = slot(found.ok_or_else(|| refused(args[0], "a suspect key has no database"))?.1);
        let list = names.slot_suspects(at);
        let words = flags.iter().chain(words).copied();
        let all: Vec<&[u8]> = [args[0], &list].into_iter().chain(words).collect();
        let mut out = Vec::new();
        write(&mut out, &all);
        commands_by_slot.push(SlotCommand::Slot(at, out, 1));
    }
    Ok(())
}

/// A look at keys, `EVAL script n list key… …`, goes where they are.
fn route_check(args: &[&[u8]], names: &KeyNames, commands_by_slot: &mut Vec<SlotCommand>) -> Result<()> {
    let count: usize = args.get(2).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok()).unwrap_or(0);
    let keys = args.get(4..3 + count).unwrap_or_default();
    let Some(at) = keys.first().map(|key| slot(key)) else { return Ok(()) };
    if keys.iter().any(|key| slot(key) != at) {
        // The change behind it cannot be made; one within it would be forgotten.
        let key_refs: usize = args
            .get(3 + count + 3)
            .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
            .unwrap_or_default();
        let change = args.get(3 + count + 4 + key_refs..).unwrap_or_default();
        if !change.is_empty() {
            commands_by_slot.push(SlotCommand::CrossSlot(change.iter().map(|word| word.to_vec()).collect()));
        }
        return Ok(());
    }
    let list = names.slot_suspects(at);
    let mut words = args.to_vec();
    words[3] = &list;
    let mut out = Vec::new();
    write(&mut out, &words);
    commands_by_slot.push(SlotCommand::Slot(at, out, 1));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(line: &str) -> Result<Vec<String>> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut raw = Vec::new();
        write(&mut raw, &args);
        let commands_by_slot = route_commands(&raw, &KeyNames::new("t"))?;
        Ok(commands_by_slot
            .into_iter()
            .map(|routed| match routed {
                SlotCommand::CrossSlot(words) => {
                    format!("across {}", String::from_utf8_lossy(&words.join(&b' ')))
                }
                SlotCommand::Broadcast(words) => format!("* {}", String::from_utf8_lossy(&words.join(&b' '))),
                SlotCommand::Slot(at, bytes, _) => {
                    let mut commands = Commands::starting_at(0);
                    commands.push(&bytes);
                    let command = commands.next_command().unwrap().unwrap();
                    let words: Vec<&[u8]> = command.args().collect();
                    format!("{at} {}", String::from_utf8_lossy(&words.join(&b' ')))
                }
            })
            .collect())
    }

    #[test]
    fn commands_are_split_by_slot_where_possible() {
        assert_eq!(divided("SET foo 1").unwrap(), ["12182 SET foo 1"]);
        assert_eq!(divided("MSET foo 1 bar 2").unwrap(), ["12182 MSET foo 1", "5061 MSET bar 2"]);
        assert_eq!(divided("DEL foo bar {foo}x").unwrap(), ["12182 DEL foo {foo}x", "5061 DEL bar"]);
        assert_eq!(divided("RENAME {foo}a {foo}b").unwrap(), ["12182 RENAME {foo}a {foo}b"]);
        assert_eq!(divided("FLUSHALL").unwrap(), ["* FLUSHALL"]);
        assert_eq!(divided("PUBLISH a b").unwrap(), [""; 0]);
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
        let names = KeyNames::new("t");
        let list = String::from_utf8(names.suspects.clone()).unwrap();
        let at = |key: &[u8]| String::from_utf8(names.slot_suspects(slot(key))).unwrap();
        assert_eq!(
            divided(&format!("ZREM {list} 0:foo 0:bar")).unwrap(),
            [format!("12182 ZREM {} 0:foo", at(b"foo")), format!("5061 ZREM {} 0:bar", at(b"bar"))]
        );
        assert_eq!(
            divided(&format!("ZADD {list} 1 0:foo")).unwrap(),
            [format!("12182 ZADD {} 1 0:foo", at(b"foo"))]
        );
        assert_eq!(
            divided(&format!("ZADD {list} NX 0 0:foo")).unwrap(),
            [format!("12182 ZADD {} NX 0 0:foo", at(b"foo"))]
        );
        assert_eq!(
            divided(&format!("EVAL x 2 {list} foo 0 9 0 1 0:foo")).unwrap(),
            [format!("12182 EVAL x 2 {} foo 0 9 0 1 0:foo", at(b"foo"))]
        );
        assert_eq!(divided(&format!("EVAL x 3 {list} foo bar 0 9 1 2 0:foo 0:bar")).unwrap(), [""; 0]);
        let change = format!("EVAL x 3 {list} foo bar 0 9 1 2 0:foo 0:bar RENAME foo bar");
        assert_eq!(divided(&change).unwrap(), ["across RENAME foo bar"]);
        assert_eq!(divided("SUNIONSTORE d foo bar").unwrap(), ["across SUNIONSTORE d foo bar"]);
    }
}
