//! What the service does and what it is to see.

use std::time::Duration;

use devicebound::hub::{
    CallFailure, CloudMessage, EnqueueError, FeedbackRequest, MethodRequest, Section, TwinUpdate,
};
use devicebound_testkit::packet_json::payload;
use devicebound_world::hub_host::{CallResult, Stored};
use devicebound_world::vectors::{Members, word};
use serde_json::{Map, Value, json};

use super::{Harness, Outcome, millis, require};

impl Harness {
    pub(super) fn service_acts(&mut self, act: &str, step: &Members<'_>) -> Outcome {
        let device = step["device"].as_str().unwrap_or("dev1");
        let key = self.host.device(device);
        let now = self.host.now;
        match act {
            "c2d" => self.enqueue(device, word(&step["message_id"]), step),
            "c2d_many" => {
                let count = step["count"].as_u64().expect("count is a number");
                let prefix = step["prefix"].as_str().or(step["message_id_prefix"].as_str()).unwrap_or("m");
                for number in 1..=count {
                    self.enqueue(device, &format!("{prefix}{number}"), step);
                }
            }
            "invoke" => {
                let request = MethodRequest {
                    name: word(&step["method"]).to_owned(),
                    payload: step["payload"].as_str().map(str::to_owned),
                    response_timeout: Duration::from_secs(step["timeout_s"].as_u64().unwrap_or(30)),
                    connect_timeout: Duration::from_secs(step["connect_timeout_s"].as_u64().unwrap_or(0)),
                };
                let call = self.host.hub.invoke(now, key, request).map_err(|error| error.to_string());
                self.calls.insert(word(&step["call"]).to_owned(), call);
                self.host.settle();
            }
            "desired" => {
                let patch = step["patch"].as_object().cloned().expect("patch is an object");
                let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
                let commit = self
                    .host
                    .hub
                    .update_twin(self.host.now, key, update)
                    .map_err(|error| error.to_string())?;
                self.host.commit(commit);
            }
            "disable_device" => {
                let commit =
                    self.host.hub.update_identity(self.host.now, key, |identity| identity.enabled = false);
                self.host.commit(commit.expect("the device is there"));
            }
            "delete_device" => {
                self.host.hub.remove(key).expect("the device is there");
                self.host.settle();
            }
            other => return Err(format!("unknown act {other}")),
        }
        Ok(())
    }

    fn enqueue(&mut self, device: &str, message_id: &str, step: &Members<'_>) {
        let properties = step["properties"].as_object().into_iter().flatten();
        let ttl = step["ttl_s"].as_u64().map(|ttl| self.host.unix_time().after(Duration::from_secs(ttl)));
        let message = CloudMessage {
            message_id: Some(message_id.to_owned()),
            expiry: ttl,
            ack: step["ack"].as_str().and_then(FeedbackRequest::parse),
            properties: properties
                .map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned)))
                .collect(),
            payload: payload(&step["payload"]),
            ..CloudMessage::default()
        };
        let key = self.host.device(device);
        self.c2d_result = Some(match self.host.hub.enqueue(self.host.now, key, message) {
            Ok((sequence, commit)) => {
                self.messages.insert(message_id.to_owned(), (device.to_owned(), sequence));
                self.host.commit(commit);
                "enqueued"
            }
            Err(EnqueueError::QueueFull) => "queue_full",
            Err(_) => "refused",
        });
    }

    pub(super) fn service_expects(&mut self, step: &Members<'_>) -> Outcome {
        step.get("within_ms"); // what is due happens at once under virtual time
        match word(&step["expect"]) {
            "telemetry" => self.expect_telemetry(step),
            "no_telemetry" => {
                self.host.advance(millis(&step["for_ms"]));
                let device = step["device"].as_str();
                let found = self
                    .host
                    .telemetry
                    .iter()
                    .find(|message| device.is_none_or(|device| message.client_id == device));
                require(found.is_none(), || format!("there is {found:?}"))
            }
            "c2d_result" => {
                require(self.c2d_result == step["result"].as_str(), || format!("it is {:?}", self.c2d_result))
            }
            "c2d_state" => {
                let (device, sequence) = &self.messages[word(&step["message_id"])];
                let waits = self.host.record(device).waiting().any(|waiting| waiting == *sequence);
                let waiting = matches!(word(&step["state"]), "enqueued" | "invisible");
                require(waits == waiting, || format!("waiting: {waits}"))
            }
            "twin" => {
                let twin = self.host.record(step["device"].as_str().unwrap_or("dev1")).twin();
                let same = |wanted: &Value, found: &Map<String, Value>| {
                    wanted.as_object().is_none_or(|wanted| wanted == found)
                };
                let version = step["reported_version"]
                    .as_u64()
                    .is_none_or(|version| version == twin.reported_version());
                let holds = same(&step["reported"], twin.reported())
                    && same(&step["desired"], twin.desired())
                    && version;
                require(holds, || format!("it is {twin:?}"))
            }
            "call_result" => self.expect_call(step),
            "feedback" => self.expect_feedback(step),
            "connection_state" => {
                let device = self.host.device(step["device"].as_str().unwrap_or("dev1"));
                let connected = self.host.hub.is_connected(device);
                require(connected == (step["state"] == "connected"), || format!("connected: {connected}"))
            }
            other => Err(format!("unknown expectation {other}")),
        }
    }

    fn expect_telemetry(&mut self, step: &Members<'_>) -> Outcome {
        let wanted = payload(&step["payload"]);
        let client_id = match (step["device"].as_str(), step["module"].as_str()) {
            (Some(device), Some(module)) => Some(format!("{device}/{module}")),
            (device, _) => device.map(str::to_owned),
        };
        let [properties, system] = [&step["properties"], &step["system"]].map(Value::as_object);
        let matches = |message: &&Stored| {
            let properties = properties.into_iter().chain(system).flatten();
            (step["payload"].is_null() || message.payload == wanted)
                && client_id.as_ref().is_none_or(|client_id| message.client_id == *client_id)
                && properties.into_iter().all(|(name, value)| {
                    message
                        .properties
                        .iter()
                        .any(|(found, text)| found == name && text.as_deref() == value.as_str())
                })
        };
        let found = self.host.telemetry.iter().filter(matches).count();
        let holds = step["count_in"].as_array().map_or(found > 0, |counts| counts.contains(&json!(found)));
        require(holds, || format!("found {found} times in {:?}", self.host.telemetry))
    }

    fn expect_call(&mut self, step: &Members<'_>) -> Outcome {
        let errors: Vec<&str> = match (&step["error"], &step["error_in"]) {
            (Value::String(error), _) => vec![error],
            (_, Value::Array(errors)) => errors.iter().map(word).collect(),
            _ => Vec::new(),
        };
        let error_of = |result: &CallResult| match result {
            CallResult::Answered { .. } => None,
            CallResult::Failed(CallFailure::NoAnswer) => Some("timeout"),
            CallResult::Failed(CallFailure::NotOnline | CallFailure::NotSubscribed) => Some("not_online"),
        };
        let call = &self.calls[word(&step["call"])];
        if !errors.is_empty() {
            let error = match call {
                Ok(call) => self.host.calls.get(call).and_then(error_of),
                Err(error) if error.contains("404103") => Some("not_online"),
                Err(error) => return Err(error.clone()),
            };
            return require(error.is_some_and(|error| errors.contains(&error)), || {
                format!("it is {error:?}")
            });
        }
        let call = call.clone()?;
        let Some(CallResult::Answered { status, payload }) = self.host.calls.get(&call) else {
            return Err(format!("it is {:?}", self.host.calls.get(&call)));
        };
        let body = serde_json::from_slice::<Value>(payload).unwrap_or(Value::Null);
        let holds = step["status"].as_i64().is_none_or(|wanted| wanted == i64::from(*status))
            && (step["payload_json"].is_null() || step["payload_json"] == body);
        require(holds, || format!("status {status}, body {body}"))
    }

    fn expect_feedback(&mut self, step: &Members<'_>) -> Outcome {
        let mut told = Vec::new();
        while let Some(device) = self.host.hub.poll_feedback() {
            told.extend(self.host.hub.feedback(device));
            if let Some(commit) = self.host.hub.take_feedback(device, told.len()) {
                self.host.commit(commit);
            }
        }
        let holds = told.iter().any(|feedback| {
            step["message_id"] == feedback.original_message_id && step["status"] == feedback.outcome.as_str()
        });
        require(holds, || format!("it is {told:?}"))
    }
}
