//! A source whose objects are downloaded through a CDN or custom domain, while everything else is asked of the
//! bucket itself (oms.md §4.12). The URL formats are the vendors' public ones.

use async_trait::async_trait;
use base64::Engine as _;
use flow_control::clock::SharedClock;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use md5::{Digest, Md5};
use model::error::{Error, Kind, Result};
use model::key::Key;
use ring::hmac;

use crate::body::Body;
use crate::capability::Capability;
use crate::checksum::hex;
use crate::etag::Etag;
use crate::http::{Client, kind_of_web_status, length};
use crate::meta::Meta;
use crate::s3::sign::encode;
use crate::{ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore};

/// A signed URL is good for so long, seconds; where the CDN decides itself, from the time in the URL on.
const VALID_S: i64 = 1800;
/// The vendors with a time in the path count it at UTC+8.
const CHINA_S: i64 = 8 * 3600;

/// How a CDN wants its URLs signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// Qiniu: a token of the whole URL, by the source's keys.
    QiniuPrivate,
    /// Aliyun A: `auth_key` in the query.
    AliyunA,
    /// Aliyun B: time and digest in front of the path.
    AliyunB,
    /// Aliyun C: digest and time in front of the path.
    AliyunC,
    /// Kingsoft: a signature of bucket and key, by the source's keys.
    KsyunPrivate,
    /// Azure: a ready token in the query.
    AzureSas,
    /// Tencent A: `sign` in the query.
    TencentA,
    /// Tencent B: as Aliyun B.
    TencentB,
    /// Tencent C: as Aliyun C.
    TencentC,
    /// Tencent D: `sign` and `t` in the query.
    TencentD,
}

impl Auth {
    /// Names as OMS spells them.
    pub const NAMES: [(&'static str, Auth); 11] = [
        ("NONE", Auth::None),
        ("QINIU_PRIVATE_AUTHENTICATION", Auth::QiniuPrivate),
        ("ALIYUN_OSS_A", Auth::AliyunA),
        ("ALIYUN_OSS_B", Auth::AliyunB),
        ("ALIYUN_OSS_C", Auth::AliyunC),
        ("KSYUN_PRIVATE_AUTHENTICATION", Auth::KsyunPrivate),
        ("AZURE_SAS_TOKEN", Auth::AzureSas),
        ("TENCENT_COS_A", Auth::TencentA),
        ("TENCENT_COS_B", Auth::TencentB),
        ("TENCENT_COS_C", Auth::TencentC),
        ("TENCENT_COS_D", Auth::TencentD),
    ];

    /// From its name.
    pub fn named(name: &str) -> Option<Auth> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    /// True when the CDN's own key is needed.
    pub fn needs_key(self) -> bool {
        !matches!(self, Auth::None | Auth::QiniuPrivate | Auth::KsyunPrivate)
    }
}

/// Signs URLs.
#[derive(Clone)]
pub struct Signer {
    /// How.
    pub auth: Auth,
    /// The CDN's key, or the token of Azure.
    pub key: String,
    /// Access key of the source.
    pub access_key: String,
    /// Secret key of the source.
    pub secret_key: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?})", self.auth)
    }
}

fn md5(text: &str) -> String {
    hex(&Md5::digest(text.as_bytes()))
}

fn sha1(key: &str, text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

impl Signer {
    /// Path and query for `key` of `bucket` at `origin` (`https://host`), `now` in seconds; `random` is a nonce.
    pub fn target(&self, origin: &str, bucket: &str, key: &Key, now: i64, random: u64) -> String {
        let mut uri = String::from("/");
        encode(&mut uri, key.as_bytes(), true);
        let query = |text: String| format!("{uri}?{text}");
        match self.auth {
            Auth::None => uri,
            Auth::QiniuPrivate => {
                let timed = query(format!("e={}", now + VALID_S));
                let signed = sha1(&self.secret_key, &format!("{origin}{timed}"));
                let signed = base64::engine::general_purpose::URL_SAFE.encode(signed);
                format!("{timed}&token={}:{signed}", self.access_key)
            }
            Auth::AliyunA | Auth::TencentA => {
                let nonce = format!("{random:x}");
                let digest = md5(&format!("{uri}-{now}-{nonce}-0-{}", self.key));
                let name = if self.auth == Auth::AliyunA { "auth_key" } else { "sign" };
                query(format!("{name}={now}-{nonce}-0-{digest}"))
            }
            Auth::AliyunB | Auth::TencentB => {
                let minute = minute(now + CHINA_S);
                let digest = md5(&format!("{}{minute}{uri}", self.key));
                format!("/{minute}/{digest}{uri}")
            }
            Auth::AliyunC | Auth::TencentC => {
                let digest = md5(&format!("{}{uri}{now:x}", self.key));
                format!("/{digest}/{now:x}{uri}")
            }
            Auth::TencentD => {
                let digest = md5(&format!("{}{uri}{now}", self.key));
                query(format!("sign={digest}&t={now}"))
            }
            Auth::KsyunPrivate => {
                let expires = now + VALID_S;
                let text = format!("GET\n\n\n{expires}\n/{bucket}/{}", key.to_text());
                let signed = base64::engine::general_purpose::STANDARD.encode(sha1(&self.secret_key, &text));
                let mut signature = String::new();
                encode(&mut signature, signed.as_bytes(), false);
                query(format!("KSSAccessKeyId={}&Expires={expires}&Signature={signature}", self.access_key))
            }
            Auth::AzureSas => query(self.key.trim_start_matches('?').to_owned()),
        }
    }
}

/// `yyyyMMddHHmm`
fn minute(seconds: i64) -> String {
    let t = model::instant::utc(seconds.saturating_mul(1000));
    format!("{:04}{:02}{:02}{:02}{:02}", t.year(), u8::from(t.month()), t.day(), t.hour(), t.minute())
}

/// A bucket behind a CDN.
pub struct CdnStore {
    inner: SharedStore,
    client: Client,
    signer: Signer,
    clock: SharedClock,
    capability: Capability,
}

impl std::fmt::Debug for CdnStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CdnStore({:?} by {:?})", self.inner, self.client)
    }
}

impl CdnStore {
    /// `inner`, whose objects are read through `client`.
    pub fn new(inner: SharedStore, client: Client, signer: Signer, clock: SharedClock) -> Self {
        // Bytes come from the domain, so they cannot be copied on the server's side.
        let capability = Capability { copy: false, ..*inner.capability() };
        Self { inner, client, signer, clock, capability }
    }

    /// Asks the domain for its root, signed like every request: whatever it answers, it is there.
    ///
    /// # Errors
    /// [`Kind::Connect`] when nothing answers, [`Kind::Forbidden`] when its address is not allowed.
    pub async fn reach(&self) -> Result<()> {
        self.signed("cdn", Method::HEAD, &Key::from(""), HeaderMap::new()).await.map(drop)
    }

    /// The head of what the domain answers for one key.
    ///
    /// # Errors
    /// As [`ObjectStore::head`].
    pub async fn request(&self, key: &Key) -> Result<Meta> {
        let answer = self.send("head", Method::HEAD, key, HeaderMap::new()).await?;
        let text = |name: header::HeaderName| answer.headers().get(name).and_then(|v| v.to_str().ok());
        let mut meta = Meta { size: length(answer.headers()).unwrap_or(0), ..Meta::default() };
        meta.etag = text(header::ETAG).map_or(Etag::None, Etag::parse);
        meta.headers = answer.headers().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        Ok(meta)
    }

    /// The one way to the domain: each request has a signature of its own.
    async fn signed(
        &self,
        op: &'static str,
        method: Method,
        key: &Key,
        mut headers: HeaderMap,
    ) -> Result<http::Response<crate::http::ResponseBody>> {
        let scheme = if self.client.is_https() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", self.client.authority());
        let now = self.clock.now_ms().div_euclid(1000);
        let target = self.signer.target(&origin, self.inner.bucket(), key, now, fastrand::u64(..));
        let bad = |e: &dyn std::fmt::Display| Error::new(Kind::InvalidKey, op, format!("`{key}`: {e}"));
        let host = HeaderValue::from_str(self.client.authority()).map_err(|e| bad(&e))?;
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut request =
            Request::builder().method(method).uri(target).body(Body::bytes("")).map_err(|e| bad(&e))?;
        *request.headers_mut() = headers;
        self.client.send(request).await.map_err(|f| Error { op, ..f })
    }

    async fn send(
        &self,
        op: &'static str,
        method: Method,
        key: &Key,
        headers: HeaderMap,
    ) -> Result<http::Response<crate::http::ResponseBody>> {
        let answer = self.signed(op, method, key, headers).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        // Redirects are not followed (oms.md §4.12).
        let kind = kind_of_web_status(status);
        let m = format!("`{key}` through {}: HTTP {}", self.client.authority(), status.as_u16());
        Err(Error::new(kind, op, m))
    }
}

#[async_trait]
impl ObjectStore for CdnStore {
    fn capability(&self) -> &Capability {
        &self.capability
    }
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    fn location(&self) -> String {
        format!("{} through {}", self.inner.location(), self.client.authority())
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(prefix).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.inner.list(request).await
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.inner.head(key, part).await
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        // What the object is says the bucket; a CDN may serve what it was.
        let meta = self.inner.head(key, None).await?;
        if request.if_match.as_ref().is_some_and(|e| !e.is_none() && *e != meta.etag) {
            return Err(Error::new(
                Kind::Changed,
                "read",
                format!("`{key}` has changed since it was listed"),
            ));
        }
        let mut headers = HeaderMap::new();
        let wanted = match &request.range {
            Some(r) => {
                let text = HeaderValue::from_str(&format!("bytes={}-{}", r.start, r.end - 1));
                headers
                    .insert(header::RANGE, text.map_err(|_| Error::new(Kind::Invalid, "read", "bad range"))?);
                r.end - r.start
            }
            None => meta.size,
        };
        let answer = self.send("read", Method::GET, key, headers).await?;
        crate::http::check_range(&answer, request.range.as_ref(), key)?;
        let etag = answer.headers().get(header::ETAG).and_then(|v| v.to_str().ok()).map(Etag::parse);
        if etag.is_some_and(|e| e.proves(&meta.etag) == Some(false)) {
            return Err(Error::new(
                Kind::Changed,
                "read",
                format!("`{key}`: the CDN serves a different version"),
            ));
        }
        match length(answer.headers()) {
            Some(len) if len == wanted => Ok(Reading { meta, body: Body::wire(answer.into_body(), len) }),
            other => {
                let m = format!(
                    "`{key}`: the CDN returned {other:?} bytes, but the object has {wanted}; hint: disable \
                     compression at the CDN"
                );
                Err(Error::new(Kind::Corrupt, "read", m))
            }
        }
    }

    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.inner.restore(key, days).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.inner.tags(key).await
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(auth: Auth) -> String {
        let signer = Signer { auth, key: "secret".into(), access_key: "AK".into(), secret_key: "SK".into() };
        signer.target("https://cdn.example.com", "b", &Key::from("d/a b"), 1_700_000_000, 0x1f)
    }

    /// Digests computed with `md5sum` and `openssl dgst -sha1 -hmac` from the formulas of oms.md §4.12.
    #[test]
    fn cdn_urls_are_signed_as_documented() {
        assert_eq!(target(Auth::None), "/d/a%20b");
        for (auth, name) in [(Auth::AliyunA, "auth_key"), (Auth::TencentA, "sign")] {
            let digest = md5("/d/a%20b-1700000000-1f-0-secret");
            assert_eq!(target(auth), format!("/d/a%20b?{name}=1700000000-1f-0-{digest}"));
        }
        // 2023-11-14T22:13:20Z is the next morning at UTC+8.
        let digest = md5("secret202311150613/d/a%20b");
        assert_eq!(target(Auth::AliyunB), format!("/202311150613/{digest}/d/a%20b"));
        let digest = md5("secret/d/a%20b6553f100");
        assert_eq!(target(Auth::TencentC), format!("/{digest}/6553f100/d/a%20b"));
        let digest = md5("secret/d/a%20b1700000000");
        assert_eq!(target(Auth::TencentD), format!("/d/a%20b?sign={digest}&t=1700000000"));
        assert_eq!(md5("secret/d/a%20b1700000000").len(), 32);
        assert!(target(Auth::QiniuPrivate).starts_with("/d/a%20b?e=1700001800&token=AK:"));
        assert!(
            target(Auth::KsyunPrivate)
                .starts_with("/d/a%20b?KSSAccessKeyId=AK&Expires=1700001800&Signature=")
        );
        assert_eq!(target(Auth::AzureSas), "/d/a%20b?secret");
    }
}
