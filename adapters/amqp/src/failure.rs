//! An error as it goes to a client: condition, description, info.

use alloc::borrow::Cow;

use crate::{Condition, Rule};

/// A value of an error's info map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info<'a> {
    /// A string.
    Text(&'a str),
    /// An int.
    Int(i32),
}

/// An error as it goes to a client (AMQP 1.0 §2.8.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// What programs read.
    pub condition: Condition,
    /// What people read; cut to [`DESCRIPTION_MAX`](crate::limits::DESCRIPTION_MAX) bytes on the wire.
    pub description: Cow<'a, str>,
    /// The info map, with symbols as keys.
    pub info: &'a [(&'a str, Info<'a>)],
}

impl<'a> Failure<'a> {
    /// An error without an info map.
    #[must_use]
    pub fn new(condition: Condition, description: impl Into<Cow<'a, str>>) -> Self {
        Self { condition, description: description.into(), info: &[] }
    }

    /// The breach of a rule: the text says the rule and the fix.
    #[must_use]
    pub fn of(rule: Rule) -> Self {
        Self::new(rule.condition(), alloc::format!("{}: {}; fix: {}", rule.id(), rule.says(), rule.fix()))
    }
}
