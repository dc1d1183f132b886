//! What is told of AMQP: who connected, which link leads where, which credit it has, why something ended and what to do.
//!
//! | what happens | view and log | operations | metrics |
//! |---|---|---|---|
//! | a connection opens | yes | | counted |
//! | a link is attached, gets its first credit, is detached | yes | | |
//! | a link, a session or a connection is refused or ended, a message rejected | with rule, credit and fix | yes | counted by rule |
//! | events are sent | | | counted |

use super::amqp_client::{AmqpClient, AmqpFailure, AmqpLink};
use super::observers::Observers;
use super::operations::Standing;
use super::printable::printable;

impl Observers<'_> {
    /// A connection is open, and its client has said who it is.
    pub(crate) fn amqp_connected(self, client: AmqpClient<'_>) {
        self.amqp_told(client, "amqpConnected", "connected", None);
    }

    /// A connection is over. `is_lost`: without a word.
    pub(crate) fn amqp_closed(self, client: AmqpClient<'_>, is_lost: bool) {
        self.metrics.amqp.closed();
        let text = if is_lost { "is gone without close (HUB-AMQP-LOST)" } else { "closed" };
        self.amqp_told(client, "amqpClosed", text, None);
    }

    /// A link leads to a node now, has its first credit, or is detached by its client.
    pub(crate) fn amqp_link(self, client: AmqpClient<'_>, event: &'static str, link: AmqpLink<'_>) {
        let what = match event {
            "amqpAttached" => "attached",
            "amqpCredit" => "got credit",
            _ => "detached",
        };
        self.amqp_told(client, event, what, Some(link));
    }

    fn amqp_told(self, client: AmqpClient<'_>, event: &str, what: &str, link: Option<AmqpLink<'_>>) {
        let mut fields = client.fields(event, what);
        link.inspect(|link| link.add_to(&mut fields));
        let link = link.map_or_else(String::new, |link| format!(": {}", link.name()));
        self.view.told(false, event, &printable(&format!("{} {what}{link}", client.name())), fields);
    }

    /// Something was refused, or has ended because of an error.
    pub(crate) fn amqp_failed(self, client: AmqpClient<'_>, failure: AmqpFailure<'_>) {
        let AmqpFailure { event, rule, says, fix, link } = failure;
        self.metrics.amqp.failed(rule);
        let standing = if client.policy.is_empty() { Standing::Stranger } else { Standing::Known };
        self.operations.amqp_failed(client, failure, standing);
        let mut fields = client.fields(event, says);
        fields.extend(
            [("rule", rule), ("says", says), ("mend", fix)]
                .map(|(name, text)| (name.to_owned(), text.into())),
        );
        link.inspect(|link| link.add_to(&mut fields));
        let link = link.map_or_else(String::new, |link| format!(" ({})", link.name()));
        let text = format!("{}{link}: {rule}: {says}; fix: {fix}", client.name());
        self.view.told(true, event, &printable(&text), fields);
    }
}
