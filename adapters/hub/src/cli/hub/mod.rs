//! `devicebound hub`: runs the hub.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use devicebound::hub::{Authentication, DeviceRecord};
use devicebound::iothub::sas::SymmetricKey;
use serde_json::json;
use tempfile::TempDir;

use super::log;
use super::page;
use super::quota::Quota;
use crate::Failure;
use crate::amqp::AMQP_PORT;
use crate::backend::identity::new_identity;
use crate::observe::view::{Format, View};
use crate::provisioning::{LinkedHubs, Settings};
use crate::server::certificate_watch::{CertificateWatch, Watched};
use crate::server::isolated;
use crate::server::listen::{self, Listeners, Ports};
use crate::server::{FileStorage, Server, ServerConfig};
use crate::state::certs::CA_FILE;
use crate::state::own_certificate::OwnCertificate;
use crate::state::policies;
use crate::state::{Lock, Secrecy, StateDir};
use crate::store::partitions::PARTITIONS;
use crate::store::{DiskStore, MemoryStore, Retention, Store};
use crate::transport::key_log::KeyLogFile;
use crate::transport::tls;

use self::arguments::{MIB, StoreKind, config, uploads, workers};
use self::ready::{DEMO, authority, host};
use self::reload::answer_hangups;
use self::signal::stop_signal;

pub(super) use self::arguments::HubArgs;
pub(crate) use self::private::{Facts, Private, prepare_private};
pub(super) use self::ready::Ready;

mod arguments;
mod private;
mod ready;
mod reload;
mod signal;

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
    let hangups = answer_hangups(args.config.clone(), view.clone())?;
    let Prepared { server, listeners, ready, key_log_warning, state, lock: _lock, scratch: _scratch, watch } =
        prepare(&args, view.clone()).await?;
    state.write("service.json", format!("{:#}\n", ready.service_file()).as_bytes(), Secrecy::Secret)?;
    view.banner(&ready.text(listeners.https_note.as_deref(), listeners.amqp_note.as_deref()), &ready.json());
    if let Some(warning) = key_log_warning {
        view.banner(&warning, &json!({"event": "warning", "text": warning}));
    }
    let watch = tokio::spawn(watch.keep());
    let hangups = tokio::spawn(hangups);
    let quota = match args.tier.filter(|_| args.store == StoreKind::Disk) {
        Some(_) => Some(Quota::restore(Arc::clone(server.engine()), state.clone(), view.clone()).await?),
        None => None,
    };
    let stop = async {
        match quota {
            Some(quota) => quota.keep_until(stop).await,
            None => stop.await,
        }
        view.note("stopping", "the hub stops: connections are closed, and what was taken is written");
    };
    server.run(listeners, stop).await?;
    watch.abort();
    hangups.abort();
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
    let (listeners, addresses) = bind(args).await?;
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
    let hubs = LinkedHubs { own: host(args, &listeners), others: args.linked_hubs.clone() };
    let settings = Settings::load_or_make(&state, hubs, args.certificate_life, &args.device_authorities)?;
    let provisioning = (settings.id_scope.clone(), settings.connection_string());
    let page = if args.no_page {
        None
    } else {
        let ca = state.read(CA_FILE)?.unwrap_or_default();
        Some(page::page(&policies, &args.page_policy, &certificate_names, ca)?)
    };
    let files =
        FileStorage { state: state.clone(), uploads: uploads(args), authority: authority(args, &listeners)? };
    let hub = config(args, &certificate_names, &policies);
    let server = Server::start(ServerConfig {
        certificates: Some(Arc::clone(watch.offer())),
        authorities: watch.authorities().clone(),
        view,
        workers: workers(args),
        provisioning: Some(settings),
        files: Some(files),
        page,
        settings: args.settings.clone(),
        ..ServerConfig::new(hub, policies.clone(), store, tls)
    })?;
    let demo_key = demo_key(&server).await?;
    let ready = Ready::new(args, &listeners, state.file(CA_FILE), demo_key, &policies, provisioning)?;
    Ok(Prepared { server, listeners, ready, key_log_warning, state, lock, scratch, watch })
}

/// Binds the ports that were asked for; gives also the addresses that they are on.
async fn bind(args: &HubArgs) -> Result<(Listeners, Vec<IpAddr>), Failure> {
    let ports = Ports {
        addresses: args.listen.clone(),
        mqtt: args.port,
        https: args.https_port,
        // On an address of its own, 5671 is free, and clients that know no other port can come.
        amqp: args.amqp_port.or(args.isolated.then_some(AMQP_PORT)),
        emulator: args.emulator_port,
    };
    if args.isolated {
        let (listeners, address) = isolated::bind(&ports, std::process::id()).await?;
        return Ok((listeners, vec![address]));
    }
    Ok((listen::bind(&ports).await?, args.listen.clone()))
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
