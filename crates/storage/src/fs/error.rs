//! Errors of the operating system as errors of a store.

use model::error::{Error, Kind, Reason};
use rustix::io::Errno;

pub(super) fn io_failure(op: &'static str, what: &dyn std::fmt::Display, e: Errno) -> Error {
    let kind = match e {
        Errno::NOENT => Kind::NotFound,
        Errno::ACCESS | Errno::PERM => Kind::Forbidden,
        Errno::XDEV => Kind::Forbidden,
        Errno::LOOP => Kind::InvalidKey,
        Errno::NOSPC | Errno::DQUOT => Kind::NoSpace,
        Errno::ROFS => Kind::ReadOnly,
        Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL => Kind::InvalidKey,
        Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY => Kind::InvalidKey,
        Errno::FBIG => Kind::TooLarge,
        Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::INTR => Kind::Unavailable,
        _ => Kind::Internal,
    };
    let reason = match e {
        Errno::ACCESS => Reason::LocalPath,
        _ => Reason::Unspecified,
    };
    let why = match e {
        Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY => {
            "a file and a directory with the same name cannot both exist".to_owned()
        }
        Errno::XDEV => "a symbolic link points outside of the root".to_owned(),
        Errno::LOOP => "a directory of its path is a symbolic link".to_owned(),
        e => std::io::Error::from(e).to_string(),
    };
    Error::new(kind, op, format!("`{what}`: {why}")).because(reason).caused_by(std::io::Error::from(e))
}

pub(super) fn std_failure(op: &'static str, what: &dyn std::fmt::Display, e: &std::io::Error) -> Error {
    io_failure(op, what, e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}
