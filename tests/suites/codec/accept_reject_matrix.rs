//! The accept/reject matrix that `cargo bench -p devicebound-benches --features peers --bench matrix` shows beside the peers.

use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, decode};
use devicebound_testkit::matrix::{self, Expectation};

#[test]
fn nothing_wrong_gets_in_and_nothing_right_is_refused() {
    for case in matrix::cases() {
        let decoded = decode(&mut case.bytes.as_slice(), REMAINING_LENGTH_MAX);
        match case.expectation {
            Expectation::Accept => {
                assert!(matches!(decoded, Ok(Decoded::Packet(_))), "{case:?}: {decoded:?}")
            }
            Expectation::Reject => assert!(decoded.is_err(), "{case:?}: {decoded:?}"),
            Expectation::Either => {
                assert!(!matches!(decoded, Ok(Decoded::Incomplete { .. })), "{case:?}: {decoded:?}");
            }
        }
    }
}

#[test]
fn the_matrix_has_every_case() {
    let cases = matrix::cases();
    let decided = cases.iter().filter(|case| case.expectation != Expectation::Either).count();
    assert_eq!((decided, cases.len()), (57, 60));
}
