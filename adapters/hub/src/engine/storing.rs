//! What a worker has gathered, on its way to the store and back.

use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use devicebound::Rule;

use super::worker::{StoreHandle, Worker};
use crate::engine::unsaved::{Found, Unwritten, Written};
use crate::engine::writer::Work;

/// After so many looks at all sockets that brought nothing, some ten microseconds in all, nothing more comes for now.
const IDLE_PASSES: usize = 16;
/// For so long a store that nobody waits for is left alone: what it is given at once costs little for each message, and
/// who reads telemetry does not notice.
const GATHER_TIME: Duration = Duration::from_millis(10);

impl Worker {
    /// Hands over what every turn has gathered, for ever. Called behind the tasks that were already due, so that one
    /// hand-over stands for many connections.
    pub(super) async fn keep_storing(&self) {
        loop {
            self.work.notified().await;
            if self.gathers_first() {
                // That something presses, or that time is up: it is all the same.
                let _ = tokio::time::timeout(GATHER_TIME, self.work.notified()).await;
            } else {
                self.let_more_come().await;
            }
            self.hand_over();
        }
    }

    /// Lets all connections take what arrives, until for a moment nothing does, or half of the time is over that the last
    /// hand-over took to become safe.
    ///
    /// Devices that were acknowledged together answer together. Without this, the first of them would have an fsync to
    /// itself, and all others would wait for two.
    async fn let_more_come(&self) {
        let clock = self.engine.clock;
        let until = clock.now().after(self.last_took.get() / 2);
        let mut idle = 0;
        let mut gathered = 0;
        while clock.now() < until {
            tokio::task::yield_now().await;
            let now = self.core.borrow().unsaved.gathered();
            idle = if now == gathered { idle + 1 } else { 0 };
            gathered = now;
            if idle >= IDLE_PASSES {
                return;
            }
        }
    }

    /// Whether there is nothing for the store that anybody waits for, and so more may come before it is bothered.
    fn gathers_first(&self) -> bool {
        let core = &mut *self.core.borrow_mut();
        core.is_gathering = core.at_once && !core.unsaved.is_pressing();
        core.is_gathering
    }

    /// Hands over what nobody waits for, because somebody wants to read it.
    pub(crate) fn hand_over_what_nobody_waits_for(&self) {
        if self.core.borrow().at_once {
            self.hand_over();
        }
    }

    /// Hands over what was gathered, unless the writer still has the hand-over before.
    pub(super) fn hand_over(&self) {
        let taken = self.with(|core, _| {
            core.is_gathering = false;
            core.unsaved.take(&core.hub, self.index)
        });
        let Some(batch) = taken else { return };
        self.handed_over_at.set(self.engine.clock.now());
        match &self.store {
            // The writer lives as long as there are workers.
            StoreHandle::Thread(writer) => drop(writer.send(Work::HandOver(batch))),
            StoreHandle::Inline(store) => {
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                batch
                    .write(&mut **store, self.engine.observers())
                    .into_iter()
                    .for_each(|written| self.told(written));
            }
        }
    }

    /// The writer is done with a hand-over.
    pub(crate) fn told(&self, written: Written) {
        let Written { receipts, owed_since, is_committed, safe, unwritten, waiting } = written;
        let is_safe = is_committed && unwritten.is_empty();
        self.with(|core, now| {
            self.last_took.set(now.since(self.handed_over_at.get()));
            core.unsaved.handed_over(&safe, &unwritten);
            core.store_failed = (!is_committed).then_some(now);
            safe.iter().for_each(|safe| core.hub.committed(safe.device, safe.revision));
            for Unwritten { device, safe, .. } in unwritten {
                match (device, safe) {
                    (Some(device), Found::Record(stored)) => core.hub.rejected(device, stored.record),
                    (Some(device), Found::Nothing) => drop(core.hub.remove(device)),
                    // It is there still, unless somebody has registered it anew.
                    (None, Found::Record(stored)) => drop(core.hub.insert(stored.record)),
                    (None, Found::Nothing) | (_, Found::Unknown) => {}
                }
            }
            if is_committed {
                let waited = owed_since.map_or(Duration::ZERO, |since| now.since(since));
                core.counters.acknowledged(receipts.len(), waited);
                receipts.into_iter().for_each(|(_, receipt)| core.hub.stored(receipt));
                return;
            }
            // What these connections sent could not be stored: they end, and their devices send again.
            for signal in receipts.iter().filter_map(|(link, _)| core.links.get(link)) {
                signal.end(Rule::StoreFailed);
            }
        });
        for waiting in waiting {
            // Whoever waited may have hung up.
            let _ = waiting.send(is_safe);
        }
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}
