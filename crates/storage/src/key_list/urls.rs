//! HTTP(S) servers as a source: each key of the list has its own URL.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use model::error::{Error, Kind, Result};
use model::key::{Key, Order};

use super::page::page;
use super::sorted::Sorted;
use crate::body::Body;
use crate::capability::Capability;
use crate::egress::Egress;
use crate::etag::Etag;
use crate::http::{Client, ResponseBody, kind_of_web_status, length};
use crate::meta::Meta;
use crate::{ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, StartAfter, disk_space};

/// Redirects followed for one URL (oms.md §4.4).
const REDIRECTS: usize = 5;
/// Hosts whose connections are kept.
const HOSTS: usize = 256;
/// Longest answer that does not say its length, bytes.
const SPOOLED_MAX: u64 = 64 << 30;

/// The URLs of a list as a store of their own.
#[derive(Clone)]
pub struct UrlListStore(Arc<Inner>);

struct Inner {
    list: Arc<Sorted>,
    clients: Mutex<HashMap<String, Client>>,
    egress: Egress,
    /// Where answers of unknown length are kept until their length is known.
    spool: PathBuf,
    /// How long such an answer may be, bytes.
    spooled_max: u64,
    capability: Capability,
}

impl std::fmt::Debug for UrlListStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Urls")
    }
}

impl UrlListStore {
    /// `list` names the URLs; `egress` is asked about every address before it is connected to, redirects included.
    pub fn new(list: Arc<Sorted>, egress: Egress, spool: PathBuf) -> Self {
        let capability = Capability {
            list_order: Order::Bytes,
            list_start_after: StartAfter::Exact,
            list_keys_only: true,
            etag_is_md5: false,
            head_part: false,
            tags: false,
            copy: false,
            ..Capability::S3
        };
        let (clients, spooled_max) = (Mutex::default(), SPOOLED_MAX);
        Self(Arc::new(Inner { list, clients, egress, spool, spooled_max, capability }))
    }

    fn url_of(&self, key: &Key) -> Result<String> {
        let line = self.0.list.find(key.as_bytes())?;
        line.map(|l| l.url)
            .ok_or_else(|| Error::new(Kind::NotFound, "read", format!("`{key}` is not in the list")))
    }

    fn client(&self, origin: &str) -> Result<Client> {
        let mut clients = self.0.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(origin) {
            return Ok(client.clone());
        }
        if clients.len() >= HOSTS {
            clients.clear();
        }
        let client = Client::new(origin, self.0.egress.clone())?;
        clients.insert(origin.to_owned(), client.clone());
        Ok(client)
    }

    /// One request, redirects followed; answers above 399 are failures.
    async fn request(
        &self,
        op: &'static str,
        method: Method,
        key: &Key,
        extra: &HeaderMap,
    ) -> Result<Response<ResponseBody>> {
        let mut url = self.url_of(key)?;
        for _ in 0..=REDIRECTS {
            let bad =
                |why: String| Error::new(Kind::Invalid, op, format!("`{key}` from {}: {why}", bare(&url)));
            let uri: Uri = url.parse().map_err(|e| bad(format!("is not a URL: {e}")))?;
            let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
                return Err(bad("is not an absolute URL".into()));
            };
            let origin = format!("{scheme}://{authority}");
            let client = self.client(&origin)?;
            let request = request_for(method.clone(), &uri, extra).map_err(|e| bad(e.to_string()))?;
            let answer = client.send(request).await.map_err(|f| Error { op, ..f })?;
            let status = answer.status();
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                url = location_of(&answer, &origin).map_err(bad)?;
                continue;
            }
            // Any other success has no object, or only a part of one (RFC 9110 section 15.3).
            let whole = status == StatusCode::OK;
            if whole || (status == StatusCode::PARTIAL_CONTENT && extra.contains_key(header::RANGE)) {
                return Ok(answer);
            }
            let m = format!("`{key}` from {}: HTTP {}", bare(&url), status.as_u16());
            return Err(Error::new(kind_of_web_status(status), op, m));
        }
        Err(Error::new(Kind::Invalid, op, format!("`{key}`: more than {REDIRECTS} redirects")))
    }

    /// Keeps an answer of unknown length on the disk, to learn its length.
    async fn spooled(&self, key: &Key, answer: Response<ResponseBody>) -> Result<Body> {
        let failed = |e: std::io::Error| {
            Error::new(Kind::NoSpace, "read", format!("`{key}`: spool file: {e}")).caused_by(e)
        };
        std::fs::create_dir_all(&self.0.spool).map_err(failed)?;
        let path = self.0.spool.join(format!("{:016x}.spool", fastrand::u64(..)));
        let mut file = tokio::fs::File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .await
            .map_err(failed)?;
        // Without a name it goes away by itself, however this ends.
        std::fs::remove_file(&path).map_err(failed)?;
        let mut body = answer.into_body();
        let (mut len, mut unseen) = (0, 0);
        while let Some(chunk) = body.next_chunk().await? {
            len += chunk.len() as u64;
            unseen += chunk.len() as u64;
            if len > self.0.spooled_max {
                let m = format!(
                    "`{key}`: the response has no Content-Length and more than {} bytes; hint: serve the object with \
                     a Content-Length",
                    self.0.spooled_max
                );
                return Err(Error::new(Kind::TooLarge, "read", m));
            }
            if unseen >= disk_space::CHECK_INTERVAL_BYTES {
                disk_space::check(&self.0.spool)?;
                unseen = 0;
            }
            tokio::io::AsyncWriteExt::write_all(&mut file, &chunk).await.map_err(failed)?;
        }
        tokio::io::AsyncSeekExt::rewind(&mut file).await.map_err(failed)?;
        let (tx, rx) = tokio::sync::mpsc::channel(2);
        let what = key.to_string();
        tokio::spawn(async move {
            loop {
                let mut chunk = vec![0; 256 << 10];
                let read = tokio::io::AsyncReadExt::read(&mut file, &mut chunk).await;
                let chunk = match read {
                    Ok(0) => return,
                    Ok(n) => {
                        chunk.truncate(n);
                        Ok(chunk.into())
                    }
                    Err(e) => {
                        Err(Error::new(Kind::Internal, "read", format!("`{what}`: spool file: {e}"))
                            .caused_by(e))
                    }
                };
                let end = chunk.is_err();
                if tx.send(chunk).await.is_err() || end {
                    return;
                }
            }
        });
        Ok(Body::channel(rx, len))
    }
}

/// A URL without its query, which may hold a signature.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn meta_of(headers: &HeaderMap) -> Meta {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let total = text(header::CONTENT_RANGE).and_then(|r| r.rsplit('/').next()?.parse().ok());
    let size = total.or(length(headers));
    let mut meta = Meta { size: size.unwrap_or(0), length_unknown: size.is_none(), ..Meta::default() };
    meta.headers = headers.iter().filter_map(|(n, v)| Some((n.clone(), Meta::carried(n, v)?))).collect();
    // It may look like a digest, but no server promises that it is one.
    meta.etag = text(header::ETAG).map_or(Etag::None, |e| Etag::Other(e.into()));
    meta.modified_ms = text(header::LAST_MODIFIED).and_then(crate::http::date);
    // Parts of an object that nothing identifies could be of two.
    let unidentified = meta.etag.is_none() && meta.modified_ms.is_none();
    meta.whole_only = unidentified || text(header::ACCEPT_RANGES).is_none_or(|r| r.trim() != "bytes");
    meta
}

#[async_trait]
impl ObjectStore for UrlListStore {
    fn capability(&self) -> &Capability {
        &self.0.capability
    }
    fn location(&self) -> String {
        "a list of URLs".into()
    }
    async fn probe(&self, _prefix: &str) -> Result<Probe> {
        Ok(Probe { server: "urls".into(), ..Probe::default() })
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        page(&self.0.list, request)
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        if part.is_some() {
            return Err(Error::new(Kind::Unsupported, "head", "URLs do not have parts"));
        }
        match self.request("head", Method::HEAD, key, &HeaderMap::new()).await {
            Ok(answer) => Ok(meta_of(answer.headers())),
            // Some servers know only GET: its first byte tells the same.
            Err(f) if matches!(f.kind, Kind::Unsupported | Kind::Forbidden) => {
                let mut range = HeaderMap::new();
                range.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
                let answer = self.request("head", Method::GET, key, &range).await?;
                let mut meta = meta_of(answer.headers());
                let unidentified = meta.etag.is_none() && meta.modified_ms.is_none();
                meta.whole_only = unidentified || answer.status() != StatusCode::PARTIAL_CONTENT;
                Ok(meta)
            }
            Err(f) => Err(f),
        }
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let mut headers = HeaderMap::new();
        if let Some(r) = &request.range {
            let text = format!("bytes={}-{}", r.start, r.end - 1);
            let value =
                HeaderValue::from_str(&text).map_err(|_| Error::new(Kind::Invalid, "read", "bad range"))?;
            headers.insert(header::RANGE, value);
        }
        let answer = self.request("read", Method::GET, key, &headers).await?;
        crate::http::check_range(&answer, request.range.as_ref(), key)?;
        let mut meta = meta_of(answer.headers());
        if request.if_match.as_ref().is_some_and(|e| !e.is_none() && !meta.etag.is_none() && *e != meta.etag)
        {
            return Err(Error::new(Kind::Changed, "read", format!("`{key}`: the ETag has changed")));
        }
        match length(answer.headers()) {
            Some(len) => Ok(Reading { meta, body: Body::wire(answer.into_body(), len) }),
            None => {
                let body = self.spooled(key, answer).await?;
                meta.size = body.len();
                Ok(Reading { meta, body })
            }
        }
    }

    async fn tags(&self, _: &Key) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        Err(Error::new(Kind::Unsupported, "buckets", "URLs do not have buckets"))
    }
}

/// One request to the host of an absolute URL.
fn request_for(
    method: Method,
    uri: &Uri,
    extra: &HeaderMap,
) -> std::result::Result<Request<Body>, http::Error> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::builder().method(method).uri(path).body(Body::bytes(""))?;
    let headers = request.headers_mut();
    *headers = extra.clone();
    let host = uri.authority().map_or("", |a| a.as_str());
    headers.insert(header::HOST, HeaderValue::from_str(host)?);
    // Bytes as they are: a compressed answer has another length.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(request)
}

/// Where a redirect leads, or why it leads nowhere.
fn location_of(answer: &Response<ResponseBody>, origin: &str) -> std::result::Result<String, String> {
    let to = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
    let to = to.ok_or_else(|| format!("HTTP {} without a Location", answer.status()))?;
    if to.starts_with("http://") || to.starts_with("https://") {
        Ok(to.to_owned())
    } else if to.starts_with('/') && !to.starts_with("//") {
        Ok(format!("{origin}{to}"))
    } else {
        Err("redirects to a URL that is not http or https".into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::key_list::{line, sorted};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sec_f19_response_without_length_is_limited() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        // Answers for as long as somebody listens.
        std::thread::spawn(move || {
            for mut client in server.incoming().map_while(std::result::Result::ok) {
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                while client.write_all(&[b'x'; 4096]).is_ok() {}
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let mut list = sorted::Sorter::new(&dir.path().join("list")).unwrap();
        list.push(line::Line { key: b"k".to_vec(), url: format!("http://{at}/k") }).unwrap();
        let list = Arc::new(list.finish().unwrap());
        let urls = UrlListStore::new(list, Egress::anywhere(), dir.path().join("spool"));
        let Ok(mut inner) = Arc::try_unwrap(urls.0) else { panic!("it was lent already") };
        inner.spooled_max = 1 << 20;
        let refused = UrlListStore(Arc::new(inner)).read(&Key::from("k"), &ReadRequest::default()).await;
        let refused = refused.unwrap_err();
        assert!(refused.kind == Kind::TooLarge && refused.message.contains("Content-Length"), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
    }
}
