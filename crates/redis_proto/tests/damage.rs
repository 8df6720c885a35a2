//! Dumps that are cut short or altered: an error with an offset within the file, or values, but never a panic.

use crate::fixtures::{dumps, load, load_to_end};

#[test]
fn truncated_dump_is_an_error_at_its_end() {
    for dump in dumps() {
        let bytes = std::fs::read(&dump).unwrap();
        let Ok((_, end)) = load_to_end(&bytes, usize::MAX, u64::MAX) else { continue };
        let step = (end / 200).max(1);
        for cut in (0..end).step_by(step) {
            let error = load(&bytes[..cut], usize::MAX, u64::MAX).expect_err("a part is no whole");
            assert!(error.offset <= cut as u64, "{} cut at {cut}: {error}", dump.display());
        }
    }
}

#[test]
fn flipped_bit_is_detected() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut found, mut all) = (0, 0);
    for dump in dumps() {
        let bytes = std::fs::read(&dump).unwrap();
        let Ok((_, end)) = load_to_end(&bytes, usize::MAX, u64::MAX) else { continue };
        let summed = bytes[end - 8..end] != [0; 8] && bytes[5..9] > b"0004"[..];
        for _ in 0..60 {
            let mut altered = bytes.clone();
            let at = random.usize(9..end);
            altered[at] ^= 1 << random.u32(0..8);
            let loaded = load(&altered, usize::MAX, if random.bool() { u64::MAX } else { 100 });
            if let Err(error) = &loaded {
                assert!(error.offset <= bytes.len() as u64, "{}: {error}", dump.display());
                found += 1;
            }
            assert!(loaded.is_err() || !summed, "{}: bit at {at} went unnoticed", dump.display());
            all += 1;
        }
    }
    assert!(found * 2 > all, "{found} of {all} were found");
}
