//! The one face of all that is told. What happens is told here once, and goes to whom it concerns: people (live view and
//! structured log), operations monitoring, and the counters.
//!
//! | what happens | view and log | operations | metrics |
//! |---|---|---|---|
//! | `opened` | | | counted |
//! | `connected` | its CONNECT, as a packet | yes | with the packet |
//! | `warned` | yes | where the real hub would refuse it | |
//! | `closed`, `turned_away` | yes | yes | counted by its rule |
//! | `tls_failed` | yes | | counted |
//! | `acted` (twins) | as packets | yes | with the packets |
//! | `dead_lettered` | | yes | |
//! | AMQP | see [`amqp`](super::amqp) | | |
//! | `configured` | what fails or fights | yes | counted |
//! | `endpoint_failed`, `endpoint_recovered`, `endpoint_missed` | yes | yes | looked up |
//! | `job_ended` | yes | yes | counted by its status, with its devices |
//! | `stored`, `store_failed` | failures | | how long it took |

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{Action, Change, Commit, DeadLetter, Warning};
use devicebound::session::{Close, CloseReason};

use super::metrics::Metrics;
use super::operations::Operations;
use super::view::{View, Who};
use super::wording::End;
use crate::telemetry::sender::Sender;

/// All that look at a hub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observers<'o> {
    pub(crate) view: &'o View,
    pub(crate) operations: &'o Operations,
    pub(crate) metrics: &'o Metrics,
}

/// What is known of a connection that is over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended<'e> {
    /// Its CONNECT was accepted.
    pub(crate) is_known: bool,
    /// How it proved itself, as Azure writes it.
    pub(crate) auth_type: Option<&'e str>,
    /// What the client called its software.
    pub(crate) sdk_version: Option<&'e str>,
}

/// What is told of a job that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedJob<'j> {
    pub(crate) id: &'j str,
    /// Azure's name of its type.
    pub(crate) kind: &'static str,
    /// Azure's name of its status.
    pub(crate) status: &'static str,
    /// How many devices it was for.
    pub(crate) devices: u64,
    /// With how many of them it came to nothing.
    pub(crate) failed: u64,
}

impl Observers<'_> {
    /// The configurations of a twin have changed, to these.
    pub(crate) fn configured<'c>(self, client_id: &str, configurations: impl Iterator<Item = &'c String>) {
        self.metrics.configured();
        let configurations: Vec<&str> = configurations.map(String::as_str).collect();
        self.operations.configured(client_id, &configurations.join(", "));
    }

    /// A job is over.
    pub(crate) fn job_ended(self, job: &EndedJob<'_>) {
        let EndedJob { id, kind, status, devices, failed } = *job;
        self.metrics.job_ended();
        self.operations.job_ended(id, kind, status, failed > 0);
        let rows = format!("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{id}'");
        self.view.note(
            "jobEnded",
            &format!("job {id} ({kind}) is {status}: {devices} devices, {failed} failed; see {rows}"),
        );
    }

    /// An endpoint of a route does not take events.
    pub(crate) fn endpoint_failed(self, endpoint: &str, why: &str) {
        let what = format!("{why}; its events wait in the store and are sent again");
        self.operations.routed("endpointUnhealthy", endpoint, "Error", &what);
        self.view.note("endpointUnhealthy", &format!("the endpoint {endpoint} fails: {what}"));
    }

    /// An endpoint of a route takes events again.
    pub(crate) fn endpoint_recovered(self, endpoint: &str) {
        self.operations.routed("endpointHealthy", endpoint, "Information", "it takes events again");
        self.view.note("endpointHealthy", &format!("the endpoint {endpoint} takes events again"));
    }

    /// An endpoint of a route does not get the messages with these cursors.
    pub(crate) fn endpoint_missed(self, endpoint: &str, from: u64, to: u64, why: &str) {
        let what = format!(
            "messages {from} to {to} are not delivered: {why}; as long as they are kept: GET /messages/events?from={from}"
        );
        self.operations.routed("messageDropped", endpoint, "Error", &what);
        self.view.note("messageDropped", &format!("the endpoint {endpoint}: {what}"));
    }

    /// There is a connection.
    pub(crate) fn opened(self) {
        self.metrics.opened();
    }

    /// CONNECT was accepted.
    pub(crate) fn connected(self, who: Who<'_>, sender: &Sender, sdk_version: Option<&str>) {
        self.operations.connected(who, &sender.auth_method(), sdk_version);
    }

    /// Something was taken that the real hub may not take.
    pub(crate) fn warned(self, who: Who<'_>, warning: &Warning) {
        // What comes to nothing on any hub is for people who look, and would push out what failed.
        if warning.refused_if_strict {
            self.operations.warned(who, warning);
        }
        self.view.warned(who, warning);
    }

    /// A connection is over.
    pub(crate) fn closed(self, who: Who<'_>, ended: Ended<'_>, end: End<'_>) {
        self.metrics.closed(end.close, ended.is_known);
        self.operations.closed(who, ended.auth_type, ended.sdk_version, end);
        self.view.closed(who, end);
    }

    /// A connection to the provisioning service is over. That a device which was assigned disconnects is no news, unless
    /// packets are shown.
    pub(crate) fn provisioning_closed(self, who: Who<'_>, is_known: bool, end: End<'_>) {
        self.metrics.closed(end.close, is_known);
        self.operations.closed(who, None, None, end);
        if !matches!(end.close.reason(), CloseReason::Disconnected) || self.view.shows_packets() {
            self.view.closed(who, end);
        }
    }

    /// A transport is gone before its client could say who it is.
    pub(crate) fn turned_away(self, peer: SocketAddr, reason: CloseReason) {
        let close = Close::new(reason);
        self.closed(Who { client_id: None, peer }, Ended::default(), End::of(&close));
    }

    /// A client gave up on TLS, or spoke something else.
    pub(crate) fn tls_failed(self, peer: SocketAddr, error: &io::Error) {
        self.metrics.tls_failed();
        self.view.tls_failed(peer, error);
    }

    /// The machine has acted on a packet of a device: what concerns its twin is an operation.
    pub(crate) fn acted(self, sender: &Sender, action: &Action<'_>) {
        match action {
            Action::TwinRead => self.operations.twin_answered(sender, false),
            Action::Commit(Commit { change: Change::Reported, .. }) => {
                self.operations.twin_answered(sender, true);
            }
            Action::TwinRefused(refusal) => self.operations.twin_refused(sender, refusal),
            _ => {}
        }
    }

    /// Nobody gets a message any more.
    pub(crate) fn dead_lettered(self, client_id: &str, letter: &DeadLetter) {
        self.operations.dead_lettered(client_id, letter);
    }

    /// The store has made a batch safe, or has failed to.
    pub(crate) fn stored(self, took: Duration) {
        self.metrics.written(took);
    }

    /// The store said no.
    pub(crate) fn store_failed(self, error: &io::Error) {
        self.view.note("storeFailed", &format!("cannot store: {error}; {}", Rule::StoreFailed.fix()));
    }

    /// The store could not say what it has of a client id.
    pub(crate) fn store_unreadable(self, client_id: &str, error: &io::Error) {
        self.view.note("storeFailed", &format!("cannot read {client_id}: {error}"));
    }
}
