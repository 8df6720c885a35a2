//! Real Redis and Valkey servers, each started by the test that needs it, and a plain client.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis_proto::resp::{Replies, Reply, command};

/// Versions that `cargo x servers` has the programs of.
pub const VERSIONS: [&str; 5] = ["REDIS_6_2", "REDIS_7_0", "REDIS_8_2", "VALKEY_8_1", "VALKEY_9_1"];

/// A running server; killed when dropped.
pub struct Redis {
    child: Child,
    version: String,
    args: Vec<String>,
    /// Its port on loopback.
    pub port: u16,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.version, self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(home(self.port));
    }
}

/// Where a server writes what it must: snapshots for its replicas.
fn home(port: u16) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("whimbrel-redis-{}-{port}", std::process::id()))
}

fn launch(version: &str, port: u16, args: &[String]) -> Child {
    let program = crate::servers::endpoint(&format!("WHIMBREL_TEST_{version}"));
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.args(["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"]);
    let dir = home(port);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    command.arg("--dir").arg(dir);
    if version != "REDIS_6_2" {
        command.args(["--enable-debug-command", "yes"]);
    }
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("{version}: {e}"))
}

impl Redis {
    /// Starts a version, by its name in [`VERSIONS`], with further arguments.
    ///
    /// # Panics
    /// When it is not installed or does not answer.
    pub fn start(version: &str, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        loop {
            let free = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
            let port = free.local_addr().map_or(0, |a| a.port());
            drop(free);
            let child = launch(version, port, &args);
            let mut redis = Self { child, version: version.to_owned(), args: args.clone(), port };
            // Another test may have been given the same port meanwhile.
            if redis.is_up() {
                return redis;
            }
        }
    }

    /// Waits until it answers; false when it has ended instead.
    fn is_up(&mut self) -> bool {
        let began = Instant::now();
        loop {
            if let Ok(Some(_)) = self.child.try_wait() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                let info = self.connect().call(&[b"INFO", b"server"]);
                if let redis_proto::resp::Reply::Error(text) = &info {
                    return text.starts_with("NOAUTH");
                }
                let id = format!("process_id:{}\r", self.child.id());
                return String::from_utf8_lossy(info.text().unwrap_or_default()).contains(&id);
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{self:?} does not answer");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Kills it and starts it empty on its port.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = launch(&self.version, self.port, &self.args);
        assert!(self.is_up(), "{self:?} does not start again");
    }

    /// `redis://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it keeps its files.
    pub fn dir(&self) -> std::path::PathBuf {
        home(self.port)
    }

    /// A connection of its own.
    pub fn connect(&self) -> Connection {
        Connection::to(self.port)
    }

    /// One command; words are divided by spaces.
    ///
    /// # Panics
    /// For an error reply.
    pub fn run(&self, line: &str) -> Reply {
        self.connect().run(line)
    }

    /// Stops or continues the process (SIGSTOP, SIGCONT).
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let _ = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
    }
}

/// A connection of a test.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    replies: Replies,
}

impl Connection {
    /// To a port on loopback.
    ///
    /// # Panics
    /// When nothing listens.
    pub fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("{port}: {e}"));
        let _ = stream.set_nodelay(true);
        Self { stream, replies: Replies::default() }
    }

    /// One command.
    ///
    /// # Panics
    /// When the connection breaks.
    pub fn call(&mut self, args: &[&[u8]]) -> Reply {
        let mut out = Vec::new();
        command(&mut out, args);
        self.many(&out, 1).pop().unwrap_or(Reply::Nil)
    }

    /// Several commands that are written already, and their answers.
    ///
    /// # Panics
    /// When the connection breaks.
    pub fn many(&mut self, commands: &[u8], count: usize) -> Vec<Reply> {
        self.stream.write_all(commands).unwrap_or_else(|e| panic!("write: {e}"));
        let mut out = Vec::with_capacity(count);
        let mut buf = vec![0; 64 << 10];
        while out.len() < count {
            match self.replies.next_reply().unwrap_or_else(|e| panic!("{e}")) {
                Some(reply) => out.push(reply),
                None => {
                    let n = self.stream.read(&mut buf).unwrap_or_else(|e| panic!("read: {e}"));
                    assert!(n > 0, "the server closed the connection");
                    self.replies.push(&buf[..n]);
                }
            }
        }
        out
    }

    /// One command; words are divided by spaces.
    ///
    /// # Panics
    /// For an error reply.
    pub fn run(&mut self, line: &str) -> Reply {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let reply = self.call(&args);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
        reply
    }
}
