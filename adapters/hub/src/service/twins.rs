//! `/twins`: desired properties and tags from the service's side.

use axum::response::Response;

use super::{ApiError, Call, Shared, json_with_etag};
use crate::backend::twins::{Manner, if_match, update_of};

pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(json_with_etag(backend.twin(&call.client_id()?).await?))
}

pub(super) async fn patch(backend: Shared, call: Call) -> Result<Response, ApiError> {
    update(backend, call, Manner::Merge).await
}

pub(super) async fn replace(backend: Shared, call: Call) -> Result<Response, ApiError> {
    update(backend, call, Manner::Replace).await
}

async fn update(backend: Shared, mut call: Call, manner: Manner) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let body = call.json_object().await?;
    let update = update_of(&body, manner, call.header("if-match").and_then(if_match))?;
    Ok(json_with_etag(backend.update_twin(&id, update).await?))
}
