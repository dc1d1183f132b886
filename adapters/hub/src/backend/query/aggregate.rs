//! Groups of twins, and what is made of their values.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::expression::Row;
use super::statement::{Aggregate, Item, Query, Select, What};
use super::values::{Operator, order};

/// Groups that an answer may have; they come on one page.
pub(super) const GROUPS_MAX: usize = 1000;

/// Groups under the JSON of the values that their rows have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups(BTreeMap<String, Group>);

#[derive(Clone, Debug)]
struct Group {
    /// What is grouped by; `None` where a row has no such property.
    common: Vec<Option<Value>>,
    /// One for each column of the query.
    totals: Vec<Total>,
}

/// What is known of the values of one column so far.
#[derive(Clone, Debug, Default)]
struct Total {
    count: u64,
    /// The sum, or the least or greatest value; `None` before the first.
    value: Option<Value>,
}

impl Groups {
    /// Whether there are more groups than an answer may have.
    pub(super) fn is_too_many(&self) -> bool {
        self.0.len() > GROUPS_MAX
    }

    /// Takes a row into its group.
    pub(super) fn add(&mut self, query: &Query, row: &dyn Row) {
        let Select::Items(items) = &query.select else { return };
        let common: Vec<Option<Value>> =
            query.group_by.iter().map(|path| row.value(path).map(|value| value.into_owned())).collect();
        let key: String = common
            .iter()
            .map(|value| value.as_ref().map_or("-,".to_owned(), |value| format!("{value},")))
            .collect();
        let group = self.0.entry(key).or_insert_with(|| Group::new(common, items));
        for (item, total) in items.iter().zip(&mut group.totals) {
            let What::Aggregate(aggregate, of) = &item.what else { continue };
            match of {
                None => total.count = total.count.saturating_add(1),
                Some(expression) => {
                    if let Some(value) = expression.value(row) {
                        total.gather(*aggregate, 1, &value);
                    }
                }
            }
        }
    }

    /// Takes the groups of another part of the hub in.
    pub(super) fn merge(&mut self, query: &Query, others: Self) {
        let Select::Items(items) = &query.select else { return };
        for (key, other) in others.0 {
            let group = self.0.entry(key).or_insert_with(|| Group::new(other.common, items));
            for ((item, total), other) in items.iter().zip(&mut group.totals).zip(other.totals) {
                match (&item.what, other.value) {
                    (What::Aggregate(aggregate, _), Some(value)) => {
                        total.gather(*aggregate, other.count, &value)
                    }
                    _ => total.count = total.count.saturating_add(other.count),
                }
            }
        }
    }

    /// The rows of the answer. A query without GROUP BY has one in any case.
    pub(super) fn rows(mut self, query: &Query) -> Vec<String> {
        let Select::Items(items) = &query.select else { return Vec::new() };
        if self.0.is_empty() && query.group_by.is_empty() {
            self.0.insert(String::new(), Group::new(Vec::new(), items));
        }
        let top = query.top.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX);
        self.0.into_values().take(top).map(|group| group.row(query, items)).collect()
    }
}

impl Group {
    fn new(common: Vec<Option<Value>>, items: &[Item]) -> Self {
        Self { common, totals: items.iter().map(|_| Total::default()).collect() }
    }

    fn row(&self, query: &Query, items: &[Item]) -> String {
        let member = |(item, total): (&Item, &Total)| {
            let value = match &item.what {
                What::Aggregate(aggregate, _) => total.result(*aggregate)?,
                What::Property(path) => {
                    let place = query.group_by.iter().position(|grouped| grouped == path)?;
                    self.common.get(place)?.clone()?
                }
            };
            Some((item.name.clone(), value))
        };
        Value::Object(items.iter().zip(&self.totals).filter_map(member).collect::<Map<_, _>>()).to_string()
    }
}

impl Total {
    /// Takes what was gathered of so many values in. What has no order, and for sums and means what is no number, is passed
    /// over.
    fn gather(&mut self, aggregate: Aggregate, count: u64, value: &Value) {
        let gathered = match (aggregate, &self.value) {
            (Aggregate::Count, _) => None,
            (Aggregate::Sum | Aggregate::Average, None) => value.is_number().then(|| value.clone()),
            (Aggregate::Sum | Aggregate::Average, Some(sum)) => Operator::Add.apply(sum, value),
            (Aggregate::Least | Aggregate::Greatest, None) => rank(value).map(|_| value.clone()),
            (Aggregate::Least | Aggregate::Greatest, Some(best)) => {
                let wanted = if aggregate == Aggregate::Least { Ordering::Less } else { Ordering::Greater };
                let compared = rank(value).map(|own| {
                    own.cmp(&rank(best).unwrap_or(own))
                        .then_with(|| order(value, best).unwrap_or(Ordering::Equal))
                });
                (compared == Some(wanted)).then(|| value.clone())
            }
        };
        if let Some(gathered) = gathered {
            self.count = self.count.saturating_add(count);
            self.value = Some(gathered);
        }
    }

    /// `None` where there was no value: the column is left out then, as a property that is not there.
    fn result(&self, aggregate: Aggregate) -> Option<Value> {
        match aggregate {
            Aggregate::Count => Some(self.count.into()),
            Aggregate::Sum | Aggregate::Least | Aggregate::Greatest => self.value.clone(),
            Aggregate::Average => Operator::Divide.apply(self.value.as_ref()?, &self.count.into()),
        }
    }
}

/// Of values of several kinds, each has its place: numbers, then texts, then false and true.
fn rank(value: &Value) -> Option<u8> {
    match value {
        Value::Number(_) => Some(0),
        Value::String(_) => Some(1),
        Value::Bool(_) => Some(2),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse::parse;
    use super::*;

    /// The rows for twins that are spread over two parts of the hub.
    fn rows(text: &str, twins: &[Value]) -> Vec<Value> {
        let query = parse(text).unwrap();
        let mut all = Groups::default();
        for half in twins.chunks(twins.len().div_ceil(2).max(1)) {
            let mut groups = Groups::default();
            half.iter().for_each(|twin| groups.add(&query, twin));
            all.merge(&query, groups);
        }
        all.rows(&query).iter().map(|row| serde_json::from_str(row).unwrap()).collect()
    }

    #[test]
    fn each_aggregate_is_of_the_whole_group_wherever_its_twins_are() {
        let twin = |site: &str, load: Value| json!({"tags": {"site": site, "load": load}});
        let twins = [
            twin("a", json!(1)),
            twin("b", json!(10)),
            twin("a", json!(2.5)),
            twin("a", json!("heavy")),
            twin("b", json!({"x": 1})),
            twin("a", json!(null)),
        ];
        let text = "SELECT tags.site, COUNT() AS n, SUM(tags.load) AS sum, AVG(tags.load) AS mean, MIN(tags.load) AS least, \
                    MAX(tags.load * 1) AS most FROM devices GROUP BY tags.site";
        assert_eq!(
            rows(text, &twins),
            [
                json!({"site": "a", "n": 4, "sum": 3.5, "mean": 1.75, "least": 1, "most": 2.5}),
                json!({"site": "b", "n": 2, "sum": 10, "mean": 10, "least": 10, "most": 10}),
            ]
        );
    }

    #[test]
    fn times_and_texts_have_a_least_and_a_greatest_but_no_sum() {
        let twins = [
            json!({"t": "2030-01-01T00:00:00+02:00"}),
            json!({"t": "2029-12-31T23:00:00Z"}),
            json!({"t": "2030-01-01T00:00:00Z"}),
        ];
        assert_eq!(
            rows("SELECT MIN(t), MAX(t), SUM(t), AVG(t) FROM devices", &twins),
            [json!({"min": "2030-01-01T00:00:00+02:00", "max": "2030-01-01T00:00:00Z"})]
        );
    }

    #[test]
    fn of_no_twins_there_is_one_row_unless_they_are_grouped() {
        assert_eq!(rows("SELECT COUNT(), AVG(a) FROM devices", &[]), [json!({"count": 0})]);
        assert_eq!(rows("SELECT a, COUNT() FROM devices GROUP BY a", &[]), Vec::<Value>::new());
    }
}
