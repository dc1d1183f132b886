//! What stands behind WHERE, and whether it holds for a twin.
//!
//! A condition holds, does not hold, or has no answer (`None`): a property that is not there is neither equal to anything
//! nor different from it. What has no answer selects nothing, and neither does its negation; `IS_DEFINED` asks for it.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A property: `tags`, `site`. The first name is one of the twin's own, in any case of letters; the others are exact.
pub(super) type Path = Vec<String>;

/// What a query selects from: one twin.
pub(crate) trait Row {
    /// The value of a property; `None` when there is none.
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>>;
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// All of them hold.
    And(Vec<Condition>),
    /// One of them holds.
    Or(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// Two values compare in this way.
    Compare(Operand, Comparison, Operand),
    /// A value is one of a list.
    In(Operand, Operand),
    /// The value of a function.
    Call(Function, Vec<Operand>),
    /// A value is `true`.
    Is(Operand),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Constant(Value),
    Property(Path),
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

/// The functions of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    IsDefined,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsArray,
    IsObject,
    IsPrimitive,
    StartsWith,
    EndsWith,
    Contains,
}

impl Function {
    /// The function of a name, in any case of letters, and how many arguments it has.
    pub(super) fn of(name: &str) -> Option<(Self, usize)> {
        let function = match name.to_ascii_uppercase().as_str() {
            "IS_DEFINED" => (Self::IsDefined, 1),
            "IS_NULL" => (Self::IsNull, 1),
            "IS_BOOL" => (Self::IsBool, 1),
            "IS_NUMBER" => (Self::IsNumber, 1),
            "IS_STRING" => (Self::IsString, 1),
            "IS_ARRAY" => (Self::IsArray, 1),
            "IS_OBJECT" => (Self::IsObject, 1),
            "IS_PRIMITIVE" => (Self::IsPrimitive, 1),
            "STARTSWITH" | "STARTS_WITH" => (Self::StartsWith, 2),
            "ENDSWITH" | "ENDS_WITH" => (Self::EndsWith, 2),
            "CONTAINS" => (Self::Contains, 2),
            _ => return None,
        };
        Some(function)
    }

    fn answer(self, arguments: &[Operand], row: &dyn Row) -> Option<bool> {
        let first = arguments.first()?.value(row);
        if self == Self::IsDefined {
            return Some(first.is_some());
        }
        let first = first?;
        let texts = || Some((first.as_str()?.to_owned(), arguments.get(1)?.value(row)?.as_str()?.to_owned()));
        match self {
            Self::IsDefined => None,
            Self::IsNull => Some(first.is_null()),
            Self::IsBool => Some(first.is_boolean()),
            Self::IsNumber => Some(first.is_number()),
            Self::IsString => Some(first.is_string()),
            Self::IsArray => Some(first.is_array()),
            Self::IsObject => Some(first.is_object()),
            Self::IsPrimitive => Some(!first.is_array() && !first.is_object()),
            Self::StartsWith => texts().map(|(text, part)| text.starts_with(&part)),
            Self::EndsWith => texts().map(|(text, part)| text.ends_with(&part)),
            Self::Contains => texts().map(|(text, part)| text.contains(&part)),
        }
    }
}

impl Condition {
    /// Whether the condition holds for `row`; `None` when that cannot be said.
    pub(super) fn holds(&self, row: &dyn Row) -> Option<bool> {
        match self {
            Self::And(terms) => terms.iter().try_fold_answer(row, true),
            Self::Or(terms) => terms.iter().try_fold_answer(row, false),
            Self::Not(term) => term.holds(row).map(|holds| !holds),
            Self::Compare(left, comparison, right) => {
                comparison.holds(left.value(row)?.as_ref(), right.value(row)?.as_ref())
            }
            Self::In(value, list) => {
                let (value, list) = (value.value(row)?, list.value(row)?);
                Some(list.as_array()?.iter().any(|one| equal(&value, one)))
            }
            Self::Call(function, arguments) => function.answer(arguments, row),
            Self::Is(operand) => operand.value(row)?.as_bool(),
        }
    }
}

/// Conjunction and disjunction of terms that may have no answer.
trait Answers {
    fn try_fold_answer(self, row: &dyn Row, neutral: bool) -> Option<bool>;
}

impl<'c, I: Iterator<Item = &'c Condition>> Answers for I {
    /// The first term that is not `neutral` decides; else a term without an answer leaves all without one.
    fn try_fold_answer(self, row: &dyn Row, neutral: bool) -> Option<bool> {
        let mut answer = Some(neutral);
        for term in self {
            match term.holds(row) {
                Some(holds) if holds != neutral => return Some(holds),
                Some(_) => {}
                None => answer = None,
            }
        }
        answer
    }
}

impl Operand {
    fn value<'v>(&'v self, row: &'v dyn Row) -> Option<Cow<'v, Value>> {
        match self {
            Self::Constant(value) => Some(Cow::Borrowed(value)),
            Self::Property(path) => row.value(path),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        match self {
            Self::Equal => Some(equal(left, right)),
            Self::NotEqual => Some(!equal(left, right)),
            Self::Less => order(left, right).map(Ordering::is_lt),
            Self::LessOrEqual => order(left, right).map(Ordering::is_le),
            Self::Greater => order(left, right).map(Ordering::is_gt),
            Self::GreaterOrEqual => order(left, right).map(Ordering::is_ge),
        }
    }
}

/// 1 and 1.0 are the same number; otherwise values are equal when their JSON is.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {
            order(left, right) == Some(Ordering::Equal)
        }
        _ => left == right,
    }
}

/// Numbers by their size, times by time, other texts by their characters, false before true. Values of different types,
/// and those that are none of these, have no order.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::String(left), Value::String(right)) => Some(match (time(left), time(right)) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => left.cmp(right),
        }),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// The moment that a text such as `2030-01-31T12:00:00Z` names.
fn time(text: &str) -> Option<OffsetDateTime> {
    let begins_like_one = text.as_bytes().get(10) == Some(&b'T');
    if begins_like_one { OffsetDateTime::parse(text, &Rfc3339).ok() } else { None }
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

    fn property(path: &str) -> Operand {
        Operand::Property(path.split('.').map(str::to_owned).collect())
    }

    fn compare(path: &str, comparison: Comparison, value: Value) -> Condition {
        Condition::Compare(property(path), comparison, Operand::Constant(value))
    }

    #[test]
    fn a_property_that_is_not_there_is_neither_equal_nor_different() {
        let row = json!({"a": null});
        for comparison in [Comparison::Equal, Comparison::NotEqual, Comparison::Less] {
            let condition = compare("b", comparison, json!(1));
            assert_eq!(condition.holds(&row), None);
            assert_eq!(Condition::Not(Box::new(condition.clone())).holds(&row), None);
            let holds = compare("a", Comparison::Equal, Value::Null);
            assert_eq!(Condition::Or(vec![condition.clone(), holds.clone()]).holds(&row), Some(true));
            assert_eq!(Condition::And(vec![condition.clone(), holds.clone()]).holds(&row), None);
            let fails = Condition::Not(Box::new(holds));
            assert_eq!(Condition::And(vec![condition, fails]).holds(&row), Some(false));
        }
        let defined = |path| Condition::Call(Function::IsDefined, vec![property(path)]).holds(&row);
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

    #[test]
    fn functions_ask_for_types_and_parts_of_texts() {
        let row = json!({"a": "abc", "n": 1, "nothing": null});
        let call = |name: &str, path: &str, text: &str| {
            let (function, _) = Function::of(name).unwrap();
            Condition::Call(function, vec![property(path), Operand::Constant(json!(text))]).holds(&row)
        };
        assert_eq!(call("startswith", "a", "ab"), Some(true));
        assert_eq!(call("ENDS_WITH", "a", "ab"), Some(false));
        assert_eq!(call("CONTAINS", "a", "b"), Some(true));
        assert_eq!(call("CONTAINS", "n", "b"), None);
        assert_eq!(call("IS_NULL", "nothing", ""), Some(true));
        assert_eq!(call("IS_STRING", "n", ""), Some(false));
        assert_eq!(call("IS_PRIMITIVE", "n", ""), Some(true));
        assert!(Function::of("DROP").is_none());
    }
}
