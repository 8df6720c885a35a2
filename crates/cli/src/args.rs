//! What the user typed; touches nothing outside.

mod redis;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use redis::{
    Existing, Redis, RedisClean, RedisCommand, RedisCopy, RedisImport, RedisTask, RedisTaskAction,
    RedisVerify, Routing,
};

/// Moves object storage and Redis from anywhere to anywhere, and can be stopped at any moment.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; twice for each retry
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How the log on stderr looks
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// What to do
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
    /// Copy in the foreground; Ctrl-C pauses, the same command resumes
    Copy(Box<Copy>),
    /// Compare two sides without writing; exit 1 if they differ
    Verify(Verify),
    /// List a source: counts, bytes, sizes, largest folders
    Assess(Assess),
    /// Move a Redis or Valkey, compare two of them, or apply a backup
    Redis(Redis),
    /// Talk to a running service
    Task(Task),
    /// Check configuration, database, stores and clock
    Doctor(Doctor),
    /// Show or replace the keys that seal secrets
    Keys(Keys),
    /// Print completions for a shell
    Completions {
        /// The shell
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
            Command::Init(_) | Command::Serve(_) | Command::Completions { .. } => false,
        }
    }
}

/// `whimbrel init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where SQLite, ledgers and the sealing key live
    #[arg(long, default_value = "./whimbrel-data")]
    pub data_dir: PathBuf,
    /// The file to write
    #[arg(long, default_value = "whimbrel.toml")]
    pub config: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    pub force: bool,
}

/// `whimbrel serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Configuration file [default: whimbrel.toml, written when missing]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Address to listen on, over the file's
    #[arg(long)]
    pub listen: Option<String>,
    /// Data directory, over the file's
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Database, over the file's
    #[arg(long)]
    pub database: Option<String>,
}

/// Where both ends are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ends {
    /// Endpoint of the source, e.g. http://10.0.0.5:9000
    #[arg(long)]
    pub source_endpoint: Option<String>,
    /// Endpoint of the target
    #[arg(long)]
    pub target_endpoint: Option<String>,
    /// Region to sign for at the source
    #[arg(long)]
    pub source_region: Option<String>,
    /// Region to sign for at the target
    #[arg(long)]
    pub target_region: Option<String>,
    /// Configuration file with [[store]]s, for STORE:BUCKET/PREFIX
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Only keys that match; may be repeated
    #[arg(long)]
    pub include: Vec<String>,
    /// No keys that match; may be repeated
    #[arg(long)]
    pub exclude: Vec<String>,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// `whimbrel copy`
#[derive(Clone, Debug, Args)]
pub(crate) struct Copy {
    /// s3://, az:// or gs://BUCKET/PREFIX, a directory, STORE:BUCKET/PREFIX, or https://HOST/list.txt of URLs
    pub source: String,
    /// s3://, az:// or gs://BUCKET/PREFIX, a directory, or STORE:BUCKET/PREFIX
    pub target: String,
    /// Both ends
    #[command(flatten)]
    pub ends: Ends,
    /// Requests in flight [default: adaptive]
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// Bytes per second, e.g. 50MiB/s
    #[arg(long)]
    pub bandwidth: Option<String>,
    /// When to replace what stands at the target
    #[arg(long, default_value = "newer", value_parser = ["never", "newer", "checksum", "always"])]
    pub overwrite: String,
    /// The weakest proof that counts as copied
    #[arg(long, default_value = "digest", value_parser = ["size", "digest", "none"])]
    pub check: String,
    /// Which metadata travels
    #[arg(long, default_value = "all", value_parser = ["all", "content-type"])]
    pub metadata: String,
    /// Only objects modified after this, YYYY-MM-DDTHH:MM:SSZ or seconds since 1970
    #[arg(long)]
    pub since: Option<String>,
    /// Say what would be copied and deleted, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only the keys in this file: one URL-encoded key per line
    #[arg(long)]
    pub list_file: Option<PathBuf>,
    /// After a complete copy, remove from the target what the source does not have; asks first
    #[arg(long, conflicts_with_all = ["list_file", "since"])]
    pub delete: bool,
    /// Do not ask before --delete removes
    #[arg(long, requires = "delete")]
    pub yes: bool,
    /// Let --delete remove more than half of the target
    #[arg(long, requires = "delete")]
    pub delete_most: bool,
    /// Bytes per part of large objects [default: the source's own layout, else 16MiB]
    #[arg(long)]
    pub part_size: Option<String>,
    /// Directory for per-object outcome files
    #[arg(long, conflicts_with = "dry_run")]
    pub report: Option<PathBuf>,
    /// Form of those files
    #[arg(long, default_value = "tsv", value_parser = ["tsv", "csv", "parquet"], requires = "report")]
    pub report_format: String,
    /// Every version of each key, oldest first, deletions included; both sides must keep versions
    #[arg(long, conflicts_with = "list_file")]
    pub all_versions: bool,
    /// Access rules of objects too, as the canned rule that comes nearest
    #[arg(long)]
    pub acl: bool,
    /// Where the ledger lives [default: ~/.local/state/whimbrel]
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Forget an earlier, unfinished run of the same command
    #[arg(long)]
    pub no_resume: bool,
    /// Memory of all buffers together
    #[arg(long, default_value = "512MiB")]
    pub memory: String,
}

/// `whimbrel verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// One side
    pub source: String,
    /// The other side
    pub target: String,
    /// Both ends
    #[command(flatten)]
    pub ends: Ends,
    /// How to compare objects whose ETags say nothing
    #[arg(long, default_value = "digest", value_parser = ["size", "digest"])]
    pub check: String,
}

/// `whimbrel assess`
#[derive(Debug, Args)]
pub(crate) struct Assess {
    /// s3://BUCKET/PREFIX, a directory, or STORE:BUCKET/PREFIX
    pub source: String,
    /// Where it is
    #[command(flatten)]
    pub ends: Ends,
}

/// A running service, and who calls it.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// The service
    #[arg(long, global = true, env = "WHIMBREL_ENDPOINT", default_value = "http://127.0.0.1:8790")]
    pub endpoint: String,
    /// Access key
    #[arg(long, global = true, env = "WHIMBREL_AK", default_value = "")]
    pub ak: String,
    /// Secret key; better by the environment
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
    /// What to do
    #[command(subcommand)]
    pub action: TaskAction,
}

/// Actions on tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskAction {
    /// List tasks, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one task
    Show {
        /// Its id
        id: i64,
    },
    /// Follow one task until it rests or ends
    Watch {
        /// Its id
        id: i64,
    },
    /// Create a task; keys come from WHIMBREL_SOURCE_… and WHIMBREL_TARGET_…
    Create {
        /// REGION:BUCKET/PREFIX
        source: String,
        /// REGION:BUCKET/PREFIX
        target: String,
        /// Vendor of the source
        #[arg(long, default_value = "AWS")]
        cloud_type: String,
    },
    /// Stop a task; it rests within a second
    Stop {
        /// Its id
        id: i64,
    },
    /// Start a stopped or failed task; keys as for create
    Start {
        /// Its id
        id: i64,
        /// Only objects that failed
        #[arg(long)]
        failed_only: bool,
    },
    /// Delete a task that does not run
    Delete {
        /// Its id
        id: i64,
    },
    /// Print who did what, and who was refused, oldest line first
    Audit {
        /// At most so many lines
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
    /// Data directory, over the file's
    #[arg(long, global = true)]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub action: KeysAction,
}

/// Actions on keys.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// List the keys and how many secrets each of them seals
    List,
    /// Add a new key, seal every secret again with it and remove the older keys; the service may run
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
