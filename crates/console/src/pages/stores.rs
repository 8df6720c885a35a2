//! `/console/stores`: the stores and Redis instances of the project.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use control::catalogue::StoreView;

use super::frame::{Frame, Nav};
use super::page;
use crate::Console;
use crate::gate::Viewer;
use crate::html::plain;
use crate::outcome::Reply;
use crate::text::Text;

struct Instance {
    name: String,
    address: String,
    /// None: it does not answer.
    server: Option<(String, u64)>,
}

#[derive(Template)]
#[template(path = "stores.html")]
struct StoresPage {
    f: Frame,
    stores: Vec<StoreView>,
    instances: Vec<Instance>,
}

pub(crate) async fn show(State(console): State<Console>, Extension(viewer): Extension<Viewer>) -> Reply {
    let control = &console.control;
    let f = Frame::of(&console, &viewer, Nav::Stores, Text::new(viewer.prefs.lang).stores()).await?;
    let t = f.t;
    let mut stores = control.catalogue.for_project(viewer.project()).stores();
    // Paths of this machine are the operator's.
    if !viewer.is_admin() {
        stores.iter_mut().for_each(|s| s.path.clear());
    }
    // The instances are asked: each call has a place among those that wait for others.
    let _place = control.begin_outgoing(viewer.project())?;
    let seen = control.instances(viewer.project()).await?;
    let instances = seen
        .into_iter()
        .map(|i| Instance {
            name: plain(&i.name),
            address: i.node.addrs.iter().map(|(h, p)| format!("{h}:{p}")).collect::<Vec<_>>().join(", "),
            server: i.server.map(|s| {
                let kind = if s.cluster { t.cluster() } else { t.single_server() };
                (format!("{:?} {}.{}, {kind}", s.family, s.version.0, s.version.1), s.keys)
            }),
        })
        .collect();
    page(&StoresPage { f, stores, instances })
}
