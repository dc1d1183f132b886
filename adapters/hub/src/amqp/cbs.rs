//! `$cbs`: put-token.

use devicebound::time::UnixTime;
use devicebound_amqp::Condition;
use devicebound_amqp::message::{Body, Message, begin_value};
use devicebound_amqp::types::{Value, Writer as _};

use super::access::{Grant, Refused};
use super::requests::{Status, answer};
use super::{Amqp, fix_of};

/// What became of a request: the answer, and what it grants or why it does not.
pub(super) struct Put {
    pub(super) answer: Vec<u8>,
    /// Of what it does not, the rule or the error condition.
    pub(super) result: Result<Grant, (&'static str, String)>,
}

impl Amqp {
    /// Answers one request.
    pub(super) fn put_token(&self, request: &Message<'_>, now: UnixTime) -> Put {
        let text = |name| request.application_property(name).and_then(|value| value.text());
        let token = match &request.body {
            Body::Value(Value::String(token)) => Some(*token),
            _ => None,
        };
        let (unauthorized, argument) = (Condition::UnauthorizedAccess, Condition::ArgumentError);
        let result = match (text("operation"), text("type"), token) {
            (Some("put-token"), Some("servicebus.windows.net:sastoken"), Some(token)) => {
                let audience = text("name").unwrap_or_default();
                self.check_token(token, audience, now).map_err(|Refused(rule)| {
                    (401, unauthorized, rule.id(), format!("{}; fix: {}", rule.says(), fix_of(rule)))
                })
            }
            (Some("put-token"), Some(_), Some(_)) => {
                let text =
                    "this hub takes SAS tokens; fix: put one of the type servicebus.windows.net:sastoken";
                Err((401, unauthorized, unauthorized.as_str(), text.to_owned()))
            }
            _ => {
                let text = "what was asked of $cbs is not understood; fix: ask for put-token, with a type and a token as the body";
                Err((400, argument, argument.as_str(), text.to_owned()))
            }
        };
        let description = result.as_ref().err().map(|(.., rule, text)| format!("{rule}: {text}"));
        let (code, condition) = match &result {
            Ok(_) => (200, None),
            Err((code, condition, ..)) => (*code, Some(condition.as_str())),
        };
        let description = description.as_deref().unwrap_or("OK");
        let mut answer = answer(request, Status { code, description, condition });
        begin_value(&mut answer);
        answer.null();
        Put { answer, result: result.map_err(|(_, _, rule, text)| (rule, text)) }
    }
}
