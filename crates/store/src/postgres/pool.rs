//! A small pool of connections. A connection is given back only when its transaction is known to have ended; any other
//! way of letting it go closes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::error::{Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::failed;

/// How long a connection is waited for, and how long it may take to be made.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

type TlsStream = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream;

/// Where connections lead.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds a password.
        f.debug_struct("Target").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

impl Target {
    /// Reads a `postgres://` URL.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it cannot be read; never with the URL in it, which may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let mut config: Config = url.parse().map_err(|e: tokio_postgres::Error| {
            let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Error::new(Kind::Invalid, "store", format!("database: the postgres:// URL cannot be read: {why}"))
        })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("whimbrel");
        }
        config.keepalives_idle(Duration::from_secs(5)).keepalives_interval(Duration::from_secs(2));
        config.keepalives_retries(3).tcp_user_timeout(TIMEOUT);
        Ok(Self { config, tls: MakeRustlsConnect::new(tls()?) })
    }

    /// Connects; the connection must be driven.
    pub(super) async fn connect(&self) -> Result<(Client, Connection<Socket, TlsStream>)> {
        let connected = tokio::time::timeout(TIMEOUT, self.config.connect(self.tls.clone())).await;
        let late = || Error::new(Kind::Timeout, "store", "no connection to the database within 10 s");
        connected.map_err(|_| late())?.map_err(|e| failed(&e))
    }
}

fn tls() -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in rustls_native_certs::load_native_certs().certs {
        // One that cannot be read does not make the others useless.
        let _ = roots.add(cert);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Internal, "store", e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[derive(Debug)]
pub(super) struct Pool {
    target: Target,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Client>>>,
}

impl Pool {
    pub(super) fn new(target: Target, connections: usize) -> Self {
        Self { target, permits: Arc::new(Semaphore::new(connections)), idle: Arc::default() }
    }

    /// A connection that no other transaction has.
    pub(super) async fn get(&self) -> Result<Pooled> {
        let busy = || Error::new(Kind::Unavailable, "store", "all connections to the database are in use");
        let permit = tokio::time::timeout(TIMEOUT, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        let idle = loop {
            match lock(&self.idle).pop() {
                Some(client) if client.is_closed() => {}
                other => break other,
            }
        };
        let client = match idle {
            Some(client) => client,
            None => {
                let (client, connection) = self.target.connect().await?;
                tokio::spawn(async move {
                    if let Err(e) = connection.await {
                        tracing::debug!("a connection to the database has ended: {e}");
                    }
                });
                client
            }
        };
        Ok(Pooled { client, idle: self.idle.clone(), _permit: permit })
    }
}

fn lock(idle: &Mutex<Vec<Client>>) -> MutexGuard<'_, Vec<Client>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection in use; dropped, it is closed.
pub(super) struct Pooled {
    client: Client,
    idle: Arc<Mutex<Vec<Client>>>,
    _permit: OwnedSemaphorePermit,
}

impl Pooled {
    /// Its transaction has ended: it may serve another.
    pub(super) fn give_back(self) {
        if !self.client.is_closed() {
            lock(&self.idle).push(self.client);
        }
    }
}

impl std::ops::Deref for Pooled {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
