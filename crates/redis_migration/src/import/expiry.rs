//! Expiries of an append-only file. A server that loads the file lets no key expire before it has read everything: a later command
//! may renew or remove the expiry. The target is not loading, so it gets each expiry [`HELD_MS`] too late, and the true ones when
//! the file is at its end.

use model::error::{Result, Side};
use redis_proto::resp::Reply;

use crate::connection::RESERVED_PREFIX;
use crate::connection::client::Client;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;

/// Added to each expiry while a file is applied, milliseconds (more than 1,000 years); what is later than this was held back.
pub(crate) const HELD_MS: i64 = 1 << 45;
/// Keys that are asked about together.
const SCAN_COUNT: &[u8] = b"1000";

/// A command whose absolute expiry is held back; none where it has none.
pub(crate) fn hold_back(name: &[u8], args: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    let is = |i: usize, word: &[u8]| args.get(i).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    let mut options = match name {
        b"PEXPIREAT" | b"HPEXPIREAT" => return with_later(args, 2, HELD_MS),
        b"EXPIREAT" | b"HEXPIREAT" => return with_later(args, 2, HELD_MS / 1000),
        b"RESTORE" => {
            let absolute = (4..args.len()).any(|i| is(i, b"ABSTTL")) && !is(2, b"0");
            return if absolute { with_later(args, 2, HELD_MS) } else { None };
        }
        b"SET" => 3..args.len(),
        b"GETEX" => 2..args.len(),
        b"HSETEX" | b"HGETEX" => 2..(2..args.len()).find(|i| is(*i, b"FIELDS")).unwrap_or(args.len()),
        b"MSETEX" => 2 + 2 * redis_proto::command::keys(args)?.len()..args.len(),
        _ => return None,
    };
    let at = options.find(|i| is(*i, b"PXAT") || is(*i, b"EXAT"))?;
    with_later(args, at + 1, if is(at, b"PXAT") { HELD_MS } else { HELD_MS / 1000 })
}

/// The same with a later time at one place.
fn with_later(args: &[&[u8]], place: usize, later: i64) -> Option<Vec<Vec<u8>>> {
    let at: i64 = std::str::from_utf8(args.get(place)?).ok()?.parse().ok()?;
    let mut words: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
    words[place] = at.saturating_add(later).to_string().into_bytes();
    Some(words)
}

/// Gives every key of a target its true expiry, and every field of its hashes where `fields` have any.
///
/// # Errors
/// What the target answers.
pub(crate) async fn release(query: &mut QueryClient, fields: bool) -> Result<()> {
    let masters = query.masters();
    for addr in &masters {
        // What was written since the target was opened counts too.
        let server = ServerInfo::query(query.client_at(addr).await?).await.map_err(|f| f.at(Side::Target))?;
        for db in server.dbs.iter().filter(|db| !server.cluster || **db == 0) {
            query.select(*db).await?;
            let client = query.client_at(addr).await?;
            release_at(client, &server, fields).await.map_err(|f| f.at(Side::Target))?;
        }
    }
    query.select(0).await
}

async fn release_at(client: &mut Client, server: &ServerInfo, fields: bool) -> Result<()> {
    let absolute = server.tells_expiry_time();
    let (ask, set): (&[u8], &[u8]) =
        if absolute { (b"PEXPIRETIME", b"PEXPIREAT") } else { (b"PTTL", b"PEXPIRE") };
    let mut cursor = b"0".to_vec();
    loop {
        let page = client.call(&[b"SCAN", &cursor, b"COUNT", SCAN_COUNT]).await?;
        let Some([next, keys]) = page.array() else { return Ok(()) };
        let keys: Vec<&[u8]> = keys.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
        let expiries = each(client, keys.iter().map(|key| vec![ask, key])).await?;
        let held = keys.iter().zip(&expiries).filter_map(|(key, at)| {
            // A time that is left counts from now: what was held back is longer than any other in any case.
            let margin = if absolute { 0 } else { HELD_MS / 2 };
            let at = at.number().filter(|at| *at >= HELD_MS - margin)?;
            Some((*key, (at - HELD_MS).to_string().into_bytes()))
        });
        let held: Vec<(&[u8], Vec<u8>)> = held.collect();
        if fields && server.expires_fields() {
            release_fields(client, &keys).await?;
        }
        each(client, held.iter().map(|(key, at)| vec![set, key, at])).await?;
        cursor = next.text().unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            return Ok(());
        }
    }
}

/// The same for the fields of the hashes among some keys.
async fn release_fields(client: &mut Client, keys: &[&[u8]]) -> Result<()> {
    let types = each(client, keys.iter().map(|key| vec![&b"TYPE"[..], key])).await?;
    for (key, _) in keys
        .iter()
        .zip(&types)
        .filter(|(key, kind)| kind.text() == Some(b"hash") && !key.starts_with(RESERVED_PREFIX))
    {
        let names = client.call(&[b"HKEYS", key]).await?;
        let names: Vec<&[u8]> = names.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
        for some in names.chunks(1000) {
            let count = some.len().to_string().into_bytes();
            let words: [&[u8]; 4] = [b"HPEXPIRETIME", key, b"FIELDS", &count];
            let expiries = client.call(&[&words, some].concat()).await?;
            let held = some.iter().zip(expiries.array().unwrap_or_default()).filter_map(|(name, at)| {
                let at = at.number().filter(|at| *at >= HELD_MS)? - HELD_MS;
                Some((*name, at.to_string().into_bytes()))
            });
            let held: Vec<(&[u8], Vec<u8>)> = held.collect();
            let words =
                held.iter().map(|(name, at)| vec![&b"HPEXPIREAT"[..], key, at, b"FIELDS", b"1", name]);
            each(client, words).await?;
        }
    }
    Ok(())
}

/// Commands that are sent together, and their replies.
async fn each<'w>(client: &mut Client, commands: impl Iterator<Item = Vec<&'w [u8]>>) -> Result<Vec<Reply>> {
    let (mut out, mut count) = (Vec::new(), 0);
    for words in commands {
        redis_proto::resp::command(&mut out, &words);
        count += 1;
    }
    client.pipeline(&out, count).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_expiries_are_held_back() {
        let later = (HELD_MS + 9).to_string();
        let later_s = (HELD_MS / 1000 + 9).to_string();
        for (line, want) in [
            ("PEXPIREAT k 9", "PEXPIREAT k @MS"),
            ("EXPIREAT k 9 GT", "EXPIREAT k @S GT"),
            ("SET k PXAT", "-"),
            ("SET PXAT 7 PXAT 9", "SET PXAT 7 PXAT @MS"),
            ("SET k v EX 9", "-"),
            ("GETEX k EXAT 9", "GETEX k EXAT @S"),
            ("HSETEX h FNX PXAT 9 FIELDS 1 PXAT 9", "HSETEX h FNX PXAT @MS FIELDS 1 PXAT 9"),
            ("HSETEX h FIELDS 1 PXAT 9", "-"),
            ("HPEXPIREAT h 9 FIELDS 1 f", "HPEXPIREAT h @MS FIELDS 1 f"),
            ("MSETEX 1 PXAT 9 PXAT 9", "MSETEX 1 PXAT 9 PXAT @MS"),
            ("RESTORE k 9 x ABSTTL", "RESTORE k @MS x ABSTTL"),
            ("RESTORE k 9 x", "-"),
            ("RESTORE k 0 x ABSTTL", "-"),
            ("INCR k", "-"),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let held = hold_back(args[0], &args).map(|words| words.join(&b' '));
            let held = held.map_or("-".into(), |words| String::from_utf8(words).unwrap());
            assert_eq!(held, want.replace("@MS", &later).replace("@S", &later_s), "{line}");
        }
    }
}
