//! `messages/serviceBound/feedback` and `…/filenotifications`: what a back end is told, each delivery locked for the reader
//! that it was sent to.

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
use super::locked::{Locked, Queue};
use super::report::Report;
use crate::backend::Backend;

/// How often a reader that waits looks for the next (own choice; Azure takes up to 15 s).
const LOOK: Duration = Duration::from_millis(250);

/// A link to a reader.
#[derive(Debug)]
pub(super) struct ServiceBoundLink {
    backend: Arc<Backend>,
    queue: Queue,
    /// Held by the one reader of this queue that looks for more: that each does would cost more with each.
    turn: Arc<Mutex<()>>,
    /// Looks for the next.
    looking: Option<JoinHandle<()>>,
    /// What the reader holds: the lock of each delivery.
    held: HashMap<[u8; 16], String>,
    last: u64,
}

impl ServiceBoundLink {
    pub(super) fn new(backend: Arc<Backend>, queue: Queue, turn: Arc<Mutex<()>>) -> Self {
        Self { backend, queue, turn, looking: None, held: HashMap::new(), last: 0 }
    }

    /// Looks for the next when it is its turn, unless it does already.
    pub(super) fn look(&mut self, link: LinkId, reports: &UnboundedSender<Report>) {
        if self.looking.is_some() {
            return;
        }
        let (backend, queue, reports) = (Arc::clone(&self.backend), self.queue, reports.clone());
        let turn = Arc::clone(&self.turn);
        self.looking = Some(tokio::spawn(async move {
            let _turn = turn.lock().await;
            loop {
                match queue.take(&backend).await {
                    Ok(Some(locked)) => {
                        // What nobody takes is given back.
                        let _ = reports.send(Report::ServiceBound { link, locked });
                        return;
                    }
                    // A store that fails may work again; a hub that ends takes this task with it.
                    Ok(None) | Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        }));
    }

    /// Sends what was found; where there is no credit for it any more, it is given back.
    pub(super) fn send(
        &mut self,
        link: LinkId,
        locked: Locked,
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
            tx.timestamp(millis(locked.enqueued()));
            tx.end(annotations, 2);
            let section = Properties {
                user_id: Some(hub.as_bytes()),
                content_type: Some(locked.content_type()),
                ..Properties::default()
            };
            section.write(tx);
            message::data(tx, locked.to_json().as_bytes());
        });
        if is_sent {
            self.held.insert(tag, locked.give());
        }
    }

    /// The reader is done with a delivery, or not.
    pub(super) fn settled(&mut self, tag: [u8; 16], outcome: Outcome) {
        let Some(lock) = self.held.remove(&tag) else { return };
        match outcome {
            Outcome::Accepted | Outcome::Rejected => {
                let (backend, queue) = (Arc::clone(&self.backend), self.queue);
                tokio::spawn(async move {
                    // Its time may be over: then it comes again.
                    let _ = queue.complete(&backend, &lock).await;
                });
            }
            Outcome::Released | Outcome::Modified { .. } => drop(self.queue.abandon(&self.backend, &lock)),
        }
    }
}

/// What was not settled comes again at once.
impl Drop for ServiceBoundLink {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
        for lock in self.held.values() {
            // Its time may be over already.
            let _ = self.queue.abandon(&self.backend, lock);
        }
    }
}
