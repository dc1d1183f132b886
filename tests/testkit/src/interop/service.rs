//! The hub's service API, as a back end uses it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::iothub::sas;
use devicebound::iothub::{ConnectionString, Credential};
use serde_json::{Map, Value};
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

pub use ureq::http::Method;

use super::{PATIENCE, now};

/// A connection to one hub's service API.
#[derive(Clone, Debug)]
pub struct Service {
    agent: Agent,
    base: String,
    connection_string: String,
}

/// A telemetry message as a back end reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Who sent it.
    pub device_id: String,
    /// The body.
    pub body: Vec<u8>,
    /// Application properties.
    pub properties: Map<String, Value>,
    /// System properties, under the names of Event Hubs.
    pub system_properties: Map<String, Value>,
}

/// Telemetry from the first message on, as it comes.
#[derive(Debug)]
pub struct TelemetryStream {
    lines: Receiver<String>,
}

impl Service {
    /// The service API at an address, for the policy of `connection_string`.
    ///
    /// # Panics
    /// When `ca` is no file with a certificate.
    #[must_use]
    pub fn new(address: SocketAddr, ca: &Path, connection_string: &str) -> Self {
        let pem = fs::read(ca).unwrap_or_else(|error| panic!("cannot read {}: {error}", ca.display()));
        let ca = Certificate::from_pem(&pem)
            .unwrap_or_else(|error| panic!("{} is no certificate: {error}", ca.display()));
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Of the tests' machine, which know nothing of this hub.
            .proxy(None)
            .timeout_recv_response(Some(PATIENCE))
            .build();
        Self {
            agent: agent.into(),
            base: format!("https://{address}"),
            connection_string: connection_string.to_owned(),
        }
    }

    /// The connection string of the policy that may do everything, for the hub that it was told of.
    #[must_use]
    pub fn connection_string(&self) -> &str {
        &self.connection_string
    }

    /// `GET`, and the JSON of the answer.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        json(self.exchange(Method::GET, path, &[], b""))
    }

    /// `PUT` with a JSON body.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn put(&self, path: &str, body: &Value) -> Value {
        json(self.exchange(Method::PUT, path, &[], body.to_string().as_bytes()))
    }

    /// `PATCH` with a JSON body.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn patch(&self, path: &str, body: &Value) -> Value {
        json(self.exchange(Method::PATCH, path, &[], body.to_string().as_bytes()))
    }

    /// Calls a method of a device, or of `{device}/modules/{module}`, and waits for `{"status", "payload"}`.
    ///
    /// # Panics
    /// When the hub refuses, or the device does not answer.
    #[must_use]
    pub fn invoke(&self, identity: &str, request: &Value) -> Value {
        json(self.exchange(
            Method::POST,
            &format!("/twins/{identity}/methods"),
            &[],
            request.to_string().as_bytes(),
        ))
    }

    /// Queues a message for a device; `headers` carry its properties, `bag` those whose names HTTP would not keep.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn send(&self, device_id: &str, headers: &[(&str, &str)], bag: &str, body: &str) {
        let bag = percent_encoding::utf8_percent_encode(bag, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/devices/{device_id}/messages/deviceBound?properties={bag}");
        self.exchange(Method::POST, &path, headers, body.as_bytes());
    }

    /// All telemetry that has arrived.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    pub fn stored_telemetry(&self) -> Vec<Telemetry> {
        let mut response = self.exchange(Method::GET, "/messages/events?after=0&follow=false", &[], b"");
        let lines = response.body_mut().read_to_string().unwrap_or_else(|error| panic!("telemetry: {error}"));
        lines.lines().filter(|line| !line.is_empty()).map(Telemetry::read).collect()
    }

    /// Telemetry from the first message on, those that have arrived and those that will.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    pub fn telemetry(&self) -> TelemetryStream {
        let body = self.read("/messages/events?after=0");
        let (sender, lines) = channel();
        // Ends with the hub.
        thread::spawn(move || {
            for line in body.lines().map_while(Result::ok) {
                // An empty line only says that the hub is there.
                if !line.is_empty() && sender.send(line).is_err() {
                    break;
                }
            }
        });
        TelemetryStream { lines }
    }

    /// `GET`, and the body of the answer as it comes.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn read(&self, path: &str) -> impl BufRead + Send + use<> {
        BufReader::new(self.exchange(Method::GET, path, &[], b"").into_body().into_reader())
    }

    /// Sends telemetry as this device, over HTTP.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn send_telemetry(&self, device_id: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.exchange(Method::POST, &format!("/devices/{device_id}/messages/events"), headers, body);
    }

    /// `POST`, and the status and text of the answer, for what the hub may refuse.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_post(&self, path: &str, body: &[u8]) -> Result<(u16, String), ureq::Error> {
        let mut response = self.ask(Method::POST, path, &[], body)?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// Sends one request, and gives the answer, whatever it says.
    ///
    /// # Errors
    /// When the hub does not answer.
    pub fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, ureq::Error> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}{separator}api-version=2021-04-12", self.base))
            .header("Authorization", self.token());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.agent.run(request.body(body)?)
    }

    fn exchange(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response<Body> {
        let what = format!("{method} {path}");
        let mut response =
            self.ask(method, path, headers, body).unwrap_or_else(|error| panic!("{what}: {error}"));
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            panic!("{what}: {} {text}", response.status());
        }
        response
    }

    /// User and password for AMQP's SASL PLAIN.
    ///
    /// # Panics
    /// When the connection string is not one of a policy.
    #[must_use]
    pub fn plain(&self) -> (String, String) {
        let connection_string = ConnectionString::parse(&self.connection_string)
            .unwrap_or_else(|error| panic!("the hub's service connection string: {error}"));
        let policy = connection_string.key_name().unwrap_or_default();
        (format!("{policy}@sas.root.{}", connection_string.host_name()), self.token())
    }

    fn token(&self) -> String {
        let connection_string = ConnectionString::parse(&self.connection_string)
            .unwrap_or_else(|error| panic!("the hub's service connection string: {error}"));
        let Credential::Key(key) = connection_string.credential() else {
            panic!("the hub's service connection string has no key")
        };
        let expiry = now().after(Duration::from_secs(3600));
        sas::sign(connection_string.host_name(), key, expiry, connection_string.key_name())
    }
}

impl TelemetryStream {
    /// The next message.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    pub fn next_message(&self) -> Telemetry {
        let line = self.lines.recv_timeout(PATIENCE);
        Telemetry::read(&line.unwrap_or_else(|_| panic!("no telemetry came in {} s", PATIENCE.as_secs())))
    }
}

impl Telemetry {
    fn read(line: &str) -> Self {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let members = |name: &str| event[name].as_object().cloned().unwrap_or_default();
        let body = STANDARD.decode(event["body"].as_str().unwrap_or_default());
        Self {
            device_id: event["deviceId"].as_str().unwrap_or_default().to_owned(),
            body: body.unwrap_or_else(|error| panic!("{line}: the body is no base64: {error}")),
            properties: members("properties"),
            system_properties: members("systemProperties"),
        }
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("{:?}: {error}", self.body))
    }
}

fn json(mut response: Response<Body>) -> Value {
    let text = response.body_mut().read_to_string().unwrap_or_else(|error| panic!("an answer: {error}"));
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
