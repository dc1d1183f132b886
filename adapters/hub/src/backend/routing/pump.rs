//! Delivery to webhooks: for each one a task that follows the stored telemetry from where it was.
//!
//! ```text
//!  store ─▶ page after the cursor ─▶ twin, conditions ─▶ event ─▶ webhook ─┬▶ taken: cursor goes on
//!              ▲                                            ▲              ├▶ refused, or 24 h are over: dead letter, cursor goes on
//!              └──────────── cursor, now and then stored ◀──┼──────────────┘
//!                                                           └─ failed: a pause that doubles
//! ```
//! At least once, in order: the cursor is stored behind what was delivered, and an end in between sends some events again,
//! with the same ids. An endpoint that fails waits by itself; what it has not got stays in the store as long as telemetry is
//! kept. Devices wait for none of this.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::configuration::Webhook;
use super::event::StoredMessage;
use super::routes::{Configured, Progress, cursor_document};
use super::webhook::{self, Outcome};
use crate::backend::{Backend, ClientId, look_up, twins};
use crate::blocking_thread::BlockingThread;
use crate::store::{Gap, Position};

/// The cursor is stored after so many deliveries, which are sent again after a crash.
const STORE_EVERY: u64 = 64;
/// Or after so long.
const STORE_AFTER: Duration = Duration::from_secs(1);
/// The first pause before an event is sent again; each one after it is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// For so long an event is sent again (Event Grid: "delivery and retry", time to live).
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// The next messages of the store.
struct Page {
    gap: Option<Gap>,
    next: u64,
    /// Cursors and lines.
    lines: Vec<(u64, String)>,
}

/// Delivery to one webhook.
struct Pump {
    backend: Arc<Backend>,
    configured: Arc<Configured>,
    webhook: Webhook,
    progress: Arc<Progress>,
    thread: BlockingThread,
    agent: ureq::Agent,
    /// The cursor that the store has, and since when.
    stored: (u64, Instant),
    /// Deliveries since then.
    deliveries: u64,
}

impl Backend {
    /// Delivers by the routing there is, and by each that takes its place.
    pub(in crate::backend) fn keep_routing(self: &Arc<Self>) {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            let mut changes = own.routes.subscribe();
            loop {
                let configured = Arc::clone(&changes.borrow_and_update());
                for warning in configured.warnings() {
                    own.engine.view.note("routing", &format!("routing: {warning}"));
                }
                // Those of the configuration before end here; an event under way is sent again.
                let mut pumps = JoinSet::new();
                for (webhook, progress) in &configured.endpoints {
                    let (own, configured) = (Arc::clone(&own), Arc::clone(&configured));
                    let (webhook, progress) = (webhook.clone(), Arc::clone(progress));
                    pumps.spawn(async move {
                        match Pump::new(own, configured, webhook, progress) {
                            Ok(pump) => pump.run().await,
                            Err((own, name, error)) => {
                                own.engine.observers().endpoint_failed(&name, &error.to_string())
                            }
                        }
                    });
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// The twin of who sent a message; null where there is none any more.
    async fn twin_for_routing(&self, id: &ClientId) -> Value {
        let applications = Arc::clone(&self.applications);
        let twin = self.at(id, move |core, now, id| {
            look_up(core, now, id).map_or(Value::Null, |seen| twins::to_json(seen, &applications))
        });
        twin.await
    }
}

impl Pump {
    fn new(
        backend: Arc<Backend>,
        configured: Arc<Configured>,
        webhook: Webhook,
        progress: Arc<Progress>,
    ) -> Result<Self, (Arc<Backend>, String, io::Error)> {
        let thread = match BlockingThread::start("webhook") {
            Ok(thread) => thread,
            Err(error) => return Err((backend, webhook.name, error)),
        };
        let stored = (progress.cursor(), Instant::now());
        let agent = webhook::agent();
        Ok(Self { backend, configured, webhook, progress, thread, agent, stored, deliveries: 0 })
    }

    async fn run(mut self) {
        loop {
            let after = self.progress.cursor();
            // What was delivered is stored even where nothing comes any more.
            while timeout(STORE_AFTER, self.backend.telemetry.wait_after(after)).await.is_err() {
                self.store().await;
            }
            let page = match self.page(after).await {
                Ok(page) => page,
                Err(error) => {
                    self.backend.engine.observers().endpoint_failed(&self.webhook.name, &error.to_string());
                    sleep(PAUSE_MAX).await;
                    continue;
                }
            };
            if let Some(Gap { from, to }) = page.gap {
                let why = "they are not kept any more";
                self.backend.engine.observers().endpoint_missed(&self.webhook.name, from, to, why);
            }
            for (cursor, line) in page.lines {
                if let Some(message) = StoredMessage::of_line(cursor, &line) {
                    self.route(&message).await;
                }
                self.progress.advance(cursor);
                if self.deliveries >= STORE_EVERY {
                    self.store().await;
                }
            }
            self.progress.advance(page.next);
            if self.stored.1.elapsed() >= STORE_AFTER {
                self.store().await;
            }
        }
    }

    async fn page(&self, after: u64) -> io::Result<Page> {
        let read = self.backend.telemetry.read(move |log| {
            let page = log.read(Position::after(after))?;
            let lines = page.messages().map(|(cursor, message)| (cursor, message.to_line(cursor))).collect();
            Ok(Page { gap: page.gap, next: page.next.cursor(), lines })
        });
        read.await
    }

    /// Stores how far the endpoint has come, where that is news.
    async fn store(&mut self) {
        let cursor = self.progress.cursor();
        if cursor != self.stored.0 {
            let document = cursor_document(&self.webhook.name, cursor);
            // Where the store fails, more is sent again after a crash.
            if self.backend.engine.keep_documents(vec![document]).await {
                self.stored.0 = cursor;
            }
        }
        self.stored.1 = Instant::now();
        self.deliveries = 0;
    }

    /// Delivers a message, if a route leads here.
    async fn route(&mut self, message: &StoredMessage) {
        let twin = self.backend.twin_for_routing(&message.client_id).await;
        let routed = message.routed(twin);
        let hub_name = self.backend.access.hub_name();
        let decision = self.configured.routing.decide(&routed, hub_name);
        let mut deliveries = decision.deliveries.into_iter();
        let Some(delivery) = deliveries.find(|delivery| delivery.endpoint == self.webhook.name) else {
            return;
        };
        let event = message.to_event_grid(&routed, hub_name, delivery.enrichments);
        self.deliver(message.cursor, event).await;
        self.deliveries = self.deliveries.saturating_add(1);
    }

    async fn deliver(&mut self, cursor: u64, event: String) {
        let (event, began, mut pause) = (Arc::new(event), Instant::now(), PAUSE);
        let name = self.webhook.name.clone();
        loop {
            let (agent, url, event) = (self.agent.clone(), self.webhook.url.clone(), Arc::clone(&event));
            let sent = self.thread.run(move || webhook::deliver(&agent, &url, &event)).await;
            let observers = self.backend.engine.observers();
            let why = match sent.unwrap_or_else(|error| Outcome::Failed(error.to_string())) {
                Outcome::Taken => {
                    if self.progress.succeeded() {
                        observers.endpoint_recovered(&name);
                    }
                    return;
                }
                Outcome::Refused(why) => {
                    self.progress.dead_lettered();
                    return observers.endpoint_missed(&name, cursor, cursor, &why);
                }
                Outcome::Failed(why) => why,
            };
            if self.progress.failed(&why) {
                observers.endpoint_failed(&name, &why);
                // It may be long until there is more to store.
                self.store().await;
            }
            if began.elapsed() >= GIVE_UP {
                self.progress.dead_lettered();
                return self.backend.engine.observers().endpoint_missed(&name, cursor, cursor, &why);
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }
}
