//! What deliveries to all kinds of endpoints have in common: they follow the stored telemetry, and store how far they are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::event::StoredMessage;
use super::message::RoutedMessage;
use super::routes::{Configured, Progress, cursor_document};
use crate::backend::{Backend, ClientId, look_up, twins};
use crate::store::{Gap, Position};

/// How far an endpoint is, is stored after so long, where that is news.
pub(super) const STORE_AFTER: Duration = Duration::from_secs(1);
/// A store that cannot be read is asked again after this time.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// One endpoint on its way through the stored telemetry.
pub(super) struct Follower {
    pub(super) backend: Arc<Backend>,
    pub(super) name: String,
    pub(super) progress: Arc<Progress>,
    configured: Arc<Configured>,
    /// The cursor that the store has, and since when.
    stored: (u64, Instant),
}

/// The next messages of the store.
pub(super) struct Page {
    pub(super) next: u64,
    /// Those that can be read, oldest first.
    pub(super) messages: Vec<StoredMessage>,
}

impl Backend {
    /// The twin of who sent a message; null where there is none any more.
    async fn twin_for_routing(&self, id: &ClientId) -> Value {
        let applications = Arc::clone(&self.applications);
        let twin = self.at(id, move |core, now, id| {
            look_up(core, now, id).map_or(Value::Null, |seen| twins::to_json(seen, &applications))
        });
        twin.await
    }
}

impl Follower {
    pub(super) fn new(
        backend: Arc<Backend>,
        configured: Arc<Configured>,
        name: &str,
        progress: Arc<Progress>,
    ) -> Self {
        let stored = (progress.cursor(), Instant::now());
        Self { backend, name: name.to_owned(), progress, configured, stored }
    }

    /// Waits until there is a message after this one, at most so long.
    pub(super) async fn wait_after(&self, cursor: u64, most: Duration) -> bool {
        timeout(most, self.backend.telemetry.wait_after(cursor)).await.is_ok()
    }

    /// What follows a message; what is missing in between is told.
    pub(super) async fn page(&self, after: u64) -> io::Result<Page> {
        let read = self.backend.telemetry.read(move |log| {
            let page = log.read(Position::after(after))?;
            let read = |(cursor, message): (u64, crate::telemetry::message::Message<'_>)| {
                StoredMessage::of_line(cursor, &message.to_line(cursor))
            };
            Ok((
                page.gap,
                Page { next: page.next.cursor(), messages: page.messages().filter_map(read).collect() },
            ))
        });
        let (gap, page) = read.await?;
        if let Some(Gap { from, to }) = gap {
            let observers = self.backend.engine.observers();
            observers.endpoint_missed(&self.name, from, to, "they are not kept any more");
        }
        Ok(page)
    }

    /// The message with what it gets for this endpoint; `None` where no route leads here.
    pub(super) async fn judge(
        &self,
        message: &StoredMessage,
    ) -> Option<(RoutedMessage, Vec<(String, String)>)> {
        let twin = if self.configured.routing.reads_twin {
            self.backend.twin_for_routing(&message.client_id).await
        } else {
            Value::Null
        };
        let routed = message.routed(twin);
        let decision = self.configured.routing.decide(&routed, self.hub_name());
        let mut deliveries = decision.deliveries.into_iter();
        let delivery = deliveries.find(|delivery| delivery.endpoint == self.name)?;
        Some((routed, delivery.enrichments))
    }

    pub(super) fn hub_name(&self) -> &str {
        self.backend.access.hub_name()
    }

    /// The endpoint took so many events.
    pub(super) fn succeeded(&self, events: u64) {
        if self.progress.succeeded(events) {
            self.backend.engine.observers().endpoint_recovered(&self.name);
        }
    }

    /// The endpoint took nothing; told once until it does. Whether it was told.
    pub(super) fn failed(&self, why: &str) -> bool {
        let is_first = self.progress.failed(why);
        if is_first {
            self.backend.engine.observers().endpoint_failed(&self.name, why);
        }
        is_first
    }

    /// Stores how far the endpoint is, where that is news.
    pub(super) async fn store(&mut self) {
        let cursor = self.progress.cursor();
        if cursor != self.stored.0 {
            let document = cursor_document(&self.name, cursor);
            // Where the store fails, more is sent again after a crash.
            if self.backend.engine.keep_documents(vec![document]).await {
                self.stored.0 = cursor;
            }
        }
        self.stored.1 = Instant::now();
    }

    /// The same, if it is time.
    pub(super) async fn store_if_due(&mut self) {
        if self.stored.1.elapsed() >= STORE_AFTER {
            self.store().await;
        }
    }
}
