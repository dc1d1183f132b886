//! `$management`: what the event hub and its partitions are.

use std::io;

use devicebound::time::UnixTime;
use devicebound_amqp::message::{Message, begin_value};
use devicebound_amqp::types::Writer as _;

use super::requests::{Status, answer};
use super::{Amqp, EVENT_HUB};

const HUB: &str = "com.microsoft:eventhub";
const PARTITION: &str = "com.microsoft:partition";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Hub,
    Partition(u16),
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
            Ok(Question::Partition(number)) => {
                // So that what was acknowledged before it was asked counts.
                self.engine.bring_telemetry().await;
                self.facts(number).await.map(Some)
            }
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
            (Question::Partition(number), Some(facts)) => write_partition(number, &facts, &mut tx),
            _ => self.write_hub(&mut tx),
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
        if !name.eq_ignore_ascii_case(EVENT_HUB) {
            return Err((404, not_found(name), "amqp:not-found"));
        }
        match text("type") {
            Some(HUB) => Ok(Question::Hub),
            Some(PARTITION) => {
                let id = text("partition").unwrap_or_default();
                let count = self.telemetry.log().partitions().count();
                self.partition(id).map(Question::Partition).ok_or_else(|| {
                    let text = format!(
                        "there is no partition `{id}`: this hub has 0 to {}",
                        count.saturating_sub(1)
                    );
                    (404, text, "amqp:not-found")
                })
            }
            _ => Err(wrong("the type is com.microsoft:eventhub or com.microsoft:partition")),
        }
    }

    /// The number of a partition by its id.
    pub(super) fn partition(&self, id: &str) -> Option<u16> {
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let number = id.parse().ok().filter(|_| is_id)?;
        (number < self.telemetry.log().partitions().count()).then_some(number)
    }

    async fn facts(&self, number: u16) -> io::Result<Facts> {
        let oldest = self.telemetry.read(|log| log.head_of(0)).await?;
        let counted = self.telemetry.log().partitions();
        let own = counted.get(number).copied().unwrap_or_default();
        let begin = oldest.and_then(|head| head.before.get(number).map(|before| before.next));
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(Facts {
            begin: signed(begin.unwrap_or(own.next)),
            last: signed(own.next).saturating_sub(1),
            offset: if own.last == 0 { "-1".to_owned() } else { own.last.to_string() },
            enqueued: own.enqueued,
        })
    }

    fn write_hub(&self, tx: &mut Vec<u8>) {
        let count = self.telemetry.log().partitions().count();
        let map = tx.begin_map();
        tx.string("name");
        tx.string(EVENT_HUB);
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

fn write_partition(number: u16, facts: &Facts, tx: &mut Vec<u8>) {
    let map = tx.begin_map();
    tx.string("name");
    tx.string(EVENT_HUB);
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

/// Milliseconds for a timestamp.
pub(super) fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
