//! Who is at the other end of an AMQP connection, and what is told of its links.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::wording::cut;
use crate::clock::unix_time;

/// A client, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AmqpClient<'a> {
    pub(crate) peer: SocketAddr,
    /// What it calls itself in its open; empty before that.
    pub(crate) container: &'a str,
    /// The policy of the token that it showed last; empty before that.
    pub(crate) policy: &'a str,
}

/// A link of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AmqpLink<'a> {
    /// Channel and handle.
    pub(crate) id: &'a str,
    /// The node that it leads to.
    pub(crate) address: &'a str,
    /// What the client still grants, where it receives.
    pub(crate) credit: Option<u32>,
}

/// Something that was refused, or ended because of an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AmqpFailure<'a> {
    /// `amqpRefused`, `amqpRejected`, `amqpDetached`, `amqpBroken`.
    pub(crate) event: &'static str,
    /// The rule, or the error condition where it is none of the rule book.
    pub(crate) rule: &'static str,
    /// What is wrong.
    pub(crate) says: &'a str,
    /// What to do next.
    pub(crate) fix: &'a str,
    /// The link, if it is about one.
    pub(crate) link: Option<AmqpLink<'a>>,
}

impl AmqpClient<'_> {
    pub(super) fn name(&self) -> String {
        let Self { peer, container, policy } = self;
        let mut name = format!("AMQP {peer}");
        if !container.is_empty() {
            name.push_str(&format!(" {}", cut(container)));
        }
        if !policy.is_empty() {
            name.push_str(&format!(" as {policy}"));
        }
        name
    }

    pub(super) fn fields(&self, event: &str, text: &str) -> Map<String, Value> {
        let json = json!({
            "event": event, "time": unix_time().to_string(), "peer": self.peer.to_string(),
            "container": cut(self.container), "policy": self.policy, "text": text,
        });
        if let Value::Object(fields) = json { fields } else { Map::new() }
    }
}

impl AmqpLink<'_> {
    pub(super) fn name(&self) -> String {
        let credit = self.credit.map_or_else(String::new, |credit| format!(", credit {credit}"));
        format!("link {} to {}{credit}", self.id, cut(self.address))
    }

    pub(super) fn add_to(&self, fields: &mut Map<String, Value>) {
        fields.insert("link".to_owned(), self.id.into());
        fields.insert("address".to_owned(), cut(self.address).into());
        fields.insert("credit".to_owned(), self.credit.into());
    }
}
