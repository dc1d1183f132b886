//! How often each fault and each rule was reached.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name. A name that a run never reached is a hole in what it has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<&'static str, u64>);

/// Every name that a long run must reach.
pub const MARKS: [&str; 85] = [
    "app: cloud message completed",
    "app: cloud message seen again by a restarted device",
    "app: desired change",
    "app: desired changes told in one",
    "app: method answered",
    "app: method answered too late",
    "app: method refused, too many are open",
    "app: request failed",
    "app: telemetry dropped",
    "app: twin read",
    "close: device, CONNACK did not come",
    "close: device, lost",
    "close: device, PINGRESP did not come",
    "close: device, PUBACK did not come",
    "close: device, said DISCONNECT",
    "close: device, token renewed",
    "close: hub, device disabled",
    "close: hub, disconnected",
    "close: hub, fault asked for",
    "close: hub, keep alive",
    "close: hub, lost",
    "close: hub, store failed",
    "close: hub, takeover",
    "close: hub, token expired",
    "close: device, hub broke a rule",
    "fault: commit rejected",
    "fault: connection cut",
    "fault: connection half-open",
    "fault: connection refused",
    "fault: device crashed, state lost",
    "fault: device crashed, state kept",
    "fault: address does not answer",
    "fault: asked for",
    "fault: credential came late",
    "fault: device disabled",
    "fault: device paused",
    "fault: hub crashed",
    "fault: hub paused",
    "fault: hub restarted",
    "fault: pipe stalled",
    "fault: PUBACK swallowed",
    "fault: queue purged",
    "fault: read split",
    "fault: rival connected",
    "fault: short write",
    "fault: unsynced record survived a crash",
    "fault: unsynced telemetry survived a crash",
    "fault: wall clock stepped",
    "fault: hub sends what no hub sends",
    "guest: CONNECT a byte at a time",
    "guest: 256 MiB announced",
    "guest: first packet is not CONNECT",
    "guest: a second CONNECT",
    "guest: flood of SUBSCRIBEs",
    "guest: packet ids again and strange",
    "guest: request id bomb",
    "guest: topic bomb",
    "guest: twin bomb",
    "guest: answers to foreign calls",
    "guest: invalid packet",
    "guest: recorded session, spoilt",
    "hub: back end throttled",
    "hub: call failed",
    "hub: feedback told",
    "hub: cloud message expired",
    "hub: cloud message delivered in vain too often",
    "hub: queue full",
    "hub: will sent",
    "hub: output full",
    "rule: acknowledged telemetry is safe",
    "rule: all comes to rest",
    "rule: answers are not crossed",
    "rule: caps hold",
    "rule: cloud messages in order",
    "rule: completed after PUBACK",
    "rule: deadlines lie ahead",
    "rule: kept properties are those that were told",
    "rule: nothing reaches another device",
    "rule: one live connection",
    "wire: cloud message sent again with DUP",
    "wire: CONNACK, new session",
    "wire: CONNACK, session resumed",
    "wire: telemetry sent again with DUP",
    "wire: telemetry received twice",
    "wire: 16 publishes in flight",
];

impl Marks {
    /// One more.
    pub fn mark(&mut self, name: &'static str) {
        debug_assert!(MARKS.contains(&name), "{name} is not in MARKS");
        *self.0.entry(name).or_default() += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// What was not reached.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        MARKS.into_iter().filter(|name| self.count(name) == 0).collect()
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MARKS.iter().try_for_each(|name| writeln!(f, "{:>12}  {name}", self.count(name)))
    }
}
