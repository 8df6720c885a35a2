//! Connection strings, as the portal gives them out (Azure "Configure connection strings").

use model::error::{Error, Kind, Result};

use super::sign::Access;

/// Where an account is, and who asks.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Scheme and host of the blob service.
    pub endpoint: String,
    /// In front of each path: empty, or `/account`.
    pub base: String,
    /// Account name.
    pub account: String,
    /// Who asks.
    pub access: Access,
}

fn bad(why: &str) -> Error {
    Error::new(Kind::Invalid, "connection_string", format!("the connection string {why}"))
}

impl Connection {
    /// Reads a connection string; its secrets are in no message.
    ///
    /// # Errors
    /// [`Kind::Invalid`] saying which part is missing or wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut fields = std::collections::HashMap::new();
        for pair in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| bad("must be NAME=VALUE;NAME=VALUE"))?;
            fields.insert(name.trim().to_ascii_lowercase(), value.trim());
        }
        let field = |name: &str| fields.get(name).copied().filter(|v| !v.is_empty());
        let access = match (field("accountkey"), field("sharedaccesssignature")) {
            (Some(key), _) => Access::key(key).ok_or_else(|| bad("has an AccountKey that is not base64"))?,
            (None, Some(token)) => Access::Sas(token.to_owned()),
            (None, None) => return Err(bad("has neither AccountKey nor SharedAccessSignature")),
        };
        let (endpoint, base) = match (field("blobendpoint"), field("accountname")) {
            (Some(endpoint), _) => split(endpoint)?,
            (None, Some(account)) => {
                check_account(account)?;
                let scheme = field("defaultendpointsprotocol").unwrap_or("https");
                let suffix = field("endpointsuffix").unwrap_or("core.windows.net");
                check_host(suffix)?;
                (format!("{scheme}://{account}.blob.{suffix}"), String::new())
            }
            (None, None) => return Err(bad("has neither BlobEndpoint nor AccountName")),
        };
        let host = endpoint.split("://").nth(1).unwrap_or_default();
        let named = field("accountname").unwrap_or_else(|| match base.strip_prefix('/') {
            Some(account) => account,
            None => host.split('.').next().unwrap_or_default(),
        });
        let account = named.to_owned();
        Ok(Self { endpoint, base, account, access })
    }

    /// An account by name and key, at its usual host.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the name cannot be part of a host, or the key is no base64.
    pub fn of_account(account: &str, key: &str) -> Result<Self> {
        check_account(account)?;
        let endpoint = format!("https://{account}.blob.core.windows.net");
        Self::new(&endpoint, account, key)
    }

    /// An account at an endpoint of its own, such as `http://127.0.0.1:10000/account`.
    ///
    /// # Errors
    /// As [`Connection::of_account`].
    pub fn new(endpoint: &str, account: &str, key: &str) -> Result<Self> {
        let (endpoint, base) = split(endpoint)?;
        if account.contains(['/', '?', '#', '@', '\\', '%']) {
            let m = format!("`{account}` is not a valid storage account name (letters, digits and `-`)");
            return Err(Error::new(Kind::Invalid, "account", m));
        }
        let access = match key {
            "" => Access::Anonymous,
            sas if sas.contains("sig=") => Access::Sas(sas.to_owned()),
            key => Access::key(key).ok_or_else(|| {
                Error::new(Kind::Invalid, "keys", "the account key is neither base64 nor a SAS token")
            })?,
        };
        Ok(Self { endpoint, base, account: account.to_owned(), access })
    }

    /// True for a host of Microsoft's own clouds.
    pub fn is_microsofts(&self) -> bool {
        let host = self.endpoint.split("://").nth(1).unwrap_or_default();
        let domains =
            ["core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net", "storage.azure.net"];
        self.endpoint.starts_with("https://") && domains.iter().any(|d| host.ends_with(&format!(".{d}")))
    }
}

fn check_account(account: &str) -> Result<()> {
    let fits = (3..=24).contains(&account.len())
        && account.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    fits.then_some(()).ok_or_else(|| {
        let m = format!(
            "`{account}` is not a valid storage account name (3 to 24 lower-case letters and digits)"
        );
        Error::new(Kind::Invalid, "account", m)
    })
}

/// A host and perhaps a port, with nothing in it that a URL understands otherwise.
fn check_host(host: &str) -> Result<()> {
    let fits = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    if fits && !host.is_empty() {
        return Ok(());
    }
    Err(bad("has a host with characters other than letters, digits, `.` and `-`"))
}

/// Scheme and host apart from the path in front.
fn split(endpoint: &str) -> Result<(String, String)> {
    let (scheme, rest) =
        endpoint.split_once("://").ok_or_else(|| bad("has a BlobEndpoint that is not a URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    if path.contains(['/', '?', '#']) {
        return Err(bad("has a BlobEndpoint whose path is more than an account name"));
    }
    check_host(host)?;
    let base = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok((format!("{scheme}://{host}"), base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_parsed() {
        let portal = "DefaultEndpointsProtocol=https;AccountName=lab1;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";
        let c = Connection::parse(portal).unwrap();
        assert_eq!((c.endpoint.as_str(), c.base.as_str()), ("https://lab1.blob.core.windows.net", ""));
        assert!(c.is_microsofts() && matches!(c.access, Access::Key(_)));
        let emulator = "AccountName=dev;AccountKey=c2VjcmV0;BlobEndpoint=http://127.0.0.1:10000/dev;";
        let c = Connection::parse(emulator).unwrap();
        assert_eq!((c.endpoint.as_str(), c.base.as_str()), ("http://127.0.0.1:10000", "/dev"));
        assert!(!c.is_microsofts());
        let sas = "BlobEndpoint=https://lab1.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=x%3D";
        let c = Connection::parse(sas).unwrap();
        assert_eq!((c.account.as_str(), format!("{:?}", c.access)), ("lab1", "Sas(sealed)".into()));
    }

    #[test]
    fn connection_string_errors_do_not_show_the_key() {
        for text in [
            "",
            "AccountName=lab1",
            "AccountName=../x;AccountKey=c2VjcmV0",
            "AccountKey=s3cr3t!;AccountName=lab1",
        ] {
            let f = Connection::parse(text).unwrap_err();
            assert!(f.kind == Kind::Invalid && !f.message.contains("s3cr3t"), "{f}");
        }
        let evil =
            "AccountName=a;AccountKey=c2VjcmV0;BlobEndpoint=https://evil.example/?.blob.core.windows.net";
        assert!(Connection::parse(evil).is_err());
    }

    #[test]
    fn sec_f09_endpoint_with_text_after_the_host_is_rejected() {
        for text in [
            "AccountKey=c2VjcmV0;BlobEndpoint=https://127.0.0.1:1#.core.windows.net",
            "AccountKey=c2VjcmV0;BlobEndpoint=https://127.0.0.1:1?.core.windows.net",
            "AccountKey=c2VjcmV0;BlobEndpoint=https://x@127.0.0.1/a",
            "AccountName=abc;AccountKey=c2VjcmV0;EndpointSuffix=h#.core.windows.net",
        ] {
            assert_eq!(Connection::parse(text).unwrap_err().kind, Kind::Invalid, "{text}");
        }
    }
}
