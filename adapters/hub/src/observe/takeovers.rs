//! Who threw whom out, and how often lately: a device that fights itself is found by its addresses.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Takeovers of so long are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Identities that are remembered; when there are more, all are forgotten.
const IDENTITIES_MAX: usize = 4096;
/// Takeovers of one identity that are remembered.
const COUNTED_MAX: usize = 1000;

/// The last connection of each identity, and when it was taken over.
#[derive(Debug, Default)]
pub(super) struct Takeovers {
    recent: Mutex<HashMap<String, Recent>>,
}

#[derive(Debug)]
struct Recent {
    newest: SocketAddr,
    takeovers: VecDeque<Instant>,
}

/// What is told of a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takeover {
    /// Where the newcomer is, if it was seen.
    pub(super) newcomer: Option<SocketAddr>,
    /// How many there were in the last [`WINDOW`], this one too.
    pub(super) count: usize,
}

impl Takeovers {
    /// A client connects under this id.
    pub(super) fn connects(&self, client_id: &str, peer: SocketAddr) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= IDENTITIES_MAX && !recent.contains_key(client_id) {
            recent.clear();
        }
        match recent.get_mut(client_id) {
            Some(recent) => recent.newest = peer,
            None => {
                let first = Recent { newest: peer, takeovers: VecDeque::new() };
                recent.insert(client_id.to_owned(), first);
            }
        }
    }

    /// The connection of `peer` under this id was taken over.
    pub(super) fn taken_over(&self, now: Instant, client_id: &str, peer: SocketAddr) -> Takeover {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(recent) = recent.get_mut(client_id) else { return Takeover { newcomer: None, count: 1 } };
        recent.takeovers.retain(|time| now.saturating_duration_since(*time) < WINDOW);
        if recent.takeovers.len() < COUNTED_MAX {
            recent.takeovers.push_back(now);
        }
        let newcomer = Some(recent.newest).filter(|newest| *newest != peer);
        Takeover { newcomer, count: recent.takeovers.len() }
    }
}

/// `127.0.0.1:50123, 3rd takeover in 10 s`.
impl std::fmt::Display for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.newcomer {
            Some(newcomer) => write!(f, "{newcomer}")?,
            None => f.write_str("a connection that was not seen")?,
        }
        let ordinal = match self.count {
            0 | 1 => return Ok(()),
            count if (11..=13).contains(&(count % 100)) => "th",
            count if count % 10 == 1 => "st",
            count if count % 10 == 2 => "nd",
            count if count % 10 == 3 => "rd",
            _ => "th",
        };
        write!(f, ", {}{ordinal} takeover in {} s", self.count, WINDOW.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_names_the_newcomer_and_how_often_it_happens() {
        let (takeovers, start) = (Takeovers::default(), Instant::now());
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        takeovers.connects("demo", peer(1));
        let mut told = Vec::new();
        for number in 0..4 {
            takeovers.connects("demo", peer(number + 2));
            let now = start + Duration::from_secs(u64::from(number));
            told.push(takeovers.taken_over(now, "demo", peer(number + 1)).to_string());
        }
        assert_eq!(
            told,
            [
                "127.0.0.1:2",
                "127.0.0.1:3, 2nd takeover in 10 s",
                "127.0.0.1:4, 3rd takeover in 10 s",
                "127.0.0.1:5, 4th takeover in 10 s"
            ]
        );
        let later = takeovers.taken_over(start + Duration::from_secs(60), "demo", peer(1));
        assert_eq!(later.count, 1);
    }

    #[test]
    fn ids_that_strangers_make_up_are_not_kept_for_ever() {
        let takeovers = Takeovers::default();
        for number in 0..3 * IDENTITIES_MAX {
            takeovers.connects(&number.to_string(), SocketAddr::from(([127, 0, 0, 1], 1)));
        }
        assert!(takeovers.recent.lock().unwrap().len() <= IDENTITIES_MAX);
    }
}
