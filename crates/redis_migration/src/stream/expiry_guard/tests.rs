use super::*;
use crate::checkpoint::suspects::{decode_key_ref, encode_key_ref};
use crate::operation::encode_suspects;

const NOW: i64 = 1_700_000_000_000;

/// What is checked before a command or with it: the arguments of the script behind the name of the list.
fn look(expiry_guard: &mut ExpiryGuard, line: &str) -> String {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let text = |out: &[u8], skip: usize| {
        let mut commands = redis_proto::resp::Commands::starting_at(0);
        commands.push(out);
        let command = commands.next_command().unwrap().unwrap();
        let words: Vec<&[u8]> = command.args().skip(skip).collect();
        String::from_utf8_lossy(&words.join(&b' ')).into_owned()
    };
    let checked = |check: ExpiryCheck<'_>, change: &[&[u8]]| {
        let mut out = Vec::new();
        check.encode(5, b"L", change, &mut out);
        text(&out, 4)
    };
    match expiry_guard.check(args[0], &args, 3, NOW) {
        Verdict::Pass => String::new(),
        Verdict::CheckFirst(check) => format!("before {}", checked(check, &[])),
        Verdict::Wrap(check) => format!("within {}", checked(check, &args)),
        Verdict::Refetch => "refetch".into(),
        Verdict::Suspect(list) if list.key_refs.is_empty() => String::new(),
        Verdict::Suspect(list) => {
            let mut out = Vec::new();
            encode_suspects(b"L", &list.key_refs, list.always_refetch, &mut out);
            format!("suspect {}", text(&out, 2))
        }
    }
}

#[test]
fn every_change_is_guarded_while_the_target_is_behind() {
    let mut expiry_guard = ExpiryGuard::default();
    assert_eq!(look(&mut expiry_guard, "INCR k"), "");
    expiry_guard.start(true, true);
    for (line, want) in [
        ("SET k 1 PXAT 5", ""),
        ("DEL k l", ""),
        ("INCR k", "before k 5 600000 0 1 3:k"),
        ("INCR k", ""),
        ("SET k 1 PXAT 5", ""),
        ("INCR k", "before k 5 600000 0 1 3:k"),
        ("PEXPIREAT k 7", "before k 5 600000 0 1 3:k"),
        ("HSET k a b", "before k 5 600000 0 1 3:k"),
        ("SET k 2 KEEPTTL", ""),
        ("SETEX k 5 v", "suspect 1 3:k"),
        ("INCR k", "before k 5 600000 0 1 3:k"),
        ("PERSIST k", "before k 5 600000 1 1 3:k"),
        ("SUNIONSTORE d a", "before d a 5 600000 1 2 3:d 3:a"),
        ("MOVE k 9", "before k 5 600000 1 2 3:k 9:k"),
        ("COPY k l DB 9", "within k l 5 600000 1 3 3:k 3:l 9:l COPY k l DB 9"),
        ("APPEND l x", "within l 5 600000 0 1 3:l APPEND l x"),
        ("SET l x", ""),
        ("APPEND l x", "before l 5 600000 0 1 3:l"),
        ("RENAME a b", "within a b 5 600000 1 2 3:a 3:b RENAME a b"),
        ("XGROUP CREATE s g 0", "within s 5 600000 0 1 3:s XGROUP CREATE s g 0"),
        ("PUBLISH a b", ""),
    ] {
        assert_eq!(look(&mut expiry_guard, line), want, "{line}");
    }
    expiry_guard.set_caught_up(7);
    for (line, want) in [
        ("INCR j", ""),
        ("INCR k", "within k 5 0 0 1 3:k INCR k"),
        ("PERSIST k", "within k 5 0 1 1 3:k PERSIST k"),
        ("SUNIONSTORE d a", "within d a 5 0 1 2 3:d 3:a SUNIONSTORE d a"),
        ("SUNIONSTORE e f", "before e f 5 0 1 2 3:e 3:f"),
        ("LSET l 0 x", "within l 5 0 0 1 3:l LSET l 0 x"),
    ] {
        assert_eq!(look(&mut expiry_guard, line), want, "{line}");
    }
    assert!(
        expiry_guard.take_changed_again(&(3, b"k".to_vec()))
            && !expiry_guard.take_changed_again(&(3, b"k".to_vec()))
    );
    expiry_guard.finish();
    assert_eq!(look(&mut expiry_guard, "RENAME a b"), "");
}

#[test]
fn suspects_of_an_earlier_run_may_be_retyped() {
    let mut expiry_guard = ExpiryGuard::default();
    expiry_guard.start(true, true);
    expiry_guard.recall_retyped([(3, b"k".to_vec()), (3, b"l".to_vec())].into_iter());
    for (line, want) in [
        ("INCR k", "within k 5 600000 0 1 3:k INCR k"),
        ("SETNX k v", "within k 5 600000 0 1 3:k SETNX k v"),
        ("GETSET k v", "within k 5 600000 0 1 3:k GETSET k v"),
        ("RESTORE k 0 x", "within k 5 600000 0 1 3:k RESTORE k 0 x"),
        ("RESTORE k 0 x REPLACE", ""),
        ("GETSET k v", ""),
        ("INCR k", "before k 5 600000 0 1 3:k"),
        ("DEL l", ""),
        ("SETNX l v", ""),
    ] {
        assert_eq!(look(&mut expiry_guard, line), want, "{line}");
    }
}

#[test]
fn repaired_key_is_checked_again() {
    let mut expiry_guard = ExpiryGuard::default();
    expiry_guard.start(true, true);
    assert_eq!(look(&mut expiry_guard, "INCR k"), "before k 5 600000 0 1 3:k");
    assert_eq!(look(&mut expiry_guard, "INCR k"), "");
    // What was read while the target had caught up may be written when it lags again.
    expiry_guard.set_repaired(&(3, b"k".to_vec()));
    assert_eq!(look(&mut expiry_guard, "INCR k"), "before k 5 600000 0 1 3:k");
}

#[test]
fn without_scripts_changed_keys_become_suspect() {
    let mut expiry_guard = ExpiryGuard::default();
    expiry_guard.start(false, false);
    for line in ["INCR k", "SET l 1", "SUNIONSTORE a b"] {
        assert_eq!(look(&mut expiry_guard, line), "");
    }
    for line in ["RENAME c d", "INCR a", "LSET l 0 x"] {
        assert_eq!(look(&mut expiry_guard, line), "refetch", "{line}");
    }
    let mut suspects = expiry_guard.take_suspects();
    suspects.sort();
    let key_ref = |key: &str| (3, key.as_bytes().to_vec());
    assert_eq!(suspects, [(key_ref("a"), true), (key_ref("b"), true), (key_ref("k"), false)]);
    let mut expiry_guard = ExpiryGuard::default();
    expiry_guard.start(true, false);
    for (line, want) in [("INCR k", "suspect NX 0 3:k"), ("INCR k", ""), ("COPY a b", "suspect 1 3:a 1 3:b")]
    {
        assert_eq!(look(&mut expiry_guard, line), want, "{line}");
    }
    assert_eq!(decode_key_ref(&encode_key_ref(3, b"a:b")), Some((3, b"a:b".as_slice())));
}
