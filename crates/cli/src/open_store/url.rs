//! Store URLs of the command line.

use std::path::PathBuf;

use model::error::{Result, Side};
use storage::s3::Addressing;

use super::{azure_account, env, usage};
use crate::args::Ends;

/// One end, read but not opened.
#[derive(Clone, Debug)]
pub(crate) enum CliUrl {
    /// A directory.
    Directory(PathBuf),
    /// A bucket by endpoint.
    S3 {
        /// The endpoint.
        endpoint: String,
        /// Region to sign for.
        region: String,
        /// How the bucket is named.
        addressing: Addressing,
        /// The bucket.
        bucket: String,
        /// Keys begin with this.
        prefix: String,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The endpoint, when it is not the account's usual one.
        endpoint: Option<String>,
        /// The container.
        bucket: String,
        /// Keys begin with this.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage.
    Google {
        /// The endpoint.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// Keys begin with this.
        prefix: String,
    },
    /// A list of URLs with the keys they are to have, read from the web or from a file.
    Urls(String),
    /// A bucket of a store of the configuration.
    Store {
        /// Its region name.
        region: String,
        /// The bucket.
        bucket: String,
        /// Keys begin with this.
        prefix: String,
    },
}

impl CliUrl {
    /// Reads a place.
    ///
    /// # Errors
    /// [`model::error::Kind::Invalid`] saying which forms there are.
    pub(crate) fn parse(text: &str, ends: &Ends, side: Side) -> Result<Self> {
        let (endpoint, region) = match side {
            Side::Source => (&ends.source_endpoint, &ends.source_region),
            _ => (&ends.target_endpoint, &ends.target_region),
        };
        let in_bucket = |scheme: &str| -> Result<Option<(String, String)>> {
            let Some(rest) = text.strip_prefix(scheme) else { return Ok(None) };
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(usage(format!("`{text}` has no bucket; hint: use {scheme}BUCKET/PREFIX")));
            }
            Ok(Some((bucket.to_owned(), prefix.to_owned())))
        };
        if let Some((bucket, prefix)) = in_bucket("az://")? {
            return Ok(CliUrl::Azure { endpoint: endpoint.clone(), bucket, prefix });
        }
        if let Some((bucket, prefix)) = in_bucket("gs://")? {
            let endpoint = endpoint.clone().unwrap_or_else(|| storage::google::ENDPOINT.to_owned());
            return Ok(CliUrl::Google { endpoint, bucket, prefix });
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            if side != Side::Source {
                return Err(usage(format!("`{text}` is a list of URLs, which can only be a source")));
            }
            return Ok(CliUrl::Urls(text.to_owned()));
        }
        if let Some((bucket, prefix)) = in_bucket("s3://")? {
            let region = region.clone().or_else(|| env(&["AWS_REGION".into(), "AWS_DEFAULT_REGION".into()]));
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            let (endpoint, addressing) = match endpoint {
                Some(endpoint) => (endpoint.clone(), Addressing::Path),
                None => (format!("https://s3.{region}.amazonaws.com"), Addressing::Virtual),
            };
            return Ok(CliUrl::S3 { endpoint, region, addressing, bucket, prefix });
        }
        if let Some(path) = text.strip_prefix("fs://") {
            return Ok(CliUrl::Directory(path.into()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let m = format!(
                "`{scheme}://` is not supported; hint: use s3://, az://, gs://, fs://, https:// (a list of URLs) or \
                 STORE:BUCKET/PREFIX"
            );
            return Err(usage(m));
        }
        let is_path = text.starts_with(['/', '.', '~']) || !text.contains(':');
        if is_path {
            return Ok(CliUrl::Directory(text.into()));
        }
        let (region, rest) = text.split_once(':').unwrap_or((text, ""));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(CliUrl::Store { region: region.into(), bucket: bucket.into(), prefix: prefix.into() })
    }

    /// The name of the file that a directory's path leads to.
    pub(super) fn file(&self) -> Option<&str> {
        match self {
            CliUrl::Directory(path) if path.is_file() => path.file_name()?.to_str(),
            _ => None,
        }
    }

    /// Keys of this end begin with this.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            CliUrl::Directory(_) | CliUrl::Urls(_) => "",
            CliUrl::S3 { prefix, .. }
            | CliUrl::Azure { prefix, .. }
            | CliUrl::Google { prefix, .. }
            | CliUrl::Store { prefix, .. } => prefix,
        }
    }

    /// What identifies this end in the name of a ledger.
    pub(crate) fn identity(&self) -> String {
        match self {
            CliUrl::Directory(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("fs {}", path.display())
            }
            CliUrl::S3 { endpoint, bucket, prefix, .. } => format!("s3 {endpoint} {bucket} {prefix}"),
            CliUrl::Azure { endpoint, bucket, prefix } => {
                let account = azure_account(endpoint.as_deref()).unwrap_or_default();
                format!("az {account} {bucket} {prefix}")
            }
            CliUrl::Google { endpoint, bucket, prefix } => format!("gs {endpoint} {bucket} {prefix}"),
            CliUrl::Urls(url) => format!("urls {url}"),
            CliUrl::Store { region, bucket, prefix } => format!("store {region} {bucket} {prefix}"),
        }
    }
}
