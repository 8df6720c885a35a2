//! `GET /v2/{project_id}/objectstorage/data-center`: the catalogue, by vendor.

use axum::extract::{Path, State};
use control::Control;
use wire::v2::{Region, RegionGroup};

use crate::reply::{Reply, json};

pub(crate) async fn handle(State(control): State<Control>, Path(project): Path<String>) -> Reply {
    let mut groups: Vec<RegionGroup> = Vec::new();
    for (cloud_type, value, description) in control.catalogue.for_project(&project).source_regions() {
        let region = Region { cloud_type: cloud_type.clone(), value, description };
        match groups.iter_mut().find(|g| g.service_name == cloud_type) {
            Some(group) => group.region_list.push(region),
            None => groups.push(RegionGroup { service_name: cloud_type, region_list: vec![region] }),
        }
    }
    json(&groups)
}
