//! `GET /messages/events` and `GET /operations`: lines as they come.
//!
//! Query: `from` begins with a cursor, `after` behind one (`newest`: with the next line; default: the oldest that is kept),
//! `deviceId` leaves out other devices, `follow=false` ends when all that is kept was sent. Lines are NDJSON, or server-sent events
//! where `Accept` asks for `text/event-stream`; their ids are cursors, so `Last-Event-ID` goes on where a client was.
//!
//! Telemetry comes from the store: a reader that was away misses nothing, unless it was away for longer than the store
//! keeps. Then the stream says so, where it asked for a cursor, with a line `{"gap":{"from":…,"to":…,"why":…}}`, among
//! server-sent events an event `gap`. A cursor that has not come yet is of another store, and refused.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::{ApiError, Code, Shared, header};
use crate::log::{Entry, EventLog, Follower};
use crate::pages::Pages;

/// So often something is sent on a quiet stream, so that both ends see that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A chunk of this size waits for no further line.
const CHUNK: usize = 64 * 1024;

type Parameters = Query<HashMap<String, String>>;

pub(super) async fn telemetry(
    State(service): Shared,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    service.engine.bring_telemetry().await;
    Ok(Reader::new(Source::Telemetry(service.telemetry.clone()), &query, &headers)?.into_response())
}

pub(super) async fn operations(
    State(service): Shared,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let log = Arc::clone(&service.engine.operations.log);
    Ok(Reader::new(Source::Operations(log), &query, &headers)?.into_response())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    ServerSentEvents,
}

#[derive(Clone, Debug)]
enum Source {
    Telemetry(Pages),
    Operations(Arc<EventLog>),
}

impl Source {
    fn newest(&self) -> u64 {
        match self {
            Self::Telemetry(pages) => pages.newest(),
            Self::Operations(log) => log.newest(),
        }
    }

    /// The next lines behind `cursor`; none when there are no more.
    async fn page(&self, cursor: u64) -> io::Result<Vec<Entry>> {
        match self {
            Self::Telemetry(pages) if pages.newest() > cursor => pages.page(cursor).await,
            Self::Telemetry(_) => Ok(Vec::new()),
            Self::Operations(log) => Ok(log.after(cursor).into_iter().collect()),
        }
    }

    async fn wait_behind(&self, cursor: u64) {
        match self {
            Self::Telemetry(pages) => pages.wait_behind(cursor).await,
            Self::Operations(log) => drop(log.wait_after(cursor).await),
        }
    }
}

/// One client's place in a log.
#[derive(Debug)]
struct Reader {
    source: Source,
    format: Format,
    cursor: u64,
    /// It asked for a cursor, so it is told what is not kept any more.
    minds_gaps: bool,
    /// The source failed.
    is_over: bool,
    device_id: Option<String>,
    /// Ends behind this one: the newest when the client asked. `None` follows what comes.
    end: Option<u64>,
    /// While this is there, the log knows that somebody follows it.
    _follower: Option<Follower>,
}

impl Reader {
    fn new(source: Source, query: &HashMap<String, String>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let events = header(headers, "accept").is_some_and(|accept| accept.contains("text/event-stream"));
        let wrong =
            |_| ApiError::new(Code::ArgumentInvalid, "from and after are the cursor of a line, or newest");
        let from = query.get("from").filter(|from| *from != "newest");
        let after = header(headers, "last-event-id").or_else(|| query.get("after").map(String::as_str));
        let cursor = match (after, from) {
            (None, Some(from)) => Some(from.parse::<u64>().map_err(wrong)?.saturating_sub(1)),
            (None, None) if !query.contains_key("from") => None,
            (None | Some("newest"), _) => Some(source.newest()),
            (Some(cursor), _) => Some(cursor.parse().map_err(wrong)?),
        };
        let newest = source.newest();
        if let Some(ahead) = cursor.filter(|cursor| *cursor > newest) {
            // To wait for it would be to pass over all that comes until then.
            let message = format!(
                "line {ahead} has not come yet, the newest is {newest}: the cursor is of another store; begin with from=1"
            );
            return Err(ApiError::new(Code::ArgumentInvalid, message));
        }
        let follow = query.get("follow").is_none_or(|follow| follow != "false");
        let follower = match &source {
            Source::Operations(log) if follow => Some(log.follow()),
            Source::Operations(_) | Source::Telemetry(_) => None,
        };
        Ok(Self {
            // Taken once, or a reader that is no faster than the devices would never come to the end.
            end: if follow { None } else { Some(newest) },
            source,
            format: if events { Format::ServerSentEvents } else { Format::Lines },
            cursor: cursor.unwrap_or(0),
            minds_gaps: cursor.is_some(),
            is_over: false,
            device_id: query.get("deviceId").cloned(),
            _follower: follower,
        })
    }

    fn into_response(self) -> Response {
        let content_type = match self.format {
            Format::Lines => "application/x-ndjson",
            Format::ServerSentEvents => "text/event-stream",
        };
        let chunks = stream::unfold(self, |mut reader| async move {
            let chunk = reader.chunk().await?;
            Some((Ok::<_, Infallible>(chunk), reader))
        });
        ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], Body::from_stream(chunks))
            .into_response()
    }

    /// The next lines, or a sign of life; `None` at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = String::new();
        while !self.is_over && chunk.is_empty() {
            self.fill(&mut chunk).await;
            if self.end.is_some_and(|end| end <= self.cursor) {
                break;
            }
            let more = self.source.wait_behind(self.cursor);
            if chunk.is_empty() && !self.is_over && tokio::time::timeout(KEEP_ALIVE, more).await.is_err() {
                chunk.push_str(match self.format {
                    Format::Lines => "\n",
                    Format::ServerSentEvents => ":\n\n",
                });
            }
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// Appends what there is, as far as the chunk has room.
    async fn fill(&mut self, chunk: &mut String) {
        while chunk.len() < CHUNK {
            let newest = self.source.newest();
            let end = self.end.unwrap_or(newest);
            if self.cursor >= newest.min(end) {
                return;
            }
            match self.source.page(self.cursor).await {
                Ok(entries) if entries.is_empty() => self.pass(newest, chunk),
                Ok(entries) => {
                    for entry in &entries {
                        if self.end.is_some_and(|end| end < entry.cursor) {
                            return self.pass(end, chunk);
                        }
                        self.append(entry, chunk);
                    }
                }
                Err(error) => {
                    let error =
                        json!({"error": format!("cannot read the store: {error}; ask again from here")});
                    self.say("error", &error, chunk);
                    self.is_over = true;
                    return;
                }
            }
        }
    }

    /// The lines up to `to` are not kept any more.
    fn pass(&mut self, to: u64, chunk: &mut String) {
        if self.minds_gaps && to > self.cursor {
            let why = "these are not kept any more: see --retain-hours and --retain-mb";
            let gap = json!({"gap": {"from": self.cursor.saturating_add(1), "to": to, "why": why}});
            self.say("gap", &gap, chunk);
        }
        self.cursor = to;
    }

    fn append(&mut self, entry: &Entry, chunk: &mut String) {
        self.pass(entry.cursor.saturating_sub(1), chunk);
        self.minds_gaps = true;
        self.cursor = entry.cursor;
        if self.device_id.as_deref().is_some_and(|device_id| device_id != &*entry.device_id) {
            return;
        }
        match self.format {
            Format::Lines => chunk.extend([&*entry.line, "\n"]),
            Format::ServerSentEvents => {
                chunk.extend(["id: ", &entry.cursor.to_string(), "\ndata: ", &*entry.line, "\n\n"]);
            }
        }
    }

    /// What is said about the stream itself.
    fn say(&self, event: &str, line: &Value, chunk: &mut String) {
        match self.format {
            Format::Lines => chunk.extend([&line.to_string(), "\n"]),
            Format::ServerSentEvents => {
                chunk.extend(["event: ", event, "\ndata: ", &line.to_string(), "\n\n"]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::telemetry as batch;
    use crate::store::{MemoryStore, Retention, Store as _};

    fn reader(query: &[(&str, &str)], headers: &[(&'static str, &'static str)]) -> Reader {
        ask(query, headers).unwrap()
    }

    /// Asks a log of three lines.
    fn ask(query: &[(&str, &str)], headers: &[(&'static str, &'static str)]) -> Result<Reader, ApiError> {
        let log = EventLog::default();
        for (device_id, line) in [("a", "1"), ("b", "2"), ("a", "3")] {
            log.append(device_id.into(), |_| line.to_owned());
        }
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Reader::new(Source::Operations(Arc::new(log)), &query, &headers)
    }

    async fn all(mut reader: Reader) -> String {
        let mut text = String::new();
        while let Some(chunk) = reader.chunk().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn all_that_is_kept_is_sent_and_then_the_stream_ends_if_asked_to() {
        assert_eq!(all(reader(&[("follow", "false")], &[])).await, "1\n2\n3\n");
        assert_eq!(all(reader(&[("follow", "false"), ("after", "2")], &[])).await, "3\n");
        assert_eq!(all(reader(&[("follow", "false"), ("after", "newest")], &[])).await, "");
        assert_eq!(all(reader(&[("follow", "false"), ("deviceId", "a")], &[])).await, "1\n3\n");
    }

    /// A store that keeps almost nothing, with `messages` messages of which the last is kept if `keeps` is set.
    fn telemetry(messages: usize, keeps: bool) -> (MemoryStore, Source) {
        let size = batch(&["dev"]).blocks[0].as_bytes().len() as u64;
        let retention = Retention { bytes: if keeps { size } else { 0 }, ..Retention::default() };
        let mut store = MemoryStore::new(retention);
        for _ in 0..messages {
            let _ = store.commit(batch(&["dev"])).unwrap();
        }
        let source = source(&store);
        (store, source)
    }

    fn source(store: &MemoryStore) -> Source {
        Source::Telemetry(Pages::of(store.telemetry()).unwrap())
    }

    fn from(source: &Source, query: &[(&str, &str)]) -> Reader {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Reader::new(source.clone(), &query, &HeaderMap::new()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_hears_what_is_not_kept_any_more_if_it_asked_for_it() {
        let (_store, source) = telemetry(5, true);
        let text = all(from(&source, &[("from", "2"), ("follow", "false")])).await;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines[0]["gap"]["from"].as_u64(), lines[0]["gap"]["to"].as_u64()), (Some(2), Some(4)));
        assert_eq!(lines[1]["cursor"], 5);
        let text = all(from(&source, &[("follow", "false")])).await;
        assert_eq!(text.lines().count(), 1, "whoever begins with the oldest misses nothing: {text}");

        let (_store, source) = telemetry(5, false);
        let text = all(from(&source, &[("from", "1"), ("follow", "false")])).await;
        assert!(text.contains(r#""to":5"#), "{text}");
        assert_eq!(text.lines().count(), 1, "nothing is kept: {text}");
    }

    #[test]
    fn a_cursor_of_another_store_is_refused_and_not_waited_for() {
        for query in [("from", "5"), ("after", "4"), ("after", "18446744073709551615")] {
            let refused = ask(&[query], &[]).unwrap_err();
            assert!(refused.to_string().contains("the newest is 3"), "{query:?}: {refused}");
        }
        assert!(ask(&[], &[("last-event-id", "4")]).is_err());
        for query in [("from", "4"), ("after", "3")] {
            assert!(ask(&[query], &[]).is_ok(), "{query:?} begins with the next line");
        }
    }

    #[tokio::test]
    async fn whoever_asks_for_what_is_kept_gets_no_more_than_that() {
        let mut store = MemoryStore::default();
        let _ = store.commit(batch(&["a", "b"])).unwrap();
        let reader = from(&source(&store), &[("follow", "false")]);
        let _ = store.commit(batch(&["c"])).unwrap();
        assert_eq!(all(reader).await.lines().count(), 2);
    }

    #[tokio::test]
    async fn server_sent_events_go_on_where_the_client_was() {
        let headers = [("accept", "text/event-stream"), ("last-event-id", "1")];
        assert_eq!(
            all(reader(&[("follow", "false")], &headers)).await,
            "id: 2\ndata: 2\n\nid: 3\ndata: 3\n\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_shows_that_it_lives() {
        let mut reader = reader(&[("after", "newest")], &[]);
        assert_eq!(reader.chunk().await.unwrap(), "\n");
    }
}
