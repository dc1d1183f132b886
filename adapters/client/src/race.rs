//! Which of a host's addresses to try, and when: Happy Eyeballs (RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long an attempt may take before the next address is tried beside it (RFC 8305, 5 and 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The addresses of a host in a race: the first that answers wins, and one that does not costs the others a quarter of a
/// second.
///
/// The caller opens a TCP connection to each address that [`poll`](Self::poll) gives, and goes on with those that it has
/// opened. No socket, no clock.
#[derive(Debug)]
pub struct Race {
    untried: VecDeque<SocketAddr>,
    next_at: Instant,
    failure: Option<io::Error>,
}

impl Race {
    /// A race of `addresses`, in the order in which the system prefers them, the families in turn (RFC 8305, 4).
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>, now: Instant) -> Self {
        let mut rest: VecDeque<_> = addresses.into_iter().collect();
        let mut untried = VecDeque::with_capacity(rest.len());
        while let Some(address) = rest.pop_front() {
            let other = rest.iter().position(|other| other.is_ipv6() != address.is_ipv6());
            untried.push_back(address);
            untried.extend(other.and_then(|other| rest.remove(other)));
        }
        Self { untried, next_at: now, failure: None }
    }

    /// The address to be tried now, if its time has come. To be called until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<SocketAddr> {
        if self.next_at > now {
            return None;
        }
        let next = self.untried.pop_front()?;
        self.next_at = now + ATTEMPT_DELAY;
        Some(next)
    }

    /// When the next address is to be tried; `None` where there is no other.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        (!self.untried.is_empty()).then_some(self.next_at)
    }

    /// An attempt has failed: the next address need not wait.
    pub fn failed(&mut self, error: io::Error, now: Instant) {
        self.failure = Some(error);
        self.next_at = now;
    }

    /// What to tell when no attempt is left: why the last one failed.
    #[must_use]
    pub fn failure(self) -> io::Error {
        self.failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns_and_the_system_says_which_begins() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address);
        let mut now = Instant::now();
        let mut race = Race::new(all, now);
        let mut order = Vec::new();
        while let Some(at) = race.next_at() {
            now = now.max(at);
            order.extend(race.poll(now));
        }
        assert_eq!(order, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address));
    }

    #[test]
    fn an_address_that_says_nothing_costs_a_quarter_of_a_second_and_one_that_refuses_nothing() {
        let start = Instant::now();
        let mut race = Race::new(["1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"].map(address), start);
        assert_eq!(race.poll(start), Some(address("1.1.1.1:1")));
        assert_eq!(race.poll(start), None);
        assert_eq!(race.next_at(), Some(start + ATTEMPT_DELAY));
        assert_eq!(race.poll(start + ATTEMPT_DELAY), Some(address("2.2.2.2:1")));
        race.failed(io::ErrorKind::ConnectionRefused.into(), start + ATTEMPT_DELAY);
        assert_eq!(race.poll(start + ATTEMPT_DELAY), Some(address("3.3.3.3:1")));
        assert_eq!(race.next_at(), None);
        assert_eq!(race.failure().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_host_without_an_address_says_so() {
        let race = Race::new([], Instant::now());
        assert_eq!(race.next_at(), None);
        assert_eq!(race.failure().kind(), io::ErrorKind::NotFound);
    }
}
