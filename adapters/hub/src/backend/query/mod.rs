//! `POST /devices/query`: twins found by the SQL of IoT Hub.
//!
//! ```text
//!  text ─▶ lexer ─▶ parse ─▶ Query ─┬▶ every place where records live: expression, row ─┬▶ one page, in the order of ids
//!                                   └▶ …                                               ─┘
//! ```
//! However many records are looked at for a page, devices are served meanwhile. A page ends with a continuation token,
//! which holds the last client id; so pages stay right while devices come and go.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::aggregate::{GROUPS_MAX, Groups};
use self::expression::Expression;
pub(crate) use self::expression::Row;
use self::parse::parse;
use self::row::TwinRow;
use self::statement::{Collection, Query, Select};
use super::{Backend, Error};

mod aggregate;
mod expression;
mod functions;
mod lexer;
mod parse;
mod parser;
mod row;
mod statement;
mod terms;
mod values;

/// Rows on a page, unless the caller wants another number.
pub const PAGE: usize = 100;
/// Rows on a page at most.
pub const PAGE_MAX: usize = 1000;
/// Bytes of the digest that binds a continuation token to its query: enough that no two queries share one by accident.
const FINGERPRINT_LENGTH: usize = 8;
/// Bytes of the rows on a page; where twins are so large, the page has fewer rows than were asked for.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Why a text is no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// The character that it is about, from 1.
    at: usize,
    message: String,
}

impl QueryError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the query is wrong at character {}: {}", self.at, self.message)
    }
}

impl From<QueryError> for Error {
    fn from(error: QueryError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// What stands behind WHERE, for records that are not twins.
#[derive(Debug)]
pub(crate) struct Filter(Expression);

impl Filter {
    /// Reads `SELECT * FROM {one of the collections} [WHERE …]`; `None` where all is wanted.
    pub(crate) fn over(text: &str, collections: &[&str]) -> Result<Option<Self>, QueryError> {
        let query = parse::parse_over(text, collections)?;
        if query.select != Select::All || query.top.is_some() {
            return Err(QueryError::new(1, "SELECT * FROM … is what can be asked here, with WHERE"));
        }
        Ok(query.filter.map(Self))
    }

    /// Whether the record is one of those that are asked for.
    pub(crate) fn wants(&self, record: &dyn Row) -> bool {
        self.0.holds(record) == Some(true)
    }
}

/// One page of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// JSON texts.
    pub rows: Vec<String>,
    /// Whether the rows are whole twins.
    pub are_twins: bool,
    /// Asks for the next page, together with the same query; `None` on the last one.
    pub continuation: Option<String>,
}

/// Where a page begins: after this client id, with so many rows sent before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cursor {
    after: String,
    sent: u64,
}

impl Cursor {
    /// Reads a token that was given out for this query.
    fn read(token: &str, query: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid("the continuation token is none that this hub gave out")
                .with_fix("begin again without one")
        };
        let text = STANDARD.decode(token).map_err(|_| wrong())?;
        let value: Value = serde_json::from_slice(&text).map_err(|_| wrong())?;
        let (after, sent) = (value.get(0).and_then(Value::as_str), value.get(1).and_then(Value::as_u64));
        let cursor = Self { after: after.ok_or_else(wrong)?.to_owned(), sent: sent.ok_or_else(wrong)? };
        let of = value.get(2).and_then(Value::as_str).ok_or_else(wrong)?;
        if of != fingerprint(query) {
            return Err(Error::invalid("the continuation token belongs to another query")
                .with_fix("send the same query text with each of its tokens"));
        }
        Ok(cursor)
    }

    /// The token that asks for what follows.
    fn token(&self, query: &str) -> String {
        STANDARD.encode(json!([self.after, self.sent, fingerprint(query)]).to_string())
    }
}

/// Tells one query text from another: what stands between its words does not count.
fn fingerprint(query: &str) -> String {
    let mut digest = Sha256::new();
    for word in query.split_whitespace() {
        digest.update(word.as_bytes());
        digest.update(b" ");
    }
    digest.finalize().iter().take(FINGERPRINT_LENGTH).map(|byte| format!("{byte:02x}")).collect()
}

/// Rows under their client ids, as JSON texts.
#[derive(Clone, Debug, Default)]
struct Found {
    rows: Vec<(String, String)>,
    bytes: usize,
}

impl Found {
    fn push(&mut self, client_id: String, row: String) {
        self.bytes = self.bytes.saturating_add(row.len());
        self.rows.push((client_id, row));
    }

    /// There is more than fits on a page, which is how it is known that there is another one.
    const fn is_full(&self, most: usize) -> bool {
        self.rows.len() > most || self.bytes > PAGE_BYTES
    }
}

impl Backend {
    /// Answers a query: the page of at most `size` rows that a continuation token asks for, or the first one.
    ///
    /// # Errors
    /// 400004 for what is no query, and for a token that was not given out for this very query.
    pub async fn query(&self, text: &str, continuation: Option<&str>, size: usize) -> Result<Page, Error> {
        let query = Arc::new(parse(text)?);
        let cursor = continuation.map_or(Ok(Cursor::default()), |token| Cursor::read(token, text))?;
        if query.is_aggregate() {
            return Ok(Page { rows: self.groups(query).await?, are_twins: false, continuation: None });
        }
        let are_twins = query.select == Select::All;
        let (rows, next) = self.page(query, cursor, size.clamp(1, PAGE_MAX)).await;
        Ok(Page { rows, are_twins, continuation: next.map(|next| next.token(text)) })
    }

    /// One page of rows, and where the next begins if there is one.
    async fn page(&self, query: Arc<Query>, cursor: Cursor, size: usize) -> (Vec<String>, Option<Cursor>) {
        let left = query.top.map_or(u64::MAX, |top| top.saturating_sub(cursor.sent));
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(size);
        let found = self.engine.look_through(&cursor.after, Found::default(), move |found, seen| {
            let row = TwinRow::new(seen);
            if wants(&query, &row) {
                found.push(seen.record.identity.client_id().to_owned(), row.selected(&query.select));
            }
            if found.is_full(most) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let found = found.await;
        let mut more = found.iter().any(|found| found.is_full(most));
        let mut rows: Vec<(String, String)> = found.into_iter().flat_map(|found| found.rows).collect();
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        // A place that was full has more than fits, so that the page ends before what that place left out.
        let fits = fitting(rows.iter().map(|(_, row)| row.len()), most);
        more |= fits < rows.len();
        rows.truncate(fits);
        let sent = cursor.sent.saturating_add(fits as u64);
        let goes_on = more && left > fits as u64;
        let next = rows.last().filter(|_| goes_on).map(|(id, _)| Cursor { after: id.clone(), sent });
        (rows.into_iter().map(|(_, row)| row).collect(), next)
    }

    /// The rows of a query that aggregates.
    async fn groups(&self, query: Arc<Query>) -> Result<Vec<String>, Error> {
        let asked = Arc::clone(&query);
        let gathered = self.engine.look_through("", Groups::default(), move |groups, seen| {
            let row = TwinRow::new(seen);
            if wants(&asked, &row) {
                groups.add(&asked, &row);
            }
            // One group too many is enough to refuse the query.
            if groups.is_too_many() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut groups = Groups::default();
        gathered.await.into_iter().for_each(|gathered| groups.merge(&query, gathered));
        if groups.is_too_many() {
            return Err(Error::invalid(format!("the answer has more than {GROUPS_MAX} groups"))
                .with_fix("narrow it with WHERE"));
        }
        Ok(groups.rows(&query))
    }
}

/// Whether the query is about this twin.
fn wants(query: &Query, row: &TwinRow<'_>) -> bool {
    row.is_module() == (query.from == Collection::Modules)
        && query.filter.as_ref().is_none_or(|filter| filter.holds(row) == Some(true))
}

/// How many rows of these lengths fit on a page: at most so many, and at least one.
fn fitting(lengths: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |(index, length): &(usize, usize)| {
        bytes = bytes.saturating_add(*length);
        *index == 0 || bytes <= PAGE_BYTES
    };
    lengths.take(most).enumerate().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_as_the_place_that_it_names() {
        let cursor = Cursor { after: "dev/möd".to_owned(), sent: 7 };
        assert_eq!(Cursor::read(&cursor.token("SELECT a"), "SELECT a").unwrap(), cursor);
        assert_eq!(Cursor::read(&cursor.token("SELECT a"), " SELECT\n a ").unwrap(), cursor);
        for wrong in ["?", "", "bm8=", "WzEsMl0="] {
            assert!(Cursor::read(wrong, "SELECT a").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_of_use_with_its_own_query_alone() {
        let cursor = Cursor { after: "dev".to_owned(), sent: 7 };
        for other in ["SELECT b", "SELECTa", "SELECT a b", ""] {
            let refused = Cursor::read(&cursor.token("SELECT a"), other).unwrap_err();
            assert!(refused.to_string().contains("another query"), "{other}: {refused}");
        }
        let unbound = STANDARD.encode(r#"["dev",7]"#);
        assert!(Cursor::read(&unbound, "SELECT a").is_err(), "a token of a hub that did not bind them");
    }

    #[test]
    fn a_page_ends_where_its_rows_or_its_bytes_do() {
        let fits = |lengths: &[usize], most| fitting(lengths.iter().copied(), most);
        assert_eq!(fits(&[1, 1, 1], 2), 2);
        assert_eq!(fits(&[PAGE_BYTES - 1, 1, 1], 3), 2);
        assert_eq!(fits(&[PAGE_BYTES + 1, 1], 3), 1, "a page without rows would go on for ever");
        assert_eq!((fits(&[], 3), fits(&[1], 0)), (0, 0));
    }
}
