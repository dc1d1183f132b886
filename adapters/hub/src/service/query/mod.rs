//! `POST /devices/query`: twins found by the SQL of IoT Hub.
//!
//! ```text
//!  text ─▶ lexer ─▶ parse ─▶ Query ─┬▶ every place where records live: condition, row ─┬▶ one page, in the order of ids
//!                                   └▶ …                                              ─┘
//! ```
//! A page ends with a continuation token, which holds the last client id; so pages stay right while devices come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::time::Instant;
use serde_json::{Map, Value, json};

use self::condition::Row as _;
use self::parse::{Collection, Query, Select, What, parse};
use self::row::TwinRow;
use super::{ApiError, Code, Service, Shared, header, json_body};
use crate::worker::Core;

mod condition;
mod lexer;
mod parse;
mod row;

/// Rows on a page unless `x-ms-max-item-count` says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
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
    let body = json_body(&body)?;
    let text = body.get("query").and_then(Value::as_str);
    let text = text.ok_or_else(|| ApiError::new(Code::ArgumentInvalid, r#"send {"query": "SELECT …"}"#))?;
    let query = Arc::new(parse(text)?);
    if query.is_aggregate() {
        return Ok(answer(service.groups(query).await?, "Raw", None));
    }
    let item_type = if query.select == Select::All { "Twin" } else { "Raw" };
    let cursor = match header(&headers, "x-ms-continuation").filter(|token| !token.is_empty()) {
        Some(token) => Cursor::read(token)?,
        None => Cursor::default(),
    };
    let (rows, next) = service.page(query, cursor, page_size(&headers)?).await;
    Ok(answer(rows, item_type, next))
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

fn answer(rows: Vec<Value>, item_type: &'static str, next: Option<Cursor>) -> Response {
    let mut response = Json(rows).into_response();
    let headers = response.headers_mut();
    headers.insert("x-ms-item-type", HeaderValue::from_static(item_type));
    if let Some(token) = next.and_then(|next| next.to_string().parse().ok()) {
        headers.insert("x-ms-continuation", token);
    }
    response
}

impl Service {
    /// One page of rows, and where the next begins if there is one.
    async fn page(&self, query: Arc<Query>, cursor: Cursor, size: usize) -> (Vec<Value>, Option<Cursor>) {
        let left = query.top.map_or(u64::MAX, |top| top.saturating_sub(cursor.sent));
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(size);
        let after = cursor.after.clone();
        let found = self.engine.everywhere(move |core, now| {
            // One more than fits, which tells whether there is another page.
            let rows = matching(core, now, &query, &after).take(most.saturating_add(1));
            rows.map(|(id, row)| (id.to_owned(), row.selected(&query.select))).collect::<Vec<_>>()
        });
        let mut found: Vec<(String, Value)> = found.await.into_iter().flatten().collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        let more = found.len() > most;
        found.truncate(most);
        let sent = cursor.sent.saturating_add(most as u64);
        let next = found
            .last()
            .filter(|_| more && left > most as u64)
            .map(|(id, _)| Cursor { after: id.clone(), sent });
        (found.into_iter().map(|(_, row)| row).collect(), next)
    }

    /// The rows of a query that counts.
    async fn groups(&self, query: Arc<Query>) -> Result<Vec<Value>, ApiError> {
        let asked = Arc::clone(&query);
        let counted = self.engine.everywhere(move |core, now| count(core, now, &asked));
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
        Ok(groups.values().take(top).map(|(values, count)| group_row(&query, values, *count)).collect())
    }
}

/// For each group, under the JSON of the values that it has in common: these values, and how many twins it has.
type Groups = BTreeMap<String, (Vec<Option<Value>>, u64)>;

/// Counts the twins that live in one place. One group too many is enough to refuse the query.
fn count(core: &Core, now: Instant, query: &Query) -> Groups {
    let mut groups = Groups::new();
    for (_, row) in matching(core, now, query, "") {
        let value = |path: &condition::Path| row.value(path).map(|value| value.into_owned());
        let values: Vec<Option<Value>> = query.group_by.iter().map(value).collect();
        let key: String = values
            .iter()
            .map(|value| value.as_ref().map_or("-,".to_owned(), |value| format!("{value},")))
            .collect();
        let group = groups.entry(key).or_insert((values, 0));
        group.1 = group.1.saturating_add(1);
        if groups.len() > GROUPS_MAX {
            break;
        }
    }
    groups
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

/// The twins of one place for which the condition holds, behind a client id and in the order of client ids.
fn matching<'c>(
    core: &'c Core,
    now: Instant,
    query: &'c Query,
    after: &'c str,
) -> impl Iterator<Item = (&'c str, TwinRow<'c>)> {
    core.hub.devices_after(after).filter_map(move |(key, record)| {
        let is_module = record.identity.identity().module_id().is_some();
        let row = TwinRow::new(core, now, key, record);
        let wanted = is_module == (query.from == Collection::Modules)
            && query.filter.as_ref().is_none_or(|filter| filter.holds(&row) == Some(true));
        wanted.then(|| (record.identity.client_id(), row))
    })
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
