//! The codec, on packets of every kind and on any bytes.

use devicebound::Rule;
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, Packet, decode};
use devicebound_testkit::fuzz::{chunked_stream, packet_decode, packet_round_trip};
use devicebound_world::allocations::{Allocations, allocations};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::cases;
use crate::samples::{Sample, any_bytes, length, sample, short_sample};

/// The one packet that `bytes` are.
#[allow(clippy::panic, reason = "a test whose packet is none must stop")]
fn one(bytes: &[u8]) -> Packet<'_> {
    let mut rest = bytes;
    let decoded = decode(&mut rest, REMAINING_LENGTH_MAX);
    assert!(rest.is_empty(), "{} bytes are left of {decoded:?}", rest.len());
    match decoded {
        Ok(Decoded::Packet(packet)) => packet,
        other => panic!("{other:?}"),
    }
}

/// The bytes of the fixed header.
fn header(packet: &[u8]) -> &[u8] {
    let end = packet[1..].iter().position(|byte| byte & 0x80 == 0).expect("the length has an end");
    &packet[..end + 2]
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn what_was_encoded_decodes_to_itself(sample in sample()) {
        prop_assert_eq!(Sample::of(&one(&sample.encode())), sample);
    }

    #[test]
    fn canonical_bytes_encode_again_to_themselves(sample in sample()) {
        let bytes = sample.encode();
        let mut again = b"before".to_vec();
        one(&bytes).encode(&mut again).expect("a decoded packet encodes");
        prop_assert!(again.strip_prefix(b"before") == Some(&bytes[..]));
    }

    #[test]
    fn a_length_is_encoded_in_as_few_bytes_as_will_do(sample in sample()) {
        let bytes = sample.encode();
        let length = &header(&bytes)[1..];
        prop_assert!(length.len() == 1 || length.last() != Some(&0), "{:x?}", length);
    }

    #[test]
    fn a_padded_length_changes_nothing_but_the_bytes(sample in short_sample(), padding in 1..=2_usize) {
        let bytes = sample.encode();
        let body = &bytes[header(&bytes).len()..];
        prop_assume!(body.len() < 128);
        let padded = [&bytes[..1], &length(body.len(), padding), body].concat();
        prop_assert_eq!(Sample::of(&one(&padded)), sample);
        packet_round_trip(&padded);
    }

    #[test]
    fn any_bytes_give_a_packet_a_number_of_missing_bytes_or_an_error(bytes in any_bytes()) {
        packet_decode(&bytes);
        packet_round_trip(&bytes);
    }

    #[test]
    fn no_packet_and_no_error_depends_on_what_stands_behind_it(bytes in any_bytes(), behind in any_bytes()) {
        let mut rest = &bytes[..];
        let verdict = decode(&mut rest, REMAINING_LENGTH_MAX);
        if !matches!(verdict, Ok(Decoded::Incomplete { .. })) {
            let longer = [&bytes[..], &behind].concat();
            let mut longer_rest = &longer[..];
            prop_assert_eq!(decode(&mut longer_rest, REMAINING_LENGTH_MAX), verdict);
            prop_assert_eq!(longer_rest.len(), rest.len() + behind.len());
        }
    }

    #[test]
    fn no_more_bytes_are_asked_for_than_are_missing(sample in sample(), cut in any::<Index>()) {
        let bytes = sample.encode();
        let cut = cut.index(bytes.len());
        match decode(&mut &bytes[..cut], REMAINING_LENGTH_MAX) {
            Ok(Decoded::Incomplete { at_least }) => prop_assert!((1..=bytes.len() - cut).contains(&at_least)),
            other => prop_assert!(false, "{:?} of {} of {} bytes", other, cut, bytes.len()),
        }
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_from_its_fixed_header(sample in sample(), lower in any::<Index>()) {
        let bytes = sample.encode();
        let header = header(&bytes);
        let length = bytes.len() - header.len();
        prop_assume!(length > 0);
        let error = decode(&mut &header[..], lower.index(length)).expect_err("it is over the limit");
        prop_assert_eq!((error.rule(), error.at()), (Rule::PacketSize, 1..header.len()));
        prop_assert_eq!(decode(&mut &bytes[..], length), Ok(Decoded::Packet(one(&bytes))));
    }

    #[test]
    fn decoding_holds_no_memory_whatever_comes(
        bytes in prop_oneof![any_bytes(), short_sample().prop_map(|sample| sample.encode())],
    ) {
        let held = allocations(|| {
            for end in 0..=bytes.len() {
                let _ = std::hint::black_box(decode(&mut &bytes[..end], REMAINING_LENGTH_MAX));
            }
        });
        prop_assert_eq!(held, Allocations::default());
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_split_of_a_stream_gives_the_same_packets(
        samples in vec(short_sample(), 0..5),
        tail in any_bytes(),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let bytes = [samples.iter().flat_map(Sample::encode).collect(), tail].concat();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        let (whole, whole_end) = taken(&bytes, [bytes.len()]);
        let (split, split_end) = taken(&bytes, ends);
        prop_assert!(whole.starts_with(&samples), "what stands before an error is decoded");
        prop_assert_eq!(split, whole);
        prop_assert_eq!(split_end, whole_end);
    }

    #[test]
    fn two_step_sizes_in_turn_give_the_same_packets_too(
        steps in any::<u8>(),
        stream in vec(any_bytes(), 0..4).prop_map(|parts| parts.concat()),
    ) {
        chunked_stream(&[&[steps][..], &stream].concat());
    }
}

/// The packets that come out of `bytes` when they come up to each of `ends`, and how it ends: at which byte, with which
/// error.
fn taken(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
) -> (Vec<Sample>, (usize, Option<devicebound::packet::DecodeError>)) {
    let (mut packets, mut at) = (Vec::new(), 0);
    for end in ends {
        loop {
            let mut rest = &bytes[at..end.max(at)];
            match decode(&mut rest, REMAINING_LENGTH_MAX) {
                Ok(Decoded::Packet(packet)) => packets.push(Sample::of(&packet)),
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => return (packets, (at, Some(error))),
            }
            at = end - rest.len();
        }
    }
    (packets, (at, None))
}
