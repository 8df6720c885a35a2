//! Every dump equals its canon file, whole, byte by byte, and with all values open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redis_proto::Result;
use redis_proto::rdb::{Item, Kind, Parser};
use serde_json::{Value, json};

use crate::canon::{Built, LOADED_MS, normal, text, value};

pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// All RDB files.
pub(crate) fn dumps() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for folder in std::fs::read_dir(data()).unwrap().map(|f| f.unwrap().path()).filter(|p| p.is_dir()) {
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
        out.extend(files.filter(|p| p.extension().is_some_and(|e| e == "rdb")));
    }
    out.sort();
    assert!(out.len() > 70, "the dumps are there");
    out
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::List => "list",
        Kind::Set => "set",
        Kind::SortedSet => "zset",
        Kind::Hash => "hash",
        Kind::Stream => "stream",
        Kind::Module => "module",
    }
}

/// What a file holds, by canon lines; `chunk` bytes come at a time, values above `open_above` come open.
pub(crate) fn load(bytes: &[u8], chunk: usize, open_above: u64) -> Result<Vec<Value>> {
    load_to_end(bytes, chunk, open_above).map(|(lines, _)| lines)
}

/// As [`load`], and the offset of the file's end.
pub(crate) fn load_to_end(bytes: &[u8], chunk: usize, open_above: u64) -> Result<(Vec<Value>, usize)> {
    let mut parser = Parser::new(open_above);
    let (mut out, mut functions, mut db) = (Vec::new(), Vec::new(), 0);
    let mut open: Option<(Value, Kind, Built, Vec<u8>)> = None;
    let mut ended = false;
    let line = |db: u64, key: &[u8], kind: Kind, ttl: Option<i64>| json!({"db": db, "key": text(key), "type": kind_name(kind), "ttl": ttl.unwrap_or(-1)});
    for piece in bytes.chunks(chunk.max(1)) {
        parser.push(piece);
        while let Some(item) = parser.next_item()? {
            match item {
                Item::Db(n) => db = n,
                Item::Function(code) => functions.push(json!({"function": text(&code)})),
                Item::Value(head, raw) => {
                    if head.expire_ms.is_some_and(|at| at < LOADED_MS) {
                        continue;
                    }
                    let kind = head.kind.kind().unwrap();
                    let mut made = line(db, &head.key, kind, head.expire_ms);
                    made["value"] = value(&head, raw)?;
                    out.push(made);
                }
                Item::Open(head) => {
                    let kind = head.kind.kind().unwrap();
                    let made = match head.expire_ms.is_some_and(|at| at < LOADED_MS) {
                        true => Value::Null,
                        false => line(db, &head.key, kind, head.expire_ms),
                    };
                    open = Some((made, kind, Built::default(), Vec::new()));
                }
                Item::Element(element) => open.as_mut().unwrap().2.add(element),
                Item::Piece(bytes) => open.as_mut().unwrap().3.extend_from_slice(bytes),
                Item::Close => {
                    let (mut made, kind, built, bytes) = open.take().unwrap();
                    if !made.is_null() {
                        made["value"] = match (kind, bytes.is_empty()) {
                            (Kind::String, false) => text(&bytes).into(),
                            _ => built.finish(kind),
                        };
                        out.push(made);
                    }
                }
                Item::End => ended = true,
                Item::Begin(..) | Item::Aux(..) | Item::Sizes(..) | Item::Slot(..) | Item::ModuleAux(..) => {}
            }
        }
    }
    match ended {
        true => {
            out.extend(functions);
            Ok((out, usize::try_from(parser.offset()).unwrap()))
        }
        false => Err(redis_proto::ProtocolError::new(bytes.len() as u64, "the file ends too early")),
    }
}

/// The canon file of a dump; none where no server loads it.
pub(crate) fn canon(dump: &Path) -> Option<Vec<Value>> {
    let name = dump.file_name().unwrap().to_str().unwrap();
    let own = || {
        let table = std::fs::read_to_string(data().join("own/expected.tsv")).unwrap();
        let stem = name.trim_end_matches(".rdb").trim_end_matches(".aof").to_owned();
        let line = table.lines().find(|l| l.split('\t').next() == Some(&stem))?.to_owned();
        Some(dump.with_file_name(line.split('\t').nth(1)?))
    };
    let shared = dump.with_file_name(format!("{name}.canon.jsonl"));
    let path = if shared.exists() { shared } else { own()? };
    Some(std::fs::read_to_string(path).unwrap().lines().map(normal).collect())
}

/// Lines by what they are about.
fn by_key(lines: Vec<Value>) -> BTreeMap<String, Value> {
    lines.into_iter().map(|l| (format!("{} {} {}", l["db"], l["key"], l["function"]), l)).collect()
}

#[test]
fn every_dump_matches_the_values_of_a_server() {
    let mut compared = 0;
    for dump in dumps() {
        let bytes = std::fs::read(&dump).unwrap();
        let loaded = load(&bytes, usize::MAX, u64::MAX);
        let Some(want) = canon(&dump) else {
            // No server here loads it: it must end in an error, or in values that can be carried.
            if let Err(error) = loaded {
                assert!(error.offset <= bytes.len() as u64, "{}: {error}", dump.display());
            }
            continue;
        };
        let loaded = loaded.unwrap_or_else(|e| panic!("{}: {e}", dump.display()));
        let (have, want) = (by_key(loaded), by_key(want));
        assert_eq!(have.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{}", dump.display());
        for (key, value) in &want {
            // Modules of another version write their values in another way.
            if value["type"] == "module" && !dump.ends_with("own/stack7.4-modules.rdb") {
                continue;
            }
            assert_eq!(have[key], *value, "{}: {key}", dump.display());
        }
        compared += 1;
    }
    assert!(compared >= 70, "{compared} dumps were compared");
}

#[test]
fn chunked_and_streamed_values_are_equal() {
    for dump in dumps() {
        let bytes = std::fs::read(&dump).unwrap();
        let Ok(whole) = load(&bytes, usize::MAX, u64::MAX) else { continue };
        let whole = by_key(whole);
        for (chunk, open_above) in [(1, u64::MAX), (7, 64), (1, 0), (4096, 1000)] {
            let name = format!("{} by {chunk}, open above {open_above}", dump.display());
            let again = load(&bytes, chunk, open_above).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(by_key(again), whole, "{name}");
        }
    }
}
