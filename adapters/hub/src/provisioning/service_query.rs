//! Queries over enrollments and registrations: the language of the hub, over JSON records; and pages of what they find.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::Refusal;
use crate::backend::query::{Filter, JsonRow};

/// Rows on a page unless `x-ms-max-item-count` says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// Which records are asked for.
#[derive(Debug)]
pub(super) struct Query {
    filter: Option<Filter>,
}

impl Query {
    /// Reads the body of a query over one of these `collections`. None, or a text of `*` alone, asks for all.
    pub(super) fn read(body: &[u8], collections: &[&str]) -> Result<Self, Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(Self { filter: None });
        }
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
        let text = body.get("query").and_then(Value::as_str).map(str::trim).unwrap_or("*");
        if text == "*" || text.is_empty() {
            return Ok(Self { filter: None });
        }
        let filter =
            Filter::over(text, collections).map_err(|error| Refusal::bad_request(error.to_string()))?;
        Ok(Self { filter })
    }

    pub(super) fn wants(&self, record: &Value) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.wants(&JsonRow(record)))
    }
}

/// How many rows a request asks for.
pub(super) fn page_size(headers: &HeaderMap) -> Result<usize, Refusal> {
    let text = headers.get("x-ms-max-item-count").and_then(|text| text.to_str().ok()).unwrap_or_default();
    match text {
        "" | "-1" => Ok(PAGE),
        text => match text.parse::<u64>() {
            Ok(1..) => Ok(text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)),
            _ => Err(Refusal::bad_request("x-ms-max-item-count is a number from 1 on")),
        },
    }
}

/// One page of rows.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Value>,
    pub(super) item_type: &'static str,
    /// The id after which the next page begins, if there is one.
    pub(super) next: Option<String>,
    pub(super) most: usize,
}

impl Page {
    /// Where the page begins that a request asks for.
    pub(super) fn after(headers: &HeaderMap) -> Result<String, Refusal> {
        let token =
            headers.get("x-ms-continuation").and_then(|token| token.to_str().ok()).unwrap_or_default();
        let decoded = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded
            .ok_or_else(|| Refusal::bad_request("x-ms-continuation is no token that this service gave out"))
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { rows, item_type, next, most } = self;
        let mut response = Json(Value::Array(rows)).into_response();
        let headers = response.headers_mut();
        headers.insert("x-ms-item-type", HeaderValue::from_static(item_type));
        headers.insert("x-ms-max-item-count", HeaderValue::from(most));
        // Azure's Node SDK goes on until the header is not there.
        if let Some(token) = next.and_then(|next| STANDARD.encode(next).parse().ok()) {
            headers.insert("x-ms-continuation", token);
        }
        response
    }
}
