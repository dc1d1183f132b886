//! Costs as a table in Markdown.

use std::fmt;

use super::codecs::Kind;
use super::measure::Cost;

/// Peer and workload: it leaves out part of the work, and is not compared with. embedded-mqtt takes the payload of a
/// CONNECT, which is most of it, as bytes.
const LEAVES_OUT: [(&str, &str); 1] = [("embedded-mqtt", "connect")];

/// One row per workload, one column per contender; then how we stand to the best peer and to the first limit.
pub(crate) struct Table {
    title: &'static str,
    columns: Vec<(&'static str, Kind)>,
    rows: Vec<(&'static str, Vec<Cost>)>,
}

impl Table {
    pub(crate) fn new(title: &'static str, columns: impl Into<Vec<(&'static str, Kind)>>) -> Self {
        Self { title, columns: columns.into(), rows: Vec::new() }
    }

    /// `costs` are in the order of the columns.
    pub(crate) fn add(&mut self, workload: &'static str, costs: &[Cost]) {
        self.rows.push((workload, costs.to_vec()));
    }

    fn of_kind<'c>(
        &self,
        kind: Kind,
        workload: &'static str,
        costs: &'c [Cost],
    ) -> impl Iterator<Item = &'c Cost> + use<'_, 'c> {
        let columns =
            self.columns.iter().zip(costs).filter(move |((name, column), _)| {
                *column == kind && !LEAVES_OUT.contains(&(*name, workload))
            });
        columns.map(|(_, cost)| cost)
    }

    fn ratio(one: Option<&Cost>, other: Option<&Cost>) -> String {
        match (one, other) {
            (Some(one), Some(other)) => format!("{:.2}", one.nanoseconds / other.nanoseconds),
            _ => "–".to_owned(),
        }
    }

    fn allocations(cost: Option<&Cost>) -> String {
        cost.map_or("–".to_owned(), |cost| format!("{:.0}", cost.allocations))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} |", self.title)?;
        for (name, kind) in &self.columns {
            write!(f, " {}{name} |", if *kind == Kind::Limit { "= " } else { "" })?;
        }
        writeln!(f, " best peer / us | us / limit | allocations: us, best peer |")?;
        writeln!(f, "|---|{}", "--:|".repeat(self.columns.len() + 3))?;
        for (workload, costs) in &self.rows {
            write!(f, "| {workload} |")?;
            for cost in costs {
                let decimals = usize::from(cost.nanoseconds < 100.0);
                write!(f, " {:.decimals$} |", cost.nanoseconds)?;
            }
            let us = self.of_kind(Kind::Us, workload, costs).next();
            let peers = self.of_kind(Kind::Peer, workload, costs);
            let peer = peers.min_by(|one, other| one.nanoseconds.total_cmp(&other.nanoseconds));
            let limit = self.of_kind(Kind::Limit, workload, costs).next();
            let (ahead, off) = (Self::ratio(peer, us), Self::ratio(us, limit));
            writeln!(f, " {ahead} | {off} | {}, {} |", Self::allocations(us), Self::allocations(peer))?;
        }
        Ok(())
    }
}
