//! `/messages/serviceBound/feedback`: what became of cloud-to-device messages.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::backend::feedback::CONTENT_TYPE;

pub(super) async fn receive(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let batch = tokio::select! {
        batch = backend.take_feedback() => batch?,
        // What is on its way to somebody who is gone is given back.
        () = call.gone.wait() => return Err(Error::caller_gone().into()),
    };
    let Some(batch) = batch else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let reports = batch.to_json();
    let headers = [("content-type", CONTENT_TYPE.to_owned()), ("etag", format!("\"{}\"", batch.give()))];
    Ok((StatusCode::OK, headers, reports.to_string()).into_response())
}

pub(super) async fn complete(backend: Shared, call: Call) -> Result<Response, ApiError> {
    backend.complete_feedback(call.parameter("lock").trim_matches('"')).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn abandon(backend: Shared, call: Call) -> Result<Response, ApiError> {
    backend.abandon_feedback(call.parameter("lock").trim_matches('"'))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
