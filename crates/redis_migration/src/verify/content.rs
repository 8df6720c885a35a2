//! What a value is made of, whatever way it is written.

use redis_proto::rdb::decode::elements;
use redis_proto::rdb::{Element, Family, Kind as Value, dump};
use ring::digest::{Context, SHA256, digest};

/// True when two payloads build the same value.
pub(super) fn same_content(a: (&[u8], Family), b: (&[u8], Family)) -> bool {
    let value = |payload: &[u8]| payload.len().checked_sub(dump::FOOTER).map(|n| payload[..n].to_vec());
    if value(a.0).is_some() && value(a.0) == value(b.0) {
        return true;
    }
    // Types of streams whose servers count what was added and read (rdb.h).
    let counts = |payload: &[u8]| matches!(payload.first(), Some(19 | 21));
    let counts = counts(a.0) && counts(b.0);
    match (content(a.1, a.0, counts), content(b.1, b.0, counts)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// What a payload holds: its kind, how much, and a digest that does not depend on how it is written; `counts`: with
/// what streams and their groups count. None for what cannot be taken apart.
pub(super) fn content(family: Family, payload: &[u8], counts: bool) -> Option<(Value, u64, [u8; 32])> {
    let (kind, raw) = dump::open(family, payload).ok()?;
    let value = kind.kind()?;
    let in_order = matches!(value, Value::String | Value::List | Value::Stream);
    let (mut ordered, mut sum, mut count) = (Context::new(&SHA256), [0u8; 32], 0);
    let mut consumer: Option<Vec<u8>> = None;
    elements(kind, raw, |element| {
        let mut bytes = canonical_bytes(&element, counts);
        match &element {
            // Servers do not tell their replicas of one that has nothing pending.
            Element::Consumer { .. } => {
                consumer = Some(bytes);
                return Ok(());
            }
            Element::Pending { .. } => {
                if let Some(name) = consumer.take() {
                    bytes.splice(0..0, name);
                }
            }
            _ => {}
        }
        count += 1;
        if in_order {
            ordered.update(&bytes);
        } else {
            let one = digest(&SHA256, &bytes);
            let mut carry = 0u16;
            for (sum, b) in sum.iter_mut().zip(one.as_ref()) {
                carry += u16::from(*sum) + u16::from(*b);
                *sum = carry.to_le_bytes()[0];
                carry >>= 8;
            }
        }
        Ok(())
    })
    .ok()?;
    if in_order {
        sum.copy_from_slice(ordered.finish().as_ref());
    }
    Some((value, count, sum))
}

/// An element without what depends on the server: when consumers were seen, and, unless both sides keep `counts`, what older
/// servers do not count.
pub(super) fn canonical_bytes(element: &Element<'_>, counts: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut text = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let id = |(ms, sequence): (u64, u64)| format!("{ms}-{sequence}");
    match element {
        Element::String(s) | Element::Item(s) | Element::Member(s) => text(s),
        Element::Scored(member, score) => {
            text(member);
            // Both zeros are one score.
            text(&(score + 0.0).to_bits().to_le_bytes());
        }
        Element::Field(field, value, expiry) => {
            text(field);
            text(value);
            text(&expiry.unwrap_or(-1).to_le_bytes());
        }
        Element::Entry(at, fields) => {
            text(id(*at).as_bytes());
            for (name, value) in fields {
                text(name);
                text(value);
            }
        }
        Element::Stream(facts) => {
            text(id(facts.last).as_bytes());
            if counts {
                text(&facts.added.unwrap_or_default().to_le_bytes());
                text(id(facts.max_deleted.unwrap_or_default()).as_bytes());
            }
        }
        Element::Group { name, last, read } => {
            text(name);
            text(id(*last).as_bytes());
            if counts {
                text(&read.unwrap_or(-1).to_le_bytes());
            }
        }
        Element::Consumer { name, .. } => text(name),
        Element::Pending { id: at, count, .. } => {
            text(id(*at).as_bytes());
            text(&count.to_le_bytes());
        }
    }
    out
}
