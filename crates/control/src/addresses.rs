//! Which addresses the service may be led to by those who use it.

use std::net::IpAddr;
use std::sync::Arc;

use storage::http::AddressGuard;

/// An address of the open internet.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80)
        }
    }
}

pub(crate) fn network(text: &str) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        Some((ip, bits)) => Some((ip.parse().ok()?, bits.parse().ok()?)),
        None => text.parse().ok().map(|ip: IpAddr| (ip, if ip.is_ipv4() { 32 } else { 128 })),
    }
}

pub(crate) fn contains(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let prefix =
        |value: u128, width: u32| value.checked_shr(width.saturating_sub(u32::from(bits))).unwrap_or(0);
    match (net, ip.to_canonical()) {
        (IpAddr::V4(n), IpAddr::V4(i)) => {
            prefix(u128::from(u32::from(n)), 32) == prefix(u128::from(u32::from(i)), 32)
        }
        (IpAddr::V6(n), IpAddr::V6(i)) => prefix(u128::from(n), 128) == prefix(u128::from(i), 128),
        _ => false,
    }
}

/// True when an operator's list names a host, or may do so once the host is resolved.
pub(crate) fn lists(allowed: &[String], host: &str) -> bool {
    allowed.iter().any(|a| {
        a.eq_ignore_ascii_case(host)
            || match (network(a), host.parse::<IpAddr>()) {
                (Some((net, bits)), Ok(ip)) => contains(net, bits, ip),
                // A name may resolve into the network: the guard decides.
                (Some(_), Err(_)) => true,
                _ => false,
            }
    })
}

/// Only what the operator lists; a host that is listed by name stands for whatever it resolves to.
pub(crate) fn listed(allowed: Vec<String>) -> AddressGuard {
    Arc::new(move |ip| {
        allowed.iter().any(|a| match network(a) {
            Some((net, bits)) => contains(net, bits, ip),
            None => true,
        })
    })
}

/// Public addresses, and what the operator lists beside them.
pub(crate) fn public(allowed: Vec<String>) -> AddressGuard {
    Arc::new(move |ip| {
        let listed = allowed.iter().filter_map(|a| network(a)).any(|(net, bits)| contains(net, bits, ip));
        listed || is_public(ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (ip, public) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::ffff:10.0.0.1", false),
            ("2606:4700::1", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }
}
