//! Delivery to endpoints: for each one a task that follows the stored telemetry from where it was.
//!
//! ```text
//!  store ─▶ page after the cursor ─▶ twin, conditions ─▶ event ─▶ webhook ─┬▶ taken: cursor goes on
//!              ▲                                            ▲              ├▶ refused, or 24 h are over: dead letter, cursor goes on
//!              └──────────── cursor, now and then stored ◀──┼──────────────┘
//!                                                           └─ failed: a pause that doubles
//! ```
//! At least once, in order: the cursor is stored behind what was delivered, and an end in between sends some events again,
//! with the same ids. An endpoint that fails waits by itself; what it has not got stays in the store as long as telemetry is
//! kept. Devices wait for none of this. Containers are in [`archive`](super::archive).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::archive::Archive;
use super::configuration::{Destination, Webhook};
use super::follower::{Follower, PAUSE_MAX, STORE_AFTER};
use super::webhook::{self, Outcome};
use crate::backend::Backend;
use crate::blocking_thread::BlockingThread;

/// The cursor is stored after so many deliveries, which are sent again after a crash.
const STORE_EVERY: u64 = 64;
/// The first pause before an event is sent again; each one after it is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long an event is sent again (Event Grid: "delivery and retry", time to live).
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// Delivery to one webhook.
struct Pump {
    follower: Follower,
    webhook: Webhook,
    thread: BlockingThread,
    agent: ureq::Agent,
    /// Deliveries since the cursor was stored.
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
                let mut deliveries = JoinSet::new();
                for (destination, progress) in &configured.endpoints {
                    let (configured, progress) = (Arc::clone(&configured), Arc::clone(progress));
                    let follower = Follower::new(Arc::clone(&own), configured, destination.name(), progress);
                    deliveries.spawn(deliver_to(destination.clone(), follower));
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Delivers for ever, or fails at once.
async fn deliver_to(destination: Destination, follower: Follower) {
    let thread = match BlockingThread::start("endpoint") {
        Ok(thread) => thread,
        Err(error) => {
            follower.failed(&error.to_string());
            return;
        }
    };
    match destination {
        Destination::Webhook(webhook) => {
            Pump { follower, webhook, thread, agent: webhook::agent(), deliveries: 0 }.run().await;
        }
        Destination::Container(container) => match follower.backend.routes.folder.clone() {
            Some(root) => Archive::new(follower, container, &root, thread).run().await,
            None => {
                follower.failed("this hub has no state folder for files");
            }
        },
    }
}

impl Pump {
    async fn run(mut self) {
        loop {
            let after = self.follower.progress.cursor();
            // What was delivered is stored even where nothing comes any more.
            while !self.follower.wait_after(after, STORE_AFTER).await {
                self.follower.store().await;
            }
            if let Err(error) = self.deliver_page(after).await {
                self.follower.failed(&error.to_string());
                sleep(PAUSE_MAX).await;
            }
        }
    }

    async fn deliver_page(&mut self, after: u64) -> io::Result<()> {
        let page = self.follower.page(after).await?;
        for message in page.messages {
            if let Some((routed, enrichments)) = self.follower.judge(&message).await {
                let event = message.to_event_grid(&routed, self.follower.hub_name(), enrichments);
                self.deliver(message.cursor, event).await;
                self.deliveries = self.deliveries.saturating_add(1);
            }
            self.follower.progress.advance(message.cursor);
            if self.deliveries >= STORE_EVERY {
                self.deliveries = 0;
                self.follower.store().await;
            }
        }
        self.follower.progress.advance(page.next);
        self.follower.store_if_due().await;
        Ok(())
    }

    async fn deliver(&mut self, cursor: u64, event: String) {
        let (event, began, mut pause) = (Arc::new(event), Instant::now(), PAUSE);
        loop {
            let (agent, url, event) = (self.agent.clone(), self.webhook.url.clone(), Arc::clone(&event));
            let sent = self.thread.run(move || webhook::deliver(&agent, &url, &event)).await;
            let why = match sent.unwrap_or_else(|error| Outcome::Failed(error.to_string())) {
                Outcome::Taken => return self.follower.succeeded(1),
                Outcome::Refused(why) => return self.give_up(cursor, &why),
                Outcome::Failed(why) => why,
            };
            if self.follower.failed(&why) {
                // It may be long until there is more to store.
                self.follower.store().await;
            }
            if began.elapsed() >= GIVE_UP {
                return self.give_up(cursor, &why);
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    fn give_up(&self, cursor: u64, why: &str) {
        let Follower { backend, name, progress, .. } = &self.follower;
        progress.dead_lettered();
        backend.engine.observers().endpoint_missed(name, cursor, cursor, why);
    }
}
