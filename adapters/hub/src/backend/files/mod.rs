//! File uploads: a device asks where to put a file, puts it there, and says that it is there; the back end hears of it.
//!
//! ```text
//!  begin ─▶ under way ─▶ ended well, blob is there ─▶ notification ─▶ completed, or too old
//!               │  └───▶ ended otherwise
//!               └──────▶ expired with its signature
//! ```
//!
//! What is under way and what is to be told are documents of the store; an end and its notification are one commit.

pub mod blobs;
pub mod notifications;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devicebound::time::UnixTime;
use serde_json::{Value, json};

use self::notifications::{FileNotification, Queue};
use super::{Backend, ClientId, Code, Error, detached};
use crate::Failure;
use crate::clock::unix_time;
use crate::observe::metrics::FileGauges;
use crate::storage::name::BlobName;
use crate::storage::{ACCOUNT, Bounds, CONTAINER, Storage, sas};
use crate::store::Document;

/// Uploads of a device that are under way (IoT Hub quotas: concurrent file uploads per device).
const ACTIVE_MAX: usize = 10;
/// How long the signature of an upload is good, as by default there (`fileUpload`: `sasTtlAsIso8601`).
const SAS_TTL: Duration = Duration::from_secs(3600);
/// How files are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploads {
    /// What the storage keeps.
    pub bounds: Bounds,
    /// How long the signature of an upload is good.
    pub sas_ttl: Duration,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { bounds: Bounds::default(), sas_ttl: SAS_TTL }
    }
}

/// Names of documents begin so; the correlation id follows.
const PREFIX: &str = "upload/";

/// All that belongs to uploads.
#[derive(Debug)]
pub struct Files {
    storage: Storage,
    /// Where the storage is for a back end: host, and port where it is not 443.
    authority: String,
    sas_ttl: Duration,
    active: Mutex<HashMap<String, Upload>>,
    queue: Arc<Queue>,
    /// Held while a change goes to the store, so that memory and store see changes in one order.
    changing: tokio::sync::Mutex<()>,
}

/// An upload that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Upload {
    device_id: String,
    name: BlobName,
    expiry: UnixTime,
}

/// What a device needs to put its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Names the upload at its end.
    pub correlation_id: String,
    /// The name of the blob, the device id in front.
    pub blob_name: String,
    /// The query of the blob's URL.
    pub sas_token: String,
}

/// How a device says that its upload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which upload.
    pub correlation_id: String,
    /// Whether the file is there, as the device says.
    pub is_success: bool,
    /// What it says besides, for people.
    pub description: String,
}

impl Upload {
    fn to_document(&self, id: &str) -> Document {
        let text = json!({
            "deviceId": self.device_id, "blobName": self.name.as_str(), "expiry": self.expiry.as_millis(),
        });
        Document { key: format!("{PREFIX}{id}"), text: Some(text.to_string()) }
    }

    fn of_document(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            device_id: json.get("deviceId")?.as_str()?.to_owned(),
            name: BlobName::new(json.get("blobName")?.as_str()?).ok()?,
            expiry: UnixTime::from_millis(json.get("expiry")?.as_u64()?),
        })
    }
}

fn removal(id: &str) -> Document {
    Document { key: format!("{PREFIX}{id}"), text: None }
}

impl Files {
    /// Uploads to this storage, which a back end finds at `authority`, with what the store has of them.
    ///
    /// # Errors
    /// When a document is not one that this hub wrote.
    pub fn load(
        storage: Storage,
        authority: String,
        sas_ttl: Duration,
        documents: &[(String, String)],
    ) -> Result<Self, Failure> {
        let mut active = HashMap::new();
        for (key, text) in documents {
            let Some(id) = key.strip_prefix(PREFIX) else { continue };
            let upload = Upload::of_document(text).ok_or_else(|| damaged(key))?;
            active.insert(id.to_owned(), upload);
        }
        let queue = Arc::new(Queue::load(documents)?);
        Ok(Self {
            storage,
            authority,
            sas_ttl,
            active: Mutex::new(active),
            queue,
            changing: tokio::sync::Mutex::default(),
        })
    }

    fn active(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be measured.
    #[must_use]
    pub fn gauges(&self) -> FileGauges {
        FileGauges {
            active: self.active().len() as u64,
            bytes: self.storage.used(),
            notifications: self.queue.len(),
        }
    }

    fn uri(&self, name: &BlobName) -> String {
        let encode = |part: &str| percent_encoding::utf8_percent_encode(part, BLOB_PATH).to_string();
        let path: Vec<String> = name.as_str().split('/').map(encode).collect();
        format!("https://{}/{ACCOUNT}/{CONTAINER}/{}", self.authority, path.join("/"))
    }
}

/// What stays as it is in a part of a path.
const BLOB_PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn damaged(key: &str) -> Failure {
    Failure::new(
        format!("the document {key} in the store is none of this hub's uploads"),
        "restore the store from a backup",
    )
}

impl Backend {
    /// What belongs to uploads.
    ///
    /// # Errors
    /// 400004 where the hub has no storage.
    pub fn files(&self) -> Result<&Arc<Files>, Error> {
        self.files.as_ref().ok_or_else(|| {
            Error::invalid("this hub has no storage for file uploads")
                .with_fix("start it as `devicebound hub`, which has one")
        })
    }

    /// Begins an upload of a device.
    ///
    /// # Errors
    /// 400004 for what is no name, 403006 with 10 under way, 503001 where it could not be stored.
    pub async fn begin_upload(self: &Arc<Self>, device: &ClientId, asked: &str) -> Result<Begun, Error> {
        let files = Arc::clone(self.files()?);
        let device_id = device.device_id().to_owned();
        let name = BlobName::new(&format!("{device_id}/{asked}")).map_err(|error| {
            Error::invalid(format!("`{}` is no name of a blob: {error}", asked.escape_default()))
                .with_fix("ask for another one, for example logs/2026-01-01.txt")
        })?;
        let correlation_id = correlation_id()?;
        let own = Arc::clone(self);
        detached(async move {
            own.drop_expired(&files).await;
            let _alone = files.changing.lock().await;
            let active = files.active().values().filter(|upload| upload.device_id == device_id).count();
            if active >= ACTIVE_MAX {
                let what = format!("{device_id} has {ACTIVE_MAX} file uploads under way");
                return Err(Error::new(Code::TooManyUploads, what)
                    .with_fix("end each upload: POST /devices/{id}/files/notifications"));
            }
            let expiry = unix_time().after(files.sas_ttl);
            let sas_token = sas::token(files.storage.key(), &name, expiry);
            let upload = Upload { device_id, name, expiry };
            let begun = Begun { correlation_id, blob_name: upload.name.as_str().to_owned(), sas_token };
            if !own.engine.keep_documents(vec![upload.to_document(&begun.correlation_id)]).await {
                return Err(Error::store_failed());
            }
            let text = format!("begins to upload {}", begun.blob_name.escape_debug());
            own.tell_upload("fileUploadBegun", &upload.device_id, &text);
            files.active().insert(begun.correlation_id.clone(), upload);
            Ok(begun)
        })
        .await?
    }

    /// Ends an upload. The back end hears of a file that is there.
    ///
    /// # Errors
    /// 400004 where the device has no such upload under way, 403004 where too many notifications wait, 503001 where it
    /// could not be stored.
    pub async fn end_upload(self: &Arc<Self>, device: &ClientId, end: End) -> Result<(), Error> {
        let files = Arc::clone(self.files()?);
        let device_id = device.device_id().to_owned();
        let own = Arc::clone(self);
        detached(async move {
            let _alone = files.changing.lock().await;
            let now = unix_time();
            let is_own = |upload: &&Upload| upload.device_id == device_id && now < upload.expiry;
            let id = &end.correlation_id;
            let upload = files.active().get(id).filter(is_own).cloned();
            let upload = upload.ok_or_else(|| {
                Error::invalid("the device has no upload with this correlationId under way: it was ended, expired, or never begun")
                    .with_fix("begin another one: POST /devices/{id}/files")
            })?;
            let blob = files.storage.find(&upload.name, now);
            let mut documents = vec![removal(id)];
            let notification = blob.filter(|_| end.is_success).map(|blob| {
                let properties = blob.properties();
                FileNotification {
                    device_id: device_id.clone(),
                    blob_uri: files.uri(&upload.name),
                    blob_name: upload.name.as_str().to_owned(),
                    last_updated: properties.modified,
                    size: properties.size,
                    enqueued: now,
                }
            });
            let enqueued = notification.map(|notification| files.queue.prepare(notification)).transpose()?;
            documents.extend(enqueued.as_ref().map(notifications::Entry::to_document));
            if !own.engine.keep_documents(documents).await {
                return Err(Error::store_failed());
            }
            files.active().remove(id);
            let name = upload.name.as_str().escape_debug();
            let text = match (&enqueued, end.is_success) {
                (Some(entry), _) => {
                    format!("uploaded {name}, {} bytes; the back end is notified", entry.notification.size)
                }
                (None, true) => format!(
                    "says that it uploaded {name}, and there is no such blob, so that nobody is notified; fix: put the file before the end of the upload"
                ),
                (None, false) => {
                    format!("could not upload {name}: {}", end.description.escape_debug())
                }
            };
            own.tell_upload("fileUploadEnded", &device_id, &text);
            if let Some(entry) = enqueued {
                files.queue.push(entry);
            }
            Ok(())
        })
        .await?
    }

    /// Drops what is over: uploads whose signature has expired, blobs and blocks that are too old. Where the store fails,
    /// it is tried with the next upload.
    async fn drop_expired(&self, files: &Files) {
        let _alone = files.changing.lock().await;
        let now = unix_time();
        let expired: Vec<(String, Upload)> = {
            let active = files.active();
            let expired = active.iter().filter(|(_, upload)| upload.expiry <= now);
            expired.map(|(id, upload)| (id.clone(), upload.clone())).collect()
        };
        let old = files.storage.too_old(now);
        let mut documents: Vec<Document> = expired.iter().map(|(id, _)| removal(id)).collect();
        documents.extend(old.iter().map(|name| crate::storage::blob::removal(name.as_str())));
        if !documents.is_empty() && !self.engine.keep_documents(documents).await {
            return;
        }
        for (id, upload) in expired {
            files.active().remove(&id);
            let name = upload.name.as_str().escape_debug();
            let text = format!(
                "did not end its upload of {name} before the signature expired; fix: POST /devices/{{id}}/files/notifications"
            );
            self.tell_upload("fileUploadExpired", &upload.device_id, &text);
        }
        files.storage.remove(&old, now).await;
    }

    fn tell_upload(&self, event: &str, device_id: &str, text: &str) {
        self.engine.view.note(event, &format!("{device_id} {text}"));
    }
}

/// Of letters and digits alone, because it stands in paths.
fn correlation_id() -> Result<String, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Error::store_failed())?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
