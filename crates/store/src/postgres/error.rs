//! Errors of PostgreSQL in our kinds, by SQLSTATE.

use model::error::{Error, Kind};
use tokio_postgres::error::SqlState;

/// What the server or the connection said.
pub(super) fn failed(e: &tokio_postgres::Error) -> Error {
    let kind = e.code().map_or(Kind::Connect, kind_of);
    // The library's own sentence is `db error`; the server's says what is wrong.
    let text = match e.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => cause(e),
    };
    Error::new(kind, "store", format!("the database failed: {text}"))
}

/// An error with what caused it, which the library keeps apart.
fn cause(e: &dyn std::error::Error) -> String {
    match e.source() {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}

fn kind_of(code: &SqlState) -> Kind {
    let class = code.code().get(..2).unwrap_or_default();
    match class {
        // Integrity constraints.
        "23" => Kind::Conflict,
        // Connections, and a server that stops or starts.
        "08" | "57" => Kind::Connect,
        // Serialization, deadlocks, locks that were waited for too long.
        "40" | "55" => Kind::Unavailable,
        "53" if *code == SqlState::DISK_FULL => Kind::NoSpace,
        // Too many connections, no memory.
        "53" => Kind::Unavailable,
        // A primary that has become a standby: another server is the primary now.
        "25" if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Kind::Connect,
        // The database does not exist.
        "3D" => Kind::NotFound,
        "28" => Kind::BadCredentials,
        _ => Kind::Internal,
    }
}

/// A commit whose answer was lost may have happened or not.
pub(super) fn commit_failed(e: &tokio_postgres::Error) -> Error {
    let failure = failed(e);
    if e.code().is_some() && failure.kind != Kind::Connect {
        return failure;
    }
    let m = format!(
        "the connection to the database ended during a commit, so its outcome is unknown: {}",
        cause(e)
    );
    Error::new(Kind::Connect, "store", m)
}

pub(super) fn gone() -> Error {
    Error::new(Kind::Connect, "store", "the connection to the database has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_decides_the_kind() {
        for (code, kind) in [
            ("23505", Kind::Conflict),
            ("08006", Kind::Connect),
            ("57P01", Kind::Connect),
            ("25006", Kind::Connect),
            ("25P02", Kind::Internal),
            ("40P01", Kind::Unavailable),
            ("55P03", Kind::Unavailable),
            ("53100", Kind::NoSpace),
            ("53300", Kind::Unavailable),
            ("28P01", Kind::BadCredentials),
            ("3D000", Kind::NotFound),
            ("42P01", Kind::Internal),
        ] {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }
}
