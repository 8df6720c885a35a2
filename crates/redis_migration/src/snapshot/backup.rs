//! A backup of a running server: its snapshot, as replication sends it, checked while it is written to a file.

use std::path::Path;

use model::error::{Error, Kind, Result, Side};
use redis_proto::rdb::Parser;
use tokio::io::AsyncWriteExt;

use crate::connection::node::Node;
use crate::snapshot::load::{SPLIT_VALUES_ABOVE, corrupt};
use crate::source::psync;
use crate::source::spool::{Spool, SpoolLimits};

/// Writes the snapshot of `node` to `path`, which is there completely or not at all; answers its length, bytes. What waits to
/// be written is spilled to `spool_dir`.
///
/// # Errors
/// An error of the link or of the disk.
pub async fn save(node: &Node, path: &Path, spool_dir: &Path) -> Result<u64> {
    let disk = |e: std::io::Error| Error::new(Kind::NoSpace, "backup", format!("{}: {e}", path.display()));
    let mut link = psync::open(&Node { db: None, ..node.clone() }, None).await?;
    let spool = Spool::new(spool_dir, SpoolLimits::default())?;
    let receiving = {
        let spool = spool.clone();
        tokio::spawn(async move {
            let received = link.snapshot(&spool).await;
            spool.end(received);
        })
    };
    let part = path.with_extension("part");
    let written = async {
        let mut file = tokio::fs::File::create(&part).await.map_err(disk)?;
        let mut parser = Parser::new(SPLIT_VALUES_ABOVE);
        let (mut len, mut bytes_since_check) = (0, 0);
        while let Some(bytes) = spool.pop().await? {
            parser.push(&bytes);
            while parser.next_item().map_err(|e| corrupt(&e))?.is_some() {}
            bytes_since_check += bytes.len() as u64;
            if bytes_since_check >= storage::disk_space::CHECK_INTERVAL_BYTES {
                storage::disk_space::check(spool_dir)?;
                bytes_since_check = 0;
            }
            file.write_all(&bytes).await.map_err(disk)?;
            len += bytes.len() as u64;
        }
        if !parser.is_over() {
            return Err(Error::new(Kind::Connect, "backup", "the snapshot is truncated").at(Side::Source));
        }
        file.sync_all().await.map_err(disk)?;
        tokio::fs::rename(&part, path).await.map_err(disk)?;
        Ok(len)
    };
    let done: Result<u64> = written.await;
    receiving.abort();
    if done.is_err() {
        let _ = tokio::fs::remove_file(&part).await;
    }
    done
}
