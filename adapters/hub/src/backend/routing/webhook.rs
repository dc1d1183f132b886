//! What is asked of a webhook: to take an event, and before that, whether it wants any.
//!
//! Only the URL of the configuration is called: no redirect is followed. What is here blocks.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use super::event::topic;
use crate::clock::unix_time;

/// How long a webhook may take (Event Grid: "delivery and retry": 30 s).
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Longest answer that is read (own limit): nothing but the code of a validation is wanted.
const ANSWER_MAX: u64 = 64 * 1024;

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The webhook has it.
    Taken,
    /// The webhook will never take it.
    Refused(String),
    /// Perhaps it takes it later.
    Failed(String),
}

/// A way to webhooks.
pub(super) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_TIME))
        .max_redirects(0)
        .user_agent(concat!("devicebound/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::new_with_config(config)
}

/// Sends events.
pub(super) fn deliver(agent: &Agent, url: &str, events: &str) -> Outcome {
    match post(agent, url, "Notification", events) {
        Ok((status, _)) => outcome(status),
        Err(why) => Outcome::Failed(why),
    }
}

/// Asks whether a webhook wants events, with a code that it must send back.
///
/// # Errors
/// Why it does not.
pub(super) fn validate(agent: &Agent, url: &str, hub_name: &str, code: &str) -> Result<(), String> {
    let event = json!([{
        "id": code,
        "topic": topic(hub_name),
        "subject": "",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": unix_time().to_string(),
        "data": {"validationCode": code},
        "dataVersion": "1",
        "metadataVersion": "1",
    }]);
    let (status, body) = post(agent, url, "SubscriptionValidation", &event.to_string())?;
    if status != 200 {
        return Err(format!("it answered {status} to the validation"));
    }
    let answer: Value =
        serde_json::from_slice(&body).map_err(|_| "its answer to the validation is no JSON".to_owned())?;
    if answer.get("validationResponse").and_then(Value::as_str) == Some(code) {
        return Ok(());
    }
    Err("its validationResponse is not the validationCode that it was sent".to_owned())
}

fn post(agent: &Agent, url: &str, event_type: &str, body: &str) -> Result<(u16, Vec<u8>), String> {
    let request = agent
        .post(url)
        .header("Content-Type", "application/json; charset=utf-8")
        .header("aeg-event-type", event_type)
        .send(body);
    let mut response = request.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    // Read, so that the connection can be used again; what it says is of no use where it is too long.
    let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().unwrap_or_default();
    Ok((status, body))
}

/// Event Grid gives up on an event that is told to be wrong or too large; all else may pass.
fn outcome(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        400 | 413 => Outcome::Refused(format!("it answered {status}")),
        300..=399 => Outcome::Failed(format!("it answered {status}; redirects are not followed")),
        _ => Outcome::Failed(format!("it answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_sent_again_and_what_will_not_is_given_up() {
        let kind = |status| match outcome(status) {
            Outcome::Taken => "taken",
            Outcome::Refused(_) => "refused",
            Outcome::Failed(_) => "failed",
        };
        for (statuses, expected) in [
            (&[200, 202, 204][..], "taken"),
            (&[400, 413], "refused"),
            (&[301, 401, 404, 429, 500, 503], "failed"),
        ] {
            for status in statuses {
                assert_eq!(kind(*status), expected, "{status}");
            }
        }
    }
}
