//! What `devicebound hub` tells people and programs when it is ready: where it is, how to connect, lines to paste.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use devicebound::iothub::sas::{self, Policy, SymmetricKey};
use serde_json::json;

use super::super::ca::environment;
use super::super::event_snippets::EventFacts;
use super::super::page;
use super::super::sas::device_token;
use super::super::snippets::Facts;
use super::super::state_flag;
use super::arguments::HubArgs;
use crate::Failure;
use crate::amqp::{AMQP_PORT, EVENT_HUB};
use crate::clock::unix_time;
use crate::server::listen::{HTTPS_PORT, Listeners, MQTT_PORT};
use crate::state::policies;

/// The device that every hub starts with.
pub(super) const DEMO: &str = "demo";
/// How long the tokens in the printed lines are good for.
const PRINTED_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What is told when the hub is ready.
pub(in crate::cli) struct Ready {
    host: String,
    pub(in crate::cli) mqtt: SocketAddr,
    pub(in crate::cli) https: SocketAddr,
    pub(in crate::cli) amqp: SocketAddr,
    /// AMQP without TLS, where it was asked for.
    emulator: Option<SocketAddr>,
    pub(in crate::cli) ca: PathBuf,
    /// What the tools need to find this hub; nothing where it uses the default state folder.
    state_flag: String,
    /// Unknown when somebody removed the device, or gave it a certificate.
    demo_key: Option<SymmetricKey>,
    service_key: SymmetricKey,
    /// The key whose rights the page has, where there is a page.
    page_key: Option<SymmetricKey>,
    page_policy: String,
    /// Which instance of the provisioning service devices name.
    id_scope: String,
    /// The connection string of that service.
    provisioning: String,
}

impl Ready {
    pub(super) fn new(
        args: &HubArgs,
        listeners: &Listeners,
        ca: PathBuf,
        demo_key: Option<SymmetricKey>,
        policies: &[Policy],
        (id_scope, provisioning): (String, String),
    ) -> Result<Self, Failure> {
        let address = |listeners: &[tokio::net::TcpListener]| {
            listeners
                .first()
                .and_then(|listener| listener.local_addr().ok())
                .ok_or_else(|| Failure::new("a socket that was bound has no address", "start again"))
        };
        let owner = policies.iter().find(|policy| policy.name == policies::OWNER);
        let service_key = owner.and_then(|policy| policy.keys.first()).cloned().ok_or_else(|| {
            Failure::new(
                "policies.json has no key of iothubowner",
                "remove policies.json to have new keys made",
            )
        })?;
        Ok(Self {
            host: host(args, listeners),
            id_scope,
            provisioning,
            mqtt: address(&listeners.mqtt)?,
            https: address(&listeners.https)?,
            amqp: address(&listeners.amqp)?,
            emulator: listeners.emulator.first().and_then(|listener| listener.local_addr().ok()),
            state_flag: ca.parent().map(state_flag).unwrap_or_default(),
            ca,
            demo_key,
            service_key,
            page_key: (!args.no_page)
                .then(|| page::key_of(policies, &args.page_policy).cloned())
                .transpose()?,
            page_policy: args.page_policy.clone(),
        })
    }

    /// Where clients on this machine connect to: `localhost`, unless the hub listens elsewhere.
    fn address(&self) -> String {
        let ip = self.mqtt.ip();
        let is_usual = ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST;
        if is_usual { "localhost".to_owned() } else { ip.to_string() }
    }

    /// Why a program that knows the usual ports only cannot use this hub; empty where all can.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.mqtt.port() != MQTT_PORT {
            notes.push(format!(
                "Azure's device SDKs connect to port {MQTT_PORT} only, and MQTT is on {}: use --isolated, or --port {MQTT_PORT}",
                self.mqtt.port()
            ));
        }
        if self.https.port() != HTTPS_PORT {
            notes.push(format!(
                "Azure's SDKs connect to port {HTTPS_PORT} for MQTT over WebSocket, and HTTPS is on {}: use --isolated, or --https-port {HTTPS_PORT}",
                self.https.port()
            ));
        }
        notes
    }

    /// Where the page is, and a link that opens it once; nothing where there is none.
    fn page_link(&self) -> Option<String> {
        page::link(&self.page_url(), self.page_key.as_ref()?).ok()
    }

    fn page_url(&self) -> String {
        let address = self.address();
        match self.https.port() {
            HTTPS_PORT => format!("https://{address}/"),
            port => format!("https://{address}:{port}/"),
        }
    }

    fn connection_string(&self) -> Option<String> {
        let key = self.demo_key.as_ref()?.to_base64();
        Some(format!("HostName={};DeviceId={DEMO};SharedAccessKey={key}", self.host))
    }

    pub(in crate::cli) fn service_connection_string(&self) -> String {
        let key = self.service_key.to_base64();
        format!("HostName={};SharedAccessKeyName={};SharedAccessKey={key}", self.host, policies::OWNER)
    }

    /// What Event Hubs clients connect with. The port is left out where they know it.
    pub(in crate::cli) fn event_hub_connection_string(&self) -> String {
        let port =
            if self.amqp.port() == AMQP_PORT { String::new() } else { format!(":{}", self.amqp.port()) };
        let (host, key) = (&self.host, self.service_key.to_base64());
        let owner = policies::OWNER;
        format!(
            "Endpoint=sb://{host}{port}/;SharedAccessKeyName={owner};SharedAccessKey={key};EntityPath={EVENT_HUB}"
        )
    }

    /// What programs need that read with an Event Hubs SDK.
    fn event_snippets<R>(&self, write: impl FnOnce(&EventFacts<'_>) -> R) -> R {
        write(&EventFacts {
            connection_string: &self.event_hub_connection_string(),
            host: &self.host,
            port: self.amqp.port(),
            ca: &self.ca,
        })
    }

    /// The same without TLS.
    fn emulator_connection_string(&self) -> Option<String> {
        let (port, key) = (self.emulator?.port(), self.service_key.to_base64());
        let owner = policies::OWNER;
        Some(format!(
            "Endpoint=sb://localhost:{port};SharedAccessKeyName={owner};SharedAccessKey={key};UseDevelopmentEmulator=true;EntityPath={EVENT_HUB}"
        ))
    }

    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "event": "ready",
            "mqtt": self.mqtt.to_string(),
            "https": self.https.to_string(),
            "amqp": self.amqp.to_string(),
            "amqpEmulator": self.emulator.map(|address| address.to_string()),
            "ca": self.ca,
            "connectionString": self.connection_string(),
            "serviceConnectionString": self.service_connection_string(),
            "eventHubConnectionString": self.event_hub_connection_string(),
            "eventHubSnippets": self.event_snippets(|facts| facts.json()),
            "emulatorConnectionString": self.emulator_connection_string(),
            "idScope": self.id_scope,
            "provisioningServiceConnectionString": self.provisioning,
            "host": self.host,
            "state": self.ca.parent(),
            "version": env!("CARGO_PKG_VERSION"),
            "environment": environment(&self.ca),
            "notes": self.notes(),
            "page": self.page_link(),
        })
    }

    /// What the tools of this machine need to find the hub.
    pub(super) fn service_file(&self) -> serde_json::Value {
        let mut address = self.https;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
            });
        }
        json!({
            "url": format!("https://{address}"),
            "connectionString": self.service_connection_string(),
            "ca": self.ca,
            "eventHubSnippets": self.event_snippets(|facts| facts.text()),
            "pid": std::process::id(),
            "page": self.page_key.as_ref().map(|_| self.page_url()),
            "pagePolicy": self.page_policy,
        })
    }

    pub(super) fn text(&self, https_note: Option<&str>, amqp_note: Option<&str>) -> String {
        let mut lines = vec![
            "devicebound is ready".to_owned(),
            format!("  MQTT over TLS                 {}", self.mqtt),
            format!("  HTTPS, MQTT over WebSocket    {}", self.https),
        ];
        lines.extend(https_note.map(|note| format!("    not on {HTTPS_PORT}: {note}")));
        lines.push(format!("  AMQP over TLS                 {}", self.amqp));
        lines.extend(amqp_note.map(|note| format!("    not on {AMQP_PORT}: {note}")));
        lines.extend(self.emulator.map(|address| format!("  AMQP without TLS              {address}")));
        lines.extend(self.page_link().map(|link| format!("  page, a link for once         {link}")));
        lines.push(format!("  CA certificate                {}", self.ca.display()));
        lines.push(format!("  service connection string     {}", self.service_connection_string()));
        lines.push(format!("  Event Hubs connection string  {}", self.event_hub_connection_string()));
        lines.push(format!(
            "    read by Python, Node, .NET, Java: devicebound telemetry snippets{}",
            self.state_flag
        ));
        lines.extend(
            self.emulator_connection_string().map(|text| format!("    without TLS                 {text}")),
        );
        lines.push(format!("  provisioning, id scope        {}", self.id_scope));
        lines.push(format!("  provisioning, service         {}", self.provisioning));
        if let (Some(connection_string), Some(key)) = (self.connection_string(), &self.demo_key) {
            let expiry = unix_time().after(PRINTED_TOKEN_LIFE);
            let snippets = Facts {
                host: &self.host,
                address: &self.address(),
                mqtt_port: self.mqtt.port(),
                https_port: self.https.port(),
                ca: &self.ca,
                device_id: DEMO,
                connection_string: &connection_string,
                device_token: &device_token(&self.host, DEMO, key, expiry),
                service_token: &sas::sign(&self.host, &self.service_key, expiry, Some(policies::OWNER)),
            };
            lines.push(format!("  device connection string      {connection_string}"));
            lines.push(String::new());
            lines.push(snippets.snippets());
            lines.push(snippets.provisioning(&self.id_scope, &self.state_flag));
            let tool = format!("devicebound sas{}", self.state_flag);
            lines.push(format!("The tokens above are good until {expiry}; new ones:"));
            lines.push(format!("  {tool} {DEMO}"));
            lines.push(format!("  {tool} --service"));
            lines.push(String::new());
        }
        lines.push("What happens from now on:".to_owned());
        lines.join("\n")
    }
}

/// The name that stands in connection strings, and that provisioned devices are told.
pub(super) fn host(args: &HubArgs, listeners: &Listeners) -> String {
    args.names.first().cloned().unwrap_or_else(|| host_of(args, listeners))
}

/// The same with the port of HTTPS where that is not 443: where a back end finds uploaded files.
pub(super) fn authority(args: &HubArgs, listeners: &Listeners) -> Result<String, Failure> {
    let host = host(args, listeners);
    let port =
        listeners.https.first().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
    match port {
        Some(HTTPS_PORT) => Ok(host),
        Some(port) => Ok(format!("{host}:{port}")),
        None => Err(Failure::new("a socket that was bound has no address", "start again")),
    }
}

/// The host of connection strings where no name was given: an isolated hub is at its address alone.
fn host_of(args: &HubArgs, listeners: &Listeners) -> String {
    let address = listeners.mqtt.first().and_then(|listener| listener.local_addr().ok());
    match address {
        Some(address) if args.isolated => address.ip().to_string(),
        _ => "localhost".to_owned(),
    }
}
