//! A blob that is whole, and how the store keeps what is known of it.

use devicebound::time::UnixTime;
use serde_json::{Value, json};

use super::name::BlobName;
use super::space::Reserved;
use crate::store::Document;

/// Names of documents begin so; the name of the blob follows.
pub(super) const PREFIX: &str = "blob/";

/// What is told of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub modified: UnixTime,
    /// What its writer says that it is.
    pub content_type: String,
    /// The name of its file, which no other version of the blob has.
    pub(super) file: String,
}

/// A blob with the room that it takes.
#[derive(Debug)]
pub struct Blob {
    pub(super) properties: Properties,
    pub(super) _reserved: Reserved,
}

impl Properties {
    /// Changes with each version; in quotes.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"0x{}\"", self.file.get(..16).unwrap_or(&self.file).to_ascii_uppercase())
    }

    pub(super) fn of_document(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let text = |name| json.get(name)?.as_str().map(str::to_owned);
        let file = text("file").filter(|file| file.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        Some(Self {
            size: json.get("size")?.as_u64()?,
            modified: UnixTime::from_millis(json.get("modified")?.as_u64()?),
            content_type: text("contentType")?,
            file,
        })
    }
}

impl Blob {
    /// What is told of it.
    #[must_use]
    pub const fn properties(&self) -> &Properties {
        &self.properties
    }

    /// How the store keeps it.
    #[must_use]
    pub fn to_document(&self, name: &BlobName) -> Document {
        let Properties { size, modified, content_type, file } = &self.properties;
        let text = json!({
            "file": file, "size": size, "modified": modified.as_millis(), "contentType": content_type,
        });
        Document { key: format!("{PREFIX}{}", name.as_str()), text: Some(text.to_string()) }
    }
}

/// That there is no such blob any more.
#[must_use]
pub fn removal(name: &str) -> Document {
    Document { key: format!("{PREFIX}{name}"), text: None }
}
