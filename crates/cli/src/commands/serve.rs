//! `whimbrel serve`: API, scheduler and workers in one process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use control::audit_file::{AuditFile, Outputs};
use control::{Catalogue, Control, Directory, SharedLimits};
use flow_control::backoff::Backoff;
use flow_control::clock::{FollowingClock, SharedClock};
use model::error::{Error, Kind, Result};
use runtime::Engine;
use runtime::engine::{EngineConfig, TaskQuota};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::args::Serve;
use crate::commands::connections::{self, Routers};
use crate::commands::init;
use crate::commands::keys;
use crate::exit::Exit;
use crate::printer::Printer;

fn started(what: &str, e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Connect, "serve", format!("{what}: {e}"))
}

/// The configuration with flags over it; written first when there is none.
/// Also the environment with the flags in it, so that a reload reads the same.
pub(super) fn configure(
    args: &Serve,
    printer: &Printer,
) -> Result<(Config, PathBuf, BTreeMap<String, String>)> {
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
    Ok((config::load(&path, &env)?, path, env))
}

/// Secrets are in this memory: other users cannot read it, and no core is written.
pub(super) fn disable_core_dumps() {
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!("cannot disable core dumps of this process: {e}");
    }
}

/// A browser that used TLS uses TLS again.
async fn remember_tls(mut response: axum::response::Response) -> axum::response::Response {
    let year = http::HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(http::header::STRICT_TRANSPORT_SECURITY, year);
    response
}

/// The store, and the time that its processes share.
pub(super) struct Database {
    pub(super) store: Store,
    pub(super) clock: SharedClock,
    /// Follows the time of a database that other processes use as well.
    following: Option<Arc<FollowingClock>>,
}

impl Database {
    /// Keeps the session of this process, where others share the database.
    pub(super) fn keep_session(
        &self,
        engine: &Arc<Engine>,
        role: &'static str,
        stop: &CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let (engine, stop, clock) = (engine.clone(), stop.clone(), self.following.clone());
        tokio::spawn(async move {
            if let Some(clock) = clock {
                engine.keep_session(role, clock, stop).await;
            }
        })
    }
}

/// Opens the database of the configuration.
pub(super) async fn open_database(config: &Config) -> Result<Database> {
    if config.database == "sqlite" {
        let store = open_embedded(config).await?;
        return Ok(Database { store, clock: flow_control::clock::system(), following: None });
    }
    let store =
        Store::shared(&config.database, config.database_direct.as_deref(), Path::new(&config.data_dir))
            .await?;
    let now = store.database_time().await?.unwrap_or_default();
    let clock = Arc::new(FollowingClock::new(now));
    Ok(Database { store, clock: clock.clone(), following: Some(clock) })
}

/// Opens the embedded store and ends its leases: their holders ended with the process before.
async fn open_embedded(config: &Config) -> Result<Store> {
    let store = Store::embedded(Path::new(&config.data_dir)).await?;
    let mut tx = store.write().await?;
    let ended = tx.end_all_leases().await?;
    tx.commit().await?;
    if ended > 0 {
        tracing::info!("resumed {ended} tasks of a previous process");
    }
    Ok(store)
}

pub(super) async fn start_engine(
    config: &Config,
    database: &Database,
    catalogue: &Arc<Catalogue>,
    works: bool,
) -> Result<Arc<Engine>> {
    let engine = Engine::start(EngineConfig {
        store: database.store.clone(),
        clock: database.clock.clone(),
        works,
        resolver: catalogue.clone(),
        data_dir: PathBuf::from(&config.data_dir),
        memory: config.limits.memory_bytes(),
        running_tasks: config.limits.running_tasks,
        zone_minutes: config.time_zone_minutes,
        threads: 0,
        backoff: Backoff::default(),
    })?;
    engine.share_between(config.projects.len());
    engine.set_task_quota(task_quota(config));
    // What another process holds is its own until its lease ends.
    if !database.store.is_shared() {
        engine.recover_migrations().await?;
    }
    Ok(engine)
}

fn task_quota(config: &Config) -> TaskQuota {
    TaskQuota { per_day: config.limits.tasks_per_day, waiting: config.limits.waiting_tasks }
}

/// Listens for clients of the Redis instances that are configured to be forwarded.
async fn forward_instances(
    config: &Config,
    engine: &Arc<Engine>,
    stop: &CancellationToken,
    printer: &Printer,
) -> Result<()> {
    for instance in &config.redis_instances {
        let Some(listen) = &instance.listen else { continue };
        let listener = TcpListener::bind(listen).await.map_err(|e| started(listen, &e))?;
        printer.note(&format!("Forwarding connections to instance {} on {listen}", instance.name));
        tokio::spawn(runtime::proxy::serve(engine.clone(), instance.id.clone(), listener, stop.clone()));
    }
    Ok(())
}

/// Serves metrics at an address of their own, without TLS.
async fn serve_metrics(
    at: &str,
    control: &Control,
    stop: &CancellationToken,
    printer: &Printer,
) -> Result<()> {
    let listener = TcpListener::bind(at).await.map_err(|e| started(at, &e))?;
    let local = listener.local_addr().map_err(|e| started(at, &e))?;
    printer.note(&format!("Metrics on http://{local}/metrics"));
    let (_, plain) = watch::channel(None);
    let numbers = api::metrics_only(control.clone());
    let routers = Routers { all: numbers.clone(), health: numbers };
    tokio::spawn(connections::serve(listener, plain, routers, stop.clone()));
    Ok(())
}

/// The console below `/console`, the APIs elsewhere.
fn routers(control: Control, has_tls: bool, stop: CancellationToken) -> Routers {
    let console = console::router(control.clone(), console::Settings { has_tls, stop });
    let (all, health) = (console.fallback_service(api::router(control.clone())), api::health_only(control));
    let all = match has_tls {
        true => all.layer(axum::middleware::map_response(remember_tls)),
        false => all,
    };
    Routers { all, health }
}

/// What the API calls, with the limits and outputs of the configuration.
fn use_cases(
    config: &Config,
    engine: &Arc<Engine>,
    catalogue: &Arc<Catalogue>,
    directory: &Arc<Directory>,
    clock: SharedClock,
) -> Result<Control> {
    Ok(Control {
        engine: engine.clone(),
        catalogue: catalogue.clone(),
        directory: directory.clone(),
        clock,
        limits: Arc::new(SharedLimits::new(config.limits.clone())),
        zone_minutes: config.time_zone_minutes,
        outgoing: Default::default(),
        reports: Default::default(),
        requests: Default::default(),
        audit_file: Arc::new(AuditFile::start(Outputs::open(&config.audit)?)?),
    })
}

pub(crate) async fn run(args: &Serve, printer: &Printer) -> Result<Exit> {
    disable_core_dumps();
    let (config, path, env) = configure(args, printer)?;
    let database = open_database(&config).await?;
    let (store, clock) = (database.store.clone(), database.clock.clone());
    let directory = Arc::new(Directory::new(&config, &env, &store.keys())?);
    let catalogue = Arc::new(Catalogue::new(&config, clock.clone()));
    catalogue.register(&config, &env, &store.keys())?;
    let engine = start_engine(&config, &database, &catalogue, !args.no_work).await?;
    let control = use_cases(&config, &engine, &catalogue, &directory, clock)?;
    control.forget_tokens_of_disabled().await?;
    let listener = TcpListener::bind(&config.listen).await.map_err(|e| started(&config.listen, &e))?;
    let local = listener.local_addr().map_err(|e| started(&config.listen, &e))?;
    let tls = config.tls.as_ref().map(tls).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let stop = CancellationToken::new();
    forward_instances(&config, &engine, &stop, printer).await?;
    if let Some(at) = &config.metrics_listen {
        serve_metrics(at, &control, &stop, printer).await?;
    }
    // Before anybody can know that it runs: a signal that is not handled ends the process.
    let handled = |kind| signal(kind).map_err(|e| started("signals", &e));
    let (term, hup) = (handled(SignalKind::terminate())?, handled(SignalKind::hangup())?);
    printer.note(&format!("Listening on {scheme}://{local}"));

    tokio::spawn(keys::follow(store.clone(), stop.clone()));
    let session = database.keep_session(&engine, "server", &stop);
    let (certificates, tls) = watch::channel(tls);
    let working = tokio::spawn(engine.clone().serve(stop.clone()));
    let (limits, audit_file) = (control.limits.clone(), control.audit_file.clone());
    let routers = routers(control.clone(), config.tls.is_some(), stop.clone());
    let serving = tokio::spawn(connections::serve(listener, tls, routers, stop.clone()));
    let reload = Reload {
        path,
        env,
        catalogue,
        directory,
        keys: store,
        engine,
        limits,
        audit_file,
        certificates,
        control,
        began: config,
    };
    let mut working = working;
    let ended = tokio::select! {
        asked = signals(term, hup, &reload, printer) => asked.map_err(|e| started("signals", &e)),
        // Without it no work would run: the process ends, and its supervisor starts it again.
        _ = &mut working => Err(Error::new(Kind::Internal, "serve", "the dispatcher has stopped")),
    };
    stop.cancel();
    ended?;
    // Two more signals are not needed: everything is in the ledger already.
    let _ = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(working, serving, session) })
        .await;
    Ok(Exit::Done)
}

struct Reload {
    path: PathBuf,
    /// The environment, with the flags in it.
    env: BTreeMap<String, String>,
    catalogue: Arc<Catalogue>,
    directory: Arc<Directory>,
    keys: Store,
    engine: Arc<Engine>,
    limits: Arc<SharedLimits>,
    audit_file: Arc<AuditFile>,
    certificates: watch::Sender<Option<TlsAcceptor>>,
    control: Control,
    /// As the process began.
    began: Config,
}

impl Reload {
    /// False when the file cannot be taken over.
    fn run(&self) -> bool {
        let env = &self.env;
        let done = config::load(&self.path, env).and_then(|config| {
            check_accounts(&self.path, &config)?;
            // Its values may be sealed with a key that was added a moment ago.
            self.keys.reload_keys()?;
            let keys = self.keys.keys();
            let tls = config.tls.as_ref().map(tls).transpose()?;
            // All or nothing: what cannot be taken over is found before anything is.
            let outputs = Outputs::open(&config.audit)?;
            Directory::new(&config, env, &keys)?;
            Catalogue::new(&config, flow_control::clock::system()).register(&config, env, &keys)?;
            self.directory.reload(&config, env, &keys)?;
            self.catalogue.register(&config, env, &keys)?;
            self.catalogue.reload(&config);
            self.audit_file.replace(outputs);
            self.engine.set_running_tasks(config.limits.running_tasks);
            self.engine.share_between(config.projects.len());
            self.engine.set_task_quota(task_quota(&config));
            // What was begun with TLS goes on with it, and the other way round.
            if tls.is_some() == self.began.tls.is_some() {
                self.certificates.send_replace(tls);
            }
            let left = left_for_the_next_start(&self.began, &config);
            if !left.is_empty() {
                tracing::warn!(settings = %left.join(", "), "changed settings apply after a restart only");
            }
            self.limits.replace(config.limits);
            Ok(())
        });
        match &done {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(failure) => tracing::error!(
                "configuration reload failed, the previous configuration stays active: \
                 {failure}"
            ),
        }
        done.is_ok()
    }
}

/// A file that is being written may be empty for a moment; with it all tokens would be deleted.
fn check_accounts(path: &Path, config: &Config) -> Result<()> {
    let has_accounts = !config.access_keys.is_empty() || !config.users.is_empty();
    if has_accounts && !config.projects.is_empty() {
        return Ok(());
    }
    let m = format!(
        "{}: no project, or neither access keys nor users; hint: write the whole file, then reload again",
        path.display()
    );
    Err(Error::new(Kind::Invalid, "config", m))
}

/// Settings that differ and that a running service does not take over: the names of their keys.
fn left_for_the_next_start(began: &Config, now: &Config) -> Vec<String> {
    let listens = |config: &Config, id: &str| {
        config.redis_instances.iter().find(|r| r.id == id).and_then(|r| r.listen.clone())
    };
    let settings = [
        ("listen", began.listen != now.listen),
        ("metrics_listen", began.metrics_listen != now.metrics_listen),
        ("data_dir", began.data_dir != now.data_dir),
        ("database", began.database != now.database),
        ("database_direct", began.database_direct != now.database_direct),
        ("time_zone_minutes", began.time_zone_minutes != now.time_zone_minutes),
        ("limits.memory", began.limits.memory_bytes() != now.limits.memory_bytes()),
        ("[tls] added or removed", began.tls.is_some() != now.tls.is_some()),
    ];
    let mut left: Vec<String> =
        settings.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect();
    let mut instances: Vec<(&str, &str)> = began
        .redis_instances
        .iter()
        .chain(&now.redis_instances)
        .map(|r| (r.id.as_str(), r.name.as_str()))
        .collect();
    instances.sort_unstable();
    instances.dedup_by_key(|(id, _)| *id);
    for (id, name) in instances {
        if listens(began, id) != listens(now, id) {
            left.push(format!("listen of [[redis]] `{name}`"));
        }
    }
    left
}

/// Returns when the process is asked to end; SIGHUP reads stores and keys again.
async fn signals(
    mut term: Signal,
    mut hup: Signal,
    reload: &Reload,
    printer: &Printer,
) -> std::io::Result<()> {
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = hup.recv() => {
                if reload.run() && let Err(failure) = reload.control.forget_tokens_of_disabled().await {
                    tracing::error!("cannot delete the tokens of disabled accounts: {failure}");
                }
            }
        }
    }
    printer.note("Stopping. Running tasks resume at the next start.");
    Ok(())
}

fn tls(config: &config::Tls) -> Result<TlsAcceptor> {
    seal::check_private(Path::new(&config.key))?;
    let at = |path: &str, why: String| Error::new(Kind::Invalid, "tls", format!("{path}: {why}"));
    let certs = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certs = certs.map_err(|e| at(&config.cert, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|e| at(&config.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| at(&config.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| at(&config.cert, e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f24_reload_lists_settings_that_need_a_restart() {
        let read = |text: &str| config::parse(text, &BTreeMap::new()).unwrap();
        let redis = |name: &str, more: &str| {
            format!(
                "[[redis]]\nid=\"0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10\"\nname=\"{name}\"\naddrs=\"h:1\"\n{more}"
            )
        };
        let listens = "listen=\"127.0.0.1:6390\"\n";
        for (began, now, left) in [
            (String::new(), String::new(), ""),
            (String::new(), "[limits]\nrunning_tasks = 9\n".to_owned(), ""),
            (String::new(), "listen = \"127.0.0.1:1\"\n".to_owned(), "listen"),
            (
                String::new(),
                "metrics_listen = \"127.0.0.1:1\"\ntime_zone_minutes = 60\n".to_owned(),
                "metrics_listen, time_zone_minutes",
            ),
            (String::new(), redis("r", ""), ""),
            (redis("r", ""), redis("s", ""), ""),
            (String::new(), redis("r", listens), "listen of [[redis]] `r`"),
            (redis("r", listens), redis("r", ""), "listen of [[redis]] `r`"),
            (redis("r", listens), String::new(), "listen of [[redis]] `r`"),
        ] {
            assert_eq!(
                left_for_the_next_start(&read(&began), &read(&now)).join(", "),
                left,
                "{began} -> {now}"
            );
        }
    }

    #[tokio::test]
    async fn sec_f36_tls_responses_have_hsts() {
        let response = remember_tls(axum::response::Response::default()).await;
        assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sec_f36_core_dumps_are_disabled() {
        disable_core_dumps();
        let now = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(now, rustix::process::DumpableBehavior::NotDumpable);
    }
}
