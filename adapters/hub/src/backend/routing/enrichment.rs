//! Enrichments: application properties that a message gets on its way to an endpoint.

use std::borrow::Cow;

use serde_json::Value;

use super::message::RoutedMessage;

/// One enrichment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enrichment {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) endpoints: Vec<String>,
}

impl Enrichment {
    pub(super) fn is_for(&self, endpoint: &str) -> bool {
        self.endpoints.iter().any(|name| name == endpoint)
    }

    /// The property. A path that the twin does not have is stamped as it is written, as Azure does.
    pub(super) fn property(&self, message: &RoutedMessage, hub_name: &str) -> (String, String) {
        let is = |name: &str| self.value.eq_ignore_ascii_case(name);
        if is("$iothubname") || is("$hubname") {
            return (self.key.clone(), hub_name.to_owned());
        }
        let path: Vec<String> = self.value.split('.').map(str::to_owned).collect();
        let is_twin = path.first().is_some_and(|first| first.eq_ignore_ascii_case("$twin"));
        let found = if is_twin { message.twin(path.get(1..).unwrap_or_default()) } else { None };
        let value = match found {
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(other) => Cow::Owned(other.to_string()),
            None => Cow::Borrowed(self.value.as_str()),
        };
        (self.key.clone(), value.into_owned())
    }
}
