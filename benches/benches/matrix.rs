//! What we and the peers take and refuse, beside what MQTT 3.1.1 says.
//!
//! `cargo bench -p devicebound-benches --bench matrix`

#![allow(dead_code, reason = "the codecs are shared with the bench `peers`, which asks more of them")]

#[path = "peers/codecs/mod.rs"]
mod codecs;

use std::panic::{self, AssertUnwindSafe};

use codecs::{DECODERS, Kind, NewDecoder};
use devicebound_tests::matrix::{Case, Expectation, cases};

/// What a decoder does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Refused,
    /// It waits for more, although the packet is whole.
    Stalled,
    Panicked,
}

impl Verdict {
    fn of(new: NewDecoder, case: &Case) -> Self {
        let decode = AssertUnwindSafe(|| {
            let mut decoder = new();
            decoder.append(&case.bytes);
            decoder.decode()
        });
        match panic::catch_unwind(decode) {
            Ok(progress) if progress.packets > 0 => Self::Accepted,
            Ok(progress) if progress.refused => Self::Refused,
            Ok(_) => Self::Stalled,
            Err(_) => Self::Panicked,
        }
    }

    fn deviates(self, expectation: Expectation) -> bool {
        match expectation {
            Expectation::Accept => self != Self::Accepted,
            Expectation::Reject => self != Self::Refused,
            Expectation::Either => false,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "acc",
            Self::Refused => "rej",
            Self::Stalled => "stall",
            Self::Panicked => "PANIC",
        }
    }
}

fn main() {
    // A peer's panic is a verdict, and nothing to print.
    panic::set_hook(Box::new(|_| {}));
    let decoders: Vec<_> = DECODERS.into_iter().filter(|(_, kind, _)| *kind != Kind::Limit).collect();
    let cases = cases();

    print!("| clause | case | expected |");
    decoders.iter().for_each(|(name, ..)| print!(" {name} |"));
    println!("\n|---|---|---|{}", "---|".repeat(decoders.len()));
    let mut deviations = vec![0; decoders.len()];
    for case in &cases {
        print!("| {} | {} | {:?} |", case.clause, case.name, case.expectation);
        for ((_, _, new), deviations) in decoders.iter().zip(&mut deviations) {
            let verdict = Verdict::of(*new, case);
            if verdict.deviates(case.expectation) {
                *deviations += 1;
                print!(" **{}** |", verdict.word());
            } else {
                print!(" {} |", verdict.word());
            }
        }
        println!();
    }
    print!("| | deviations | |");
    deviations.iter().for_each(|count| print!(" {count} |"));
    println!();
}
