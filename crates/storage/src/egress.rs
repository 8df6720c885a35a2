//! Where connections may lead: the one guard of everything that leaves this process.
//!
//! Whatever connects is given an [`Egress`] and connects through it. It is asked about each address that a name resolves
//! to, at each connection, so also behind a redirect, at a reconnect, and for addresses that a server announces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use model::error::{Error, Kind, Reason, Result};
use tokio::net::{TcpStream, UdpSocket};

/// The hosts that may be connected to. The default is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    rule: Rule,
    listed: Arc<[AllowedHost]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Anywhere,
    OperatorHosts,
    Public,
    Listed,
}

/// An entry of an operator's list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AllowedHost {
    /// A name: whatever it resolves to.
    Host(String),
    /// An address, or a network of them.
    Network(IpAddr, u8),
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> (IpAddr, u8) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits)
}

const fn v6(a: u16, b: u16, g: u16, h: u16, bits: u8) -> (IpAddr, u8) {
    (IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, g, h)), bits)
}

/// Link-local networks and the metadata services of clouds: they hand out the machine's own credentials.
const BLOCKED_ALWAYS: [(IpAddr, u8); 7] = [
    v4(169, 254, 0, 0, 16),
    v4(100, 100, 100, 200, 32),
    v4(168, 63, 129, 16, 32),
    v4(192, 0, 0, 192, 32),
    v6(0xfe80, 0, 0, 0, 10),
    v6(0xfd00, 0xec2, 0, 0x254, 128),
    v6(0xfd20, 0xce, 0, 0x254, 128),
];

/// Networks that are not of the open internet: those that IANA lists as not globally reachable (RFC 6890), and addresses
/// that hold an IPv4 address.
const BLOCKED_PUBLIC: [(IpAddr, u8); 28] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 3),
    // Unspecified, loopback and addresses that hold an IPv4 address.
    v6(0, 0, 0, 0, 96),
    v6(0x64, 0xff9b, 0, 0, 96),
    v6(0x64, 0xff9b, 0, 0, 32),
    v6(0x2002, 0, 0, 0, 16),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)), 96),
    v6(0x100, 0, 0, 0, 64),
    // Protocol assignments, Teredo among them.
    v6(0x2001, 0, 0, 0, 23),
    v6(0x2001, 0xdb8, 0, 0, 32),
    v6(0x3fff, 0, 0, 0, 20),
    v6(0x5f00, 0, 0, 0, 16),
    v6(0xfc00, 0, 0, 0, 7),
    v6(0xfe80, 0, 0, 0, 10),
    v6(0xfec0, 0, 0, 0, 10),
    v6(0xff00, 0, 0, 0, 8),
];

fn contains(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let prefix =
        |value: u128, width: u32| value.checked_shr(width.saturating_sub(u32::from(bits))).unwrap_or(0);
    match (net, ip) {
        (IpAddr::V4(n), IpAddr::V4(i)) => {
            prefix(u128::from(u32::from(n)), 32) == prefix(u128::from(u32::from(i)), 32)
        }
        (IpAddr::V6(n), IpAddr::V6(i)) => prefix(u128::from(n), 128) == prefix(u128::from(i), 128),
        _ => false,
    }
}

fn within(nets: &[(IpAddr, u8)], ip: IpAddr) -> bool {
    nets.iter().any(|(net, bits)| contains(*net, *bits, ip))
}

/// The IPv4 address that a translated IPv6 address leads to (mapped, compatible, NAT64, 6to4); else the address.
fn meant(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => IpAddr::V6(v6),
    }
}

/// An address of the open internet.
pub fn is_public(ip: IpAddr) -> bool {
    !within(&BLOCKED_PUBLIC, ip.to_canonical())
}

/// Whether an address is one of this machine: the kernel sends from the address itself then. Nothing is sent to find out.
async fn is_own(addr: SocketAddr) -> bool {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else { return false };
    // Port 0 cannot be connected to.
    let port = addr.port().max(1);
    socket.connect((addr.ip(), port)).await.is_ok()
        && socket.local_addr().is_ok_and(|own| own.ip() == addr.ip())
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match bare.split_once('/') {
        Some((ip, bits)) => {
            let ip: IpAddr = ip.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
        }
        None => bare.parse().ok().map(|ip: IpAddr| (ip, if ip.is_ipv4() { 32 } else { 128 })),
    }
}

fn listed(list: &[String]) -> Arc<[AllowedHost]> {
    list.iter().map(|text| entry(text)).collect()
}

fn entry(text: &str) -> AllowedHost {
    match network(text) {
        Some((ip, bits)) => AllowedHost::Network(ip, bits),
        None => AllowedHost::Host(plain(text).to_ascii_lowercase()),
    }
}

/// A name without the dot that may end it.
fn plain(host: &str) -> &str {
    host.trim_end_matches('.')
}

/// The host of a URL; none when the URL leads elsewhere than it seems to (`#`, `@`), or names no host.
pub fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let (_, rest) = url.split_once("://")?;
    let written = rest.split(['/', '?', '#', '\\']).next()?;
    let same = authority.as_str() == written && !written.contains('@') && !url.contains('#');
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    (same && !host.is_empty()).then(|| host.to_owned())
}

impl Default for Egress {
    fn default() -> Self {
        Self { rule: Rule::Listed, listed: Arc::from([]) }
    }
}

impl Egress {
    /// Wherever this machine can connect to: for commands, whose user can do so without them.
    pub fn anywhere() -> Self {
        Self { rule: Rule::Anywhere, ..Self::default() }
    }

    /// For what the operator has configured: everything but metadata services and link-local addresses.
    pub fn operators(list: &[String]) -> Self {
        Self { rule: Rule::OperatorHosts, listed: listed(list) }
    }

    /// Public addresses, and those of the list.
    pub fn public(list: &[String]) -> Self {
        Self { rule: Rule::Public, listed: listed(list) }
    }

    /// Only what the list names.
    pub fn listed(list: &[String]) -> Self {
        Self { rule: Rule::Listed, listed: listed(list) }
    }

    /// The same, and the host that the operator wrote into a URL or address.
    #[must_use]
    pub fn with_host(mut self, host: &str) -> Self {
        self.listed = self.listed.iter().cloned().chain([entry(host)]).collect();
        self
    }

    /// As [`Egress::with_host`], by a URL.
    #[must_use]
    pub fn with_url(self, url: &str) -> Self {
        match host_of(url) {
            Some(host) => self.with_host(&host),
            None => self,
        }
    }

    fn names(&self, host: &str) -> bool {
        let host = plain(host);
        self.listed.iter().any(|l| matches!(l, AllowedHost::Host(h) if h.eq_ignore_ascii_case(host)))
    }

    /// True when `ip`, to which `host` resolves, may be connected to.
    pub fn allows(&self, host: &str, ip: IpAddr) -> bool {
        if self.rule == Rule::Anywhere {
            return true;
        }
        let (ip, meant) = (ip.to_canonical(), meant(ip));
        if within(&BLOCKED_ALWAYS, ip) || within(&BLOCKED_ALWAYS, meant) {
            let width = if ip.is_ipv4() { 32 } else { 128 };
            return self
                .listed
                .iter()
                .any(|l| matches!(l, AllowedHost::Network(n, bits) if *n == ip && *bits == width));
        }
        self.is_listed(host, ip)
            || match self.rule {
                Rule::Anywhere | Rule::OperatorHosts => true,
                Rule::Public => is_public(ip),
                Rule::Listed => false,
            }
    }

    /// True for an address of this machine that only its being public would permit: ports that a firewall closes to others
    /// are open to this process.
    async fn is_closed_own(&self, host: &str, addr: SocketAddr) -> bool {
        self.rule == Rule::Public && !self.is_listed(host, addr.ip().to_canonical()) && is_own(addr).await
    }

    fn is_listed(&self, host: &str, ip: IpAddr) -> bool {
        let contains =
            |l: &AllowedHost| matches!(l, AllowedHost::Network(n, bits) if contains(*n, *bits, ip));
        self.names(host) || self.listed.iter().any(contains)
    }

    /// True when `host` may turn out to be permitted; once it is resolved, its addresses decide.
    pub fn may_lead_to(&self, host: &str) -> bool {
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) => self.allows(host, ip),
            Err(_) if self.rule == Rule::Listed => {
                self.names(host) || self.listed.iter().any(|l| matches!(l, AllowedHost::Network(..)))
            }
            Err(_) => true,
        }
    }

    /// Connects to `host`; `named` is the host that the operator's list would name, which differs where a bucket's
    /// name stands in front. The caller bounds the time.
    ///
    /// # Errors
    /// [`Kind::Forbidden`] when no address is permitted; [`Kind::Connect`] with the reason alone.
    #[expect(clippy::disallowed_methods, reason = "the one place that connects")]
    pub async fn connect(&self, named: &str, host: &str, port: u16) -> Result<TcpStream> {
        let failed = |e: std::io::Error| Error::new(Kind::Connect, "connect", e.to_string());
        let mut last = None;
        let mut refused = None;
        for addr in tokio::net::lookup_host((host, port)).await.map_err(failed)? {
            if !self.allows(named, addr.ip()) || self.is_closed_own(named, addr).await {
                refused = Some(addr.ip());
                continue;
            }
            match TcpStream::connect(addr).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e),
            }
        }
        match (last, refused) {
            (Some(e), _) => Err(failed(e)),
            (None, Some(ip)) => {
                // The address is for the operator: an error that held it would be an internal DNS for tenants.
                tracing::info!(host, address = %ip, "connection refused by the egress guard");
                let m = format!("this service may not connect to {host}");
                Err(Error::new(Kind::Forbidden, "connect", m).because(Reason::EgressDenied))
            }
            (None, None) => Err(failed(std::io::Error::other("the host name has no address"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn private_addresses_are_not_public() {
        for (text, public) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("0.0.0.0", false),
            ("192.0.0.8", false),
            ("198.19.255.255", false),
            ("198.20.0.1", true),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::10.0.0.1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b:1::1", false),
            ("2002:a00:1::1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("2606:4700::1", true),
            ("192.0.2.2", false),
            ("198.51.100.7", false),
            ("203.0.113.9", false),
            ("2001:db8::1", false),
            ("2001::a00:1", false),
            ("2001:200::1", true),
            ("100::1", false),
            ("3fff:fff::1", false),
            ("5f00::1", false),
            ("::ffff:0:10.0.0.1", false),
        ] {
            assert_eq!(is_public(ip(text)), public, "{text}");
        }
    }

    #[test]
    fn sec_f04_allowed_name_and_network_permit_only_themselves() {
        let egress = Egress::listed(&["10.99.0.0/16".to_owned(), "minio.lab.example".to_owned()]);
        for (host, at, allowed) in [
            ("localhost", "127.0.0.1", false),
            ("2130706433", "127.0.0.1", false),
            ("other.example", "10.99.3.4", true),
            ("other.example", "10.98.3.4", false),
            ("minio.lab.example", "192.168.1.2", true),
            ("MINIO.lab.example.", "127.0.0.1", true),
            ("x.minio.lab.example", "127.0.0.1", false),
            ("minio.lab.example", "169.254.169.254", false),
            ("minio.lab.example", "::ffff:169.254.169.254", false),
            ("minio.lab.example", "64:ff9b::169.254.169.254", false),
            ("minio.lab.example", "fe80::1", false),
        ] {
            assert_eq!(egress.allows(host, ip(at)), allowed, "{host} at {at}");
        }
        assert!(!Egress::default().allows("minio.lab.example", ip("8.8.8.8")), "the default is nobody");
        assert!(egress.may_lead_to("localhost") && !egress.may_lead_to("127.0.0.1"));
        assert!(!Egress::listed(&["minio.lab.example".to_owned()]).may_lead_to("localhost"));
    }

    #[test]
    fn sec_f04_metadata_address_must_be_allowed_explicitly() {
        let metadata = ip("169.254.169.254");
        for list in ["169.254.0.0/16", "0.0.0.0/0", "metadata.example"] {
            let list = [list.to_owned()];
            for egress in [Egress::operators(&list), Egress::public(&list), Egress::listed(&list)] {
                assert!(!egress.allows("metadata.example", metadata), "{list:?}");
            }
        }
        assert!(Egress::listed(&["169.254.169.254".to_owned()]).allows("x", metadata));
        assert!(Egress::operators(&[]).with_url("http://169.254.10.1:9000").allows("x", ip("169.254.10.1")));
        assert!(Egress::operators(&[]).allows("x", ip("10.0.0.1")));
        assert!(
            Egress::public(&[]).allows("x", ip("8.8.8.8"))
                && !Egress::public(&[]).allows("x", ip("10.0.0.1"))
        );
    }

    #[tokio::test]
    async fn m6_own_addresses_are_recognised_without_a_list_of_interfaces() {
        let at = |text: &str| SocketAddr::new(ip(text), 80);
        assert!(is_own(at("127.0.0.1")).await);
        assert!(!is_own(at("8.8.8.8")).await);
        let (open, listed) = (Egress::public(&[]), Egress::public(&["127.0.0.0/8".to_owned()]));
        assert!(open.is_closed_own("x", at("127.0.0.1")).await);
        assert!(!listed.is_closed_own("x", at("127.0.0.1")).await, "an operator may list it");
        assert!(!Egress::anywhere().is_closed_own("x", at("127.0.0.1")).await);
    }

    #[test]
    fn sec_f09_url_host_is_unambiguous() {
        assert_eq!(host_of("https://a.core.windows.net/x?y").as_deref(), Some("a.core.windows.net"));
        assert_eq!(host_of("http://[::1]:9000").as_deref(), Some("::1"));
        for url in [
            "https://127.0.0.1:1#.core.windows.net",
            "https://a.googleapis.com@127.0.0.1/t",
            "127.0.0.1:1",
            "",
        ] {
            assert_eq!(host_of(url), None, "{url}");
        }
    }

    /// A URL that is understood names one host, and no URL opens the way to metadata or to closed networks.
    #[test]
    fn fuzz_urls() {
        let corpus = [
            &b"https://a.core.windows.net:443/x?y"[..],
            b"http://[::1]:9000",
            b"http://169.254.169.254/latest",
            b"https://127.0.0.1:1#.core.windows.net",
            b"https://a.googleapis.com@127.0.0.1/t",
            b"http://10.0.0.5:9000/base/",
            b"DefaultEndpointsProtocol=https;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://h/a",
        ];
        testkit::fuzz::fuzz("urls", &corpus.map(<[u8]>::to_vec), |input, random| {
            let text = String::from_utf8_lossy(input);
            if let Some(host) = host_of(&text) {
                let strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\".contains(c);
                assert!(!host.is_empty() && !host.contains(strange), "{host:?} of {text:?}");
            }
            if let Ok(client) = crate::http::Client::with_base(&text, Egress::default()) {
                assert!(text.contains(client.authority()), "{text:?}");
            }
            let _ = crate::azure::connection::Connection::parse(&text);
            let open = Egress::public(&[text.clone().into_owned()]);
            let any = IpAddr::V4(Ipv4Addr::from(random.u32(..)));
            let named = open.names("metadata.example")
                || open.listed.iter().any(|l| matches!(l, AllowedHost::Network(..)));
            if !named {
                assert!(!open.allows("metadata.example", ip("169.254.169.254")), "{text:?}");
                assert_eq!(
                    open.allows("metadata.example", any),
                    is_public(any) && !within(&BLOCKED_ALWAYS, any),
                    "{any} {text:?}"
                );
            }
        });
    }

    #[tokio::test]
    async fn sec_f04_every_resolved_address_is_checked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = Egress::listed(&["10.99.0.0/16".to_owned()]);
        let refused = closed.connect("localhost", "localhost", port).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Forbidden, "{refused}");
        assert_eq!(refused.message, "this service may not connect to localhost", "the address is not told");
        let open = Egress::listed(&["127.0.0.0/8".to_owned()]);
        assert!(open.connect("localhost", "localhost", port).await.is_ok());
    }
}
