//! What a person at the command line is told when something cannot be done.

use std::fmt;

/// Why something failed and what to do next; shown as two lines.
///
/// The errors of libraries end here: they are for the person who typed the command, and no caller tells them apart.
#[derive(Debug)]
pub struct Failure {
    cause: String,
    next: String,
}

impl Failure {
    /// A failure with its cause and the next step, each a sentence without a full stop.
    #[must_use]
    pub fn new(cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { cause: cause.into(), next: next.into() }
    }

    /// What is in the way.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do about it.
    #[must_use]
    pub fn next(&self) -> &str {
        &self.next
    }
}

/// `{cause}`, and on a second line `next: {next step}`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  next: {}", self.cause, self.next)
    }
}

impl std::error::Error for Failure {}
