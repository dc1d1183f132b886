//! `devicebound hub`: runs the hub.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

use super::log::{self, LogFormat};
use super::parse_duration;
use super::quota::Quota;
use super::sas::device_token;
use super::state_flag;
use crate::Failure;
use crate::backlog::Change;
use crate::clock::unix_time;
use crate::listen::{self, HTTPS_PORT, Listeners, MQTT_PORT, Ports};
use crate::policies;
use crate::server::Server;
use crate::service::new_identity;
use crate::snippets::Facts;
use crate::state::{Lock, Secrecy, StateDir};
use crate::store::{DiskStore, MemoryStore, Retention, Store};
use crate::transport::device_certs::DeviceAuthorities;
use crate::transport::{certs, tls};
use crate::view::{Format, View};

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
    /// An address to listen on; may be given again. In a container: 0.0.0.0 [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<IpAddr>,
    /// Authorities whose word is taken for who a device is, besides the hub's own (devicebound cert ca): a PEM file; may be
    /// given again
    #[arg(long = "device-ca", value_name = "FILE")]
    device_authorities: Vec<PathBuf>,
    /// A name of this hub besides localhost; may be given again. Devices may then use no other
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The real service's tolerance: 300 s for clocks at CONNECT, 600 s until an expired token cuts a connection
    #[arg(long)]
    azure_timing: bool,
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
            listen: vec![Ipv4Addr::LOCALHOST.into()],
            device_authorities: Vec::new(),
            names: Vec::new(),
            azure_timing: false,
            default_ttl: CLOUD_MESSAGE_TTL,
            max_delivery_count: DELIVERY_COUNT,
            every_delivery_counts: false,
            store: StoreKind::Disk,
            retain_hours: Retention::default().age.as_secs() / 3600,
            retain_mb: Retention::default().bytes / MIB,
            json: false,
            quiet: false,
            workers: None,
            tier: None,
            units: NonZero::<u16>::MIN,
            log: LogFormat::Off,
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
    let Prepared { server, listeners, ready, state, lock: _lock } = prepare(&args, view.clone()).await?;
    state.write("service.json", format!("{:#}\n", ready.service_file()).as_bytes(), Secrecy::Secret)?;
    view.banner(&ready.text(listeners.https_note.as_deref()), &ready.json());
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
    state.remove("service.json");
    Ok(())
}

/// A hub that only has to be run.
pub(super) struct Prepared {
    pub(super) server: Server,
    pub(super) listeners: Listeners,
    pub(super) ready: Ready,
    state: StateDir,
    /// The right to the state folder, for as long as the hub runs.
    pub(super) lock: Lock,
}

/// Does everything that comes before serving: state folder, ports, certificates, keys, the device `demo`.
pub(super) async fn prepare(args: &HubArgs, view: View) -> Result<Prepared, Failure> {
    let state = StateDir::open(&args.state.clone().unwrap_or_else(StateDir::default_path))?;
    let lock = state.lock()?;
    let listeners =
        listen::bind(&Ports { addresses: args.listen.clone(), mqtt: args.port, https: args.https_port })
            .await?;

    let specific = args.listen.iter().filter(|address| !address.is_unspecified()).map(ToString::to_string);
    let certificate_names: Vec<String> = args.names.iter().cloned().chain(specific).collect();
    let certificates = certs::load_or_make(&state, &certificate_names)?;
    let ca = certificates.ca_path.clone();
    let authorities = DeviceAuthorities::load(&state, &args.device_authorities)?;
    let store = store(args, &state)?;
    let policies = policies::load_or_make(&state)?;
    let server = Server::start(
        config(args, &certificate_names, &policies),
        policies.clone(),
        store,
        tls::server_config(certificates)?,
        view,
        workers(args),
    )?
    .trusting(authorities);

    let demo_key = demo_key(&server).await?;
    let ready = Ready::new(args, &listeners, ca, demo_key, &policies)?;
    Ok(Prepared { server, listeners, ready, state, lock })
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
        StoreKind::Disk => Box::new(DiskStore::at(state, retention)?),
        StoreKind::Memory => Box::new(MemoryStore::new(retention)),
    })
}

fn config(args: &HubArgs, certificate_names: &[String], policies: &[Policy]) -> HubConfig {
    let host_names = if args.names.is_empty() {
        Vec::new()
    } else {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        certificate_names.iter().cloned().chain(own).collect()
    };
    let (clock_skew, expiry_grace) =
        if args.azure_timing { (AZURE_SKEW, AZURE_GRACE) } else { (Duration::ZERO, Duration::ZERO) };
    HubConfig {
        host_names,
        policies: policies.to_vec(),
        clock_skew,
        expiry_grace,
        fault_injection: true,
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
        let key = engine.at(DEMO, |core, _| core.hub.register(DeviceRecord::new(identity)).ok()).await;
        let key = key.ok_or_else(|| failed(format!("{DEMO} is registered twice")))?;
        if !engine.durable(DEMO, Change::Record(key)).await {
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
    pub(super) ca: PathBuf,
    /// What the tools need to find this hub; nothing where it uses the default state folder.
    state_flag: String,
    /// Unknown when somebody removed the device, or gave it a certificate.
    demo_key: Option<SymmetricKey>,
    service_key: SymmetricKey,
}

impl Ready {
    fn new(
        args: &HubArgs,
        listeners: &Listeners,
        ca: PathBuf,
        demo_key: Option<SymmetricKey>,
        policies: &[Policy],
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
            host: args.names.first().cloned().unwrap_or_else(|| "localhost".to_owned()),
            mqtt: address(&listeners.mqtt)?,
            https: address(&listeners.https)?,
            state_flag: ca.parent().map(state_flag).unwrap_or_default(),
            ca,
            demo_key,
            service_key,
        })
    }

    fn connection_string(&self) -> Option<String> {
        let key = self.demo_key.as_ref()?.to_base64();
        Some(format!("HostName={};DeviceId={DEMO};SharedAccessKey={key}", self.host))
    }

    pub(super) fn service_connection_string(&self) -> String {
        let key = self.service_key.to_base64();
        format!("HostName={};SharedAccessKeyName={};SharedAccessKey={key}", self.host, policies::OWNER)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "event": "ready",
            "mqtt": self.mqtt.to_string(),
            "https": self.https.to_string(),
            "ca": self.ca,
            "connectionString": self.connection_string(),
            "serviceConnectionString": self.service_connection_string(),
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
        })
    }

    fn text(&self, https_note: Option<&str>) -> String {
        let mut lines = vec![
            "devicebound is ready".to_owned(),
            format!("  MQTT over TLS                 {}", self.mqtt),
            format!("  HTTPS, MQTT over WebSocket    {}", self.https),
        ];
        lines.extend(https_note.map(|note| format!("    not on {HTTPS_PORT}: {note}")));
        lines.push(format!("  CA certificate                {}", self.ca.display()));
        lines.push(format!("  service connection string     {}", self.service_connection_string()));
        if let (Some(connection_string), Some(key)) = (self.connection_string(), &self.demo_key) {
            let expiry = unix_time().after(PRINTED_TOKEN_LIFE);
            let snippets = Facts {
                host: &self.host,
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
