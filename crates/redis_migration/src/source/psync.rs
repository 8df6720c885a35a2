//! A link as a replica has it: `PSYNC`, the snapshot, and the stream of commands behind it (replication.c).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::{Reply, command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::client::{Client, Incoming, Outgoing};
use crate::connection::node::Node;
use crate::connection::reply_error::{ReplyError, classify, reply_failure};
use crate::source::spool::Spool;

/// One read takes at most this much.
const READ_BYTES: usize = 64 << 10;
/// Reads share a block of this length.
const BLOCK_BYTES: usize = 512 << 10;
/// How often the applied offset is acknowledged.
const ACK_INTERVAL: Duration = Duration::from_secs(1);
/// The same until the stream has begun: a source sends it only after an acknowledgement behind the end of the snapshot, and
/// ignores those that come before it has reached that end itself.
const FIRST_ACK_INTERVAL: Duration = Duration::from_millis(25);
/// Acknowledgements at `FIRST_ACK_INTERVAL`, at most.
const FIRST_ACKS: u32 = 200;
/// A source that sends nothing for so long is gone: it sends a `PING` every ten seconds.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// A snapshot that is being made sends an empty line each second, at the longest for this long without one.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);

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
pub enum PsyncReply {
    /// A snapshot comes first; the stream behind it begins at this position.
    Full(Position),
    /// The stream continues at the offset that was asked for; its replication ID may be new.
    Continued(String),
}

/// How the snapshot is delimited.
#[derive(Debug)]
enum Snapshot {
    /// So many bytes are left.
    Length(u64),
    /// Until these forty bytes.
    Delimiter([u8; 40]),
}

/// An open link.
pub struct Link {
    incoming: Incoming,
    outgoing: Outgoing,
    received: BytesMut,
    url: String,
    /// What the source calls `REPLCONF`.
    replconf: String,
    /// How the source answered.
    pub begun: PsyncReply,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({}, {:?})", self.url, self.begun)
    }
}

/// Opens a link; with a position, asks to go on behind it.
///
/// # Errors
/// [`Kind::Unsupported`] where the source refuses replicas; else an error of the connection.
pub async fn open(node: &Node, from: Option<&Position>) -> Result<Link> {
    let any_db = Node { db: None, ..node.clone() };
    let mut client = Client::open(&any_db).await.map_err(|f| f.at(Side::Source))?;
    let url = client.display_url().to_owned();
    // Each answer is read before the next word: a server refuses PSYNC while it has one to send.
    for args in [
        // Port 0 means that this replica accepts no connections: Sentinels ignore it.
        &[b"REPLCONF".as_slice(), b"listening-port", b"0"][..],
        &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"],
    ] {
        client.execute(args).await.map_err(|f| match f.kind {
            Kind::Unsupported | Kind::Forbidden => refuses(&f.message),
            _ => f.at(Side::Source),
        })?;
    }
    // Valkey writes for old replicas unless it knows the version; other servers do not know the option.
    let _ = client.call(&[b"REPLCONF", b"version", b"9.9.9"]).await;
    let (replid, offset) = match from {
        Some(p) => (p.replid.clone(), (p.offset + 1).to_string()),
        None => ("?".to_owned(), "-1".to_owned()),
    };
    let mut out = Vec::new();
    command(&mut out, &[b"PSYNC", replid.as_bytes(), offset.as_bytes()]);
    client.send(&out).await.map_err(|f| f.at(Side::Source))?;
    let answer = client.next_reply().await.map_err(|f| f.at(Side::Source))?;
    let begun = match &answer {
        Reply::Simple(text) => parse_psync_reply(text, from).ok_or_else(|| {
            Error::new(Kind::Corrupt, "psync", format!("{url}: unexpected reply to PSYNC: `{text}`"))
                .at(Side::Source)
        })?,
        Reply::Error(text) => {
            let reply = classify(text);
            return Err(match reply.is_unknown_command() || reply == ReplyError::NoPermission {
                true => refuses(&format!("{url}: {text}")),
                false => reply_failure(&url, "psync", text).at(Side::Source),
            });
        }
        _ => {
            let m = format!("{url}: the reply to PSYNC is not a string");
            return Err(Error::new(Kind::Corrupt, "psync", m).at(Side::Source));
        }
    };
    let (incoming, outgoing, received) = client.into_parts();
    let received = BytesMut::from(&received[..]);
    let replconf = node.command_name("REPLCONF").to_owned();
    Ok(Link { incoming, outgoing, received, url, replconf, begun })
}

/// The source refuses replicas.
fn refuses(why: &str) -> Error {
    let m = format!("the source refuses replicas: {why}; copy with --mode scan");
    Error::new(Kind::Unsupported, "psync", m).at(Side::Source)
}

fn parse_psync_reply(text: &str, from: Option<&Position>) -> Option<PsyncReply> {
    let mut words = text.split_whitespace();
    match words.next()? {
        "FULLRESYNC" => {
            let replid = words.next()?.to_owned();
            Some(PsyncReply::Full(Position { replid, offset: words.next()?.parse().ok()? }))
        }
        "CONTINUE" => {
            let same = || from.map(|p| p.replid.clone());
            Some(PsyncReply::Continued(words.next().map(str::to_owned).or_else(same)?))
        }
        _ => None,
    }
}

impl Link {
    fn link_lost(&self, e: &dyn std::fmt::Display) -> Error {
        Error::new(Kind::Connect, "psync", format!("{}: replication link lost: {e}", self.url))
            .at(Side::Source)
    }

    /// The first bytes of what was received, without the room behind them.
    fn split_received(&mut self, n: usize) -> Bytes {
        self.received.split_to(n).freeze()
    }

    /// One block for several reads: parts of it are passed on without a copy.
    fn make_room(&mut self) {
        if self.received.capacity() - self.received.len() < READ_BYTES {
            self.received.reserve(BLOCK_BYTES);
        }
    }

    async fn receive(&mut self, timeout: Duration) -> Result<()> {
        self.make_room();
        match tokio::time::timeout(timeout, self.incoming.read_buf(&mut self.received)).await {
            Err(_) => Err(self.link_lost(&format!("no data for {} s", timeout.as_secs()))),
            Ok(Err(e)) => Err(self.link_lost(&e)),
            Ok(Ok(0)) => Err(self.link_lost(&"closed by the source")),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Waits for the snapshot to begin: `$length`, or `$EOF:` and its delimiter.
    async fn header(&mut self) -> Result<Snapshot> {
        loop {
            // Empty lines say that the snapshot is being made.
            let skip = self.received.iter().take_while(|b| **b == b'\n').count();
            self.received.advance(skip);
            if let Some(end) = self.received.windows(2).position(|w| w == b"\r\n") {
                let line = self.received.split_to(end + 2);
                let line = &line[..end];
                let text = String::from_utf8_lossy(line).into_owned();
                if let Some(delimiter) = text.strip_prefix("$EOF:") {
                    let mut out = [0; 40];
                    if delimiter.len() != out.len() {
                        return Err(self.link_lost(&"the end marker of the snapshot does not have 40 bytes"));
                    }
                    out.copy_from_slice(delimiter.as_bytes());
                    return Ok(Snapshot::Delimiter(out));
                }
                let len = text.strip_prefix('$').and_then(|n| n.parse().ok());
                return match len {
                    Some(len) => Ok(Snapshot::Length(len)),
                    None => Err(self.link_lost(&format!("expected a snapshot, received `{text}`"))),
                };
            }
            if self.received.len() > 4096 {
                return Err(self.link_lost(&"expected a snapshot"));
            }
            self.receive(SNAPSHOT_TIMEOUT).await?;
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
                    let take = usize::try_from(*n).unwrap_or(usize::MAX).min(self.received.len());
                    *n -= take as u64;
                    take
                }
                Snapshot::Delimiter(delimiter) => match memmem::find(&self.received, delimiter) {
                    Some(at) => {
                        spool.push(self.split_received(at)).await?;
                        self.received.advance(delimiter.len());
                        return Ok(());
                    }
                    // The delimiter may begin at the end of what is here.
                    None => self.received.len().saturating_sub(delimiter.len() - 1),
                },
            };
            if take > 0 {
                spool.push(self.split_received(take)).await?;
            }
            if matches!(left, Snapshot::Length(0)) {
                return Ok(());
            }
            self.receive(SNAPSHOT_TIMEOUT).await?;
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
        ack_requested: Arc<tokio::sync::Notify>,
    ) -> Result<()> {
        let (mut tick, mut acks_sent) = (tokio::time::interval(FIRST_ACK_INTERVAL), 0);
        let mut last_read_at = tokio::time::Instant::now();
        if !self.received.is_empty() {
            spool.push(self.split_received(self.received.len())).await?;
        }
        loop {
            self.make_room();
            let send_ack = tokio::select! {
                read = self.incoming.read_buf(&mut self.received) => match read {
                    Err(e) => return Err(self.link_lost(&e)),
                    Ok(0) => return Err(self.link_lost(&"closed by the source")),
                    Ok(_) => {
                        last_read_at = tokio::time::Instant::now();
                        if acks_sent < FIRST_ACKS {
                            (tick, acks_sent) = (tokio::time::interval(ACK_INTERVAL), FIRST_ACKS);
                        }
                        spool.push(self.split_received(self.received.len())).await?;
                        false
                    }
                },
                _ = tick.tick() => true,
                () = ack_requested.notified() => true,
            };
            if last_read_at.elapsed() > SILENCE_TIMEOUT {
                return Err(self.link_lost(&"no data for 60 s"));
            }
            if send_ack {
                acks_sent += 1;
                if acks_sent == FIRST_ACKS {
                    tick = tokio::time::interval(ACK_INTERVAL);
                }
                let mut out = Vec::new();
                let offset = applied.load(Ordering::Acquire).to_string();
                command(&mut out, &[self.replconf.as_bytes(), b"ACK", offset.as_bytes()]);
                self.outgoing.write_all(&out).await.map_err(|e| self.link_lost(&e))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psync_replies_are_parsed() {
        let from = Position { replid: "old".into(), offset: 5 };
        let full = PsyncReply::Full(Position { replid: "abc".into(), offset: 77 });
        assert_eq!(parse_psync_reply("FULLRESYNC abc 77", None), Some(full));
        assert_eq!(parse_psync_reply("CONTINUE", Some(&from)), Some(PsyncReply::Continued("old".into())));
        assert_eq!(parse_psync_reply("CONTINUE new", Some(&from)), Some(PsyncReply::Continued("new".into())));
        assert_eq!(parse_psync_reply("FULLRESYNC abc", None), None);
    }

    #[test]
    fn eof_delimiter_is_found_at_any_offset() {
        let delimiter = *b"0123456789abcdef0123456789abcdef01234567";
        let mut bytes = b"0123456789 01".to_vec();
        bytes.extend_from_slice(&delimiter);
        assert_eq!(memmem::find(&bytes, &delimiter), Some(13));
        assert_eq!(memmem::find(&bytes[..bytes.len() - 1], &delimiter), None);
    }
}
