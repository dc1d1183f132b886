//! `POST /faults/{id}`: something goes wrong for one identity, so that whoever writes a device sees how it bears that.
//!
//! Azure has no such request. The body names the fault, and says when it begins and how long it lasts:
//! `{"fault": "kill-tcp", "delayInSeconds": 0, "durationInSeconds": 30}`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use devicebound::hub::Fault;
use devicebound::limits::FAULT_TIME_MAX;
use serde_json::Value;

use super::{ApiError, Code, Service, Shared, client_id, find, json_object};

/// How long a fault lasts that names no duration.
const USUAL_DURATION: Duration = Duration::from_secs(30);

pub(super) async fn inject(
    State(service): Shared,
    Path(device_id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    service.inject(client_id(&device_id, None)?, &body).await
}

pub(super) async fn inject_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    service.inject(client_id(&device_id, Some(&module_id))?, &body).await
}

impl Service {
    async fn inject(&self, client_id: String, body: &[u8]) -> Result<StatusCode, ApiError> {
        let plan = Plan::read(&json_object(body)?)?;
        let id = client_id.clone();
        let injected = self.engine.at(&client_id, move |core, now| {
            let key = find(core, &id)?;
            core.hub.inject(now, key, plan.fault, plan.delay, plan.duration);
            Ok(StatusCode::NO_CONTENT)
        });
        injected.await
    }
}

/// What the body asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    fault: Fault,
    delay: Duration,
    duration: Duration,
}

impl Plan {
    fn read(body: &Value) -> Result<Self, ApiError> {
        let invalid = |message: String| ApiError::new(Code::ArgumentInvalid, message);
        let seconds = |name: &str, default: Duration| match body.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                value.as_u64().map(Duration::from_secs).filter(|time| *time <= FAULT_TIME_MAX).ok_or_else(
                    || invalid(format!("{name} is a number of seconds up to {}", FAULT_TIME_MAX.as_secs())),
                )
            }
        };
        let name = body.get("fault").and_then(Value::as_str).unwrap_or_default();
        let fault = Fault::from_name(name)
            .ok_or_else(|| invalid(format!("fault is one of {}", Fault::ALL.map(Fault::name).join(", "))))?;
        Ok(Self {
            fault,
            delay: seconds("delayInSeconds", Duration::ZERO)?,
            duration: seconds("durationInSeconds", USUAL_DURATION)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_has_a_name_and_bounded_times() {
        let plan = Plan::read(&json!({"fault": "slow", "delayInSeconds": 5})).unwrap();
        let expected = Plan { fault: Fault::Slow, delay: Duration::from_secs(5), duration: USUAL_DURATION };
        assert_eq!(plan, expected);
        let too_long = json!({"fault": "slow", "durationInSeconds": FAULT_TIME_MAX.as_secs() + 1});
        for wrong in
            [json!({}), json!({"fault": "no such"}), too_long, json!({"fault": "slow", "delayInSeconds": -1})]
        {
            assert!(Plan::read(&wrong).is_err(), "{wrong}");
        }
    }
}
