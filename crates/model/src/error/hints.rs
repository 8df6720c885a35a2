//! The hint of an error: one action for the person who reads it.

use super::{Error, Kind, Reason, Side};

impl Error {
    /// The hint of the reason, as it reads for this side; else that of the kind.
    pub fn remedy(&self) -> &'static str {
        let reason = match self.reason {
            Reason::Unspecified => Reason::of_text(self.kind, self.side, self.op, &self.message),
            reason => reason,
        };
        hint(self.kind, self.side, reason).unwrap_or_else(|| self.kind.remedy())
    }
}

fn hint(kind: Kind, side: Side, reason: Reason) -> Option<&'static str> {
    redis_hint(kind, side, reason).or_else(|| storage_hint(kind, side, reason))
}

fn storage_hint(kind: Kind, side: Side, reason: Reason) -> Option<&'static str> {
    Some(match (kind, side, reason) {
        (_, _, Reason::EgressDenied) => {
            "ask the operator to add the host or network to limits.inline_endpoints (for Redis: \
             limits.redis_endpoints)"
        }
        (_, _, Reason::Keyring) => {
            "restore the `seal.key` of this database from a backup; without it, move the database away and \
             configure the service again"
        }
        (_, _, Reason::FileMode) => "run `chmod 600` on the file",
        (Kind::Conflict, _, Reason::KeyRotation) => {
            "run `whimbrel keys rotate` again when the other command has finished"
        }
        (Kind::Timeout, _, Reason::KeyRotation) => {
            "check the log of the service, restart the service, then run `whimbrel keys rotate` again"
        }
        (Kind::ReadOnly, _, Reason::KeyRotation) => "run the command as the owner of the data directory",
        (Kind::WrongRegion, Side::Source, _) => "set --source-region, or `signing_region` of the store",
        (Kind::WrongRegion, Side::Target, _) => "set --target-region, or `signing_region` of the store",
        (Kind::InvalidKey, Side::Source, _) => "shorten or rename the file",
        (Kind::Forbidden, _, Reason::LocalPath) => {
            "grant this user read permission (at the target also write permission)"
        }
        (Kind::NoBucket, _, Reason::LocalPath) => "create the directory or correct its name",
        _ => return None,
    })
}

fn redis_hint(kind: Kind, side: Side, reason: Reason) -> Option<&'static str> {
    Some(match (reason, kind, side) {
        (Reason::RedisServer, Kind::BadCredentials, _) => {
            "check the user and the password (on the command line: WHIMBREL_SOURCE_PASSWORD, \
             WHIMBREL_TARGET_PASSWORD)"
        }
        (Reason::RedisServer, Kind::Forbidden, _) => "grant the user the commands that docs/redis.md lists",
        (Reason::RedisServer, Kind::NoSpace, _) => {
            "raise `maxmemory` or free memory at the target; the migration then \
             resumes by itself"
        }
        (Reason::RedisServer, Kind::Unavailable, _) => {
            "no action needed; the migration resumes when the server accepts \
             writes"
        }
        (Reason::MissingDatabase, ..) => {
            "map the database to another number (--db-map), exclude it, or raise `databases` at the target"
        }
        (Reason::MigrationRunning, ..) => "stop the migration first, or use --force",
        (Reason::ReplicationLoop, ..) => "stop one of the two migrations",
        (Reason::FunctionExists, ..) => {
            "delete that library at the target, or use --functions replace or --functions skip"
        }
        (Reason::BackupFormat, ..) => {
            "the file was written by a newer or different server: copy from the running server (--mode scan), or \
             update whimbrel"
        }
        (Reason::Sentinel, ..) => "use the address of the master",
        (Reason::NoReplication, ..) => {
            "copy with --mode scan, or give the new name of REPLCONF (--source-command REPLCONF=NAME)"
        }
        (Reason::NoInfo, ..) => "give the new name of INFO (--source-command INFO=NAME)",
        (Reason::UnknownCommand, _, Side::Source) => {
            "give the new name of the command (--source-command NAME=NEW_NAME), or import a backup"
        }
        (Reason::UnknownCommand, ..) => {
            "exclude the command (--skip-command NAME), or choose a target that supports it"
        }
        (Reason::CommandsInBackup, ..) => {
            "import into an empty target without key or database filters, or exclude these commands \
             (--leave-out-commands)"
        }
        (Reason::MissingScript, ..) => {
            "load the script at the target (SCRIPT LOAD), delete the checkpoint key, then start again"
        }
        (Reason::DumpVersion, ..) => {
            "choose a target of a newer version, delete the checkpoint key, then start again"
        }
        (Reason::DumpFormat, ..) => {
            "use a target version that supports this value, delete the checkpoint key, then start again"
        }
        (Reason::FullResync, ..) => "no action needed; a full sync starts",
        (Reason::CommandRefused, ..) => {
            "correct the cause in the target's reply, then run the same command again"
        }
        (Reason::CertificateRequired, ..) => {
            "configure a client certificate (--source-cert and --source-key, --target-cert and --target-key, `cert` and `key` of [[redis]])"
        }
        (Reason::CertificateUntrusted, ..) => {
            "configure the CA certificates of the server (--source-ca, --target-ca, `ca` of [[redis]], or SSL_CERT_FILE)"
        }
        (Reason::ConnectionLost, ..) => {
            "no action needed if the server is reachable again; if this repeats, check the server log, \
             `timeout`, `maxclients` and output buffer limits"
        }
        (Reason::SaveFailed, ..) => "free disk space at the target; the migration then resumes by itself",
        (Reason::UncoveredSlots, ..) => {
            "assign these slots to a master (redis-cli --cluster fix), or copy only the served slots (--allow-uncovered-slots)"
        }
        (Reason::Diverged, ..) => {
            "stop other writers at the target, delete the checkpoint key, then start again"
        }
        (Reason::Fenced, ..) => "no action needed; the other run continues",
        (Reason::KeyExists, ..) => "use --replace or --skip-existing, or choose an empty target",
        (Reason::BackupFile, ..) => "the file is corrupt or not an RDB/AOF backup; obtain it again",
        _ => return None,
    })
}
