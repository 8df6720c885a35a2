//! What a migration could not migrate, kept at the target beside the checkpoint: a later run that resumes is not complete either.

use model::error::Result;
use redis_proto::resp::Reply;

use crate::checkpoint::keys::KeyNames;
use crate::connection::query_client::QueryClient;
use crate::progress::Summary;
use crate::stream::key_repair::UNREADABLE;

/// Begins the field of a key that failed alone.
const KEY: &str = "key ";
/// Begins the field of a kind of data that the target does not support; its value is the count.
const KIND: &str = "kind ";

/// Writes what the summary says.
///
/// # Errors
/// What the target answers.
pub(crate) async fn record(query: &mut QueryClient, names: &KeyNames, summary: &Summary) -> Result<()> {
    query.execute(&names.failed, &[b"DEL", &names.failed]).await?;
    let keys = summary.failed.iter().map(|what| (format!("{KEY}{what}"), 1));
    let kinds = summary.full.unsupported.iter().filter(|(what, _)| *what != UNREADABLE);
    let kinds = kinds.map(|(what, n)| (format!("{KIND}{what}"), *n));
    for (field, n) in keys.chain(kinds) {
        let n = n.to_string();
        let words: [&[u8]; 4] = [b"HSET", &names.failed, field.as_bytes(), n.as_bytes()];
        query.execute(&names.failed, &words).await?;
    }
    Ok(())
}

/// Adds what earlier runs could not migrate, unless this one has said so already.
///
/// # Errors
/// What the target answers.
pub(crate) async fn recall(query: &mut QueryClient, names: &KeyNames, summary: &mut Summary) -> Result<()> {
    let all = query.call(0, &names.failed, &[b"HGETALL", &names.failed]).await?;
    for pair in all.array().unwrap_or_default().chunks(2) {
        let text = |i: usize| Some(String::from_utf8_lossy(pair.get(i).and_then(Reply::text)?).into_owned());
        let (Some(field), Some(n)) = (text(0), text(1)) else { continue };
        if let Some(what) = field.strip_prefix(KEY) {
            if !summary.failed.iter().any(|known| known == what) {
                summary.failed.push(what.to_owned());
            }
        } else if let Some(what) = field.strip_prefix(KIND) {
            let n = n.parse().unwrap_or(1);
            let known = summary.full.unsupported.entry(what.to_owned()).or_default();
            *known = (*known).max(n);
        }
    }
    Ok(())
}
