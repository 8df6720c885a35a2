//! Writing and deleting objects.

use http::{Method, header};
use model::error::{Error, Kind, Reason, Result};
use model::key::Key;
use serde_json::{Value, json};

use super::client::Google;
use super::meta::{Object, resource};
use crate::Written;
use crate::body::Body;
use crate::meta::Meta;

impl Google {
    /// Makes the bucket; it is no error if it is there already.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn create_bucket(&self, project: &str) -> Result<()> {
        let body = json!({"name": self.config.bucket}).to_string();
        let mut call = self.call("create_bucket", Method::POST, "/storage/v1/b".into(), None);
        call.query.push(("project", project.to_owned()));
        call.headers.push((header::CONTENT_TYPE, "application/json".into()));
        call.body = Body::bytes(body);
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(f) if f.reason == Reason::AlreadyExists => Ok(()),
            Err(f) => Err(f),
        }
    }

    /// Writes bytes with their resource in one request.
    pub(super) async fn insert_object(
        &self,
        op: &'static str,
        name: &str,
        meta: &Meta,
        body: Body,
    ) -> Result<Object> {
        let key = Key::from(name);
        let mut resource = resource(meta);
        resource.insert("name".into(), name.into());
        let kind = resource.get("contentType").and_then(Value::as_str).unwrap_or("application/octet-stream");
        let boundary = format!("whimbrel{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n--{boundary}\r\n\
             Content-Type: {kind}\r\n\r\n",
            Value::Object(resource.clone())
        );
        let mut call = self.call(op, Method::POST, self.objects("/upload"), Some(&key));
        call.query.push(("uploadType", "multipart".into()));
        call.headers.push((header::CONTENT_TYPE, format!("multipart/related; boundary={boundary}")));
        let tail = format!("\r\n--{boundary}--\r\n");
        call.body = Body::chain([Body::bytes(head), body, Body::bytes(tail)]);
        self.json(call).await
    }

    pub(super) async fn put_object(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let Some(name) = key.as_str() else {
            let m = format!("`{key}` is not valid UTF-8, which this store requires");
            return Err(Error::new(Kind::InvalidKey, "write", m));
        };
        let object = self.insert_object("write", name, meta, body).await?;
        Ok(Written { etag: object.etag(), ..Written::default() })
    }

    pub(super) async fn delete_name(&self, name: &[u8]) -> Result<()> {
        let key = Key::new(name);
        match self.send(self.call("delete", Method::DELETE, self.object(name), Some(&key))).await {
            Ok(_) => Ok(()),
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }
}
