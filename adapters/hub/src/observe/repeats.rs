//! Lines that say the same again and again, summed up: a device in a reconnect loop has four lines in a fifth of a second.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Repetitions are counted for so long; then their number is told.
const WINDOW: Duration = Duration::from_secs(10);
/// So often the same is told within that time.
const SHOWN: u64 = 3;
/// Different lines that are remembered; when there are more, all are forgotten and told anew.
const LINES_MAX: usize = 4096;
/// The time of day and a space stand before what is compared.
const TIME: usize = 13;

/// What was told in the last seconds.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    told: HashMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    times: u64,
    /// The first line, without its time.
    line: String,
}

impl Repeats {
    /// The line, if it is to be told; `None` where it is counted.
    pub(super) fn take(&mut self, now: Instant, line: String) -> Option<String> {
        let Some(what) = line.get(TIME..).filter(|what| !what.trim().is_empty()) else { return Some(line) };
        if self.told.len() >= LINES_MAX {
            self.told.clear();
        }
        let first = what.lines().next().unwrap_or_default();
        let told = self.told.entry(without_ports(what)).or_insert_with(|| Told {
            since: now,
            times: 0,
            line: first.to_owned(),
        });
        told.times = told.times.saturating_add(1);
        (told.times <= SHOWN).then_some(line)
    }

    /// The sums of what was counted, once their time is over.
    pub(super) fn due(&mut self, now: Instant, time: &str) -> Vec<String> {
        self.sums(time, |told| now.saturating_duration_since(told.since) >= WINDOW)
    }

    /// All sums.
    pub(super) fn rest(&mut self, time: &str) -> Vec<String> {
        self.sums(time, |_| true)
    }

    fn sums(&mut self, time: &str, is_due: impl Fn(&Told) -> bool) -> Vec<String> {
        let mut over: Vec<Told> = self
            .told
            .extract_if(|_, told| is_due(told))
            .map(|(_, told)| told)
            .filter(|told| told.times > SHOWN)
            .collect();
        over.sort_by_key(|told| told.since);
        let sum = |told: Told| {
            let more = told.times.saturating_sub(SHOWN);
            format!("{time:12} {} … {more} more in {} s", told.line, WINDOW.as_secs())
        };
        over.into_iter().map(sum).collect()
    }
}

/// A client that comes again has another port.
fn without_ports(line: &str) -> String {
    let word = |word: &str| {
        let address = word.trim_end_matches([':', ',', ';']);
        match address.parse::<SocketAddr>() {
            Ok(address) => address.ip().to_string(),
            Err(_) => word.to_owned(),
        }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_counted_and_its_sum_is_told() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let mut shown = 0;
        for second in 0..9 {
            for port in 0..5 {
                let line =
                    format!("10:00:0{second}.000 127.0.0.1:{port}   ─╳─ CONNECT refused with 5\n  fix: …");
                shown += usize::from(repeats.take(start + Duration::from_secs(second), line).is_some());
            }
            assert_eq!(repeats.due(start + Duration::from_secs(second), ""), [""; 0]);
        }
        assert_eq!(shown, 3);
        let sums = repeats.due(start + WINDOW, "10:00:10.000");
        assert_eq!(sums, ["10:00:10.000 127.0.0.1:0   ─╳─ CONNECT refused with 5 … 42 more in 10 s"]);
        assert_eq!(repeats.rest(""), [""; 0], "it is told once");
    }

    #[test]
    fn what_differs_and_what_is_rare_is_told_each_time() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for number in 0..10_000 {
            let line = format!("10:00:00.000 demo  ──▶ telemetry, QoS 1, id {number}");
            assert!(repeats.take(start, line).is_some());
        }
        assert!(repeats.told.len() <= LINES_MAX);
        for minute in 0..60 {
            let now = start + Duration::from_secs(60 * minute);
            repeats.due(now, "");
            assert!(repeats.take(now, "10:00:00.000 demo  ──▶ PINGREQ".to_owned()).is_some());
        }
        assert!(repeats.take(start, String::new()).is_some());
        assert!(repeats.take(start, "devicebound is ready".to_owned()).is_some());
    }
}
