//! Listings.

use http::Method;
use model::error::{Error, Kind, Result};
use model::key::Key;
use serde::Deserialize;

use super::client::Google;
use super::meta::Object;
use super::multipart::{AFTER_PARTS, PARTS_PREFIX};
use crate::{Entry, ListRequest, Page, Position};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Listing {
    pub(super) items: Vec<Object>,
    pub(super) prefixes: Vec<String>,
    pub(super) next_page_token: Option<String>,
}

impl Google {
    pub(super) async fn list_objects(&self, request: &ListRequest) -> Result<Page> {
        let max = request.max.clamp(1, 1000);
        // The offset is answered too, and must be sent again with a token.
        let (start, token) = match &request.from {
            Position::Start => (String::new(), ""),
            Position::After(key) => (String::from_utf8_lossy(key.as_bytes()).into_owned(), ""),
            Position::Token(text) => match text.split_once('\n') {
                Some((token, start)) => (start.to_owned(), token),
                None => (String::new(), &**text),
            },
        };
        let listing = self.list_page(&request.prefix, &start, token, max, request.delimiter).await?;
        let hidden = listing.items.iter().any(|o| o.name.starts_with(PARTS_PREFIX));
        let begins_after = matches!(request.from, Position::After(_)).then_some(&start);
        let shown = listing
            .items
            .iter()
            .filter(|o| !o.name.starts_with(PARTS_PREFIX) && begins_after != Some(&o.name));
        let mut page = Page::default();
        for object in shown {
            if object.size.parse::<u64>().is_err() {
                let m = format!("the listing has no size for `{}`", object.name);
                return Err(Error::new(Kind::Corrupt, "list", m));
            }
            let meta = object.meta();
            let modified_ms = meta.modified_ms.unwrap_or(0);
            page.entries.push(Entry {
                key: Key::from(object.name.as_str()),
                size: meta.size,
                modified_ms,
                written_ms: modified_ms,
                etag: meta.etag,
                class: meta.class.map(Into::into),
            });
        }
        page.folders = listing.prefixes.into_iter().filter(|f| f != ".whimbrel/").collect();
        page.next = listing.next_page_token.filter(|t| !t.is_empty()).map(|next| {
            // Nothing but parts of open uploads: go on behind all of them.
            if page.entries.is_empty() && page.folders.is_empty() && hidden {
                return Position::After(Key::from(AFTER_PARTS));
            }
            Position::Token(format!("{next}\n{start}").into())
        });
        Ok(page)
    }

    pub(super) async fn list_page(
        &self,
        prefix: &str,
        start: &str,
        token: &str,
        max: u32,
        delimiter: Option<char>,
    ) -> Result<Listing> {
        let mut call = self.call("list", Method::GET, self.objects(""), None);
        call.query.extend([("prefix", prefix.to_owned()), ("maxResults", max.to_string())]);
        if !token.is_empty() {
            call.query.push(("pageToken", token.to_owned()));
        }
        if !start.is_empty() {
            call.query.push(("startOffset", start.to_owned()));
        }
        if let Some(delimiter) = delimiter {
            call.query.push(("delimiter", delimiter.into()));
        }
        self.json(call).await
    }

    pub(super) async fn list_buckets(&self) -> Result<Vec<String>> {
        let project = self.config.account.as_ref().map(|a| a.project.clone()).unwrap_or_default();
        let mut call = self.call("buckets", Method::GET, "/storage/v1/b".into(), None);
        call.query.push(("project", project));
        let listing: Listing = self.json(call).await?;
        Ok(listing.items.into_iter().map(|b| b.name).collect())
    }
}
