//! Where a Redis is: `redis://[user:password@]host[:port][,host[:port]…][/db]`, `rediss://` for TLS (contract §1.1).

use std::path::PathBuf;
use std::sync::Arc;

use model::error::{Error, Kind, Result};
use storage::egress::Egress;

/// The usual port.
const PORT: u16 = 6379;

/// Files of TLS at one end, in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that are trusted there, and no others; none: those of this machine.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// TLS with these files, which are read again for each connection.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming a file that cannot be used, or a certificate without its key.
    pub fn config(&self) -> Result<Arc<rustls::ClientConfig>> {
        match (&self.ca, &self.cert, &self.key) {
            (None, None, None) => Ok(storage::http::tls_config()),
            (ca, Some(cert), Some(key)) => {
                storage::http::tls_config_of(ca.as_deref(), Some((cert.as_path(), key.as_path())))
            }
            (ca, None, None) => storage::http::tls_config_of(ca.as_deref(), None),
            _ => Err(invalid("client certificate and key must be set together")),
        }
    }
}

/// A server, or the servers of a cluster, and who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Hosts and ports; several for a cluster.
    pub addrs: Vec<(String, u16)>,
    /// User; empty: the default user.
    pub user: String,
    /// Password; empty: none.
    pub password: String,
    /// Spoken through TLS.
    pub tls: bool,
    /// With these files.
    pub tls_files: TlsFiles,
    /// Only this database; none: all.
    pub db: Option<u32>,
    /// Commands that have other names there (`rename-command`): the usual name, in upper case, and the one there.
    pub renamed: Vec<(String, String)>,
    /// A cluster is accepted although some of its slots are not served.
    pub allow_uncovered: bool,
    /// Where its addresses may lead, those included that a cluster announces; the default is nowhere.
    pub egress: Egress,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.display_url())
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "place", why)
}

/// One `host[:port]`; `[v6]` in brackets.
fn address(text: &str) -> Result<(String, u16)> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| invalid(format!("`{text}` has no closing bracket")))?;
            (host, rest.strip_prefix(':'))
        }
        None if text.matches(':').count() > 1 => {
            return Err(invalid(format!(
                "`{text}` has several colons; hint: write an IPv6 address in brackets"
            )));
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(['/', '@', ' ', '?', '#']) {
        return Err(invalid(format!("`{text}` has no host name")));
    }
    let port = match port {
        None => PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| invalid(format!("`{text}` has no valid port (1 to 65535)")))?,
    };
    Ok((host.to_owned(), port))
}

/// A list of addresses, without duplicates.
///
/// # Errors
/// [`Kind::Invalid`] naming the address that is none.
pub fn addresses(text: &str) -> Result<Vec<(String, u16)>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|p| !p.trim().is_empty()) {
        let one = address(part)?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    if all.is_empty() {
        return Err(invalid(format!("`{text}` does not name a server")));
    }
    Ok(all)
}

/// Decodes `%XX`, as users and passwords in URLs are written.
fn decode(text: &str) -> String {
    String::from_utf8_lossy(&storage::s3::list_parser::percent_decode(text.as_bytes(), false)).into_owned()
}

impl Node {
    /// Reads a place.
    ///
    /// # Errors
    /// [`Kind::Invalid`] saying what is wrong; the message never holds the password.
    pub fn parse(url: &str) -> Result<Self> {
        let (tls, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ if url.starts_with("unix:") || url.starts_with("redis+socket:") => {
                return Err(invalid(
                    "unix sockets are not supported; hint: use the TCP address of the server, such as 127.0.0.1:6379",
                ));
            }
            _ => return Err(invalid("expected redis://[user:password@]HOST:PORT[/DB]")),
        };
        let (who, rest) = rest.rsplit_once('@').map_or(("", rest), |(who, rest)| (who, rest));
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (decode(user), decode(password)),
            None => (decode(who), String::new()),
        };
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (hosts, db) = rest.split_once('/').map_or((rest, ""), |(hosts, db)| (hosts, db));
        let db = match db.trim_end_matches('/') {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid(format!("`/{text}` is not a database number")))?),
        };
        let told = query.map(|query| query.strip_prefix("db=").and_then(|n| n.parse().ok()).ok_or(query));
        let db = match (db, told) {
            (db, None) => db,
            (None, Some(Ok(told))) => Some(told),
            (Some(_), Some(Ok(_))) => return Err(invalid("the URL names two databases: /DB and ?db=")),
            (_, Some(Err(query))) => {
                return Err(invalid(format!(
                    "`?{query}` is not supported; hint: write the database as redis://HOST:PORT/DB"
                )));
            }
        };
        // Only a user of this machine can write such a URL.
        Ok(Self {
            addrs: addresses(hosts)?,
            user,
            password,
            tls,
            db,
            egress: Egress::anywhere(),
            ..Self::default()
        })
    }

    /// Reads `NAME=THEIRS`, the names that commands have at a server.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming the text that is none. `PSYNC` cannot have another name: a server answers any other with the
    /// protocol of `SYNC`, which gives no position (`syncCommand` in Redis compares the word that was sent).
    pub fn parse_renamed(texts: &[String]) -> Result<Vec<(String, String)>> {
        let word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '=');
        let one = |text: &String| match text.split_once('=') {
            Some((name, _)) if name.eq_ignore_ascii_case("PSYNC") => {
                Err(invalid("a renamed PSYNC is not supported; hint: use --mode scan"))
            }
            Some((name, theirs)) if word(name) && word(theirs) => {
                Ok((name.to_ascii_uppercase(), theirs.to_owned()))
            }
            _ => Err(invalid(format!("`{text}` is not NAME=NEW_NAME"))),
        };
        texts.iter().map(one).collect()
    }

    /// The same, with files of TLS.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for files that cannot be used, or that an end without TLS does not need.
    pub fn with_tls(self, files: TlsFiles) -> Result<Self> {
        if files != TlsFiles::default() && !self.tls {
            return Err(invalid(format!(
                "TLS files are set, but the URL of {} is redis://; hint: use rediss://",
                self.display_url()
            )));
        }
        files.config()?;
        Ok(Self { tls_files: files, ..self })
    }

    /// The name of a command there.
    pub(crate) fn command_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.renamed.iter().find(|(known, _)| known == name).map_or(name, |(_, theirs)| theirs)
    }

    /// For messages and names: never a secret.
    pub fn display_url(&self) -> String {
        let all: Vec<String> = self.addrs.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let db = self.db.map(|db| format!("/{db}")).unwrap_or_default();
        format!("{}://{}{db}", if self.tls { "rediss" } else { "redis" }, all.join(","))
    }

    /// The same, at further addresses.
    pub fn with_addrs(mut self, more: Vec<(String, u16)>) -> Node {
        for addr in more {
            if !self.addrs.contains(&addr) {
                self.addrs.push(addr);
            }
        }
        self
    }

    /// The same, at one of its addresses.
    pub fn at_addr(&self, addr: &(String, u16)) -> Node {
        Node { addrs: vec![addr.clone()], ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn red_23_redis_addresses_of_other_tools_are_parsed() {
        assert_eq!(super::Node::parse("redis://h:1?db=3").unwrap().db, Some(3));
        assert_eq!(super::Node::parse("redis://me:p?w@h:1").unwrap().password, "p?w");
        let wrong = |url: &str| super::Node::parse(url).unwrap_err().message;
        assert!(wrong("unix:///run/redis.sock").contains("unix sockets"));
        assert!(wrong("redis://h:1?timeout=3").contains("`?timeout=3` is not supported"));
        assert!(wrong("redis://h:1/2?db=3").contains("two databases"));
    }

    use super::*;

    #[test]
    fn redis_addresses_are_parsed() {
        let node = Node::parse("redis://me:p%40ss@h1:7000,h2,[::1]:7002/5").unwrap();
        let addrs: Vec<(&str, u16)> = node.addrs.iter().map(|(h, p)| (h.as_str(), *p)).collect();
        assert_eq!(addrs, [("h1", 7000), ("h2", 6379), ("::1", 7002)]);
        assert_eq!((node.user.as_str(), node.password.as_str(), node.db), ("me", "p@ss", Some(5)));
        assert!(!format!("{node:?} {}", node.display_url()).contains("p@ss"));
        assert_eq!(Node::parse("redis://me@h").unwrap().user, "me");
        assert_eq!(Node::parse("rediss://:pw@h").unwrap().password, "pw");
        assert!(Node::parse("rediss://h").unwrap().tls);
        for wrong in [
            "http://h",
            "redis://::1:6379",
            "redis://",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "redis://a:secret@/1",
        ] {
            let failure = Node::parse(wrong).unwrap_err();
            assert!(!failure.message.contains("secret"), "{failure}");
        }
    }
}
