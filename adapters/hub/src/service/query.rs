//! `POST /devices/query`: twins by a query, page by page.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::backend::query::{PAGE, PAGE_MAX, Page};

pub(super) async fn query(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let body = call.json_object().await?;
    let text = body.get("query").and_then(Value::as_str);
    let text = text.ok_or_else(|| Error::invalid(r#"the body has no query: send {"query": "SELECT …"}"#))?;
    let size = page_size(call.header("x-ms-max-item-count"))?;
    let token = call.header("x-ms-continuation").filter(|token| !token.is_empty());
    Ok(to_response(&backend.query(text, token, size).await?))
}

pub(super) fn page_size(header: Option<&str>) -> Result<usize, Error> {
    let Some(text) = header.filter(|text| !text.is_empty()) else { return Ok(PAGE) };
    match text.parse() {
        // -1 leaves it to the hub.
        Ok(-1) => Ok(PAGE),
        Ok(1_i64..) => Ok(text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)),
        _ => Err(Error::invalid("x-ms-max-item-count is a number from 1 on")),
    }
}

pub(super) fn to_response(page: &Page) -> Response {
    let mut response = format!("[{}]", page.rows.join(",")).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-ms-item-type", HeaderValue::from_static(page.item_type.as_str()));
    if let Some(token) = page.continuation.as_deref().and_then(|token| token.parse().ok()) {
        headers.insert("x-ms-continuation", token);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_as_many_rows_as_are_asked_for_up_to_a_thousand() {
        assert_eq!(page_size(None).unwrap(), PAGE);
        for (text, expected) in [("", PAGE), ("-1", PAGE), ("20", 20), ("99999999999999", PAGE_MAX)] {
            assert_eq!(page_size(Some(text)).unwrap(), expected, "{text}");
        }
        assert!(page_size(Some("0")).is_err() && page_size(Some("x")).is_err());
    }
}
