//! The flags of `devicebound hub`, and what the machine is configured with by them.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum, value_parser};
use devicebound::hub::{HubConfig, Limits, Scale, Tier};
use devicebound::iothub::sas::Policy;
use devicebound::limits::{CLOUD_MESSAGE_TTL, CLOUD_MESSAGE_TTL_MAX, CLOUD_MESSAGE_TTL_MIN, DELIVERY_COUNT};

use super::super::log::LogFormat;
use super::super::parse_duration;
use crate::backend::files::Uploads;
use crate::backend::settings::Setting;
use crate::provisioning::settings::CERTIFICATE_LIFE;
use crate::server::listen::MQTT_PORT;
use crate::state::policies;
use crate::storage::Bounds;
use crate::store::Retention;
use crate::store::partitions::PARTITIONS_RANGE;

/// What the real service allows a clock to be off at CONNECT, and how long it lets a connection outlive its token.
const AZURE_SKEW: Duration = Duration::from_secs(300);
const AZURE_GRACE: Duration = Duration::from_secs(600);

pub(super) const MIB: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct HubArgs {
    /// A TOML file with settings: its keys are these flags without their dashes. A flag wins over its variable, DEVICEBOUND_RETAIN_HOURS
    /// for --retain-hours, and that over the file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// All of these as they were given, with where each comes from.
    #[arg(skip)]
    pub(in crate::cli) settings: Vec<Setting>,
    /// Where certificates, keys and devices are kept [default: devicebound in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    pub(super) state: Option<PathBuf>,
    /// The port of MQTT over TLS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = MQTT_PORT)]
    pub(super) port: u16,
    /// The port of HTTPS and MQTT over WebSocket; 0 takes a free one [default: 443, else 8443]
    #[arg(long, value_name = "PORT")]
    pub(super) https_port: Option<u16>,
    /// The port of AMQP over TLS, for the service and Event Hubs SDKs; 0 takes a free one [default: 5671, else a free one]
    #[arg(long, value_name = "PORT")]
    pub(super) amqp_port: Option<u16>,
    /// A port of AMQP without TLS, on loopback only, for connection strings with UseDevelopmentEmulator=true (they dial 5672); 0
    /// takes a free one
    #[arg(long, value_name = "PORT")]
    pub(super) emulator_port: Option<u16>,
    /// Partitions of the Event Hubs-compatible endpoint, for a new store: 1 to 32 [default: what the store has, at first 4]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(i64::from(*PARTITIONS_RANGE.start())..=i64::from(*PARTITIONS_RANGE.end())))]
    pub(super) partitions: Option<u16>,
    /// Take a loopback address of one's own with the usual ports, for any number of hubs side by side; without --state, all
    /// is gone when the hub ends
    #[arg(long, conflicts_with = "listen")]
    pub(super) isolated: bool,
    /// An address to listen on; may be given again. In a container: 0.0.0.0 [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Vec<IpAddr>,
    /// Authorities whose word is taken for who a device is, besides the hub's own (devicebound cert ca): a PEM file; may be
    /// given again
    #[arg(long = "device-ca", value_name = "FILE")]
    pub(super) device_authorities: Vec<PathBuf>,
    /// Another hub that devices can be provisioned to, by name; somebody else registers them there. May be given again
    #[arg(long = "linked-hub", value_name = "NAME")]
    pub(super) linked_hubs: Vec<String>,
    /// How long a certificate is good that is issued to a device on its request
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    pub(super) certificate_life: Duration,
    /// A server certificate of one's own with those of its authorities behind it, as PEM; read again when it changes. May be
    /// given again, as for RSA and ECDSA: each with its --key. As localhost the hub shows its own
    #[arg(long = "cert", value_name = "FILE", requires = "keys")]
    pub(super) certificates: Vec<PathBuf>,
    /// The key of --cert, as PEM
    #[arg(long = "key", value_name = "FILE", requires = "certificates")]
    pub(super) keys: Vec<PathBuf>,
    /// A name of this hub besides localhost; may be given again. Devices may then use no other
    #[arg(long = "name", value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// The real service's tolerance: 300 s for clocks at CONNECT, 600 s until an expired token cuts a connection
    #[arg(long)]
    pub(super) azure_timing: bool,
    /// Refuse what the real hub may refuse, and this one takes with a warning
    #[arg(long)]
    pub(super) strict: bool,
    /// How long a cloud-to-device message without an expiry of its own is good: 1m to 2d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_default_ttl)]
    pub(super) default_ttl: Duration,
    /// A cloud-to-device message that was delivered so often in vain is dead-lettered
    #[arg(long, value_name = "N", default_value_t = DELIVERY_COUNT, value_parser = value_parser!(u32).range(1..=100))]
    pub(super) max_delivery_count: u32,
    /// A delivery is in vain also when the connection ends before its PUBACK or the lock runs out, as Azure's older documents
    /// have it; otherwise only when it is abandoned
    #[arg(long)]
    pub(super) every_delivery_counts: bool,
    /// Where devices and telemetry are kept
    #[arg(long, value_enum, default_value_t = StoreKind::Disk)]
    pub(super) store: StoreKind,
    /// Telemetry that is older than so many hours gives way; the real service's default is a day
    #[arg(long, value_name = "HOURS", default_value_t = Retention::default().age.as_secs() / 3600)]
    pub(super) retain_hours: u64,
    /// The oldest telemetry gives way when all of it is larger than so many MiB
    #[arg(long, value_name = "MIB", default_value_t = Retention::default().bytes / MIB)]
    pub(super) retain_mb: u64,
    /// How long the signature of a file upload is good: 1m to 1d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_upload_ttl)]
    pub(super) upload_ttl: Duration,
    /// Files that devices have uploaded are refused when all of them would be larger than so many MiB
    #[arg(long, value_name = "MIB", default_value_t = Bounds::default().bytes / MIB)]
    pub(super) upload_mb: u64,
    /// Uploaded files that are older than so many hours are removed
    #[arg(long, value_name = "HOURS", default_value_t = Bounds::default().age.as_secs() / 3600)]
    pub(super) upload_hours: u64,
    /// No page at / of the HTTPS port
    #[arg(long)]
    pub(super) no_page: bool,
    /// The access policy whose rights the page has
    #[arg(long, value_name = "NAME", default_value = policies::OWNER, conflicts_with = "no_page")]
    pub(super) page_policy: String,
    /// JSON lines instead of text
    #[arg(long)]
    pub(super) json: bool,
    /// No live view: only what is needed to connect is printed
    #[arg(long)]
    pub(super) quiet: bool,
    /// Threads that devices are spread over [default: one for each core that the hub may use]
    #[arg(long, value_name = "N")]
    pub(super) workers: Option<NonZero<usize>>,
    /// Hold the rates and the daily quota of a tier of the real service: F1, B1, S1, B2, S2, B3 or S3. On one thread
    #[arg(long, value_name = "TIER", conflicts_with = "workers", value_parser = PossibleValuesParser::new(Tier::ALL.map(Tier::name)).try_map(tier))]
    pub(super) tier: Option<Tier>,
    /// Units of that tier
    #[arg(long, value_name = "N", requires = "tier", default_value_t = NonZero::<u16>::MIN)]
    pub(super) units: NonZero<u16>,
    /// Write the keys of every TLS session to this file, so that a capture can be read: devicebound explain --key-log FILE.
    /// For debugging alone: with it, all traffic can be read [default: what SSLKEYLOGFILE names]
    #[arg(long, value_name = "FILE")]
    pub(super) key_log: Option<PathBuf>,
    /// A structured log on standard error instead of the live view; DEVICEBOUND_LOG filters it (default: info)
    #[arg(long, value_enum, default_value_t = LogFormat::Off)]
    pub(super) log: LogFormat,
}

/// Where a hub keeps what it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StoreKind {
    /// In the state folder: what was acknowledged survives a crash and a power cut
    Disk,
    /// In memory: all is gone when the hub ends
    Memory,
}

impl HubArgs {
    /// A hub for this process alone: free ports of IPv4's loopback.
    pub(in crate::cli) fn private(state: PathBuf) -> Self {
        Self {
            config: None,
            settings: Vec::new(),
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
            upload_ttl: Uploads::default().sas_ttl,
            upload_mb: Bounds::default().bytes / MIB,
            upload_hours: Bounds::default().age.as_secs() / 3600,
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

fn parse_default_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    let is_possible = (CLOUD_MESSAGE_TTL_MIN..=CLOUD_MESSAGE_TTL_MAX).contains(&ttl);
    if is_possible { Ok(ttl) } else { Err("a hub's messages are good for 1m to 2d".to_owned()) }
}

/// As long as a hub can be told there (`fileUpload`: `sasTtlAsIso8601`).
fn parse_upload_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    let is_possible = (Duration::from_secs(60)..=Duration::from_secs(24 * 3600)).contains(&ttl);
    if is_possible { Ok(ttl) } else { Err("the signature of an upload is good for 1m to 1d".to_owned()) }
}

/// How files are uploaded.
pub(super) fn uploads(args: &HubArgs) -> Uploads {
    let age = Duration::from_secs(args.upload_hours.saturating_mul(3600));
    Uploads { bounds: Bounds { bytes: args.upload_mb.saturating_mul(MIB), age }, sas_ttl: args.upload_ttl }
}

fn tier(name: String) -> Result<Tier, &'static str> {
    Tier::from_name(&name).ok_or("no tier has this name")
}

/// One for each core; one alone where rates are to hold for the hub as a whole.
pub(super) fn workers(args: &HubArgs) -> usize {
    if args.tier.is_some() {
        return 1;
    }
    args.workers.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), NonZero::get)
}

pub(super) fn config(args: &HubArgs, certificate_names: &[String], policies: &[Policy]) -> HubConfig {
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
