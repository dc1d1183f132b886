//! A query from its text.
//!
//! ```text
//! query     = SELECT [TOP number] select FROM collection [WHERE or] [GROUP BY path {, path}]
//! select    = "*" | item {, item}
//! item      = (path | COUNT "(" ["*"] ")" | (AVG | SUM | MIN | MAX) "(" or ")") [AS name]
//! collection = devices | devices.modules | devices.jobs, from which all columns are selected
//! ```
//! `or` and `path` are in [`terms`](super::terms). Keywords and functions are read in any case of letters.

use super::QueryError;
use super::lexer::Token;
use super::parser::Parser;
use super::statement::{Aggregate, Collection, Item, Query, Select, What};

/// Reads a query.
///
/// # Errors
/// [`QueryError`] with the place of the first character that does not fit.
pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    parse_from(text, twins)
}

/// As [`parse`], of a query that selects from one of `collections` in place of twins.
///
/// # Errors
/// As for [`parse`].
pub(super) fn parse_over(text: &str, collections: &[&str]) -> Result<Query, QueryError> {
    parse_from(text, |parser| {
        let is_one = collections.iter().any(|name| parser.take_keyword(name));
        if is_one { Ok(Collection::Devices) } else { Err(parser.wrong(&collections.join(" or "))) }
    })
}

fn parse_from(
    text: &str,
    collection: impl Fn(&mut Parser) -> Result<Collection, QueryError>,
) -> Result<Query, QueryError> {
    let mut parser = Parser::new(text)?;
    parser.expect_keyword("SELECT")?;
    let top = if parser.take_keyword("TOP") { Some(row_count(&mut parser)?) } else { None };
    let select = if parser.take_symbol("*") { Select::All } else { Select::Items(parser.list(item)?) };
    parser.expect_keyword("FROM")?;
    let from = collection(&mut parser)?;
    let filter = if parser.take_keyword("WHERE") { Some(parser.expression()?) } else { None };
    let mut group_by = Vec::new();
    let mut grouped_at = 1;
    if parser.take_keyword("GROUP") {
        parser.expect_keyword("BY")?;
        grouped_at = parser.at();
        group_by = parser.list(Parser::path)?;
    }
    parser.expect_end()?;
    let query = Query { top, select, from, filter, group_by };
    check_aggregation(&query, grouped_at)?;
    Ok(query)
}

fn item(parser: &mut Parser) -> Result<Item, QueryError> {
    let at = parser.at();
    let path = parser.path()?;
    let (own_name, what) = if parser.take_symbol("(") {
        let aggregate = Aggregate::of(&path.join(".")).ok_or_else(|| {
            let names = Aggregate::NAMES.join(", ");
            QueryError::new(at, format!("expected a property, or one of {names}, found `{}`", path.join(".")))
        })?;
        let of = if aggregate == Aggregate::Count {
            parser.take_symbol("*");
            None
        } else {
            Some(parser.expression()?)
        };
        parser.expect_symbol(")")?;
        (aggregate.name().to_ascii_lowercase(), What::Aggregate(aggregate, of))
    } else {
        (path.last().cloned().unwrap_or_default(), What::Property(path))
    };
    let name = if parser.take_keyword("AS") { parser.name(|_| true)? } else { own_name };
    Ok(Item { at, name, what })
}

fn twins(parser: &mut Parser) -> Result<Collection, QueryError> {
    if !parser.take_keyword("devices") {
        return Err(parser.wrong("devices, devices.modules or devices.jobs"));
    }
    if !parser.take_symbol(".") {
        return Ok(Collection::Devices);
    }
    if parser.take_keyword("modules") {
        return Ok(Collection::Modules);
    }
    if parser.take_keyword("jobs") { Ok(Collection::Jobs) } else { Err(parser.wrong("modules or jobs")) }
}

fn row_count(parser: &mut Parser) -> Result<u64, QueryError> {
    let number = match parser.peek() {
        Token::Number(number) => number.as_u64(),
        _ => None,
    };
    let number = number.ok_or_else(|| parser.wrong("a number of rows behind TOP"))?;
    parser.skip();
    Ok(number)
}

/// Beside an aggregate there are only properties that are grouped by; of jobs there is no choice.
fn check_aggregation(query: &Query, grouped_at: usize) -> Result<(), QueryError> {
    if let (Collection::Jobs, Select::Items(items)) = (query.from, &query.select) {
        let at = items.first().map_or(1, |item| item.at);
        return Err(QueryError::new(at, "expected `*`: FROM devices.jobs gives whole rows only"));
    }
    let Select::Items(items) = &query.select else {
        return if query.group_by.is_empty() {
            Ok(())
        } else {
            Err(QueryError::new(grouped_at, "GROUP BY needs named columns and aggregates, not *"))
        };
    };
    if !query.is_aggregate() {
        return Ok(());
    }
    let grouped = |item: &Item| match &item.what {
        What::Aggregate(..) => true,
        What::Property(path) => query.group_by.contains(path),
    };
    match items.iter().find(|item| !grouped(item)) {
        None => Ok(()),
        Some(item) => {
            Err(QueryError::new(item.at, format!("`{}` must stand behind GROUP BY, too", item.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::parser::{DEPTH_MAX, TEXT_MAX};
    use super::*;

    fn holds(condition: &str) -> Option<bool> {
        let twin = json!({
            "deviceId": "MyDevice01", "status": "enabled", "capabilities": {"iotEdge": false},
            "tags": {"site": "north", "floor": 3, "a b": 1}, "properties": {"reported": {"list": ["x"]}},
        });
        let query = parse(&format!("SELECT * FROM devices WHERE {condition}"));
        query.unwrap_or_else(|error| panic!("{condition}: {error}")).filter.unwrap().holds(&twin)
    }

    #[test]
    fn conditions_bind_as_in_sql() {
        for (condition, expected) in [
            ("tags.site = 'north' AND tags.floor >= 3", Some(true)),
            ("tags.site = 'south' OR tags.floor = 3 AND status = 'enabled'", Some(true)),
            ("(tags.site = 'south' OR tags.floor = 3) AND status = 'disabled'", Some(false)),
            ("NOT tags.site = 'south'", Some(true)),
            ("not not capabilities.iotEdge", Some(false)),
            ("tags.site IN ['south', \"north\"]", Some(true)),
            ("tags.site NOT IN ['north']", Some(false)),
            ("tags.floor NIN (1, 2)", Some(true)),
            ("'x' IN properties.reported.list", Some(true)),
            ("(tags.floor) < 4", Some(true)),
            ("is_defined(tags.none) or STARTSWITH(devices.deviceId, 'My')", Some(true)),
            ("tags.[[a b]] <> 2", Some(true)),
            ("tags.floor NOT IN [-3, 0x4]", Some(true)),
            ("tags.floor + 1 * 2 = 5 AND (tags.floor + 1) * 2 = 8", Some(true)),
            ("10 - 3 - 2 = 5 AND -tags.floor < -2 AND 7 % 4 = tags.floor", Some(true)),
            ("tags.floor / 0 = 1", None),
            ("tags.site = undefined", None),
            ("is_defined(undefined)", Some(false)),
            (
                "UPPER(SUBSTRING(tags.site, 0, 1)) = 'N' AND LENGTH(CONCAT(tags.site, '-', status)) = 13",
                Some(true),
            ),
            ("POWER(tags.floor, 2) > 8 AND NOT IS_STRING(tags.floor)", Some(true)),
            ("(tags.site = 'north') = true", Some(true)),
            ("tags = tags", None),
            ("tags.none != 'x'", None),
            ("tags.site != null", Some(true)),
        ] {
            assert_eq!(holds(condition), expected, "{condition}");
        }
    }

    #[test]
    fn the_queries_of_azures_tools_are_understood() {
        for text in [
            "select * from devices",
            "SELECT * FROM devices WHERE deviceId IN ['a','b']",
            "SELECT deviceId as DeviceId,\n    status as Status,\n    capabilities.iotEdge as IotEdge\n    FROM devices WHERE STARTSWITH(devices.deviceId, 'd')",
            "SELECT * FROM devices WHERE (status='enabled' AND capabilities.iotEdge=true)",
            "select * from devices.modules where devices.deviceId = 'd'",
            "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j' AND devices.jobs.status = 'failed'",
            "select properties.reported.State from devices.modules where devices.modules.moduleId = 'm'",
            "SELECT * FROM devices WHERE properties.reported.$metadata.$lastUpdated > '2030-01-01T00:00:00Z'",
            "SELECT TOP 10 deviceId, tags.site AS place FROM devices WHERE connectionState = 'Connected'",
            "SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site",
        ] {
            parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        let query = parse("SELECT COUNT() AS n, tags.site FROM devices.modules GROUP BY tags.site").unwrap();
        assert_eq!((query.from, query.is_aggregate()), (Collection::Modules, true));
        let Select::Items(items) = query.select else { panic!("items") };
        assert_eq!(items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["n", "site"]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        for (text, at, said) in [
            ("", 1, "expected SELECT, found the end"),
            ("SELECT * FROM jobs", 15, "expected devices, devices.modules or devices.jobs, found `jobs`"),
            ("SELECT * FROM devices.twins", 23, "expected modules or jobs, found `twins`"),
            ("SELECT deviceId FROM devices.jobs", 8, "expected `*`"),
            ("SELECT * FROM devices WHERE", 28, "expected a property, found the end"),
            ("SELECT * FROM devices WHERE tags.x = ", 38, "found the end"),
            ("SELECT * FROM devices WHERE tags.x = 1 1", 40, "expected the end, found `1`"),
            ("SELECT * FROM devices WHERE f(1)", 29, "no function f; there are IS_DEFINED, "),
            ("SELECT * FROM devices WHERE IS_DEFINED(a, b)", 29, "1 arguments, not 2"),
            ("SELECT AVG() FROM devices", 12, "expected a property, found `)`"),
            ("SELECT MEDIAN(tags.x) FROM devices", 8, "COUNT(), SUM(), AVG(), MIN(), MAX(), found `MEDIAN`"),
            ("SELECT COUNT(), deviceId FROM devices", 17, "GROUP BY"),
            ("SELECT * FROM devices GROUP BY status", 32, "not *"),
            ("SELECT * FROM devices WHERE a = b = c", 35, "expected the end, found `=`"),
            ("SELECT * FROM devices WHERE a +", 32, "expected a property, found the end"),
            ("SELECT * FROM devices WHERE a IN [-'x']", 36, "a number behind the sign"),
            ("SELECT * FROM devices WHERE a IN [b]", 35, "a text in quotes"),
            ("SELECT TOP x * FROM devices", 12, "a number of rows"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
        let long = |length| format!("{:length$}", "SELECT * FROM devices");
        assert!(parse(&long(TEXT_MAX)).is_ok());
        let error = parse(&long(TEXT_MAX + 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the query is wrong at character 8193: expected at most 8192 characters, found 8193"
        );
    }

    #[test]
    fn a_query_for_some_ids_looks_at_those_alone() {
        let ids = |condition: &str| {
            let query = parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
            query.filter.unwrap().device_ids().map(|ids| ids.into_iter().collect::<Vec<_>>().join(" "))
        };
        for (condition, expected) in [
            ("deviceId = 'a'", Some("a")),
            ("'a' = devices.deviceid", Some("a")),
            ("tags.x = 1 AND deviceId IN ['b', 'a', 'b']", Some("a b")),
            ("deviceId = 'a' OR tags.x = 1", None),
            ("NOT deviceId = 'a'", None),
            ("deviceId != 'a'", None),
            ("deviceId = tags.x", None),
            ("tags.deviceId = 'a'", None),
            ("deviceId IN [1, 'a']", None),
            ("deviceId = '2030-01-01T00:00:00Z'", None),
        ] {
            assert_eq!(ids(condition).as_deref(), expected, "{condition}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |open: &str, close: &str, levels| {
            parse(&format!("SELECT * FROM devices WHERE {}a{}", open.repeat(levels), close.repeat(levels)))
        };
        for (open, close) in [("(", ")"), ("NOT ", ""), ("- ", ""), ("ABS(", ")")] {
            assert!(nested(open, close, DEPTH_MAX).is_ok());
            assert!(nested(open, close, DEPTH_MAX + 1).unwrap_err().to_string().contains("levels"));
            assert!(nested(open, close, 1500).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn no_order_of_words_makes_it_panic(words in proptest::collection::vec(word(), 0..40)) {
            let text = words.join(" ");
            if let Ok(query) = parse(&text) {
                let _ = query.filter.map(|filter| filter.holds(&json!({"a": {"b": 1}})));
            }
            let _ = parse(&format!("SELECT * FROM devices WHERE {text}"));
        }
    }

    fn word() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "SELECT",
            "TOP",
            "*",
            "FROM",
            "devices",
            ".",
            "modules",
            "WHERE",
            "GROUP",
            "BY",
            "AS",
            "AND",
            "OR",
            "NOT",
            "IN",
            "NIN",
            "(",
            ")",
            "[",
            "]",
            ",",
            "=",
            "<>",
            "a",
            "a.b",
            "[[a]]",
            "'t'",
            "1",
            "1e3",
            "-",
            "+",
            "/",
            "%",
            "AVG",
            "undefined",
            "null",
            "true",
            "COUNT",
            "IS_DEFINED",
            "STARTSWITH",
        ])
    }
}
