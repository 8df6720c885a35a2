//! What exactly failed, where the kind is too coarse.

use super::{Kind, Side};

/// The part of an error that decides what happens next, or which hint is given, where its [`Kind`] does not.
/// It is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The kind says everything.
    #[default]
    Unspecified,
    /// The source is a cluster: all of its masters are migrated together.
    ClusterSource,
    /// The project has no such task group.
    NoSuchGroup,
    /// The project has no such sync task.
    NoSuchSyncTask,
    /// A sealed secret cannot be opened with this keyring: retrying does not help.
    SecretNotOpened,
    /// The keyring is missing, damaged or belongs to another database.
    Keyring,
    /// A file with secrets may be read by other users.
    FileMode,
    /// The key file cannot be changed, or another key rotation is running.
    KeyRotation,
    /// The operator's rules do not permit a connection to this host.
    EgressDenied,
    /// A path of this machine, not a bucket.
    LocalPath,
    /// The bucket or container exists already.
    AlreadyExists,
    /// The archived object is already being restored.
    RestoreInProgress,
    /// The bytes of an object or part differed in every attempt: copying the whole object again does not help.
    ConfirmedMismatch,
    /// The target holds an object that this transfer wrote and that is not the source's.
    WrongObjectWritten,
    /// A Redis server answered; nothing more is known.
    RedisServer,
    /// The target has no database of this number.
    MissingDatabase,
    /// The migration whose keys are to be removed is running.
    MigrationRunning,
    /// The keys are replicated in a loop.
    ReplicationLoop,
    /// The target has another library of functions of this name.
    FunctionExists,
    /// The RDB or AOF version is not supported.
    BackupFormat,
    /// The address is that of a Sentinel.
    Sentinel,
    /// The source does not support `PSYNC`, or has renamed `REPLCONF`.
    NoReplication,
    /// The source has renamed `INFO`.
    NoInfo,
    /// The server does not know a command.
    UnknownCommand,
    /// Commands of an AOF need the keys of the target.
    CommandsInBackup,
    /// The target refused a script that it does not have.
    MissingScript,
    /// The target does not read the source's version of dumps.
    DumpVersion,
    /// The target does not read a value.
    DumpFormat,
    /// The target holds other data than the checkpoint says.
    Diverged,
    /// The migration must copy everything from the start.
    FullResync,
    /// The target refused a command.
    CommandRefused,
    /// The server requires a client certificate.
    CertificateRequired,
    /// The certificate of the server is not signed by a trusted authority.
    CertificateUntrusted,
    /// An open connection to a Redis server ended.
    ConnectionLost,
    /// The server does not accept writes because it cannot save to disk (`MISCONF`).
    SaveFailed,
    /// Slots of the source cluster are not served.
    UncoveredSlots,
    /// Another run of the same migration has taken over.
    Fenced,
    /// The key exists at the target.
    KeyExists,
    /// A backup file cannot be parsed.
    BackupFile,
}

impl Reason {
    /// The reason of an error that names none: one of a row, or one whose producer names only the operation. Used for
    /// hints only.
    pub(super) fn of_text(kind: Kind, side: Side, op: &str, message: &str) -> Self {
        let redis = message.contains("redis://") || message.contains("rediss://");
        let local = message.starts_with("directory ") || message.ends_with("(os error 13)");
        let says = |text: &str| message.contains(text);
        match (kind, side, op) {
            (Kind::BadCredentials, ..) if redis => Reason::RedisServer,
            (Kind::Forbidden, ..) if says("may not connect to") => Reason::EgressDenied,
            (Kind::Forbidden, ..) if redis => Reason::RedisServer,
            (_, _, "keyring") => Reason::Keyring,
            (_, _, "mode") => Reason::FileMode,
            (Kind::Conflict | Kind::Timeout | Kind::ReadOnly, _, "rotate") => Reason::KeyRotation,
            (_, _, "databases") => Reason::MissingDatabase,
            (Kind::Conflict, _, "clean") => Reason::MigrationRunning,
            (_, _, "loop") => Reason::ReplicationLoop,
            (Kind::Conflict, _, "function") => Reason::FunctionExists,
            (Kind::Unsupported, Side::Source, "format") => Reason::BackupFormat,
            (_, _, "sentinel") => Reason::Sentinel,
            (Kind::Unsupported, Side::Source, "psync") => Reason::NoReplication,
            (Kind::Unsupported, Side::Source, "info") if redis => Reason::NoInfo,
            _ if redis && says("unknown command") => Reason::UnknownCommand,
            (Kind::Unsupported, Side::Source, "import") => Reason::CommandsInBackup,
            (Kind::Conflict, _, "diverged") if says("NOSCRIPT") => Reason::MissingScript,
            (Kind::Conflict, _, "diverged") if says("DUMP payload version") => Reason::DumpVersion,
            (Kind::Conflict, _, "diverged") if says("Bad data format") => Reason::DumpFormat,
            // Rows of earlier versions have the operation `anew`.
            (Kind::Changed, _, "full_resync" | "anew") => Reason::FullResync,
            (Kind::Invalid, _, "apply" | "restore" | "rebuild" | "write") if redis => Reason::CommandRefused,
            (Kind::Connect, ..) if redis && says("CertificateRequired") => Reason::CertificateRequired,
            (Kind::Connect, ..) if redis && says("invalid peer certificate") => Reason::CertificateUntrusted,
            (Kind::Connect, ..) if redis && op != "connect" => Reason::ConnectionLost,
            (Kind::NoSpace, ..) if redis => Reason::RedisServer,
            (Kind::Unavailable, ..) if says("MISCONF") => Reason::SaveFailed,
            (Kind::Unavailable, Side::Source, "cluster") => Reason::UncoveredSlots,
            (Kind::Unavailable, ..) if redis => Reason::RedisServer,
            (Kind::Conflict, _, "diverged" | "halted") => Reason::Diverged,
            (Kind::Conflict, _, "fence") => Reason::Fenced,
            (Kind::Conflict, _, "restore") => Reason::KeyExists,
            (Kind::Corrupt, Side::Source, "check" | "read" | "commands" | "snapshot") => Reason::BackupFile,
            (Kind::Forbidden | Kind::NoBucket, ..) if local => Reason::LocalPath,
            _ => Reason::Unspecified,
        }
    }
}
