//! `$cbs`: put-token.

use devicebound::time::UnixTime;
use devicebound_amqp::message::{Body, Message, begin_value};
use devicebound_amqp::types::{Value, Writer as _};

use super::Amqp;
use super::access::Grant;
use super::requests::{Status, answer};

/// What became of a request: the answer, and what it grants or why it does not.
pub(super) struct Put {
    pub(super) answer: Vec<u8>,
    pub(super) result: Result<Grant, String>,
}

impl Amqp {
    /// Answers one request.
    pub(super) fn put_token(&self, request: &Message<'_>, now: UnixTime) -> Put {
        let text = |name| request.application_property(name).and_then(|value| value.text());
        let token = match &request.body {
            Body::Value(Value::String(token)) => Some(*token),
            _ => None,
        };
        let result = match (text("operation"), text("type"), token) {
            (Some("put-token"), Some("servicebus.windows.net:sastoken"), Some(token)) => {
                let audience = text("name").unwrap_or_default();
                let refused = |rule: devicebound::Rule| format!("{}: {}", rule.id(), rule.says());
                self.check_token(token, audience, now).map_err(|refused_by| (401, refused(refused_by.0)))
            }
            (Some("put-token"), Some(_), Some(_)) => {
                Err((401, "this hub takes SAS tokens: type servicebus.windows.net:sastoken".to_owned()))
            }
            _ => Err((400, "a request is put-token, with a type and a token as its body".to_owned())),
        };
        let (code, description) = match &result {
            Ok(_) => (200, "OK"),
            Err((code, text)) => (*code, text.as_str()),
        };
        let condition = match code {
            401 => Some("amqp:unauthorized-access"),
            400 => Some("com.microsoft:argument-error"),
            _ => None,
        };
        let mut answer = answer(request, Status { code, description, condition });
        begin_value(&mut answer);
        answer.null();
        Put { answer, result: result.map_err(|(_, text)| text) }
    }
}
