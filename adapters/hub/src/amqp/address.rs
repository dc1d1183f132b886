//! Which node an address names.
//!
//! Clients write `/messages/devicebound`, `amqps://localhost/messages/devicebound`, `devicebound/ConsumerGroups/…`: scheme,
//! authority and a leading slash say nothing, and case counts for nothing.

use percent_encoding::percent_decode_str;

use super::{EVENT_HUB, OPERATIONS_HUB};
use crate::backend::consumer_groups::DEFAULT_GROUP;

/// What can be read as an event hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// What devices send.
    Telemetry,
    /// What begins, fails and ends at the hub.
    Operations,
}

impl Source {
    /// The event hub of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            name if name.eq_ignore_ascii_case(EVENT_HUB) => Some(Self::Telemetry),
            name if name.eq_ignore_ascii_case(OPERATIONS_HUB) => Some(Self::Operations),
            _ => None,
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => EVENT_HUB,
            Self::Operations => OPERATIONS_HUB,
        }
    }
}

/// A node of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// `$cbs`
    Cbs,
    /// `$management`, with or without the name of the event hub.
    Management,
    /// `messages/devicebound`
    CloudMessages,
    /// `messages/serviceBound/feedback`
    Feedback,
    /// `messages/serviceBound/filenotifications`
    FileNotifications,
    /// `messages/events` and its `$management`: elsewhere.
    Redirected,
    /// `{hub}/ConsumerGroups/{group}/Partitions/{n}`
    Partition {
        /// Of which event hub.
        source: Source,
        /// The consumer group, as it was written.
        group: String,
        /// The number of the partition, as it was written.
        partition: String,
    },
    /// A node of a device.
    Device,
    /// None that the hub has.
    Unknown,
}

/// The path of an address, decoded: without scheme, authority and slashes around it.
pub(super) fn path(address: &str) -> String {
    let rest = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    percent_decode_str(rest).decode_utf8_lossy().trim_matches('/').to_owned()
}

impl Node {
    /// The node at a [`path`].
    pub(super) fn at(path: &str) -> Self {
        let lower = path.to_ascii_lowercase();
        let segments: Vec<&str> = lower.split('/').collect();
        match segments.as_slice() {
            ["$cbs"] => Self::Cbs,
            ["$management"] => Self::Management,
            [name @ .., "$management"] if Source::named(&name.join("/")).is_some() => Self::Management,
            ["messages", "devicebound"] => Self::CloudMessages,
            ["messages", "servicebound", "feedback"] => Self::Feedback,
            ["messages", "servicebound", "filenotifications"] => Self::FileNotifications,
            ["messages", "events", ..] => Self::Redirected,
            [name @ .., "consumergroups", _, "partitions", partition] => {
                let Some(source) = Source::named(&name.join("/")) else { return Self::Unknown };
                // As it was written.
                let group = path.split('/').nth(name.len().saturating_add(1)).unwrap_or_default().to_owned();
                Self::Partition { source, group, partition: (*partition).to_owned() }
            }
            ["devices", ..] => Self::Device,
            _ => Self::Unknown,
        }
    }
}

/// The sentence by which .NET and Java tell a name that is wrong.
pub(super) fn no_such_group(source: Source, group: &str) -> String {
    let hub = source.name();
    format!(
        "The messaging entity '{hub}/ConsumerGroups/{group}' could not be found; fix: read with {DEFAULT_GROUP}, or add the group: devicebound consumer-group add NAME"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_address_names_the_same_node() {
        let node = |address| Node::at(&path(address));
        for address in
            ["/messages/devicebound", "amqps://localhost/messages/deviceBound", "messages/devicebound"]
        {
            assert_eq!(node(address), Node::CloudMessages);
        }
        for address in [
            "amqps://u:p@localhost:5671/devicebound/ConsumerGroups/$Default/Partitions/0",
            "devicebound/ConsumerGroups/%24Default/Partitions/0",
        ] {
            let (group, partition) = ("$Default".to_owned(), "0".to_owned());
            let expected = Node::Partition { source: Source::Telemetry, group, partition };
            assert_eq!(node(address), expected);
        }
        let address = "sb://localhost/messages/operationsMonitoringEvents/ConsumerGroups/Dash/Partitions/0";
        let (group, partition) = ("Dash".to_owned(), "0".to_owned());
        assert_eq!(node(address), Node::Partition { source: Source::Operations, group, partition });
        for address in ["devicebound/$management", "messages/operationsmonitoringevents/$management"] {
            assert_eq!(node(address), Node::Management);
        }
        assert_eq!(node("amqps://localhost/messages/events/$management"), Node::Redirected);
        assert_eq!(node("/messages/servicebound/feedback"), Node::Feedback);
        assert_eq!(node("/devices/demo/messages/events"), Node::Device);
        for address in ["", "amqps://localhost", "nowhere", "devicebound/ConsumerGroups/a/Partitions/0/1"] {
            assert_eq!(node(address), Node::Unknown, "{address}");
        }
    }
}
