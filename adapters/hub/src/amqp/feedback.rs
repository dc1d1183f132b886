//! `messages/serviceBound/feedback`: batches of reports, each locked for the reader that it was sent to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use devicebound_amqp::message::{self, Properties};
use devicebound_amqp::performative::Outcome;
use devicebound_amqp::types::Writer as _;
use devicebound_amqp::{Connection, LinkId, Tag};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::event_message::millis;
use super::report::Report;
use crate::backend::Backend;
use crate::backend::feedback::{Batch, CONTENT_TYPE};

/// How often a reader that waits looks for reports (own choice; Azure takes up to 15 s).
const LOOK: Duration = Duration::from_millis(250);

/// A link to a reader of feedback.
#[derive(Debug)]
pub(super) struct FeedbackLink {
    backend: Arc<Backend>,
    /// Looks for the next batch.
    looking: Option<JoinHandle<()>>,
    /// What the reader holds: the lock of each delivery.
    held: HashMap<[u8; 16], String>,
    last: u64,
}

impl FeedbackLink {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
        Self { backend, looking: None, held: HashMap::new(), last: 0 }
    }

    /// Looks for the next batch when it is its `turn`, unless it does already.
    pub(super) fn look(&mut self, link: LinkId, turn: &Arc<Mutex<()>>, reports: &UnboundedSender<Report>) {
        if self.looking.is_some() {
            return;
        }
        let (backend, turn, reports) = (Arc::clone(&self.backend), Arc::clone(turn), reports.clone());
        self.looking = Some(tokio::spawn(async move {
            // One looks for all: that each does would cost more with each.
            let _turn = turn.lock().await;
            loop {
                match backend.take_feedback().await {
                    Ok(Some(batch)) => {
                        // A batch that nobody takes is given back.
                        let _ = reports.send(Report::Feedback { link, batch });
                        return;
                    }
                    Ok(None) => tokio::time::sleep(LOOK).await,
                    // The hub ends.
                    Err(_) => return,
                }
            }
        }));
    }

    /// Sends a batch; where there is no credit for it any more, it is given back.
    pub(super) fn send(
        &mut self,
        link: LinkId,
        batch: Batch,
        hub: &str,
        machine: &mut Connection,
        tx: &mut Vec<u8>,
    ) {
        self.looking = None;
        self.last = self.last.wrapping_add(1);
        // The lock token of .NET is a Guid.
        let mut tag = [0; 16];
        if let Some(end) = tag.last_chunk_mut() {
            *end = self.last.to_be_bytes();
        }
        let is_sent = machine.send(link, Tag::Tracked(tag), tx, |tx| {
            let annotations = message::begin_annotations(tx);
            tx.symbol("iothub-enqueuedtime");
            tx.timestamp(batch.reports().iter().map(|report| millis(report.at)).max().unwrap_or(0));
            tx.end(annotations, 2);
            let section = Properties {
                user_id: Some(hub.as_bytes()),
                content_type: Some(CONTENT_TYPE),
                ..Properties::default()
            };
            section.write(tx);
            message::data(tx, batch.to_json().to_string().as_bytes());
        });
        if is_sent {
            self.held.insert(tag, batch.give());
        }
    }

    /// The reader is done with a batch, or not.
    pub(super) fn settled(&mut self, tag: [u8; 16], outcome: Outcome) {
        let Some(lock) = self.held.remove(&tag) else { return };
        match outcome {
            Outcome::Accepted | Outcome::Rejected => {
                let backend = Arc::clone(&self.backend);
                tokio::spawn(async move {
                    // Its time may be over: then the reports come again.
                    let _ = backend.complete_feedback(&lock).await;
                });
            }
            Outcome::Released | Outcome::Modified { .. } => drop(self.backend.abandon_feedback(&lock)),
        }
    }
}

/// What was not settled comes again at once.
impl Drop for FeedbackLink {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
        for lock in self.held.values() {
            // Its time may be over already.
            let _ = self.backend.abandon_feedback(lock);
        }
    }
}
