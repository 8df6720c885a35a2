//! A link as a replica has it: `PSYNC`, the snapshot, and the stream of commands behind it (replication.c).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use model::failure::{Failure, Kind, Result, Side};
use redis_proto::resp::{Reply, command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, Incoming, Outgoing, failure};
use crate::node::Node;
use crate::spool::Spool;

/// One read takes at most this much.
const READ: usize = 64 << 10;
/// Reads share a block of this length.
const BLOCK: usize = 512 << 10;
/// How often the applied offset is told.
const ACK: Duration = Duration::from_secs(1);
/// And until the stream has begun: a source holds it back until it is told so behind the end of the snapshot, and what is
/// told before the source itself has seen that end does not count.
const FIRST_ACK: Duration = Duration::from_millis(25);
const FIRST_ACKS: u32 = 200;
/// A source that sends nothing for so long is gone: it sends a `PING` every ten seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// A snapshot that is being made sends an empty line each second, at the longest for this long without one.
const PATIENCE: Duration = Duration::from_secs(120);

/// A position in a stream of replication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Whose stream.
    pub replid: String,
    /// Bytes of it that are applied.
    pub offset: u64,
}

/// How the source answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A snapshot comes first; the stream behind it begins at this position.
    Full(Position),
    /// The stream goes on where it was asked to; its identity may be a new one.
    Continued(String),
}

/// How the snapshot is delimited.
#[derive(Debug)]
enum Snapshot {
    /// So many bytes are left.
    Length(u64),
    /// Until these forty bytes.
    Mark([u8; 40]),
}

/// An open link.
pub struct Link {
    incoming: Incoming,
    outgoing: Outgoing,
    rest: BytesMut,
    place: String,
    /// What the source calls `REPLCONF`.
    replconf: String,
    /// How the source answered.
    pub begun: Begun,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({}, {:?})", self.place, self.begun)
    }
}

/// Opens a link; with a position, asks to go on behind it.
///
/// # Errors
/// [`Kind::Unsupported`] where the source refuses replicas; else what the connection meets.
pub async fn open(node: &Node, from: Option<&Position>) -> Result<Link> {
    let whole = Node { db: None, ..node.clone() };
    let mut client = Client::open(&whole).await.map_err(|f| f.at(Side::Source))?;
    let place = client.place().to_owned();
    // Each answer is read before the next word: a server refuses PSYNC while it has one to send.
    for args in [
        // Port 0 says that nobody can connect here: monitors leave such a replica alone.
        &[b"REPLCONF".as_slice(), b"listening-port", b"0"][..],
        &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"],
    ] {
        client.ok(args).await.map_err(|f| match f.kind {
            Kind::Unsupported | Kind::Forbidden => refuses(&f.message),
            _ => f.at(Side::Source),
        })?;
    }
    // Valkey writes for replicas of old unless it is told better; others do not know the word.
    let _ = client.call(&[b"REPLCONF", b"version", b"9.9.9"]).await;
    let (replid, offset) = match from {
        Some(p) => (p.replid.clone(), (p.offset + 1).to_string()),
        None => ("?".to_owned(), "-1".to_owned()),
    };
    let mut out = Vec::new();
    command(&mut out, &[b"PSYNC", replid.as_bytes(), offset.as_bytes()]);
    client.send(&out).await.map_err(|f| f.at(Side::Source))?;
    let answer = client.answer().await.map_err(|f| f.at(Side::Source))?;
    let begun = match &answer {
        Reply::Simple(text) => begun(text, from).ok_or_else(|| {
            Failure::new(Kind::Corrupt, "psync", format!("{place}: unexpected reply to PSYNC: `{text}`"))
                .at(Side::Source)
        })?,
        Reply::Error(text) if text.contains("unknown command") || text.starts_with("NOPERM") => {
            return Err(refuses(&format!("{place}: {text}")));
        }
        Reply::Error(text) => return Err(failure(&place, "psync", text).at(Side::Source)),
        _ => {
            let m = format!("{place}: the reply to PSYNC is not a string");
            return Err(Failure::new(Kind::Corrupt, "psync", m).at(Side::Source));
        }
    };
    let (incoming, outgoing, rest) = client.into_parts();
    let rest = BytesMut::from(&rest[..]);
    let replconf = node.word("REPLCONF").to_owned();
    Ok(Link { incoming, outgoing, rest, place, replconf, begun })
}

/// The source lets nobody follow it as a replica.
fn refuses(why: &str) -> Failure {
    let m = format!("the source refuses replicas: {why}; copy with --mode scan");
    Failure::new(Kind::Unsupported, "psync", m).at(Side::Source)
}

fn begun(text: &str, from: Option<&Position>) -> Option<Begun> {
    let mut words = text.split_whitespace();
    match words.next()? {
        "FULLRESYNC" => {
            let replid = words.next()?.to_owned();
            Some(Begun::Full(Position { replid, offset: words.next()?.parse().ok()? }))
        }
        "CONTINUE" => {
            let same = || from.map(|p| p.replid.clone());
            Some(Begun::Continued(words.next().map(str::to_owned).or_else(same)?))
        }
        _ => None,
    }
}

impl Link {
    fn cut(&self, e: &dyn std::fmt::Display) -> Failure {
        Failure::new(Kind::Connect, "psync", format!("{}: replication link lost: {e}", self.place))
            .at(Side::Source)
    }

    /// The first bytes of what was received, without the room behind them.
    fn taken(&mut self, n: usize) -> Bytes {
        self.rest.split_to(n).freeze()
    }

    /// One block for several reads: what is taken of it goes on without being copied.
    fn make_room(&mut self) {
        if self.rest.capacity() - self.rest.len() < READ {
            self.rest.reserve(BLOCK);
        }
    }

    async fn more(&mut self, patience: Duration) -> Result<()> {
        self.make_room();
        match tokio::time::timeout(patience, self.incoming.read_buf(&mut self.rest)).await {
            Err(_) => Err(self.cut(&format!("no data for {} s", patience.as_secs()))),
            Ok(Err(e)) => Err(self.cut(&e)),
            Ok(Ok(0)) => Err(self.cut(&"closed by the source")),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Waits for the snapshot to begin: `$length`, or `$EOF:` and its mark.
    async fn header(&mut self) -> Result<Snapshot> {
        loop {
            // Empty lines say that the snapshot is being made.
            let skip = self.rest.iter().take_while(|b| **b == b'\n').count();
            self.rest.advance(skip);
            if let Some(end) = self.rest.windows(2).position(|w| w == b"\r\n") {
                let line = self.rest.split_to(end + 2);
                let line = &line[..end];
                let text = String::from_utf8_lossy(line).into_owned();
                if let Some(mark) = text.strip_prefix("$EOF:") {
                    let mut out = [0; 40];
                    if mark.len() != out.len() {
                        return Err(self.cut(&"the end marker of the snapshot does not have 40 bytes"));
                    }
                    out.copy_from_slice(mark.as_bytes());
                    return Ok(Snapshot::Mark(out));
                }
                let len = text.strip_prefix('$').and_then(|n| n.parse().ok());
                return match len {
                    Some(len) => Ok(Snapshot::Length(len)),
                    None => Err(self.cut(&format!("expected a snapshot, received `{text}`"))),
                };
            }
            if self.rest.len() > 4096 {
                return Err(self.cut(&"expected a snapshot"));
            }
            self.more(PATIENCE).await?;
        }
    }

    /// Receives the snapshot into `spool`, which ends with it; answers when all of it has come.
    ///
    /// # Errors
    /// [`Kind::Connect`] when the link breaks.
    pub async fn snapshot(&mut self, spool: &Spool) -> Result<()> {
        let mut left = self.header().await?;
        loop {
            let take = match &mut left {
                Snapshot::Length(n) => {
                    let take = usize::try_from(*n).unwrap_or(usize::MAX).min(self.rest.len());
                    *n -= take as u64;
                    take
                }
                Snapshot::Mark(mark) => match memmem::find(&self.rest, mark) {
                    Some(at) => {
                        spool.push(self.taken(at)).await?;
                        self.rest.advance(mark.len());
                        return Ok(());
                    }
                    // The mark may have begun at the end of what is here.
                    None => self.rest.len().saturating_sub(mark.len() - 1),
                },
            };
            if take > 0 {
                spool.push(self.taken(take)).await?;
            }
            if matches!(left, Snapshot::Length(0)) {
                return Ok(());
            }
            self.more(PATIENCE).await?;
        }
    }

    /// Receives the stream into `spool` until the link breaks or the future is dropped. Tells `applied` each second, and
    /// at once when it is told to.
    ///
    /// # Errors
    /// [`Kind::Connect`] when the link breaks.
    pub async fn stream(
        mut self,
        spool: &Spool,
        applied: Arc<AtomicU64>,
        ask: Arc<tokio::sync::Notify>,
    ) -> Result<()> {
        let (mut tick, mut told) = (tokio::time::interval(FIRST_ACK), 0);
        let mut heard = tokio::time::Instant::now();
        if !self.rest.is_empty() {
            spool.push(self.taken(self.rest.len())).await?;
        }
        loop {
            self.make_room();
            let tell = tokio::select! {
                read = self.incoming.read_buf(&mut self.rest) => match read {
                    Err(e) => return Err(self.cut(&e)),
                    Ok(0) => return Err(self.cut(&"closed by the source")),
                    Ok(_) => {
                        heard = tokio::time::Instant::now();
                        if told < FIRST_ACKS {
                            (tick, told) = (tokio::time::interval(ACK), FIRST_ACKS);
                        }
                        spool.push(self.taken(self.rest.len())).await?;
                        false
                    }
                },
                _ = tick.tick() => true,
                () = ask.notified() => true,
            };
            if heard.elapsed() > SILENCE {
                return Err(self.cut(&"no data for 60 s"));
            }
            if tell {
                told += 1;
                if told == FIRST_ACKS {
                    tick = tokio::time::interval(ACK);
                }
                let mut out = Vec::new();
                let offset = applied.load(Ordering::Acquire).to_string();
                command(&mut out, &[self.replconf.as_bytes(), b"ACK", offset.as_bytes()]);
                self.outgoing.write_all(&out).await.map_err(|e| self.cut(&e))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_psync() {
        let from = Position { replid: "old".into(), offset: 5 };
        let full = Begun::Full(Position { replid: "abc".into(), offset: 77 });
        assert_eq!(begun("FULLRESYNC abc 77", None), Some(full));
        assert_eq!(begun("CONTINUE", Some(&from)), Some(Begun::Continued("old".into())));
        assert_eq!(begun("CONTINUE new", Some(&from)), Some(Begun::Continued("new".into())));
        assert_eq!(begun("FULLRESYNC abc", None), None);
    }

    #[test]
    fn a_mark_is_found_wherever_it_begins() {
        let mark = *b"0123456789abcdef0123456789abcdef01234567";
        let mut bytes = b"0123456789 01".to_vec();
        bytes.extend_from_slice(&mark);
        assert_eq!(memmem::find(&bytes, &mark), Some(13));
        assert_eq!(memmem::find(&bytes[..bytes.len() - 1], &mark), None);
    }
}
