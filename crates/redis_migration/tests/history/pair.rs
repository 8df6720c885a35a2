//! A server with another that can take its place.

use std::time::{Duration, Instant};

use testkit::redis::Redis;

pub(crate) struct Pair {
    pub(crate) servers: [Redis; 2],
    pub(crate) master: usize,
}

impl Pair {
    pub(crate) fn start() -> Self {
        let servers = [Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[])];
        Self { servers, master: 0 }
    }

    pub(crate) fn master(&self) -> &Redis {
        &self.servers[self.master]
    }

    fn info(&self, of: usize) -> String {
        let info = self.servers[of].run("INFO replication");
        String::from_utf8_lossy(info.text().unwrap_or_default()).into_owned()
    }

    fn field(&self, of: usize, name: &str) -> Option<String> {
        self.info(of).lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned()))
    }

    /// How the master's stream is called.
    pub(crate) fn replid(&self) -> String {
        self.field(self.master, "master_replid").unwrap_or_default()
    }

    fn wait(&self, of: usize, says: &str) -> Result<(), String> {
        let began = Instant::now();
        while !self.info(of).contains(says) {
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("the servers do not come to `{says}`"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The other server is the master's replica from now on. Its backlog begins here: a position before it is lost when it
    /// takes the master's place.
    pub(crate) fn join(&self) -> Result<(), String> {
        let other = 1 - self.master;
        self.servers[other].run(&format!("REPLICAOF 127.0.0.1 {}", self.master().port));
        self.wait(other, "master_link_status:up")?;
        self.wait(self.master, &format!(",port={},state=online", self.servers[other].port))
    }

    /// The replica takes the master's place, and no write is lost by that.
    pub(crate) fn fail_over(&mut self) -> Result<(), String> {
        let other = 1 - self.master;
        self.join()?;
        self.master().run(&format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 10000", self.servers[other].port));
        self.wait(other, "role:master")?;
        self.wait(self.master, "role:slave")?;
        self.master = other;
        Ok(())
    }
}

/// A run takes a second snapshot for an error, so a pair that fails over must not be the reason for one.
#[test]
fn replica_that_joined_first_takes_over_with_the_whole_backlog() {
    let mut pair = Pair::start();
    pair.join().unwrap();
    let first = pair.replid();
    for takes_over in [1, 0] {
        pair.master().run("SET a 1");
        let before = pair.replid();
        pair.fail_over().unwrap();
        assert_eq!(pair.master, takes_over);
        let field = |name| pair.field(takes_over, name).unwrap();
        assert_eq!(field("repl_backlog_first_byte_offset"), "1");
        assert_eq!(field("master_replid2"), before);
        assert_ne!(pair.replid(), first);
    }
}
