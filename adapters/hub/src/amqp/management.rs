//! `$management`: what the event hub and its partitions are.

use std::io;

use devicebound::time::UnixTime;
use devicebound_amqp::message::{Message, begin_value};
use devicebound_amqp::types::Writer as _;

use super::address::Source;
use super::event_message::millis;
use super::requests::{Status, answer};
use super::{Amqp, EVENT_HUB, operations};
use crate::store::partitions::Partition;

const HUB: &str = "com.microsoft:eventhub";
const PARTITION: &str = "com.microsoft:partition";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Hub(Source),
    Partition(Source, u16),
}

/// What is known of a partition.
struct Facts {
    begin: i64,
    last: i64,
    offset: String,
    enqueued: UnixTime,
}

impl Amqp {
    /// Answers one request.
    pub(super) async fn manage(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let request = Message::decode(bytes).ok()?;
        let question = self.question(&request);
        let facts = match question {
            Ok(Question::Partition(Source::Telemetry, number)) => {
                // So that what was acknowledged before it was asked counts.
                self.engine.bring_telemetry().await;
                self.facts(number).await.map(Some)
            }
            Ok(Question::Partition(Source::Operations, _)) => Ok(Some(self.facts_of_operations())),
            _ => Ok(None),
        };
        let (question, facts) = match (question, facts) {
            (Ok(question), Ok(facts)) => (question, facts),
            (Ok(_), Err(error)) => {
                let text = format!("cannot read the store: {error}");
                return Some(failed(&request, 500, &text, "amqp:internal-error"));
            }
            (Err((code, text, condition)), _) => return Some(failed(&request, code, &text, condition)),
        };
        let mut tx = answer(&request, Status { code: 200, description: "OK", condition: None });
        begin_value(&mut tx);
        match (question, facts) {
            (Question::Partition(source, number), Some(facts)) => {
                write_partition(source, number, &facts, &mut tx);
            }
            (Question::Hub(source) | Question::Partition(source, _), _) => self.write_hub(source, &mut tx),
        }
        Some(tx)
    }

    fn question(&self, request: &Message<'_>) -> Result<Question, (i32, String, &'static str)> {
        let text = |name| request.application_property(name).and_then(|value| value.text());
        let wrong = |text: &str| (400, text.to_owned(), "com.microsoft:argument-error");
        if text("operation").is_none_or(|operation| !operation.eq_ignore_ascii_case("READ")) {
            return Err(wrong("the operation is READ"));
        }
        let name = text("name").unwrap_or_default();
        let source =
            Source::named(name.trim_matches('/')).ok_or_else(|| (404, not_found(name), "amqp:not-found"))?;
        match text("type") {
            Some(HUB) => Ok(Question::Hub(source)),
            Some(PARTITION) => {
                let id = text("partition").unwrap_or_default();
                let number = self.partition(source, id).ok_or_else(|| {
                    let last = self.partition_count(source).saturating_sub(1);
                    let text = format!("there is no partition `{id}`: this hub has 0 to {last}");
                    (404, text, "amqp:not-found")
                })?;
                Ok(Question::Partition(source, number))
            }
            _ => Err(wrong("the type is com.microsoft:eventhub or com.microsoft:partition")),
        }
    }

    /// The number of a partition by its id.
    pub(super) fn partition(&self, source: Source, id: &str) -> Option<u16> {
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let number = id.parse().ok().filter(|_| is_id)?;
        (number < self.partition_count(source)).then_some(number)
    }

    /// How many partitions an event hub has.
    pub(super) fn partition_count(&self, source: Source) -> u16 {
        match source {
            Source::Telemetry => self.telemetry.log().partitions().count(),
            Source::Operations => 1,
        }
    }

    fn facts_of_operations(&self) -> Facts {
        let log = &self.engine.operations.log;
        let newest = operations::partition(log);
        let oldest = log.after(0).map_or(newest.next, |entry| entry.cursor.saturating_sub(1));
        Facts::of(&newest, oldest)
    }

    async fn facts(&self, number: u16) -> io::Result<Facts> {
        let oldest = self.telemetry.read(|log| log.head_of(0)).await?;
        let own = self.telemetry.log().partition(number);
        let begin = oldest.and_then(|head| head.before.get(number).map(|before| before.next));
        Ok(Facts::of(&own, begin.unwrap_or(own.next)))
    }

    fn write_hub(&self, source: Source, tx: &mut Vec<u8>) {
        let count = self.partition_count(source);
        let map = tx.begin_map();
        tx.string("name");
        tx.string(source.name());
        tx.string("type");
        tx.string(HUB);
        tx.string("created_at");
        tx.timestamp(millis(self.created));
        tx.string("partition_count");
        tx.int(count.into());
        tx.string("partition_ids");
        let ids = tx.begin_string_array();
        (0..count).for_each(|number| tx.element(&number.to_string()));
        tx.end(ids, count.into());
        tx.string("georeplication_factor");
        tx.int(1);
        tx.end(map, 12);
    }
}

impl Facts {
    /// Those of a partition whose oldest event has this sequence number.
    fn of(partition: &Partition, begin: u64) -> Self {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            begin: signed(begin),
            last: signed(partition.next).saturating_sub(1),
            offset: if partition.last == 0 { "-1".to_owned() } else { partition.last.to_string() },
            enqueued: partition.enqueued,
        }
    }
}

fn write_partition(source: Source, number: u16, facts: &Facts, tx: &mut Vec<u8>) {
    let map = tx.begin_map();
    tx.string("name");
    tx.string(source.name());
    tx.string("type");
    tx.string(PARTITION);
    tx.string("partition");
    tx.string(&number.to_string());
    tx.string("begin_sequence_number");
    tx.long(facts.begin);
    tx.string("last_enqueued_sequence_number");
    tx.long(facts.last);
    tx.string("last_enqueued_offset");
    tx.string(&facts.offset);
    tx.string("last_enqueued_time_utc");
    tx.timestamp(millis(facts.enqueued));
    tx.string("is_partition_empty");
    tx.boolean(facts.begin > facts.last);
    tx.end(map, 16);
}

fn failed(request: &Message<'_>, code: i32, description: &str, condition: &str) -> Vec<u8> {
    let mut tx = answer(request, Status { code, description, condition: Some(condition) });
    begin_value(&mut tx);
    tx.null();
    tx
}

/// The sentence by which .NET and Java tell a name that is wrong from one that is not there yet.
pub(super) fn not_found(name: &str) -> String {
    format!("The messaging entity '{name}' could not be found; fix: the event hub of this hub is {EVENT_HUB}")
}
