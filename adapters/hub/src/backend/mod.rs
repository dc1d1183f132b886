//! What a back end may ask of the hub, whatever the protocol: REST ([`service`](crate::service)) and AMQP only translate.
//!
//! | file | operations |
//! |---|---|
//! | `access` | who may ask: SAS tokens of policies and devices, certificates of devices |
//! | `audit` | an operation runs to its end and leaves an event, whatever becomes of its caller |
//! | `registry`, `bulk`, `keys` | identities: list, show, register, change, remove; new keys |
//! | `twins`, `query` | twins: show, merge, replace; the query language |
//! | `cloud_messages` | send, show what waits, purge |
//! | `certificates` | the certificates of the hub, with their dates |
//! | `connections` | what is known of a live connection |
//! | `device_messages` | what a device without MQTT does: send telemetry; receive, complete, reject, abandon |
//! | `feedback` | take a batch of reports, complete it, abandon it |
//! | `files` | begin and end an upload, put and read its blob, take and complete notifications |
//! | `methods` | invoke a direct method |
//! | `digital_twins` | read, patch: twins in the words of Plug and Play |
//! | `jobs` | schedule, cancel and list jobs, and run them |
//! | `configurations` | add, change, remove and count automatic configurations, and apply them |
//! | `queries` | answer a query for twins or for what jobs did |
//! | `events` | read telemetry and operations from a position on |
//! | `consumer_groups` | add, list, remove those of the Event Hubs-compatible endpoint |
//! | `routing` | which routes a message takes, and why; webhooks |
//! | `health` | whether devices should be sent here |
//! | `settings` | what the hub was started with |
//! | `statistics`, `faults` | count devices; make something go wrong |
//!
//! **A caller may vanish at any time.** Each operation is a future that may be dropped wherever it waits: a change is one
//! job of a worker, which is done as a whole or not at all; what was taken is given back; a call that nobody waits for is
//! ended. [`Backend::audited`] adds that the outcome is known, and told, in any case.

use std::path::PathBuf;
use std::sync::Arc;

use devicebound::hub::{DeviceKey, Operation};
use devicebound::iothub::sas::Policy;
use devicebound::iothub::{IdError, Identity};
use devicebound::time::Instant;

use crate::Failure;
use crate::engine::Engine;
use crate::engine::core::Core;
use crate::engine::durability::Safe;
use crate::engine::record_scan::Seen;
use crate::store::reader::TelemetryReader;

pub mod access;
mod applications;
pub mod audit;
pub mod bulk;
pub mod certificates;
pub mod cloud_messages;
pub mod configurations;
pub mod connections;
pub mod consumer_groups;
pub mod device_messages;
pub mod digital_twins;
mod error;
pub mod events;
pub mod faults;
pub mod feedback;
pub mod files;
pub mod health;
pub mod identity;
pub mod jobs;
pub mod keys;
pub mod methods;
mod queries;
pub mod query;
pub mod registry;
pub(crate) mod routing;
mod scopes;
pub mod settings;
pub mod statistics;
pub mod twins;

pub use error::{Code, Error};

use access::Access;
use applications::Applications;
use certificates::Certificates;
use configurations::Configurations;
use consumer_groups::ConsumerGroups;
use feedback::Readers;
use files::Files;
use jobs::Jobs;
use routing::Routes;
use settings::Setting;

/// The way of a back end to the hub.
#[derive(Debug)]
pub struct Backend {
    /// The hub.
    pub engine: Arc<Engine>,
    /// Who may ask.
    pub access: Access,
    telemetry: TelemetryReader,
    feedback: Arc<Readers>,
    jobs: Jobs,
    configurations: Configurations,
    applications: Arc<Applications>,
    consumer_groups: ConsumerGroups,
    /// Where there is a storage.
    files: Option<Arc<Files>>,
    certificates: Certificates,
    settings: Vec<Setting>,
    routes: Routes,
}

impl Backend {
    /// A way to this hub, whose stored telemetry is read with `telemetry`, for who shows a token of these policies, made
    /// for one of `host_names`; an empty list takes tokens for any host.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        telemetry: TelemetryReader,
        policies: Vec<Policy>,
        host_names: Vec<String>,
    ) -> Self {
        let access = Access::new(policies, host_names);
        let (feedback, consumer_groups) = (Arc::default(), ConsumerGroups::default());
        let (jobs, configurations, applications) =
            (Jobs::default(), Configurations::default(), Arc::default());
        Self {
            engine,
            access,
            telemetry,
            feedback,
            jobs,
            configurations,
            applications,
            consumer_groups,
            files: None,
            certificates: Certificates::default(),
            settings: Vec::new(),
            routes: Routes::default(),
        }
    }

    /// The same with the consumer groups that the store has.
    #[must_use]
    pub fn with_consumer_groups(self, consumer_groups: ConsumerGroups) -> Self {
        Self { consumer_groups, ..self }
    }

    /// The same with a storage that devices upload files to.
    #[must_use]
    pub fn with_files(self, files: Files) -> Self {
        Self { files: Some(Arc::new(files)), ..self }
    }

    /// The same with what the hub was started with.
    #[must_use]
    pub(crate) fn with_settings(self, settings: Vec<Setting>) -> Self {
        Self { settings, ..self }
    }

    /// The same with the certificates of the hub.
    #[must_use]
    pub(crate) fn with_certificates(self, certificates: Certificates) -> Self {
        Self { certificates, ..self }
    }

    /// The same with the jobs that the store has.
    #[must_use]
    pub(crate) fn with_jobs(self, jobs: Jobs) -> Self {
        Self { jobs, ..self }
    }

    /// The same with the configurations that the store has, and what they have done.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(crate) fn with_configurations(self, documents: &[(String, String)]) -> Result<Self, Failure> {
        let applications = Arc::new(Applications::load(documents)?);
        Ok(Self { configurations: Configurations::load(documents)?, applications, ..self })
    }

    /// The same with the routing that the store has; `folder` is where files of containers go.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn with_routing(
        self,
        documents: &[(String, String)],
        folder: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        Ok(Self { routes: Routes::load(documents, self.telemetry.newest(), folder)?, ..self })
    }

    /// Begins what goes on without being asked for: jobs, automatic configurations and routes. To be called once, on the runtime of
    /// the service API.
    pub fn resume(self: &Arc<Self>) {
        self.resume_jobs();
        self.keep_configured();
        self.keep_routing();
    }

    /// The consumer groups.
    #[must_use]
    pub const fn consumer_groups(&self) -> &ConsumerGroups {
        &self.consumer_groups
    }

    /// Counts an operation that the hub machine does not count itself.
    ///
    /// # Errors
    /// Those of a tier: 429001, 403002, 403010.
    pub async fn admit(&self, operation: Operation) -> Result<(), Error> {
        // A hub that has a tier has one worker, which counts for all.
        Ok(self.engine.at("", move |core, now| core.hub.admit(now, operation, 0)).await?)
    }

    /// What devices sent.
    pub(crate) const fn telemetry(&self) -> &TelemetryReader {
        &self.telemetry
    }

    /// Waits until what there is of an identity is safe, so that no answer rests on what may be taken back.
    async fn settled(&self, id: &ClientId) -> Result<(), Error> {
        if self.engine.settled(id.as_str()).await { Ok(()) } else { Err(Error::in_doubt()) }
    }

    /// Does something with the record of an identity, where it lives.
    async fn at<R: Send + 'static>(
        &self,
        id: &ClientId,
        act: impl FnOnce(&mut Core, Instant, &ClientId) -> R + Send + 'static,
    ) -> R {
        let own = id.clone();
        self.engine.at(id.as_str(), move |core, now| act(core, now, &own)).await
    }
}

/// The client id of an identity: a device id, for a module device id, slash, module id. Its parts are ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(String);

impl ClientId {
    /// The client id of a device, or of a module.
    ///
    /// # Errors
    /// 400004 where one of them is not an id.
    pub fn new(device_id: &str, module_id: Option<&str>) -> Result<Self, Error> {
        let bad = |error: IdError| Error::invalid(error.to_string());
        Ok(Self(Identity::new(device_id, module_id).map_err(bad)?.to_string()))
    }

    /// The client id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device id.
    #[must_use]
    pub fn device_id(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(device_id, _)| device_id)
    }

    /// The module id; `None` for a device.
    #[must_use]
    pub fn module_id(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, module_id)| module_id)
    }
}

/// The record of an identity, or the error that says that there is none.
fn find(core: &Core, id: &ClientId) -> Result<DeviceKey, Error> {
    core.hub.find(id.as_str()).ok_or_else(|| not_found(id.as_str()))
}

fn not_found(client_id: &str) -> Error {
    let code = if client_id.contains('/') { Code::ModuleNotFound } else { Code::DeviceNotFound };
    Error::new(code, format!("there is no `{client_id}`"))
        .with_fix(format!("register it first: devicebound device add {client_id}"))
}

/// Waits until a change has become safe.
async fn safe(change: Safe) -> Result<(), Error> {
    if change.await { Ok(()) } else { Err(Error::store_failed()) }
}

/// The record of an identity as answers show it.
fn look_up<'c>(core: &'c Core, now: Instant, id: &ClientId) -> Result<Seen<'c>, Error> {
    let key = find(core, id)?;
    let record = core.hub.record(key).ok_or_else(Error::store_failed)?;
    Ok(Seen { hub: &core.hub, now, key, record })
}

/// Runs to its end, whatever becomes of the future that waits for it.
///
/// # Errors
/// 503001 where the hub ends first.
async fn detached<R: Send + 'static>(
    operation: impl Future<Output = R> + Send + 'static,
) -> Result<R, Error> {
    tokio::spawn(operation).await.map_err(|_| Error::stopping())
}
