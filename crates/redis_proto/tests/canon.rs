//! What a server holds, in the form of the `.canon.jsonl` files: one JSON line a key.

use base64::Engine as _;
use redis_proto::Result;
use redis_proto::rdb::decode::{StreamId, elements};
use redis_proto::rdb::{Element, KeyHeader, Kind, dump};
use serde_json::{Value, json};

/// The day on which the canon files were made: what had expired by then is not in them.
pub(crate) const LOADED_MS: i64 = 1_795_305_600_000;

/// Printable ASCII as it is, everything else as base64.
pub(crate) fn text(bytes: &[u8]) -> String {
    let plain = bytes.iter().all(|b| (32..127).contains(b)) && !bytes.starts_with(b"b64:");
    match std::str::from_utf8(bytes) {
        Ok(text) if plain => text.to_owned(),
        _ => format!("b64:{}", base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

/// A value in the making.
#[derive(Default)]
pub(crate) struct Built {
    all: Vec<Value>,
    last: StreamId,
    groups: Vec<(Value, Value, Vec<Value>, Vec<Value>)>,
}

fn id((ms, sequence): StreamId) -> Value {
    format!("{ms}-{sequence}").into()
}

impl Built {
    pub(crate) fn add(&mut self, element: Element<'_>) {
        match element {
            Element::String(bytes) | Element::Item(bytes) | Element::Member(bytes) => {
                self.all.push(text(&bytes).into());
            }
            Element::Field(field, value, None) => self.all.push(json!([text(&field), text(&value)])),
            Element::Field(_, _, Some(at)) if at < LOADED_MS => {}
            Element::Field(field, value, Some(at)) => self.all.push(json!([text(&field), text(&value), at])),
            Element::Scored(member, score) => self.all.push(json!([text(&member), score_text(score)])),
            Element::Entry(at, fields) => {
                let pairs: Vec<String> = fields.iter().flat_map(|(f, v)| [text(f), text(v)]).collect();
                self.all.push(json!([id(at), pairs]));
            }
            Element::Stream(facts) => self.last = facts.last,
            Element::Group { name, last, .. } => {
                self.groups.push((text(&name).into(), id(last), vec![], vec![]));
            }
            Element::Consumer { name, .. } => self.groups.last_mut().unwrap().3.push(text(&name).into()),
            Element::Pending { id: at, count, .. } => {
                let group = self.groups.last_mut().unwrap();
                let consumer = group.3.last().cloned().unwrap();
                group.2.push(json!([id(at), consumer, count]));
            }
        }
    }

    /// The value as a canon file has it; what has no order is sorted.
    pub(crate) fn finish(mut self, kind: Kind) -> Value {
        match kind {
            Kind::String => self.all.pop().unwrap(),
            Kind::List => self.all.into(),
            Kind::Stream => {
                let groups: Vec<Value> =
                    self.groups.into_iter().map(|(n, l, p, c)| json!([n, l, sorted(p), sorted(c)])).collect();
                json!({"last": id(self.last), "entries": self.all, "groups": sorted(groups)})
            }
            _ => sorted(self.all),
        }
    }
}

/// A number as the canon files write it, by value: text forms differ.
fn score_text(score: f64) -> Value {
    // Zero has no sign in the canon files.
    Value::String(format!("{:?}", score + 0.0))
}

pub(crate) fn sorted(mut all: Vec<Value>) -> Value {
    all.sort_by_key(Value::to_string);
    all.into()
}

/// A whole value.
pub(crate) fn value(head: &KeyHeader<'_>, raw: &[u8]) -> Result<Value> {
    let kind = head.kind.kind().unwrap();
    if kind == Kind::Module {
        let mut payload = Vec::new();
        dump::payload(&mut payload, head.kind, raw, 12);
        return Ok(json!({"dump": text(&payload)}));
    }
    let mut built = Built::default();
    elements(head.kind, raw, |element| {
        built.add(element);
        Ok(())
    })
    .map_err(|e| redis_proto::ProtocolError { offset: e.offset + head.offset, ..e })?;
    Ok(built.finish(kind))
}

/// One line of a canon file, in the form that is compared.
pub(crate) fn normal(line: &str) -> Value {
    let mut value: Value = serde_json::from_str(line).unwrap();
    if value.get("function").is_some() {
        return value;
    }
    let kind = value["type"].as_str().unwrap().to_owned();
    if !matches!(kind.as_str(), "string" | "list" | "set" | "hash" | "zset" | "stream") {
        value["type"] = "module".into();
    }
    let inner = value["value"].take();
    value["value"] = match (kind.as_str(), inner) {
        ("set" | "hash", Value::Array(all)) => sorted(all),
        ("zset", Value::Array(all)) => {
            let score = |t: &str| score_text(t.parse::<f64>().unwrap());
            let pair = |p: Value| json!([p[0], score(p[1].as_str().unwrap())]);
            sorted(all.into_iter().map(pair).collect())
        }
        ("stream", mut stream) => {
            let groups = stream["groups"].as_array().cloned().unwrap();
            let list = |v: &Value| sorted(v.as_array().cloned().unwrap());
            let group = |g: Value| json!([g[0], g[1], list(&g[2]), list(&g[3])]);
            stream["groups"] = sorted(groups.into_iter().map(group).collect());
            stream
        }
        (_, other) => other,
    };
    value
}
