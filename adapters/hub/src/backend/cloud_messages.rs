//! Cloud-to-device messages from the back end's side.

use devicebound::hub::{CloudMessage, SequenceNumber};

use super::feedback::drop_old;
use super::{Backend, ClientId, Error, find, safe};
use crate::clock::unix_time;

impl Backend {
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
