//! Requests and answers over a pair of links: what `$cbs` and `$management` have in common.

use std::collections::VecDeque;

use devicebound_amqp::message::{Message, Properties, begin_application_properties};
use devicebound_amqp::types::{Value, Writer as _};
use devicebound_amqp::{Connection, LinkId, Tag};

/// Answers that wait for the client's credit on one link; it sends no more requests than it has credit for, so that a
/// client which reads them has few.
const WAITING_MAX: usize = 128;

/// A link on which answers go to a client.
#[derive(Debug, Default)]
pub(super) struct Answers {
    waiting: VecDeque<Vec<u8>>,
}

impl Answers {
    /// Sends an answer, now or when there is credit. One that finds no room is lost: its client reads none.
    pub(super) fn send(&mut self, answer: Vec<u8>) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(answer);
        }
    }

    pub(super) fn pump(&mut self, link: LinkId, machine: &mut Connection, tx: &mut Vec<u8>) {
        while let Some(answer) = self.waiting.front() {
            if !machine.send(link, Tag::Untracked, tx, |tx| tx.extend_from_slice(answer)) {
                return;
            }
            self.waiting.pop_front();
        }
        machine.drained(link, tx);
    }
}

/// The status of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status<'a> {
    pub(super) code: i32,
    pub(super) description: &'a str,
    pub(super) condition: Option<&'a str>,
}

/// An answer to a request, without its body.
pub(super) fn answer(request: &Message<'_>, status: Status<'_>) -> Vec<u8> {
    let mut tx = Vec::new();
    // With the type that the request has it in: clients compare the two.
    let id = match request.properties.message_id {
        Value::Null => request.properties.correlation_id,
        id => id,
    };
    Properties { correlation_id: id, ..Properties::default() }.write(&mut tx);
    let map = begin_application_properties(&mut tx);
    tx.string("status-code");
    // An int: uamqp waits for ever for a long.
    tx.int(status.code);
    tx.string("status-description");
    tx.string(status.description);
    let mut count = 4;
    if let Some(condition) = status.condition {
        tx.string("error-condition");
        tx.symbol(condition);
        count = 6;
    }
    tx.end(map, count);
    tx
}
