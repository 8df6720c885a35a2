//! Real Redis and Valkey servers, each started by the test that needs it, and a plain client.
#![allow(clippy::disallowed_methods, reason = "a test connects to the server that it starts")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis_proto::resp::{Replies, Reply, command};

/// Versions that `cargo x servers` has the programs of.
pub const VERSIONS: [&str; 5] = ["REDIS_6_2", "REDIS_7_0", "REDIS_8_2", "VALKEY_8_1", "VALKEY_9_1"];

/// Old versions that data come from; they know no streams, or no functions.
pub const OLD: [&str; 3] = ["REDIS_3_2", "REDIS_5_0", "REDIS_6_0"];

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
    if version != "REDIS_6_2" && !OLD.contains(&version) {
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
            // Servers of a cluster speak to each other ten thousand ports above.
            let bus = port.checked_add(10_000).filter(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok());
            if args.iter().any(|a| a == "--cluster-enabled") && bus.is_none() {
                continue;
            }
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

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    ///
    /// # Panics
    /// When there is no `kill`, or it is refused.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.as_ref().is_ok_and(std::process::ExitStatus::success), "kill (of procps): {sent:?}");
    }
}

/// A proxy in front of several servers, which divides keys among them and knows neither transactions nor databases;
/// killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    /// Its port on loopback.
    pub port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts one in front of these servers.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub fn start(servers: &[&Redis]) -> Self {
        let program = crate::servers::endpoint("WHIMBREL_TEST_NUTCRACKER");
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_or(0, |a| a.port());
        let (port, stats) = (free(), free());
        let mut text = format!(
            "pool:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  servers:\n"
        );
        for server in servers {
            text.push_str(&format!("   - 127.0.0.1:{}:1\n", server.port));
        }
        let dir = servers.first().map(|s| s.dir()).unwrap_or_default();
        let conf = dir.join("proxy.yml");
        std::fs::write(&conf, text).unwrap_or_else(|e| panic!("{}: {e}", conf.display()));
        let mut command = Command::new(program);
        command.arg("-c").arg(&conf).args(["-s", &stats.to_string(), "-o"]).arg(dir.join("proxy.log"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("nutcracker: {e}"));
        let proxy = Self { child, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "the proxy does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        proxy
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
        Self::try_to(port).unwrap_or_else(|e| panic!("{port}: {e}"))
    }

    /// The same.
    ///
    /// # Errors
    /// When nothing listens.
    pub fn try_to(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, replies: Replies::default() })
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
        self.try_many(commands, count).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same.
    ///
    /// # Errors
    /// When the connection breaks.
    ///
    /// # Panics
    /// For an answer that is none.
    pub fn try_many(&mut self, commands: &[u8], count: usize) -> std::io::Result<Vec<Reply>> {
        self.stream.write_all(commands)?;
        let mut out = Vec::with_capacity(count);
        let mut buf = vec![0; 64 << 10];
        while out.len() < count {
            match self.replies.next_reply().unwrap_or_else(|e| panic!("{e}")) {
                Some(reply) => out.push(reply),
                None => {
                    let n = self.stream.read(&mut buf)?;
                    if n == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                    self.replies.push(&buf[..n]);
                }
            }
        }
        Ok(out)
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

/// A cluster of masters; all are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Its servers: masters by their slots, then replicas in the same order.
    pub servers: Vec<Redis>,
}

/// Slots of a cluster.
const SLOTS: usize = 16_384;

impl Cluster {
    /// Starts `masters` servers that share the slots evenly, and one replica for each when asked.
    ///
    /// # Panics
    /// When they do not come together.
    pub fn start(version: &str, masters: usize, replicas: bool, args: &[&str]) -> Self {
        let mut all = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        all.extend(args);
        let count = if replicas { masters * 2 } else { masters };
        let servers: Vec<Redis> = (0..count).map(|_| Redis::start(version, &all)).collect();
        let first = servers[0].port.to_string();
        for (i, server) in servers.iter().enumerate() {
            let mut client = server.connect();
            if i < masters {
                let slots: Vec<String> =
                    (SLOTS * i / masters..SLOTS * (i + 1) / masters).map(|s| s.to_string()).collect();
                let words: Vec<&[u8]> = [b"CLUSTER".as_slice(), b"ADDSLOTS"]
                    .into_iter()
                    .chain(slots.iter().map(String::as_bytes))
                    .collect();
                assert!(
                    !matches!(client.call(&words), Reply::Error(_)),
                    "{server:?} rejects CLUSTER ADDSLOTS"
                );
            }
            client.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1));
            if i > 0 {
                client.run(&format!("CLUSTER MEET 127.0.0.1 {first}"));
            }
        }
        let cluster = Self { servers };
        let text = |server: &Redis, words: &str| {
            String::from_utf8_lossy(server.run(words).text().unwrap_or_default()).into_owned()
        };
        let known = format!("cluster_known_nodes:{count}\r");
        cluster.until(|server| {
            let info = text(server, "CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains(&known)
        });
        for i in masters..count {
            let id = text(&cluster.servers[i - masters], "CLUSTER MYID");
            cluster.servers[i].run(&format!("CLUSTER REPLICATE {id}"));
        }
        let of_replicas = |server: &Redis| text(server, "INFO replication").contains("master_link_status:up");
        for replica in &cluster.servers[masters..] {
            let began = Instant::now();
            while !of_replicas(replica) {
                assert!(
                    began.elapsed() < Duration::from_secs(30),
                    "{replica:?} does not replicate from its master"
                );
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        cluster
    }

    fn until(&self, ready: impl Fn(&Redis) -> bool) {
        let began = Instant::now();
        while !self.servers.iter().all(&ready) {
            assert!(began.elapsed() < Duration::from_secs(30), "the cluster does not reach cluster_state:ok");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// `redis://127.0.0.1:PORT`, of one of its servers: the others are found.
    pub fn url(&self) -> String {
        self.servers[0].url()
    }

    /// A connection to the server of a slot, by the even shares of the beginning.
    pub fn of_slot(&self, slot: u16, masters: usize) -> Connection {
        let i = (0..masters).find(|i| usize::from(slot) < SLOTS * (i + 1) / masters).unwrap_or(0);
        self.servers[i].connect()
    }
}
