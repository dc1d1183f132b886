//! The local Device Provisioning Service: devices that know their registration id and one secret learn their hub here.
//!
//! ```text
//!  MQTT, WebSocket ─▶ mqtt ───────┐                              ┌─▶ attest: which enrollment lets it in
//!  HTTPS ───────────▶ device_api ─┴─▶ Provisioning::register ────┼─▶ allocate: which hub, which twin
//!                                          ▲       │             └─▶ issue: a certificate, where one is asked for
//!  service REST ────▶ service_api ─▶ records ◀─────┴─▶ the hub's own record of the device
//! ```
//!
//! A register is answered once all of it is safe: the device in the hub, and the registration. So a device that polls after
//! the service was killed finds what it was promised, and one that was not answered registers again.
//!
//! The service is always there and lets nobody in before there is an enrollment.

mod allocation;
mod attestation;
mod caller;
mod certificates;
mod device_api;
mod entry;
mod error;
mod identifiers;
mod issue;
pub(crate) mod mqtt;
mod records;
mod register;
mod registration;
mod renewal;
mod service_api;
mod service_query;
pub mod settings;

use std::sync::Arc;

use axum::Router;
use devicebound::hub::Scale;
use devicebound::iothub::sas::Policy;
use tokio::sync::Mutex;

pub use settings::{LinkedHubs, Settings};

use crate::Failure;
use crate::engine::Engine;
use records::Records;
use register::Limiter;
use renewal::Renewals;

/// Its requests over HTTPS, those of devices and those of back ends; `policies` are those of the hub.
pub(crate) fn router(service: &Arc<Provisioning>, policies: &[Policy]) -> Router {
    device_api::router(Arc::clone(service)).merge(service_api::router(Arc::clone(service), policies))
}

/// So many registers can be at work at a time, one for each id; others of the same place wait.
const PLACES: usize = 64;

/// The service. See the [module](self).
#[derive(Debug)]
pub struct Provisioning {
    engine: Arc<Engine>,
    settings: Settings,
    records: Records,
    /// Held while a device registers: two registers of one id come one after the other.
    places: Vec<Mutex<()>>,
    limiter: Limiter,
    renewals: Renewals,
}

impl Provisioning {
    /// The service of a hub, with the documents that its store has.
    ///
    /// # Errors
    /// When a document is not one that this service wrote.
    pub(crate) fn new(
        engine: Arc<Engine>,
        settings: Settings,
        documents: &[(String, String)],
        tier: Option<Scale>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            engine,
            records: Records::load(documents)?,
            settings,
            places: (0..PLACES).map(|_| Mutex::new(())).collect(),
            limiter: Limiter::new(tier.is_some()),
            renewals: Renewals::default(),
        })
    }

    /// The id scope of this instance.
    #[must_use]
    pub fn id_scope(&self) -> &str {
        &self.settings.id_scope
    }
}
