//! Slots of a cluster (Redis Cluster specification, "Key distribution model" and "Hash tags").

use std::sync::LazyLock;

/// How many there are.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: of what stands between its first `{` and the next `}`, when there is anything.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let len = key[open + 1..].iter().position(|b| *b == b'}').filter(|len| *len > 0)?;
        Some(&key[open + 1..open + 1 + len])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// For each slot a short text that belongs to it: `{TEXT}` in a key puts it there.
pub fn tag(slot: u16) -> &'static str {
    static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut tags = vec![String::new(); usize::from(SLOTS)];
        let mut left = tags.len();
        for n in 0u64.. {
            let text = n.to_string();
            let place = &mut tags[usize::from(crc16(text.as_bytes()) % SLOTS)];
            if place.is_empty() {
                *place = text;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        tags
    });
    &TAGS[usize::from(slot % SLOTS)]
}

/// CRC-16 of XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    for b in bytes {
        crc ^= u16::from(*b) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b""), 0);
        assert!((0..SLOTS).all(|n| slot(format!("x{{{}}}y", tag(n)).as_bytes()) == n));
    }
}
