//! Listings.

use std::sync::atomic::Ordering::Relaxed;

use http::Method;
use model::error::{Error, Kind, Result};
use model::key::{Key, Order};

use super::client::{ApiCall, S3, body_of};
use super::config::S3Config;
use super::list_parser;
use crate::xml::blocks;
use crate::{ListRequest, Page, Position};

/// It is not known yet which listing the server supports.
pub(super) const DIALECT_UNKNOWN: u32 = 0;
/// The server lists by `ListObjects` (version 1).
pub(super) const DIALECT_V1: u32 = 1;
/// The server lists by `ListObjectsV2`.
pub(super) const DIALECT_V2: u32 = 2;

impl S3 {
    pub(super) async fn list_objects(&self, request: &ListRequest) -> Result<Page> {
        // Another request may learn it meanwhile.
        let dialect = self.facts.dialect.load(Relaxed);
        match self.list_in(request, dialect).await {
            // A server that refuses the second version of the listing may know the first.
            Err(f)
                if matches!(f.kind, Kind::Invalid | Kind::Unsupported)
                    && dialect == DIALECT_UNKNOWN
                    && request.from == Position::Start =>
            {
                let first = self.list_in(request, DIALECT_V1).await;
                first.map_err(|_| f)
            }
            // Directory buckets refuse `start-after` (AWS "ListObjectsV2": directory buckets).
            Err(f)
                if matches!(f.kind, Kind::Invalid | Kind::Unsupported)
                    && matches!(request.from, Position::After(_)) =>
            {
                Err(Error { kind: Kind::OutOfOrderListing, ..f })
            }
            page => page,
        }
    }

    /// One page in one version of the listing.
    pub(super) async fn list_in(&self, request: &ListRequest, dialect: u32) -> Result<Page> {
        let max = request.max.clamp(1, 1000);
        let (shown, delimiter) = (max.to_string(), request.delimiter.map(String::from).unwrap_or_default());
        let walks_folders = self.capability.list_order == Order::Segments;
        let mut from = String::new();
        let first = match &request.from {
            Position::Token(token) => match token.split_once(':') {
                Some(("1", marker)) => {
                    from = marker.to_owned();
                    true
                }
                _ => false,
            },
            Position::After(key) => {
                from = String::from_utf8_lossy(key.as_bytes()).into_owned();
                if walks_folders && !from.ends_with('/') {
                    // A folder walk that begins after `a` would skip what lies below it, `a/b`.
                    from.push('/');
                }
                dialect == DIALECT_V1
            }
            Position::Start => dialect == DIALECT_V1,
        };
        let mut query: Vec<(&str, &str)> = Vec::with_capacity(7);
        if let Position::Token(token) = &request.from
            && let Some(("2", token)) = token.split_once(':')
        {
            query.push(("continuation-token", token));
        }
        if !delimiter.is_empty() {
            query.push(("delimiter", &delimiter));
        }
        query.push(("encoding-type", "url"));
        if first {
            if !from.is_empty() {
                query.push(("marker", &from));
            }
            query.extend([("max-keys", &*shown), ("prefix", &request.prefix)]);
        } else {
            query.extend([("list-type", "2"), ("max-keys", &*shown), ("prefix", &request.prefix)]);
            if !from.is_empty() {
                query.push(("start-after", &from));
            }
        }
        let answer = self.send(ApiCall { query: &query, ..ApiCall::new("list", Method::GET, None) }).await?;
        let xml = body_of(answer).await.map_err(|f| Error { op: "list", ..f })?;
        let listing = list_parser::parse(&xml)?;
        if listing.counted || listing.token.is_some() {
            self.facts.dialect.store(DIALECT_V2, Relaxed);
        } else if first {
            self.facts.dialect.store(DIALECT_V1, Relaxed);
        }
        self.page_of(listing, max, walks_folders)
    }

    /// How the listing goes on: by the token of the second version, else by the marker of the first, which is the
    /// last name shown where the server tells none (AWS "ListObjects": NextMarker).
    pub(super) fn page_of(
        &self,
        listing: list_parser::Listing,
        max: u32,
        walks_folders: bool,
    ) -> Result<Page> {
        let list_parser::Listing { mut page, truncated, token, marker, counted } = listing;
        let last = || {
            let folder = page.folders.last().map(|f| Key::from(f.as_str()));
            page.entries.last().map(|e| e.key.clone()).max(folder)
        };
        // A server that does not say whether more follows: a token or a full page says it.
        let full = page.entries.len() + page.folders.len() >= max as usize;
        let truncated = truncated.unwrap_or(token.is_some() || marker.is_some() || full);
        // The marker of a page without folders is its last key; some servers do not encode it as they encode keys.
        let marker = marker.filter(|_| page.entries.is_empty() || !page.folders.is_empty());
        page.next = match (truncated, token) {
            (true, Some(token)) => Some(Position::Token(format!("2:{token}").into())),
            (true, None) => match marker.or_else(last) {
                // It counts as the second version does, and tells no token: only the key can lead on.
                Some(key) if counted => Some(Position::After(key)),
                Some(key) => {
                    self.facts.dialect.store(DIALECT_V1, Relaxed);
                    Some(Position::Token(format!("1:{}", key.to_text()).into()))
                }
                None => {
                    let m = "the listing says it is truncated but has no key and no continuation token";
                    return Err(Error::new(Kind::OutOfOrderListing, "list", m));
                }
            },
            // A full page of a folder walk is not trusted to be the last.
            (false, _) if walks_folders && page.entries.len() >= max as usize => last().map(Position::After),
            (false, _) => None,
        };
        Ok(page)
    }

    pub(super) async fn list_buckets(&self) -> Result<Vec<String>> {
        let account = S3Config { bucket: String::new(), ..self.config.clone() };
        let account = S3::new(account, self.clock.0.clone())?;
        let xml = body_of(account.send(ApiCall::new("buckets", Method::GET, None)).await?).await?;
        Ok(blocks(&xml, "Bucket", ["Name"])?.into_iter().map(|[name]| name).collect())
    }
}
