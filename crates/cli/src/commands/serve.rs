//! `whimbrel serve`: API, scheduler and workers in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use config::Config;
use control::{Catalogue, Control, Directory};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::failure::{Failure, Kind, Result};
use pace::backoff::Backoff;
use runtime::Engine;
use runtime::engine::Setup;
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::args::Serve;
use crate::commands::init;
use crate::exit::Exit;
use crate::printer::Printer;

/// Connections at once; others wait in the kernel's queue.
const CONNECTIONS: usize = 1024;

fn started(what: &str, e: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Connect, "serve", format!("{what}: {e}"))
}

/// The configuration with flags over it; written first when there is none.
fn configure(args: &Serve, printer: &Printer) -> Result<(Config, PathBuf)> {
    let path = args.config.clone().unwrap_or_else(|| PathBuf::from("whimbrel.toml"));
    let data_dir = args.data_dir.clone().unwrap_or_else(|| PathBuf::from("./whimbrel-data"));
    if args.config.is_none() && !path.exists() {
        let listen = args.listen.as_deref().unwrap_or("127.0.0.1:8790");
        let made = init::write(&path, &data_dir, listen, false)?;
        init::show(&path, &made, printer);
    }
    let mut env: BTreeMap<String, String> = std::env::vars().collect();
    if let Some(listen) = &args.listen {
        env.insert("WHIMBREL_LISTEN".into(), listen.clone());
    }
    if let Some(dir) = &args.data_dir {
        env.insert("WHIMBREL_DATA_DIR".into(), dir.display().to_string());
    }
    if let Some(database) = &args.database {
        env.insert("WHIMBREL_DATABASE".into(), database.clone());
    }
    Ok((config::load(&path, &env)?, path))
}

pub(crate) async fn run(args: &Serve, printer: &Printer) -> Result<Exit> {
    let (config, path) = configure(args, printer)?;
    if config.database != "sqlite" {
        let m = "database: only `sqlite` is supported by this version";
        return Err(Failure::new(Kind::Invalid, "configuration", m));
    }
    let data_dir = PathBuf::from(&config.data_dir);
    let clock = pace::clock::system();
    let store = Store::embedded(&data_dir).await?;
    // Whoever held a lease of an embedded store lived in a process that is gone.
    let mut unit = store.write().await?;
    let ended = unit.end_all_leases().await?;
    unit.save().await?;
    if ended > 0 {
        tracing::info!("{ended} tasks go on where an earlier process left them");
    }
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let directory = Arc::new(Directory::new(&config, &env, store.keys())?);
    let catalogue = Arc::new(Catalogue::new(&config, clock.clone()));
    catalogue.register(&config, &env, store.keys())?;
    let engine = Engine::start(Setup {
        store: store.clone(),
        clock: clock.clone(),
        places: catalogue.clone(),
        data_dir,
        memory: config.limits.memory_bytes(),
        running_tasks: config.limits.running_tasks,
        zone_minutes: config.time_zone_minutes,
        threads: 0,
        backoff: Backoff::default(),
    })?;
    engine.take_over_migrations().await?;
    let control = Control {
        engine: engine.clone(),
        catalogue: catalogue.clone(),
        directory: directory.clone(),
        clock,
        limits: Arc::new(config.limits.clone()),
        zone_minutes: config.time_zone_minutes,
    };
    let listener = TcpListener::bind(&config.listen).await.map_err(|e| started(&config.listen, &e))?;
    let local = listener.local_addr().map_err(|e| started(&config.listen, &e))?;
    let tls = config.tls.as_ref().map(tls).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let stop = CancellationToken::new();
    for instance in &config.redis {
        let Some(listen) = &instance.listen else { continue };
        let listener = TcpListener::bind(listen).await.map_err(|e| started(listen, &e))?;
        printer.note(&format!("Instance {} is reached at {listen}", instance.name));
        tokio::spawn(runtime::proxy::serve(engine.clone(), instance.id.clone(), listener, stop.clone()));
    }
    printer.note(&format!("Whimbrel serves on {scheme}://{local}"));

    let working = tokio::spawn(engine.serve(stop.clone()));
    let serving = tokio::spawn(accept(listener, tls, api::router(control), stop.clone()));
    let reload = Reload { path, catalogue, directory, keys: store };
    signals(&reload, printer).await.map_err(|e| started("signals", &e))?;
    stop.cancel();
    // Two more signals are not needed: everything is in the ledger already.
    let _ = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(working, serving) }).await;
    Ok(Exit::Done)
}

struct Reload {
    path: PathBuf,
    catalogue: Arc<Catalogue>,
    directory: Arc<Directory>,
    keys: Store,
}

impl Reload {
    fn run(&self) {
        let env: BTreeMap<String, String> = std::env::vars().collect();
        let done = config::load(&self.path, &env).and_then(|config| {
            self.directory.reload(&config, &env, self.keys.keys())?;
            self.catalogue.register(&config, &env, self.keys.keys())?;
            self.catalogue.reload(&config);
            Ok(())
        });
        match done {
            Ok(()) => tracing::info!("stores, keys and users were read again"),
            Err(failure) => tracing::error!("the configuration stays as it was: {failure}"),
        }
    }
}

/// Returns when the process is asked to end; SIGHUP reads stores and keys again.
async fn signals(reload: &Reload, printer: &Printer) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = hup.recv() => reload.run(),
        }
    }
    printer.note("Stopping; running tasks go on at the next start.");
    Ok(())
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: axum::Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = places.clone().acquire_owned() => place,
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("a connection could not be accepted: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, peer, router, stop).await,
                Some(tls) => {
                    let handshake = tokio::time::timeout(Duration::from_secs(10), tls.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        connection(stream, peer, router, stop).await;
                    }
                }
            }
        });
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, router: axum::Router, stop: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(axum::Extension(ConnectInfo(peer)));
    let service = TowerToHyperService::new(router);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    // Names of headers have no case, but scripts look for `X-Subject-Token` with grep.
    builder.title_case_headers(true);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(Duration::from_secs(5), connection).await;
        }
    }
}

fn tls(config: &config::Tls) -> Result<TlsAcceptor> {
    let at = |path: &str, why: String| Failure::new(Kind::Invalid, "tls", format!("{path}: {why}"));
    let open = |path: &str| {
        let file = std::fs::File::open(Path::new(path)).map_err(|e| at(path, e.to_string()))?;
        Ok::<_, Failure>(std::io::BufReader::new(file))
    };
    let certs = rustls_pemfile::certs(&mut open(&config.cert)?).collect::<std::result::Result<Vec<_>, _>>();
    let certs = certs.map_err(|e| at(&config.cert, e.to_string()))?;
    let key =
        rustls_pemfile::private_key(&mut open(&config.key)?).map_err(|e| at(&config.key, e.to_string()))?;
    let key = key.ok_or_else(|| at(&config.key, "holds no private key".into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| at(&config.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| at(&config.cert, e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}
