//! `POST /v2/{project_id}/objectstorage/buckets/url-source-list-file`: nothing when every line can be read.

use axum::extract::State;
use bytes::Bytes;
use control::Control;
use control::secrets::Keys;
use seal::Secret;
use wire::fields::Fields;

use crate::body::{Reply, empty, object};
use crate::error::{Error, Face, fault};

pub(crate) async fn handle(State(control): State<Control>, body: Bytes) -> Reply {
    let map = object(Face::V2, &body)?;
    let f = Fields::root(&map);
    let check = async {
        let keys = Keys {
            ak: f.filled("ak", 100).map_err(fault)?.to_owned(),
            sk: Secret::new(f.filled("sk", 100).map_err(fault)?),
            ..Keys::default()
        };
        let bucket = f.filled("obs_bucket", 1024).map_err(fault)?;
        let key = f.filled("list_file_key", 1024).map_err(fault)?;
        let region = f.filled("region", 100).map_err(fault)?;
        control.check_url_list(&keys, region, bucket, key).await
    };
    check.await.map_err(|r| Error::of(Face::V2, &r))?;
    empty()
}
