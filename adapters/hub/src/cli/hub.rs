//! `devicebound hub`: runs the hub.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum, value_parser};
use devicebound::hub::{Authentication, DeviceRecord, HubConfig, Limits, Scale, Tier};
use devicebound::iothub::sas::{self, Policy, SymmetricKey};
use devicebound::limits::{CLOUD_MESSAGE_TTL, CLOUD_MESSAGE_TTL_MAX, CLOUD_MESSAGE_TTL_MIN, DELIVERY_COUNT};
use serde_json::json;
use tempfile::TempDir;

use super::ca::environment;
use super::log::{self, LogFormat};
use super::page;
use super::parse_duration;
use super::quota::Quota;
use super::sas::device_token;
use super::state_flag;
use crate::Failure;
use crate::amqp::EVENT_HUB;
use crate::backend::identity::new_identity;
use crate::cli::snippets::Facts;
use crate::clock::unix_time;
use crate::observe::view::{Format, View};
use crate::provisioning::settings::CERTIFICATE_LIFE;
use crate::provisioning::{LinkedHubs, Settings};
use crate::server::Server;
use crate::server::certificate_watch::{CertificateWatch, Watched};
use crate::server::isolated;
use crate::server::listen::{self, AMQP_PORT, HTTPS_PORT, Listeners, MQTT_PORT, Ports};
use crate::state::certs::CA_FILE;
use crate::state::own_certificate::OwnCertificate;
use crate::state::policies;
use crate::state::{Lock, Secrecy, StateDir};
use crate::store::partitions::{PARTITIONS, PARTITIONS_RANGE};
use crate::store::{DiskStore, MemoryStore, Retention, Store};
use crate::transport::key_log::KeyLogFile;
use crate::transport::tls;

/// The device that every hub starts with.
const DEMO: &str = "demo";
/// How long the tokens in the printed lines are good for.
const PRINTED_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// What the real service allows a clock to be off at CONNECT, and how long it lets a connection outlive its token.
const AZURE_SKEW: Duration = Duration::from_secs(300);
const AZURE_GRACE: Duration = Duration::from_secs(600);

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct HubArgs {
    /// Where certificates, keys and devices are kept [default: devicebound in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    state: Option<PathBuf>,
    /// The port of MQTT over TLS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = MQTT_PORT)]
    port: u16,
    /// The port of HTTPS and MQTT over WebSocket; 0 takes a free one [default: 443, else 8443]
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// The port of AMQP over TLS, for the service and Event Hubs SDKs; 0 takes a free one [default: 5671, else a free one]
    #[arg(long, value_name = "PORT")]
    amqp_port: Option<u16>,
    /// A port of AMQP without TLS, on loopback only, for connection strings with UseDevelopmentEmulator=true (they dial 5672); 0
    /// takes a free one
    #[arg(long, value_name = "PORT")]
    emulator_port: Option<u16>,
    /// Partitions of the Event Hubs-compatible endpoint, for a new store: 1 to 32 [default: what the store has, at first 4]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(i64::from(*PARTITIONS_RANGE.start())..=i64::from(*PARTITIONS_RANGE.end())))]
    partitions: Option<u16>,
    /// Take a loopback address of one's own with the usual ports, for any number of hubs side by side; without --state, all
    /// is gone when the hub ends
    #[arg(long, conflicts_with = "listen")]
    isolated: bool,
    /// An address to listen on; may be given again. In a container: 0.0.0.0 [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<IpAddr>,
    /// Authorities whose word is taken for who a device is, besides the hub's own (devicebound cert ca): a PEM file; may be
    /// given again
    #[arg(long = "device-ca", value_name = "FILE")]
    device_authorities: Vec<PathBuf>,
    /// Another hub that devices can be provisioned to, by name; somebody else registers them there. May be given again
    #[arg(long = "linked-hub", value_name = "NAME")]
    linked_hubs: Vec<String>,
    /// How long a certificate is good that is issued to a device on its request
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    certificate_life: Duration,
    /// A server certificate of one's own with those of its authorities behind it, as PEM; read again when it changes. May be
    /// given again, as for RSA and ECDSA: each with its --key. As localhost the hub shows its own
    #[arg(long = "cert", value_name = "FILE", requires = "keys")]
    certificates: Vec<PathBuf>,
    /// The key of --cert, as PEM
    #[arg(long = "key", value_name = "FILE", requires = "certificates")]
    keys: Vec<PathBuf>,
    /// A name of this hub besides localhost; may be given again. Devices may then use no other
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The real service's tolerance: 300 s for clocks at CONNECT, 600 s until an expired token cuts a connection
    #[arg(long)]
    azure_timing: bool,
    /// Refuse what the real hub may refuse, and this one takes with a warning
    #[arg(long)]
    strict: bool,
    /// How long a cloud-to-device message without an expiry of its own is good: 1m to 2d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_default_ttl)]
    default_ttl: Duration,
    /// A cloud-to-device message that was delivered so often in vain is dead-lettered
    #[arg(long, value_name = "N", default_value_t = DELIVERY_COUNT, value_parser = value_parser!(u32).range(1..=100))]
    max_delivery_count: u32,
    /// A delivery is in vain also when the connection ends before its PUBACK or the lock runs out, as Azure's older documents
    /// have it; otherwise only when it is abandoned
    #[arg(long)]
    every_delivery_counts: bool,
    /// Where devices and telemetry are kept
    #[arg(long, value_enum, default_value_t = StoreKind::Disk)]
    store: StoreKind,
    /// Telemetry that is older than so many hours gives way; the real service's default is a day
    #[arg(long, value_name = "HOURS", default_value_t = Retention::default().age.as_secs() / 3600)]
    retain_hours: u64,
    /// The oldest telemetry gives way when all of it is larger than so many MiB
    #[arg(long, value_name = "MIB", default_value_t = Retention::default().bytes / MIB)]
    retain_mb: u64,
    /// No page at / of the HTTPS port
    #[arg(long)]
    no_page: bool,
    /// The access policy whose rights the page has
    #[arg(long, value_name = "NAME", default_value = policies::OWNER, conflicts_with = "no_page")]
    page_policy: String,
    /// JSON lines instead of text
    #[arg(long)]
    json: bool,
    /// No live view: only what is needed to connect is printed
    #[arg(long)]
    quiet: bool,
    /// Threads that devices are spread over [default: one for each core that the hub may use]
    #[arg(long, value_name = "N")]
    workers: Option<NonZero<usize>>,
    /// Hold the rates and the daily quota of a tier of the real service: F1, B1, S1, B2, S2, B3 or S3. On one thread
    #[arg(long, value_name = "TIER", conflicts_with = "workers", value_parser = PossibleValuesParser::new(Tier::ALL.map(Tier::name)).try_map(tier))]
    tier: Option<Tier>,
    /// Units of that tier
    #[arg(long, value_name = "N", requires = "tier", default_value_t = NonZero::<u16>::MIN)]
    units: NonZero<u16>,
    /// Write the keys of every TLS session to this file, so that a capture can be read: devicebound explain --key-log FILE.
    /// For debugging alone: with it, all traffic can be read [default: what SSLKEYLOGFILE names]
    #[arg(long, value_name = "FILE")]
    key_log: Option<PathBuf>,
    /// A structured log on standard error instead of the live view; DEVICEBOUND_LOG filters it (default: info)
    #[arg(long, value_enum, default_value_t = LogFormat::Off)]
    log: LogFormat,
}

/// Where a hub keeps what it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// In the state folder: what was acknowledged survives a crash and a power cut
    Disk,
    /// In memory: all is gone when the hub ends
    Memory,
}

impl HubArgs {
    /// A hub for this process alone: free ports of IPv4's loopback.
    pub(super) fn private(state: PathBuf) -> Self {
        Self {
            state: Some(state),
            port: 0,
            https_port: Some(0),
            amqp_port: Some(0),
            emulator_port: None,
            partitions: None,
            isolated: false,
            listen: vec![Ipv4Addr::LOCALHOST.into()],
            device_authorities: Vec::new(),
            certificates: Vec::new(),
            keys: Vec::new(),
            linked_hubs: Vec::new(),
            certificate_life: CERTIFICATE_LIFE,
            names: Vec::new(),
            azure_timing: false,
            strict: false,
            default_ttl: CLOUD_MESSAGE_TTL,
            max_delivery_count: DELIVERY_COUNT,
            every_delivery_counts: false,
            store: StoreKind::Disk,
            retain_hours: Retention::default().age.as_secs() / 3600,
            retain_mb: Retention::default().bytes / MIB,
            no_page: false,
            page_policy: policies::OWNER.to_owned(),
            json: false,
            quiet: false,
            workers: None,
            tier: None,
            units: NonZero::<u16>::MIN,
            log: LogFormat::Off,
            key_log: None,
        }
    }
}

pub(super) fn run(args: HubArgs) -> Result<(), Failure> {
    // Each connection is a descriptor. Where the limit cannot be raised, fewer connections are accepted at a time.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    runtime()?.block_on(serve(args))
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(format!("cannot start threads: {error}"), "see the limits of this system")
    })
}

async fn serve(args: HubArgs) -> Result<(), Failure> {
    // First of all, so that a signal at any later moment ends the hub cleanly.
    let stop = stop_signal()?;
    let format = if args.json { Format::Json } else { Format::Text };
    let log = log::start(args.log)?;
    let is_quiet = args.quiet || log.is_some();
    let view = if is_quiet { View::banner_alone(format) } else { View::stdout(format) };
    let Prepared { server, listeners, ready, key_log_warning, state, lock: _lock, scratch: _scratch, watch } =
        prepare(&args, view.clone()).await?;
    state.write("service.json", format!("{:#}\n", ready.service_file()).as_bytes(), Secrecy::Secret)?;
    view.banner(&ready.text(listeners.https_note.as_deref(), listeners.amqp_note.as_deref()), &ready.json());
    if let Some(warning) = key_log_warning {
        view.banner(&warning, &json!({"event": "warning", "text": warning}));
    }
    let watch = tokio::spawn(watch.keep());
    let quota = match args.tier.filter(|_| args.store == StoreKind::Disk) {
        Some(_) => Some(Quota::restore(Arc::clone(server.engine()), state.clone(), view).await?),
        None => None,
    };
    let stop = async {
        match quota {
            Some(quota) => quota.keep_until(stop).await,
            None => stop.await,
        }
    };
    server.run(listeners, stop).await?;
    watch.abort();
    state.remove("service.json");
    Ok(())
}

/// A hub that only has to be run.
pub(super) struct Prepared {
    pub(super) server: Server,
    pub(super) listeners: Listeners,
    pub(super) ready: Ready,
    /// That the keys of TLS are written to a file, where they are.
    key_log_warning: Option<String>,
    state: StateDir,
    /// The right to the state folder, for as long as the hub runs.
    pub(super) lock: Lock,
    /// Removed when the hub ends.
    scratch: Option<TempDir>,
    /// Looks after the certificates, where it is run.
    watch: CertificateWatch,
}

/// Does everything that comes before serving: state folder, ports, certificates, keys, the device `demo`.
pub(super) async fn prepare(args: &HubArgs, view: View) -> Result<Prepared, Failure> {
    let (state, scratch) = open_state(args)?;
    let lock = state.lock()?;
    let ports = Ports {
        addresses: args.listen.clone(),
        mqtt: args.port,
        https: args.https_port,
        // On an address of its own, 5671 is free, and clients that know no other port can come.
        amqp: args.amqp_port.or(args.isolated.then_some(AMQP_PORT)),
        emulator: args.emulator_port,
    };
    let (listeners, addresses) = if args.isolated {
        let (listeners, address) = isolated::bind(&ports, std::process::id()).await?;
        (listeners, vec![address])
    } else {
        (listen::bind(&ports).await?, args.listen.clone())
    };

    let specific = addresses.iter().filter(|address| !address.is_unspecified()).map(ToString::to_string);
    let certificate_names: Vec<String> = args.names.iter().cloned().chain(specific).collect();
    let watch = CertificateWatch::start(&Watched {
        state: state.clone(),
        names: certificate_names.clone(),
        own: own_certificates(args)?,
        device_authorities: args.device_authorities.clone(),
        view: view.clone(),
    })?;
    let store = store(args, &state)?;
    let policies = policies::load_or_make(&state)?;
    let mut tls = tls::server_config_with(watch.offer())?;
    let key_log = KeyLogFile::asked_for(args.key_log.as_deref())?;
    let key_log_warning = key_log.as_ref().map(KeyLogFile::warning);
    if let Some(key_log) = key_log {
        tls = key_log.attach(&tls);
    }
    let server = Server::start(
        config(args, &certificate_names, &policies),
        policies.clone(),
        store,
        tls,
        view,
        workers(args),
    )?
    .trusting(watch.authorities().clone());
    let hubs = LinkedHubs { own: host(args, &listeners), others: args.linked_hubs.clone() };
    let settings = Settings::load_or_make(&state, hubs, args.certificate_life, &args.device_authorities)?;
    let provisioning = (settings.id_scope.clone(), settings.connection_string());
    let server = server.with_provisioning(settings)?;
    let server = if args.no_page {
        server
    } else {
        server.with_page(&page::page(&policies, &args.page_policy, &certificate_names)?)
    };

    let demo_key = demo_key(&server).await?;
    let ready = Ready::new(args, &listeners, state.file(CA_FILE), demo_key, &policies, provisioning)?;
    Ok(Prepared { server, listeners, ready, key_log_warning, state, lock, scratch, watch })
}

/// Each `--cert` with its `--key`.
fn own_certificates(args: &HubArgs) -> Result<Vec<OwnCertificate>, Failure> {
    if args.certificates.len() != args.keys.len() {
        let (certificates, keys) = (args.certificates.len(), args.keys.len());
        return Err(Failure::new(
            format!("--cert was given {certificates} times, and --key {keys} times"),
            "give each --cert its --key, in the same order",
        ));
    }
    let pairs = args.certificates.iter().zip(&args.keys);
    Ok(pairs.map(|(certificate, key)| OwnCertificate::new(certificate.clone(), key.clone())).collect())
}

/// The state folder that was named, the usual one, or one that goes away with an isolated hub.
fn open_state(args: &HubArgs) -> Result<(StateDir, Option<TempDir>), Failure> {
    match &args.state {
        Some(path) => Ok((StateDir::open(path)?, None)),
        None if args.isolated => {
            let scratch = tempfile::Builder::new().prefix("devicebound-").tempdir().map_err(|error| {
                Failure::new(format!("cannot make a temporary folder: {error}"), "name one: --state DIR")
            })?;
            Ok((StateDir::open(scratch.path())?, Some(scratch)))
        }
        None => Ok((StateDir::open(&StateDir::default_path())?, None)),
    }
}

/// The name that stands in connection strings, and that provisioned devices are told.
fn host(args: &HubArgs, listeners: &Listeners) -> String {
    args.names.first().cloned().unwrap_or_else(|| host_of(args, listeners))
}

fn parse_default_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    let is_possible = (CLOUD_MESSAGE_TTL_MIN..=CLOUD_MESSAGE_TTL_MAX).contains(&ttl);
    if is_possible { Ok(ttl) } else { Err("a hub's messages are good for 1m to 2d".to_owned()) }
}

fn tier(name: String) -> Result<Tier, &'static str> {
    Tier::from_name(&name).ok_or("no tier has this name")
}

/// One for each core; one alone where rates are to hold for the hub as a whole.
fn workers(args: &HubArgs) -> usize {
    if args.tier.is_some() {
        return 1;
    }
    args.workers.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), NonZero::get)
}

fn store(args: &HubArgs, state: &StateDir) -> Result<Box<dyn Store>, Failure> {
    let age = Duration::from_secs(args.retain_hours.saturating_mul(3600));
    let retention = Retention { age, bytes: args.retain_mb.saturating_mul(MIB) };
    Ok(match args.store {
        StoreKind::Disk => {
            let store = DiskStore::at(state, retention)?;
            Box::new(match args.partitions {
                Some(count) => store.with_partitions(count)?,
                None => store,
            })
        }
        StoreKind::Memory => {
            Box::new(MemoryStore::with_partitions(retention, args.partitions.unwrap_or(PARTITIONS)))
        }
    })
}

fn config(args: &HubArgs, certificate_names: &[String], policies: &[Policy]) -> HubConfig {
    let own = ["localhost", "127.0.0.1", "::1", "[::1]"].map(str::to_owned);
    let known_names: Vec<String> = certificate_names.iter().cloned().chain(own).collect();
    let host_names = if args.names.is_empty() { Vec::new() } else { known_names.clone() };
    let (clock_skew, expiry_grace) =
        if args.azure_timing { (AZURE_SKEW, AZURE_GRACE) } else { (Duration::ZERO, Duration::ZERO) };
    HubConfig {
        host_names,
        known_names,
        policies: policies.to_vec(),
        clock_skew,
        expiry_grace,
        fault_injection: true,
        strict: args.strict,
        tier: args.tier.map(|tier| Scale { tier, units: args.units.get() }),
        limits: Limits {
            cloud_message_ttl: args.default_ttl,
            delivery_count: args.max_delivery_count,
            every_delivery_counts: args.every_delivery_counts,
            ..Limits::default()
        },
    }
}

/// The key of the device `demo`, which is registered if it is the first start.
async fn demo_key(server: &Server) -> Result<Option<SymmetricKey>, Failure> {
    let engine = server.engine();
    let empty = engine.everywhere(|core, _| core.hub.devices().next().is_none()).await;
    if empty.into_iter().all(|empty| empty) {
        let failed = |cause: String| Failure::new(cause, "check the state folder and start again");
        let identity = new_identity(DEMO).map_err(|error| failed(error.to_string()))?;
        let added = engine.at(DEMO, |core, _| {
            let (_, added) = core.register(DeviceRecord::new(identity)).ok()?;
            Some(core.commit_durably([added]))
        });
        let safe = added.await.ok_or_else(|| failed(format!("{DEMO} is registered twice")))?;
        if !safe.await {
            return Err(failed(format!("cannot store the device {DEMO}")));
        }
    }
    let demo_key = engine.at(DEMO, |core, _| {
        let record = core.hub.record(core.hub.find(DEMO)?)?;
        match &record.identity.authentication {
            Authentication::Sas { primary, .. } => Some(primary.clone()),
            Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => None,
        }
    });
    Ok(demo_key.await)
}

/// What is told when the hub is ready.
pub(super) struct Ready {
    host: String,
    pub(super) mqtt: SocketAddr,
    pub(super) https: SocketAddr,
    amqp: SocketAddr,
    /// AMQP without TLS, where it was asked for.
    emulator: Option<SocketAddr>,
    pub(super) ca: PathBuf,
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
    fn new(
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

    pub(super) fn service_connection_string(&self) -> String {
        let key = self.service_key.to_base64();
        format!("HostName={};SharedAccessKeyName={};SharedAccessKey={key}", self.host, policies::OWNER)
    }

    /// What Event Hubs clients connect with. The port is left out where they know it.
    fn event_hub_connection_string(&self) -> String {
        let port =
            if self.amqp.port() == AMQP_PORT { String::new() } else { format!(":{}", self.amqp.port()) };
        let (host, key) = (&self.host, self.service_key.to_base64());
        let owner = policies::OWNER;
        format!(
            "Endpoint=sb://{host}{port}/;SharedAccessKeyName={owner};SharedAccessKey={key};EntityPath={EVENT_HUB}"
        )
    }

    /// The same without TLS.
    fn emulator_connection_string(&self) -> Option<String> {
        let (port, key) = (self.emulator?.port(), self.service_key.to_base64());
        let owner = policies::OWNER;
        Some(format!(
            "Endpoint=sb://localhost:{port};SharedAccessKeyName={owner};SharedAccessKey={key};UseDevelopmentEmulator=true;EntityPath={EVENT_HUB}"
        ))
    }

    fn json(&self) -> serde_json::Value {
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
    fn service_file(&self) -> serde_json::Value {
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
            "pid": std::process::id(),
            "page": self.page_key.as_ref().map(|_| self.page_url()),
            "pagePolicy": self.page_policy,
        })
    }

    fn text(&self, https_note: Option<&str>, amqp_note: Option<&str>) -> String {
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

/// The host of connection strings where no name was given: an isolated hub is at its address alone.
fn host_of(args: &HubArgs, listeners: &Listeners) -> String {
    let address = listeners.mqtt.first().and_then(|listener| listener.local_addr().ok());
    match address {
        Some(address) if args.isolated => address.ip().to_string(),
        _ => "localhost".to_owned(),
    }
}

/// Completes at SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot listen for signals: {error}"), "start again");
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Where files may not grow without end (`ulimit -f`), a write fails as on a full disk. Unless somebody listens, the
        // signal ends the program.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(failed)?);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    {
        let _ = failed;
        Ok(async {
            // Without a way to hear of it there is nothing to wait for.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: HubArgs,
    }

    fn config_of(arguments: &[&str]) -> Option<HubConfig> {
        let line = Line::try_parse_from(["hub"].iter().chain(arguments)).ok()?;
        Some(config(&line.args, &[], &[]))
    }

    #[test]
    fn clocks_are_sharp_unless_the_real_services_tolerance_is_asked_for() {
        let times = |arguments| {
            config_of(arguments).map(|config| (config.clock_skew.as_secs(), config.expiry_grace.as_secs()))
        };
        assert_eq!(times(&[]), Some((0, 0)));
        assert_eq!(times(&["--azure-timing"]), Some((300, 600)));
    }

    #[test]
    fn messages_are_good_for_an_hour_or_as_long_as_a_hub_may_be_told() {
        let ttl =
            |arguments: &[&str]| config_of(arguments).map(|config| config.limits.cloud_message_ttl.as_secs());
        assert_eq!(ttl(&[]), Some(3600));
        assert_eq!(ttl(&["--default-ttl", "1m"]), Some(60));
        assert_eq!(ttl(&["--default-ttl", "2d"]), Some(172_800));
        for wrong in ["59s", "49h", "soon"] {
            assert_eq!(ttl(&["--default-ttl", wrong]), None, "{wrong}");
        }
    }
}
