//! Bytes to values. A value that was read is valid as a whole, however deep; nothing is copied.

use super::code;
use crate::Rule;
use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX, MAP_MAX};

/// Bytes that are no AMQP value, or not the one that belongs there; the rule that they break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub Rule);

type Result<T> = core::result::Result<T, Malformed>;

const BAD: Malformed = Malformed(Rule::Encoding);

/// Takes values off the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// A value that borrows the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of AMQP 1.0 §1.6")]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    /// Decimal of 4, 8 or 16 bytes, as it is on the wire.
    Decimal(&'a [u8]),
    Char(char),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Uuid([u8; 16]),
    Binary(&'a [u8]),
    String(&'a str),
    Symbol(&'a str),
    List(List<'a>),
    Map(Map<'a>),
    Array(Array<'a>),
    Described(Described<'a>),
}

/// Values behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a> {
    count: u32,
    items: &'a [u8],
}

/// Keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map<'a> {
    pairs: u32,
    items: &'a [u8],
}

/// Values with one constructor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    pub(super) count: u32,
    /// The constructor, with its descriptors in front.
    pub(super) constructor: &'a [u8],
    pub(super) items: &'a [u8],
}

/// A value with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described<'a> {
    descriptor: &'a [u8],
    value: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next value.
    ///
    /// # Errors
    /// [`Malformed`], when the bytes are none, or are nested deeper than [`DEPTH_MAX`].
    pub fn value(&mut self) -> Result<Value<'a>> {
        self.value_within(DEPTH_MAX)
    }

    fn value_within(&mut self, depth: u8) -> Result<Value<'a>> {
        let constructor = self.byte()?;
        self.body(constructor, depth)
    }

    fn body(&mut self, constructor: u8, depth: u8) -> Result<Value<'a>> {
        Ok(match constructor {
            code::DESCRIBED => Value::Described(self.described(deeper(depth)?)?),
            code::NULL => Value::Null,
            code::TRUE => Value::Boolean(true),
            code::FALSE => Value::Boolean(false),
            code::BOOLEAN => match self.byte()? {
                0 => Value::Boolean(false),
                1 => Value::Boolean(true),
                _ => return Err(BAD),
            },
            code::UBYTE => Value::Ubyte(self.byte()?),
            code::USHORT => Value::Ushort(u16::from_be_bytes(self.bytes()?)),
            code::UINT => Value::Uint(u32::from_be_bytes(self.bytes()?)),
            code::SMALL_UINT => Value::Uint(self.byte()?.into()),
            code::UINT_0 => Value::Uint(0),
            code::ULONG => Value::Ulong(u64::from_be_bytes(self.bytes()?)),
            code::SMALL_ULONG => Value::Ulong(self.byte()?.into()),
            code::ULONG_0 => Value::Ulong(0),
            code::BYTE => Value::Byte(i8::from_be_bytes(self.bytes()?)),
            code::SHORT => Value::Short(i16::from_be_bytes(self.bytes()?)),
            code::INT => Value::Int(i32::from_be_bytes(self.bytes()?)),
            code::SMALL_INT => Value::Int(i8::from_be_bytes(self.bytes()?).into()),
            code::LONG => Value::Long(i64::from_be_bytes(self.bytes()?)),
            code::SMALL_LONG => Value::Long(i8::from_be_bytes(self.bytes()?).into()),
            code::FLOAT => Value::Float(f32::from_be_bytes(self.bytes()?)),
            code::DOUBLE => Value::Double(f64::from_be_bytes(self.bytes()?)),
            code::DECIMAL_32 => Value::Decimal(self.take(4)?),
            code::DECIMAL_64 => Value::Decimal(self.take(8)?),
            code::DECIMAL_128 => Value::Decimal(self.take(16)?),
            code::CHAR => Value::Char(char::from_u32(u32::from_be_bytes(self.bytes()?)).ok_or(BAD)?),
            code::TIMESTAMP => Value::Timestamp(i64::from_be_bytes(self.bytes()?)),
            code::UUID => Value::Uuid(self.bytes()?),
            _ => return self.variable(constructor, depth),
        })
    }

    /// A value whose size is in front of it.
    fn variable(&mut self, constructor: u8, depth: u8) -> Result<Value<'a>> {
        Ok(match constructor {
            code::BINARY_8 | code::BINARY_32 => Value::Binary(self.sized(constructor)?),
            code::STRING_8 | code::STRING_32 => {
                let bytes = self.sized(constructor)?;
                Value::String(core::str::from_utf8(bytes).map_err(|_| Malformed(Rule::Text))?)
            }
            code::SYMBOL_8 | code::SYMBOL_32 => {
                let text = core::str::from_utf8(self.sized(constructor)?);
                Value::Symbol(text.ok().filter(|text| text.is_ascii()).ok_or(Malformed(Rule::Text))?)
            }
            code::LIST_0 => Value::List(List { count: 0, items: &[] }),
            code::LIST_8 | code::LIST_32 => {
                let (count, items) = self.counted(constructor)?;
                values(count, items, deeper(depth)?)?;
                Value::List(List { count, items })
            }
            code::MAP_8 | code::MAP_32 => {
                let (count, items) = self.counted(constructor)?;
                if count % 2 != 0 || count / 2 > MAP_MAX {
                    return Err(Malformed(Rule::MapKeys));
                }
                values(count, items, deeper(depth)?)?;
                Value::Map(Map { pairs: count / 2, items })
            }
            code::ARRAY_8 | code::ARRAY_32 => {
                let (count, items) = self.counted(constructor)?;
                Value::Array(Array::check(count, items, deeper(depth)?)?)
            }
            _ => return Err(BAD),
        })
    }

    fn described(&mut self, depth: u8) -> Result<Described<'a>> {
        let mut part = || {
            let before = self.rest;
            self.value_within(depth)?;
            let length = before.len().saturating_sub(self.rest.len());
            before.get(..length).ok_or(BAD)
        };
        Ok(Described { descriptor: part()?, value: part()? })
    }

    /// The bytes behind a size of one or four bytes, as the constructor says (AMQP 1.0 §1.2.2: the high nibble).
    fn sized(&mut self, constructor: u8) -> Result<&'a [u8]> {
        let size = if constructor & 0x10 == 0 {
            self.byte()?.into()
        } else {
            // A size that fits no usize is more than there is.
            usize::try_from(u32::from_be_bytes(self.bytes()?)).unwrap_or(usize::MAX)
        };
        self.take(size)
    }

    /// Count and items of a list, map or array.
    fn counted(&mut self, constructor: u8) -> Result<(u32, &'a [u8])> {
        let mut body = Reader::new(self.sized(constructor)?);
        let count =
            if constructor & 0x10 == 0 { body.byte()?.into() } else { u32::from_be_bytes(body.bytes()?) };
        Ok((count, body.rest))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(BAD)?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(BAD)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.rest.split_first().ok_or(BAD)?;
        self.rest = rest;
        Ok(first)
    }
}

fn deeper(depth: u8) -> Result<u8> {
    depth.checked_sub(1).ok_or(Malformed(Rule::Depth))
}

/// Whether `items` are so many values and nothing else.
fn values(count: u32, items: &[u8], depth: u8) -> Result<()> {
    let mut reader = Reader::new(items);
    for _ in 0..count {
        // Each takes a byte at least, so that a count that lies ends the loop soon.
        reader.value_within(depth)?;
    }
    if reader.rest.is_empty() { Ok(()) } else { Err(BAD) }
}

impl<'a> Array<'a> {
    fn check(count: u32, body: &'a [u8], depth: u8) -> Result<Self> {
        let mut items = Reader::new(body);
        let mut constructor = items.byte()?;
        let mut depth = depth;
        while constructor == code::DESCRIBED {
            depth = deeper(depth)?;
            items.value_within(depth)?;
            constructor = items.byte()?;
        }
        let length = body.len().saturating_sub(items.rest.len());
        let array = Self { count, constructor: body.get(..length).ok_or(BAD)?, items: items.rest };
        // Elements without bytes: only their number can be too large.
        if constructor & 0xf0 == 0x40 {
            items.body(constructor, depth)?;
            let is_right = count <= EMPTY_ELEMENTS_MAX && items.rest.is_empty();
            return if is_right { Ok(array) } else { Err(BAD) };
        }
        for _ in 0..count {
            items.body(constructor, depth)?;
        }
        if items.rest.is_empty() { Ok(array) } else { Err(BAD) }
    }

    /// The elements; of described ones the values.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let constructor = self.constructor.last().copied().unwrap_or(code::NULL);
        let mut items = Reader::new(self.items);
        // They were checked when the array was read.
        (0..self.count).map_while(move |_| items.body(constructor, DEPTH_MAX).ok())
    }
}

impl<'a> List<'a> {
    /// How many values there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) const fn reader(&self) -> Reader<'a> {
        Reader::new(self.items)
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut items = self.reader();
        // They were checked when the list was read.
        (0..self.count).map_while(move |_| items.value().ok())
    }
}

impl<'a> Map<'a> {
    /// How many pairs there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.pairs
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// The pairs in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + use<'a> {
        let mut items = Reader::new(self.items);
        // They were checked when the map was read.
        (0..self.pairs).map_while(move |_| Some((items.value().ok()?, items.value().ok()?)))
    }

    /// The value under a key that is a string or a symbol: clients mix them up (uamqp's `fields` have strings).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }
}

impl<'a> Described<'a> {
    /// What says how to take the value: a ulong or a symbol.
    #[must_use]
    pub fn descriptor(&self) -> Value<'a> {
        Reader::new(self.descriptor).value().unwrap_or(Value::Null)
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Value<'a> {
        Reader::new(self.value).value().unwrap_or(Value::Null)
    }
}

impl<'a> Value<'a> {
    /// The text of a string or a symbol.
    #[must_use]
    pub const fn text(&self) -> Option<&'a str> {
        match *self {
            Self::String(text) | Self::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of any type, as far as it fits.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match *self {
            Self::Ubyte(value) => Some(value.into()),
            Self::Ushort(value) => Some(value.into()),
            Self::Uint(value) => Some(value.into()),
            Self::Ulong(value) => value.try_into().ok(),
            Self::Byte(value) => Some(value.into()),
            Self::Short(value) => Some(value.into()),
            Self::Int(value) => Some(value.into()),
            Self::Long(value) => Some(value),
            _ => None,
        }
    }

    /// The value itself, without its descriptors.
    #[must_use]
    pub fn undescribed(self) -> Self {
        let mut value = self;
        while let Self::Described(described) = value {
            value = described.value();
        }
        value
    }

    /// Whether this is a symbol, or an array or list of them with this one in it: a `multiple="true"` field (AMQP 1.0 §1.4).
    #[must_use]
    pub fn has_symbol(&self, symbol: &str) -> bool {
        match self {
            Self::Array(array) => array.iter().any(|value| value.text() == Some(symbol)),
            Self::List(list) => list.iter().any(|value| value.text() == Some(symbol)),
            value => value.text() == Some(symbol),
        }
    }
}
