//! What a device does that does not speak MQTT: it sends telemetry, and receives cloud-to-device messages under a lock.

use devicebound::hub::{
    Commit, DeviceKey, FeedbackRequest, Hub, LockLost, LockToken, Operation, SequenceNumber, Telemetry,
};
use devicebound::iothub::PropertyBag;
use devicebound::limits::MESSAGE_MAX;
use devicebound::time::{Instant, UnixTime};

use super::{Backend, ClientId, Code, Error, find, safe};
use crate::clock::unix_time;
use crate::telemetry::sender::Sender;

/// A cloud-to-device message, locked for its receiver for [`CLOUD_MESSAGE_LOCK`](devicebound::limits::CLOUD_MESSAGE_LOCK).
/// What is not completed, rejected or abandoned by then is delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedMessage {
    /// Completes, rejects or abandons it.
    pub lock: LockToken,
    /// Its number in the queue.
    pub sequence: SequenceNumber,
    /// When it came into the queue.
    pub enqueued: UnixTime,
    /// From when on it is not delivered any more.
    pub expiry: UnixTime,
    /// What the back end wants to hear of it.
    pub ack: FeedbackRequest,
    /// How often it was delivered before.
    pub delivery_count: u32,
    /// Properties by their names on the wire, system properties as `$.…` included.
    pub properties: Vec<(String, Option<String>)>,
    /// The body.
    pub payload: Vec<u8>,
}

/// What becomes of a locked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The device is done with it.
    Complete,
    /// The device does not want it.
    Reject,
    /// It is to be delivered again.
    Abandon,
}

impl Backend {
    /// Stores a message of a device; `bag` is its property bag as MQTT has it.
    ///
    /// # Errors
    /// 404001, 400004 for a bag that is none, 413001, those of a tier; 503001 where it could not be stored.
    pub async fn send_telemetry(&self, id: &ClientId, bag: String, body: Vec<u8>) -> Result<(), Error> {
        let sent = self.at(id, move |core, now, id| {
            let device = find(core, id)?;
            let bag = PropertyBag::parse(&bag).map_err(|rule| Error::broken(Code::ArgumentInvalid, rule))?;
            let size = body.len().saturating_add(bag.message_size());
            if size > MESSAGE_MAX {
                let message = format!("a message has at most {MESSAGE_MAX} bytes, its properties included");
                return Err(Error::new(Code::MessageTooLarge, message));
            }
            core.hub.admit(now, Operation::Telemetry, size)?;
            let sender = core.hub.record(device).map(Sender::of).ok_or_else(Error::store_failed)?;
            let telemetry = Telemetry {
                device,
                bag,
                payload: &body,
                receipt: None,
                retain_property: None,
                is_dup: false,
                is_will: false,
            };
            Ok(core.telemetry_durably(&telemetry, &sender, unix_time()))
        });
        safe(sent.await?).await
    }

    /// Locks the next message of a device for whoever asks; `None` where there is none.
    ///
    /// # Errors
    /// 404001, those of a tier; 503001 where the lock could not be stored.
    pub async fn receive_message(&self, id: &ClientId) -> Result<Option<LockedMessage>, Error> {
        let locked = self.at(id, |core, now, id| {
            let key = find(core, id)?;
            let Some((lock, commit)) = core.hub.lock_message(now, key)? else { return Ok(None) };
            let change = core.commit_durably([commit]);
            let message = core.hub.record(key).and_then(|record| record.message(lock.sequence()));
            let message = message.map(|message| LockedMessage {
                lock,
                sequence: message.sequence,
                enqueued: message.enqueued,
                expiry: message.expiry,
                ack: message.ack,
                delivery_count: message.delivery_count,
                properties: message
                    .properties
                    .iter()
                    .map(|(name, value)| (name.into_owned(), value.map(|value| value.into_owned())))
                    .collect(),
                payload: message.payload.to_vec(),
            });
            Ok::<_, Error>(message.map(|message| (change, message)))
        });
        let Some((change, message)) = locked.await? else { return Ok(None) };
        safe(change).await?;
        Ok(Some(message))
    }

    /// Says what becomes of a locked message.
    ///
    /// # Errors
    /// 404001, 412002 where the lock is none, or not any more; 503001 where it could not be stored.
    pub async fn settle_message(&self, id: &ClientId, lock: &str, how: Settlement) -> Result<(), Error> {
        let token = LockToken::parse(lock.trim_matches('"')).ok_or(LockLost)?;
        let settle: fn(&mut Hub, Instant, DeviceKey, LockToken) -> Result<Commit, LockLost> = match how {
            Settlement::Complete => Hub::complete,
            Settlement::Reject => Hub::reject,
            Settlement::Abandon => Hub::abandon,
        };
        let settled = self.at(id, move |core, now, id| {
            let key = find(core, id)?;
            let commit = settle(&mut core.hub, now, key, token)?;
            Ok::<_, Error>(core.commit_durably([commit]))
        });
        safe(settled.await?).await
    }
}
