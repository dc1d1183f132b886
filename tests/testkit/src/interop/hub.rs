//! The hub that the clients talk to: the real program, on real ports, with a state folder of its own.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use devicebound::iothub::sas::{self, SymmetricKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Certificate, Program, Service, Site, now};

/// The ports that Azure's device SDKs dial; they know no others.
const AZURE_MQTT_PORT: u16 = 8883;
const AZURE_HTTPS_PORT: u16 = 443;
/// Linux's folder in memory.
const MEMORY: &str = "/dev/shm";
/// Set to 1, no test may be left out because port 443 cannot be had.
const REQUIRE_443: &str = "DEVICEBOUND_REQUIRE_443";
/// The line that lets anybody listen on 443.
const ALLOW_443: &str = "sudo sysctl net.ipv4.ip_unprivileged_port_start=443";
/// A token outlives its test.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Runs the program until its standard input ends, which it does with the test process, however that ends; then asks it
/// to stop (SIGTERM) and passes its exit code on. Its lines end with it: the shell lets go of both outputs.
const SUPERVISOR: &str = r#"trap '' INT; "$@" & exec >/dev/null 2>&1; cat; kill $!; wait $!"#;

/// A hub that runs.
#[derive(Debug)]
pub struct Hub {
    program: Supervised,
    service: Service,
    ready: Ready,
    arguments: Vec<String>,
    site: Site,
    state: TempDir,
    /// The name or the address that clients dial.
    host: String,
}

/// The program under its supervisor, which is not to be killed: nobody would end the hub then.
#[derive(Debug)]
struct Supervised(Program);

impl Drop for Supervised {
    fn drop(&mut self) {
        // A hub that does not end is left to the next test, whose hub names the port that is in use.
        let _ = self.0.end();
    }
}

/// What the hub says when it is ready.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) mqtt: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) amqp: SocketAddr,
    pub(crate) ca: PathBuf,
}

/// A device as the registry knows it, or a module.
#[derive(Clone, Debug)]
pub struct Device {
    /// The name or the address of its hub.
    pub host: String,
    /// The device id.
    pub id: String,
    /// The module id, if it is one.
    pub module: Option<String>,
    /// Its primary key.
    pub key: SymmetricKey,
}

impl Hub {
    /// A hub on ports that are free, for clients that can be told a port.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn on_free_ports(site: Site) -> Self {
        Self::run(site, site.scratch, [0, 0], None)
    }

    /// The same, with its state in memory where the system has a folder for that: for fleets, each member of which is written
    /// to the disk several times while it comes online for the first time.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn for_a_fleet(site: Site) -> Self {
        let folder = if Path::new(MEMORY).is_dir() { MEMORY } else { site.scratch };
        Self::run(site, folder, [0, 0], None)
    }

    /// The hub on 8883, and on 443 where that may be had, of a loopback address of its own: neither another test
    /// nor a hub that runs on this machine is in its way.
    ///
    /// # Panics
    /// When the hub does not start, for example because another program listens on 8883 of all addresses.
    #[must_use]
    pub fn on_azure_ports(site: Site) -> Self {
        let https = if may_have_443() { AZURE_HTTPS_PORT } else { 0 };
        Self::run(site, site.scratch, [AZURE_MQTT_PORT, https], Some(own_address()))
    }

    /// The same, or `None` where 443 may not be had: then `left_out` is named on the terminal, with the way to allow it.
    ///
    /// # Panics
    /// As [`on_azure_ports`](Self::on_azure_ports), and where 443 may not be had although `DEVICEBOUND_REQUIRE_443=1`.
    #[must_use]
    pub fn on_azure_ports_with_443(site: Site, left_out: &str) -> Option<Self> {
        if may_have_443() {
            return Some(Self::on_azure_ports(site));
        }
        let why = format!("LEFT OUT: {left_out}: no permission for port 443; allow it: {ALLOW_443}");
        assert!(std::env::var_os(REQUIRE_443).is_none_or(|value| value != "1"), "{why}");
        // Not eprintln!, which the test harness would keep to itself.
        let _ = writeln!(io::stderr(), "\n{why}");
        None
    }

    fn run(site: Site, folder: &str, ports: [u16; 2], address: Option<Ipv4Addr>) -> Self {
        let state = TempDir::with_prefix_in("hub-", folder)
            .unwrap_or_else(|error| panic!("cannot make a folder in {folder}: {error}"));
        let [mqtt_port, https_port] = ports.map(|port| port.to_string());
        let arguments = ["hub", "--json", "--port", &mqtt_port, "--https-port", &https_port];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        let host = address.map_or_else(|| "localhost".to_owned(), |address| address.to_string());
        if address.is_some() {
            arguments.extend(["--listen", &host, "--name", &host].map(str::to_owned));
        }
        arguments.extend(["--state".to_owned(), state.path().display().to_string()]);
        let (program, ready, service) = start(site, &arguments);
        Self { program, service, ready, arguments, site, state, host }
    }

    /// Ends the hub as `kill` does and checks that it took that well.
    ///
    /// # Panics
    /// When it does not end, or ends with an error.
    pub fn stop(&mut self) {
        self.program.0.succeed();
    }

    /// Waits until it prints a line with this text; other lines pass by.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect_text(&mut self, text: &str) -> String {
        self.program.0.expect_text(text)
    }

    /// Waits until it has ended by itself, and checks that it did not end well.
    ///
    /// # Panics
    /// When it goes on, or says that all was well.
    pub fn has_crashed(&mut self) {
        let status = self.program.0.finish();
        assert!(!status.success(), "it was to be ended, and ended well");
    }

    /// Starts it again on the same state, after [`stop`](Self::stop) or [a crash](Self::has_crashed).
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        (self.program, self.ready, self.service) = start(self.site, &self.arguments);
    }

    /// Waits until the live view shows a packet of that name; other lines pass by.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect_packet(&mut self, name: &str) {
        self.expect_view(name, |line| line["event"] == "packet" && line["packet"] == name);
    }

    /// Waits until the live view shows the end of a connection, and gives that line: `rule`, `bytes`, `mend` (the fix) and so on.
    ///
    /// # Panics
    /// When none ends.
    pub fn expect_closed(&mut self) -> Value {
        self.expect_view("the end of a connection", |line| line["event"] == "closed")
    }

    fn expect_view(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.program.0.expect(what, |line| serde_json::from_str(line).ok().filter(&wanted))
    }

    /// Registers a device, which gets keys of its own.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    pub fn register(&self, id: &str) -> Device {
        let identity = self.service.put(&format!("/devices/{id}"), &json!({"deviceId": id}));
        Device { host: self.host.clone(), ..Device::of(&identity) }
    }

    /// Registers a module of a device.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    pub fn register_module(&self, device: &Device, module: &str) -> Device {
        let identity = json!({"deviceId": device.id, "moduleId": module});
        let identity = self.service.put(&format!("/devices/{}/modules/{module}", device.id), &identity);
        Device { module: Some(module.to_owned()), key: primary_key(&identity), ..device.clone() }
    }

    /// Registers a device that is known by a certificate and has no key.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn register_certificate(&self, id: &str, certificate: &Certificate) {
        let thumbprint = json!({"primaryThumbprint": certificate.thumbprint});
        let authentication = json!({"type": "selfSigned", "x509Thumbprint": thumbprint});
        self.service
            .put(&format!("/devices/{id}"), &json!({"deviceId": id, "authentication": authentication}));
    }

    /// The primary key of one of its policies, as it stands in the state folder.
    ///
    /// # Panics
    /// When there is no such policy.
    #[must_use]
    pub fn policy_key(&self, policy: &str) -> String {
        let path = self.state().join("policies.json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let policies: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let key = policies[policy]["primaryKey"].as_str();
        key.unwrap_or_else(|| panic!("no policy `{policy}` in {text}")).to_owned()
    }

    /// The name or the address that clients dial.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The service API.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// The port of MQTT over TLS, as text for a command line.
    #[must_use]
    pub fn mqtt_port(&self) -> String {
        self.ready.mqtt.port().to_string()
    }

    /// The port of MQTT over WebSocket, as text for a command line.
    #[must_use]
    pub fn https_port(&self) -> String {
        self.ready.https.port().to_string()
    }

    /// The file with the certificate that clients must trust.
    ///
    /// # Panics
    /// When its path is not UTF-8.
    #[must_use]
    pub fn ca(&self) -> &str {
        self.ready.ca.to_str().unwrap_or_else(|| panic!("{} is not UTF-8", self.ready.ca.display()))
    }

    /// The process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let path = self.state().join("service.json");
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let told: Value =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("service.json: {error}"));
        told["pid"].as_i64().and_then(|pid| pid.try_into().ok()).unwrap_or_else(|| panic!("{told}: no pid"))
    }

    /// The size of the largest file of its state.
    ///
    /// # Panics
    /// When the state cannot be read.
    #[must_use]
    pub fn largest_file(&self) -> u64 {
        let entries = fs::read_dir(self.state()).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", self.state().display()));
        let sizes = entries.iter().filter_map(|entry| entry.metadata().ok()).map(|file| file.len());
        sizes.max().unwrap_or_default()
    }

    /// A folder that goes away with the hub: the one that it keeps its state in.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.state.path()
    }
}

impl Device {
    /// A device of a hub at `localhost`, by what the registry answered.
    ///
    /// # Panics
    /// When that holds no key.
    #[must_use]
    pub fn of(identity: &Value) -> Self {
        let id = identity["deviceId"].as_str().unwrap_or_default().to_owned();
        Self { host: "localhost".to_owned(), id, module: None, key: primary_key(identity) }
    }

    /// Its connection string.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let module = self.module.as_ref().map(|module| format!("ModuleId={module};")).unwrap_or_default();
        let Self { host, id, key, .. } = self;
        format!("HostName={host};DeviceId={id};{module}SharedAccessKey={}", key.to_base64())
    }

    /// A token of a device, for a hub of that name.
    #[must_use]
    pub fn token(&self, host: &str) -> String {
        sas::sign(&format!("{host}/devices/{}", self.id), &self.key, now().after(TOKEN_LIFE), None)
    }

    /// The user name of a device in today's clients.
    #[must_use]
    pub fn user_name(&self) -> String {
        format!("{}/{}/?api-version=2021-04-12", self.host, self.id)
    }

    /// A device's telemetry topic, with `bag` as it stands.
    #[must_use]
    pub fn telemetry_topic(&self, bag: &str) -> String {
        format!("devices/{}/messages/events/{bag}", self.id)
    }
}

pub(crate) fn primary_key(identity: &Value) -> SymmetricKey {
    let key = identity["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap_or_default();
    SymmetricKey::from_base64(key).unwrap_or_else(|error| panic!("{identity}: {error}"))
}

fn start(site: Site, arguments: &[String]) -> (Supervised, Ready, Service) {
    let mut command = Command::new("sh");
    command.args(["-c", SUPERVISOR, "sh", site.program]).args(arguments);
    let mut program = Supervised(Program::start("the hub", &mut command));
    let told = program.0.expect_event("ready");
    let (ready, service) = Ready::read(&told);
    (program, ready, service)
}

impl Ready {
    /// Reads the line, and makes a connection to the service API out of it.
    pub(crate) fn read(told: &Value) -> (Self, Service) {
        let address = |name: &str| told[name].as_str().and_then(|address| address.parse().ok());
        let ready = match (address("mqtt"), address("https"), address("amqp"), told["ca"].as_str()) {
            (Some(mqtt), Some(https), Some(amqp), Some(ca)) => Self { mqtt, https, amqp, ca: ca.into() },
            _ => panic!("the hub's first line lacks mqtt, https, amqp or ca: {told}"),
        };
        let connection_string = told["serviceConnectionString"].as_str().unwrap_or_default();
        let service = Service::new(ready.https, &ready.ca, connection_string);
        (ready, service)
    }
}

/// An address of 127.0.0.0/8, all of which Linux answers on, that no other test has, in this process or in another. Outside
/// 127.0.0.0/16, where a hub that somebody runs may be.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = process::id().to_be_bytes();
    // 1 to 254: neither 127.0.x.x nor the broadcast address.
    Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1, high, low)
}

/// Whether this user may listen on 443. A port in use is another matter: the hub itself says so, and the test fails.
fn may_have_443() -> bool {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, AZURE_HTTPS_PORT)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
    }
}
