//! The requests that the model answers.

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use model::error::{Kind, Result};
use model::key::Key;
use storage::checksum::{hex, md5_of_parts};
use storage::{
    Body, Capability, Entry, ListRequest, Meta, ObjectStore, Page, Position, Probe, ReadRequest, Reading,
    UploadedPart, Written,
};

use super::super::behaviour::{EtagKind, ModelFault, Start};
use super::{Model, Object, State, Upload, answered, is_lost, is_of_body, is_refused, md5, refused, slow};

#[async_trait]
impl ObjectStore for Model {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn location(&self) -> String {
        "the model".into()
    }

    async fn probe(&self, _: &str) -> Result<Probe> {
        self.begin("probe", None, &[is_refused]).await?;
        Ok(Probe { skew_ms: Some(self.state().behaviour.skew_ms), ..Probe::default() })
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.begin("list", None, &[is_refused, is_lost]).await.and_then(|f| answered(f, "list", ()))?;
        let mut state = self.state();
        let is_token = matches!(request.from, Position::Token(_));
        if is_token && state.behaviour.tokens_expire > 0 && state.random.u32(0..6) == 0 {
            state.behaviour.tokens_expire -= 1;
            // AWS "ListObjectsV2": the continuation token provided is incorrect.
            return refused(Kind::Invalid, "list");
        }
        let (walk, from) = match Token::of(&request.from) {
            Some(token) => (token.walk, Some(token)),
            None => {
                state.walks += 1;
                (state.walks, None)
            }
        };
        let keys = state.listed(&request.prefix, walk);
        let Some(at) = state.first(&keys, request, from.as_ref(), walk) else {
            return refused(Kind::OutOfOrderListing, "list");
        };
        // A token names the last key that was given out, also when that is gone: else one could come twice.
        let (last, empty_pages) = match from {
            Some(token) => (token.last, token.empty_pages),
            None if at == 0 => (Key::default(), 0),
            None => (keys[at - 1].0.clone(), 0),
        };
        if empty_pages < 2 && state.random.u32(0..100) < state.behaviour.empty_pages {
            let next = Token { walk, empty_pages: empty_pages + 1, last };
            return Ok(Page { next: Some(next.position()), ..Page::default() });
        }
        if let Some(delimiter) = request.delimiter {
            return Ok(state.folders(&request.prefix, delimiter, keys.into_iter().map(|(k, _)| k)));
        }
        let end = (at + state.behaviour.page.min(request.max as usize).max(1)).min(keys.len());
        let entries: Vec<Entry> = keys[at..end].iter().filter_map(|(key, _)| state.entry(key)).collect();
        let next = (end < keys.len())
            .then(|| Token { walk, empty_pages: 0, last: keys[end - 1].0.clone() }.position());
        Ok(Page { entries, next, ..Page::default() })
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        let fault = self.begin("head", Some(key), &[is_refused, is_lost]).await?;
        let meta = {
            let mut state = self.state();
            let object = state.find("head", key, false)?;
            if part.is_some() {
                return refused(Kind::Unsupported, "head");
            }
            state.meta(&object)
        };
        answered(fault, "head", meta)
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let fault = self.begin("read", Some(key), &[is_refused, is_of_body]).await?;
        let (mut meta, mut bytes) = {
            let mut state = self.state();
            let object = state.find("read", key, true)?;
            let meta = state.meta(&object);
            if request.if_match.as_ref().is_some_and(|tag| !tag.is_none() && !tag.same_text(&meta.etag)) {
                return refused(Kind::Changed, "read");
            }
            let bytes = match &request.range {
                Some(range) => {
                    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(object.bytes.len());
                    object.bytes.slice(at(range.start)..at(range.end))
                }
                None => object.bytes.clone(),
            };
            (meta, bytes)
        };
        if bytes.is_empty() {
            return Ok(Reading { meta, body: Body::bytes(bytes) });
        }
        if fault == Some(ModelFault::Short) && request.range.is_none() {
            meta.size -= 1;
        }
        let body = match fault {
            Some(ModelFault::Short) => Body::bytes(bytes.slice(..bytes.len() - 1)),
            Some(ModelFault::Cut) => {
                let (sender, receiver) = tokio::sync::mpsc::channel(1);
                let _ = sender.send(Ok(bytes.slice(..bytes.len() / 2))).await;
                Body::channel(receiver, bytes.len() as u64)
            }
            Some(ModelFault::Slow) => slow(bytes),
            Some(ModelFault::Changed) => {
                let mut wrong = bytes.to_vec();
                wrong[0] ^= 1;
                bytes = wrong.into();
                Body::bytes(bytes)
            }
            _ => Body::bytes(bytes),
        };
        Ok(Reading { meta, body })
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let fault = self.begin("write", Some(key), &[is_refused, is_lost]).await?;
        self.state().takes(&meta.headers, "write")?;
        self.state().unlocked(key, "write")?;
        let told = body.md5();
        let bytes = body.collect(u64::MAX).await?;
        // AWS "PutObject": Content-MD5.
        if told.is_some_and(|told| told != md5(&bytes)) {
            return refused(Kind::Corrupt, "write");
        }
        let written = {
            let mut state = self.state();
            state.arrived.push((Instant::now(), bytes.len() as u64));
            let now = state.now_ms;
            let object = Object { headers: meta.headers.clone(), ..state.made(bytes, 0, None, now) };
            let written = state.written(&object);
            state.objects.insert(key.clone(), object);
            written
        };
        answered(fault, "write", written)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let fault = self.begin("delete", Some(key), &[is_refused, is_lost]).await?;
        {
            let mut state = self.state();
            state.unlocked(key, "delete")?;
            if state.objects.remove(key).is_some() {
                state.removed.push(key.clone());
            }
        }
        answered(fault, "delete", ())
    }

    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        let fault = self.begin("begin_upload", Some(key), &[is_refused, is_lost]).await?;
        let id = {
            let mut state = self.state();
            state.takes(&meta.headers, "begin_upload")?;
            state.serial += 1;
            let id = format!("upload-{}", state.serial);
            let headers = meta.headers.clone();
            state.uploads.insert(id.clone(), Upload { key: key.clone(), headers, parts: BTreeMap::new() });
            id
        };
        answered(fault, "begin_upload", id)
    }

    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        _: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        let fault = self.begin("write_part", Some(key), &[is_refused, is_lost]).await?;
        let bytes = body.collect(u64::MAX).await?;
        let part = {
            let mut state = self.state();
            state.arrived.push((Instant::now(), bytes.len() as u64));
            let (digest, kind) = (md5(&bytes), state.behaviour.etag);
            state.serial += 1;
            let serial = state.serial;
            let Some(open) = state.uploads.get_mut(upload) else {
                return refused(Kind::NotFound, "write_part");
            };
            let size = bytes.len() as u64;
            open.parts.insert(number, bytes);
            match kind {
                EtagKind::Md5 => {
                    UploadedPart { number, etag: hex(&digest), size, opaque: false, crc64: None, md5: None }
                }
                _ => UploadedPart {
                    number,
                    etag: hex(&md5(&serial.to_le_bytes())),
                    size,
                    opaque: true,
                    crc64: None,
                    md5: None,
                },
            }
        };
        answered(fault, "write_part", part)
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        let fault = self.begin("complete_upload", Some(key), &[is_refused, is_lost]).await?;
        let written = {
            let mut state = self.state();
            state.unlocked(key, "complete_upload")?;
            let Some(open) = state.uploads.remove(upload) else {
                return refused(Kind::NotFound, "complete_upload");
            };
            let all: Option<Vec<Bytes>> = parts.iter().map(|p| open.parts.get(&p.number).cloned()).collect();
            let Some(all) = all else { return refused(Kind::Invalid, "complete_upload") };
            let tag = md5_of_parts(all.iter().map(|p| md5(p)));
            let (count, now) = (u32::try_from(all.len()).unwrap_or(u32::MAX), state.now_ms);
            let made = state.made(all.concat().into(), count, Some(tag), now);
            let object = Object { headers: open.headers, ..made };
            let written = state.written(&object);
            state.objects.insert(key.clone(), object);
            written
        };
        answered(fault, "complete_upload", written)
    }

    async fn abort_upload(&self, _: &Key, upload: &str) -> Result<()> {
        self.begin("abort_upload", None, &[is_refused]).await?;
        self.state().uploads.remove(upload);
        Ok(())
    }

    async fn list_parts(&self, _: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.begin("list_parts", None, &[is_refused]).await?;
        let state = self.state();
        let Some(open) = state.uploads.get(upload) else { return refused(Kind::NotFound, "list_parts") };
        let opaque = state.behaviour.etag != EtagKind::Md5;
        let part = |(number, bytes): (&u32, &Bytes)| UploadedPart {
            number: *number,
            etag: hex(&md5(bytes)),
            size: bytes.len() as u64,
            opaque,
            crc64: None,
            md5: None,
        };
        Ok(open.parts.iter().map(part).collect())
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        self.begin("list_uploads", None, &[is_refused]).await?;
        let state = self.state();
        let of = state.uploads.iter().filter(|(_, u)| u.key.as_bytes().starts_with(prefix.as_bytes()));
        Ok(of.map(|(id, u)| (u.key.clone(), id.clone())).collect())
    }

    async fn tags(&self, _: &Key) -> Result<Vec<(String, String)>> {
        Ok(vec![])
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        refused(Kind::Unsupported, "buckets")
    }
}

/// A continuation token: the walk, the empty pages behind its last key, and that key.
struct Token {
    walk: u64,
    empty_pages: u32,
    last: Key,
}

impl Token {
    fn of(position: &Position) -> Option<Self> {
        let Position::Token(token) = position else { return None };
        let parts: Vec<&str> = token.splitn(3, ' ').collect();
        let part = |i: usize| parts.get(i).copied().unwrap_or_default();
        Some(Self {
            walk: part(0).parse().unwrap_or(0),
            empty_pages: part(1).parse().unwrap_or(0),
            last: Key::from(part(2).to_owned()),
        })
    }

    fn position(&self) -> Position {
        Position::Token(format!("{} {} {}", self.walk, self.empty_pages, self.last).into())
    }
}

/// A key and its place in the order of the listing.
type Ranked = (Key, (u64, Vec<u8>));

impl State {
    /// The keys that a walk lists below a prefix, in its order.
    fn listed(&self, prefix: &str, walk: u64) -> Vec<Ranked> {
        let mut keys: Vec<Ranked> = self
            .objects
            .keys()
            .filter(|k| k.as_bytes().starts_with(prefix.as_bytes()))
            .filter(|k| !self.behaviour.unlisted.contains(k))
            .map(|k| (k.clone(), self.behaviour.rank(k, walk)))
            .collect();
        keys.sort_by(|(_, a), (_, b)| a.cmp(b));
        keys
    }

    /// The index of the first key of a page; none where the store refuses to begin after a key.
    fn first(
        &self,
        keys: &[Ranked],
        request: &ListRequest,
        token: Option<&Token>,
        walk: u64,
    ) -> Option<usize> {
        let behind = |key: &Key, also: bool| {
            let rank = self.behaviour.rank(key, walk);
            keys.iter().position(|(_, r)| *r > rank || (also && *r == rank)).unwrap_or(keys.len())
        };
        Some(match (&request.from, token, self.behaviour.start) {
            (_, Some(token), _) if token.last.is_empty() => 0,
            (_, Some(token), _) => behind(&token.last, false),
            (Position::After(_), _, Start::Refused) => return None,
            (Position::After(_), _, Start::Ignored) => 0,
            (Position::After(key), _, start) => behind(key, start == Start::Inclusive),
            (Position::Start | Position::Token(_), ..) => 0,
        })
    }
}
