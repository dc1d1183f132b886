//! What a row found, beside what it was to find.

use std::fmt;
use std::time::Duration;

/// The figures of one row.
pub(crate) struct Report {
    row: &'static str,
    fault: &'static str,
    lines: Vec<Line>,
    took: Duration,
}

struct Line {
    what: String,
    measured: String,
    /// What was to be met; none where a figure only says how hard the attack was.
    criterion: Option<Criterion>,
}

struct Criterion {
    text: String,
    is_met: bool,
}

impl Report {
    pub(crate) fn new(row: &'static str, fault: &'static str) -> Self {
        Self { row, fault, lines: Vec::new(), took: Duration::ZERO }
    }

    /// A figure that has to meet a criterion.
    pub(crate) fn check(
        &mut self,
        what: impl fmt::Display,
        measured: impl fmt::Display,
        criterion: impl fmt::Display,
        is_met: bool,
    ) {
        let criterion = Some(Criterion { text: criterion.to_string(), is_met });
        self.lines.push(Line { what: what.to_string(), measured: measured.to_string(), criterion });
    }

    /// A time that may be so long at most.
    pub(crate) fn at_most(&mut self, what: impl fmt::Display, measured: Duration, bound: Duration) {
        self.check(what, Millis(measured), format!("at most {}", Millis(bound)), measured <= bound);
    }

    /// Memory that may be so much at most.
    pub(crate) fn memory(&mut self, what: impl fmt::Display, measured: Kib, bound: Kib) {
        self.check(what, measured, format!("at most {bound}"), measured <= bound);
    }

    /// A count that has to be this one.
    pub(crate) fn exactly(&mut self, what: impl fmt::Display, measured: usize, expected: usize) {
        self.check(what, measured, format!("exactly {expected}"), measured == expected);
    }

    /// A figure that says how hard the attack was.
    pub(crate) fn note(&mut self, what: impl fmt::Display, measured: impl fmt::Display) {
        self.lines.push(Line { what: what.to_string(), measured: measured.to_string(), criterion: None });
    }

    pub(crate) const fn took(&mut self, time: Duration) {
        self.took = time;
    }

    pub(crate) fn is_good(&self) -> bool {
        self.lines.iter().filter_map(|line| line.criterion.as_ref()).all(|criterion| criterion.is_met)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good() { "good" } else { "MISSED" };
        writeln!(f, "\n{:4} {} — {verdict}, {:.1} s", self.row, self.fault, self.took.as_secs_f64())?;
        for Line { what, measured, criterion } in &self.lines {
            write!(f, "     {what:46} {measured:30}")?;
            match criterion {
                Some(Criterion { text, is_met: true }) => writeln!(f, " {text}")?,
                Some(Criterion { text, is_met: false }) => writeln!(f, " {text}   ◀── MISSED")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kib(pub(crate) u64);

impl Kib {
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count * 1024)
    }

    pub(crate) const fn plus(self, more: u64) -> Self {
        Self(self.0 + more)
    }

    pub(crate) const fn beyond(self, before: Self) -> Self {
        Self(self.0.saturating_sub(before.0))
    }
}

impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded as a whole.
        f.pad(&format!("{} KiB", self.0))
    }
}

/// A time, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Millis(pub(crate) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1000.0;
        // Three digits tell.
        let digits = if millis < 1.0 {
            3
        } else if millis < 100.0 {
            1
        } else {
            0
        };
        f.pad(&format!("{millis:.digits$} ms"))
    }
}

/// Times, in order once they are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of all is not longer than; zero where there is none.
    pub(crate) fn at(&mut self, share: f64) -> Duration {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        // Rounded up, so that 0.99 of few times is the longest one.
        let index = (share * last as f64).ceil() as usize;
        self.0.get(index.min(last)).copied().unwrap_or_default()
    }

    pub(crate) fn median(&mut self) -> Duration {
        self.at(0.5)
    }

    pub(crate) fn shortest(&mut self) -> Duration {
        self.at(0.0)
    }

    pub(crate) fn longest(&mut self) -> Duration {
        self.at(1.0)
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}
