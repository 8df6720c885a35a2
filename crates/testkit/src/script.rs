//! What a test answers in place of the scripted S3 server, one request at a time.

use http::HeaderMap;

/// One request, after its body was taken in and before the server answers it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'r> {
    /// `GET`, `PUT`, ...
    pub method: &'r str,
    /// Bucket.
    pub bucket: &'r str,
    /// Key, decoded; empty for the bucket.
    pub key: &'r str,
    /// Raw query.
    pub query: &'r str,
    /// Headers.
    pub headers: &'r HeaderMap,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The server answers it.
    Serve,
    /// The server answers it without `Content-Length`.
    Unsized,
    /// The server answers it as a bucket that is encrypted with a key service does: the ETag is 32 hex digits and not
    /// an MD5, and a header says so (AWS "Object": ETag).
    Encrypted,
    /// The key is removed first, then the server answers.
    Vanish,
    /// The bucket is removed first, then the server answers.
    DropBucket,
    /// A status and an error code of S3.
    Refuse(u16, &'static str),
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
}

type Decide = dyn Fn(&Call<'_>) -> Step + Send + Sync;

/// Decides about each request.
pub struct Script(Box<Decide>);

impl Script {
    /// A script.
    pub fn new(decide: impl Fn(&Call<'_>) -> Step + Send + Sync + 'static) -> Self {
        Self(Box::new(decide))
    }

    pub(crate) fn decide(&self, call: &Call<'_>) -> Step {
        (self.0)(call)
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}
