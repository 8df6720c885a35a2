//! Reading forms, within bounds of size, time and memory.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use flow_control::caller_limit::caller_of;
use http_body_util::BodyExt;

use crate::Console;
use crate::form::Form;
use crate::outcome::PageError;

/// Form bodies that are in memory, and those of one address.
pub(crate) const BODY_BUDGET: (u64, u64) = (8 << 20, 1 << 20);
/// Largest form.
const BODY_MAX: usize = 128 << 10;
/// A form has so long to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The fields of a form, within its size, its time, and what its address may have in memory.
pub(super) async fn read_form(console: &Console, from: IpAddr, mut body: Body) -> Result<Form, PageError> {
    let mut share = console.bodies.reserve(caller_of(from), 0).ok_or(PageError::Busy)?;
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| PageError::Late)?.into_data() else { continue };
            if bytes.len() + data.len() > BODY_MAX {
                return Err(PageError::TooLarge);
            }
            if !share.grow(data.len() as u64) {
                return Err(PageError::Busy);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    tokio::time::timeout(BODY_TIMEOUT, reading).await.map_err(|_| PageError::Late)??;
    Ok(Form::parse(&bytes))
}
