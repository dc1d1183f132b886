//! CONNECT (MQTT 3.1.1 §3.1).

use alloc::vec::Vec;
use core::fmt;

use super::encode::{EncodeError, field, start};
use super::reader::{DecodeError, Reader};
use super::{QoS, Text, TopicName};
use crate::limits::TEXT_MAX;
use crate::rule::Rule;

const PROTOCOL: [u8; 7] = [0, 4, b'M', b'Q', b'T', b'T', 4];

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_SESSION: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// A client asks for a session; the first packet on every connection `[MQTT-3.1.0-1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Whether the session starts empty and ends with the connection `[MQTT-3.1.2-6]`.
    pub clean_session: bool,
    /// Seconds within which the client sends a packet `[MQTT-3.1.2-23]`; 0 turns the watch off.
    pub keep_alive: u16,
    /// Whose session it is. Empty only in a clean session `[MQTT-3.1.3-7]`.
    pub client_id: Text<'a>,
    /// What the server publishes when the connection is lost.
    pub will: Option<Will<'a>>,
    /// Who the client says it is.
    pub credentials: Option<Credentials<'a>>,
}

/// A message that the server publishes for a client whose connection ends without DISCONNECT `[MQTT-3.1.2-8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// What the message is published to.
    pub topic: TopicName<'a>,
    /// The message, any bytes, possibly none.
    pub message: &'a [u8],
    /// At which QoS it is published.
    pub qos: QoS,
    /// Whether it is published as a retained message `[MQTT-3.1.2-17]`.
    pub retain: bool,
}

/// User name and password; there is no password without a user name `[MQTT-3.1.2-22]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Who the client says it is, possibly empty.
    pub username: Text<'a>,
    /// Any bytes; IoT Hub takes a SAS token.
    pub password: Option<&'a [u8]>,
}

/// Without the password, which would let a reader of logs in.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &self.password.map(|_| format_args!("…")))
            .finish()
    }
}

impl<'a> Connect<'a> {
    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError::FieldTooLong`] or [`EncodeError::EmptyClientId`], and `out` as it was.
    #[inline(never)]
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        // [MQTT-3.1.3-7]
        if self.client_id.as_bytes().is_empty() && !self.clean_session {
            return Err(EncodeError::EmptyClientId);
        }
        let credentials =
            self.credentials.map(|Credentials { username, password }| (username.as_bytes(), password));
        let mut length = size(self.client_id.as_bytes())?.saturating_add(10);
        if let Some(will) = self.will {
            length = length.saturating_add(size(will.topic.as_bytes())?).saturating_add(size(will.message)?);
        }
        if let Some((username, password)) = credentials {
            length = length.saturating_add(size(username)?).saturating_add(password.map_or(Ok(0), size)?);
        }
        let [name_high, name_low, m, q, t1, t2, level] = PROTOCOL;
        let [seconds_high, seconds_low] = self.keep_alive.to_be_bytes();
        start(0x10, length, [name_high, name_low], out)?;
        out.extend_from_slice(&[m, q, t1, t2, level, self.flags(), seconds_high, seconds_low]);
        // [MQTT-3.1.3-1]
        field(self.client_id.as_bytes(), out);
        if let Some(will) = self.will {
            field(will.topic.as_bytes(), out);
            field(will.message, out);
        }
        if let Some((username, password)) = credentials {
            field(username, out);
            if let Some(password) = password {
                field(password, out);
            }
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        let will = self.will.map_or(0, |will| WILL | (will.qos as u8) << 3 | flag(WILL_RETAIN, will.retain));
        will | flag(CLEAN_SESSION, self.clean_session)
            | flag(USER_NAME, self.credentials.is_some())
            | flag(PASSWORD, self.credentials.is_some_and(|credentials| credentials.password.is_some()))
    }

    #[inline]
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        protocol(&mut body)?;
        let (flags, will_qos) = flags(&mut body)?;
        let clean_session = flags & CLEAN_SESSION != 0;
        let keep_alive = body.u16()?;
        // [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4]
        let at_client_id = body;
        let client_id = body.field(Rule::BodyLength)?.text()?;
        // [MQTT-3.1.2-9]
        let will = match will_qos {
            Some(qos) => Some(Will {
                // [MQTT-3.1.3-10]
                topic: body.field(Rule::BodyLength)?.topic_name()?,
                message: body.field(Rule::BodyLength)?.remaining(),
                qos,
                retain: flags & WILL_RETAIN != 0,
            }),
            None => None,
        };
        let credentials = if flags & USER_NAME != 0 {
            // [MQTT-3.1.2-19] [MQTT-3.1.3-11]
            let username = body.field(Rule::BodyLength)?.text()?;
            // [MQTT-3.1.2-21]
            let password = match flags & PASSWORD {
                0 => None,
                _ => Some(body.field(Rule::BodyLength)?.remaining()),
            };
            Some(Credentials { username, password })
        } else {
            None
        };
        // [MQTT-3.1.2-11] [MQTT-3.1.2-18] [MQTT-3.1.2-20]
        if !body.is_empty() {
            return Err(body.error(Rule::BodyLength));
        }
        // [MQTT-3.1.3-8], judged last: it is answered with a CONNACK, which no otherwise broken CONNECT gets [MQTT-3.1.4-1].
        if client_id.as_bytes().is_empty() && !clean_session {
            return Err(at_client_id.error_in(Rule::EmptyClientId, 0, 2));
        }
        Ok(Self { clean_session, keep_alive, client_id, will, credentials })
    }
}

/// How many bytes a field takes, its length among them.
#[inline]
const fn size(field: &[u8]) -> Result<usize, EncodeError> {
    if field.len() > TEXT_MAX {
        return Err(EncodeError::FieldTooLong);
    }
    Ok(field.len().saturating_add(2))
}

/// Reads protocol name and level. What stands behind a level other than 4 is laid out otherwise, and not looked at.
fn protocol(body: &mut Reader<'_>) -> Result<(), DecodeError> {
    if body.take(&PROTOCOL) {
        return Ok(());
    }
    let name = body.field(Rule::BodyLength)?;
    match name.remaining() {
        b"MQTT" => {}
        // MQTT 3.1 named itself so, and asks for level 3.
        b"MQIsdp" => return Err(name.error(Rule::ProtocolLevel)),
        // [MQTT-3.1.2-1]
        _ => return Err(name.error(Rule::ProtocolName)),
    }
    let at_level = *body;
    body.u8()?;
    // [MQTT-3.1.2-2]
    Err(at_level.error_in(Rule::ProtocolLevel, 0, 1))
}

/// Reads the connect flags, and with them the QoS of the will, if there is one.
fn flags(body: &mut Reader<'_>) -> Result<(u8, Option<QoS>), DecodeError> {
    let at_flags = *body;
    let flags = body.u8()?;
    let will = flags & WILL != 0;
    let rule = if flags & RESERVED != 0 {
        Rule::ConnectReserved // [MQTT-3.1.2-3]
    } else if !will && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        Rule::WillFlags // [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15]
    } else if flags & (USER_NAME | PASSWORD) == PASSWORD {
        Rule::PasswordWithoutUsername // [MQTT-3.1.2-22]
    } else {
        match QoS::from_bits((flags & WILL_QOS) >> 3) {
            Some(qos) => return Ok((flags, will.then_some(qos))),
            None => Rule::WillQos, // [MQTT-3.1.2-14]
        }
    };
    Err(at_flags.error_in(rule, 0, 1))
}
