//! The desired properties that the device keeps merged, for an application that wants to know what has changed.
//!
//! [`Observer`](super::twin::Observer) sees to it that documents and changes come without a gap; here they are put
//! together. What cannot be put together is as good as missed: the document is asked for again.

#[cfg(feature = "twin")]
use alloc::string::{String, ToString as _};

#[cfg(feature = "twin")]
use serde_json::{Map, Value};

use super::{Action, Twin};
#[cfg(feature = "twin")]
use crate::iothub::twin::{difference, merge, parse_object, size};

/// What came cannot be merged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable;

/// What becomes of documents and changes: they are handed out as they came, or merged.
#[derive(Debug, Default)]
pub(super) struct Live {
    #[cfg(feature = "twin")]
    followed: Option<Followed>,
}

impl Live {
    /// What to tell of a document that takes the place of all before.
    pub(super) fn document<'i>(&mut self, twin: Twin<'i>) -> Result<Action<'i>, Unusable> {
        #[cfg(feature = "twin")]
        if let Some(followed) = &mut self.followed {
            return followed.document(twin);
        }
        Ok(Action::Twin(twin))
    }

    /// What to tell of the next change; the merged properties are to have at most `size_max` bytes.
    #[cfg_attr(not(feature = "twin"), allow(unused_variables, reason = "nothing is merged"))]
    pub(super) fn change<'i>(
        &mut self,
        version: u64,
        patch: &'i [u8],
        size_max: usize,
    ) -> Result<Action<'i>, Unusable> {
        #[cfg(feature = "twin")]
        if let Some(followed) = &mut self.followed {
            followed.change(version, patch, size_max)?;
        }
        Ok(Action::Desired { version, patch: patch.into() })
    }

    /// Starts to merge; whether that is new.
    #[cfg(feature = "twin")]
    pub(super) fn follow(&mut self) -> bool {
        let new = self.followed.is_none();
        self.followed.get_or_insert_default();
        new
    }

    /// The properties, as soon as they are known.
    #[cfg(feature = "twin")]
    pub(super) fn properties(&self) -> Option<&DesiredProperties> {
        self.followed.as_ref()?.known.as_ref()
    }

    /// The application does not observe desired properties any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The desired properties of the twin, whole and at one version.
#[cfg(feature = "twin")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredProperties {
    version: u64,
    properties: Map<String, Value>,
}

#[cfg(feature = "twin")]
impl DesiredProperties {
    /// `$version`, which the hub raises by one with every change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The properties, without `$version` and `$metadata`.
    #[must_use]
    pub const fn properties(&self) -> &Map<String, Value> {
        &self.properties
    }
}

#[cfg(feature = "twin")]
#[derive(Debug, Default)]
struct Followed {
    known: Option<DesiredProperties>,
}

#[cfg(feature = "twin")]
impl Followed {
    fn document<'i>(&mut self, twin: Twin<'i>) -> Result<Action<'i>, Unusable> {
        let Twin { version, document } = twin;
        let properties = desired_section(document).ok_or(Unusable)?;
        let changed = self.known.as_ref().map(|known| difference(&known.properties, &properties));
        let before = self.known.replace(DesiredProperties { version, properties });
        match changed {
            None => Ok(Action::Twin(twin)),
            Some(none) if none.is_empty() && before.is_some_and(|before| before.version == version) => {
                Ok(Action::Handled)
            }
            Some(mut changed) => {
                changed.insert("$version".into(), version.into());
                Ok(Action::Desired { version, patch: Value::Object(changed).to_string().into_bytes().into() })
            }
        }
    }

    /// Nothing is changed where the patch cannot be merged.
    fn change(&mut self, version: u64, patch: &[u8], size_max: usize) -> Result<(), Unusable> {
        let patch = own(parse_object(patch).map_err(|_| Unusable)?);
        let known = self.known.as_ref().ok_or(Unusable)?;
        let mut properties = known.properties.clone();
        merge(&mut properties, &patch);
        if size(&properties) > size_max {
            return Err(Unusable);
        }
        self.known = Some(DesiredProperties { version, properties });
        Ok(())
    }
}

/// The desired properties in the answer to a GET, with or without the outer `properties` of the 2016 documents.
#[cfg(feature = "twin")]
fn desired_section(document: &[u8]) -> Option<Map<String, Value>> {
    let mut twin = parse_object(document).ok()?;
    if let Some(Value::Object(inner)) = twin.remove("properties") {
        twin = inner;
    }
    let Some(Value::Object(section)) = twin.remove("desired") else { return None };
    let mut properties = Map::new();
    merge(&mut properties, &own(section)); // so that a null says here, too, that there is nothing
    Some(properties)
}

/// The section without what is the hub's.
#[cfg(feature = "twin")]
fn own(mut section: Map<String, Value>) -> Map<String, Value> {
    section.retain(|name, _| !name.starts_with('$'));
    section
}
