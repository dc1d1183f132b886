//! `POST /devices/query`: twins found by the SQL of IoT Hub.
//!
//! ```text
//!  text ─▶ lexer ─▶ parse ─▶ Query ─┬▶ every place where records live: condition, row ─┬▶ one page, in the order of ids
//!                                   └▶ …                                              ─┘
//! ```
//! However many records are looked at for a page, devices are served meanwhile. A page ends with a continuation token,
//! which holds the last client id; so pages stay right while devices come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use self::condition::Row as _;
use self::parse::{Collection, Query, Select, What, parse};
use self::row::TwinRow;
use super::{ApiError, Code, Service, Shared, header, json_object};

mod condition;
mod lexer;
mod parse;
mod row;

/// Rows on a page unless `x-ms-max-item-count` says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// Bytes of the rows on a page; where twins are so large, the page has fewer rows than were asked for.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Groups that an answer may have; they come on one page.
const GROUPS_MAX: usize = 1000;

/// Why a text is no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueryError {
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

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::new(Code::ArgumentInvalid, error.to_string())
    }
}

/// Where a page begins: behind this client id, with so many rows sent before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cursor {
    after: String,
    sent: u64,
}

impl Cursor {
    fn read(token: &str) -> Result<Self, ApiError> {
        let wrong =
            || ApiError::new(Code::ArgumentInvalid, "x-ms-continuation is no token that this hub gave out");
        let text = STANDARD.decode(token).map_err(|_| wrong())?;
        let value: Value = serde_json::from_slice(&text).map_err(|_| wrong())?;
        let (after, sent) = (value.get(0).and_then(Value::as_str), value.get(1).and_then(Value::as_u64));
        Ok(Self { after: after.ok_or_else(wrong)?.to_owned(), sent: sent.ok_or_else(wrong)? })
    }
}

/// The token that asks for what follows.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(json!([self.after, self.sent]).to_string()))
    }
}

pub(super) async fn query(
    State(service): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let body = json_object(&body)?;
    let text = body.get("query").and_then(Value::as_str);
    let text = text.ok_or_else(|| ApiError::new(Code::ArgumentInvalid, r#"send {"query": "SELECT …"}"#))?;
    let query = Arc::new(parse(text)?);
    if query.is_aggregate() {
        return Ok(answer(&service.groups(query).await?, "Raw", None));
    }
    let item_type = if query.select == Select::All { "Twin" } else { "Raw" };
    let cursor = match header(&headers, "x-ms-continuation").filter(|token| !token.is_empty()) {
        Some(token) => Cursor::read(token)?,
        None => Cursor::default(),
    };
    let (rows, next) = service.page(query, cursor, page_size(&headers)?).await;
    Ok(answer(&rows, item_type, next))
}

fn page_size(headers: &HeaderMap) -> Result<usize, ApiError> {
    let Some(text) = header(headers, "x-ms-max-item-count").filter(|text| !text.is_empty()) else {
        return Ok(PAGE);
    };
    match text.parse() {
        // -1 leaves it to the hub.
        Ok(-1) => Ok(PAGE),
        Ok(1_i64..) => Ok(text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)),
        _ => Err(ApiError::new(Code::ArgumentInvalid, "x-ms-max-item-count is a number from 1 on")),
    }
}

/// `rows` are JSON texts.
fn answer(rows: &[String], item_type: &'static str, next: Option<Cursor>) -> Response {
    let mut response = format!("[{}]", rows.join(",")).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-ms-item-type", HeaderValue::from_static(item_type));
    if let Some(token) = next.and_then(|next| next.to_string().parse().ok()) {
        headers.insert("x-ms-continuation", token);
    }
    response
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

impl Service {
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

    /// The rows of a query that counts.
    async fn groups(&self, query: Arc<Query>) -> Result<Vec<String>, ApiError> {
        let asked = Arc::clone(&query);
        let counted = self.engine.look_through("", Groups::new(), move |groups, seen| {
            let row = TwinRow::new(seen);
            if wants(&asked, &row) {
                count(&asked, &row, groups);
            }
            // One group too many is enough to refuse the query.
            if groups.len() > GROUPS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut groups = Groups::new();
        for (key, (values, count)) in counted.await.into_iter().flatten() {
            let group = groups.entry(key).or_insert((values, 0));
            group.1 = group.1.saturating_add(count);
        }
        if groups.len() > GROUPS_MAX {
            let message = format!("the answer has more than {GROUPS_MAX} groups; narrow it with WHERE");
            return Err(ApiError::new(Code::ArgumentInvalid, message));
        }
        if groups.is_empty() && query.group_by.is_empty() {
            groups.insert(String::new(), (Vec::new(), 0));
        }
        let top = query.top.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX);
        let row = |(values, count): &(Vec<Option<Value>>, u64)| group_row(&query, values, *count).to_string();
        Ok(groups.values().take(top).map(row).collect())
    }
}

/// For each group, under the JSON of the values that it has in common: these values, and how many twins it has.
type Groups = BTreeMap<String, (Vec<Option<Value>>, u64)>;

fn count(query: &Query, row: &TwinRow<'_>, groups: &mut Groups) {
    let value = |path: &condition::Path| row.value(path).map(|value| value.into_owned());
    let values: Vec<Option<Value>> = query.group_by.iter().map(value).collect();
    let key: String = values
        .iter()
        .map(|value| value.as_ref().map_or("-,".to_owned(), |value| format!("{value},")))
        .collect();
    let group = groups.entry(key).or_insert((values, 0));
    group.1 = group.1.saturating_add(1);
}

fn group_row(query: &Query, values: &[Option<Value>], count: u64) -> Value {
    let Select::Items(items) = &query.select else { return Value::Null };
    let member = |item: &parse::Item| {
        let value = match &item.what {
            What::Count => count.into(),
            What::Property(path) => {
                let place = query.group_by.iter().position(|grouped| grouped == path)?;
                values.get(place)?.clone()?
            }
        };
        Some((item.name.clone(), value))
    };
    Value::Object(items.iter().filter_map(member).collect::<Map<_, _>>())
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
        assert_eq!(Cursor::read(&cursor.to_string()).unwrap(), cursor);
        for wrong in ["?", "", "bm8=", "WzEsMl0="] {
            assert!(Cursor::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_ends_where_its_rows_or_its_bytes_do() {
        let fits = |lengths: &[usize], most| fitting(lengths.iter().copied(), most);
        assert_eq!(fits(&[1, 1, 1], 2), 2);
        assert_eq!(fits(&[PAGE_BYTES - 1, 1, 1], 3), 2);
        assert_eq!(fits(&[PAGE_BYTES + 1, 1], 3), 1, "a page without rows would go on for ever");
        assert_eq!((fits(&[], 3), fits(&[1], 0)), (0, 0));
    }

    #[test]
    fn a_page_has_as_many_rows_as_are_asked_for_up_to_a_thousand() {
        let size = |text: &'static str| {
            page_size(&HeaderMap::from_iter([(
                "x-ms-max-item-count".parse().unwrap(),
                text.parse().unwrap(),
            )]))
        };
        assert_eq!(page_size(&HeaderMap::new()).unwrap(), PAGE);
        for (text, expected) in [("", PAGE), ("-1", PAGE), ("20", 20), ("99999999999999", PAGE_MAX)] {
            assert_eq!(size(text).unwrap(), expected, "{text}");
        }
        assert!(size("0").is_err() && size("x").is_err());
    }
}
