//! A query from its text, by recursive descent.
//!
//! ```text
//! query     = SELECT [TOP number] select FROM (devices | devices.modules) [WHERE or] [GROUP BY path {, path}]
//! select    = "*" | item {, item}          item = (path | COUNT "(" ["*"] ")") [AS name]
//! or        = and {OR and}                 and  = not {AND not}               not = NOT not | term
//! term      = "(" or ")" | function "(" operand {, operand} ")" | operand [comparison operand | [NOT] IN operand]
//! operand   = constant | list | path       list = "[" constants "]", behind IN also "(" constants ")"
//! path      = [devices "." [modules "."]] name {"." name}
//! ```
//! Keywords and functions are read in any case of letters.

use serde_json::Value;

use super::QueryError;
use super::condition::{Comparison, Condition, Function, Operand, Path};
use super::lexer::{Lexeme, Token, tokens};

/// Longest text, in bytes: far beyond what anybody writes, and little enough to be evaluated for many twins.
const TEXT_MAX: usize = 16 * 1024;
/// How deep parentheses and NOT may be nested; it bounds the stack.
const DEPTH_MAX: usize = 32;

/// A query as it is carried out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// At most so many rows.
    pub(super) top: Option<u64>,
    pub(super) select: Select,
    pub(super) from: Collection,
    pub(super) filter: Option<Condition>,
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
    pub(super) name: String,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Property(Path),
    Count,
}

/// Which twins are looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collection {
    Devices,
    Modules,
}

/// Reads a query.
///
/// # Errors
/// [`QueryError`] with the place of the first character that does not fit.
pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    parse_over(text, &[])
}

/// As [`parse`], of a query that selects from one of `collections`, where any are named, in place of twins.
///
/// # Errors
/// As for [`parse`].
pub(super) fn parse_over(text: &str, collections: &[&str]) -> Result<Query, QueryError> {
    if text.len() > TEXT_MAX {
        return Err(QueryError::new(1, format!("a query has at most {TEXT_MAX} bytes")));
    }
    let mut parser = Parser {
        lexemes: tokens(text)?.into_iter().peekable(),
        end: text.chars().count().saturating_add(1),
        collections: collections.iter().map(|&name| name.to_owned()).collect(),
    };
    let query = parser.query()?;
    parser.expect_end()?;
    check_aggregation(&query)?;
    Ok(query)
}

/// Beside a count there are only properties that are grouped by.
fn check_aggregation(query: &Query) -> Result<(), QueryError> {
    let Select::Items(items) = &query.select else {
        return if query.group_by.is_empty() {
            Ok(())
        } else {
            Err(QueryError::new(1, "GROUP BY needs named columns and COUNT(), not *"))
        };
    };
    if !query.is_aggregate() {
        return Ok(());
    }
    let grouped = |item: &Item| match &item.what {
        What::Count => true,
        What::Property(path) => query.group_by.contains(path),
    };
    match items.iter().find(|item| !grouped(item)) {
        None => Ok(()),
        Some(item) => Err(QueryError::new(1, format!("`{}` must stand behind GROUP BY, too", item.name))),
    }
}

impl Query {
    /// Whether rows stand for groups of twins.
    pub(super) fn is_aggregate(&self) -> bool {
        let counts = |select: &Select| match select {
            Select::All => false,
            Select::Items(items) => items.iter().any(|item| item.what == What::Count),
        };
        !self.group_by.is_empty() || counts(&self.select)
    }
}

struct Parser {
    lexemes: std::iter::Peekable<std::vec::IntoIter<Lexeme>>,
    /// The place behind the last character.
    end: usize,
    /// What can be selected from; empty: twins.
    collections: Vec<String>,
}

impl Parser {
    fn query(&mut self) -> Result<Query, QueryError> {
        self.expect_keyword("SELECT")?;
        let top = if self.take_keyword("TOP") { Some(self.count()?) } else { None };
        let select = self.select()?;
        self.expect_keyword("FROM")?;
        let from = self.collection()?;
        let filter = if self.take_keyword("WHERE") { Some(self.or(0)?) } else { None };
        let mut group_by = Vec::new();
        if self.take_keyword("GROUP") {
            self.expect_keyword("BY")?;
            group_by = self.list(Self::path)?;
        }
        Ok(Query { top, select, from, filter, group_by })
    }

    fn select(&mut self) -> Result<Select, QueryError> {
        if self.take_symbol("*") { Ok(Select::All) } else { self.list(Self::item).map(Select::Items) }
    }

    fn item(&mut self) -> Result<Item, QueryError> {
        let at = self.at();
        let path = self.path()?;
        let is_count = matches!(path.as_slice(), [name] if name.eq_ignore_ascii_case("COUNT"));
        let (own_name, what) = if self.take_symbol("(") {
            if !is_count {
                return Err(QueryError::new(at, "of the aggregates, this hub has COUNT()"));
            }
            self.take_symbol("*");
            self.expect_symbol(")")?;
            ("count".to_owned(), What::Count)
        } else {
            (path.last().cloned().unwrap_or_default(), What::Property(path))
        };
        let name = if self.take_keyword("AS") { self.name(|_| true)? } else { own_name };
        Ok(Item { name, what })
    }

    fn collection(&mut self) -> Result<Collection, QueryError> {
        let at = self.at();
        if !self.collections.is_empty() {
            let names = self.collections.clone();
            let found = names.iter().any(|name| self.take_keyword(name));
            let wrong = || QueryError::new(at, format!("FROM {}", names.join(", or FROM ")));
            return if found { Ok(Collection::Devices) } else { Err(wrong()) };
        }
        let wrong = || QueryError::new(at, "FROM devices, or FROM devices.modules");
        if !self.take_keyword("devices") {
            return Err(wrong());
        }
        match self.take_symbol(".") {
            false => Ok(Collection::Devices),
            true if self.take_keyword("modules") => Ok(Collection::Modules),
            true => Err(wrong()),
        }
    }

    fn or(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut terms = vec![self.and(depth)?];
        while self.take_keyword("OR") {
            terms.push(self.and(depth)?);
        }
        Ok(one_or(terms, Condition::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut terms = vec![self.not(depth)?];
        while self.take_keyword("AND") {
            terms.push(self.not(depth)?);
        }
        Ok(one_or(terms, Condition::And))
    }

    fn not(&mut self, depth: usize) -> Result<Condition, QueryError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(&format!("at most {DEPTH_MAX} levels of parentheses and NOT")));
        }
        if self.take_keyword("NOT") {
            return Ok(Condition::Not(Box::new(self.not(depth.saturating_add(1))?)));
        }
        self.term(depth)
    }

    fn term(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let operand = if self.take_symbol("(") {
            let inner = self.or(depth.saturating_add(1))?;
            self.expect_symbol(")")?;
            match inner {
                // A value in parentheses may yet be compared.
                Condition::Is(operand) => operand,
                inner => return Ok(inner),
            }
        } else {
            let at = self.at();
            let operand = self.operand()?;
            if self.take_symbol("(") {
                return self.call(at, &operand);
            }
            operand
        };
        self.comparison(operand)
    }

    fn comparison(&mut self, left: Operand) -> Result<Condition, QueryError> {
        const COMPARISONS: [(&str, Comparison); 7] = [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::Greater),
            (">=", Comparison::GreaterOrEqual),
        ];
        for (symbol, comparison) in COMPARISONS {
            if self.take_symbol(symbol) {
                return Ok(Condition::Compare(left, comparison, self.operand()?));
            }
        }
        if self.take_keyword("IN") {
            return Ok(Condition::In(left, self.values()?));
        }
        let negated = self.take_keyword("NOT");
        if negated {
            self.expect_keyword("IN")?;
        }
        if negated || self.take_keyword("NIN") {
            return Ok(Condition::Not(Box::new(Condition::In(left, self.values()?))));
        }
        Ok(Condition::Is(left))
    }

    fn call(&mut self, at: usize, name: &Operand) -> Result<Condition, QueryError> {
        let unknown = || {
            QueryError::new(
                at,
                "this hub has IS_DEFINED, IS_NULL, IS_BOOL, IS_NUMBER, IS_STRING, IS_ARRAY, IS_OBJECT, IS_PRIMITIVE, STARTSWITH, ENDSWITH and CONTAINS",
            )
        };
        let Operand::Property(path) = name else { return Err(unknown()) };
        let [name] = path.as_slice() else { return Err(unknown()) };
        let (function, count) = Function::of(name).ok_or_else(unknown)?;
        let arguments = self.list(Self::operand)?;
        self.expect_symbol(")")?;
        if arguments.len() != count {
            return Err(QueryError::new(
                at,
                format!("{name} has {count} arguments, not {}", arguments.len()),
            ));
        }
        Ok(Condition::Call(function, arguments))
    }

    /// What stands behind IN.
    fn values(&mut self) -> Result<Operand, QueryError> {
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take_symbol(open) {
                let values = self.list(Self::constant)?;
                self.expect_symbol(close)?;
                return Ok(Operand::Constant(Value::Array(values)));
            }
        }
        self.operand()
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        if *self.peek() == Token::Symbol("[") {
            return self.values();
        }
        match self.take_constant() {
            Some(value) => Ok(Operand::Constant(value)),
            None => self.path().map(Operand::Property),
        }
    }

    fn constant(&mut self) -> Result<Value, QueryError> {
        self.take_constant().ok_or_else(|| self.wrong("a text in quotes, a number, true, false or null"))
    }

    fn take_constant(&mut self) -> Option<Value> {
        let value = match self.peek() {
            Token::Text(text) => Value::String(text.clone()),
            Token::Number(number) => Value::Number(number.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Value::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Value::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Value::Null,
            _ => return None,
        };
        self.lexemes.next();
        Some(value)
    }

    fn path(&mut self) -> Result<Path, QueryError> {
        let mut path = vec![self.name(|word| !is_reserved(word))?];
        // Behind a dot, every word is a name: there are tags that are called `group`.
        while self.take_symbol(".") {
            path.push(self.name(|_| true)?);
        }
        let is = |path: &Path, index: usize, name: &str| {
            path.get(index).is_some_and(|found| found.eq_ignore_ascii_case(name))
        };
        // `devices.deviceId` and `devices.modules.moduleId` are deviceId and moduleId.
        if path.len() > 1 && is(&path, 0, "devices") {
            path.remove(0);
            if path.len() > 1 && is(&path, 0, "modules") {
                path.remove(0);
            }
        }
        Ok(path)
    }

    fn name(&mut self, may_be: impl Fn(&str) -> bool) -> Result<String, QueryError> {
        let name = match self.peek() {
            Token::Word(name) if may_be(name) => name.clone(),
            Token::Name(name) => name.clone(),
            _ => return Err(self.wrong("a property")),
        };
        self.lexemes.next();
        Ok(name)
    }

    fn count(&mut self) -> Result<u64, QueryError> {
        let wrong = self.wrong("a number of rows behind TOP");
        match self.lexemes.next().map(|lexeme| lexeme.token) {
            Some(Token::Number(number)) => number.as_u64().ok_or(wrong),
            _ => Err(wrong),
        }
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, QueryError>) -> Result<Vec<T>, QueryError> {
        let mut list = vec![one(self)?];
        while self.take_symbol(",") {
            list.push(one(self)?);
        }
        Ok(list)
    }

    // --- tokens ---

    fn peek(&mut self) -> &Token {
        self.lexemes.peek().map_or(&Token::End, |lexeme| &lexeme.token)
    }

    fn at(&mut self) -> usize {
        let end = self.end;
        self.lexemes.peek().map_or(end, |lexeme| lexeme.at)
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        self.lexemes
            .next_if(|lexeme| matches!(lexeme.token, Token::Symbol(found) if found == symbol))
            .is_some()
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let is_it = |lexeme: &Lexeme| matches!(&lexeme.token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.lexemes.next_if(is_it).is_some()
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), QueryError> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.wrong(&format!("`{symbol}`"))) }
    }

    fn expect_keyword(&mut self, keyword: &str) -> Result<(), QueryError> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.wrong(keyword)) }
    }

    fn expect_end(&mut self) -> Result<(), QueryError> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.wrong("the end of the query")) }
    }

    fn wrong(&mut self, expected: &str) -> QueryError {
        let at = self.at();
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Word(text) | Token::Name(text) | Token::Text(text) => format!("`{}`", text.escape_debug()),
            Token::Number(number) => format!("`{number}`"),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        };
        QueryError::new(at, format!("expected {expected}, found {found}"))
    }
}

fn one_or(mut terms: Vec<Condition>, many: impl FnOnce(Vec<Condition>) -> Condition) -> Condition {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        last => {
            terms.extend(last);
            many(terms)
        }
    }
}

/// Words that no property begins with, unless they stand in double brackets.
fn is_reserved(word: &str) -> bool {
    const RESERVED: [&str; 12] =
        ["SELECT", "TOP", "FROM", "WHERE", "GROUP", "BY", "AS", "AND", "OR", "NOT", "IN", "NIN"];
    RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

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
            ("SELECT * FROM jobs", 15, "FROM devices"),
            ("SELECT * FROM devices.jobs", 15, "FROM devices"),
            ("SELECT * FROM devices WHERE", 28, "expected a property, found the end"),
            ("SELECT * FROM devices WHERE tags.x = ", 38, "found the end"),
            ("SELECT * FROM devices WHERE tags.x = 1 1", 40, "expected the end of the query, found `1`"),
            ("SELECT * FROM devices WHERE f(1)", 29, "IS_DEFINED"),
            ("SELECT * FROM devices WHERE IS_DEFINED(a, b)", 29, "1 arguments, not 2"),
            ("SELECT AVG(tags.x) FROM devices", 8, "COUNT()"),
            ("SELECT deviceId, COUNT() FROM devices", 1, "GROUP BY"),
            ("SELECT * FROM devices GROUP BY status", 1, "not *"),
            ("SELECT * FROM devices WHERE a IN [b]", 35, "a text in quotes"),
            ("SELECT TOP x * FROM devices", 12, "a number of rows"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
        assert!(parse(&" ".repeat(TEXT_MAX + 1)).is_err());
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |open: &str, close: &str, levels| {
            parse(&format!("SELECT * FROM devices WHERE {}a{}", open.repeat(levels), close.repeat(levels)))
        };
        for (open, close) in [("(", ")"), ("NOT ", "")] {
            assert!(nested(open, close, DEPTH_MAX).is_ok());
            assert!(nested(open, close, DEPTH_MAX + 1).unwrap_err().to_string().contains("levels"));
            assert!(nested(open, close, 3000).is_err());
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
            "-1e3",
            "null",
            "true",
            "COUNT",
            "IS_DEFINED",
            "STARTSWITH",
        ])
    }
}
