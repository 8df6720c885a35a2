//! Places as written on the command line (contract §1.1), and how they are opened.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use control::Catalogue;
use control::secrets::Keys;
use model::failure::{Failure, Kind, Result, Side};
use model::spec::Place as SpecPlace;
use pace::clock::SharedClock;
use runtime::{Opened, Places};
use seal::Secret;
use storage::SharedStore;
use storage::fs::Fs;
use storage::http::Client;
use storage::listed::{Listed, Sorted};
use storage::prefixed::Prefixed;
use storage::s3::{Addressing, S3, S3Config};
use store::TaskRow;

use crate::args::Ends;

/// One end, read but not opened.
#[derive(Clone, Debug)]
pub(crate) enum Place {
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

fn usage(message: String) -> Failure {
    Failure::new(Kind::Invalid, "place", message)
}

fn env(names: &[String]) -> Option<String> {
    names.iter().find_map(|n| std::env::var(n).ok()).filter(|v| !v.is_empty())
}

impl Place {
    /// Reads a place.
    ///
    /// # Errors
    /// [`Kind::Invalid`] saying which forms there are.
    pub(crate) fn parse(text: &str, ends: &Ends, side: Side) -> Result<Self> {
        let (endpoint, region) = match side {
            Side::Source => (&ends.source_endpoint, &ends.source_region),
            _ => (&ends.target_endpoint, &ends.target_region),
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(usage(format!("`{text}` names no bucket: write s3://BUCKET/PREFIX")));
            }
            let region = region.clone().or_else(|| env(&["AWS_REGION".into(), "AWS_DEFAULT_REGION".into()]));
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            let (endpoint, addressing) = match endpoint {
                Some(endpoint) => (endpoint.clone(), Addressing::Path),
                None => (format!("https://s3.{region}.amazonaws.com"), Addressing::Virtual),
            };
            return Ok(Place::S3 {
                endpoint,
                region,
                addressing,
                bucket: bucket.into(),
                prefix: prefix.into(),
            });
        }
        if let Some(path) = text.strip_prefix("fs://") {
            return Ok(Place::Directory(path.into()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let m = format!(
                "`{scheme}://` is not supported by this version; there are s3://, fs:// and STORE:BUCKET/PREFIX"
            );
            return Err(usage(m));
        }
        let is_path = text.starts_with(['/', '.', '~']) || !text.contains(':');
        if is_path {
            return Ok(Place::Directory(text.into()));
        }
        let (region, rest) = text.split_once(':').unwrap_or((text, ""));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Place::Store { region: region.into(), bucket: bucket.into(), prefix: prefix.into() })
    }

    /// Keys of this end begin with this.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Place::Directory(_) => "",
            Place::S3 { prefix, .. } | Place::Store { prefix, .. } => prefix,
        }
    }

    /// What identifies this end in the name of a ledger.
    pub(crate) fn identity(&self) -> String {
        match self {
            Place::Directory(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("fs {}", path.display())
            }
            Place::S3 { endpoint, bucket, prefix, .. } => format!("s3 {endpoint} {bucket} {prefix}"),
            Place::Store { region, bucket, prefix } => format!("store {region} {bucket} {prefix}"),
        }
    }
}

/// Credentials of one end: WHIMBREL_SOURCE_… or WHIMBREL_TARGET_…, else the standard AWS variables, else none.
pub(crate) fn keys(side: Side) -> Keys {
    let word = if side == Side::Source { "SOURCE" } else { "TARGET" };
    let of = |own: &str, aws: &str| env(&[format!("WHIMBREL_{word}_{own}"), aws.to_owned()]);
    Keys {
        ak: of("ACCESS_KEY", "AWS_ACCESS_KEY_ID").unwrap_or_default(),
        sk: Secret::new(of("SECRET_KEY", "AWS_SECRET_ACCESS_KEY").unwrap_or_default()),
        token: of("SESSION_TOKEN", "AWS_SESSION_TOKEN").map(Secret::new),
    }
}

/// As [`keys`]; half a pair is a mistake.
fn checked_keys(side: Side) -> Result<Keys> {
    let keys = keys(side);
    if keys.ak.is_empty() == keys.sk.expose().is_empty() {
        return Ok(keys);
    }
    let word = if side == Side::Source { "SOURCE" } else { "TARGET" };
    let missing = if keys.ak.is_empty() { "ACCESS_KEY" } else { "SECRET_KEY" };
    Err(usage(format!("WHIMBREL_{word}_{missing} is not set, but the other half of the pair is")))
}

/// Both ends of a command.
pub(crate) struct BothEnds {
    source: Place,
    target: Place,
    catalogue: Option<Arc<Catalogue>>,
    /// Only these keys of the source.
    only: OnceLock<Arc<Sorted>>,
    clock: SharedClock,
}

impl BothEnds {
    /// Reads both places; a configuration is needed only for `STORE:…`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a place or configuration that cannot be read.
    pub(crate) fn new(source: &str, target: &str, ends: &Ends, clock: SharedClock) -> Result<Self> {
        let source = Place::parse(source, ends, Side::Source)?;
        let target = Place::parse(target, ends, Side::Target)?;
        let needs = |p: &Place| matches!(p, Place::Store { .. });
        let mut catalogue = None;
        if needs(&source) || needs(&target) {
            let path = ends.config.clone().unwrap_or_else(|| "whimbrel.toml".into());
            let config = config::load(&path, &std::env::vars().collect())?;
            catalogue = Some(Arc::new(Catalogue::new(&config, clock.clone())));
        }
        Ok(Self { source, target, catalogue, only: OnceLock::new(), clock })
    }

    /// One end.
    pub(crate) fn place(&self, side: Side) -> &Place {
        if side == Side::Source { &self.source } else { &self.target }
    }

    /// Refuses a copy of a place into itself, which would feed on its own output.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when one end holds the other.
    pub(crate) fn check_apart(&self) -> Result<()> {
        let inside = |a: &str, b: &str| a == b || a.starts_with(&format!("{}/", b.trim_end_matches('/')));
        let within = |a: &str, b: &str| b.is_empty() || inside(a, b);
        let overlap = match (&self.source, &self.target) {
            (Place::Directory(a), Place::Directory(b)) => {
                let real = |p: &PathBuf| {
                    // The part of the path that exists is resolved, the rest is taken as written.
                    let path = std::path::absolute(p).unwrap_or_else(|_| p.clone());
                    path.ancestors()
                        .find_map(|a| Some(a.canonicalize().ok()?.join(path.strip_prefix(a).ok()?)))
                        .unwrap_or(path.clone())
                };
                let (a, b) = (real(a), real(b));
                a.starts_with(&b) || b.starts_with(&a)
            }
            (
                Place::S3 { endpoint: e, bucket: b, prefix: p, .. },
                Place::S3 { endpoint: f, bucket: c, prefix: q, .. },
            ) => e == f && b == c && (within(p, q) || within(q, p)),
            (
                Place::Store { region: e, bucket: b, prefix: p },
                Place::Store { region: f, bucket: c, prefix: q },
            ) => e == f && b == c && (within(p, q) || within(q, p)),
            _ => false,
        };
        if overlap {
            return Err(usage("source and target overlap: choose a target outside of the source".to_owned()));
        }
        Ok(())
    }

    /// Opens one end.
    ///
    /// # Errors
    /// What the probe meets.
    pub(crate) async fn open(&self, side: Side) -> Result<Opened> {
        self.open_end(side, side == Side::Target).await
    }

    /// Opens one end without making its directory, for commands that only look.
    ///
    /// # Errors
    /// What the probe meets.
    pub(crate) async fn look(&self, side: Side) -> Result<Opened> {
        self.open_end(side, false).await
    }

    async fn open_end(&self, side: Side, make: bool) -> Result<Opened> {
        let opened = self.open_place(side, make).await.map_err(|f| f.at(side))?;
        let store = Prefixed::wrap(opened.store, self.place(side).prefix());
        let store = match self.only.get().filter(|_| side == Side::Source) {
            Some(list) => Arc::new(Listed::new(store, list.clone())),
            None => store,
        };
        Ok(Opened { store, ..opened })
    }

    /// From now on the source shows only the keys of a list.
    pub(crate) fn only(&self, list: Arc<Sorted>) {
        let _ = self.only.set(list);
    }

    async fn open_place(&self, side: Side, make: bool) -> Result<Opened> {
        match self.place(side) {
            Place::Directory(path) => {
                let store: SharedStore = Arc::new(Fs::open(path, make)?);
                let probe = store.probe().await?;
                Ok(Opened { limit_key: store.place(), store, probe })
            }
            Place::S3 { endpoint, region, addressing, bucket, .. } => {
                let config = S3Config {
                    client: Client::new(endpoint, None)?,
                    bucket: bucket.clone(),
                    addressing: *addressing,
                    region: region.clone(),
                    credentials: checked_keys(side)?.credentials(),
                    order: None,
                    requester_pays: false,
                };
                let (s3, probe) = S3::open(config, self.clock.clone()).await?;
                Ok(Opened { store: Arc::new(s3), probe, limit_key: endpoint.clone() })
            }
            Place::Store { region, bucket, .. } => {
                let place =
                    SpecPlace { region: region.clone(), bucket: bucket.clone(), ..SpecPlace::default() };
                match &self.catalogue {
                    Some(catalogue) => catalogue.open(&place, &keys(side), side, false).await,
                    None => Err(usage(format!("`{region}:` needs a configuration with [[store]]s"))),
                }
            }
        }
    }
}

#[async_trait]
impl Places for BothEnds {
    async fn open(&self, _task: &TaskRow, _secrets: &str, side: Side) -> Result<Opened> {
        BothEnds::open(self, side).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn ends() -> Ends {
        let cli = crate::args::Cli::parse_from(["whimbrel", "copy", "a", "b"]);
        match cli.command {
            crate::args::Command::Copy(copy) => copy.ends,
            _ => unreachable!("parsed a copy"),
        }
    }

    #[test]
    fn places_as_the_contract_writes_them() {
        let parse = |text: &str| Place::parse(text, &ends(), Side::Source);
        assert!(matches!(parse("/a/b"), Ok(Place::Directory(_))));
        assert!(matches!(parse("fs:///a/b"), Ok(Place::Directory(p)) if p == *"/a/b"));
        assert!(
            matches!(parse("s3://b/p/q"), Ok(Place::S3 { bucket, prefix, .. }) if bucket == "b" && prefix == "p/q")
        );
        assert!(matches!(parse("minio-a:b/p"), Ok(Place::Store { region, .. }) if region == "minio-a"));
        assert!(parse("s3://").is_err() && parse("ftp://x/y").is_err());
    }
}
