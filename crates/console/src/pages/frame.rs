//! What stands around every page: navigation, project, language, theme.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use control::identity::role_name;
use http::StatusCode;
use model::task::Visible;

use super::Look;
use crate::Console;
use crate::assets::{Paths, paths};
use crate::form::query;
use crate::gate::Viewer;
use crate::html::escape;
use crate::outcome::PageError;
use crate::prefs::{Prefs, Theme};
use crate::text::{Lang, Text};

/// The entry of the navigation that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nav {
    None,
    Overview,
    Tasks,
    Syncs,
    Redis,
    Stores,
    Keys,
    Audit,
}

/// What stands around a page.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) look: Look,
    pub(crate) t: Text,
    pub(crate) title: String,
    pub(crate) nav: Nav,
    pub(crate) theme: Theme,
    pub(crate) csrf: String,
    pub(crate) user: String,
    pub(crate) role: &'static str,
    pub(crate) project: String,
    /// Id, name, and whether it is shown now; empty for a user of one project.
    pub(crate) projects: Vec<(String, String, bool)>,
    pub(crate) tasks: u64,
    pub(crate) failed: u64,
    pub(crate) redis: u64,
    pub(crate) syncs: u64,
    /// Address of its live updates; empty: it has none.
    pub(crate) live: String,
    pub(crate) files: Paths,
    pub(crate) version: &'static str,
}

impl Frame {
    pub(crate) fn csrf_field(&self) -> String {
        format!(r#"<input type="hidden" name="csrf" value="{}">"#, escape(&self.csrf))
    }

    pub(crate) fn current(&self, nav: Nav) -> &'static str {
        if self.nav == nav { r#" aria-current="page""# } else { "" }
    }

    pub(crate) fn theme_attribute(&self) -> String {
        match self.theme {
            Theme::Auto => String::new(),
            theme => format!(r#" data-theme="{}""#, theme.word()),
        }
    }

    pub(crate) fn next_theme(&self) -> &'static str {
        self.theme.next().word()
    }

    pub(crate) fn theme_label(&self) -> &'static str {
        match self.theme {
            Theme::Auto => self.t.theme_auto(),
            Theme::Light => self.t.theme_light(),
            Theme::Dark => self.t.theme_dark(),
        }
    }

    pub(crate) fn other_lang(&self) -> (&'static str, &'static str, &'static str) {
        match self.t.lang() {
            Lang::En => ("zh", "zh-CN", "中文"),
            Lang::Zh => ("en", "en", "English"),
        }
    }

    /// With live updates: their topic, and further fields of a query.
    pub(crate) fn live(mut self, topic: &str, more: &[(&str, &str)]) -> Self {
        let fields: Vec<_> = [("topic", topic)].into_iter().chain(more.iter().copied()).collect();
        self.live = format!("/console/live?{}", query(&fields));
        self
    }

    /// The time of the numbers, as the page says it without script.
    pub(crate) fn as_of(&self) -> String {
        self.t.as_of(crate::format::clock(self.look.now, self.look.zone))
    }

    /// The frame of somebody who has not signed in.
    pub(crate) fn outside(prefs: Prefs, now: i64, title: &str, csrf: String) -> Self {
        let t = Text::new(prefs.lang);
        Self {
            look: Look { t, zone: prefs.zone, now, may_change: false },
            t,
            title: title.to_owned(),
            nav: Nav::None,
            theme: prefs.theme,
            csrf,
            user: String::new(),
            role: "",
            project: String::new(),
            projects: vec![],
            tasks: 0,
            failed: 0,
            redis: 0,
            syncs: 0,
            live: String::new(),
            files: paths(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// The frame of a page of a project.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn of(
        console: &Console,
        viewer: &Viewer,
        nav: Nav,
        title: &str,
    ) -> Result<Self, PageError> {
        let control = &console.control;
        let counts = control.task_counts(viewer.project()).await?;
        let (_, redis) = control.list_migrations(viewer.project(), "", 0, 1).await?;
        let (_, syncs) = control.list_syncs(viewer.project(), None, 0, 1).await?;
        let accounts = control.directory.accounts();
        let own = viewer.principal.projects.iter().filter_map(|id| accounts.project(id));
        let projects: Vec<_> =
            own.map(|p| (p.id.clone(), p.name.clone(), p.id == viewer.project.id)).collect();
        let outside = Self::outside(viewer.prefs, control.clock.now_ms(), title, viewer.csrf.clone());
        Ok(Self {
            look: Look::of(viewer, outside.look.now),
            nav,
            user: viewer.principal.name.clone(),
            role: role_name(viewer.principal.role),
            project: viewer.project.name.clone(),
            projects: if projects.len() > 1 { projects } else { vec![] },
            tasks: counts.all(),
            failed: counts.of(Visible::Failed),
            redis,
            syncs,
            ..outside
        })
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    f: &'a Frame,
    what: &'a str,
    why: &'a str,
    request: &'a str,
}

#[derive(Template)]
#[template(path = "error_solo.html")]
struct ErrorSolo<'a> {
    f: &'a Frame,
    what: &'a str,
    why: &'a str,
    request: &'a str,
}

/// The page of a request that is refused.
pub(crate) async fn error_page(
    console: &Console,
    viewer: Option<&Viewer>,
    prefs: Prefs,
    error: &PageError,
    request: &str,
    status: StatusCode,
) -> Response {
    let (what, why) = error.words(Text::new(prefs.lang));
    let framed = match viewer {
        Some(viewer) => Frame::of(console, viewer, Nav::None, what).await.ok(),
        None => None,
    };
    let drawn = match framed {
        Some(f) => ErrorPage { f: &f, what, why, request }.render(),
        None => {
            let f = Frame::outside(prefs, console.control.clock.now_ms(), what, String::new());
            ErrorSolo { f: &f, what, why, request }.render()
        }
    };
    (status, Html(drawn.unwrap_or_else(|_| escape(what)))).into_response()
}
