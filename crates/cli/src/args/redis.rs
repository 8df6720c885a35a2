//! `whimbrel redis …` (contract §1.3).

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the text of --help, where brackets mean optional"
)]

use std::path::PathBuf;

use clap::{Args, Subcommand};
use redis_migration::connection::node::TlsFiles;

use super::Service;

/// `whimbrel redis`
#[derive(Debug, Args)]
pub(crate) struct Redis {
    /// Command to run
    #[command(subcommand)]
    pub command: RedisCommand,
}

/// The commands of the Redis engine.
#[derive(Debug, Subcommand)]
pub(crate) enum RedisCommand {
    /// Migrate a running Redis or Valkey and replicate its changes; Ctrl-C pauses, the same command resumes
    Copy(Box<RedisCopy>),
    /// Compare two servers key by key without writing; exit 1 if they differ
    Verify(RedisVerify),
    /// Import RDB files, append-only files, folders of these, or archives
    Import(RedisImport),
    /// Remove checkpoint keys and other keys of migrations from a target; the migrations can no longer resume
    Clean(RedisClean),
    /// Manage Redis migrations of a running service
    Task(Box<RedisTask>),
}

/// `whimbrel redis task`
#[derive(Debug, Args)]
pub(crate) struct RedisTask {
    /// Where
    #[command(flatten)]
    pub service: Service,
    /// Command to run
    #[command(subcommand)]
    pub action: RedisTaskAction,
}

/// Actions on Redis migrations of a service.
#[derive(Debug, Subcommand)]
pub(crate) enum RedisTaskAction {
    /// List migrations, newest first
    List {
        /// Maximum number of results
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one migration and its statistics
    Show {
        /// Migration id
        id: String,
    },
    /// Print the log of a migration, oldest line first
    Logs {
        /// Migration id
        id: String,
    },
    /// Follow a migration until it is stopped or finished
    Watch {
        /// Migration id
        id: String,
    },
    /// Create and start a migration; passwords come from WHIMBREL_SOURCE_PASSWORD and WHIMBREL_TARGET_PASSWORD
    Create {
        /// Source: HOST:PORT[,HOST:PORT…], or the id of an instance
        source: String,
        /// Target: HOST:PORT[,HOST:PORT…], or the id of an instance
        target: String,
        /// Name of the migration
        #[arg(long, default_value = "redis")]
        name: String,
        /// Finish when the full sync is applied
        #[arg(long)]
        full_only: bool,
        /// Maximum MB per second
        #[arg(long)]
        bandwidth_mb: Option<u32>,
    },
    /// Stop a migration (stopped within 1 s)
    Stop {
        /// Migration id
        id: String,
    },
    /// Restart a migration with its stored configuration
    Start {
        /// Migration id
        id: String,
    },
    /// Cut over: redirect clients to the target
    Exchange {
        /// Migration id
        id: String,
    },
    /// Roll back a cut-over: redirect clients to the source
    Rollback {
        /// Migration id
        id: String,
    },
    /// Delete a migration that is not running
    Delete {
        /// Migration id
        id: String,
    },
}

/// Which keys are migrated, and to which database.
#[derive(Clone, Debug, Args)]
pub(crate) struct Routing {
    /// Map database numbers, source to target: 5=6,7=8
    #[arg(long, default_value = "", hide_default_value = true)]
    pub db_map: String,
    /// Include only keys that match this pattern, as in KEYS: * ? [a-z] (repeatable)
    #[arg(long)]
    pub include_key: Vec<String>,
    /// Exclude keys that match this pattern (repeatable)
    #[arg(long)]
    pub exclude_key: Vec<String>,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// Declares the TLS files of one side: the flags of the sides differ, so each has a type of its own.
macro_rules! tls_files {
    ($(#[$doc:meta])* $name:ident, $side:literal, $ca:ident, $cert:ident, $key:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Args)]
        pub(crate) struct $name {
            #[arg(long, value_name = "FILE")]
            #[arg(help = concat!("CA certificates for the ", $side, " (PEM), instead of the system's"))]
            pub $ca: Option<PathBuf>,
            #[arg(long, value_name = "FILE", requires = stringify!($key))]
            #[arg(help = concat!("Client certificate for the ", $side, " (PEM)"))]
            pub $cert: Option<PathBuf>,
            #[arg(long, value_name = "FILE", requires = stringify!($cert))]
            #[arg(help = concat!("Private key of the client certificate for the ", $side, " (PEM)"))]
            pub $key: Option<PathBuf>,
        }

        impl $name {
            pub(crate) fn files(&self) -> TlsFiles {
                TlsFiles { ca: self.$ca.clone(), cert: self.$cert.clone(), key: self.$key.clone() }
            }
        }
    };
}

tls_files!(
    /// Files of TLS at the source.
    SourceTls, "source", source_ca, source_cert, source_key
);
tls_files!(
    /// Files of TLS at the target.
    TargetTls, "target", target_ca, target_cert, target_key
);

/// What happens to keys that the target has.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Existing {
    /// Replace existing keys at the target [default]
    #[arg(long)]
    pub replace: bool,
    /// Skip keys that exist at the target
    #[arg(long)]
    pub skip_existing: bool,
    /// Fail when a key exists at the target
    #[arg(long)]
    pub fail_on_existing: bool,
}

/// `whimbrel redis copy`
#[derive(Debug, Args)]
pub(crate) struct RedisCopy {
    /// Source: redis://[user@]HOST:PORT[/DB] or rediss://…; password from WHIMBREL_SOURCE_PASSWORD
    pub source: String,
    /// Target: redis://[user@]HOST:PORT[/DB] or rediss://…; password from WHIMBREL_TARGET_PASSWORD
    pub target: String,
    /// Name of a command that is renamed at the source, as DUMP=NAME (repeatable)
    #[arg(long, value_name = "NAME=NEW_NAME")]
    pub source_command: Vec<String>,
    /// Copy a source cluster even if some slots are not served; they are reported as not migrated
    #[arg(long)]
    pub allow_uncovered_slots: bool,
    /// TLS at the source
    #[command(flatten)]
    pub source_tls: SourceTls,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// psync: replicate from the source as a replica; scan: for sources that refuse PSYNC, scan all keys
    /// and follow keyspace notifications
    #[arg(long, default_value = "psync", value_parser = ["psync", "scan"])]
    pub mode: String,
    /// Finish when the full sync is applied
    #[arg(long, conflicts_with = "until_caught_up")]
    pub full_only: bool,
    /// Exit once caught up [default: keep replicating until Ctrl-C]
    #[arg(long)]
    pub until_caught_up: bool,
    /// Keys that the target has
    #[command(flatten)]
    pub existing: Existing,
    /// Which keys
    #[command(flatten)]
    pub routing: Routing,
    /// Maximum bytes per second, e.g. 50MiB/s
    #[arg(long)]
    pub bandwidth: Option<String>,
    /// Exclude commands with this name, e.g. commands of a module that the target does not support (repeatable)
    #[arg(long, value_name = "NAME")]
    pub skip_command: Vec<String>,
    /// Action when the target rejects a function library: stop, replace (delete the conflicting library) or skip
    #[arg(long, default_value = "stop", value_parser = ["stop", "replace", "skip"])]
    pub functions: String,
    /// Compare source and target at the end
    #[arg(long, default_value = "none", value_parser = ["none", "sample", "full"])]
    pub verify: String,
}

/// `whimbrel redis verify`
#[derive(Debug, Args)]
pub(crate) struct RedisVerify {
    /// Source location
    pub source: String,
    /// Target location
    pub target: String,
    /// Which keys
    #[command(flatten)]
    pub routing: Routing,
    /// Name of a command that is renamed at the source, as DUMP=NAME (repeatable)
    #[arg(long, value_name = "NAME=NEW_NAME")]
    pub source_command: Vec<String>,
    /// Compare a source cluster even if some slots are not served
    #[arg(long)]
    pub allow_uncovered_slots: bool,
    /// TLS at the source
    #[command(flatten)]
    pub source_tls: SourceTls,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// Compare a sample of a few thousand keys
    #[arg(long)]
    pub sample: bool,
}

/// `whimbrel redis clean`
#[derive(Debug, Args)]
pub(crate) struct RedisClean {
    /// Target: redis://[user@]HOST:PORT or rediss://…; password from WHIMBREL_TARGET_PASSWORD
    pub target: String,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// Remove the keys even while a migration is writing to the target
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// `whimbrel redis import`
#[derive(Debug, Args)]
pub(crate) struct RedisImport {
    /// Files or folders, imported in this order; the last argument is the target
    #[arg(required = true, num_args = 2.., value_names = ["FILE", "DST"])]
    pub places: Vec<PathBuf>,
    /// Keys that the target has
    #[command(flatten)]
    pub existing: Existing,
    /// TLS at the target
    #[command(flatten)]
    pub target_tls: TargetTls,
    /// Exclude commands that affect more than single keys (EVAL, FLUSHALL, SWAPDB …) where they cannot be applied,
    /// instead of refusing the file
    #[arg(long)]
    pub leave_out_commands: bool,
    /// Exclude commands with this name (repeatable)
    #[arg(long, value_name = "NAME")]
    pub skip_command: Vec<String>,
    /// Action when the target rejects a function library: stop, replace (delete the conflicting library) or skip
    #[arg(long, default_value = "stop", value_parser = ["stop", "replace", "skip"])]
    pub functions: String,
    /// Which keys
    #[command(flatten)]
    pub routing: Routing,
    /// Maximum bytes per second, e.g. 50MiB/s
    #[arg(long)]
    pub bandwidth: Option<String>,
}
