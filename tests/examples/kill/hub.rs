//! The hub as a process, and its service API for those who must expect it to be dead.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::iothub::sas;
use devicebound::iothub::{ConnectionString, Credential};
use devicebound::time::UnixTime;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A request that takes longer than this has met a dead hub.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hub that runs, until it is killed.
pub(crate) struct Hub {
    child: Child,
    pub(crate) mqtt: u16,
    pub(crate) ca: PathBuf,
    https: u16,
    state: PathBuf,
    service: String,
    agent: Agent,
}

/// A line of the log.
pub(crate) struct Line {
    pub(crate) cursor: u64,
    pub(crate) device_id: String,
    /// What the device counted.
    pub(crate) number: u64,
}

impl Hub {
    /// Starts a hub on a state folder, on the ports of the one before it.
    ///
    /// # Panics
    /// When it does not start.
    pub(crate) fn start(state: &Path, before: Option<&Self>) -> Self {
        let port = |port: Option<u16>| port.unwrap_or(0).to_string();
        let program = std::env::current_exe().unwrap_or_else(|error| panic!("this program: {error}"));
        let mut child = Command::new(program)
            .args(["hub", "--json", "--quiet", "--listen", "127.0.0.1", "--state"])
            .arg(state)
            .args(["--port", &port(before.map(|hub| hub.mqtt))])
            .args(["--https-port", &port(before.map(|hub| hub.https))])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("the hub: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap_or_else(|| panic!("it was piped"))).lines();
        let told: Value = lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str(&line).ok())
            .find(|line: &Value| line["event"] == "ready")
            .unwrap_or_else(|| panic!("the hub does not start"));
        // Its lines are read to their end, or it would wait for that.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let port = |name: &str| {
            let address =
                told[name].as_str().and_then(|address| address.parse::<std::net::SocketAddr>().ok());
            address.unwrap_or_else(|| panic!("the hub's first line: {told}")).port()
        };
        let ca: PathBuf = told["ca"].as_str().unwrap_or_default().into();
        let pem = fs::read(&ca).unwrap_or_else(|error| panic!("the hub's authority: {error}"));
        let pem = Certificate::from_pem(&pem).unwrap_or_else(|error| panic!("the hub's authority: {error}"));
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[pem])).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let service = told["serviceConnectionString"].as_str().unwrap_or_default().to_owned();
        Self { child, mqtt: port("mqtt"), https: port("https"), ca, state: state.into(), service, agent }
    }

    /// Pulls the plug of the process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).unwrap_or_else(|error| panic!("kill: {error}"));
    }

    /// A way to the service API that outlives this process of the hub.
    pub(crate) fn service(&self) -> Service {
        Service {
            agent: self.agent.clone(),
            base: format!("https://127.0.0.1:{}", self.https),
            connection_string: self.service.clone(),
        }
    }

    /// Registers a device; gives its connection string.
    ///
    /// # Panics
    /// When the hub refuses.
    pub(crate) fn register(&self, device_id: &str) -> String {
        let body = json!({"deviceId": device_id}).to_string();
        let identity = self.service().ask("PUT", &format!("/devices/{device_id}"), &[], body.as_bytes());
        let identity: Value =
            serde_json::from_str(&identity.unwrap_or_else(|why| panic!("{device_id}: {why}")))
                .unwrap_or_else(|error| panic!("{device_id}: {error}"));
        let key = identity["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap_or_default();
        format!("HostName=localhost;DeviceId={device_id};SharedAccessKey={key}")
    }

    /// The log from a number on.
    ///
    /// # Panics
    /// When it cannot be read.
    pub(crate) fn lines_from(&self, cursor: u64) -> Vec<Line> {
        let text =
            self.service().ask("GET", &format!("/messages/events?from={cursor}&follow=false"), &[], b"");
        let text = text.unwrap_or_else(|why| panic!("the log: {why}"));
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let body = STANDARD.decode(value["body"].as_str().unwrap_or_default()).unwrap_or_default();
            let number = String::from_utf8(body).ok().and_then(|body| body.trim().parse().ok());
            Line {
                cursor: value["cursor"].as_u64().unwrap_or_else(|| panic!("no line of telemetry: {line}")),
                device_id: value["deviceId"].as_str().unwrap_or_default().to_owned(),
                number: number.unwrap_or_else(|| panic!("not what a device has sent: {line}")),
            }
        };
        text.lines().filter(|text| !text.is_empty()).map(line).collect()
    }

    /// What the twin of a device has as `n`, and the version of the reported properties.
    ///
    /// # Panics
    /// When it cannot be read.
    pub(crate) fn reported(&self, device_id: &str) -> (u64, u64) {
        let twin = self.service().ask("GET", &format!("/twins/{device_id}"), &[], b"");
        let twin: Value = twin
            .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            .unwrap_or_else(|why| panic!("the twin of {device_id}: {why}"));
        let reported = &twin["properties"]["reported"];
        (reported["n"].as_u64().unwrap_or(0), reported["$version"].as_u64().unwrap_or(0))
    }

    /// Bytes in the state folder.
    pub(crate) fn state_size(&self) -> u64 {
        let files = fs::read_dir(&self.state).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // One that was killed already is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service API.
#[derive(Clone)]
pub(crate) struct Service {
    agent: Agent,
    base: String,
    connection_string: String,
}

impl Service {
    /// True when the hub says that it has the message, false when it refuses.
    pub(crate) fn send(&self, device_id: &str, message_id: &str) -> Result<(), String> {
        let path = format!("/devices/{device_id}/messages/deviceBound");
        self.ask("POST", &path, &[("iothub-messageid", message_id)], message_id.as_bytes()).map(drop)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<String, String> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}{separator}api-version=2021-04-12", self.base))
            .header("Authorization", self.token());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| error.to_string())?;
        let mut response = self.agent.run(request).map_err(|error| error.to_string())?;
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_string();
        let body = body.map_err(|error| error.to_string())?;
        if response.status().is_success() { Ok(body) } else { Err(format!("{}: {body}", response.status())) }
    }

    fn token(&self) -> String {
        let connection_string = ConnectionString::parse(&self.connection_string)
            .unwrap_or_else(|error| panic!("the hub's service connection string: {error}"));
        let Credential::Key(key) = connection_string.credential() else {
            panic!("the hub's service connection string has no key")
        };
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let expiry = UnixTime::from_secs(now).after(Duration::from_secs(3600));
        sas::sign(connection_string.host_name(), key, expiry, connection_string.key_name())
    }
}
