//! File uploads: `/devices/{id}/files`, and what the back end hears of them.
//!
//! | request | |
//! |---|---|
//! | `POST /devices/{id}/files` | 200 with where the file goes, and a signature for it |
//! | `POST /devices/{id}/files/notifications` | 204; Node names the upload in the path: `…/notifications/{correlationId}` |
//! | `GET /messages/serviceBound/filenotifications` | 200 with a notification and its lock as ETag, or 204 |
//! | `DELETE …/{lock}`, `POST …/{lock}/abandon` | the reader is done with it, or it comes again |

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::backend::files::End;
use crate::backend::files::notifications::CONTENT_TYPE;
use crate::storage::{ACCOUNT, CONTAINER};

pub(super) async fn begin(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let body = call.json_object().await?;
    let name = body.get("blobName").and_then(Value::as_str);
    let name =
        name.ok_or_else(|| Error::invalid("the body has the name of the file: {\"blobName\": \"…\"}"))?;
    let begun = backend.begin_upload(&id, name).await?;
    // As the device sees this hub: its certificate is for that name.
    let host = call.header("host").unwrap_or("localhost");
    let answer = json!({
        "correlationId": begun.correlation_id,
        "hostName": format!("{host}/{ACCOUNT}"),
        "containerName": CONTAINER,
        "blobName": begun.blob_name,
        "sasToken": begun.sas_token,
    });
    Ok(Json(answer).into_response())
}

pub(super) async fn end(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let body = call.json_object().await?;
    let text = |name| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let named = call.parameters.get("correlation").map(str::to_owned).or_else(|| text("correlationId"));
    let missing = |name| Error::invalid(format!("the body has no {name}"));
    let end = End {
        correlation_id: named.ok_or_else(|| missing("correlationId"))?,
        is_success: body
            .get("isSuccess")
            .and_then(Value::as_bool)
            .ok_or_else(|| missing("isSuccess, true or false"))?,
        description: text("statusDescription").unwrap_or_default(),
    };
    backend.end_upload(&id, end).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn receive(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let delivery = tokio::select! {
        delivery = backend.take_file_notification() => delivery?,
        // What is on its way to somebody who is gone is given back.
        () = call.gone.wait() => return Err(Error::caller_gone().into()),
    };
    let Some(delivery) = delivery else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let body = delivery.notification().to_json().to_string();
    let headers = [("content-type", CONTENT_TYPE.to_owned()), ("etag", format!("\"{}\"", delivery.give()))];
    Ok((StatusCode::OK, headers, body).into_response())
}

pub(super) async fn complete(backend: Shared, call: Call) -> Result<Response, ApiError> {
    backend.complete_file_notification(call.parameter("lock").trim_matches('"')).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn abandon(backend: Shared, call: Call) -> Result<Response, ApiError> {
    backend.abandon_file_notification(call.parameter("lock").trim_matches('"'))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
