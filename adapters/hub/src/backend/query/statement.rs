//! What a query asks for.

use super::expression::{Expression, Path};

/// A query as it is carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    /// At most so many rows.
    pub(super) top: Option<u64>,
    pub(super) select: Select,
    pub(super) from: Collection,
    pub(super) filter: Option<Expression>,
    pub(super) group_by: Vec<Path>,
}

/// What each row of the answer holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Select {
    /// The whole twin.
    All,
    /// These, each under a name.
    Items(Vec<Item>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// The character where it begins, from 1.
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Property(Path),
    /// What comes of the values that an expression has in all rows of a group; of the rows themselves where there is none.
    Aggregate(Aggregate, Option<Expression>),
}

/// What is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collection {
    Devices,
    Modules,
    /// What jobs did with devices.
    Jobs,
}

impl Query {
    /// Whether rows stand for groups of twins.
    pub(super) fn is_aggregate(&self) -> bool {
        let gathers = |select: &Select| match select {
            Select::All => false,
            Select::Items(items) => items.iter().any(|item| matches!(item.what, What::Aggregate(..))),
        };
        !self.group_by.is_empty() || gathers(&self.select)
    }
}

/// What is made of the values of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// How many rows there are.
    Count,
    /// The sum of the numbers.
    Sum,
    /// Their mean.
    Average,
    /// The least of the values.
    Least,
    /// The greatest of them.
    Greatest,
}

impl Aggregate {
    /// As the language calls them, for the texts of errors.
    pub(super) const NAMES: [&'static str; 5] = ["COUNT()", "SUM()", "AVG()", "MIN()", "MAX()"];

    /// The aggregate of a name, in any case of letters.
    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::Count, Self::Sum, Self::Average, Self::Least, Self::Greatest]
            .into_iter()
            .find(|aggregate| aggregate.name().eq_ignore_ascii_case(name))
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::Sum => "SUM",
            Self::Average => "AVG",
            Self::Least => "MIN",
            Self::Greatest => "MAX",
        }
    }
}
