//! What a task belongs to.

/// The owner of a task, in addition to its project (OMS §2.3, `group_type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// It stands alone.
    #[default]
    None,
    /// It works off a batch of a sync task's events.
    Sync(String),
    /// It is part of a task group.
    Group(String),
}

impl Parent {
    /// The owner's identity; empty for a task that stands alone.
    pub fn id(&self) -> &str {
        match self {
            Parent::None => "",
            Parent::Sync(id) | Parent::Group(id) => id,
        }
    }

    /// The word that is stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Parent::None => "",
            Parent::Sync(_) => "sync",
            Parent::Group(_) => "group",
        }
    }

    /// From the stored word and identity.
    pub fn parse(kind: &str, of: &str) -> Self {
        match kind {
            "sync" => Parent::Sync(of.to_owned()),
            "group" => Parent::Group(of.to_owned()),
            _ => Parent::None,
        }
    }

    /// Where the record files of the task `name` stand at the target: what comes before and after the folder of a
    /// list (OMS §4.7).
    pub fn record_paths(&self, name: &str) -> (String, String) {
        match self {
            Parent::None => (format!("oms/task/{name}/"), String::new()),
            Parent::Sync(id) => (format!("oms/sync_task/{id}/"), format!("{name}/")),
            Parent::Group(id) => (format!("oms/task_group/{id}/"), format!("{name}/")),
        }
    }
}
