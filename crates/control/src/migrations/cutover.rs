//! Cut-over and rollback on request (2.14, 2.15).

use model::migration::{Endpoint, MigrationEvent, next};
use runtime::migrations::{MessageCode, resolve_node};
use store::MigrationRow;

use super::error;
use super::error::{MigrationError, MigrationReply};
use crate::Control;

impl Control {
    /// Leads clients to the target (2.14): both ends are registered, or a hook is configured.
    ///
    /// # Errors
    /// [`MigrationError::State`] unless changes are followed; [`MigrationError::NotOnThisNode`] if nothing redirects clients.
    pub async fn cut_over(
        &self,
        project: &str,
        id: &str,
        addresses: &[String],
        domain: bool,
    ) -> MigrationReply<()> {
        let mut tx = self.engine.store().write().await?;
        let row = self.migration(&mut tx, project, id).await?;
        // What is wrong with the state is said first (dcs-migration.md §5, precedence).
        next(row.state, MigrationEvent::Cutover)
            .map_err(|why| MigrationError::State(row.state.phase, why))?;
        let redirects = tx.redirects().await?;
        self.check_ends(project, &row.spec)?;
        self.check_driver(&row)?;
        if domain {
            return Err(MigrationError::Domain);
        }
        let secret = seal::Secret::default();
        let source = row.spec.source.clone().unwrap_or_default();
        let node = resolve_node(&source, &secret, &*self.catalogue, &redirects)
            .map_err(|f| error::from_failure("source_instance", true, &f))?;
        let strange = addresses.iter().enumerate().find(|(_, a)| {
            !node.addrs.iter().any(|(host, port)| host == *a || format!("{host}:{port}") == **a)
        });
        if let Some((i, address)) = strange {
            let why = format!("`{address:.64}` is not an address of the source");
            return Err(MigrationError::UnusableInstance(format!("exchanged_ip[{i}]"), why));
        }
        self.apply_event(&mut tx, &row, MigrationEvent::Cutover).await?;
        // What an earlier cut-over remembers of the source stays.
        let mut cutover = row.cutover.clone();
        cutover["exchanged_ip"] = serde_json::json!(addresses);
        cutover["hooked"] = false.into();
        tx.set_cutover(&row.id, &cutover).await?;
        tx.set_migration_error(&row.id, None).await?;
        self.log(&mut tx, &row.id, MessageCode::Cutover, &["requested".to_owned()]).await?;
        Ok(tx.commit().await?)
    }

    /// Leads clients back to the source (2.15).
    ///
    /// # Errors
    /// [`MigrationError::State`] unless there was a cut-over.
    pub async fn roll_back(&self, project: &str, id: &str) -> MigrationReply<()> {
        let mut tx = self.engine.store().write().await?;
        let row = self.migration(&mut tx, project, id).await?;
        next(row.state, MigrationEvent::Rollback)
            .map_err(|why| MigrationError::State(row.state.phase, why))?;
        self.check_driver(&row)?;
        self.apply_event(&mut tx, &row, MigrationEvent::Rollback).await?;
        self.log(&mut tx, &row.id, MessageCode::Cutover, &["rollback requested".to_owned()]).await?;
        Ok(tx.commit().await?)
    }

    fn check_driver(&self, row: &MigrationRow) -> MigrationReply<()> {
        let registered = |end: &Option<Endpoint>| end.as_ref().is_some_and(|e| e.id.is_some());
        let both = registered(&row.spec.source) && registered(&row.spec.target);
        if both || self.catalogue.registry().hook.is_some() {
            return Ok(());
        }
        let why = "No cut-over mechanism is configured; hint: register both instances under [[redis]] and use their \
             ids, or set cutover.hook";
        Err(MigrationError::NotOnThisNode(why.into()))
    }
}
