//! What a server is made of.

use std::sync::Arc;

use devicebound::hub::HubConfig;
use devicebound::iothub::sas::Policy;

use crate::backend::files::Uploads;
use crate::backend::settings::Setting;
use crate::observe::view::View;
use crate::provisioning;
use crate::state::StateDir;
use crate::state::device_certs::DeviceAuthorities;
use crate::store::Store;
use crate::transport::offer::Offer;
use crate::web::Page;

/// What a server is made of. [`new`](Self::new) takes what none can do without; the rest is set where it is wanted.
#[derive(Debug)]
pub struct ServerConfig {
    /// What the hub machine allows, and its names.
    pub hub: HubConfig,
    /// Who may use the service API, and for what.
    pub policies: Vec<Policy>,
    /// Where identities, queues, twins and telemetry are kept.
    pub store: Box<dyn Store>,
    /// How TLS is spoken, on each port that speaks it.
    pub tls: Arc<rustls::ServerConfig>,
    /// The server certificates, to show their dates.
    pub certificates: Option<Arc<Offer>>,
    /// Whose word is taken for who a device is; by default nobody's.
    pub authorities: DeviceAuthorities,
    /// Where people see what happens; by default nowhere.
    pub view: View,
    /// Threads that devices are divided over: one by default, and never more where the hub has a tier, whose rates and quota
    /// are for the hub as a whole.
    pub workers: usize,
    /// A Device Provisioning Service on the same ports.
    pub provisioning: Option<provisioning::Settings>,
    /// A storage that devices upload files to.
    pub files: Option<FileStorage>,
    /// The page at `/`.
    pub page: Option<Arc<Page>>,
    /// What the hub was started with, for people to see.
    pub settings: Vec<Setting>,
}

/// Where files are uploaded to.
#[derive(Debug)]
pub struct FileStorage {
    /// The folder that keeps them.
    pub state: StateDir,
    /// Its bounds.
    pub uploads: Uploads,
    /// Where a back end finds it: a host, and a port where it is not 443.
    pub authority: String,
}

impl ServerConfig {
    /// A hub with what none can do without.
    #[must_use]
    pub fn new(
        hub: HubConfig,
        policies: Vec<Policy>,
        store: Box<dyn Store>,
        tls: Arc<rustls::ServerConfig>,
    ) -> Self {
        Self {
            hub,
            policies,
            store,
            tls,
            certificates: None,
            authorities: DeviceAuthorities::default(),
            view: View::default(),
            workers: 1,
            provisioning: None,
            files: None,
            page: None,
            settings: Vec::new(),
        }
    }
}
