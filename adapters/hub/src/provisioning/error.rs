//! Refusals, in the one shape that they have over MQTT and HTTPS.

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use devicebound::Rule;
use serde_json::{Value, json};

use super::identifiers::{guid, moment};
use crate::clock::unix_time;

/// Why something is not done.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// Six digits, the first three those of HTTP.
    number: u32,
    message: String,
    rule: Option<Rule>,
    /// Seconds to wait before the same again.
    pub(super) retry_after: Option<u32>,
}

impl Refusal {
    /// A rule was broken; `what` says what came.
    pub(super) fn of(number: u32, rule: Rule, what: impl std::fmt::Display) -> Self {
        let message = format!("{rule}: {}; {what}; {}", rule.says(), rule.fix());
        Self { number, message, rule: Some(rule), retry_after: None }
    }

    /// A device did not show who it is. It is told no more than that; the log has the rest.
    pub(super) fn unauthorized(rule: Rule, by_certificate: bool) -> Self {
        let message = if by_certificate { "Invalid certificate." } else { "Unauthorized" };
        Self { number: 401_002, message: message.to_owned(), rule: Some(rule), retry_after: None }
    }

    pub(super) fn new(number: u32, message: impl Into<String>) -> Self {
        Self { number, message: message.into(), rule: None, retry_after: None }
    }

    /// 400004.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400_004, message)
    }

    /// 429001.
    pub(super) fn throttled(retry_after: u32) -> Self {
        let refusal = Self::of(429_001, Rule::DpsThrottled, "there were more");
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// 503001: the store failed, or the system.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(503_001, message) }
    }

    pub(super) fn not_stored() -> Self {
        Self::unavailable(format!("the change could not be stored; {}", Rule::StoreFailed.fix()))
    }

    /// As in HTTP.
    pub(super) fn status(&self) -> u16 {
        u16::try_from(self.number / 1000).unwrap_or(500)
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// For a line in the log: rule, what it says, what to do.
    pub(super) fn in_words(&self) -> String {
        match self.rule {
            Some(rule) if self.number / 1000 == 401 => {
                format!("{rule}: {}; fix: {}", rule.says(), rule.fix())
            }
            _ => self.message.clone(),
        }
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let rule = |rule: Rule| json!({"rule": rule.id(), "says": rule.says(), "fix": rule.fix()});
        let mut body = json!({
            "errorCode": self.number,
            "trackingId": guid().unwrap_or_default(),
            "message": self.message,
            "timestampUtc": moment(unix_time()),
        });
        if let (Some(info), Some(body)) = (self.rule.map(rule), body.as_object_mut()) {
            body.insert("info".to_owned(), info);
        }
        body
    }
}

impl From<getrandom::Error> for Refusal {
    fn from(error: getrandom::Error) -> Self {
        Self::unavailable(format!("no randomness: {error}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("Retry-After", HeaderValue::from(seconds));
        }
        response
    }
}
