//! `GET /messages/events`, `GET /timeline` and `GET /operations`: lines as they come.
//!
//! Query: `from` begins with a cursor, `after` after one (`newest`: with the next line; default: the oldest that is kept),
//! `deviceId` leaves out other devices, `follow=false` ends when all that is kept was sent. Lines are NDJSON, or server-sent events
//! where `Accept` asks for `text/event-stream`; their ids are cursors, so `Last-Event-ID` goes on where a client was.
//!
//! A gap is told with a line `{"gap":{"from":…,"to":…,"why":…}}`, among server-sent events with an event `gap`. A stream is
//! good for as long as the token that opened it, and ends with a line `{"expired":{"cursor":…,"why":…}}`.
//!
//! `GET /streams?of=/timeline?deviceId=demo&of=/operations` joins several as server-sent events; each `of` has its queries as
//! above, percent-encoded. An event `of` says by its number, from 0, whose events follow. A stream whose cursor has not come
//! yet, as it is of the hub before it was started again, begins with the oldest after an event `restarted`.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use devicebound::time::UnixTime;
use futures_util::stream::{self, Stream, StreamExt as _};
use serde_json::{Value, json};

use super::call::values;
use super::{ApiError, Backend, Call, Shared};
use crate::backend::Error;
use crate::backend::events::{Begin, EventReader, Item, Wanted};
use crate::clock::unix_time;
use crate::store::{Gap, Position};
use crate::telemetry::message::Message;

/// So often something is sent on a quiet stream, so that both ends see that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// So often a stream looks whether its token has expired: the wall clock may be set meanwhile.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);
/// Streams that one response may join (own limit): a browser opens six connections to a host, and all tabs share them.
const JOINED_MAX: usize = 8;
/// A chunk of this size waits for no further line.
const CHUNK: usize = 64 * 1024;

pub(super) async fn telemetry(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let reader = backend.read_telemetry(wanted_of(&call)?, line).await?;
    Ok(Encoder::new(reader, &call).into_response())
}

pub(super) async fn operations(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let reader = Backend::read_operations(&backend, wanted_of(&call)?)?;
    Ok(Encoder::new(reader, &call).into_response())
}

pub(super) async fn timeline(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let reader = Backend::read_timeline(&backend, wanted_of(&call)?)?;
    Ok(Encoder::new(reader, &call).into_response())
}

pub(super) async fn joined(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let paths: Vec<String> = values(call.raw_query(), "of").take(JOINED_MAX.saturating_add(1)).collect();
    if paths.is_empty() || paths.len() > JOINED_MAX {
        let what =
            format!("the query has 1 to {JOINED_MAX} streams: of=/timeline%3FdeviceId%3Ddemo&of=/operations");
        return Err(Error::invalid(what).into());
    }
    let mut streams = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let (reader, note) = open(&backend, path).await?;
        let expiry = call.caller.expiry;
        let encoder = Encoder { reader, format: Format::ServerSentEvents, expiry, is_over: false };
        let chunks = stream::iter(note).chain(encoder.into_chunks());
        streams.push(chunks.map(move |chunk| format!("event: of\ndata: {index}\n\n{chunk}")).boxed());
    }
    Ok(respond(Format::ServerSentEvents, stream::select_all(streams)))
}

/// The reader of one of the streams that are joined, and what is said before its first event. One position that is of
/// another store, or of the hub before it was started again, ends no other stream: its own begins with the oldest.
async fn open(backend: &Shared, path: &str) -> Result<(EventReader, Option<String>), Error> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let wanted = wanted(query, None)?;
    match read(backend, path, wanted.clone()).await {
        Ok(reader) => Ok((reader, None)),
        Err(error) if matches!(wanted.begin, Begin::After(_)) => {
            let note = format!("event: restarted\ndata: {}\n\n", json!({"restarted": error.to_string()}));
            Ok((read(backend, path, Wanted { begin: Begin::Oldest, ..wanted }).await?, Some(note)))
        }
        Err(error) => Err(error),
    }
}

async fn read(backend: &Shared, path: &str, wanted: Wanted) -> Result<EventReader, Error> {
    match path {
        "/messages/events" => backend.read_telemetry(wanted, line).await,
        "/timeline" => Backend::read_timeline(backend, wanted),
        "/operations" => Backend::read_operations(backend, wanted),
        _ => Err(Error::invalid("of is /messages/events, /timeline or /operations, each with its query")),
    }
}

/// A message as JSON, with the names of Event Hubs.
fn line(cursor: u64, message: &Message<'_>, out: &mut String) {
    message.write_line(cursor, out);
}

/// What query and headers ask for.
fn wanted_of(call: &Call) -> Result<Wanted, Error> {
    wanted(call.raw_query(), call.header("last-event-id"))
}

fn wanted(query: &str, last_event_id: Option<&str>) -> Result<Wanted, Error> {
    let wrong = |_| Error::invalid("from and after are the cursor of a line, or newest");
    let first = |name| values(query, name).next();
    let (from, after) = (first("from"), last_event_id.map(str::to_owned));
    let begin = match (after.or_else(|| first("after")).as_deref(), from.as_deref()) {
        (None, None) => Begin::Oldest,
        (Some("newest"), _) | (None, Some("newest")) => Begin::Newest,
        (Some(after), _) => Begin::After(Position::after(after.parse().map_err(wrong)?)),
        (None, Some(from)) => Begin::After(Position::before(from.parse().map_err(wrong)?)),
    };
    let ends = first("follow").is_some_and(|follow| follow == "false");
    Ok(Wanted { begin, device_id: first("deviceId"), ends })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    ServerSentEvents,
}

fn respond(format: Format, chunks: impl Stream<Item = String> + Send + 'static) -> Response {
    let content_type = match format {
        Format::Lines => "application/x-ndjson",
        Format::ServerSentEvents => "text/event-stream",
    };
    let body = Body::from_stream(chunks.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], body).into_response()
}

/// Turns what a reader is given into the chunks of one response.
#[derive(Debug)]
struct Encoder {
    reader: EventReader,
    format: Format,
    /// From when on the token of the request is not good any more.
    expiry: Option<UnixTime>,
    is_over: bool,
}

impl Encoder {
    fn new(reader: EventReader, call: &Call) -> Self {
        let events = call.header("accept").is_some_and(|accept| accept.contains("text/event-stream"));
        let format = if events { Format::ServerSentEvents } else { Format::Lines };
        Self { reader, format, expiry: call.caller.expiry, is_over: false }
    }

    fn into_response(self) -> Response {
        respond(self.format, self.into_chunks())
    }

    fn into_chunks(self) -> impl Stream<Item = String> + Send {
        stream::unfold(self, |mut encoder| async move { Some((encoder.chunk().await?, encoder)) })
    }

    /// The next lines, or a sign of life; `None` at the end.
    async fn chunk(&mut self) -> Option<String> {
        let mut chunk = String::new();
        let mut quiet = Duration::ZERO;
        while chunk.is_empty() && !self.is_over {
            if self.expiry.is_some_and(|expiry| unix_time() >= expiry) {
                self.is_over = true;
                let why =
                    "the token that opened this stream has expired: go on after this cursor with another one";
                let expired = json!({"expired": {"cursor": self.reader.cursor(), "why": why}});
                self.say("expired", &expired, &mut chunk);
                break;
            }
            for item in self.reader.available(CHUNK).await {
                self.append(&item, &mut chunk);
            }
            if self.reader.is_over() {
                self.is_over = true;
            } else if chunk.is_empty() {
                if tokio::time::timeout(EXPIRY_CHECK, self.reader.wait()).await.is_err() {
                    quiet = quiet.saturating_add(EXPIRY_CHECK);
                }
                if quiet >= KEEP_ALIVE {
                    chunk.push_str(match self.format {
                        Format::Lines => "\n",
                        Format::ServerSentEvents => ":\n\n",
                    });
                }
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    fn append(&self, item: &Item, chunk: &mut String) {
        match (item, self.format) {
            (Item::Event(entry), Format::Lines) => chunk.extend([&*entry.line, "\n"]),
            (Item::Event(entry), Format::ServerSentEvents) => {
                chunk.extend(["id: ", &entry.cursor.to_string(), "\ndata: ", &*entry.line, "\n\n"]);
            }
            (Item::Gap(Gap { from, to }), _) => {
                let why = "these are not kept any more: see --retain-hours and --retain-mb";
                self.say("gap", &json!({"gap": {"from": from, "to": to, "why": why}}), chunk);
            }
            (Item::Failed(error), _) => {
                let error = format!("cannot read the store: {error}; ask again from here");
                self.say("error", &json!({"error": error}), chunk);
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
    use std::sync::Arc;

    use super::*;
    use crate::observe::event_log::{EventLog, Standing};
    use crate::store::reader::TelemetryReader;
    use crate::store::tests::telemetry as batch;
    use crate::store::{MemoryStore, Retention, Store as _};

    fn encoder(reader: EventReader, format: Format) -> Encoder {
        Encoder { reader, format, expiry: None, is_over: false }
    }

    /// Asks a log of three lines.
    fn ask(wanted: Wanted) -> Result<EventReader, Error> {
        let log = EventLog::default();
        for (device_id, line) in [("a", "1"), ("b", "2"), ("a", "3")] {
            log.append(device_id.into(), Standing::Known, |_| line.to_owned());
        }
        EventReader::of_log(Arc::new(log), wanted)
    }

    async fn all(mut encoder: Encoder) -> String {
        let mut text = String::new();
        while let Some(chunk) = encoder.chunk().await {
            text.push_str(&chunk);
        }
        text
    }

    async fn lines_of(wanted: Wanted) -> String {
        all(encoder(ask(wanted).unwrap(), Format::Lines)).await
    }

    fn after(cursor: u64) -> Begin {
        Begin::After(Position::after(cursor))
    }

    fn kept(begin: Begin) -> Wanted {
        Wanted { begin, device_id: None, ends: true }
    }

    #[tokio::test]
    async fn all_that_is_kept_is_sent_and_then_the_stream_ends_if_asked_to() {
        assert_eq!(lines_of(kept(Begin::Oldest)).await, "1\n2\n3\n");
        assert_eq!(lines_of(kept(after(2))).await, "3\n");
        assert_eq!(lines_of(kept(Begin::Newest)).await, "");
        let of_a = Wanted { device_id: Some("a".to_owned()), ..kept(Begin::Oldest) };
        assert_eq!(lines_of(of_a).await, "1\n3\n");
    }

    /// A store that keeps almost nothing, with `messages` messages of which the last is kept if `keeps` is set.
    fn store_of(messages: usize, keeps: bool) -> MemoryStore {
        let size = batch(&["dev"]).blocks[0].as_bytes().len() as u64;
        let retention = Retention { bytes: if keeps { size } else { 0 }, ..Retention::default() };
        let mut store = MemoryStore::new(retention);
        for _ in 0..messages {
            let _ = store.commit(batch(&["dev"])).unwrap();
        }
        store
    }

    fn from(store: &MemoryStore, begin: Begin) -> Encoder {
        let reader = TelemetryReader::of(store.telemetry()).unwrap();
        encoder(EventReader::of_telemetry(reader, kept(begin), line).unwrap(), Format::Lines)
    }

    #[tokio::test]
    async fn a_reader_hears_what_is_not_kept_any_more_if_it_asked_for_it() {
        let store = store_of(5, true);
        let text = all(from(&store, after(1))).await;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines[0]["gap"]["from"].as_u64(), lines[0]["gap"]["to"].as_u64()), (Some(2), Some(4)));
        assert_eq!(lines[1]["cursor"], 5);
        let text = all(from(&store, Begin::Oldest)).await;
        assert_eq!(text.lines().count(), 1, "whoever begins with the oldest misses nothing: {text}");

        let store = store_of(5, false);
        let text = all(from(&store, after(0))).await;
        assert!(text.contains(r#""to":5"#), "{text}");
        assert_eq!(text.lines().count(), 1, "nothing is kept: {text}");
    }

    #[test]
    fn a_cursor_of_another_store_is_refused_and_not_waited_for() {
        for ahead in [4, u64::MAX] {
            let refused = ask(kept(after(ahead))).unwrap_err();
            assert!(refused.to_string().contains("the newest is 3"), "{ahead}: {refused}");
        }
        assert!(ask(kept(after(3))).is_ok(), "it begins with the next line");
    }

    #[tokio::test]
    async fn whoever_asks_for_what_is_kept_gets_no_more_than_that() {
        let mut store = MemoryStore::default();
        let _ = store.commit(batch(&["a", "b"])).unwrap();
        let reader = from(&store, Begin::Oldest);
        let _ = store.commit(batch(&["c"])).unwrap();
        assert_eq!(all(reader).await.lines().count(), 2);
    }

    #[tokio::test]
    async fn server_sent_events_have_cursors_as_ids() {
        let reader = ask(kept(after(1))).unwrap();
        assert_eq!(
            all(encoder(reader, Format::ServerSentEvents)).await,
            "id: 2\ndata: 2\n\nid: 3\ndata: 3\n\n"
        );
    }

    fn follow() -> EventReader {
        ask(Wanted { begin: Begin::Newest, device_id: None, ends: false }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_shows_that_it_lives() {
        assert_eq!(encoder(follow(), Format::Lines).chunk().await.unwrap(), "\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_token_expires_and_says_so() {
        let expired = Encoder { expiry: Some(unix_time()), ..encoder(follow(), Format::Lines) };
        let text = all(expired).await;
        assert!(text.contains("expired"), "{text}");
        let later = Some(unix_time().after(Duration::from_secs(3600)));
        let mut good = Encoder { expiry: later, ..encoder(follow(), Format::Lines) };
        assert_eq!(good.chunk().await.unwrap(), "\n");
    }
}
