//! The condition of a route: the same expressions as behind WHERE, over a message in place of a twin, with elements of lists.

use serde_json::Value;

use super::QueryError;
use super::expression::{Expression, Row};
use super::parser::Parser;

/// A condition over messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition(Expression);

impl Condition {
    /// Reads an expression such as `level = 'storm' AND $body.wind[0].speed > 12`.
    ///
    /// # Errors
    /// [`QueryError`] with the place of the first character that does not fit.
    pub(crate) fn read(text: &str) -> Result<Self, QueryError> {
        let mut parser = Parser::new(text)?;
        parser.has_elements = true;
        let expression = parser.expression()?;
        parser.expect_end()?;
        Ok(Self(expression))
    }

    /// Whether it is true for `row`; `None` when it is undefined, null, or no truth value: for a route that is false.
    pub(crate) fn holds(&self, row: &dyn Row) -> Option<bool> {
        self.0.holds(row)
    }

    /// The properties that it reads, as they are written, each with its value for `row`.
    pub(crate) fn readings(&self, row: &dyn Row) -> Vec<(String, Option<Value>)> {
        let mut readings = Vec::new();
        self.0.readings(row, &mut readings);
        readings
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn holds(text: &str) -> Option<bool> {
        let row = json!({"a": {"b": [{"c": 1}, [2, 3]]}, "level": "storm", "none": null});
        Condition::read(text).unwrap_or_else(|error| panic!("{text}: {error}")).holds(&row)
    }

    #[test]
    fn an_element_of_a_list_is_named_by_its_number() {
        for (text, expected) in [
            ("a.b[0].c = 1", Some(true)),
            ("a.b[1][1] = 3", Some(true)),
            ("a.b[2] = 3", None),
            ("a.b[0][0] = 3", None),
            ("a[0] = 1", None),
            ("level[0] = 's'", None),
            ("level IN ['storm', 'calm'] AND a.b[1][0] + 1 = 3", Some(true)),
            ("none", None),
            ("level", None),
            ("true", Some(true)),
        ] {
            assert_eq!(holds(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, at, said) in [
            ("", 1, "expected a property, found the end"),
            ("a = 1 b", 7, "expected the end, found `b`"),
            ("a[x] = 1", 3, "expected the number of an element, from 0, found `x`"),
            ("a[0 = 1", 5, "expected `]`, found `=`"),
            ("a[-1] = 1", 3, "number of an element"),
            ("NOPE(a)", 1, "there is no function NOPE"),
            ("a = 'open", 5, "no closing"),
        ] {
            let error = Condition::read(text).unwrap_err();
            assert!(error.at() == at && error.message().contains(said), "{text}: {error}");
        }
        let deep = format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(Condition::read(&deep[..8_000]).unwrap_err().message().contains("levels of parentheses"));
        assert!(
            Condition::read(&"a ".repeat(5_000)).unwrap_err().message().contains("at most 8192 characters")
        );
    }

    #[test]
    fn every_property_is_told_once_with_its_value() {
        let row = json!({"a": {"b": [7]}});
        let condition = Condition::read("NOT (a.b[0] > 1 OR LENGTH(c.d) = 2 OR c.d + a.b[0] < 1)").unwrap();
        assert_eq!(
            condition.readings(&row),
            [("a.b[0]".to_owned(), Some(json!(7))), ("c.d".to_owned(), None)]
        );
    }

    proptest! {
        /// No text makes the reader or the evaluation panic, and an error is about a place in the text or right after it.
        #[test]
        fn any_text_is_a_condition_or_an_error_with_a_place(
            text in r#"([a-c$.]{1,3}|[0-9]{1,2}|\[|\]|[()=<>,+*/%-]|'[a-z]*'|"|AND |OR |NOT |IN |ABS| |\PC){0,24}"#
        ) {
            match Condition::read(&text) {
                Ok(condition) => { let _ = (condition.holds(&json!({"a": [1]})), condition.readings(&json!({}))); }
                Err(error) => prop_assert!((1..=text.chars().count() + 1).contains(&error.at()), "{text}: {error}"),
            }
        }
    }
}
