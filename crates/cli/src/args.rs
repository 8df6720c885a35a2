//! What the user typed; touches nothing outside.

mod redis;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use redis::{
    Existing, Redis, RedisClean, RedisCommand, RedisCopy, RedisImport, RedisTask, RedisTaskAction,
    RedisVerify, Routing,
};

/// Migrates object storage and Redis; a migration can be stopped and resumed at any time.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Verbose output (-vv also logs retries)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Format of the log on stderr
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Command to run
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a first configuration and print its keys once
    Init(Init),
    /// Run the service: API, scheduler and workers in one process
    Serve(Serve),
    /// Run tasks and migrations of a PostgreSQL database, without an API
    Worker(Serve),
    /// Migrate the schema of a PostgreSQL database, or show its version
    Db(Db),
    /// List the processes that share a PostgreSQL database, or drain one
    Sessions(Sessions),
    /// Copy objects in the foreground; Ctrl-C pauses, the same command resumes
    Copy(Box<Copy>),
    /// Compare source and target without writing; exit 1 if they differ
    Verify(Verify),
    /// Report counts, sizes and largest folders of a source
    Assess(Assess),
    /// Migrate, compare or import Redis and Valkey data
    Redis(Redis),
    /// Manage object migrations of a running service
    Task(Task),
    /// Check configuration, database, stores and clock
    Doctor(Doctor),
    /// List or rotate the keys that seal secrets
    Keys(Keys),
    /// Print shell completions
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// True when the last line of stdout is to be one JSON object, also after an error.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Command::Copy(args) => args.ends.json,
            Command::Verify(args) => args.ends.json,
            Command::Assess(args) => args.ends.json,
            Command::Redis(args) => match &args.command {
                RedisCommand::Copy(args) => args.routing.json,
                RedisCommand::Verify(args) => args.routing.json,
                RedisCommand::Import(args) => args.routing.json,
                RedisCommand::Clean(args) => args.json,
                RedisCommand::Task(args) => args.service.json,
            },
            Command::Task(args) => args.service.json,
            Command::Doctor(args) => args.json,
            Command::Keys(args) => args.json,
            Command::Db(args) => args.json,
            Command::Sessions(args) => args.json,
            Command::Init(_) | Command::Serve(_) | Command::Worker(_) | Command::Completions { .. } => false,
        }
    }
}

/// `whimbrel init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Data directory (database, ledgers, sealing key)
    #[arg(long, default_value = "./whimbrel-data")]
    pub data_dir: PathBuf,
    /// Configuration file to write
    #[arg(long, default_value = "whimbrel.toml")]
    pub config: PathBuf,
    /// Overwrite an existing configuration file
    #[arg(long)]
    pub force: bool,
}

/// `whimbrel serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Configuration file [default: whimbrel.toml, created if missing]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Listen address (overrides the configuration file)
    #[arg(long)]
    pub listen: Option<String>,
    /// Data directory (overrides the configuration file)
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Database (overrides the configuration file)
    #[arg(long)]
    pub database: Option<String>,
    /// Serve the API only; tasks run in other processes of the same database
    #[arg(long)]
    pub no_work: bool,
}

/// `whimbrel db`
#[derive(Debug, Args)]
pub(crate) struct Db {
    /// Configuration file of the service
    #[arg(long, global = true, default_value = "whimbrel.toml")]
    pub config: PathBuf,
    /// Database (overrides the configuration file)
    #[arg(long, global = true)]
    pub database: Option<String>,
    /// Print one JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Command to run
    #[command(subcommand)]
    pub action: DbAction,
}

/// Actions on the schema.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum DbAction {
    /// Bring the schema up to date
    Migrate,
    /// Show the schema version; exit 1 if it is not current
    Status,
}

/// `whimbrel sessions`
#[derive(Debug, Args)]
pub(crate) struct Sessions {
    /// Configuration file of the service
    #[arg(long, global = true, default_value = "whimbrel.toml")]
    pub config: PathBuf,
    /// Data directory (overrides the configuration file)
    #[arg(long, global = true)]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Command to run
    #[command(subcommand)]
    pub action: SessionsAction,
}

/// Actions on sessions.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SessionsAction {
    /// List the sessions
    List,
    /// Drain a session: stop its tasks at a checkpoint; other processes resume them
    Drain {
        /// Identity of the session
        id: String,
    },
}

/// Where both ends are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ends {
    /// Source endpoint, e.g. http://10.0.0.5:9000
    #[arg(long)]
    pub source_endpoint: Option<String>,
    /// Target endpoint, e.g. http://10.0.0.6:9000
    #[arg(long)]
    pub target_endpoint: Option<String>,
    /// Signing region of the source
    #[arg(long)]
    pub source_region: Option<String>,
    /// Signing region of the target
    #[arg(long)]
    pub target_region: Option<String>,
    /// Configuration file with [[store]] sections, for STORE:BUCKET/PREFIX
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Include only keys that match this pattern (repeatable)
    #[arg(long)]
    pub include: Vec<String>,
    /// Exclude keys that match this pattern (repeatable)
    #[arg(long)]
    pub exclude: Vec<String>,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// `whimbrel copy`
#[derive(Clone, Debug, Args)]
pub(crate) struct Copy {
    /// Source: s3://, az:// or gs://BUCKET/PREFIX, a directory, STORE:BUCKET/PREFIX, or
    /// https://HOST/list.txt (list of URLs)
    pub source: String,
    /// Target: s3://, az:// or gs://BUCKET/PREFIX, a directory, or STORE:BUCKET/PREFIX
    pub target: String,
    /// Both ends
    #[command(flatten)]
    pub ends: Ends,
    /// Maximum number of requests in flight [default: adaptive]
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// Maximum bytes per second, e.g. 50MiB/s
    #[arg(long)]
    pub bandwidth: Option<String>,
    /// When to overwrite objects that exist at the target
    #[arg(long, default_value = "newer", value_parser = ["never", "newer", "checksum", "always"])]
    pub overwrite: String,
    /// Weakest proof of equality that is accepted for a copied object
    #[arg(long, default_value = "digest", value_parser = ["size", "digest", "none"])]
    pub check: String,
    /// Metadata to copy
    #[arg(long, default_value = "all", value_parser = ["all", "content-type"])]
    pub metadata: String,
    /// Copy only objects modified after this time (YYYY-MM-DDTHH:MM:SSZ or seconds since 1970)
    #[arg(long)]
    pub since: Option<String>,
    /// Print what would be copied and deleted, without writing
    #[arg(long)]
    pub dry_run: bool,
    /// Copy only the keys in this file (one URL-encoded key per line)
    #[arg(long)]
    pub list_file: Option<PathBuf>,
    /// After a complete copy, delete objects at the target that the source does not have (asks first)
    #[arg(long, conflicts_with_all = ["list_file", "since"])]
    pub delete: bool,
    /// Do not ask before --delete deletes objects
    #[arg(long, requires = "delete")]
    pub yes: bool,
    /// Permit --delete to delete more than half of the target
    #[arg(long, requires = "delete")]
    pub delete_most: bool,
    /// Part size of large objects [default: part layout of the source, else 16MiB]
    #[arg(long)]
    pub part_size: Option<String>,
    /// Directory for per-object outcome files
    #[arg(long, conflicts_with = "dry_run")]
    pub report: Option<PathBuf>,
    /// Format of the --report files
    #[arg(long, default_value = "tsv", value_parser = ["tsv", "csv", "parquet"], requires = "report")]
    pub report_format: String,
    /// Copy all versions and delete markers of each key, oldest first; both buckets must have versioning enabled
    #[arg(long, conflicts_with = "list_file")]
    pub all_versions: bool,
    /// Copy object ACLs, as the nearest canned ACL
    #[arg(long)]
    pub acl: bool,
    /// Directory of the ledger [default: ~/.local/state/whimbrel]
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Discard an unfinished run of the same command and start from the beginning
    #[arg(long)]
    pub no_resume: bool,
    /// Memory limit of all buffers together
    #[arg(long, default_value = "512MiB")]
    pub memory: String,
}

/// `whimbrel verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Source location
    pub source: String,
    /// Target location
    pub target: String,
    /// Both ends
    #[command(flatten)]
    pub ends: Ends,
    /// How to compare objects whose ETags are not comparable
    #[arg(long, default_value = "digest", value_parser = ["size", "digest"])]
    pub check: String,
}

/// `whimbrel assess`
#[derive(Debug, Args)]
pub(crate) struct Assess {
    /// Source: s3://BUCKET/PREFIX, a directory, or STORE:BUCKET/PREFIX
    pub source: String,
    /// Where it is
    #[command(flatten)]
    pub ends: Ends,
}

/// A running service, and who calls it.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// Endpoint of the service
    #[arg(long, global = true, env = "WHIMBREL_ENDPOINT", default_value = "http://127.0.0.1:8790")]
    pub endpoint: String,
    /// Access key
    #[arg(long, global = true, env = "WHIMBREL_AK", default_value = "")]
    pub ak: String,
    /// Secret key (preferably set by the environment)
    #[arg(long, global = true, env = "WHIMBREL_SK", default_value = "", hide_env_values = true)]
    pub sk: String,
    /// Project id
    #[arg(long, global = true, env = "WHIMBREL_PROJECT", default_value = "")]
    pub project: String,
    /// Print one JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
}

/// `whimbrel task`
#[derive(Debug, Args)]
pub(crate) struct Task {
    /// Where
    #[command(flatten)]
    pub service: Service,
    /// Command to run
    #[command(subcommand)]
    pub action: TaskAction,
}

/// Actions on tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskAction {
    /// List tasks, newest first
    List {
        /// Maximum number of results
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one task
    Show {
        /// Task id
        id: i64,
    },
    /// Follow a task until it is paused or finished
    Watch {
        /// Task id
        id: i64,
    },
    /// Create a task; credentials are read from WHIMBREL_SOURCE_… and WHIMBREL_TARGET_…
    Create {
        /// Source, as REGION:BUCKET/PREFIX
        source: String,
        /// Target, as REGION:BUCKET/PREFIX
        target: String,
        /// cloud_type of the source
        #[arg(long, default_value = "AWS")]
        cloud_type: String,
    },
    /// Stop a task (paused within 1 s)
    Stop {
        /// Task id
        id: i64,
    },
    /// Start a paused or failed task; credentials as for `create`
    Start {
        /// Task id
        id: i64,
        /// Copy only objects that failed
        #[arg(long)]
        failed_only: bool,
    },
    /// Delete a task that is not running
    Delete {
        /// Task id
        id: i64,
    },
    /// Print the audit trail, oldest line first
    Audit {
        /// Maximum number of lines
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
}

/// `whimbrel keys`
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// Configuration file of the service
    #[arg(long, global = true, default_value = "whimbrel.toml")]
    pub config: PathBuf,
    /// Data directory (overrides the configuration file)
    #[arg(long, global = true)]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Command to run
    #[command(subcommand)]
    pub action: KeysAction,
}

/// Actions on keys.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// List the keys and the number of secrets that each key seals
    List,
    /// Add a new key, seal all secrets with it and remove older keys; the service may be running
    Rotate,
}

/// `whimbrel doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Configuration file
    #[arg(long, default_value = "whimbrel.toml")]
    pub config: PathBuf,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}
