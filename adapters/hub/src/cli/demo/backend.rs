//! The service side of the demo, by the service API.

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};
use ureq::http::Method;

use super::super::Target;
use super::super::client::{Client, identity_path};
use super::super::hub::Ready;
use super::REPORT;
use crate::Failure;

pub(super) struct Backend {
    client: Client,
}

impl Backend {
    pub(super) fn connect(ready: &Ready) -> Result<Self, Failure> {
        let target = Target {
            state: None,
            connection_string: Some(ready.service_connection_string()),
            hub: Some(ready.https.to_string()),
            ca: Some(ready.ca.clone()),
        };
        Ok(Self { client: Client::connect(&target)? })
    }

    /// Registers a device; gives its connection string.
    pub(super) fn register(&self, id: &str) -> Result<String, Failure> {
        let device =
            self.client.json(Method::PUT, &identity_path("devices", id), Some(&json!({"deviceId": id})))?;
        let key = text(&device, "/authentication/symmetricKey/primaryKey");
        Ok(format!("HostName={};DeviceId={id};SharedAccessKey={key}", self.client.host_name()))
    }

    pub(super) fn send(&self, id: &str, message_id: &str, body: &str) -> Result<(), Failure> {
        let path = format!("{}/messages/deviceBound", identity_path("devices", id));
        let headers = [("iothub-messageid", message_id.to_owned()), ("iothub-app-urgent", "yes".to_owned())];
        self.client.send(Method::POST, &path, &headers, body.as_bytes()).map(drop)
    }

    /// How many cloud messages wait for the device.
    pub(super) fn waiting(&self, id: &str) -> Result<u64, Failure> {
        let device = self.client.json(Method::GET, &identity_path("devices", id), None)?;
        Ok(device.get("cloudToDeviceMessageCount").and_then(Value::as_u64).unwrap_or_default())
    }

    pub(super) fn twin(&self, id: &str) -> Result<Value, Failure> {
        self.client.json(Method::GET, &identity_path("twins", id), None)
    }

    pub(super) fn patch_desired(&self, id: &str, patch: &Value) -> Result<(), Failure> {
        let body = json!({"properties": {"desired": patch}});
        self.client.json(Method::PATCH, &identity_path("twins", id), Some(&body)).map(drop)
    }

    /// Calls a method and waits for its outcome: status and payload.
    pub(super) fn invoke(&self, id: &str, name: &str, payload: &Value) -> Result<(i64, Value), Failure> {
        let path = format!("{}/methods", identity_path("twins", id));
        let body = json!({"methodName": name, "payload": payload, "responseTimeoutInSeconds": 10});
        let outcome = self.client.json(Method::POST, &path, Some(&body))?;
        let status = outcome.get("status").and_then(Value::as_i64).unwrap_or_default();
        Ok((status, outcome.get("payload").cloned().unwrap_or_default()))
    }

    /// All telemetry of the device so far.
    pub(super) fn telemetry(&self, id: &str) -> Result<Vec<Value>, Failure> {
        self.lines(&format!("/messages/events?follow=false&deviceId={id}"))
    }

    /// All operations of the device so far.
    pub(super) fn operations(&self, id: &str) -> Result<Vec<Value>, Failure> {
        self.lines(&format!("/messages/operationsMonitoringEvents?follow=false&deviceId={id}"))
    }

    fn lines(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let broken = |error: String| Failure::new(format!("the stream is broken: {error}"), REPORT);
        BufReader::new(self.client.stream(path)?)
            .lines()
            .filter(|line| !matches!(line, Ok(line) if line.is_empty()))
            .map(|line| {
                let line = line.map_err(|error| broken(error.to_string()))?;
                serde_json::from_str(&line).map_err(|error| broken(error.to_string()))
            })
            .collect()
    }
}

/// The text at a place in a JSON value; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
