//! What this hub takes although the real one may not, and what comes to nothing: told, and refused where the hub is
//! [strict](super::HubConfig::strict).

use alloc::collections::VecDeque;
use alloc::string::String;

use super::{Hub, LinkId};
use crate::rule::Rule;

/// Warnings that wait to be taken; more than an owner who takes none needs.
const WAITING_MAX: usize = 256;
/// So many characters of what a peer chose are quoted.
const QUOTED_MAX: usize = 256;

/// What a peer sent, beside what it was compared with. Neither is a key, a signature or a whole token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What came.
    pub received: String,
    /// What would have been right.
    pub expected: String,
}

impl Comparison {
    pub(super) fn new(received: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { received: received.into(), expected: expected.into() }
    }
}

/// Text of a peer, cut to a length that can be kept and read.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => {
            let shown = text.get(..end).unwrap_or_default();
            alloc::format!("{shown}… ({} bytes more)", text.len().saturating_sub(end))
        }
        None => text.into(),
    }
}

/// Something that was taken, and is worth a word to the person whose device it is. A connection is warned of each rule once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule that the real hub may insist on.
    pub rule: Rule,
    /// What came, and what would have been right, where that tells more than the rule.
    pub comparison: Option<Comparison>,
    /// The real hub may refuse it, and a [strict](super::HubConfig::strict) one does; otherwise it comes to nothing, on any
    /// hub.
    pub refused_if_strict: bool,
}

/// What a hub warns of, and whether a strict one refuses it: the real hub may.
const KINDS: [(Rule, bool); 13] = [
    (Rule::BagSlash, true),
    (Rule::MethodJson, true),
    (Rule::KeepAliveRange, true),
    (Rule::ApiVersionUnknown, true),
    (Rule::SasEncoding, true),
    (Rule::SasExpiryRange, true),
    (Rule::HostName, true),
    (Rule::ServerName, true),
    (Rule::TwinUnheard, false),
    (Rule::MethodUnknown, false),
    (Rule::SubscribeQos2, false),
    (Rule::Retain, false),
    (Rule::UnsolicitedAck, false),
];

/// What one connection was warned of: a bit for each of [`KINDS`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told(u16);

impl Told {
    /// Whether this is the first time.
    fn insert(&mut self, kind: usize) -> bool {
        let bit = 1_u16.checked_shl(u32::try_from(kind).unwrap_or(u32::MAX)).unwrap_or(0);
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }
}

/// The warnings of a hub that wait to be taken.
#[derive(Debug)]
pub(super) struct Warnings {
    is_strict: bool,
    waiting: VecDeque<(LinkId, Warning)>,
}

impl Warnings {
    pub(super) const fn new(is_strict: bool) -> Self {
        Self { is_strict, waiting: VecDeque::new() }
    }

    /// Takes a breach of `rule` with a warning; the error is for a strict hub to refuse it with.
    #[cold]
    pub(super) fn warn(
        &mut self,
        link: LinkId,
        told: &mut Told,
        rule: Rule,
        comparison: impl FnOnce() -> Option<Comparison>,
    ) -> Result<(), Rule> {
        let mut kinds = KINDS.into_iter().enumerate();
        let Some((kind, (_, refused_if_strict))) = kinds.find(|(_, (known, _))| *known == rule) else {
            return Ok(());
        };
        if self.is_strict && refused_if_strict {
            return Err(rule);
        }
        if told.insert(kind) && self.waiting.len() < WAITING_MAX {
            let warning = Warning { rule, comparison: comparison(), refused_if_strict };
            self.waiting.push_back((link, warning));
        }
        Ok(())
    }
}

impl Hub {
    /// The next warning, and the connection that it is about. Take them after [`authenticate`](Self::authenticate) and
    /// [`handle`](Self::handle); a bounded number waits, and who never asks loses the rest.
    pub fn poll_warning(&mut self) -> Option<(LinkId, Warning)> {
        self.warnings.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    fn link() -> LinkId {
        LinkId(Slab::new().insert(()).expect("there is room"))
    }

    #[test]
    fn a_connection_is_warned_of_each_rule_once() {
        let (mut warnings, mut told, link) = (Warnings::new(false), Told::default(), link());
        for (rule, _) in KINDS.iter().chain(&KINDS) {
            assert_eq!(warnings.warn(link, &mut told, *rule, || None), Ok(()));
        }
        let waiting: alloc::vec::Vec<_> = warnings.waiting.iter().map(|(_, warning)| warning.rule).collect();
        assert_eq!(waiting, KINDS.map(|(rule, _)| rule));
    }

    #[test]
    fn a_strict_hub_refuses_what_the_real_one_may_and_no_more() {
        let (mut warnings, mut told) = (Warnings::new(true), Told::default());
        for (rule, refused) in KINDS {
            assert_eq!(warnings.warn(link(), &mut told, rule, || None).is_err(), refused, "{rule}");
        }
    }

    #[test]
    fn warnings_that_nobody_takes_are_bounded() {
        let mut warnings = Warnings::new(false);
        for _ in 0..10_000 {
            assert_eq!(warnings.warn(link(), &mut Told::default(), Rule::BagSlash, || None), Ok(()));
        }
        assert_eq!(warnings.waiting.len(), WAITING_MAX);
    }

    #[test]
    fn what_a_peer_chose_is_cut() {
        assert_eq!(quoted("é"), "é");
        let cut = quoted(&"é".repeat(1000));
        assert!(cut.ends_with("… (1488 bytes more)") && cut.chars().count() < 300, "{cut}");
    }
}
