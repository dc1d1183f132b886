//! The rule book of AMQP, and the error conditions that clients are told.

use devicebound_amqp::{Condition, Rule};

/// What a condition means to the program that gets it, and what to do: those that the hub sends without a rule, too.
const CONDITIONS: [(Condition, &str, &str); 14] = [
    (
        Condition::NotFound,
        "there is no such node, device, partition or consumer group",
        "compare the address with the README's; devicebound consumer-group list shows the groups",
    ),
    (
        Condition::UnauthorizedAccess,
        "no token of the connection opens the node, or the token has run out",
        "put a token to $cbs before the link is attached, and a new one before it runs out",
    ),
    (
        Condition::Stolen,
        "another reader has this partition with the same or a higher epoch (owner level)",
        "give programs that read for different purposes a consumer group each: devicebound consumer-group add NAME",
    ),
    (
        Condition::ResourceLimitExceeded,
        "a limit is reached: five readers of a partition in a consumer group, 50 messages in a device's queue, or one of the rules below",
        "close readers that are not needed, or let the device take its messages",
    ),
    (
        Condition::Redirect,
        "messages/events is the Event Hubs-compatible endpoint",
        "connect to the hostname and address in the error's info, as Event Hubs clients do, or use the Event Hubs connection string",
    ),
    (
        Condition::MessageSizeExceeded,
        "the message is larger than the link's max-message-size",
        "send at most 64 KB to a device",
    ),
    (
        Condition::NotImplemented,
        "the hub does not have this",
        "see what is not there in the README; devices use MQTT or HTTPS",
    ),
    (
        Condition::NotAllowed,
        "the link is attached the wrong way round, or the frame is not allowed in this state",
        "be a receiver of events and feedback, and a sender of messages to devices",
    ),
    (Condition::InternalError, "the store cannot be read or written", "see the hub's output, and try again"),
    (
        Condition::ArgumentError,
        "a property, a filter or the body cannot be meant so",
        "the description says which, and what is expected",
    ),
    (
        Condition::ArgumentOutOfRange,
        "there is no partition of this number",
        "read the partition ids from $management",
    ),
    (Condition::ConnectionForced, "the hub is stopping", "connect again"),
    (
        Condition::QuotaExceeded,
        "the day's messages of the tier are used up",
        "wait for the next day (UTC), or start the hub with more units",
    ),
    (
        Condition::Throttled,
        "more in a second than tier and units allow",
        "try again later, with growing delays",
    ),
];

/// What an id of the rule book, or an error condition, means.
pub(super) fn explain(what: &str) -> Option<String> {
    let rule = Rule::ALL.iter().find(|rule| rule.id().eq_ignore_ascii_case(what));
    rule.map(|rule| in_full(*rule)).or_else(|| condition(what))
}

fn in_full(rule: Rule) -> String {
    let mut text = format!("{}\n  says   {}\n  fix    {}", rule.id(), rule.says(), rule.fix());
    if rule.condition() != Condition::None {
        text.push_str(&format!("\n  told   {}", rule.condition()));
    }
    text.push_str(&format!("\n  source {}", rule.source()));
    text
}

fn condition(what: &str) -> Option<String> {
    let known = CONDITIONS.iter().find(|(condition, ..)| condition.as_str().eq_ignore_ascii_case(what));
    let is_told = |rule: &&Rule| rule.condition().as_str().eq_ignore_ascii_case(what);
    let rules: Vec<&Rule> = Rule::ALL.iter().filter(|_| !what.is_empty()).filter(is_told).collect();
    if known.is_none() && rules.is_empty() {
        return None;
    }
    let mut text = match known {
        Some((condition, means, fix)) => format!("{condition}\n  means  {means}\n  fix    {fix}"),
        None => what.to_ascii_lowercase(),
    };
    if !rules.is_empty() {
        text.push_str("\n  rules that end in it; devicebound explain RULE tells more:");
    }
    for rule in rules {
        text.push_str(&format!("\n    {:22} {}", rule.id(), rule.says()));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_amqp_and_an_error_condition_are_explained() {
        let text = explain("hub-amqp-links").unwrap();
        for part in ["HUB-AMQP-LINKS", "1024 links", "amqp:resource-limit-exceeded", "fix"] {
            assert!(text.contains(part), "{text}");
        }
        let text = explain("amqp:link:stolen").unwrap();
        assert!(text.contains("epoch") && text.contains("consumer-group add"), "{text}");
        let text = explain("amqp:connection:framing-error").unwrap();
        assert!(text.contains("AMQP-2.3.1-SIZE"), "{text}");
        assert_eq!([explain(""), explain("HUB-D2C-QOS2"), explain("amqp:nothing")], [None, None, None]);
    }
}
