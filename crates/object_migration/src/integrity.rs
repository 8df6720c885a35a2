//! Whether the target verifies a CRC-64/NVME of what is written: found out once, with the first object that needs it.
//!
//! The proof needs an upload at the target. It is in the ledger like that of a large object, so that one which a killed
//! process left is aborted when the task goes on.

use std::time::Duration;

use model::error::{Error, Kind, Result};
use model::key::Key;
use storage::{Fact, Meta, ObjectStore, WriteCrc};
use store::{UnresolvedUpload, Upload};

use crate::transfer::ObjectCopier;

/// A store that does not understand the request may never answer it.
const PROOF_TIMEOUT: Duration = Duration::from_secs(30);

/// So many proofs may fail for reasons that pass.
const PROOFS_MAX: u32 = 3;

impl ObjectCopier {
    /// Learns how writes to the target can carry a CRC-64, unless that is known. Until then they carry none.
    ///
    /// # Errors
    /// Only when the ledger cannot be written.
    pub(crate) async fn learn_write_crc(&self, key: &Key) -> Result<()> {
        if self.target.capability().write_crc != WriteCrc::Unproved {
            return Ok(());
        }
        let mut proofs = self.crc_proofs.lock().await;
        // The key's own upload is not disturbed: another object will do.
        let known = self.target.capability().write_crc != WriteCrc::Unproved;
        if known || self.ledger.any_upload_of(key).is_some() {
            return Ok(());
        }
        if !self.target.capability().multipart {
            self.target.learn(Fact::WriteCrc(WriteCrc::None));
            return Ok(());
        }
        *proofs += 1;
        let upload = Upload {
            key: key.clone(),
            etag: String::new(),
            upload: String::new(),
            part_size: 0,
            size: 0,
            parts: "[]".into(),
            unresolved: UnresolvedUpload::None,
        };
        self.ledger.put_upload(upload.clone());
        self.ledger.flush().await?;
        let proof = tokio::time::timeout(PROOF_TIMEOUT, self.write_crc_by(upload)).await;
        self.abandon_upload(key).await;
        match proof.unwrap_or_else(|_| Err(Error::new(Kind::Timeout, "write_part", "no answer"))) {
            Ok(found) => self.target.learn(Fact::WriteCrc(found)),
            Err(f) if f.is_temporary() && *proofs < PROOFS_MAX => {
                tracing::debug!("cannot determine whether the target verifies checksums: {f}");
            }
            Err(f) => {
                tracing::debug!("no checksums are sent to the target: {f}");
                self.target.learn(Fact::WriteCrc(WriteCrc::None));
            }
        }
        Ok(())
    }

    async fn write_crc_by(&self, mut upload: Upload) -> Result<WriteCrc> {
        let to = upload.key.under(&self.spec.save_prefix);
        let meta = Meta { part_crc: true, ..Meta::default() };
        upload.upload = match self.target.begin_upload(&to, &meta).await {
            Ok(id) => id,
            Err(f) => {
                // A refused upload was not begun, so there is none to look for.
                if !f.is_temporary() {
                    self.ledger.forget_upload(&upload.key);
                }
                return Err(f);
            }
        };
        self.ledger.put_upload(upload.clone());
        self.target.prove_write_crc(&to, &upload.upload).await
    }
}
