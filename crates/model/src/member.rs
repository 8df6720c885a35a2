//! What a task belongs to.

/// The owner of a task, beside its project (OMS §2.3, `group_type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Member {
    /// It stands alone.
    #[default]
    Nobody,
    /// It works off a batch of a sync task's events.
    Sync(String),
    /// It is part of a task group.
    Group(String),
}

impl Member {
    /// The owner's identity; empty for a task that stands alone.
    pub fn of(&self) -> &str {
        match self {
            Member::Nobody => "",
            Member::Sync(id) | Member::Group(id) => id,
        }
    }

    /// The word that is stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Member::Nobody => "",
            Member::Sync(_) => "sync",
            Member::Group(_) => "group",
        }
    }

    /// From the stored word and identity.
    pub fn from_words(kind: &str, of: &str) -> Self {
        match kind {
            "sync" => Member::Sync(of.to_owned()),
            "group" => Member::Group(of.to_owned()),
            _ => Member::Nobody,
        }
    }

    /// Where the record files of the task `name` stand at the target: what comes before and after the folder of a
    /// list (OMS §4.7).
    pub fn records_at(&self, name: &str) -> (String, String) {
        match self {
            Member::Nobody => (format!("oms/task/{name}/"), String::new()),
            Member::Sync(id) => (format!("oms/sync_task/{id}/"), format!("{name}/")),
            Member::Group(id) => (format!("oms/task_group/{id}/"), format!("{name}/")),
        }
    }
}
