//! Cloud-to-device messages from the back end's side.

use devicebound::hub::{CloudMessage, FeedbackRequest, SequenceNumber};
use devicebound::time::UnixTime;

use super::feedback::drop_old;
use super::{Backend, ClientId, Error, find, safe};
use crate::clock::unix_time;

/// A message that waits in the queue of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its place in the queue.
    pub sequence: SequenceNumber,
    /// `$.mid`.
    pub message_id: Option<String>,
    /// All properties, those of the system too, as they stand in the topic.
    pub properties: String,
    /// The body.
    pub body: Vec<u8>,
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// When it is of no use any more.
    pub expiry: UnixTime,
    /// Which feedback is wanted.
    pub ack: FeedbackRequest,
    /// How often it was delivered in vain.
    pub delivery_count: u32,
    /// A receiver over HTTP holds it.
    pub is_locked: bool,
}

impl Backend {
    /// The messages that wait for a device, oldest first; at most 50.
    ///
    /// # Errors
    /// 404001.
    pub async fn queue(&self, device: &ClientId) -> Result<Vec<Queued>, Error> {
        self.at(device, |core, _, id| {
            let record = core.hub.record(find(core, id)?).ok_or_else(Error::store_failed)?;
            let messages = record.waiting().filter_map(|sequence| record.message(sequence));
            Ok(messages
                .map(|message| Queued {
                    sequence: message.sequence,
                    message_id: message.message_id.map(str::to_owned),
                    properties: message.properties.as_str().to_owned(),
                    body: message.payload.to_vec(),
                    enqueued: message.enqueued,
                    expiry: message.expiry,
                    ack: message.ack,
                    delivery_count: message.delivery_count,
                    is_locked: message.is_locked,
                })
                .collect())
        })
        .await
    }

    /// Puts a message into the queue of a device; it is kept when this returns.
    ///
    /// # Errors
    /// 404001 for a module, too, 403004 where the queue is full, 413001, 403009 where it has expired, 400004 where its
    /// properties cannot be carried; 503001 where it could not be stored.
    pub async fn send_cloud_message(
        &self,
        device: &ClientId,
        message: CloudMessage,
    ) -> Result<SequenceNumber, Error> {
        let enqueued = self.at(device, move |core, now, id| {
            let key = find(core, id)?;
            drop_old(&mut core.hub, key, unix_time());
            let (sequence, commit) = core.hub.enqueue(now, key, message)?;
            Ok::<_, Error>((sequence, core.commit_durably([commit])))
        });
        let (sequence, change) = enqueued.await?;
        safe(change).await?;
        Ok(sequence)
    }

    /// Empties the queue of a device; gives how many messages there were.
    ///
    /// # Errors
    /// 404001; 503001 where that could not be stored.
    pub async fn purge(&self, device: &ClientId) -> Result<usize, Error> {
        let purged = self.at(device, |core, now, id| {
            let key = find(core, id)?;
            let (purged, commit) = core.hub.purge(now, key).ok_or_else(Error::store_failed)?;
            Ok::<_, Error>((core.commit_durably([commit]), purged))
        });
        let (change, purged) = purged.await?;
        safe(change).await?;
        Ok(purged)
    }
}
