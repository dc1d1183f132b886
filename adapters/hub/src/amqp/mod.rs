//! The nodes of the AMQP side, as the service SDKs and Event Hubs clients address them.
//!
//! | node | clients | file |
//! |---|---|---|
//! | `$cbs` | put tokens | `cbs`, `access` |
//! | `$management`, `{hub}/$management` | read about hub and partitions | `management` |
//! | `{hub}/ConsumerGroups/{group}/Partitions/{n}` | receive events | `events`, `event_message`, `filter`, `readers` |
//! | `messages/operationsMonitoringEvents/ConsumerGroups/{group}/Partitions/0` | receive what begins, fails and ends | `operations`, `readers` |
//! | `messages/devicebound` | send cloud-to-device messages | `cloud_messages` |
//! | `messages/serviceBound/feedback`, `…/filenotifications` | receive feedback and file notifications | `service_bound`, `locked` |
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
mod filter;
mod links;
mod locked;
mod management;
mod operations;
mod readers;
mod report;
mod requests;
mod service_bound;

use address::Source;
use readers::Readers;

/// AMQP over TLS; `az` and the service SDKs know no other.
pub const AMQP_PORT: u16 = 5671;
/// The name of the Event Hubs-compatible endpoint: `EntityPath` in its connection string.
pub const EVENT_HUB: &str = "devicebound";
/// The name of the one that tells of operations, as it was in Azure.
pub const OPERATIONS_HUB: &str = "messages/operationsMonitoringEvents";

/// What all AMQP connections of a hub share.
#[derive(Debug)]
pub struct Amqp {
    backend: Arc<Backend>,
    engine: Arc<Engine>,
    telemetry: TelemetryReader,
    config: Config,
    readers: Arc<Readers>,
    /// Held by the one reader of feedback that looks for more; the others wait for it.
    feedback: Arc<tokio::sync::Mutex<()>>,
    /// The same for file notifications.
    file_notifications: Arc<tokio::sync::Mutex<()>>,
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
            feedback: Arc::default(),
            file_notifications: Arc::default(),
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

    /// Tells readers of what concerns them, for ever: new events, and that their consumer group was removed.
    pub(crate) async fn follow(self: Arc<Self>) {
        tokio::join!(self.follow_telemetry(), self.follow_operations(), self.follow_consumer_groups());
    }

    /// Wakes the readers of a partition when it has more, and nobody else.
    async fn follow_telemetry(&self) {
        let log = self.telemetry.log();
        let (mut newest, mut before) = (log.subscribe(), log.partitions());
        // The sender is here, so the channel does not close.
        while newest.changed().await.is_ok() {
            let now = log.partitions();
            let has_more = |number| now.get(number) != before.get(number);
            self.readers.wake(Source::Telemetry, has_more);
            before = now;
        }
    }

    async fn follow_operations(&self) {
        let log = &self.engine.operations.log;
        let mut newest = log.newest();
        loop {
            newest = log.wait_after(newest).await.cursor;
            self.readers.wake(Source::Operations, |_| true);
        }
    }

    async fn follow_consumer_groups(&self) {
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
