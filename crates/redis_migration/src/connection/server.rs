//! What a server is, by its own words.

use model::error::{Error, Kind, Reason, Result};
use redis_proto::rdb::{Family, Type};
use redis_proto::resp::Reply;

use crate::connection::client::Client;

/// A server's version and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Redis, or Valkey.
    pub family: Family,
    /// Major and minor version.
    pub version: (u32, u32),
    /// It is part of a cluster.
    pub cluster: bool,
    /// Keys, all databases together.
    pub keys: u64,
    /// Keys of each database that holds any.
    pub by_db: Vec<(u32, u64)>,
    /// Keys that expire, all databases together.
    pub expires: u64,
    /// It follows another server, and so may not be written.
    pub is_replica: bool,
    /// Identity of this run of the server.
    pub run_id: String,
    /// Memory that its data take, bytes.
    pub used_memory: u64,
    /// Memory that it may take, bytes; 0: no bound.
    pub max_memory: u64,
    /// What it removes when that is reached (`maxmemory-policy`); empty: not known.
    pub eviction_policy: String,
    /// Its databases that hold anything.
    pub dbs: Vec<u32>,
    /// Its replication identity.
    pub replid: String,
    /// How its stream was called before it took its master's place.
    pub replid_before: String,
    /// The same of each master, for a cluster that was asked as a whole.
    pub masters: Vec<String>,
    /// Its offset in the replication stream.
    pub offset: u64,
    /// What it cannot do, as a target.
    pub missing: MissingFeatures,
    /// The longest argument that it takes, as a target, bytes; 0: not known.
    pub bulk_len_max: u64,
}

/// The refusal of a Sentinel, with the masters that it watches.
async fn sentinel(client: &mut Client) -> Error {
    let known = client.call(&[b"SENTINEL", b"MASTERS"]).await.ok();
    let masters = known.as_ref().and_then(Reply::array).unwrap_or_default();
    let named: Vec<String> = masters
        .iter()
        .filter_map(|master| {
            let words: Vec<String> = master
                .array()?
                .iter()
                .filter_map(|word| Some(String::from_utf8_lossy(word.text()?).into_owned()))
                .collect();
            let field =
                |name: &str| words.chunks(2).find(|pair| pair[0] == name).and_then(|pair| pair.get(1));
            Some(format!("`{}` at redis://{}:{}", field("name")?, field("ip")?, field("port")?))
        })
        .take(5)
        .collect();
    let watched = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
    let m = format!(
        "{} is a Sentinel, not a data server; masters that it monitors: {watched}",
        client.display_url()
    );
    Error::new(Kind::Unsupported, "sentinel", m).because(Reason::Sentinel)
}

/// The offset of the replication stream, by the text of `INFO replication`.
pub fn replication_offset(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")?.trim().parse().ok())
}

impl ServerInfo {
    /// A target of which nothing is known: what it stands for may be old.
    pub(crate) fn unknown() -> Self {
        Self {
            family: Family::Redis,
            version: (5, 0),
            cluster: false,
            keys: 0,
            by_db: vec![],
            expires: 0,
            is_replica: false,
            run_id: String::new(),
            used_memory: 0,
            max_memory: 0,
            eviction_policy: String::new(),
            dbs: vec![],
            replid: String::new(),
            replid_before: String::new(),
            masters: vec![],
            offset: 0,
            bulk_len_max: 0,
            missing: MissingFeatures::default(),
        }
    }

    /// Asks a server.
    ///
    /// # Errors
    /// An error of the connection; [`Kind::Unsupported`] when it is no Redis that says its version.
    pub async fn query(client: &mut Client) -> Result<Self> {
        let reply = client.call(&[b"INFO"]).await.map_err(|f| match f.kind {
            Kind::Unsupported => Error { op: "info", ..f },
            _ => f,
        })?;
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        if text.lines().any(|line| line.trim() == "redis_mode:sentinel") {
            return Err(sentinel(client).await);
        }
        Self::parse(&text).ok_or_else(|| {
            let m = format!("{}: the reply to INFO has no server version", client.display_url());
            Error::new(Kind::Unsupported, "info", m)
        })
    }

    /// Out of the text of `INFO`.
    fn parse(info: &str) -> Option<Self> {
        let field =
            |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        // Valkey tells an old version of Redis there, for old clients.
        let (family, text) = match field("valkey_version") {
            Some(version) => (Family::Valkey, version),
            None => (Family::Redis, field("redis_version")?),
        };
        let mut numbers = text.split('.').map(|n| n.parse().unwrap_or(0));
        let databases: Vec<(u32, u64, u64)> = info
            .lines()
            .filter_map(|l| {
                let (db, rest) = l.strip_prefix("db")?.split_once(":keys=")?;
                let mut parts = rest.split(',');
                let keys = parts.next()?.parse().ok()?;
                let expires = parts.next().and_then(|p| p.strip_prefix("expires=")?.parse().ok());
                Some((db.parse().ok()?, keys, expires.unwrap_or(0)))
            })
            .collect();
        let number = |name: &str| field(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Self {
            family,
            version: (numbers.next()?, numbers.next().unwrap_or(0)),
            cluster: field("cluster_enabled") == Some("1"),
            keys: databases.iter().map(|(_, n, _)| n).sum(),
            by_db: databases.iter().map(|(db, n, _)| (*db, *n)).collect(),
            expires: databases.iter().map(|(.., n)| n).sum(),
            is_replica: field("role") == Some("slave"),
            run_id: field("run_id").unwrap_or_default().to_owned(),
            used_memory: number("used_memory"),
            max_memory: number("maxmemory"),
            eviction_policy: field("maxmemory_policy").unwrap_or_default().to_owned(),
            dbs: databases.iter().map(|(db, ..)| *db).collect(),
            replid: field("master_replid").unwrap_or_default().to_owned(),
            replid_before: field("master_replid2").unwrap_or_default().to_owned(),
            masters: Vec::new(),
            offset: replication_offset(info).unwrap_or(0),
            missing: MissingFeatures::default(),
            bulk_len_max: 0,
        })
    }

    /// Something to know about a target that removes keys when its memory is full.
    pub(crate) fn eviction_note(&self) -> Option<String> {
        let evicts = self.max_memory > 0 && !matches!(&*self.eviction_policy, "" | "noeviction");
        evicts.then(|| {
            format!(
                "the target removes keys when its memory is full (maxmemory-policy {}): copied keys and the checkpoint may be \
                 lost; hint: set maxmemory-policy to noeviction until the migration is finished",
                self.eviction_policy
            )
        })
    }

    /// Fails when both ends are one server or follow one master: each change would be applied to its own source.
    ///
    /// # Errors
    /// [`Kind::Invalid`].
    pub fn check_distinct(&self, target: &Self) -> Result<()> {
        if self.replid.is_empty() || self.replid != target.replid {
            return Ok(());
        }
        let m = "source and target are the same server, or replicas of the same master";
        Err(Error::new(Kind::Invalid, "open", m))
    }

    /// A server of which only the version is known.
    #[cfg(test)]
    pub(crate) fn for_tests(family: Family, version: (u32, u32)) -> Self {
        Self { family, version, ..Self::unknown() }
    }

    /// The newest version of the format that it can take.
    pub fn rdb_version(&self) -> u16 {
        match (self.family, self.version) {
            (Family::Valkey, (9.., _)) => 80,
            (Family::Valkey, _) => 11,
            (Family::Redis, (8.., _) | (7, 4..)) => 12,
            (Family::Redis, (7, 2..)) => 11,
            (Family::Redis, (7, _)) => 10,
            (Family::Redis, (5 | 6, _)) => 9,
            (Family::Redis, (4, _)) => 8,
            (Family::Redis, (3, 2..)) => 7,
            (Family::Redis, _) => 6,
        }
    }

    /// The version that payloads for it say. What both families share is written as of before they parted: Valkey
    /// refuses the numbers that Redis has used since.
    pub fn payload_version(&self, kind: Type) -> u16 {
        match (self.family, kind.is_common()) {
            (Family::Valkey, true) => 11,
            _ => self.rdb_version(),
        }
    }

    /// True when it can take a value as it is written.
    pub fn accepts(&self, kind: Type) -> bool {
        let same = kind.is_common() || kind.family == self.family;
        same && kind.since() <= self.rdb_version() && !self.missing.restore
    }

    /// Databases other than 0 can be written there.
    pub fn has_databases(&self) -> bool {
        !self.cluster && !self.missing.transactions && !self.missing.databases
    }

    /// Libraries of functions (since 7.0).
    pub fn has_functions(&self) -> bool {
        self.tells_expiry_time() && !self.missing.transactions
    }

    /// A Redis of this version or later, or any Valkey.
    pub fn is_at_least(&self, redis: (u32, u32)) -> bool {
        self.family == Family::Valkey || self.version >= redis
    }

    /// `RESTORE … ABSTTL`, `IDLETIME` and `FREQ` (since 5.0).
    pub fn restores_absolutely(&self) -> bool {
        self.is_at_least((5, 0))
    }

    /// `SET … PXAT` (since 6.2).
    pub fn sets_absolutely(&self) -> bool {
        self.is_at_least((6, 2))
    }

    /// `PEXPIRETIME` (since 7.0).
    pub fn tells_expiry_time(&self) -> bool {
        self.is_at_least((7, 0))
    }

    /// Fields of hashes expire (Redis since 7.4, Valkey since 9.0).
    pub fn expires_fields(&self) -> bool {
        match self.family {
            Family::Redis => self.version >= (7, 4),
            Family::Valkey => self.version >= (9, 0),
        }
    }
}

/// What is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingFeatures {
    /// `MULTI` and `EXEC`.
    pub transactions: bool,
    /// `SELECT`.
    pub databases: bool,
    /// `RESTORE`.
    pub restore: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_versions_decide_features() {
        let server = |info: &str| ServerInfo::parse(info).unwrap();
        let redis7 = server(
            "redis_version:7.0.15\r\ncluster_enabled:0\r\ndb0:keys=5,expires=1\r\ndb3:keys=2,expires=0\r\n",
        );
        assert_eq!((redis7.rdb_version(), redis7.keys, redis7.dbs.clone()), (10, 7, vec![0, 3]));
        let valkey9 = server("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n");
        assert_eq!((valkey9.family, valkey9.version, valkey9.rdb_version()), (Family::Valkey, (9, 1), 80));
        let kind = |family, number| Type { family, number };
        assert!(!redis7.accepts(kind(Family::Redis, 21)), "streams of 7.2");
        assert!(redis7.accepts(kind(Family::Redis, 19)));
        assert!(valkey9.accepts(kind(Family::Redis, 21)) && !valkey9.accepts(kind(Family::Redis, 24)));
        assert!(valkey9.accepts(kind(Family::Valkey, 22)));
        assert_eq!(valkey9.payload_version(kind(Family::Redis, 21)), 11);
        assert_eq!(valkey9.payload_version(kind(Family::Valkey, 22)), 80);
        assert!(ServerInfo::parse("nonsense").is_none());
    }
}
