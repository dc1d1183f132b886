//! Which node a client gets for the link that it asks for, and on what terms.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use devicebound::iothub::sas::Rights;
use devicebound_amqp::connection::AttachRequest;
use devicebound_amqp::limits::{CLOUD_MESSAGE_MAX, EVENT_MAX, REQUEST_MAX};
use devicebound_amqp::performative::Role;
use devicebound_amqp::types::Value;
use devicebound_amqp::{Condition, Failure, Info};

use super::address::{Node, Source, no_such_group, path};
use super::connection::{LinkNode, Session};
use super::events::EventLink;
use super::filter::Start;
use super::locked::Queue;
use super::management::not_found;
use super::operations::OperationsLink;
use super::readers::{Candidate, NoPlace, READERS_MAX};
use super::report::Report;
use super::requests::Answers;
use super::service_bound::ServiceBoundLink;
use super::{EVENT_HUB, events};
use crate::clock::unix_time;

/// What a client is granted.
pub(super) struct Granted {
    pub(super) node: LinkNode,
    /// What its token has to open, for as long as the link lives; `None` for `$cbs`.
    pub(super) path: Option<String>,
    pub(super) max_message_size: u64,
}

/// Why a client is refused, and where it should go instead.
pub(super) struct Refusal {
    pub(super) condition: Condition,
    pub(super) text: String,
    pub(super) redirect: Option<Redirect>,
}

/// `amqp:link:redirect`
pub(super) struct Redirect {
    host: String,
    port: u16,
    address: String,
}

impl Refusal {
    fn new(condition: Condition, text: impl Into<String>) -> Self {
        Self { condition, text: text.into(), redirect: None }
    }

    /// Says it to the client.
    pub(super) fn tell(&self, say: impl FnOnce(&Failure<'_>)) {
        let failure = Failure::new(self.condition, self.text.as_str());
        let Some(Redirect { host, port, address }) = &self.redirect else { return say(&failure) };
        let info = [
            ("hostname", Info::Text(host)),
            ("network-host", Info::Text(host)),
            ("port", Info::Int((*port).into())),
            ("address", Info::Text(address)),
        ];
        say(&Failure { info: &info, ..failure });
    }
}

impl Session {
    /// Decides on a link.
    pub(super) fn decide(&self, request: &AttachRequest<'_>) -> Result<Granted, Refusal> {
        let terminus = match request.role {
            Role::Receiver => request.source,
            Role::Sender => request.target,
        };
        let address = terminus.and_then(|terminus| terminus.address).unwrap_or_default();
        let path = path(address);
        let node = Node::at(&path);
        let path = path.to_lowercase();
        if node != Node::Cbs && !self.grants.allow(&path, Rights::SERVICE_CONNECT, unix_time()) {
            let text = format!(
                "Unauthorized: no token of this connection opens `{path}` with the right ServiceConnect; fix: put a token to $cbs first, for this host and a path that this one is below"
            );
            return Err(Refusal::new(Condition::UnauthorizedAccess, text));
        }
        let granted =
            |node, max_message_size| Ok(Granted { node, path: Some(path.clone()), max_message_size });
        match (node, request.role) {
            (Node::Cbs, Role::Sender) => {
                Ok(Granted { node: LinkNode::CbsRequests, path: None, max_message_size: REQUEST_MAX })
            }
            (Node::Cbs, Role::Receiver) => {
                let node = LinkNode::CbsAnswers(Answers::default());
                Ok(Granted { node, path: None, max_message_size: REQUEST_MAX })
            }
            (Node::Management, Role::Sender) => granted(LinkNode::ManagementRequests, REQUEST_MAX),
            (Node::Management, Role::Receiver) => {
                granted(LinkNode::ManagementAnswers(Answers::default()), REQUEST_MAX)
            }
            (Node::CloudMessages, Role::Sender) => granted(LinkNode::CloudMessages, CLOUD_MESSAGE_MAX),
            (Node::Feedback, Role::Receiver) => {
                granted(self.service_bound(Queue::Feedback), CLOUD_MESSAGE_MAX)
            }
            (Node::FileNotifications, Role::Receiver) => {
                granted(self.service_bound(Queue::FileNotifications), CLOUD_MESSAGE_MAX)
            }
            (Node::Partition { source, group, partition }, Role::Receiver) => {
                granted(self.reader(request, source, &group, &partition)?, EVENT_MAX)
            }
            (Node::Redirected, Role::Receiver) => Err(self.redirect(&path)),
            (Node::Device, _) => Err(Refusal::new(
                Condition::NotImplemented,
                "this hub has no AMQP for devices; fix: connect them with MQTT, or send with HTTPS",
            )),
            (Node::Unknown, _) => Err(Refusal::new(Condition::NotFound, not_found(address))),
            (_, role) => Err(Refusal::new(
                Condition::NotAllowed,
                format!("nobody can be a {role:?} of `{address}`; fix: attach it the other way round"),
            )),
        }
    }

    fn service_bound(&self, queue: Queue) -> LinkNode {
        let turn = match queue {
            Queue::Feedback => &self.amqp.feedback,
            Queue::FileNotifications => &self.amqp.file_notifications,
        };
        LinkNode::ServiceBound(ServiceBoundLink::new(Arc::clone(&self.amqp.backend), queue, Arc::clone(turn)))
    }

    /// A reader of a partition.
    fn reader(
        &self,
        request: &AttachRequest<'_>,
        source: Source,
        group: &str,
        partition: &str,
    ) -> Result<LinkNode, Refusal> {
        let amqp = &self.amqp;
        let number = amqp.partition(source, partition).ok_or_else(|| {
            let last = amqp.partition_count(source).saturating_sub(1);
            let text = format!(
                "The specified partition is invalid for an EventHub partition sender or receiver. It should be between 0 and {last}, and is `{partition}`"
            );
            Refusal::new(Condition::ArgumentOutOfRange, text)
        })?;
        let filter = request.source.and_then(|source| source.filter);
        let start = Start::of(filter).map_err(|expression| {
            let text = format!(
                "the filter `{expression}` is not understood; fix: amqp.annotation.x-opt-offset, x-opt-sequence-number or x-opt-enqueued-time, > or >=, a value in quotes"
            );
            Refusal::new(Condition::ArgumentError, text)
        })?;
        let who = self.candidate(request)?;
        let entered = amqp.readers.enter(source, group, number, who);
        let place = entered.map_err(|why| no_place(&why, group, number))?;
        // After it has a place, so that a group which is removed meanwhile takes the place away.
        if !amqp.backend.consumer_groups().contains(group) {
            return Err(Refusal::new(Condition::NotFound, no_such_group(source, group)));
        }
        let tells_newest =
            request.desired_capabilities.has_symbol("com.microsoft:enable-receiver-runtime-metric");
        if source == Source::Operations {
            let log = &amqp.engine.operations.log;
            return Ok(LinkNode::Operations(Box::new(OperationsLink::new(log, start, tells_newest, place))));
        }
        // From now on, wherever that will turn out to be.
        let (link, reports, telemetry) = (request.link, self.reports.clone(), amqp.telemetry.clone());
        let begin = match start {
            Start::Latest => Start::Offset { cursor: amqp.telemetry.newest(), inclusive: false },
            start => start,
        };
        tokio::spawn(async move {
            let result = telemetry.read(move |log| events::find(log, number, begin)).await;
            // The connection may be gone.
            let _ = reports.send(Report::Found { link, result });
        });
        Ok(LinkNode::Events(Box::new(EventLink::new(number, tells_newest, place))))
    }

    /// Who wants to read, as the link's properties say.
    fn candidate(&self, request: &AttachRequest<'_>) -> Result<Candidate, Refusal> {
        let property = |name| request.properties.and_then(|properties| properties.get(name));
        let epoch = match property("com.microsoft:epoch") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.integer().filter(|epoch| *epoch >= 0).ok_or_else(|| {
                Refusal::new(Condition::ArgumentError, "com.microsoft:epoch is a number, 0 or more")
            })?),
        };
        let name =
            ["com.microsoft:receiver-name", "com.microsoft.com:receiver-name"].into_iter().find_map(property);
        let name = name.and_then(|name| name.text()).unwrap_or(request.name).to_owned();
        let (reports, wake) = (self.reports.clone(), Arc::clone(&self.wake));
        Ok(Candidate { connection: self.number, link: request.link, name, epoch, reports, wake })
    }

    /// Where the Event Hubs-compatible endpoint is. `az` reads host and path, and dials 5671.
    fn redirect(&self, path: &str) -> Refusal {
        let host = self.host.clone().unwrap_or_else(|| "localhost".to_owned());
        let rest = path.strip_prefix("messages/events").unwrap_or_default();
        let port = self.amqp.port.load(Ordering::Relaxed);
        let address = format!("amqps://{host}:{port}/{EVENT_HUB}{rest}");
        let text = format!("this is at {address}");
        Refusal {
            redirect: Some(Redirect { host, port, address }),
            ..Refusal::new(Condition::Redirect, text)
        }
    }
}

fn no_place(why: &NoPlace, group: &str, partition: u16) -> Refusal {
    match why {
        NoPlace::Full(names) => Refusal::new(
            Condition::ResourceLimitExceeded,
            format!(
                "Exceeded the maximum number of allowed receivers per partition in a consumer group which is {READERS_MAX}: {}; fix: close one, or read with another consumer group",
                names.join(", ")
            ),
        ),
        NoPlace::Epoch(epoch) => Refusal::new(
            Condition::Stolen,
            format!(
                "partition {partition} of {group} is read with the epoch {epoch}; fix: read with an equal or higher epoch (owner level), or another consumer group"
            ),
        ),
    }
}
