//! What has to be known of text that stands percent-encoded in a topic, found in one pass over it.
//!
//! The bytes are looked at without a branch, as many at once as a vector register holds, each together with the byte
//! behind it. Each lane of the register has its own marks and its own count; they are brought together at the end.

/// What was found in a text, which is a property bag nearly always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// An escape from `%80` on may be there: only those can decode to something else than UTF-8.
    pub(super) escape_beyond_ascii: bool,
    /// A slash that is not percent-encoded.
    pub(super) slash: bool,
    /// How many more `=` than `&` there are.
    pub(super) surplus: i32,
}

/// As many bytes as a vector register has on every machine of 64 bits.
const BLOCK: usize = 16;

/// How many blocks a lane can count before it overflows: each adds at most 1, either way.
const BLOCKS_MAX: u32 = 127;

const ESCAPE: u8 = 0x80;
const SLASH: u8 = 0x01;

impl Scan {
    /// Looks at all of `text`.
    #[inline]
    pub(super) fn of(text: &[u8]) -> Self {
        let mut scan = Self::default();
        let Some((_, behind)) = text.split_first() else { return scan };
        let (blocks, behind) = (text.as_chunks().0, behind.as_chunks().0);
        let mut lanes = Lanes::NONE;
        for (block, behind) in blocks.iter().zip(behind) {
            lanes.look(block, behind);
            if lanes.blocks == BLOCKS_MAX {
                scan.take(lanes);
                lanes = Lanes::NONE;
            }
        }
        // What is left is 1 to 16 bytes, and nothing behind it.
        let rest = text.get(behind.len().wrapping_mul(BLOCK)..).unwrap_or_default();
        let mut last = [0; BLOCK + 1];
        if let Some(room) = last.get_mut(..rest.len()) {
            room.copy_from_slice(rest);
        }
        if let (Some(block), Some(behind)) = (last.first_chunk(), last.last_chunk()) {
            lanes.look(block, behind);
        }
        scan.take(lanes);
        scan
    }

    #[inline]
    fn take(&mut self, lanes: Lanes) {
        let marked = |mark| u128::from_ne_bytes(lanes.marks) & u128::from_ne_bytes([mark; BLOCK]) != 0;
        self.escape_beyond_ascii |= marked(ESCAPE);
        self.slash |= marked(SLASH);
        let surplus: i32 = lanes.surplus.into_iter().map(i32::from).sum();
        self.surplus = self.surplus.saturating_add(surplus);
    }
}

/// What was found in some blocks, by the place in the block.
#[derive(Clone, Copy)]
struct Lanes {
    marks: [u8; BLOCK],
    surplus: [i8; BLOCK],
    blocks: u32,
}

impl Lanes {
    const NONE: Self = Self { marks: [0; BLOCK], surplus: [0; BLOCK], blocks: 0 };

    #[inline(always)]
    fn look(&mut self, block: &[u8; BLOCK], behind: &[u8; BLOCK]) {
        let lanes = self.marks.iter_mut().zip(&mut self.surplus);
        for ((marks, surplus), (&byte, &next)) in lanes.zip(block.iter().zip(behind)) {
            let escape = if byte == b'%' && next >= b'8' { ESCAPE } else { 0 };
            let slash = if byte == b'/' { SLASH } else { 0 };
            *marks |= escape | slash;
            *surplus = surplus.wrapping_add(i8::from(byte == b'=')).wrapping_sub(i8::from(byte == b'&'));
        }
        self.blocks = self.blocks.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    /// As [`Scan::of`], byte by byte.
    fn scanned(bag: &[u8]) -> Scan {
        let count = |wanted| bag.iter().filter(|&&byte| byte == wanted).count();
        Scan {
            escape_beyond_ascii: bag.windows(2).any(|pair| pair[0] == b'%' && pair[1] >= b'8'),
            slash: bag.contains(&b'/'),
            surplus: count(b'=').checked_signed_diff(count(b'&')).unwrap().try_into().unwrap(),
        }
    }

    #[test]
    fn every_byte_is_seen_at_every_place_of_every_length() {
        for length in 1..=50 {
            for at in 0..length {
                for found in [&b"="[..], b"&", b"/", b"%", b"%7", b"%8", b"%f", b"=&/%C3"] {
                    let mut bag = vec![b'a'; length];
                    bag.splice(at.., found.iter().copied());
                    bag.resize(length.max(bag.len()), b'9');
                    assert_eq!(Scan::of(&bag), scanned(&bag), "{}", bag.escape_ascii());
                }
            }
        }
        assert_eq!(Scan::of(b""), Scan::default());
    }

    #[test]
    fn the_longest_bag_is_counted_in_full() {
        for byte in [b'=', b'&', b'/', b'x'] {
            for length in [127 * BLOCK, 128 * BLOCK + 1, crate::limits::TEXT_MAX] {
                let bag = vec![byte; length];
                assert_eq!(Scan::of(&bag), scanned(&bag), "{length} of {byte}");
            }
        }
    }
}
