//! What commands are about: which of their arguments are keys, and which slot a key belongs to.

mod slot;
mod table;

pub use slot::{SLOTS, slot, tag};
pub use table::{Keys, Spec, spec};

/// Places of the keys among a command's arguments (0 is the name).
///
/// # Errors
/// None where the arguments do not fit the command: whoever passes it on lets the server say so.
pub fn keys<'b>(args: &[&'b [u8]]) -> Option<Vec<(usize, &'b [u8])>> {
    let spec = spec(args.first()?)?;
    let at = |places: &mut dyn Iterator<Item = usize>| -> Option<Vec<(usize, &'b [u8])>> {
        places.map(|i| Some((i, *args.get(i)?))).collect()
    };
    let number = |i: usize| -> Option<usize> { std::str::from_utf8(args.get(i)?).ok()?.parse().ok() };
    match spec.keys {
        Keys::None => Some(vec![]),
        Keys::Range { first, last, step } => {
            let last =
                if last < 0 { args.len().checked_sub(last.unsigned_abs())? } else { last.unsigned_abs() };
            at(&mut (first..=last).step_by(step))
        }
        Keys::Counted { target, count, width } => {
            let n = number(count)?;
            if n > args.len() {
                return None;
            }
            at(&mut target.into_iter().chain((0..n).map(|i| count + 1 + i * width)))
        }
        Keys::Sort => {
            let store = word(args, 2, b"STORE").map(|i| i + 1);
            at(&mut std::iter::once(1).chain(store))
        }
        Keys::Radius => {
            let store = word(args, 5, b"STORE").or_else(|| word(args, 5, b"STOREDIST")).map(|i| i + 1);
            at(&mut std::iter::once(1).chain(store))
        }
        Keys::Streams => {
            let first = word(args, 1, b"STREAMS")? + 1;
            let n = args.len().checked_sub(first)? / 2;
            at(&mut (first..first + n))
        }
    }
}

fn word(args: &[&[u8]], from: usize, word: &[u8]) -> Option<usize> {
    (from..args.len()).find(|i| args[*i].eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Vec<usize>> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        keys(&args).map(|k| k.into_iter().map(|(i, _)| i).collect())
    }

    #[test]
    fn key_positions_match_the_command_table() {
        for (line, want) in [
            ("SET a 1 EX 5", Some(vec![1])),
            ("mset a 1 b 2", Some(vec![1, 3])),
            ("DEL a b c", Some(vec![1, 2, 3])),
            ("XGROUP CREATE s g $", Some(vec![2])),
            ("BITOP AND d a b", Some(vec![2, 3, 4])),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", Some(vec![1, 3, 4])),
            ("MSETEX 2 a 1 b 2 NX PX 5", Some(vec![2, 4])),
            ("MSETEX 3 a 1 b 2", None),
            ("EVAL return 0 x", Some(vec![])),
            ("EVALSHA x 2 a b c", Some(vec![3, 4])),
            ("SORT a LIMIT 0 5 STORE b", Some(vec![1, 6])),
            ("GEORADIUS a 1 2 3 km STOREDIST d", Some(vec![1, 7])),
            ("XREADGROUP GROUP g c STREAMS a b > >", Some(vec![5, 6])),
            ("RPOPLPUSH a b", Some(vec![1, 2])),
            ("FLUSHALL", Some(vec![])),
            ("EVAL x 99 a", None),
            ("RENAME a", None),
            ("NO.SUCH a", None),
        ] {
            assert_eq!(of(line), want, "{line}");
        }
    }
}
