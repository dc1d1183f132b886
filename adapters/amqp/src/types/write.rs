//! Values to bytes, behind a buffer.

use alloc::vec::Vec;

use super::{Array, Value, code};

/// Appends values to a buffer.
pub trait Writer {
    /// Appends null.
    fn null(&mut self);
    /// Appends a boolean.
    fn boolean(&mut self, value: bool);
    /// Appends a ubyte.
    fn ubyte(&mut self, value: u8);
    /// Appends a ushort.
    fn ushort(&mut self, value: u16);
    /// Appends a uint.
    fn uint(&mut self, value: u32);
    /// Appends a ulong.
    fn ulong(&mut self, value: u64);
    /// Appends an int of four bytes.
    fn int(&mut self, value: i32);
    /// Appends a long of eight bytes.
    fn long(&mut self, value: i64);
    /// Appends a timestamp: milliseconds since 1970.
    fn timestamp(&mut self, millis: i64);
    /// Appends a binary.
    fn binary(&mut self, value: &[u8]);
    /// Appends a string.
    fn string(&mut self, value: &str);
    /// Appends a symbol; not ASCII, it is not legal.
    fn symbol(&mut self, value: &str);
    /// Appends a string, or null.
    fn optional_string(&mut self, value: Option<&str>);
    /// Appends the descriptor of what follows.
    fn descriptor(&mut self, code: u8);
    /// Begins a list whose size comes later.
    fn begin_list(&mut self) -> Compound;
    /// Begins a map whose size comes later.
    fn begin_map(&mut self) -> Compound;
    /// Begins an array of strings whose size comes later. Its elements are [`element`](Self::element)s.
    fn begin_string_array(&mut self) -> Compound;
    /// The same of symbols.
    fn begin_symbol_array(&mut self) -> Compound;
    /// Appends an element of an array of strings or symbols.
    fn element(&mut self, value: &str);
    /// Ends what was begun. `count` is of values, in a map twice the pairs.
    fn end(&mut self, compound: Compound, count: u32);
    /// Appends a value that was read, as it means and not as it was encoded.
    fn value(&mut self, value: Value<'_>);
}

/// A list, map or array that was begun: where its size belongs.
#[derive(Debug)]
#[must_use]
pub struct Compound(usize);

impl Writer for Vec<u8> {
    fn null(&mut self) {
        self.push(code::NULL);
    }

    fn boolean(&mut self, value: bool) {
        self.push(if value { code::TRUE } else { code::FALSE });
    }

    fn ubyte(&mut self, value: u8) {
        self.extend_from_slice(&[code::UBYTE, value]);
    }

    fn ushort(&mut self, value: u16) {
        self.push(code::USHORT);
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn uint(&mut self, value: u32) {
        match u8::try_from(value) {
            Ok(0) => self.push(code::UINT_0),
            Ok(small) => self.extend_from_slice(&[code::SMALL_UINT, small]),
            Err(_) => {
                self.push(code::UINT);
                self.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    fn ulong(&mut self, value: u64) {
        match u8::try_from(value) {
            Ok(0) => self.push(code::ULONG_0),
            Ok(small) => self.extend_from_slice(&[code::SMALL_ULONG, small]),
            Err(_) => {
                self.push(code::ULONG);
                self.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    fn int(&mut self, value: i32) {
        self.push(code::INT);
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn long(&mut self, value: i64) {
        self.push(code::LONG);
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn timestamp(&mut self, millis: i64) {
        self.push(code::TIMESTAMP);
        self.extend_from_slice(&millis.to_be_bytes());
    }

    fn binary(&mut self, value: &[u8]) {
        sized(self, code::BINARY_8, value);
    }

    fn string(&mut self, value: &str) {
        sized(self, code::STRING_8, value.as_bytes());
    }

    fn symbol(&mut self, value: &str) {
        sized(self, code::SYMBOL_8, value.as_bytes());
    }

    fn optional_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.null(),
        }
    }

    fn descriptor(&mut self, code: u8) {
        self.extend_from_slice(&[code::DESCRIBED, code::SMALL_ULONG, code]);
    }

    fn begin_list(&mut self) -> Compound {
        begin(self, code::LIST_32)
    }

    fn begin_map(&mut self) -> Compound {
        begin(self, code::MAP_32)
    }

    fn begin_string_array(&mut self) -> Compound {
        let array = begin(self, code::ARRAY_32);
        self.push(code::STRING_32);
        array
    }

    fn begin_symbol_array(&mut self) -> Compound {
        let array = begin(self, code::ARRAY_32);
        self.push(code::SYMBOL_32);
        array
    }

    fn element(&mut self, value: &str) {
        self.extend_from_slice(&length(value.as_bytes()).to_be_bytes());
        self.extend_from_slice(value.as_bytes());
    }

    fn end(&mut self, compound: Compound, count: u32) {
        let Compound(at) = compound;
        // The size counts what is behind it, the count included (AMQP 1.0 §1.2.3).
        let size = self.len().saturating_sub(at).saturating_sub(4);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if let Some(head) = self.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) {
            let [s0, s1, s2, s3] = size.to_be_bytes();
            let [c0, c1, c2, c3] = count.to_be_bytes();
            *head = [s0, s1, s2, s3, c0, c1, c2, c3];
        }
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.null(),
            Value::Boolean(value) => self.boolean(value),
            Value::Ubyte(value) => self.ubyte(value),
            Value::Ushort(value) => self.ushort(value),
            Value::Uint(value) => self.uint(value),
            Value::Ulong(value) => self.ulong(value),
            Value::Byte(value) => fixed(self, code::BYTE, &value.to_be_bytes()),
            Value::Short(value) => fixed(self, code::SHORT, &value.to_be_bytes()),
            Value::Int(value) => self.int(value),
            Value::Long(value) => self.long(value),
            Value::Float(value) => fixed(self, code::FLOAT, &value.to_be_bytes()),
            Value::Double(value) => fixed(self, code::DOUBLE, &value.to_be_bytes()),
            Value::Decimal(bytes) => {
                let constructor = match bytes.len() {
                    4 => code::DECIMAL_32,
                    8 => code::DECIMAL_64,
                    _ => code::DECIMAL_128,
                };
                fixed(self, constructor, bytes);
            }
            Value::Char(value) => fixed(self, code::CHAR, &u32::from(value).to_be_bytes()),
            Value::Timestamp(millis) => self.timestamp(millis),
            Value::Uuid(bytes) => fixed(self, code::UUID, &bytes),
            Value::Binary(bytes) => self.binary(bytes),
            Value::String(text) => self.string(text),
            Value::Symbol(text) => self.symbol(text),
            Value::List(list) => {
                let open = self.begin_list();
                list.iter().for_each(|value| self.value(value));
                self.end(open, list.len());
            }
            Value::Map(map) => {
                let open = self.begin_map();
                for (key, value) in map.iter() {
                    self.value(key);
                    self.value(value);
                }
                self.end(open, map.len().saturating_mul(2));
            }
            Value::Array(array) => as_read(self, &array),
            Value::Described(described) => {
                self.push(code::DESCRIBED);
                self.value(described.descriptor());
                self.value(described.value());
            }
        }
    }
}

fn fixed(tx: &mut Vec<u8>, constructor: u8, bytes: &[u8]) {
    tx.push(constructor);
    tx.extend_from_slice(bytes);
}

/// A value with its size in front: in one byte where it fits, else in four (AMQP 1.0 §1.2.2).
fn sized(tx: &mut Vec<u8>, constructor: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(size) => tx.extend_from_slice(&[constructor, size]),
        Err(_) => {
            tx.push(constructor | 0x10);
            tx.extend_from_slice(&length(bytes).to_be_bytes());
        }
    }
    tx.extend_from_slice(bytes);
}

/// Appends an array as it was read.
fn as_read(tx: &mut Vec<u8>, array: &Array<'_>) {
    let open = begin(tx, code::ARRAY_32);
    tx.extend_from_slice(array.constructor);
    tx.extend_from_slice(array.items);
    tx.end(open, array.count);
}

fn begin(tx: &mut Vec<u8>, constructor: u8) -> Compound {
    tx.push(constructor);
    let at = tx.len();
    tx.extend_from_slice(&[0; 8]);
    Compound(at)
}

/// Nothing that is written is larger than a frame, let alone 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
