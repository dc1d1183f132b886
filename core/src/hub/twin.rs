//! The twin of one identity: two versioned documents and the tags.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::TierError;
use super::metadata::{Metadata, metadata};

use crate::iothub::ApiVersion;
use crate::iothub::twin::{TwinError, difference, parse_object, patched, replaced, size};
use crate::limits::{TWIN_SECTION_MAX, TWIN_TAGS_MAX};
use crate::time::UnixTime;

/// Desired and reported properties, each with its version, and tags.
///
/// Both versions start at 1 and grow by one with every accepted update (IoT Hub device twin guide).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    pub(super) desired: Map<String, Value>,
    pub(super) desired_version: u64,
    pub(super) desired_stamp: Option<Box<Metadata>>,
    pub(super) reported: Map<String, Value>,
    pub(super) reported_version: u64,
    pub(super) reported_stamp: Option<Box<Metadata>>,
    pub(super) tags: Map<String, Value>,
    /// Counts every change of the twin.
    pub(super) version: u64,
    /// Counts the back end's changes of the twin.
    pub(super) etag: u64,
}

impl Default for Twin {
    fn default() -> Self {
        Self {
            desired: Map::new(),
            desired_version: 1,
            desired_stamp: None,
            reported: Map::new(),
            reported_version: 1,
            reported_stamp: None,
            tags: Map::new(),
            version: 2, // as a new twin of the real service has
            etag: 1,
        }
    }
}

/// What the back end changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinUpdate {
    /// The new desired properties.
    pub desired: Option<Section>,
    /// The new tags.
    pub tags: Option<Section>,
    /// Only if the twin has this [ETag](Twin::etag) (`If-Match`, without its quotes).
    pub if_match: Option<String>,
}

impl TwinUpdate {
    /// How large it is, for the daily quota.
    pub(super) fn bytes(&self) -> usize {
        let sections = [&self.desired, &self.tags].into_iter().flatten();
        sections.fold(0, |sum, section| sum.saturating_add(size(section.content())))
    }
}

/// A patch to merge, or a document to put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// Members are added, replaced, or removed where `null`.
    Patch(Map<String, Value>),
    /// What was there is gone. There is no `null` in it.
    Replace(Map<String, Value>),
}

/// Why the back end's change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinUpdateError {
    /// 404001: no such identity.
    #[error("no such device (404001 DeviceNotFound); register it first")]
    UnknownDevice,
    /// 412001: the twin has another ETag than `If-Match` says.
    #[error("the twin has another ETag (412001 PreconditionFailed); read it again, or send If-Match: *")]
    EtagMismatch,
    /// The hub's tier does not allow it, or not now.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// 400004: the document breaks a rule of twins.
    #[error("{0} (400004 ArgumentInvalid)")]
    Document(TwinError),
}

/// Why a reported patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReportError {
    Document(TwinError),
    VersionMismatch { expected: u64, actual: u64 },
}

impl Twin {
    /// The desired properties, without `$version`.
    #[must_use]
    pub const fn desired(&self) -> &Map<String, Value> {
        &self.desired
    }

    /// The version of the desired properties.
    #[must_use]
    pub const fn desired_version(&self) -> u64 {
        self.desired_version
    }

    /// The reported properties, without `$version`.
    #[must_use]
    pub const fn reported(&self) -> &Map<String, Value> {
        &self.reported
    }

    /// The version of the reported properties.
    #[must_use]
    pub const fn reported_version(&self) -> u64 {
        self.reported_version
    }

    /// The tags. The device never sees them.
    #[must_use]
    pub const fn tags(&self) -> &Map<String, Value> {
        &self.tags
    }

    /// The version of the whole twin: every change counts, also those of the device.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What the back end's changes are compared by, and nothing that the device reports changes: eight bytes in base64,
    /// `AAAAAAAAAAE=` for a new twin.
    #[must_use]
    pub fn etag(&self) -> String {
        BASE64.encode(self.etag.to_be_bytes())
    }

    /// The desired properties as the service sees them: with `$metadata` and `$version`.
    #[must_use]
    pub fn desired_view(&self) -> Map<String, Value> {
        view(&self.desired, metadata(self.desired_stamp.as_deref(), true), self.desired_version)
    }

    /// The reported properties as the service sees them: with `$metadata` and `$version`.
    #[must_use]
    pub fn reported_view(&self) -> Map<String, Value> {
        view(&self.reported, metadata(self.reported_stamp.as_deref(), false), self.reported_version)
    }

    /// The body that answers a GET.
    pub(super) fn body(&self, api_version: ApiVersion) -> String {
        let desired = with_version(&self.desired, self.desired_version);
        let reported = with_version(&self.reported, self.reported_version);
        if api_version.wraps_twin() {
            format!(r#"{{"properties":{{"desired":{desired},"reported":{reported}}}}}"#)
        } else {
            format!(r#"{{"desired":{desired},"reported":{reported}}}"#)
        }
    }

    /// Merges a reported patch as the device sent it; gives the new version.
    pub(super) fn report(
        &mut self,
        patch: &[u8],
        if_version: Option<u64>,
        now: UnixTime,
    ) -> Result<u64, ReportError> {
        if let Some(expected) = if_version
            && expected != self.reported_version
        {
            return Err(ReportError::VersionMismatch { expected, actual: self.reported_version });
        }
        let refused = |error: TwinError| ReportError::Document(error.within("properties.reported"));
        let patch = parse_object(patch).map_err(refused)?;
        self.reported = patched(&self.reported, &patch, TWIN_SECTION_MAX).map_err(refused)?;
        self.reported_version = self.reported_version.saturating_add(1);
        let version = self.reported_version;
        let stamp = self.reported_stamp.get_or_insert_with(|| Box::new(Metadata::new(now, version)));
        stamp.patch(&patch, now, version);
        self.version = self.version.saturating_add(1);
        Ok(self.reported_version)
    }

    /// What a twin that was never changed begins with.
    pub(super) fn begin(
        &mut self,
        desired: &Map<String, Value>,
        tags: &Map<String, Value>,
        now: UnixTime,
    ) -> Result<(), TwinError> {
        let desired = patched(&Map::new(), desired, TWIN_SECTION_MAX)?;
        self.tags = patched(&Map::new(), tags, TWIN_TAGS_MAX)?;
        if !desired.is_empty() {
            self.desired_stamp = Some(Box::new(Metadata::of(&desired, now, self.desired_version)));
        }
        self.desired = desired;
        Ok(())
    }

    /// Makes the back end's change; gives the body of the notification if desired properties changed.
    pub(super) fn update(
        &mut self,
        update: TwinUpdate,
        now: UnixTime,
    ) -> Result<Option<String>, TwinUpdateError> {
        if update.if_match.is_some_and(|etag| etag != self.etag()) {
            return Err(TwinUpdateError::EtagMismatch);
        }
        let refused =
            |name: &'static str| move |error: TwinError| TwinUpdateError::Document(error.within(name));
        let tags = update.tags.map(|tags| tags.applied_to(&self.tags, TWIN_TAGS_MAX)).transpose();
        let tags = tags.map_err(refused("tags"))?;
        let mut notification = None;
        if let Some(section) = update.desired {
            let version = self.desired_version.saturating_add(1);
            let desired =
                section.applied_to(&self.desired, TWIN_SECTION_MAX).map_err(refused("properties.desired"))?;
            notification = Some(with_version(&section.told(&self.desired), version));
            self.desired = desired;
            self.desired_version = version;
            section.stamp(&mut self.desired_stamp, now, version);
        }
        if let Some(tags) = tags {
            self.tags = tags;
        }
        self.version = self.version.saturating_add(1);
        self.etag = self.etag.saturating_add(1);
        Ok(notification)
    }
}

impl Section {
    const fn content(&self) -> &Map<String, Value> {
        match self {
            Self::Patch(content) | Self::Replace(content) => content,
        }
    }

    fn stamp(&self, stamp: &mut Option<Box<Metadata>>, now: UnixTime, version: u64) {
        match (self, stamp) {
            (Self::Patch(patch), Some(stamp)) => stamp.patch(patch, now, version),
            (Self::Patch(content) | Self::Replace(content), stamp) => {
                *stamp = Some(Box::new(Metadata::of(content, now, version)));
            }
        }
    }

    fn applied_to(
        &self,
        current: &Map<String, Value>,
        size_max: usize,
    ) -> Result<Map<String, Value>, TwinError> {
        match self {
            Self::Patch(patch) => patched(current, patch, size_max),
            Self::Replace(content) => replaced(content, size_max),
        }
    }

    /// What a device is told, whose copy is `current`: merged into that, it gives what the hub has. A patch is told as it
    /// was made, nulls included (IoT Hub MQTT: desired properties); a document is told as the patch that leads to it, or
    /// what is gone would stay with the device (azure-iot-sdk-csharp issue 954).
    fn told(&self, current: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
        match self {
            Self::Patch(patch) => Cow::Borrowed(patch),
            Self::Replace(content) => Cow::Owned(difference(current, content)),
        }
    }
}

fn view(section: &Map<String, Value>, metadata: Value, version: u64) -> Map<String, Value> {
    let mut view = section.clone();
    view.insert("$metadata".to_string(), metadata);
    view.insert("$version".to_string(), version.into());
    view
}

/// The section as the device sees it: its members, and `$version`.
fn with_version(section: &Map<String, Value>, version: u64) -> String {
    let mut text = Value::Object(section.clone()).to_string();
    text.pop();
    let comma = if section.is_empty() { "" } else { "," };
    text.push_str(&format!(r#"{comma}"$version":{version}}}"#));
    text
}
