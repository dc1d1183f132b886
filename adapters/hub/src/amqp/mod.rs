//! The nodes of the AMQP side, as the service SDKs and Event Hubs clients address them.
//!
//! | node | clients | file |
//! |---|---|---|
//! | `$cbs` | put tokens | `cbs`, `access` |
//! | `$management`, `{hub}/$management` | read about hub and partitions | `management` |
//! | `{hub}/ConsumerGroups/{group}/Partitions/{n}` | receive events | `events`, `event_message`, `filter`, `readers` |
//! | `messages/devicebound` | send cloud-to-device messages | `cloud_messages` |
//! | `messages/serviceBound/feedback`, `…/filenotifications` | receive feedback | `feedback` |
//! | `messages/events`, `messages/events/$management` | are sent on to the Event Hubs-compatible endpoint | `links` |
//!
//! [`connection`] drives one [`devicebound_amqp::Connection`] on its socket; each node only translates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use devicebound_amqp::Config;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::engine::Engine;
use crate::store::reader::TelemetryReader;

mod access;
mod address;
mod cbs;
mod cloud_messages;
pub mod connection;
mod event_message;
mod events;
mod feedback;
mod filter;
mod links;
mod management;
mod readers;
mod report;
mod requests;

use readers::Readers;

/// AMQP over TLS; `az` and the service SDKs know no other.
pub const AMQP_PORT: u16 = 5671;
/// The name of the Event Hubs-compatible endpoint: `EntityPath` in its connection string.
pub const EVENT_HUB: &str = "devicebound";

/// What all AMQP connections of a hub share.
#[derive(Debug)]
pub struct Amqp {
    backend: Arc<Backend>,
    engine: Arc<Engine>,
    telemetry: TelemetryReader,
    config: Config,
    readers: Arc<Readers>,
    created: devicebound::time::UnixTime,
    next_connection: AtomicU64,
    /// The port of AMQP over TLS.
    port: AtomicU16,
    /// Set when the hub stops; who listens is a connection.
    stop: watch::Sender<bool>,
}

impl Amqp {
    /// The AMQP side of a hub.
    #[must_use]
    pub fn new(backend: Arc<Backend>) -> Self {
        let product = concat!("devicebound/", env!("CARGO_PKG_VERSION"));
        Self {
            engine: Arc::clone(&backend.engine),
            telemetry: backend.telemetry().clone(),
            backend,
            config: Config { container_id: EVENT_HUB.into(), product: product.into() },
            readers: Arc::default(),
            created: crate::clock::unix_time(),
            next_connection: AtomicU64::new(0),
            port: AtomicU16::new(AMQP_PORT),
            stop: watch::Sender::new(false),
        }
    }

    /// Says where AMQP over TLS is: the redirect names it.
    pub fn is_at(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Takes the links from the readers of consumer groups that were removed, for ever.
    pub(crate) async fn follow_consumer_groups(self: Arc<Self>) {
        let groups = self.backend.consumer_groups();
        let mut removals = groups.removals();
        // The sender is here, so the channel does not close.
        while removals.changed().await.is_ok() {
            self.readers.dismiss(|group| !groups.contains(group));
        }
    }

    /// Closes every connection.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until there is no connection any more.
    pub async fn all_closed(&self) {
        self.stop.closed().await;
    }

    fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

/// What to do about a token that is refused: the rules speak to devices, and here a back end asks.
fn fix_of(rule: devicebound::Rule) -> &'static str {
    match rule {
        devicebound::Rule::HostName => {
            "make the token for this host, or give other names of this hub with --name"
        }
        _ => {
            "make a token of a policy with its key: devicebound sas --service, or a connection string of the hub"
        }
    }
}
