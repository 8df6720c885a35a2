//! The rows of the list as live updates draw them again.

use std::collections::VecDeque;

use model::task::TaskId;

use super::super::Look;
use super::{ListQuery, PAGE_TASKS, Row};
use crate::Console;
use crate::live::Fragments;
use crate::outcome::PageError;

/// Rows that live updates remember after they have left their page.
const DEPARTED_MAX: usize = 50;

/// Rows that live updates have drawn: one that leaves its page, because its state has changed, is drawn on.
#[derive(Debug, Default)]
pub(crate) struct SeenRows(VecDeque<TaskId>);

pub(crate) async fn fragments(
    console: &Console,
    project: &str,
    asked: &ListQuery,
    look: Look,
    seen: &mut SeenRows,
) -> Result<Fragments, PageError> {
    let found = console.control.task_page(project, &asked.query()).await?;
    let mut out = Fragments::new();
    let mut now = Vec::new();
    for view in &found.tasks {
        now.push(view.task.id);
        Row::of(look, view)?.fragments(&mut out);
    }
    let departed: Vec<TaskId> = seen.0.iter().copied().filter(|id| !now.contains(id)).collect();
    for id in departed {
        match console.control.show(project, id).await {
            Ok(view) => Row::of(look, &view)?.fragments(&mut out),
            // It was deleted: its row stays as it is until the page is loaded again.
            Err(_) => seen.0.retain(|other| *other != id),
        }
    }
    for id in now {
        if !seen.0.contains(&id) {
            seen.0.push_back(id);
        }
    }
    while seen.0.len() > PAGE_TASKS as usize + DEPARTED_MAX {
        seen.0.pop_front();
    }
    Ok(out)
}
