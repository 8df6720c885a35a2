//! Writing and deleting objects.

use http::Method;
use model::error::{Kind, Reason, Result};
use model::key::Key;

use super::client::{ApiCall, Azure, MAX_RESPONSE_BYTES};
use super::meta::md5_of;
use crate::Written;
use crate::body::Body;
use crate::etag::Etag;
use crate::http::{collect, header_text};
use crate::meta::Meta;

impl Azure {
    /// Makes the container; it is no error if it is there already.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn create_container(&self) -> Result<()> {
        let mut call = ApiCall::new("create_container", Method::PUT, None);
        call.query.push(("restype", "container".into()));
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(f) if f.reason == Reason::AlreadyExists => Ok(()),
            Err(f) => Err(f),
        }
    }

    pub(super) async fn put_blob(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let mut call = ApiCall { body, ..ApiCall::new("write", Method::PUT, Some(key)) };
        call.set("x-ms-blob-type", b"BlockBlob")?;
        self.set_object_headers(&mut call, meta)?;
        let answer = self.send(call).await?;
        let md5 = md5_of(header_text(answer.headers(), "content-md5"));
        let etag = Etag::tagged(header_text(answer.headers(), "etag").unwrap_or_default(), md5);
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(Written { etag, ..Written::default() })
    }

    pub(super) async fn delete_blob(&self, key: &Key) -> Result<()> {
        let call = ApiCall::new("delete", Method::DELETE, Some(key));
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }
}
