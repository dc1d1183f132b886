//! PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK: packets that carry a packet id and nothing else
//! (MQTT 3.1.1 §3.4 to §3.7 and §3.11).

use alloc::vec::Vec;

use super::PacketId;
use super::encode::short;

/// Appends a PUBACK (MQTT 3.1.1 §3.4).
#[inline]
pub fn puback(id: PacketId, out: &mut Vec<u8>) {
    append(0x40, id, out);
}

/// Appends a PUBREC (MQTT 3.1.1 §3.5).
#[inline]
pub fn pubrec(id: PacketId, out: &mut Vec<u8>) {
    append(0x50, id, out);
}

/// Appends a PUBREL `[MQTT-3.6.1-1]`.
#[inline]
pub fn pubrel(id: PacketId, out: &mut Vec<u8>) {
    append(0x62, id, out);
}

/// Appends a PUBCOMP (MQTT 3.1.1 §3.7).
#[inline]
pub fn pubcomp(id: PacketId, out: &mut Vec<u8>) {
    append(0x70, id, out);
}

/// Appends an UNSUBACK (MQTT 3.1.1 §3.11).
#[inline]
pub fn unsuback(id: PacketId, out: &mut Vec<u8>) {
    append(0xB0, id, out);
}

#[inline]
fn append(first: u8, id: PacketId, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    short([first, 2, high, low], out);
}
