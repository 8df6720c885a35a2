//! The pages, one file each.

pub(crate) mod audit;
pub(crate) mod frame;
pub(crate) mod keys;
pub(crate) mod new;
pub(crate) mod overview;
pub(crate) mod redis;
pub(crate) mod signin;
pub(crate) mod stores;
pub(crate) mod syncs;
pub(crate) mod task;
pub(crate) mod tasks;

use std::borrow::Borrow;

use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use model::spec::{Location, TaskSpec};

use crate::format::{machine_time, minute_of_day};
use crate::gate::Viewer;
use crate::html::{escape, icon};
use crate::outcome::{PageError, Reply};
use crate::text::Text;

/// How numbers are shown: in which language, zone and moment, and whether actions are offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) t: Text,
    /// Minutes east of UTC.
    pub(crate) zone: i32,
    /// Milliseconds.
    pub(crate) now: i64,
    pub(crate) may_change: bool,
}

impl Look {
    pub(crate) fn of(viewer: &Viewer, now: i64) -> Self {
        let prefs = viewer.prefs;
        Self { t: Text::new(prefs.lang), zone: prefs.zone, now, may_change: viewer.may_change() }
    }

    /// An instant, for people.
    pub(crate) fn time(&self, ms: impl Borrow<i64>) -> String {
        self.t.time(*ms.borrow(), self.zone, self.now)
    }

    /// An instant as an element.
    pub(crate) fn time_tag(&self, ms: impl Borrow<i64>) -> String {
        let ms = *ms.borrow();
        format!(r#"<time datetime="{}">{}</time>"#, machine_time(ms), escape(&self.time(ms)))
    }

    pub(crate) fn minute(&self) -> u16 {
        minute_of_day(self.now, self.zone)
    }

    /// An icon of the sprite.
    pub(crate) fn i(&self, name: &'static str) -> String {
        icon(name)
    }
}

/// Draws a template; a failure is ours.
pub(crate) fn draw(template: &impl askama::Template) -> Result<String, PageError> {
    template.render().map_err(|e| {
        tracing::error!("a page of the console was not drawn: {e}");
        PageError::Internal
    })
}

/// A page.
pub(crate) fn page(template: &impl askama::Template) -> Reply {
    Ok(Html(draw(template)?).into_response())
}

/// A page with a status.
pub(crate) fn page_with(status: StatusCode, template: &impl askama::Template) -> Reply {
    let mut response: Response = Html(draw(template)?).into_response();
    *response.status_mut() = status;
    Ok(response)
}

/// The two places of a task as people write them: `REGION:BUCKET/PREFIX`.
pub(crate) fn places(spec: &TaskSpec) -> (String, String) {
    let one = match (spec.selection.entries(), spec.selection.list_file()) {
        (_, Some(file)) => return (format!("{}:{}", file.bucket, file.key), target(spec)),
        ([one], _) => one.clone(),
        _ => String::new(),
    };
    (written(&spec.source, &one), target(spec))
}

fn target(spec: &TaskSpec) -> String {
    written(&spec.target, &spec.save_prefix)
}

fn written(place: &Location, prefix: &str) -> String {
    let Location { region, bucket, .. } = place;
    let region = if region.is_empty() { &place.cloud_type } else { region };
    if prefix.is_empty() { format!("{region}:{bucket}") } else { format!("{region}:{bucket}/{prefix}") }
}
