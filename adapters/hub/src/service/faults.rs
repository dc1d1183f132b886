//! `POST /faults/{id}`: something goes wrong for one identity, so that whoever writes a device sees how it bears that.
//!
//! Azure has no such request. The body names the fault, and says when it begins and how long it lasts:
//! `{"fault": "kill-tcp", "delayInSeconds": 0, "durationInSeconds": 30}`.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::Fault;
use devicebound::limits::FAULT_TIME_MAX;
use serde_json::Value;

use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::backend::faults::Plan;

/// How long a fault lasts that names no duration.
const USUAL_DURATION: Duration = Duration::from_secs(30);

pub(super) async fn inject(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let plan = plan(&call.json_object().await?)?;
    backend.inject(&id, plan).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the body asks for.
fn plan(body: &Value) -> Result<Plan, Error> {
    let seconds = |name: &str, default: Duration| match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => {
            value.as_u64().map(Duration::from_secs).filter(|time| *time <= FAULT_TIME_MAX).ok_or_else(|| {
                Error::invalid(format!("{name} is a number of seconds up to {}", FAULT_TIME_MAX.as_secs()))
            })
        }
    };
    let name = body.get("fault").and_then(Value::as_str).unwrap_or_default();
    let fault = Fault::from_name(name).ok_or_else(|| {
        Error::invalid(format!("fault is one of {}", Fault::ALL.map(Fault::name).join(", ")))
    })?;
    Ok(Plan {
        fault,
        delay: seconds("delayInSeconds", Duration::ZERO)?,
        duration: seconds("durationInSeconds", USUAL_DURATION)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_has_a_name_and_bounded_times() {
        let plan = super::plan(&json!({"fault": "slow", "delayInSeconds": 5})).unwrap();
        let expected = Plan { fault: Fault::Slow, delay: Duration::from_secs(5), duration: USUAL_DURATION };
        assert_eq!(plan, expected);
        let too_long = json!({"fault": "slow", "durationInSeconds": FAULT_TIME_MAX.as_secs() + 1});
        for wrong in
            [json!({}), json!({"fault": "no such"}), too_long, json!({"fault": "slow", "delayInSeconds": -1})]
        {
            assert!(super::plan(&wrong).is_err(), "{wrong}");
        }
    }
}
