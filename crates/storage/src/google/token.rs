//! Access tokens of a service account: a signed assertion is exchanged for one (RFC 7523, Google "Using OAuth 2.0 for
//! Server to Server Applications").

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Request, header};
use model::error::{Error, Kind, Result};
use ring::{rand, rsa, signature};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::body::Body;
use crate::egress::Egress;
use crate::http::{Client, collect};
use crate::s3::sign::encode;

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// A token is exchanged again when it has this long to live, milliseconds.
const SPARE_MS: i64 = 300_000;
/// Longest response of the token endpoint.
const MAX_RESPONSE_BYTES: u64 = 64 << 10;
/// Where Google exchanges assertions.
pub const EXCHANGE: &str = "https://oauth2.googleapis.com/token";

/// A service account's key file.
pub struct ServiceAccount {
    email: String,
    key_id: String,
    /// Who pays where the requester does.
    pub project: String,
    /// Where assertions are exchanged.
    pub exchange: String,
    key: rsa::KeyPair,
    token: tokio::sync::Mutex<Option<(HeaderValue, i64)>>,
}

impl std::fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceAccount({})", self.email)
    }
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    project_id: String,
    #[serde(default)]
    token_uri: String,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    #[serde(default)]
    expires_in: i64,
}

fn bad(why: &str) -> Error {
    Error::new(Kind::Invalid, "json_auth_file", format!("the service account key file {why}"))
}

impl ServiceAccount {
    /// Reads a key file, as JSON or as base64 of it; its secrets are in no message.
    ///
    /// # Errors
    /// [`Kind::Invalid`] saying what is missing or wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let decoded = if text.starts_with('{') { None } else { STANDARD.decode(text).ok() };
        let json = decoded.as_deref().unwrap_or(text.as_bytes());
        let file: KeyFile = serde_json::from_slice(json)
            .map_err(|_| bad("must be JSON (or its base64) with type, client_email and private_key"))?;
        if file.kind != "service_account" {
            return Err(bad("is not of type service_account"));
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes())
            .map_err(|_| bad("has a private_key that is not PKCS#8 PEM"))?;
        let key = rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_| bad("has a private_key that is not an RSA key"))?;
        let exchange = if file.token_uri.is_empty() { EXCHANGE.to_owned() } else { file.token_uri };
        Ok(Self {
            email: file.client_email,
            key_id: file.private_key_id,
            project: file.project_id,
            exchange,
            key,
            token: tokio::sync::Mutex::default(),
        })
    }

    fn assertion(&self, now_ms: i64) -> Result<String> {
        let now = now_ms / 1000;
        let head = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = serde_json::json!({
            "iss": self.email, "scope": SCOPE, "aud": self.exchange, "iat": now, "exp": now + 3600
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(&head), part(&claims));
        let mut signed = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&signature::RSA_PKCS1_SHA256, &rand::SystemRandom::new(), text.as_bytes(), &mut signed)
            .map_err(|_| Error::new(Kind::Internal, "token", "cannot sign the token request"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }

    /// The header that proves who asks; one exchange an hour.
    ///
    /// # Errors
    /// [`Kind::BadCredentials`] when Google does not know the account or its key.
    pub(super) async fn bearer(&self, now_ms: i64, egress: &Egress) -> Result<HeaderValue> {
        let mut held = self.token.lock().await;
        if let Some((value, until)) = held.as_ref()
            && now_ms + SPARE_MS < *until
        {
            return Ok(value.clone());
        }
        let rest =
            self.exchange.find("://").and_then(|i| self.exchange[i + 3..].find('/').map(|j| i + 3 + j));
        let (endpoint, path) = self.exchange.split_at(rest.unwrap_or(self.exchange.len()));
        let client = Client::new(endpoint, egress.clone())?;
        let mut form =
            String::from("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=");
        encode(&mut form, self.assertion(now_ms)?.as_bytes(), false);
        let request = Request::builder()
            .method(Method::POST)
            .uri(if path.is_empty() { "/" } else { path })
            .header(header::HOST, client.authority())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::bytes(form))
            .map_err(|e| bad(&format!("has an invalid token_uri: {e}")))?;
        let answer = client.send(request).await?;
        let status = answer.status();
        let body = collect(answer, MAX_RESPONSE_BYTES).await?;
        if !status.is_success() {
            let kind = if status.is_server_error() { Kind::Unavailable } else { Kind::BadCredentials };
            let m = format!(
                "{}: cannot get an access token for `{}`: HTTP {}",
                client.authority(),
                self.email,
                status.as_u16()
            );
            return Err(Error::new(kind, "token", m));
        }
        let answer: TokenResponse = serde_json::from_slice(&body)
            .map_err(|_| Error::new(Kind::Corrupt, "token", "cannot parse the token response"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", answer.access_token)).map_err(|_| {
            Error::new(Kind::Corrupt, "token", "the access token is not a valid header value")
        })?;
        value.set_sensitive(true);
        *held = Some((value.clone(), now_ms + answer.expires_in.clamp(0, 86_400) * 1000));
        Ok(value)
    }
}
