//! Performatives as they go: each with all of its fields.

use alloc::vec::Vec;

use super::{Outcome, Role, descriptor};
use crate::frame::{self, Begun};
use crate::limits::{CHANNEL_MAX, DESCRIPTION_MAX, FRAME_MAX, HANDLE_MAX, IDLE_TIME};
use crate::types::{Map, Value, Writer as _, code};
use crate::{Condition, Failure, Info};

/// One performative with so many fields, in a frame of its own. Gives the size of the frame.
fn framed(tx: &mut Vec<u8>, begun: Begun, code: u8, count: u32, fields: impl FnOnce(&mut Vec<u8>)) -> u32 {
    composite(tx, code, count, fields);
    frame::end(tx, begun)
}

fn composite(tx: &mut Vec<u8>, code: u8, count: u32, fields: impl FnOnce(&mut Vec<u8>)) {
    tx.descriptor(code);
    let list = tx.begin_list();
    fields(tx);
    tx.end(list, count);
}

fn nulls(tx: &mut Vec<u8>, count: u32) {
    for _ in 0..count {
        tx.null();
    }
}

pub(crate) fn sasl_mechanisms(tx: &mut Vec<u8>, mechanisms: &[&str]) {
    let begun = frame::begin_sasl(tx);
    framed(tx, begun, descriptor::SASL_MECHANISMS, 1, |tx| {
        let array = tx.begin_symbol_array();
        mechanisms.iter().for_each(|mechanism| tx.element(mechanism));
        tx.end(array, u32::try_from(mechanisms.len()).unwrap_or(0));
    });
}

/// `code` 0: done; 1: not let in (§5.3.3.6).
pub(crate) fn sasl_outcome(tx: &mut Vec<u8>, outcome: u8) {
    let begun = frame::begin_sasl(tx);
    framed(tx, begun, descriptor::SASL_OUTCOME, 2, |tx| {
        tx.ubyte(outcome);
        tx.null();
    });
}

pub(crate) fn open(tx: &mut Vec<u8>, container_id: &str, product: &str) {
    let begun = frame::begin(tx, 0);
    framed(tx, begun, descriptor::OPEN, 10, |tx| {
        tx.string(container_id);
        tx.null(); // hostname
        tx.uint(FRAME_MAX);
        tx.ushort(CHANNEL_MAX);
        tx.uint(u32::try_from(IDLE_TIME.as_millis()).unwrap_or(u32::MAX));
        nulls(tx, 4); // locales, capabilities
        let properties = tx.begin_map();
        tx.symbol("product");
        tx.string(product);
        tx.end(properties, 2);
    });
}

pub(crate) fn begin(tx: &mut Vec<u8>, channel: u16, incoming_window: u32) {
    let begun = frame::begin(tx, channel);
    framed(tx, begun, descriptor::BEGIN, 8, |tx| {
        tx.ushort(channel); // remote-channel: the same number both ways
        tx.uint(0); // next-outgoing-id
        tx.uint(incoming_window);
        tx.uint(u32::MAX); // outgoing-window
        tx.uint(HANDLE_MAX);
        nulls(tx, 3);
    });
}

/// What our attach says.
#[derive(Debug)]
pub(crate) struct Attach<'a> {
    pub(crate) name: &'a str,
    pub(crate) handle: u32,
    pub(crate) role: Role,
    pub(crate) snd_settle_mode: u8,
    pub(crate) source: Option<&'a str>,
    pub(crate) filter: Option<&'a [u8]>,
    pub(crate) target: Option<&'a str>,
    pub(crate) max_message_size: u64,
}

pub(crate) fn attach(tx: &mut Vec<u8>, channel: u16, attach: &Attach<'_>) -> u32 {
    let begun = frame::begin(tx, channel);
    framed(tx, begun, descriptor::ATTACH, 14, |tx| {
        tx.string(attach.name);
        tx.uint(attach.handle);
        tx.boolean(attach.role == Role::Receiver);
        tx.ubyte(attach.snd_settle_mode);
        tx.ubyte(0); // rcv-settle-mode first, whatever was asked: uamqp asks for second and never completes it
        composite(tx, descriptor::SOURCE, 11, |tx| {
            terminus(tx, attach.source);
            tx.null(); // dynamic-node-properties
            tx.null(); // distribution-mode
            match attach.filter {
                Some(filter) => tx.extend_from_slice(filter),
                None => tx.null(),
            }
            nulls(tx, 3); // default-outcome, outcomes, capabilities
        });
        composite(tx, descriptor::TARGET, 7, |tx| {
            terminus(tx, attach.target);
            nulls(tx, 2); // dynamic-node-properties, capabilities
        });
        tx.null(); // unsettled
        tx.boolean(false); // incomplete-unsettled
        match attach.role {
            Role::Sender => tx.uint(0), // initial-delivery-count
            Role::Receiver => tx.null(),
        }
        tx.ulong(attach.max_message_size);
        nulls(tx, 3); // capabilities, properties
    })
}

/// What source and target begin with: address, durable, expiry-policy, timeout, dynamic.
fn terminus(tx: &mut Vec<u8>, address: Option<&str>) {
    tx.optional_string(address);
    tx.uint(0);
    tx.symbol("session-end");
    tx.uint(0);
    tx.boolean(false);
}

/// A filter set as it goes back to the client.
pub(crate) fn filter_set(filter: Map<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.value(Value::Map(filter));
    bytes
}

/// The state of one session, and of a link of it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) next_incoming_id: u32,
    pub(crate) incoming_window: u32,
    pub(crate) next_outgoing_id: u32,
    pub(crate) link: Option<LinkFlow>,
}

#[derive(Debug)]
pub(crate) struct LinkFlow {
    pub(crate) handle: u32,
    pub(crate) delivery_count: u32,
    pub(crate) credit: u32,
    pub(crate) drain: bool,
}

pub(crate) fn flow(tx: &mut Vec<u8>, channel: u16, flow: &Flow) {
    let begun = frame::begin(tx, channel);
    framed(tx, begun, descriptor::FLOW, 11, |tx| {
        tx.uint(flow.next_incoming_id);
        tx.uint(flow.incoming_window);
        tx.uint(flow.next_outgoing_id);
        tx.uint(u32::MAX); // outgoing-window
        match &flow.link {
            Some(link) => {
                tx.uint(link.handle);
                tx.uint(link.delivery_count);
                tx.uint(link.credit);
                tx.null(); // available
                tx.boolean(link.drain);
            }
            None => {
                nulls(tx, 4);
                tx.boolean(false);
            }
        }
        tx.boolean(false); // echo
        tx.null();
    });
}

/// Where a transfer that was begun has its flag `more`, and where its frame begins.
#[derive(Debug)]
#[must_use]
pub(crate) struct TransferBegun {
    frame: Begun,
    more: usize,
}

/// The head of a transfer: its payload follows, then [`end_transfer`]. Numbers of fixed width, so that nothing moves.
pub(crate) fn begin_transfer(
    tx: &mut Vec<u8>,
    channel: u16,
    handle: u32,
    delivery_id: u32,
    tag: &[u8],
    settled: bool,
) -> TransferBegun {
    let frame = frame::begin(tx, channel);
    tx.descriptor(descriptor::TRANSFER);
    let tag_length = u8::try_from(tag.len()).unwrap_or(u8::MAX);
    // The bytes behind the size: the count, handle and delivery-id of 5 bytes each, the tag, 8 fields of one byte.
    let size = tag_length.saturating_add(1 + 5 + 5 + 2 + 8);
    let [h0, h1, h2, h3] = handle.to_be_bytes();
    let [d0, d1, d2, d3] = delivery_id.to_be_bytes();
    tx.extend_from_slice(&[
        code::LIST_8,
        size,
        11,
        code::UINT,
        h0,
        h1,
        h2,
        h3,
        code::UINT,
        d0,
        d1,
        d2,
        d3,
        code::BINARY_8,
        tag_length,
    ]);
    tx.extend_from_slice(tag);
    let settled = if settled { code::TRUE } else { code::FALSE };
    // message-format, settled, more, rcv-settle-mode, state, resume, aborted, batchable
    let more = tx.len().saturating_add(2);
    tx.extend_from_slice(&[
        code::UINT_0,
        settled,
        code::FALSE,
        code::NULL,
        code::NULL,
        code::FALSE,
        code::FALSE,
        code::FALSE,
    ]);
    TransferBegun { frame, more }
}

/// Ends a transfer behind its payload. Gives the size of the frame.
pub(crate) fn end_transfer(tx: &mut [u8], begun: &TransferBegun, more: bool) -> u32 {
    if let Some(flag) = tx.get_mut(begun.more) {
        *flag = if more { code::TRUE } else { code::FALSE };
    }
    frame::end(tx, begun.frame)
}

impl TransferBegun {
    pub(crate) const fn start(&self) -> usize {
        self.frame.0
    }
}

/// Says that these deliveries are settled with this outcome.
pub(crate) fn disposition(
    tx: &mut Vec<u8>,
    channel: u16,
    role: Role,
    (first, last): (u32, u32),
    outcome: Result<Outcome, &Failure<'_>>,
) {
    let begun = frame::begin(tx, channel);
    framed(tx, begun, descriptor::DISPOSITION, 6, |tx| {
        tx.boolean(role == Role::Receiver);
        tx.uint(first);
        tx.uint(last);
        tx.boolean(true); // settled
        match outcome {
            Ok(Outcome::Accepted) => composite(tx, descriptor::ACCEPTED, 0, |_| ()),
            Ok(Outcome::Released) => composite(tx, descriptor::RELEASED, 0, |_| ()),
            Ok(Outcome::Rejected) => composite(tx, descriptor::REJECTED, 1, |tx| tx.null()),
            Ok(Outcome::Modified { delivery_failed, undeliverable_here }) => {
                composite(tx, descriptor::MODIFIED, 3, |tx| {
                    tx.boolean(delivery_failed);
                    tx.boolean(undeliverable_here);
                    tx.null();
                });
            }
            Err(failure) => composite(tx, descriptor::REJECTED, 1, |tx| error(tx, Some(failure))),
        }
        tx.boolean(false); // batchable
    });
}

pub(crate) fn detach(
    tx: &mut Vec<u8>,
    channel: u16,
    handle: u32,
    closed: bool,
    failure: Option<&Failure<'_>>,
) {
    let begun = frame::begin(tx, channel);
    framed(tx, begun, descriptor::DETACH, 3, |tx| {
        tx.uint(handle);
        tx.boolean(closed);
        error(tx, failure);
    });
}

pub(crate) fn end(tx: &mut Vec<u8>, channel: u16, failure: Option<&Failure<'_>>) {
    let begun = frame::begin(tx, channel);
    framed(tx, begun, descriptor::END, 1, |tx| error(tx, failure));
}

pub(crate) fn close(tx: &mut Vec<u8>, failure: Option<&Failure<'_>>) {
    let begun = frame::begin(tx, 0);
    framed(tx, begun, descriptor::CLOSE, 1, |tx| error(tx, failure));
}

fn error(tx: &mut Vec<u8>, failure: Option<&Failure<'_>>) {
    let Some(failure) = failure.filter(|failure| failure.condition != Condition::None) else {
        return tx.null();
    };
    composite(tx, descriptor::ERROR, 3, |tx| {
        tx.symbol(failure.condition.as_str());
        let text = &*failure.description;
        let end = text.floor_char_boundary(DESCRIPTION_MAX);
        tx.string(text.get(..end).unwrap_or(text));
        if failure.info.is_empty() {
            return tx.null();
        }
        let map = tx.begin_map();
        for (name, value) in failure.info {
            tx.symbol(name);
            match *value {
                Info::Text(text) => tx.string(text),
                Info::Int(number) => tx.int(number),
            }
        }
        tx.end(map, u32::try_from(failure.info.len()).unwrap_or(0).saturating_mul(2));
    });
}
