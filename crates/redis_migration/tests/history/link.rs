//! The connections between a migration and a server, which can be cut, held up, led elsewhere, and changed on their way.
#![allow(clippy::disallowed_methods, reason = "a test connects to the server that it starts")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis_proto::resp::Commands;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Changes commands on their way to the server.
pub(crate) trait Change: Send + Sync {
    /// What is sent in the place of a command; it must have as many answers.
    fn change(&self, args: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>>;
}

/// A port of its own in front of a server.
pub(crate) struct Link {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: AtomicU16,
    cut: Notify,
    /// Bytes that still pass before all is cut.
    pass: Mutex<Option<usize>>,
    held: watch::Sender<bool>,
    change: Option<Arc<dyn Change>>,
    changing: AtomicBool,
}

impl Link {
    pub(crate) async fn to(server: u16, change: Option<Arc<dyn Change>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: server.into(),
            cut: Notify::new(),
            pass: Mutex::new(None),
            held: watch::Sender::new(false),
            change,
            changing: AtomicBool::new(false),
        });
        let all = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = all.clone();
                tokio::spawn(async move {
                    let server = shared.server.load(Ordering::SeqCst);
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        _ = shared.forward(from_client, to_server) => {}
                        _ = shared.back(from_server, to_client) => {}
                        () = shared.cut.notified() => {}
                    }
                });
            }
        });
        Self { port, shared }
    }

    /// Ends all connections now.
    pub(crate) fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Ends all connections when so many more bytes have passed to the server.
    pub(crate) fn cut_behind(&self, bytes: usize) {
        *self.shared.pass.lock().unwrap() = Some(bytes);
    }

    /// A cut that was planned, and has not happened yet, does not happen.
    pub(crate) fn cancel_cut(&self) {
        *self.shared.pass.lock().unwrap() = None;
    }

    /// Nothing passes for a while.
    pub(crate) async fn hold(&self, time: Duration) {
        self.shared.held.send_replace(true);
        tokio::time::sleep(time).await;
        self.shared.held.send_replace(false);
    }

    /// New connections lead to another server; the old ones end.
    pub(crate) fn lead_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::SeqCst);
        self.cut();
    }

    /// From now on, commands are changed.
    pub(crate) fn begin_to_change(&self) {
        self.shared.changing.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    async fn released(&self) {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }

    /// How many of these bytes may still pass.
    fn allowed(&self, bytes: usize) -> (usize, bool) {
        let mut pass = self.pass.lock().unwrap();
        match pass.as_mut() {
            None => (bytes, false),
            Some(left) if *left > bytes => {
                *left -= bytes;
                (bytes, false)
            }
            Some(left) => {
                let last = *left;
                *pass = None;
                (last, true)
            }
        }
    }

    async fn forward(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let (mut buf, mut commands) = (vec![0; 64 << 10], Commands::default());
        loop {
            let n = from.read(&mut buf).await?;
            if n == 0 {
                return Ok(());
            }
            self.released().await;
            let (n, last) = self.allowed(n);
            match &self.change {
                None => to.write_all(&buf[..n]).await?,
                Some(change) => {
                    let out = self.changed(&mut commands, &buf[..n], &**change);
                    to.write_all(&out).await?;
                }
            }
            if last {
                self.cut.notify_waiters();
                return Ok(());
            }
        }
    }

    fn changed(&self, commands: &mut Commands, bytes: &[u8], change: &dyn Change) -> Vec<u8> {
        let mut out = Vec::new();
        commands.push(bytes);
        while let Some(command) = commands.next_command().unwrap() {
            if !self.changing.load(Ordering::SeqCst) {
                out.extend_from_slice(command.raw);
                continue;
            }
            for words in change.change(command.args().map(<[u8]>::to_vec).collect()) {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                redis_proto::resp::command(&mut out, &words);
            }
        }
        out
    }

    async fn back(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buf = vec![0; 64 << 10];
        loop {
            let n = from.read(&mut buf).await?;
            if n == 0 {
                return Ok(());
            }
            self.released().await;
            to.write_all(&buf[..n]).await?;
        }
    }
}
