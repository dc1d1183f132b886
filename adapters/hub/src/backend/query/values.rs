//! How values compare, and what comes of calculating with them.

use std::cmp::Ordering;

use serde_json::{Number, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `+ - * / %`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    /// Numbers alone can be calculated with. Whole numbers are exact; a division by zero, and what is larger than any number,
    /// is undefined.
    pub(super) fn apply(self, left: &Value, right: &Value) -> Option<Value> {
        let (left, right) = (left.as_number()?, right.as_number()?);
        if let (Some(left), Some(right)) = (left.as_i128(), right.as_i128()) {
            let exact = match self {
                Self::Add => left.checked_add(right),
                Self::Subtract => left.checked_sub(right),
                Self::Multiply => left.checked_mul(right),
                Self::Divide => {
                    left.checked_div(right).filter(|quotient| quotient.saturating_mul(right) == left)
                }
                Self::Remainder => left.checked_rem(right),
            };
            if let Some(exact) = exact {
                return Some(number_of(exact));
            }
        }
        let (left, right) = (left.as_f64()?, right.as_f64()?);
        of_f64(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        })
    }
}

/// A whole number; one that JSON's integers do not reach becomes the nearest that there is.
pub(super) fn number_of(whole: i128) -> Value {
    match (i64::try_from(whole), u64::try_from(whole)) {
        (Ok(small), _) => small.into(),
        (_, Ok(large)) => large.into(),
        #[expect(clippy::cast_precision_loss, reason = "the nearest number is what is wanted")]
        _ => Number::from_f64(whole as f64).map_or(Value::Null, Value::Number),
    }
}

/// A number that was calculated, written as a whole one where it is; `None` for what is no number.
pub(super) fn of_f64(number: f64) -> Option<Value> {
    /// Up to here every whole number has a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
        return Some((number as i64).into());
    }
    Number::from_f64(number).map(Value::Number)
}

/// 1 and 1.0 are the same number; texts that name the same moment are equal. Objects are neither equal nor different.
pub(super) fn equal(left: &Value, right: &Value) -> Option<bool> {
    match (left, right) {
        (Value::Object(_), Value::Object(_)) => None,
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {
            Some(order(left, right) == Some(Ordering::Equal))
        }
        _ => Some(left == right),
    }
}

/// Numbers by their size, times by time, other texts by their characters, false before true. Values of different types,
/// and those that are none of these, have no order.
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i128(), right.as_i128()) {
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
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_are_exact_and_nothing_overflows() {
        use Operator::{Add, Divide, Multiply, Remainder, Subtract};
        for (left, operator, right, expected) in [
            (json!(i64::MAX), Add, json!(1), Some(json!(9_223_372_036_854_775_808_u64))),
            (json!(u64::MAX), Multiply, json!(u64::MAX), Some(json!(3.402_823_669_209_385e38))),
            (json!(7), Divide, json!(2), Some(json!(3.5))),
            (json!(8), Divide, json!(2), Some(json!(4))),
            (json!(7), Remainder, json!(4), Some(json!(3))),
            (json!(1.5), Subtract, json!(0.5), Some(json!(1))),
            (json!(1), Divide, json!(0), None),
            (json!(1), Remainder, json!(0), None),
            (json!(f64::MAX), Multiply, json!(2), None),
            (json!("1"), Add, json!(1), None),
            (json!(null), Add, json!(1), None),
        ] {
            assert_eq!(operator.apply(&left, &right), expected, "{left} {operator:?} {right}");
        }
    }

    #[test]
    fn objects_are_neither_equal_nor_different() {
        assert_eq!(equal(&json!({"a": 1}), &json!({"a": 1})), None);
        assert_eq!(equal(&json!({"a": 1}), &json!(1)), Some(false));
        assert_eq!(equal(&json!([1, 2]), &json!([1, 2])), Some(true));
    }
}
