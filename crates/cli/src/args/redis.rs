//! `whimbrel redis …` (contract §1.3).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use replica::node::TlsFiles;

use super::Service;

/// `whimbrel redis`
#[derive(Debug, Args)]
pub(crate) struct Redis {
    /// What to do
    #[command(subcommand)]
    pub command: RedisCommand,
}

/// The commands of the Redis engine.
#[derive(Debug, Subcommand)]
pub(crate) enum RedisCommand {
    /// Move a live Redis or Valkey to another, and follow its changes; Ctrl-C pauses, the same command resumes
    Copy(Box<RedisCopy>),
    /// Compare two servers key by key without writing; exit 1 if they differ
    Verify(RedisVerify),
    /// Apply RDB files, append-only files, folders of those, or archives
    Import(RedisImport),
    /// Remove what migrations left at a target beside its data; they cannot go on afterwards
    Clean(RedisClean),
    /// Migrations of a running service
    Task(Box<RedisTask>),
}

/// `whimbrel redis task`
#[derive(Debug, Args)]
pub(crate) struct RedisTask {
    /// Where
    #[command(flatten)]
    pub service: Service,
    /// What to do
    #[command(subcommand)]
    pub action: RedisTaskAction,
}

/// Actions on Redis migrations of a service.
#[derive(Debug, Subcommand)]
pub(crate) enum RedisTaskAction {
    /// List migrations, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one migration with its numbers
    Show {
        /// Its id
        id: String,
    },
    /// Print the log of a migration, oldest line first
    Logs {
        /// Its id
        id: String,
    },
    /// Follow one migration until it rests or ends
    Watch {
        /// Its id
        id: String,
    },
    /// Create and start a migration; passwords come from WHIMBREL_SOURCE_PASSWORD and WHIMBREL_TARGET_PASSWORD
    Create {
        /// HOST:PORT[,HOST:PORT…], or the id of an instance
        source: String,
        /// The same of the target
        target: String,
        /// Its name
        #[arg(long, default_value = "redis")]
        name: String,
        /// Done when the snapshot is applied
        #[arg(long)]
        full_only: bool,
        /// At most so many MB per second
        #[arg(long)]
        bandwidth_mb: Option<u32>,
    },
    /// Stop a migration; it rests within a second
    Stop {
        /// Its id
        id: String,
    },
    /// Start a migration again with what is stored
    Start {
        /// Its id
        id: String,
    },
    /// Lead clients to the target
    Exchange {
        /// Its id
        id: String,
    },
    /// Lead clients back to the source
    Rollback {
        /// Its id
        id: String,
    },
    /// Delete a migration that does not run
    Delete {
        /// Its id
        id: String,
    },
}

/// Which keys travel, and where to.
#[derive(Clone, Debug, Args)]
pub(crate) struct Routing {
    /// Databases that get another number at the target: 5=6,7=8
    #[arg(long, default_value = "", hide_default_value = true)]
    pub db_map: String,
    /// Only keys that match (as KEYS has it: * ? [a-z]); may be repeated
    #[arg(long)]
    pub include_key: Vec<String>,
    /// No keys that match; may be repeated
    #[arg(long)]
    pub exclude_key: Vec<String>,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// Files of TLS at the source.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceTls {
    /// Trust these authorities at the source instead of the system's (PEM)
    #[arg(long, value_name = "FILE")]
    pub source_ca: Option<PathBuf>,
    /// Show this certificate to the source (PEM)
    #[arg(long, value_name = "FILE", requires = "source_key")]
    pub source_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "source_cert")]
    pub source_key: Option<PathBuf>,
}

impl SourceTls {
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles { ca: self.source_ca.clone(), cert: self.source_cert.clone(), key: self.source_key.clone() }
    }
}

/// Files of TLS at the target.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetTls {
    /// Trust these authorities at the target instead of the system's (PEM)
    #[arg(long, value_name = "FILE")]
    pub target_ca: Option<PathBuf>,
    /// Show this certificate to the target (PEM)
    #[arg(long, value_name = "FILE", requires = "target_key")]
    pub target_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "target_cert")]
    pub target_key: Option<PathBuf>,
}

impl TargetTls {
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles { ca: self.target_ca.clone(), cert: self.target_cert.clone(), key: self.target_key.clone() }
    }
}

/// What happens to keys that the target has.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Existing {
    /// Replace keys that the target has [default]
    #[arg(long)]
    pub replace: bool,
    /// Leave keys alone that the target has
    #[arg(long)]
    pub skip_existing: bool,
    /// End when the target has a key
    #[arg(long)]
    pub fail_on_existing: bool,
}

/// `whimbrel redis copy`
#[derive(Debug, Args)]
pub(crate) struct RedisCopy {
    /// redis://[user@]HOST:PORT[/DB] or rediss://…; the password from WHIMBREL_SOURCE_PASSWORD
    pub source: String,
    /// The same of the target; the password from WHIMBREL_TARGET_PASSWORD
    pub target: String,
    /// What a command is called at the source, where it was renamed: DUMP=NAME; may be repeated
    #[arg(long, value_name = "NAME=THERE")]
    pub source_command: Vec<String>,
    /// Take a source cluster although some of its slots are served by nobody; they are counted as left out
    #[arg(long)]
    pub allow_uncovered_slots: bool,
    /// TLS at the source
    #[command(flatten)]
    pub source_tls: SourceTls,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// How changes are followed: as a replica, or, where the source refuses that, by looking through its keys and listening
    /// to its keyspace events
    #[arg(long, default_value = "psync", value_parser = ["psync", "scan"])]
    pub mode: String,
    /// Done when the snapshot is applied
    #[arg(long, conflicts_with = "until_caught_up")]
    pub full_only: bool,
    /// Done when nothing has been behind [default: follow until Ctrl-C]
    #[arg(long)]
    pub until_caught_up: bool,
    /// Keys that the target has
    #[command(flatten)]
    pub existing: Existing,
    /// Which keys
    #[command(flatten)]
    pub routing: Routing,
    /// At most so much per second, e.g. 50MiB/s
    #[arg(long)]
    pub bandwidth: Option<String>,
    /// Leave out commands of this name, such as those of a fork or module that the target does not know; may be repeated
    #[arg(long, value_name = "NAME")]
    pub skip_command: Vec<String>,
    /// What happens when the target refuses a library of functions, such as one whose functions it has in another library: end,
    /// delete the library of the target, or leave out the library of the source
    #[arg(long, default_value = "stop", value_parser = ["stop", "replace", "skip"])]
    pub functions: String,
    /// Compare both sides at the end
    #[arg(long, default_value = "none", value_parser = ["none", "sample", "full"])]
    pub verify: String,
}

/// `whimbrel redis verify`
#[derive(Debug, Args)]
pub(crate) struct RedisVerify {
    /// One side
    pub source: String,
    /// The other side
    pub target: String,
    /// Which keys
    #[command(flatten)]
    pub routing: Routing,
    /// What a command is called at the source, where it was renamed: DUMP=NAME; may be repeated
    #[arg(long, value_name = "NAME=THERE")]
    pub source_command: Vec<String>,
    /// Take a source cluster although some of its slots are served by nobody
    #[arg(long)]
    pub allow_uncovered_slots: bool,
    /// TLS at the source
    #[command(flatten)]
    pub source_tls: SourceTls,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// Some thousand keys instead of all
    #[arg(long)]
    pub sample: bool,
}

/// `whimbrel redis clean`
#[derive(Debug, Args)]
pub(crate) struct RedisClean {
    /// redis://[user@]HOST:PORT or rediss://…; the password from WHIMBREL_TARGET_PASSWORD
    pub target: String,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// Even while a migration writes there
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// `whimbrel redis import`
#[derive(Debug, Args)]
pub(crate) struct RedisImport {
    /// Files or folders, applied in this order; then the target
    #[arg(required = true, num_args = 2.., value_names = ["FILE", "DST"])]
    pub places: Vec<PathBuf>,
    /// Keys that the target has
    #[command(flatten)]
    pub existing: Existing,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// Leave out commands that reach beyond single keys (EVAL, FLUSHALL, SWAPDB …) where they cannot be applied, instead of
    /// refusing the file
    #[arg(long)]
    pub leave_out_commands: bool,
    /// Leave out commands of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    pub skip_command: Vec<String>,
    /// What happens when the target refuses a library of functions, such as one whose functions it has in another library: end,
    /// delete the library of the target, or leave out the library of the source
    #[arg(long, default_value = "stop", value_parser = ["stop", "replace", "skip"])]
    pub functions: String,
    /// Which keys
    #[command(flatten)]
    pub routing: Routing,
    /// At most so much per second, e.g. 50MiB/s
    #[arg(long)]
    pub bandwidth: Option<String>,
}
