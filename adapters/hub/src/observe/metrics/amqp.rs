//! What is counted of AMQP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters that any thread adds to.
#[derive(Debug, Default)]
pub struct AmqpMetrics {
    opened: AtomicU64,
    closed: AtomicU64,
    events: AtomicU64,
    /// What was refused or ended, by rule or error condition. There are some eighty of them.
    failed: Mutex<BTreeMap<&'static str, u64>>,
}

impl AmqpMetrics {
    /// A connection is there.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is over.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// So many events went to readers.
    pub fn sent(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Something was refused, or has ended because of an error.
    pub fn failed(&self, rule: &'static str) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failed.entry(rule).or_default();
        *count = count.wrapping_add(1);
    }

    /// Connections that there were, those that there are, and events that were sent.
    pub(super) fn counts(&self) -> [u64; 3] {
        // The closed ones first: a connection that closes meanwhile is counted as there.
        let [closed, opened, events] =
            [&self.closed, &self.opened, &self.events].map(|count| count.load(Ordering::Relaxed));
        [opened, opened.saturating_sub(closed), events]
    }

    /// What was refused or ended, by rule or error condition.
    pub(super) fn failures(&self) -> Vec<(&'static str, u64)> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().map(|(rule, count)| (*rule, *count)).collect()
    }
}
