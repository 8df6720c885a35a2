//! Multipart uploads.

use http::{Method, header};
use model::error::{Error, Kind, Result};
use model::key::Key;
use serde_json::{Map, Value, json};

use super::client::Google;
use super::meta::{Object, resource};
use crate::body::Body;
use crate::checksum::{hex, sha256_hex};
use crate::meta::Meta;
use crate::{ObjectStore, UploadedPart, Written};

/// Where parts of unfinished uploads stand.
pub const PARTS_PREFIX: &str = ".whimbrel/uploads/";
/// The first name behind all of [`PARTS_PREFIX`].
pub(super) const AFTER_PARTS: &str = ".whimbrel/uploads0";
/// Sources of one compose request.
pub(super) const COMPOSE_MAX: usize = 32;
/// Random digits that begin an upload's name.
pub(super) const UPLOAD_DIGITS: usize = 16;

/// The folder of an upload's parts: by its key, so that it can be found without its name.
pub(super) fn parts_folder(key: &Key, upload: &str) -> String {
    let hash = sha256_hex(key.as_bytes());
    format!("{PARTS_PREFIX}{}-{}/", &hash[..32], upload.get(..UPLOAD_DIGITS).unwrap_or(upload))
}

impl Google {
    pub(super) async fn compose(
        &self,
        to: &str,
        from: &[String],
        resource: Map<String, Value>,
    ) -> Result<Object> {
        let key = Key::from(to);
        let sources: Vec<Value> = from.iter().map(|name| json!({"name": name})).collect();
        let mut call = self.call(
            "complete_upload",
            Method::POST,
            format!("{}/compose", self.object(to.as_bytes())),
            Some(&key),
        );
        call.headers.push((header::CONTENT_TYPE, "application/json".into()));
        call.body = Body::bytes(json!({"sourceObjects": sources, "destination": resource}).to_string());
        self.json(call).await
    }

    /// Everything that an upload has written so far.
    pub(super) async fn parts_of(&self, below: &str) -> Result<Vec<Object>> {
        let (mut all, mut token) = (Vec::new(), String::new());
        // 10,000 parts and what is composed of them, in pages of 1,000.
        for _ in 0..12 {
            let mut page = self.list_page(below, "", &token, 1000, None).await?;
            all.append(&mut page.items);
            match page.next_page_token.filter(|t| !t.is_empty()) {
                Some(next) if next != token => token = next,
                _ => break,
            }
        }
        Ok(all)
    }

    pub(super) async fn start_upload(&self, _key: &Key, meta: &Meta) -> Result<String> {
        Ok(format!("{:016x}{}", fastrand::u64(..), Value::Object(resource(meta))))
    }

    pub(super) async fn put_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        _offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        let size = body.len();
        let name = format!("{}{number:05}", parts_folder(key, upload));
        let object = self.insert_object("write_part", &name, &Meta::default(), body).await?;
        let etag = object.etag().md5().map(|m| hex(m)).unwrap_or_default();
        Ok(UploadedPart { number, etag, size, opaque: false, crc64: None, md5: None })
    }

    pub(super) async fn finish_upload(
        &self,
        key: &Key,
        upload: &str,
        parts: &[UploadedPart],
    ) -> Result<Written> {
        let (Some(name), folder) = (key.as_str(), parts_folder(key, upload)) else {
            return Err(Error::new(
                Kind::InvalidKey,
                "complete_upload",
                format!("`{key}` is not valid UTF-8"),
            ));
        };
        let mut names: Vec<String> = parts.iter().map(|p| format!("{folder}{:05}", p.number)).collect();
        let mut level = 0;
        while names.len() > COMPOSE_MAX {
            level += 1;
            let mut composed = Vec::new();
            for (i, group) in names.chunks(COMPOSE_MAX).enumerate() {
                let name = format!("{folder}c{level}-{i:05}");
                self.compose(&name, group, Map::new()).await?;
                composed.push(name);
            }
            names = composed;
        }
        let kept = upload.get(UPLOAD_DIGITS..).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let object = self.compose(name, &names, kept).await?;
        self.abort_upload(key, upload).await?;
        Ok(Written { etag: object.etag(), ..Written::default() })
    }

    pub(super) async fn cancel_upload(&self, key: &Key, upload: &str) -> Result<()> {
        for part in self.parts_of(&parts_folder(key, upload)).await? {
            self.delete_name(part.name.as_bytes()).await?;
        }
        Ok(())
    }

    pub(super) async fn uploaded_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        let folder = parts_folder(key, upload);
        let part = |o: &Object| {
            let number = o.name.strip_prefix(&folder)?.parse().ok()?;
            Some(UploadedPart {
                number,
                etag: hex(o.etag().md5()?),
                size: o.size.parse().ok()?,
                opaque: false,
                crc64: None,
                md5: None,
            })
        };
        Ok(self.parts_of(&folder).await?.iter().filter_map(part).collect())
    }

    /// Uploads of the one key that `prefix` names: they are found by it, not in order.
    pub(super) async fn open_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        let key = Key::from(prefix);
        let all = parts_folder(&key, "");
        let all = all.trim_end_matches('/');
        let mut ids: Vec<String> = self
            .parts_of(all)
            .await?
            .iter()
            .filter_map(|o| Some(o.name.strip_prefix(all)?.split('/').next()?.to_owned()))
            .collect();
        ids.dedup();
        Ok(ids.into_iter().map(|id| (key.clone(), id)).collect())
    }
}
