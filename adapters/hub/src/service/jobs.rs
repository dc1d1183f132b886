//! `/jobs/v2`: changes of twins and calls of methods for many devices.

use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::query::{page_size, to_response};
use super::{ApiError, Call, Shared};

pub(super) async fn schedule(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let request = call.json_object().await?;
    Ok(Json(backend.schedule_job(call.parameter("job"), request).await?).into_response())
}

pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.job(call.parameter("job"))?).into_response())
}

pub(super) async fn cancel(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.cancel_job(call.parameter("job")).await?).into_response())
}

/// Old clients send the size of a page and the token in the query.
pub(super) async fn list(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let either = |header: &str, query: &str| {
        some(call.header(header).map(str::to_owned)).or_else(|| some(call.query(query)))
    };
    let size = page_size(either("x-ms-max-item-count", "pageSize").as_deref())?;
    let token = either("x-ms-continuation", "continuationToken");
    let (kind, status) = (some(call.query("jobType")), some(call.query("jobStatus")));
    Ok(to_response(&backend.jobs(kind.as_deref(), status.as_deref(), token.as_deref(), size)?))
}
