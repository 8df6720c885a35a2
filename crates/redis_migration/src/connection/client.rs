//! One connection: commands out, answers in.

use std::time::{Duration, Instant};

use model::error::{Error, Kind, Result};
use redis_proto::resp::{Commands, Replies, Reply, command};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::connection::node::Node;
use crate::connection::reply_error::reply_failure;

/// A connection that is used less often is given a sign of life: servers and proxies close idle ones, some after a second.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(400);

/// Time limit of a TCP connect and of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that answers nothing for so long is given up.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest reply to an ordinary query, bytes: a page of keys, connected clients, the slot layout.
const REPLY_MAX: usize = 16 << 20;
/// What a server tells of itself.
const INFO_MAX: usize = 1 << 20;
/// Longest answer that holds a value: the servers' own bound for a text, unless it was raised.
pub(crate) const VALUE_MAX: usize = 512 << 20;

/// How long the answer to a command may be.
fn reply_max(args: &[&[u8]]) -> usize {
    match args.first().copied() {
        Some(b"INFO") => INFO_MAX,
        Some(b"DUMP") => VALUE_MAX,
        _ => REPLY_MAX,
    }
}

/// The reading half of a connection.
pub type Incoming = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The writing half of a connection.
pub type Outgoing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A connection that is signed in.
pub struct Client {
    incoming: Incoming,
    outgoing: Outgoing,
    replies: Replies,
    url: String,
    buf: Vec<u8>,
    /// When an answer last came.
    pub(crate) last_reply_at: Instant,
    /// The database that commands are about.
    db: u32,
    /// Commands that have other names there.
    renamed: Vec<(String, String)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

/// Commands under the names that a server has for them.
fn renamed(bytes: &[u8], names: &[(String, String)]) -> Vec<u8> {
    let mut commands = Commands::starting_at(0);
    commands.push(bytes);
    let mut out = Vec::with_capacity(bytes.len());
    while let Ok(Some(one)) = commands.next_command() {
        let name = one.arg(0).unwrap_or_default();
        match names.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes())) {
            Some((_, theirs)) => {
                let args: Vec<&[u8]> = std::iter::once(theirs.as_bytes()).chain(one.args().skip(1)).collect();
                command(&mut out, &args);
            }
            None => out.extend_from_slice(one.raw),
        }
    }
    out
}

/// True for the alert with which the other side of TLS ends a connection.
fn is_tls_alert(e: &std::io::Error) -> bool {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

/// Connects, with TLS where asked; no command is sent.
///
/// # Errors
/// [`Kind::Connect`] with the address.
pub async fn connect(node: &Node) -> Result<(Incoming, Outgoing)> {
    let url = node.display_url();
    let failed = |e: &dyn std::fmt::Display| Error::new(Kind::Connect, "connect", format!("{url}: {e}"));
    let Some((host, port)) = node.addrs.first() else { return Err(failed(&"no address was given")) };
    let opening = node.egress.connect(host, host, *port);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(f)) => return Err(Error { message: format!("{url}: {}", f.message), ..f }),
        Err(_) => return Err(failed(&"connection timed out after 10 s")),
    };
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    if !node.tls {
        let (incoming, outgoing) = stream.into_split();
        return Ok((Box::new(incoming), Box::new(outgoing)));
    }
    let name = ServerName::try_from(host.clone()).map_err(|e| failed(&e))?;
    let tls = TlsConnector::from(node.tls_files.config()?).connect(name, stream);
    let Ok(tls) = tokio::time::timeout(CONNECT_TIMEOUT, tls).await else {
        return Err(failed(
            &"the TLS handshake timed out after 10 s; hint: use redis:// if the server does not use \
             TLS",
        ));
    };
    let (incoming, outgoing) = tokio::io::split(tls.map_err(|e| failed(&e))?);
    Ok((Box::new(incoming), Box::new(outgoing)))
}

impl Client {
    /// Connects and signs in.
    ///
    /// # Errors
    /// [`Kind::Connect`], [`Kind::BadCredentials`], or what the server answers.
    pub async fn open(node: &Node) -> Result<Self> {
        let (incoming, outgoing) = connect(node).await?;
        let mut client = Self {
            incoming,
            outgoing,
            replies: Replies::with_limit(REPLY_MAX),
            url: node.display_url(),
            buf: Vec::new(),
            last_reply_at: Instant::now(),
            db: 0,
            renamed: node.renamed.clone(),
        };
        // A user may have no password (`nopass`), and any is right then.
        if !node.password.is_empty() || !node.user.is_empty() {
            let (user, password) = (node.user.as_bytes(), node.password.as_bytes());
            // Servers before 6 know no users.
            let auth: &[&[u8]] =
                if user.is_empty() { &[b"AUTH", password] } else { &[b"AUTH", user, password] };
            client.execute(auth).await?;
        }
        client.select(node.db.unwrap_or(0)).await?;
        Ok(client)
    }

    /// Commands are about this database from here on; a user of database 0 only needs no right to `SELECT`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn select(&mut self, db: u32) -> Result<()> {
        if self.db != db {
            self.execute(&[b"SELECT", db.to_string().as_bytes()]).await?;
            self.db = db;
        }
        Ok(())
    }

    /// URL of the server, for messages.
    pub fn display_url(&self) -> &str {
        &self.url
    }

    fn connection_lost(&self, e: &dyn std::fmt::Display) -> Error {
        Error::new(Kind::Connect, "redis", format!("{}: connection lost: {e}", self.url))
    }

    /// Sends bytes that are commands already.
    ///
    /// # Errors
    /// [`Kind::Connect`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let told = (!self.renamed.is_empty()).then(|| renamed(bytes, &self.renamed));
        self.outgoing.write_all(told.as_deref().unwrap_or(bytes)).await.map_err(|e| self.connection_lost(&e))
    }

    /// The next answer; an error reply is an answer.
    ///
    /// # Errors
    /// [`Kind::Connect`], [`Kind::Timeout`] or [`Kind::Corrupt`].
    pub async fn next_reply(&mut self) -> Result<Reply> {
        loop {
            let next = self.replies.next_reply();
            let corrupt = |e| Error::new(Kind::Corrupt, "redis", format!("{}: {e}", self.url));
            match next.map_err(corrupt)? {
                Some(Reply::Push(_)) => {}
                Some(reply) => return Ok(reply),
                None => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> Result<()> {
        self.buf.resize(64 << 10, 0);
        let read = tokio::time::timeout(REPLY_TIMEOUT, self.incoming.read(&mut self.buf)).await;
        match read {
            Err(_) => Err(Error::new(Kind::Timeout, "redis", format!("{}: no reply within 60 s", self.url))),
            Ok(Err(e)) => Err(self.connection_lost(&e)),
            Ok(Ok(0)) => Err(self.connection_lost(&"closed by the server")),
            Ok(Ok(n)) => {
                self.last_reply_at = Instant::now();
                self.replies.push(&self.buf[..n]);
                Ok(())
            }
        }
    }

    /// One command and its answer.
    ///
    /// # Errors
    /// As [`Client::next_reply`]; an error reply as the kind that it means.
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Reply> {
        match self.call_reply(args).await? {
            Reply::Error(text) => Err(reply_failure(&self.url, "redis", &text)),
            reply => Ok(reply),
        }
    }

    /// One command and its answer; an error reply is an answer.
    ///
    /// # Errors
    /// As [`Client::next_reply`].
    pub(crate) async fn call_reply(&mut self, args: &[&[u8]]) -> Result<Reply> {
        let mut out = Vec::new();
        command(&mut out, args);
        self.replies.bound(reply_max(args));
        if let Err(broke) = self.send(&out).await {
            // Why the other side closed the connection may still be unread, as a refusal of TLS.
            return Err(self.tls_alert().await.unwrap_or(broke));
        }
        self.next_reply().await
    }

    /// The alert that ended the connection, if TLS received one.
    async fn tls_alert(&mut self) -> Option<Error> {
        self.buf.resize(64 << 10, 0);
        let read = tokio::time::timeout(REPLY_TIMEOUT, self.incoming.read(&mut self.buf)).await.ok()?;
        read.err().filter(is_tls_alert).map(|e| self.connection_lost(&e))
    }

    /// One command whose reply matters only when it is an error.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn execute(&mut self, args: &[&[u8]]) -> Result<()> {
        self.call(args).await.map(drop)
    }

    /// Several commands at once, and their answers in order; error replies are answers.
    ///
    /// # Errors
    /// As [`Client::next_reply`].
    pub async fn pipeline(&mut self, commands: &[u8], count: usize) -> Result<Vec<Reply>> {
        self.replies.bound(VALUE_MAX);
        self.send(commands).await?;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(self.next_reply().await?);
        }
        Ok(out)
    }

    /// Both halves, and what was received and not read yet.
    pub fn into_parts(self) -> (Incoming, Outgoing, Vec<u8>) {
        (self.incoming, self.outgoing, self.replies.into_rest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_16_renamed_commands_are_sent_by_their_new_names() {
        let names = [("PSYNC".to_owned(), "secret-psync".to_owned())];
        let (mut given, mut want) = (Vec::new(), Vec::new());
        for (args, told) in [
            (&[b"psync".as_slice(), b"?", b"-1"], b"secret-psync".as_slice()),
            (&[b"SET", b"PSYNC", b""], b"SET"),
        ] {
            command(&mut given, args);
            command(&mut want, &[told, args[1], args[2]]);
        }
        assert_eq!(renamed(&given, &names), want);
    }
}
