//! `GET /rules`: the rule book, as `devicebound explain` tells it.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use devicebound::Rule;
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};

pub(super) async fn list(_backend: Shared, _call: Call) -> Result<Response, ApiError> {
    let rule = |rule: &Rule| json!({"id": rule.id(), "says": rule.says(), "fix": rule.fix(), "source": rule.source()});
    let rules: Vec<Value> = Rule::ALL.iter().map(rule).collect();
    Ok(Json(rules).into_response())
}
