//! Expressions, and what they are for one row.
//!
//! An expression may have no value (`None`, *undefined*): a property that is not there is neither equal to anything nor
//! different from it. What is undefined selects nothing, and neither does its negation; `IS_DEFINED` asks for it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::functions::Function;
use super::values::{Operator, equal, order};

/// A property: `tags`, `site`. The first name is one of the twin's own, in any case of letters; the others are exact.
pub(super) type Path = Vec<String>;

/// What a query selects from: one twin.
pub(crate) trait Row {
    /// The value of a property; `None` when there is none.
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>>;
}

/// An expression. What may come in long chains lies side by side, so that only parentheses make it deep.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Constant(Value),
    /// `undefined`.
    Undefined,
    Property(Path),
    /// Elements of lists below a property, each with what is asked of it: `$body.a[0].b[1]`.
    Element(Path, Vec<(usize, Path)>),
    /// All of them hold.
    And(Vec<Expression>),
    /// One of them holds.
    Or(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// Two values compare in this way.
    Compare(Box<(Expression, Expression)>, Comparison),
    /// A value is one of a list.
    In(Box<(Expression, Expression)>),
    /// From left to right.
    Chain(Box<Expression>, Vec<(Operator, Expression)>),
    /// The value of a function.
    Call(Function, Vec<Expression>),
}

/// `=`, `!=` and `<>`, `<`, `<=`, `>`, `>=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Expression {
    /// Whether the expression is true for `row`; `None` when that cannot be said.
    pub(super) fn holds(&self, row: &dyn Row) -> Option<bool> {
        match self {
            Self::And(terms) => all_but(true, terms, row),
            Self::Or(terms) => all_but(false, terms, row),
            Self::Not(term) => term.holds(row).map(|holds| !holds),
            Self::Compare(sides, comparison) => {
                comparison.holds(sides.0.value(row)?.as_ref(), sides.1.value(row)?.as_ref())
            }
            Self::In(sides) => {
                let (value, list) = (sides.0.value(row)?, sides.1.value(row)?);
                Some(list.as_array()?.iter().any(|one| equal(&value, one) == Some(true)))
            }
            Self::Constant(_)
            | Self::Undefined
            | Self::Property(_)
            | Self::Element(..)
            | Self::Chain(..)
            | Self::Call(..) => self.value(row)?.as_bool(),
        }
    }

    /// What the expression is for `row`; `None` when it is undefined.
    pub(super) fn value<'v>(&'v self, row: &'v dyn Row) -> Option<Cow<'v, Value>> {
        match self {
            Self::Constant(value) => Some(Cow::Borrowed(value)),
            Self::Undefined => None,
            Self::Property(path) => row.value(path),
            Self::Element(path, steps) => match row.value(path)? {
                Cow::Borrowed(value) => element(value, steps).map(Cow::Borrowed),
                Cow::Owned(value) => element(&value, steps).cloned().map(Cow::Owned),
            },
            Self::Chain(first, rest) => {
                let mut value = first.value(row)?;
                for (operator, operand) in rest {
                    value = Cow::Owned(operator.apply(&value, operand.value(row)?.as_ref())?);
                }
                Some(value)
            }
            Self::Call(function, arguments) => {
                let values: Vec<_> = arguments.iter().map(|argument| argument.value(row)).collect();
                let values: Vec<Option<&Value>> = values.iter().map(Option::as_deref).collect();
                function.apply(&values).map(Cow::Owned)
            }
            Self::And(_) | Self::Or(_) | Self::Not(_) | Self::Compare(..) | Self::In(_) => {
                self.holds(row).map(|holds| Cow::Owned(holds.into()))
            }
        }
    }
}

impl Expression {
    /// The properties that it reads, as they are written, each with its value for `row`; in the order of their first mention.
    pub(super) fn readings(&self, row: &dyn Row, readings: &mut Vec<(String, Option<Value>)>) {
        match self {
            Self::Constant(_) | Self::Undefined => {}
            Self::Property(_) | Self::Element(..) => {
                let text = self.property_text();
                if readings.iter().all(|(known, _)| *known != text) {
                    readings.push((text, self.value(row).map(Cow::into_owned)));
                }
            }
            Self::Not(term) => term.readings(row, readings),
            Self::Compare(sides, _) | Self::In(sides) => {
                sides.0.readings(row, readings);
                sides.1.readings(row, readings);
            }
            Self::Chain(first, rest) => {
                first.readings(row, readings);
                rest.iter().for_each(|(_, operand)| operand.readings(row, readings));
            }
            Self::And(terms) | Self::Or(terms) | Self::Call(_, terms) => {
                terms.iter().for_each(|term| term.readings(row, readings));
            }
        }
    }

    /// A property as it is written; nothing for other expressions.
    fn property_text(&self) -> String {
        match self {
            Self::Property(path) => path.join("."),
            Self::Element(path, steps) => {
                let step = |(index, path): &(usize, Path)| {
                    let names: String = path.iter().map(|name| format!(".{name}")).collect();
                    format!("[{index}]{names}")
                };
                path.join(".") + &steps.iter().map(step).collect::<String>()
            }
            _ => String::new(),
        }
    }

    /// The device ids that a row must have one of, where the expression says so: no other row needs to be looked at.
    pub(super) fn device_ids(&self) -> Option<BTreeSet<String>> {
        let is_id = |side: &Self| matches!(side, Self::Property(path) if matches!(path.as_slice(), [name] if name.eq_ignore_ascii_case("deviceId")));
        match self {
            Self::And(terms) => terms.iter().find_map(Self::device_ids),
            Self::Compare(sides, Comparison::Equal) => {
                let (left, right) = &**sides;
                let value = if is_id(left) { right } else { Some(left).filter(|_| is_id(right))? };
                let Self::Constant(value) = value else { return None };
                Some(BTreeSet::from([plain_text(value)?]))
            }
            Self::In(sides) if is_id(&sides.0) => {
                let Self::Constant(Value::Array(values)) = &sides.1 else { return None };
                values.iter().map(plain_text).collect()
            }
            _ => None,
        }
    }
}

/// What is below a value.
pub(super) fn below<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

fn element<'v>(value: &'v Value, steps: &[(usize, Path)]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, (index, path)| below(value.get(index)?, path))
}

/// A text that equals no other one, as two that name the same moment do.
fn plain_text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| text.as_bytes().get(10) != Some(&b'T')).map(str::to_owned)
}

/// The first term that is not `neutral` decides; else an undefined term leaves all undefined.
fn all_but(neutral: bool, terms: &[Expression], row: &dyn Row) -> Option<bool> {
    let mut answer = Some(neutral);
    for term in terms {
        match term.holds(row) {
            Some(holds) if holds != neutral => return Some(holds),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        match self {
            Self::Equal => equal(left, right),
            Self::NotEqual => equal(left, right).map(|equal| !equal),
            Self::Less => order(left, right).map(Ordering::is_lt),
            Self::LessOrEqual => order(left, right).map(Ordering::is_le),
            Self::Greater => order(left, right).map(Ordering::is_gt),
            Self::GreaterOrEqual => order(left, right).map(Ordering::is_ge),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    impl Row for Value {
        fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
            path.iter().try_fold(self, |value, name| value.get(name)).map(Cow::Borrowed)
        }
    }

    fn property(path: &str) -> Expression {
        Expression::Property(path.split('.').map(str::to_owned).collect())
    }

    fn compare(path: &str, comparison: Comparison, value: Value) -> Expression {
        Expression::Compare(Box::new((property(path), Expression::Constant(value))), comparison)
    }

    #[test]
    fn a_property_that_is_not_there_is_neither_equal_nor_different() {
        let row = json!({"a": null});
        for comparison in [Comparison::Equal, Comparison::NotEqual, Comparison::Less] {
            let condition = compare("b", comparison, json!(1));
            assert_eq!(condition.holds(&row), None);
            assert_eq!(Expression::Not(Box::new(condition.clone())).holds(&row), None);
            let holds = compare("a", Comparison::Equal, Value::Null);
            assert_eq!(Expression::Or(vec![condition.clone(), holds.clone()]).holds(&row), Some(true));
            assert_eq!(Expression::And(vec![condition.clone(), holds.clone()]).holds(&row), None);
            let fails = Expression::Not(Box::new(holds));
            assert_eq!(Expression::And(vec![condition, fails]).holds(&row), Some(false));
        }
        let defined = |path| Expression::Call(Function::IsDefined, vec![property(path)]).holds(&row);
        assert_eq!((defined("a"), defined("b")), (Some(true), Some(false)));
    }

    #[test]
    fn values_compare_with_their_own_kind() {
        use Comparison::{Equal, Greater, Less, NotEqual};
        let row = json!({"n": 2, "t": "b", "z": "2030-01-01T00:00:00.500Z", "f": false, "o": {"x": [1, 2]}});
        for (path, comparison, value, holds) in [
            ("n", Equal, json!(2.0), Some(true)),
            ("n", Greater, json!(1.5), Some(true)),
            ("n", Equal, json!("2"), Some(false)),
            ("n", NotEqual, json!(null), Some(true)),
            ("n", Less, json!("3"), None),
            ("t", Greater, json!("a"), Some(true)),
            ("z", Greater, json!("2030-01-01T00:00:00Z"), Some(true)),
            ("z", Equal, json!("2030-01-01T01:00:00.5+01:00"), Some(true)),
            ("f", Less, json!(true), Some(true)),
            ("o", Equal, json!({"x": [1, 2]}), None),
            ("o.x", Equal, json!([1, 2]), Some(true)),
            ("o.x", Less, json!([1, 3]), None),
        ] {
            assert_eq!(
                compare(path, comparison, value.clone()).holds(&row),
                holds,
                "{path} {comparison:?} {value}"
            );
        }
    }
}
