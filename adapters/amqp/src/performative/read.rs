//! Performatives as they come.

use super::{Outcome, Role, descriptor};
use crate::Rule;
use crate::types::{Malformed, Map, Reader, Value};

type Result<T> = core::result::Result<T, Malformed>;

const FIELD: Malformed = Malformed(Rule::Field);

/// The body of an AMQP frame.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of AMQP 1.0 §2.7")]
pub enum Performative<'a> {
    Open(Open<'a>),
    Begin(Begin),
    Attach(Attach<'a>),
    Flow(Flow),
    /// With the payload behind it.
    Transfer(Transfer<'a>, &'a [u8]),
    Disposition(Disposition),
    Detach(Detach<'a>),
    End(Option<PeerError<'a>>),
    Close(Close<'a>),
}

/// §2.7.1, what a server needs of it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the section")]
pub struct Open<'a> {
    pub container_id: &'a str,
    pub hostname: Option<&'a str>,
    /// Absent: unlimited.
    pub max_frame_size: Option<u32>,
    pub channel_max: Option<u16>,
    /// In milliseconds.
    pub idle_time_out: Option<u32>,
    pub properties: Option<Map<'a>>,
}

/// §2.7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the section")]
pub struct Begin {
    pub remote_channel: Option<u16>,
    pub next_outgoing_id: u32,
    pub incoming_window: u32,
    pub outgoing_window: u32,
    pub handle_max: Option<u32>,
}

/// §2.7.3.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the section")]
pub struct Attach<'a> {
    pub name: &'a str,
    pub handle: u32,
    /// Of the client.
    pub role: Role,
    /// 0 unsettled, 1 settled, 2 mixed.
    pub snd_settle_mode: Option<u8>,
    pub rcv_settle_mode: Option<u8>,
    pub source: Option<Terminus<'a>>,
    pub target: Option<Terminus<'a>>,
    pub initial_delivery_count: Option<u32>,
    pub max_message_size: Option<u64>,
    pub desired_capabilities: Value<'a>,
    pub properties: Option<Map<'a>>,
}

/// A source or a target (§3.5.3, §3.5.4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terminus<'a> {
    /// Where messages come from or go to.
    pub address: Option<&'a str>,
    /// The client wants a node to be made.
    pub is_dynamic: bool,
    /// Which messages are wanted; of a source only.
    pub filter: Option<Map<'a>>,
    /// A coordinator of transactions, and no node (§4.5.1).
    pub is_coordinator: bool,
}

/// §2.7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the section")]
pub struct Flow {
    pub next_incoming_id: Option<u32>,
    pub incoming_window: u32,
    pub next_outgoing_id: u32,
    pub outgoing_window: u32,
    pub handle: Option<u32>,
    pub delivery_count: Option<u32>,
    pub link_credit: Option<u32>,
    pub drain: bool,
    pub echo: bool,
}

/// §2.7.5.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the section")]
pub struct Transfer<'a> {
    pub handle: u32,
    pub delivery_id: Option<u32>,
    pub delivery_tag: Option<&'a [u8]>,
    pub message_format: Option<u32>,
    pub settled: Option<bool>,
    pub more: bool,
    pub resume: bool,
    pub aborted: bool,
}

/// §2.7.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// The role of the client in those deliveries.
    pub role: Role,
    /// The first delivery-id.
    pub first: u32,
    /// The last delivery-id.
    pub last: u32,
    /// The client will forget them.
    pub settled: bool,
    /// The outcome; `None` where the state is none that ends a delivery.
    pub outcome: Option<Outcome>,
}

/// §2.7.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detach<'a> {
    /// The handle.
    pub handle: u32,
    /// For good.
    pub closed: bool,
    /// Why.
    pub error: Option<PeerError<'a>>,
}

/// §2.7.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// Why.
    pub error: Option<PeerError<'a>>,
}

/// An error that a client gives as its reason (§2.8.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError<'a> {
    /// Its condition.
    pub condition: &'a str,
    /// Its text.
    pub description: Option<&'a str>,
}

/// §5.3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInit<'a> {
    /// The mechanism.
    pub mechanism: &'a str,
    /// The initial response.
    pub response: Option<&'a [u8]>,
}

impl<'a> Performative<'a> {
    /// The body of an AMQP frame that is not empty.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(body: &'a [u8]) -> core::result::Result<Self, Rule> {
        Self::read(body).map_err(|Malformed(rule)| rule)
    }

    fn read(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let (code, mut fields) = composite(reader.value()?, Rule::Performative)?;
        let payload = reader.rest();
        if !payload.is_empty() && code != descriptor::TRANSFER {
            return Err(Malformed(Rule::Payload));
        }
        let performative = match code {
            descriptor::OPEN => Self::Open(Open::read(&mut fields)?),
            descriptor::BEGIN => Self::Begin(Begin::read(&mut fields)?),
            descriptor::ATTACH => Self::Attach(Attach::read(&mut fields)?),
            descriptor::FLOW => Self::Flow(Flow::read(&mut fields)?),
            descriptor::TRANSFER => Self::Transfer(Transfer::read(&mut fields)?, payload),
            descriptor::DISPOSITION => Self::Disposition(Disposition::read(&mut fields)?),
            descriptor::DETACH => Self::Detach(Detach::read(&mut fields)?),
            descriptor::END => Self::End(PeerError::read(fields.any())?),
            descriptor::CLOSE => Self::Close(Close { error: PeerError::read(fields.any())? }),
            _ => return Err(Malformed(Rule::Performative)),
        };
        fields.end()?;
        Ok(performative)
    }
}

impl<'a> SaslInit<'a> {
    /// The body of a SASL frame.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(body: &'a [u8]) -> core::result::Result<Self, Rule> {
        Self::read(body).map_err(|Malformed(rule)| rule)
    }

    fn read(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let (code, mut fields) = composite(reader.value()?, Rule::Performative)?;
        if code != descriptor::SASL_INIT {
            return Err(Malformed(Rule::Performative));
        }
        let init = Self { mechanism: fields.text()?.ok_or(FIELD)?, response: fields.binary()? };
        // The host name: what clients send there is not always one.
        fields.text()?;
        fields.end()?;
        if reader.rest().is_empty() { Ok(init) } else { Err(Malformed(Rule::Payload)) }
    }
}

impl<'a> Open<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self> {
        let open = Self {
            container_id: fields.text()?.ok_or(FIELD)?,
            hostname: fields.text()?,
            max_frame_size: fields.uint()?,
            channel_max: fields.ushort()?,
            idle_time_out: fields.uint()?,
            // Locales and capabilities say nothing here, and clients put anything there.
            properties: fields.skip(4).map()?,
        };
        Ok(open)
    }
}

impl Begin {
    fn read(fields: &mut Fields<'_>) -> Result<Self> {
        let begin = Self {
            remote_channel: fields.ushort()?,
            next_outgoing_id: fields.uint()?.ok_or(FIELD)?,
            incoming_window: fields.uint()?.ok_or(FIELD)?,
            outgoing_window: fields.uint()?.ok_or(FIELD)?,
            handle_max: fields.uint()?,
        };
        fields.skip(2).map()?;
        Ok(begin)
    }
}

impl<'a> Attach<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self> {
        Ok(Self {
            name: fields.text()?.ok_or(FIELD)?,
            handle: fields.uint()?.ok_or(FIELD)?,
            role: fields.role()?,
            snd_settle_mode: fields.ubyte()?.filter(|mode| *mode <= 2),
            rcv_settle_mode: fields.ubyte()?,
            source: Terminus::read(fields.any())?,
            target: Terminus::read(fields.any())?,
            // The map of unsettled deliveries and whether it is whole: nothing is resumed.
            initial_delivery_count: fields.skip(2).uint()?,
            max_message_size: fields.ulong()?,
            desired_capabilities: fields.skip(1).any(),
            properties: fields.map()?,
        })
    }
}

impl<'a> Terminus<'a> {
    fn read(value: Value<'a>) -> Result<Option<Self>> {
        if value == Value::Null {
            return Ok(None);
        }
        let (code, mut fields) = composite(value, Rule::Field)?;
        let nothing = Self { address: None, is_dynamic: false, filter: None, is_coordinator: false };
        match code {
            descriptor::COORDINATOR => return Ok(Some(Self { is_coordinator: true, ..nothing })),
            descriptor::SOURCE | descriptor::TARGET => {}
            _ => return Err(FIELD),
        }
        let address = match fields.any() {
            Value::Null => None,
            value => Some(value.text().ok_or(FIELD)?),
        };
        let is_dynamic = fields.skip(3).boolean()?.unwrap_or(false);
        let mut filter = None;
        if code == descriptor::SOURCE {
            // The properties of a dynamic node and the distribution mode.
            filter = fields.skip(2).map()?;
            fields.skip(3);
        } else {
            fields.skip(2);
        }
        fields.end()?;
        Ok(Some(Self { address, is_dynamic, filter, ..nothing }))
    }
}

impl Flow {
    fn read(fields: &mut Fields<'_>) -> Result<Self> {
        let mut flow = Self {
            next_incoming_id: fields.uint()?,
            incoming_window: fields.uint()?.ok_or(FIELD)?,
            next_outgoing_id: fields.uint()?.ok_or(FIELD)?,
            outgoing_window: fields.uint()?.ok_or(FIELD)?,
            handle: fields.uint()?,
            delivery_count: fields.uint()?,
            link_credit: fields.uint()?,
            drain: false,
            echo: false,
        };
        fields.uint()?; // available
        flow.drain = fields.boolean()?.unwrap_or(false);
        flow.echo = fields.boolean()?.unwrap_or(false);
        fields.map()?;
        Ok(flow)
    }
}

impl<'a> Transfer<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self> {
        let mut transfer = Self {
            handle: fields.uint()?.ok_or(FIELD)?,
            delivery_id: fields.uint()?,
            delivery_tag: fields.binary()?,
            message_format: fields.uint()?,
            settled: fields.boolean()?,
            more: fields.boolean()?.unwrap_or(false),
            resume: false,
            aborted: false,
        };
        // The settle mode of this delivery and its state: the hub settles each at once, whatever they are.
        fields.skip(2);
        transfer.resume = fields.boolean()?.unwrap_or(false);
        transfer.aborted = fields.boolean()?.unwrap_or(false);
        fields.boolean()?; // batchable
        Ok(transfer)
    }
}

impl Disposition {
    fn read(fields: &mut Fields<'_>) -> Result<Self> {
        let (role, first) = (fields.role()?, fields.uint()?.ok_or(FIELD)?);
        let disposition = Self {
            role,
            first,
            last: fields.uint()?.unwrap_or(first),
            settled: fields.boolean()?.unwrap_or(false),
            outcome: Outcome::read(fields.any())?,
        };
        fields.boolean()?; // batchable
        Ok(disposition)
    }
}

impl Outcome {
    fn read(value: Value<'_>) -> Result<Option<Self>> {
        if value == Value::Null {
            return Ok(None);
        }
        let (code, mut fields) = composite(value, Rule::Field)?;
        Ok(match code {
            descriptor::ACCEPTED => Some(Self::Accepted),
            descriptor::REJECTED => {
                PeerError::read(fields.any())?;
                Some(Self::Rejected)
            }
            descriptor::RELEASED => Some(Self::Released),
            descriptor::MODIFIED => Some(Self::Modified {
                delivery_failed: fields.boolean()?.unwrap_or(false),
                undeliverable_here: fields.boolean()?.unwrap_or(false),
            }),
            // Received is on the way to an outcome; transactional states are of transactions, which there are none of.
            _ => None,
        })
    }
}

impl<'a> Detach<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self> {
        Ok(Self {
            handle: fields.uint()?.ok_or(FIELD)?,
            closed: fields.boolean()?.unwrap_or(false),
            error: PeerError::read(fields.any())?,
        })
    }
}

impl<'a> PeerError<'a> {
    fn read(value: Value<'a>) -> Result<Option<Self>> {
        if value == Value::Null {
            return Ok(None);
        }
        let (code, mut fields) = composite(value, Rule::Field)?;
        if code != descriptor::ERROR {
            return Err(FIELD);
        }
        let error = Self { condition: fields.text()?.ok_or(FIELD)?, description: fields.text()? };
        fields.map()?;
        fields.end()?;
        Ok(Some(error))
    }
}

/// The fields of a described list, in order; what was left out at the end is null (AMQP 1.0 §1.4).
struct Fields<'a> {
    left: u32,
    reader: Reader<'a>,
}

fn composite(value: Value<'_>, otherwise: Rule) -> Result<(u8, Fields<'_>)> {
    let Value::Described(described) = value else { return Err(Malformed(otherwise)) };
    let code = descriptor::of(described.descriptor()).ok_or(Malformed(otherwise))?;
    let Value::List(list) = described.value() else { return Err(Malformed(otherwise)) };
    Ok((code, Fields { left: list.len(), reader: list.reader() }))
}

impl<'a> Fields<'a> {
    fn any(&mut self) -> Value<'a> {
        let Some(left) = self.left.checked_sub(1) else { return Value::Null };
        self.left = left;
        // It was checked with the list.
        self.reader.value().unwrap_or(Value::Null)
    }

    fn skip(&mut self, count: u32) -> &mut Self {
        for _ in 0..count {
            self.any();
        }
        self
    }

    /// There is no further field.
    fn end(&self) -> Result<()> {
        if self.left == 0 { Ok(()) } else { Err(FIELD) }
    }

    fn typed<T>(&mut self, get: impl FnOnce(Value<'a>) -> Option<T>) -> Result<Option<T>> {
        match self.any() {
            Value::Null => Ok(None),
            value => get(value).map(Some).ok_or(FIELD),
        }
    }

    fn text(&mut self) -> Result<Option<&'a str>> {
        self.typed(|value| value.text())
    }

    fn boolean(&mut self) -> Result<Option<bool>> {
        self.typed(|value| if let Value::Boolean(value) = value { Some(value) } else { None })
    }

    fn role(&mut self) -> Result<Role> {
        let is_receiver = self.boolean()?.ok_or(FIELD)?;
        Ok(if is_receiver { Role::Receiver } else { Role::Sender })
    }

    fn ubyte(&mut self) -> Result<Option<u8>> {
        self.typed(|value| if let Value::Ubyte(value) = value { Some(value) } else { None })
    }

    fn ushort(&mut self) -> Result<Option<u16>> {
        self.typed(|value| if let Value::Ushort(value) = value { Some(value) } else { None })
    }

    fn uint(&mut self) -> Result<Option<u32>> {
        self.typed(|value| if let Value::Uint(value) = value { Some(value) } else { None })
    }

    fn ulong(&mut self) -> Result<Option<u64>> {
        self.typed(|value| if let Value::Ulong(value) = value { Some(value) } else { None })
    }

    fn binary(&mut self) -> Result<Option<&'a [u8]>> {
        self.typed(|value| if let Value::Binary(value) = value { Some(value) } else { None })
    }

    fn map(&mut self) -> Result<Option<Map<'a>>> {
        self.typed(|value| if let Value::Map(value) = value { Some(value) } else { None })
    }
}
