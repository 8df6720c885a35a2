//! What health checks and metrics read.

use model::error::Result;
use model::task::TaskId;
use store::MigrationRow;

use crate::Control;

/// Tasks and migrations that have not ended.
#[derive(Debug)]
pub struct OpenWork {
    /// How many tasks.
    pub tasks: u64,
    /// The tasks that run in this process: identity and project.
    pub tasks_here: Vec<(TaskId, String)>,
    /// Migrations, oldest first.
    pub migrations: Vec<MigrationRow>,
}

impl Control {
    /// Checks that the database can be written and that the disk has free space.
    ///
    /// # Errors
    /// [`model::error::Kind::NoSpace`], [`model::error::Kind::ReadOnly`], or that of the database.
    pub async fn check_writable(&self) -> Result<()> {
        self.engine.store().check_writable(self.clock.now_ms()).await?;
        storage::disk_space::check(self.engine.data_dir())
    }

    /// Tasks and migrations of all projects that have not ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_work(&self) -> Result<OpenWork> {
        let mut tx = self.engine.store().read().await?;
        Ok(OpenWork {
            tasks: tx.count_open_tasks().await?,
            tasks_here: self.engine.tasks_here(),
            migrations: tx.open_migrations().await?,
        })
    }
}
