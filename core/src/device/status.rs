//! What the machine is doing, at a glance.

use core::time::Duration;

use crate::rule::Rule;
use crate::session::{Close, CloseReason};
use crate::time::{Deadline, Instant};

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is no transport.
    Offline,
    /// CONNECT was sent.
    Opening,
    /// CONNECT was accepted.
    Online,
    /// The machine has ended the connection and waits for `Closed`.
    Ended,
}

/// The state of a [`Device`](super::Device).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// How far the connection has come.
    pub connection: ConnectionState,
    /// Why the last connection ended.
    pub last_close: Option<Close>,
    /// Connections in a row that failed or did not last.
    pub failures: u32,
    /// Telemetry messages that are not acknowledged.
    pub queued: usize,
    /// Their bytes, as packets.
    pub queued_bytes: usize,
    /// How many of them were sent on this connection.
    pub in_flight: usize,
    /// Cloud messages that the application has not completed.
    pub deliveries: usize,
    /// Requests that wait for their answer.
    pub requests: usize,
    /// Direct methods that the application has not answered.
    pub calls: usize,
    /// What the machine waits for next.
    pub next: Option<Deadline>,
    /// What came and was not for the application.
    pub ignored: Ignored,
    /// How long the device was without a connection.
    pub offline: OfflineTime,
}

/// Time between the end of a connection and the CONNACK of the next, since the machine was made. Gaps that are not over
/// are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfflineTime {
    /// Whatever ended the connections.
    pub total: Duration,
    /// How many connections the machine has ended to go on with a new SAS token.
    pub renewals: u32,
    /// What these took of the total.
    pub in_renewals: Duration,
}

/// A gap between two connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    since: Instant,
    is_renewal: bool,
}

impl Gap {
    pub(super) fn new(since: Instant, reason: CloseReason) -> Self {
        Self { since, is_renewal: reason == CloseReason::Ended(Rule::TokenRenewal) }
    }
}

impl OfflineTime {
    pub(super) fn add(&mut self, gap: Gap, until: Instant) {
        let length = until.since(gap.since);
        self.total = self.total.saturating_add(length);
        if gap.is_renewal {
            self.renewals = self.renewals.saturating_add(1);
            self.in_renewals = self.in_renewals.saturating_add(length);
        }
    }
}

/// Counts of what came from the hub and was not handed out, since the machine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Messages whose topic this device does not know; acknowledged.
    pub unknown_topics: u64,
    /// Answers to requests that had been given up.
    pub late_answers: u64,
    /// Second answers to a request.
    pub duplicate_answers: u64,
    /// Answers to no request of late.
    pub unknown_answers: u64,
    /// Cloud messages that the application has already.
    pub repeated_messages: u64,
    /// Notifications of desired properties that were known already, or that a document took the place of.
    pub stale_changes: u64,
    /// Calls of direct methods that were answered with 429, because too many were open.
    pub refused_calls: u64,
}
