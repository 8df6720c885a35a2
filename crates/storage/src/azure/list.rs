//! Listings.

use http::Method;
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::client::{ApiCall, Azure, MAX_RESPONSE_BYTES};
use super::config::AzureConfig;
use super::meta::{class, md5_of};
use crate::etag::Etag;
use crate::http::{collect, date};
use crate::xml::{self, blocks};
use crate::{Entry, ListRequest, Page, Position};

/// Names that XML cannot hold are percent-encoded and marked so.
pub(super) fn encoded_names(xml: &[u8]) -> Vec<Vec<u8>> {
    const MARK: &[u8] = b"<Name Encoded=\"true\">";
    let mut names = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.windows(MARK.len()).position(|w| w == MARK) {
        rest = &rest[at + MARK.len()..];
        let end = rest.iter().position(|&b| b == b'<').unwrap_or(rest.len());
        names.push(rest[..end].to_vec());
    }
    names
}

fn list_call(request: &ListRequest) -> ApiCall<'static> {
    let max = request.max.clamp(1, 1000);
    let mut call = ApiCall::new("list", Method::GET, None);
    call.query.extend([("restype", "container".into()), ("comp", "list".into())]);
    call.query.push(("maxresults", max.to_string()));
    call.query.push(("prefix", request.prefix.clone()));
    if let Some(delimiter) = request.delimiter {
        call.query.push(("delimiter", delimiter.into()));
    }
    match &request.from {
        Position::Start => {}
        Position::After(key) => {
            call.query.push(("startFrom", String::from_utf8_lossy(key.as_bytes()).into_owned()));
        }
        Position::Token(marker) => call.query.push(("marker", marker.to_string())),
    }
    call
}

/// The page of a response, without the key that it begins after.
fn page_of(xml: &[u8], begins_after: Option<&Key>) -> Result<Page> {
    let encoded = encoded_names(xml);
    let fields = [
        "Name",
        "Last-Modified",
        "Etag",
        "Content-Length",
        "Content-MD5",
        "AccessTier",
        "BlobType",
        "ResourceType",
    ];
    let mut page = Page::default();
    for [name, modified, etag, size, md5, tier, kind, resource] in blocks(xml, "Blob", fields)? {
        let key = match encoded.iter().any(|e| e == name.as_bytes()) {
            true => Key::new(crate::s3::list_parser::percent_decode(name.as_bytes(), false)),
            false => Key::from(name),
        };
        // An account with folders lists them in addition to their content.
        if begins_after == Some(&key) || resource == "directory" {
            continue;
        }
        let modified_ms = date(&modified).unwrap_or(0);
        let size = size.parse().map_err(|_| {
            Error::new(Kind::Corrupt, "list", format!("the listing has no size for `{key}` ({kind})"))
        })?;
        page.entries.push(Entry {
            key,
            size,
            modified_ms,
            written_ms: modified_ms,
            // Of page and append blobs it is what a client said once.
            etag: Etag::tagged(&etag, md5_of(Some(&md5)).filter(|_| kind.is_empty() || kind == "BlockBlob")),
            class: class(&tier).map(Into::into),
        });
    }
    page.folders = blocks(xml, "BlobPrefix", ["Name"])?.into_iter().map(|[name]| name).collect();
    let [next] = xml::texts(xml, ["NextMarker"])?;
    page.next = next.filter(|n| !n.is_empty()).map(|n| Position::Token(n.into()));
    Ok(page)
}

impl Azure {
    pub(super) async fn list_blobs(&self, request: &ListRequest) -> Result<Page> {
        let xml = collect(self.send(list_call(request)).await?, MAX_RESPONSE_BYTES).await?;
        // The answer begins with the key that `startFrom` names (Azure "List Blobs").
        let begins_after = match &request.from {
            Position::After(key) => Some(key),
            Position::Start | Position::Token(_) => None,
        };
        page_of(&xml, begins_after)
    }

    pub(super) async fn list_containers(&self) -> Result<Vec<String>> {
        let account = AzureConfig { container: String::new(), ..self.config.clone() };
        let account = Azure { config: account, clock: self.clock.clone(), ..*self };
        let mut call = ApiCall::new("buckets", Method::GET, None);
        call.query.push(("comp", "list".into()));
        let xml = collect(account.send(call).await?, MAX_RESPONSE_BYTES).await?;
        Ok(blocks(&xml, "Container", ["Name"])?.into_iter().map(|[name]| name).collect())
    }
}
