//! What every store must do.

use http::{HeaderName, HeaderValue};
use model::error::Kind;
use model::key::{Key, Order};
use storage::checksum::hex;
use storage::{Body, Etag, ListRequest, Meta, Position, ReadRequest, SharedStore};

/// Runs everything against one store; `name` is for messages.
pub(crate) async fn all(store: SharedStore, name: &str) {
    whole_objects(&store, name).await;
    empty_and_missing(&store, name).await;
    metadata(&store, name).await;
    preconditions(&store, name).await;
    multipart(&store, name).await;
    listing(&store, name).await;
    deletion(&store, name).await;
}

fn key(text: &str) -> Key {
    Key::from(text)
}

async fn put(store: &SharedStore, name: &str, text: &'static str) {
    store.write(&key(name), &Meta::default(), Body::bytes(text)).await.unwrap();
}

async fn get(store: &SharedStore, name: &str) -> Vec<u8> {
    let reading = store.read(&key(name), &ReadRequest::default()).await.unwrap();
    reading.body.collect(1 << 30).await.unwrap().to_vec()
}

async fn whole_objects(store: &SharedStore, name: &str) {
    for text in ["w/one", "w/with space+plus", "w/pct%41", "w/日本/é", "w/q?x=1&y#z", "w/quo'te\"<&>"] {
        put(store, text, "body").await;
        assert_eq!(get(store, text).await, b"body", "{name}: {text}");
    }
    let written = store.write(&key("w/md5"), &Meta::default(), Body::bytes("123456789")).await.unwrap();
    if store.capability().etag_is_md5 {
        let md5 = written.etag.md5().map(|m| hex(m));
        assert_eq!(md5.as_deref(), Some("25f9e794323b453885f5181f1b624d0b"), "{name}");
    } else {
        assert_eq!(written.sums.crc64_nvme, Some(0xae8b_1486_0a79_9888), "{name}: read back and proved");
    }
    let range = ReadRequest { range: Some(3..6), ..ReadRequest::default() };
    let reading = store.read(&key("w/md5"), &range).await.unwrap();
    assert_eq!(reading.meta.size, 9, "{name}: the whole size is told with a range");
    assert_eq!(&reading.body.collect(10).await.unwrap()[..], b"456", "{name}");
}

async fn empty_and_missing(store: &SharedStore, name: &str) {
    put(store, "e/empty", "").await;
    assert_eq!(get(store, "e/empty").await, b"", "{name}");
    assert_eq!(store.head(&key("e/empty"), None).await.unwrap().size, 0, "{name}");
    for failure in [
        store.head(&key("e/none"), None).await.unwrap_err(),
        store.read(&key("e/none"), &ReadRequest::default()).await.unwrap_err(),
    ] {
        assert_eq!(failure.kind, Kind::NotFound, "{name}: {failure}");
    }
}

async fn metadata(store: &SharedStore, name: &str) {
    let header =
        |n: &'static str, v: &[u8]| (HeaderName::from_static(n), HeaderValue::from_bytes(v).unwrap());
    let meta = Meta {
        headers: vec![
            header("content-type", b"text/x-test"),
            header("content-encoding", b"identity"),
            header("content-language", b"de"),
            header("content-disposition", b"attachment"),
            header("cache-control", b"no-cache"),
            header("x-amz-meta-plain", b"value"),
            header("x-amz-meta-utf8", "grüße-日本".as_bytes()),
        ],
        tags: vec![("team".into(), "a b+c".into()), ("x".into(), "1".into())],
        ..Meta::default()
    };
    store.write(&key("m/one"), &meta, Body::bytes("x")).await.unwrap();
    let back = store.head(&key("m/one"), None).await.unwrap();
    for (n, v) in &meta.headers {
        assert_eq!(back.header(n.as_str()), Some(v), "{name}: {n}");
    }
    if !store.capability().tags {
        return;
    }
    assert_eq!(back.tag_count, 2, "{name}");
    let mut tags = store.tags(&key("m/one")).await.unwrap();
    tags.sort();
    assert_eq!(tags, meta.tags, "{name}");
}

async fn preconditions(store: &SharedStore, name: &str) {
    put(store, "p/one", "first").await;
    let etag = store.head(&key("p/one"), None).await.unwrap().etag;
    let good = ReadRequest { if_match: Some(etag.clone()), ..ReadRequest::default() };
    assert!(store.read(&key("p/one"), &good).await.is_ok(), "{name}");
    put(store, "p/one", "second!").await;
    let failure = store.read(&key("p/one"), &good).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Changed, "{name}: {failure}");
}

async fn multipart(store: &SharedStore, name: &str) {
    const MIB: usize = 1 << 20;
    let bytes: Vec<u8> = (0..11 * MIB).map(|i| (i / 7 % 251) as u8).collect();
    let k = key("u/big");
    let upload = store.begin_upload(&k, &Meta::default()).await.unwrap();
    let mut parts = Vec::new();
    // Out of order, as parallel I/O threads finish.
    for number in [3u32, 1, 2] {
        let from = (number as usize - 1) * 5 * MIB;
        let slice = bytes[from..(from + 5 * MIB).min(bytes.len())].to_vec();
        parts.push(store.write_part(&k, &upload, number, from as u64, Body::bytes(slice)).await.unwrap());
    }
    parts.sort_by_key(|p| p.number);
    if let Ok(listed) = store.list_parts(&k, &upload).await {
        let numbers = |p: &[storage::UploadedPart]| {
            p.iter().map(|p| (p.number, p.size, p.etag.clone())).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&listed), numbers(&parts), "{name}");
    }
    if store.capability().uploads_listed {
        assert!(store.list_uploads("u/").await.unwrap().iter().any(|(k2, _)| *k2 == k), "{name}");
    }
    let written = store.complete_upload(&k, &upload, &parts).await.unwrap();
    assert_eq!(get(store, "u/big").await, bytes, "{name}");
    if store.capability().etag_is_md5 && store.capability().head_part {
        assert_eq!(written.etag.parts(), Some(3), "{name}");
        let md5 = |p: &storage::UploadedPart| match Etag::parse(&p.etag) {
            Etag::Md5(md5) => md5,
            other => panic!("{name}: part ETag {other}"),
        };
        let expected = storage::checksum::md5_of_parts(parts.iter().map(md5));
        assert_eq!(written.etag.to_string(), format!("{}-3", hex(&expected)), "{name}");
    }
    if store.capability().head_part {
        let first = store.head(&k, Some(1)).await.unwrap();
        assert_eq!((first.size, first.parts), (5 * MIB as u64, Some(3)), "{name}");
    }
    let other = store.begin_upload(&key("u/never"), &Meta::default()).await.unwrap();
    store.abort_upload(&key("u/never"), &other).await.unwrap();
    store.abort_upload(&key("u/never"), &other).await.unwrap();
    assert!(!store.list_uploads("u/").await.unwrap().iter().any(|(_, id)| *id == other), "{name}");
    assert_eq!(store.head(&key("u/never"), None).await.unwrap_err().kind, Kind::NotFound, "{name}");
}

/// Pages of any size, followed by the tokens of the store, give every key once and in the promised order.
async fn listing(store: &SharedStore, name: &str) {
    let order = store.capability().list_order;
    let mut wanted: Vec<String> = Vec::new();
    for i in 0..60 {
        wanted.push(format!("l/d{}/f{i:02}", i % 7));
    }
    for odd in ["l/a!", "l/a.txt", "l/a0", "l/a/b", "l/a/c", "l/a b", "l/z ü+%", "l/sub/x/y/z"] {
        wanted.push(odd.to_owned());
    }
    for text in &wanted {
        store.write(&key(text), &Meta::default(), Body::bytes("x")).await.unwrap();
    }
    wanted.sort_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
    for max in [1, 3, 7, 1000] {
        let mut found: Vec<String> = Vec::new();
        let mut from = Position::Start;
        loop {
            let request = ListRequest { prefix: "l/".into(), from: from.clone(), max, delimiter: None };
            let page = store.list(&request).await.unwrap();
            assert!(page.entries.len() <= max as usize, "{name}");
            found.extend(page.entries.iter().map(|e| e.key.to_text().into_owned()));
            match page.next {
                Some(next) => {
                    assert_ne!(next, from, "{name}: a page leads to where it began");
                    from = next;
                }
                None => break,
            }
        }
        assert_eq!(found, wanted, "{name}: pages of {max}");
    }
    let request = ListRequest { prefix: "l/d3/f1".into(), max: 1000, ..ListRequest::default() };
    let page = store.list(&request).await.unwrap();
    let prefixed: Vec<&String> = wanted.iter().filter(|k| k.starts_with("l/d3/f1")).collect();
    assert_eq!(page.entries.len(), prefixed.len(), "{name}: a prefix that is no folder");
    assert_ne!(order, Order::Unknown, "{name}");
}

async fn deletion(store: &SharedStore, name: &str) {
    put(store, "x/one", "x").await;
    store.delete(&key("x/one")).await.unwrap();
    store.delete(&key("x/one")).await.unwrap();
    assert_eq!(store.head(&key("x/one"), None).await.unwrap_err().kind, Kind::NotFound, "{name}");
}
