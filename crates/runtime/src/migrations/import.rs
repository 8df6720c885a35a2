//! A backup import: files are fetched, unpacked and read through before the first write, then applied in order.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flow_control::budget::Bandwidth;
use model::error::{Error, Kind, Result, Side};
use model::migration::{Backup, MigrationSpec};
use redis_migration::connection::query_client::QueryClient;
use redis_migration::import::{Import, archive, check as check_file};
use redis_migration::route::Route;
use redis_migration::snapshot::restore::Conflict;
use redis_migration::source::spool::SpoolLimits;
use redis_migration::{EventSender, Node, Options, Progress, Summary, Until};
use storage::{ReadRequest, disk_space};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::environment::OpenedBackup;
use crate::migrations::identity::{functions, route};

/// Names of temporary folders begin so.
pub(super) const TEMPORARY: &str = "import-";

/// An import while it is carried out.
pub(super) struct ImportTask {
    pub(super) engine: Arc<Engine>,
    pub(super) id: String,
    pub(super) spec: MigrationSpec,
    pub(super) target: Node,
    pub(super) bandwidth: Arc<Bandwidth>,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: CancellationToken,
}

/// The files of a backup, in the data directory.
struct ImportedFiles {
    files: Vec<PathBuf>,
    /// Databases of which they hold data.
    dbs: BTreeSet<u32>,
    /// Our paths, and the names that the user knows instead.
    names: Vec<(String, String)>,
}

impl ImportTask {
    pub(super) async fn run(self) -> Result<Summary> {
        tokio::select! {
            done = self.import() => done,
            // Nothing needs to be restored: an import begins from the start.
            () = self.stop.cancelled() => Ok(Summary::default()),
        }
    }

    async fn import(&self) -> Result<Summary> {
        let spool_dir = self.engine.spool_dir()?;
        let prefix = format!("{TEMPORARY}{}-", self.id);
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(&spool_dir);
        let dir = dir.map_err(|e| {
            Error::new(Kind::NoSpace, "import", format!("{}: {e}", spool_dir.display())).caused_by(e)
        })?;
        let ImportedFiles { files, dbs, names } = self.collect_files(dir.path()).await?;
        let route = route(&self.spec);
        self.verify_target_dbs(&dbs, &route).await?;
        let import = Import {
            files,
            target: self.target.clone(),
            options: Options {
                route,
                conflict: Conflict::Replace,
                until: Until::Full,
                bandwidth: self.bandwidth.clone(),
                spool: SpoolLimits::default(),
                spool_dir,
                backoff: self.engine.backoff,
                reconnect: Arc::default(),
                event_sender: EventSender::default(),
                skip_commands: Arc::new(self.spec.own.skip_commands.iter().cloned().collect()),
                functions: functions(&self.spec.own),
            },
            skip_unsafe_commands: self.spec.own.leave_out_commands,
            clock: self.engine.clock.clone(),
            progress: self.progress.clone(),
            stop: self.stop.clone(),
        };
        // Paths of the data directory do not help readers of the log.
        let named =
            |text: &str| names.iter().fold(text.to_owned(), |text, (path, name)| text.replace(path, name));
        match import.run().await {
            Ok(summary) => {
                let notes = summary.notes.iter().map(|n| named(n)).collect();
                Ok(Summary { notes, ..summary })
            }
            Err(failure) => Err(Error { message: named(&failure.message), ..failure }),
        }
    }

    /// Copies the backup's files into a directory, unpacks and checks them.
    async fn collect_files(&self, dir: &Path) -> Result<ImportedFiles> {
        let (mut dbs, mut names) = (BTreeSet::new(), Vec::new());
        let files = match &self.spec.backup {
            Some(Backup::Record(id)) => {
                unpack_and_check(self.engine.backup_path(id), dir.join("in"), id.clone(), &mut dbs).await?
            }
            Some(Backup::Bucket { bucket, files }) => {
                let mut fetched = Vec::new();
                for (i, file) in files.iter().enumerate() {
                    let opened = self.engine.resolver().backup(bucket, &file.name).await?;
                    let (path, into) = (dir.join(i.to_string()), dir.join(format!("{i}-in")));
                    self.fetch(&opened, &path).await.map_err(|f| with_name(&file.name, f))?;
                    names.push((format!("{}", into.display()), file.name.clone()));
                    names.push((format!("{}", path.display()), file.name.clone()));
                    fetched.extend(unpack_and_check(path, into, file.name.clone(), &mut dbs).await?);
                }
                fetched
            }
            None => {
                return Err(Error::new(Kind::Invalid, "import", "the migration does not name a backup"));
            }
        };
        Ok(ImportedFiles { files, dbs, names })
    }

    /// Fails when the target lacks a database that the files need.
    async fn verify_target_dbs(&self, dbs: &BTreeSet<u32>, route: &Route) -> Result<()> {
        let target = &self.target;
        for db in dbs.iter().filter_map(|db| route.db(*db)) {
            let (mut query, server, _) = QueryClient::open(target, Side::Target).await?;
            if !server.cluster && query.call(db, b"", &[b"PING"]).await.is_err() {
                let m = format!(
                    "the files contain data for database {db}, which does not exist at {}",
                    target.display_url()
                );
                return Err(Error::new(Kind::Unsupported, "import", m).at(Side::Target));
            }
        }
        let missing = dbs.iter().find(|db| route.db(**db).is_some_and(|to| to != 0));
        if let Some(db) = missing
            && QueryClient::open(&self.target, Side::Target).await?.1.cluster
        {
            let m = format!(
                "the files contain data in database {db}, but a cluster has only database 0; hint: set \
                 target_instance.db to 0"
            );
            return Err(Error::new(Kind::Unsupported, "import", m).at(Side::Target));
        }
        Ok(())
    }

    async fn fetch(&self, from: &OpenedBackup, path: &Path) -> Result<()> {
        let reading =
            from.store.read(&from.key, &ReadRequest::default()).await.map_err(|f| f.at(Side::Source))?;
        let full = |e: std::io::Error| {
            Error::new(Kind::NoSpace, "import", format!("{}: {e}", path.display())).caused_by(e)
        };
        let mut file = std::fs::File::create(path).map_err(full)?;
        let (mut body, mut unseen) = (reading.body, 0);
        while let Some(chunk) = body.chunk().await {
            let chunk = chunk.map_err(|f| f.at(Side::Source))?;
            unseen += chunk.len() as u64;
            if unseen >= disk_space::CHECK_INTERVAL_BYTES {
                disk_space::check(path.parent().unwrap_or(path))?;
                unseen = 0;
            }
            self.bandwidth.acquire(chunk.len() as u64).await;
            file.write_all(&chunk).map_err(full)?;
        }
        Ok(())
    }
}

fn with_name(name: &str, failure: Error) -> Error {
    Error { message: format!("{name}: {}", failure.message), ..failure }
}

/// Unpacks a file if it is packed, and reads everything through; databases that it names are added to `dbs`.
async fn unpack_and_check(
    path: PathBuf,
    into: PathBuf,
    name: String,
    dbs: &mut BTreeSet<u32>,
) -> Result<Vec<PathBuf>> {
    let work = move || {
        // Paths of the data directory do not help readers of the error.
        let said = |f: Error| {
            let m = f.message.replace(&path.display().to_string(), &name);
            Error { message: m, ..f }
        };
        let files = match archive::is_archive(&path)? {
            true => archive::unpack(&path, &into, archive::UNPACKED_MAX).map_err(said)?,
            false => vec![path.clone()],
        };
        let mut found = BTreeSet::new();
        for file in &files {
            let checked = check_file(file).map_err(|f| {
                let inner = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let m = f.message.replace(&file.display().to_string(), &inner);
                if files.len() > 1 || *file != path {
                    with_name(&name, Error { message: m, ..f })
                } else {
                    said(f)
                }
            })?;
            found.extend(checked.dbs);
        }
        Ok((files, found))
    };
    #[expect(clippy::disallowed_methods, reason = "one at a time for each import that runs")]
    let done = tokio::task::spawn_blocking(work).await;
    let (files, found) = done.map_err(|e| Error::new(Kind::Internal, "import", e.to_string()))??;
    dbs.extend(found);
    Ok(files)
}

/// So much of a file tells what it is, bytes.
const HEADER_BYTES: u64 = 512;

/// A look at one file before an import is accepted: it is there, and begins as a backup or an archive does.
///
/// # Errors
/// [`Kind::NotFound`] when it is not there, [`Kind::Invalid`] when it is something else.
pub async fn check(from: &OpenedBackup) -> Result<()> {
    let at = |f: Error| f.at(Side::Source);
    let meta = from.store.head(&from.key, None).await.map_err(at)?;
    let range = (meta.size > HEADER_BYTES).then_some(0..HEADER_BYTES);
    let reading =
        from.store.read(&from.key, &ReadRequest { range, ..ReadRequest::default() }).await.map_err(at)?;
    let first = reading.body.collect(HEADER_BYTES).await.map_err(at)?;
    let known = [b"REDIS".as_slice(), b"VALKEY", b"*", b"#", b"PK\x03\x04", &[0x1f, 0x8b]];
    let is_known = known.iter().any(|k| first.starts_with(k)) || first.get(257..262) == Some(b"ustar");
    match is_known {
        true => Ok(()),
        false => {
            let m = "the file is not an RDB file, an append-only file or an archive";
            Err(Error::new(Kind::Invalid, "import", m).at(Side::Source))
        }
    }
}
