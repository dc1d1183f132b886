//! Twins found by the SQL of IoT Hub, and the language for all that is found by it.
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

use self::aggregate::{GROUPS_MAX, Groups};
pub(crate) use self::condition::Condition;
pub(crate) use self::cursor::Cursor;
use self::expression::Expression;
pub(crate) use self::expression::Row;
use self::parse::parse;
pub(crate) use self::row::JsonRow;
use self::row::TwinRow;
pub(crate) use self::statement::Query as TwinQuery;
use self::statement::{Collection, Select};
pub(crate) use self::target::Target;
use super::{Backend, Error};
use crate::engine::record_scan::Seen;

mod aggregate;
mod condition;
mod cursor;
mod expression;
mod functions;
mod lexer;
mod parse;
mod parser;
mod row;
mod statement;
mod target;
mod terms;
mod values;

/// Rows on a page, unless the caller wants another number.
pub const PAGE: usize = 100;
/// Rows on a page at most.
pub const PAGE_MAX: usize = 1000;
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

    /// The character that it is about, from 1.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// What is wrong there.
    pub(crate) fn message(&self) -> &str {
        &self.message
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

/// What a query asks for.
#[derive(Debug)]
pub(crate) enum Selection {
    /// Twins, or what is made of them.
    Twins(TwinQuery),
    /// What jobs did with each device.
    JobRows {
        /// Which of them; `None`: all.
        filter: Option<Filter>,
        /// At most so many.
        top: Option<u64>,
    },
}

impl Selection {
    /// Reads the text of a query.
    ///
    /// # Errors
    /// [`QueryError`] with the place of the first character that does not fit.
    pub(crate) fn read(text: &str) -> Result<Self, QueryError> {
        let query = parse(text)?;
        Ok(match query.from {
            Collection::Devices | Collection::Modules => Self::Twins(query),
            Collection::Jobs => Self::JobRows { filter: query.filter.map(Filter), top: query.top },
        })
    }
}

/// What the rows of a page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemType {
    /// Whole twins.
    Twin,
    /// Columns that the query names.
    Raw,
    /// What a job did with a device.
    DeviceJob,
    /// Jobs.
    JobResponse,
}

impl ItemType {
    /// As Azure writes it in `x-ms-item-type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Twin => "Twin",
            Self::Raw => "Raw",
            Self::DeviceJob => "deviceJob",
            Self::JobResponse => "jobResponse",
        }
    }
}

/// One page of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// JSON texts.
    pub rows: Vec<String>,
    /// What they are.
    pub item_type: ItemType,
    /// Asks for the next page, together with the same query; `None` on the last one.
    pub continuation: Option<String>,
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
    /// The twins that a query is about, or what it makes of them: a page of at most `size` rows.
    ///
    /// # Errors
    /// 400004 for too many groups.
    pub(crate) async fn query_twins(
        &self,
        query: TwinQuery,
        cursor: Cursor,
        size: usize,
    ) -> Result<(Vec<String>, ItemType, Option<Cursor>), Error> {
        let query = Arc::new(query);
        if query.is_aggregate() {
            return Ok((self.groups(query).await?, ItemType::Raw, None));
        }
        let item_type = if query.select == Select::All { ItemType::Twin } else { ItemType::Raw };
        let (rows, next) = self.page(query, cursor, size.clamp(1, PAGE_MAX)).await;
        Ok((rows, item_type, next))
    }

    /// How many rows the answer to a query has, on all its pages.
    ///
    /// # Errors
    /// 400004 for too many groups.
    pub(crate) async fn count_rows(&self, query: TwinQuery) -> Result<u64, Error> {
        let query = Arc::new(query);
        if query.is_aggregate() {
            return Ok(self.groups(query).await?.len() as u64);
        }
        let (applications, top) = (Arc::clone(&self.applications), query.top.unwrap_or(u64::MAX));
        let counts = self.engine.look_through("", 0_u64, move |count, seen| {
            *count = count.saturating_add(u64::from(wants(&query, &TwinRow::new(seen, &applications))));
            ControlFlow::Continue(())
        });
        Ok(counts.await.into_iter().sum::<u64>().min(top))
    }

    /// One page of rows, and where the next begins if there is one.
    async fn page(
        &self,
        query: Arc<TwinQuery>,
        cursor: Cursor,
        size: usize,
    ) -> (Vec<String>, Option<Cursor>) {
        let left = query.top.map_or(u64::MAX, |top| top.saturating_sub(cursor.sent));
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(size);
        let found = self.found(query, &cursor.after, most).await;
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

    /// The rows behind this client id, from each place where records live, one more than `most` at least where there are more.
    async fn found(&self, query: Arc<TwinQuery>, after: &str, most: usize) -> Vec<Found> {
        let applications = Arc::clone(&self.applications);
        let ids = query.filter.as_ref().and_then(Expression::device_ids);
        let ids = ids.filter(|_| query.from == Collection::Devices);
        let look = move |found: &mut Found, seen: Seen<'_>| {
            let row = TwinRow::new(seen, &applications);
            if wants(&query, &row) {
                found.push(seen.record.identity.client_id().to_owned(), row.selected(&query.select));
            }
            if found.is_full(most) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let Some(ids) = ids else { return self.engine.look_through(after, Found::default(), look).await };
        let mut found = Found::default();
        for id in ids.into_iter().filter(|id| id.as_str() > after) {
            if found.is_full(most) {
                break;
            }
            let (look, own) = (look.clone(), id.clone());
            let looked = self.engine.at(&id, move |core, now| {
                if let Some(key) = core.hub.find(&own)
                    && let Some(record) = core.hub.record(key)
                {
                    // Whether more fits on the page is asked above.
                    let _ = look(&mut found, Seen { hub: &core.hub, now, key, record });
                }
                found
            });
            found = looked.await;
        }
        vec![found]
    }

    /// The rows of a query that aggregates.
    async fn groups(&self, query: Arc<TwinQuery>) -> Result<Vec<String>, Error> {
        let asked = Arc::clone(&query);
        let applications = Arc::clone(&self.applications);
        let gathered = self.engine.look_through("", Groups::default(), move |groups, seen| {
            let row = TwinRow::new(seen, &applications);
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
fn wants(query: &TwinQuery, row: &TwinRow<'_>) -> bool {
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
    fn a_page_ends_where_its_rows_or_its_bytes_do() {
        let fits = |lengths: &[usize], most| fitting(lengths.iter().copied(), most);
        assert_eq!(fits(&[1, 1, 1], 2), 2);
        assert_eq!(fits(&[PAGE_BYTES - 1, 1, 1], 3), 2);
        assert_eq!(fits(&[PAGE_BYTES + 1, 1], 3), 1, "a page without rows would go on for ever");
        assert_eq!((fits(&[], 3), fits(&[1], 0)), (0, 0));
    }
}
