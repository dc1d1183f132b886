//! Azure's SDKs for Python and Node under remote control: a command per line, an answer per line; see `interop/azure_*`.

use serde_json::{Value, json};

use super::python::{Packages, Python};
use super::{Device, Hub, Node, Program, Site};

/// A client of one of the SDKs.
#[derive(Debug)]
pub struct Sdk {
    program: Program,
}

impl Sdk {
    /// The device SDK on `tls` or `websocket`, for an identity as `azure_device.py` takes it; not connected.
    #[must_use]
    pub fn device(site: Site, hub: &Hub, transport: &str, identity: &Value) -> Self {
        let config =
            json!({"ca": hub.ca(), "host": hub.host(), "transport": transport, "identity": identity});
        let python = Python::with(site, Packages::AzureAndPaho1);
        Self { program: python.start("azure_device.py", &[&config.to_string()]) }
    }

    /// The device SDK, connected with the device's key.
    ///
    /// # Panics
    /// When it cannot connect.
    #[must_use]
    pub fn connected(site: Site, hub: &Hub, transport: &str, device: &Device) -> Self {
        let identity = json!({"connectionString": device.connection_string()});
        let mut sdk = Self::device(site, hub, transport, &identity);
        sdk.run(json!({"do": "connect"}));
        sdk
    }

    /// The service SDK, which knows no port but 443.
    #[must_use]
    pub fn service(site: Site, hub: &Hub, connection_string: &str) -> Self {
        let config = json!({"ca": hub.ca(), "connectionString": connection_string});
        let python = Python::with(site, Packages::AzureService);
        Self { program: python.start("azure_service.py", &[&config.to_string()]) }
    }

    /// The Event Hubs SDK on `tls` or `websocket`, and the AMQP part of the service SDK. They know 5671 and 443 only.
    #[must_use]
    pub fn events(site: Site, hub: &Hub, transport: &str) -> Self {
        Self::events_with(site, hub, transport, &hub.policy_key("iothubowner"))
    }

    /// The same with another key of the owner.
    #[must_use]
    pub fn events_with(site: Site, hub: &Hub, transport: &str, key: &str) -> Self {
        let config = back_end(hub, transport, key);
        let python = Python::with(site, Packages::AzureEvents);
        Self { program: python.start("azure_events.py", &[&config.to_string()]) }
    }

    /// The asynchronous half of the Event Hubs SDK, over TLS.
    #[must_use]
    pub fn events_aio(site: Site, hub: &Hub) -> Self {
        let config = back_end(hub, "tls", &hub.policy_key("iothubowner"));
        let python = Python::with(site, Packages::AzureEvents);
        Self { program: python.start("azure_events_aio.py", &[&config.to_string()]) }
    }

    /// The service SDK and the Event Hubs SDK for Node, on `tls` or `websocket`.
    #[must_use]
    pub fn node(site: Site, hub: &Hub, transport: &str) -> Self {
        let config = back_end(hub, transport, &hub.policy_key("iothubowner"));
        let node = Node::with_azure(site);
        Self { program: node.start("azure_node.js", hub.ca(), &[&config.to_string()]) }
    }

    /// The service SDK for Node over HTTPS, which knows no port but 443.
    #[must_use]
    pub fn node_service(site: Site, hub: &Hub) -> Self {
        let node = Node::with_azure(site);
        let connection_string = hub.service().connection_string();
        Self { program: node.start("azure_registry.js", hub.ca(), &[connection_string]) }
    }

    /// Waits for something that the SDK tells by itself, and that is `wanted`; other lines pass by.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect_where(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.program.expect(what, |line| serde_json::from_str(line).ok().filter(&wanted))
    }

    /// Has the SDK do something and waits until it is done.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&mut self, command: Value) -> Value {
        let mut answer = self.answer(&command);
        assert_eq!(answer["event"], "done", "{command}: {answer}");
        answer["result"].take()
    }

    /// Has the SDK do something that it must fail to do: `error` is its exception.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn fail(&mut self, command: Value) -> Value {
        let answer = self.answer(&command);
        assert_eq!(answer["event"], "failed", "{command}: {answer}");
        answer
    }

    /// Calls a method of the service SDK.
    ///
    /// # Panics
    /// When it fails.
    pub fn call(&mut self, method: &str, arguments: Value) -> Value {
        self.run(json!({"do": method, "arguments": arguments}))
    }

    /// Calls a method of the service SDK that must fail; gives the HTTP status and Azure's name of the error.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn refused(&mut self, method: &str, arguments: Value) -> (u64, String) {
        let failed = self.fail(json!({"do": method, "arguments": arguments}));
        let status = failed["status"].as_u64().unwrap_or_else(|| panic!("no answer over HTTP: {failed}"));
        (status, failed["name"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for something that the SDK tells by itself.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, event: &str) -> Value {
        self.program.expect_event(event)
    }

    /// Ends the client; DISCONNECT is sent then.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn end(mut self) {
        self.program.succeed();
    }

    fn answer(&mut self, command: &Value) -> Value {
        self.program.tell(&command.to_string());
        self.program.expect("the answer", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["event"] == "done" || line["event"] == "failed").then_some(line)
        })
    }
}

/// How a back end connects: its connection strings, with this key of the owner.
fn back_end(hub: &Hub, transport: &str, key: &str) -> Value {
    let (host, policy) = (hub.host(), format!("SharedAccessKeyName=iothubowner;SharedAccessKey={key}"));
    let events = format!("Endpoint=sb://{host}/;{policy};EntityPath=devicebound");
    let service = format!("HostName={host};{policy}");
    json!({"ca": hub.ca(), "events": events, "service": service, "transport": transport})
}
