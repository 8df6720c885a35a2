//! Damaged and invented input for whatever reads what others send.

#![allow(clippy::print_stdout, reason = "a soak prints how many inputs there were")]

use std::time::{Duration, Instant};

/// Inputs longer than this are cut: what is longer takes the time of many shorter ones.
pub const MAX_INPUT_BYTES: usize = 16 << 10;

/// How long each target is run: `WHIMBREL_FUZZ_SECONDS`, otherwise one second.
fn run_time() -> Duration {
    let seconds = std::env::var("WHIMBREL_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// Alters an input: bits, bytes that mean lengths, pieces cut out, doubled, moved or taken from another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..6) {
        let len = input.len();
        if len == 0 {
            input.extend_from_slice(&other[..other.len().min(16)]);
            continue;
        }
        let at = random.usize(..len);
        match random.u32(..8) {
            0 => input[at] ^= 1 << random.u32(..8),
            1 => input[at] = random.choice([0, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xfe, 0xff]).unwrap_or(0),
            2 => input.truncate(at),
            3 => drop(input.drain(at..(at + random.usize(1..40)).min(len))),
            4 => {
                let piece = input[at..(at + random.usize(1..40)).min(len)].to_vec();
                let to = random.usize(..len);
                input.splice(to..to, piece);
            }
            5 if !other.is_empty() => {
                let from = random.usize(..other.len());
                let piece = &other[from..(from + random.usize(1..200)).min(other.len())];
                input.splice(at..at, piece.iter().copied());
            }
            6 => {
                let n = random.u64(..).to_be_bytes();
                for (byte, n) in input[at..].iter_mut().zip(n) {
                    *byte = n;
                }
            }
            _ => input[at] = random.u8(..),
        }
    }
    input.truncate(MAX_INPUT_BYTES);
}

/// Runs a target for one second, or for `WHIMBREL_FUZZ_SECONDS` (`cargo x soak fuzz` sets ten minutes).
///
/// # Panics
/// With the input that makes the target panic, or when one input takes more than five seconds.
pub fn fuzz(
    name: &str,
    corpus: &[Vec<u8>],
    target: impl Fn(&[u8], &mut fastrand::Rng) + std::panic::RefUnwindSafe,
) {
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let (began, mut executions, mut longest) = (Instant::now(), 0u64, Duration::ZERO);
    for input in corpus {
        target(input, &mut random);
    }
    while began.elapsed() < run_time() {
        let mut input = corpus[random.usize(..corpus.len())].clone();
        mutate(&mut input, &corpus[random.usize(..corpus.len())], &mut random);
        let before = Instant::now();
        let seed = random.get_seed();
        let done = std::panic::catch_unwind(|| target(&input, &mut fastrand::Rng::with_seed(seed)));
        longest = longest.max(before.elapsed());
        executions += 1;
        assert!(done.is_ok(), "{name} panics with {input:?}");
        random.u8(..);
    }
    println!("fuzz {name}: {executions} executions in {:?}, the longest took {longest:?}", began.elapsed());
    assert!(executions > 20 && longest < Duration::from_secs(5));
}
