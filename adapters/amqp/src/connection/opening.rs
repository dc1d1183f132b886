//! Protocol headers, SASL and open (AMQP 1.0 §2.2, §5.3, §2.4.1).

use alloc::vec::Vec;

use devicebound::time::Instant;

use super::{Action, Connection, Credentials, Fault, Phase, Step};
use crate::Rule;
use crate::frame::{AMQP_HEADER, Frame, SASL_HEADER};
use crate::limits::{FRAME_MAX_MIN, IDLE_TIME_MIN};
use crate::performative::{Open, Performative, SaslInit, write};

/// The mechanisms, in the order in which they are offered. uamqp takes the first for tokens, Node and pyamqp ANONYMOUS.
const MECHANISMS: [&str; 4] = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"];
/// sasl-code ok (§5.3.3.6).
const OUTCOME_OK: u8 = 0;
/// sasl-code auth.
pub(super) const OUTCOME_AUTH: u8 = 1;

impl Connection {
    pub(super) fn header<'i>(
        &mut self,
        after_sasl: bool,
        rx: &mut &[u8],
        tx: &mut Vec<u8>,
    ) -> Result<Step<'i>, Fault> {
        let Some((header, rest)) = rx.split_first_chunk::<8>() else {
            // What can be told by the first bytes is not waited for.
            let is_one = |header: &[u8; 8]| header.starts_with(rx);
            if is_one(&AMQP_HEADER) || !after_sasl && is_one(&SASL_HEADER) {
                return Ok(Step::Wait);
            }
            return Err(refuse_header(after_sasl, tx));
        };
        match *header {
            AMQP_HEADER => {
                tx.extend_from_slice(&AMQP_HEADER);
                self.phase = Phase::Opening;
            }
            SASL_HEADER if !after_sasl => {
                tx.extend_from_slice(&SASL_HEADER);
                write::sasl_mechanisms(tx, &MECHANISMS);
                self.phase = Phase::Sasl;
            }
            _ => return Err(refuse_header(after_sasl, tx)),
        }
        if let Some(taken) = &mut self.unproven {
            *taken = taken.saturating_add(header.len());
        }
        *rx = rest;
        Ok(Step::Next)
    }

    pub(super) fn sasl_frame<'i>(
        &mut self,
        frame: Frame<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, Fault> {
        if !frame.is_sasl {
            return Err(Rule::FrameType.into());
        }
        let init = SaslInit::decode(frame.body)?;
        let credentials = match init.mechanism {
            // The token comes later, to $cbs. The response of ANONYMOUS is a trace, and says nothing (RFC 4505).
            "MSSBCBS" | "ANONYMOUS" => {
                self.phase = Phase::Deciding;
                self.authenticate(true, tx);
                return Ok(None);
            }
            "PLAIN" => plain(init.response.unwrap_or_default()).ok_or(Rule::SaslResponse)?,
            "EXTERNAL" => Credentials::External,
            _ => return Err(Rule::SaslMechanism.into()),
        };
        self.phase = Phase::Deciding;
        Ok(Some(Action::Authenticate(credentials)))
    }

    /// The answer to [`Action::Authenticate`]. Does nothing when nothing was asked.
    pub fn authenticate(&mut self, is_right: bool, tx: &mut Vec<u8>) {
        if self.phase != Phase::Deciding {
            return;
        }
        write::sasl_outcome(tx, if is_right { OUTCOME_OK } else { OUTCOME_AUTH });
        self.phase = if is_right { Phase::Header { after_sasl: true } } else { Phase::Closed };
    }

    /// The first frame of the AMQP layer.
    pub(super) fn open<'i>(
        &mut self,
        now: Instant,
        frame: Frame<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Fault> {
        let Performative::Open(open) = Performative::decode(frame.body)? else {
            return Err(Rule::OpenFirst.into());
        };
        self.take_open(now, &open)?;
        write::open(tx, &self.config.container_id, &self.config.product);
        self.phase = Phase::Open;
        Ok(Action::Opened(open))
    }

    fn take_open(&mut self, now: Instant, open: &Open<'_>) -> Result<(), Fault> {
        // Absent means without a bound; nobody may say less than every peer takes (§2.7.1).
        self.peer_frame_max = open.max_frame_size.unwrap_or(u32::MAX).max(FRAME_MAX_MIN);
        self.peer_channel_max = open.channel_max.unwrap_or(u16::MAX);
        let idle = core::time::Duration::from_millis(open.idle_time_out.unwrap_or(0).into());
        if !idle.is_zero() {
            if idle < IDLE_TIME_MIN {
                return Err(Rule::IdleTime.into());
            }
            // Well before half of it, so that a client that counts half and a slow network are content.
            let pause = idle.mul_f32(0.4);
            self.heartbeat = Some((pause, now.after(pause)));
        }
        Ok(())
    }
}

/// §2.2: the header that would be right is the answer, and no frame.
fn refuse_header(after_sasl: bool, tx: &mut Vec<u8>) -> Fault {
    tx.extend_from_slice(if after_sasl { &AMQP_HEADER } else { &SASL_HEADER });
    Fault::Connection(Rule::ProtocolHeader)
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`.
fn plain(response: &[u8]) -> Option<Credentials<'_>> {
    let mut parts = core::str::from_utf8(response).ok()?.split('\0');
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(Credentials::Plain { user, password })
}
