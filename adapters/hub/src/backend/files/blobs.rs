//! What the storage is asked for, with the store behind it.

use std::sync::Arc;

use devicebound::time::UnixTime;

use super::Files;
use crate::backend::{Backend, Error, detached};
use crate::clock::unix_time;
use crate::storage::Storage;
use crate::storage::blob::Blob;
use crate::storage::fault::{Fault, FaultCode};
use crate::storage::incoming::Whole;
use crate::storage::name::BlobName;
use crate::storage::staged::BlockId;

/// What must be for a blob to be written (RFC 9110 §13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-None-Match: *`: there is no such blob.
    pub is_new: bool,
    /// `If-Match`: its ETag, or `*`.
    pub etag: Option<String>,
}

impl Conditions {
    fn check(&self, blob: Option<&Blob>) -> Result<(), Fault> {
        let etag = blob.map(|blob| blob.properties().etag());
        if self.is_new && etag.is_some() {
            let what = "there is a blob of this name, and the request must not replace one";
            return Err(Fault::new(FaultCode::BlobAlreadyExists, what, "take another name, or overwrite"));
        }
        match &self.etag {
            Some(wanted) if etag.as_ref().is_none_or(|etag| wanted != "*" && wanted != etag) => {
                let what = format!(
                    "If-Match names {wanted}, and the blob has {}",
                    etag.as_deref().unwrap_or("none")
                );
                Err(Fault::new(FaultCode::ConditionNotMet, what, "read the blob's properties again"))
            }
            _ => Ok(()),
        }
    }
}

/// What a blob is made of.
#[derive(Debug)]
pub enum Source {
    /// Put Blob: the body.
    Body(Whole),
    /// Put Block List: blocks that were sent.
    Blocks(Vec<BlockId>),
}

impl Files {
    /// Where the files are.
    #[must_use]
    pub const fn storage(&self) -> &Storage {
        &self.storage
    }
}

impl Backend {
    /// The storage.
    ///
    /// # Errors
    /// 503 where the hub has none.
    pub fn storage(&self) -> Result<&Storage, Fault> {
        let none = |error: Error| {
            Fault::new(FaultCode::ServerBusy, error.what().to_owned(), "start it as `devicebound hub`")
        };
        Ok(self.files().map_err(none)?.storage())
    }

    /// Keeps a block for a list that will name it.
    ///
    /// # Errors
    /// Those of [`Storage::stage`].
    pub async fn put_block(&self, name: &BlobName, id: BlockId, block: Whole) -> Result<(), Fault> {
        self.storage()?.stage(name, id, block, unix_time()).await
    }

    /// Makes a blob, and replaces the one of its name. The answer comes when file and store are safe.
    ///
    /// # Errors
    /// 400, 409, 412 as the request deserves, 500 where the disk fails, 503 where the store does.
    pub async fn put_blob(
        self: &Arc<Self>,
        name: BlobName,
        source: Source,
        content_type: String,
        conditions: Conditions,
    ) -> Result<Arc<Blob>, Fault> {
        let busy = |_| Fault::new(FaultCode::ServerBusy, "the hub is stopping", "send it again once it runs");
        let own = Arc::clone(self);
        let put = async move {
            let files = Arc::clone(own.files().map_err(busy)?);
            let whole = match source {
                Source::Body(whole) => whole,
                Source::Blocks(list) => files.storage.join(&name, &list).await?,
            };
            let _alone = files.changing.lock().await;
            let now = unix_time();
            conditions.check(files.storage.find(&name, now).as_deref())?;
            let blob = files.storage.place(whole, content_type, now).await?;
            if !own.engine.keep_documents(vec![blob.to_document(&name)]).await {
                files.storage.remove_file(&blob).await;
                let what = "the hub could not store what it knows of the blob";
                return Err(Fault::new(
                    FaultCode::ServerBusy,
                    what,
                    "look at the disk of the store, and send it again",
                ));
            }
            Ok(files.storage.show(name, blob).await)
        };
        detached(put).await.map_err(busy)?
    }

    /// The blob of this name.
    ///
    /// # Errors
    /// 404 where there is none.
    pub fn find_blob(&self, name: &BlobName, now: UnixTime) -> Result<Arc<Blob>, Fault> {
        self.storage()?.find(name, now).ok_or_else(|| {
            let what = format!("there is no blob {}", name.as_str().escape_debug());
            Fault::new(
                FaultCode::BlobNotFound,
                what,
                "put it first; what is older than --upload-hours is gone",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_must_be_new_is_and_one_that_must_be_there_is() {
        let conditions = |is_new, etag: Option<&str>| Conditions { is_new, etag: etag.map(str::to_owned) };
        let code = |conditions: Conditions| conditions.check(None).map_err(|fault| fault.code);
        assert_eq!(code(conditions(true, None)), Ok(()));
        assert_eq!(code(conditions(false, None)), Ok(()));
        assert_eq!(code(conditions(false, Some("*"))), Err(FaultCode::ConditionNotMet));
        assert_eq!(code(conditions(false, Some("\"0x1\""))), Err(FaultCode::ConditionNotMet));
    }
}
