//! Keys in the list of suspects, as they stand there: `DB:KEY`.

/// A database of the source, and a key there.
pub(crate) type KeyRef = (u32, Vec<u8>);

/// The number of a database after two have changed places.
pub(crate) fn swapped_db(db: u32, (a, b): (u32, u32)) -> u32 {
    match db {
        _ if db == a => b,
        _ if db == b => a,
        _ => db,
    }
}

/// A place as it stands in the target's list.
pub(crate) fn encode_key_ref(db: u32, key: &[u8]) -> Vec<u8> {
    [format!("{db}:").as_bytes(), key].concat()
}

/// The same, read back.
pub(crate) fn decode_key_ref(member: &[u8]) -> Option<(u32, &[u8])> {
    let at = member.iter().position(|b| *b == b':')?;
    Some((std::str::from_utf8(&member[..at]).ok()?.parse().ok()?, &member[at + 1..]))
}
