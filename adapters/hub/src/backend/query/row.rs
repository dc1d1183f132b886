//! A twin as a query sees it.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::expression::{Row, below};
use super::statement::{Item, Select, What};
use crate::backend::applications::Applications;
use crate::backend::identity::{connection_state, kind_of, last_activity, status};
use crate::backend::twins;
use crate::engine::record_scan::Seen;

/// One record. What most conditions ask for is borrowed from it; for the rest the whole twin is written out once.
pub(super) struct TwinRow<'c> {
    seen: Seen<'c>,
    applications: &'c Applications,
    whole: OnceCell<Value>,
}

impl<'c> TwinRow<'c> {
    pub(super) const fn new(seen: Seen<'c>, applications: &'c Applications) -> Self {
        Self { seen, applications, whole: OnceCell::new() }
    }

    pub(super) fn is_module(&self) -> bool {
        self.seen.record.identity.identity().module_id().is_some()
    }

    fn whole(&self) -> &Value {
        self.whole.get_or_init(|| twins::to_json(self.seen, self.applications))
    }

    /// What a row of the answer holds of this twin, as JSON.
    pub(super) fn selected(&self, select: &Select) -> String {
        match select {
            Select::All => self.whole().to_string(),
            Select::Items(items) => {
                Value::Object(items.iter().filter_map(|item| self.member(item)).collect()).to_string()
            }
        }
    }

    fn member(&self, item: &Item) -> Option<(String, Value)> {
        let What::Property(path) = &item.what else { return None };
        Some((item.name.clone(), self.value(path)?.into_owned()))
    }
}

impl Row for TwinRow<'_> {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (first, rest) = path.split_first()?;
        let is = |name: &str| first.eq_ignore_ascii_case(name);
        let record = self.seen.record;
        let twin = record.twin();
        let identity = record.identity.identity();
        let own = match rest {
            [] if is("deviceId") => Some(identity.device_id()),
            [] if is("moduleId") => return identity.module_id().map(|id| Cow::Owned(id.into())),
            [] if is("lastActivityTime") => return Some(Cow::Owned(last_activity(self.seen).into())),
            [] if is("modelId") => Some(record.model_id().unwrap_or_default()),
            [] if is("authenticationType") => Some(kind_of(&record.identity.authentication)),
            [] if is("version") => return Some(Cow::Owned(twin.version().into())),
            [edge] if is("capabilities") && edge == "iotEdge" => {
                return Some(Cow::Owned(record.identity.is_edge.into()));
            }
            [] if is("status") => Some(status(&record.identity)),
            [] if is("connectionState") => Some(connection_state(self.seen)),
            _ => None,
        };
        if let Some(text) = own {
            return Some(Cow::Owned(text.into()));
        }
        match rest {
            [name, rest @ ..] if is("tags") => return member(twin.tags(), name, rest),
            [section, name, rest @ ..] if is("properties") && !name.starts_with('$') => {
                match section.as_str() {
                    "desired" => return member(twin.desired(), name, rest),
                    "reported" => return member(twin.reported(), name, rest),
                    _ => return None,
                }
            }
            _ => {}
        }
        let whole = self.whole().as_object()?;
        let (_, value) = whole.iter().find(|(name, _)| name.eq_ignore_ascii_case(first))?;
        below(value, rest).map(Cow::Borrowed)
    }
}

fn member<'v>(section: &'v Map<String, Value>, name: &str, rest: &[String]) -> Option<Cow<'v, Value>> {
    below(section.get(name)?, rest).map(Cow::Borrowed)
}

/// A JSON object as a row. The first name is found in any case of letters, the others are exact.
pub(crate) struct JsonRow<'v>(pub(crate) &'v Value);

impl Row for JsonRow<'_> {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (first, rest) = path.split_first()?;
        let (_, value) = self.0.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(first))?;
        below(value, rest).map(Cow::Borrowed)
    }
}
