//! `GET /messages/events` and `GET /operations`: lines as they come.
//!
//! Query: `after` begins behind a cursor (`newest`: with the next line; default 0: the oldest that is kept), `deviceId`
//! leaves out other devices, `follow=false` ends when all that is kept was sent. Lines are NDJSON, or server-sent events
//! where `Accept` asks for `text/event-stream`; their ids are cursors, so `Last-Event-ID` goes on where a client was.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::{ApiError, Code, Shared, header};
use crate::log::{Entry, EventLog};

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
    Ok(Reader::new(Arc::clone(&service.telemetry), &query, &headers)?.into_response())
}

pub(super) async fn operations(
    State(service): Shared,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(Reader::new(Arc::clone(&service.engine.operations.log), &query, &headers)?.into_response())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    ServerSentEvents,
}

/// One client's place in a log.
#[derive(Debug)]
struct Reader {
    log: Arc<EventLog>,
    format: Format,
    cursor: u64,
    device_id: Option<String>,
    follow: bool,
}

impl Reader {
    fn new(
        log: Arc<EventLog>,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        let events = header(headers, "accept").is_some_and(|accept| accept.contains("text/event-stream"));
        let after = header(headers, "last-event-id").or_else(|| query.get("after").map(String::as_str));
        let cursor = match after {
            None => 0,
            Some("newest") => log.newest(),
            Some(cursor) => {
                let wrong =
                    |_| ApiError::new(Code::ArgumentInvalid, "after is the cursor of a line, or newest");
                cursor.parse().map_err(wrong)?
            }
        };
        Ok(Self {
            log,
            format: if events { Format::ServerSentEvents } else { Format::Lines },
            cursor,
            device_id: query.get("deviceId").cloned(),
            follow: query.get("follow").is_none_or(|follow| follow != "false"),
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
        while chunk.len() < CHUNK
            && let Some(entry) = self.log.after(self.cursor)
        {
            self.append(&entry, &mut chunk);
        }
        if chunk.is_empty() && self.follow {
            match tokio::time::timeout(KEEP_ALIVE, self.log.wait_after(self.cursor)).await {
                Ok(entry) => self.append(&entry, &mut chunk),
                Err(_) => chunk.push_str(match self.format {
                    Format::Lines => "\n",
                    Format::ServerSentEvents => ":\n\n",
                }),
            }
        }
        (self.follow || !chunk.is_empty()).then(|| chunk.into())
    }

    fn append(&mut self, entry: &Entry, chunk: &mut String) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(query: &[(&str, &str)], headers: &[(&'static str, &'static str)]) -> Reader {
        let log = EventLog::default();
        for (device_id, line) in [("a", "1"), ("b", "2"), ("a", "3")] {
            log.append(device_id.into(), |_| line.to_owned());
        }
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Reader::new(Arc::new(log), &query, &headers).unwrap()
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
