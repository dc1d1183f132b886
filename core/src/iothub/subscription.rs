//! What a device can subscribe to. The documented filters are few, so a session keeps a small set, not a tree.

use alloc::format;
use alloc::string::{String, ToString as _};

use super::identity::Identity;
use super::topic::{Place, TopicError};
use crate::packet::{QoS, TopicFilter};

const TWIN_RESPONSES: &str = "$iothub/twin/res/#";
const DESIRED_PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";
const CREDENTIAL_RESPONSES: &str = "$iothub/credentials/res/#";
const METHODS: &str = "$iothub/methods/POST/#";

/// One kind of message that the hub sends (IoT Hub MQTT: topic filters).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscription {
    /// Cloud-to-device messages: `devices/{device id}/messages/devicebound/#`, for devices; a module may ask for its own, and
    /// never gets one.
    CloudMessages,
    /// Answers to twin requests: `$iothub/twin/res/#`.
    TwinResponses,
    /// Patches of the desired properties: `$iothub/twin/PATCH/properties/desired/#`.
    DesiredPatches,
    /// Calls of direct methods: `$iothub/methods/POST/#`.
    Methods,
    /// Answers to requests for a certificate: `$iothub/credentials/res/#`.
    CredentialResponses,
    /// Messages to inputs: `devices/{device id}/modules/{module id}/#`, for modules.
    ModuleInputs,
}

impl Subscription {
    /// Every subscription.
    pub const ALL: [Self; 6] = [
        Self::CloudMessages,
        Self::TwinResponses,
        Self::DesiredPatches,
        Self::Methods,
        Self::CredentialResponses,
        Self::ModuleInputs,
    ];

    /// A name for logs and stores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CloudMessages => "cloud messages",
            Self::TwinResponses => "twin answers",
            Self::DesiredPatches => "desired properties",
            Self::Methods => "methods",
            Self::CredentialResponses => "certificate answers",
            Self::ModuleInputs => "module inputs",
        }
    }

    /// The subscription with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subscription| subscription.name() == name)
    }

    /// What the device or module `identity` gets for `filter`.
    ///
    /// Beside the documented filters it knows what real clients send: `+` in place of the own device id, `#` alone for
    /// cloud-to-device messages, `inputs/#` of a module, and everything under `$iothub/methods/POST/` for methods.
    ///
    /// # Errors
    /// [`TopicError::ForeignIdentity`] or [`TopicError::UnknownFilter`].
    pub fn of(filter: TopicFilter<'_>, identity: Identity<'_>) -> Result<Self, TopicError> {
        let filter = filter.as_bytes();
        if let Some(path) = filter.strip_prefix(b"devices/") {
            return Self::of_messages(path, identity);
        }
        let of_methods = filter.strip_prefix(b"$iothub/methods/POST/").is_some_and(|rest| !rest.is_empty());
        match filter {
            _ if of_methods => Ok(Self::Methods),
            _ if filter == TWIN_RESPONSES.as_bytes() => Ok(Self::TwinResponses),
            _ if filter == DESIRED_PATCHES.as_bytes() => Ok(Self::DesiredPatches),
            _ if filter == CREDENTIAL_RESPONSES.as_bytes() => Ok(Self::CredentialResponses),
            b"#" if identity.module_id().is_none() => Ok(Self::CloudMessages),
            _ => Err(TopicError::UnknownFilter),
        }
    }

    fn of_messages(path: &[u8], identity: Identity<'_>) -> Result<Self, TopicError> {
        let place = Place::parse(path).ok_or(TopicError::UnknownFilter)?;
        let subscription = match (place.module_id, place.rest) {
            // Azure's SDK for Java asks for it with modules, too; there are no such messages.
            (_, b"messages/devicebound/#") => Self::CloudMessages,
            (Some(_), b"#" | b"inputs/#") => Self::ModuleInputs,
            _ => return Err(TopicError::UnknownFilter),
        };
        let any_device =
            place.device_id == b"+" && place.module_id.is_none() && identity.module_id().is_none();
        if any_device || place.is_of(identity) { Ok(subscription) } else { Err(TopicError::ForeignIdentity) }
    }

    /// The documented filter with which `identity` asks for this; `None` for cloud messages to a module and for inputs
    /// of a device, which there are none of.
    #[must_use]
    pub fn filter(self, identity: Identity<'_>) -> Option<String> {
        let device_id = identity.device_id();
        match (self, identity.module_id()) {
            (Self::CloudMessages, None) => Some(format!("devices/{device_id}/messages/devicebound/#")),
            (Self::ModuleInputs, Some(module_id)) => {
                Some(format!("devices/{device_id}/modules/{module_id}/#"))
            }
            (Self::CloudMessages, Some(_)) | (Self::ModuleInputs, None) => None,
            (Self::TwinResponses, _) => Some(TWIN_RESPONSES.to_string()),
            (Self::DesiredPatches, _) => Some(DESIRED_PATCHES.to_string()),
            (Self::Methods, _) => Some(METHODS.to_string()),
            (Self::CredentialResponses, _) => Some(CREDENTIAL_RESPONSES.to_string()),
        }
    }
}

/// The subscriptions of a session, each with the QoS that was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions {
    cloud_messages: Option<QoS>,
    twin_responses: Option<QoS>,
    desired_patches: Option<QoS>,
    methods: Option<QoS>,
    credential_responses: Option<QoS>,
    module_inputs: Option<QoS>,
}

impl Subscriptions {
    /// No subscriptions.
    pub const NONE: Self = Self {
        cloud_messages: None,
        twin_responses: None,
        desired_patches: None,
        methods: None,
        credential_responses: None,
        module_inputs: None,
    };

    /// Adds `subscription`, or gives it another QoS; says whether something changed.
    pub fn insert(&mut self, subscription: Subscription, qos: QoS) -> bool {
        self.slot(subscription).replace(qos) != Some(qos)
    }

    /// Takes `subscription` away; says whether it was there.
    pub fn remove(&mut self, subscription: Subscription) -> bool {
        self.slot(subscription).take().is_some()
    }

    /// The QoS that `subscription` was granted; `None` where it is not there.
    #[must_use]
    pub fn get(mut self, subscription: Subscription) -> Option<QoS> {
        *self.slot(subscription)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// All of them, each with its QoS.
    pub fn iter(self) -> impl Iterator<Item = (Subscription, QoS)> {
        Subscription::ALL
            .into_iter()
            .filter_map(move |subscription| Some((subscription, self.get(subscription)?)))
    }

    const fn slot(&mut self, subscription: Subscription) -> &mut Option<QoS> {
        match subscription {
            Subscription::CloudMessages => &mut self.cloud_messages,
            Subscription::TwinResponses => &mut self.twin_responses,
            Subscription::DesiredPatches => &mut self.desired_patches,
            Subscription::Methods => &mut self.methods,
            Subscription::CredentialResponses => &mut self.credential_responses,
            Subscription::ModuleInputs => &mut self.module_inputs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(filter: &str, client_id: &str) -> Result<Subscription, TopicError> {
        Subscription::of(TopicFilter::new(filter).unwrap(), Identity::from_client_id(client_id).unwrap())
    }

    #[test]
    fn each_identity_gets_what_it_asks_for_with_its_own_filters() {
        for client_id in ["d", "d/m"] {
            for subscription in Subscription::ALL {
                let filter = subscription.filter(Identity::from_client_id(client_id).unwrap());
                if let Some(filter) = filter {
                    assert_eq!(of(&filter, client_id), Ok(subscription), "{filter}");
                }
            }
        }
    }

    #[test]
    fn what_real_clients_send_beside_the_documented_filters_is_known() {
        assert_eq!(of("#", "d"), Ok(Subscription::CloudMessages));
        assert_eq!(of("$iothub/methods/POST/reboot/#", "d"), Ok(Subscription::Methods));
        assert_eq!(of("$iothub/methods/POST/+/#", "d/m"), Ok(Subscription::Methods));
        assert_eq!(of("devices/d/modules/m/inputs/#", "d/m"), Ok(Subscription::ModuleInputs));
        assert_eq!(of("devices/d/modules/m/messages/devicebound/#", "d/m"), Ok(Subscription::CloudMessages));
    }

    #[test]
    fn other_filters_are_refused() {
        use TopicError::{ForeignIdentity, UnknownFilter};
        for (filter, client_id, error) in [
            ("#", "d/m", UnknownFilter),
            ("+/#", "d", UnknownFilter),
            ("$iothub/#", "d", UnknownFilter),
            ("$iothub/twin/#", "d", UnknownFilter),
            ("$iothub/twin/res", "d", UnknownFilter),
            ("$iothub/methods/POST/", "d", UnknownFilter),
            ("$iothub/twin/PATCH/properties/reported/#", "d", UnknownFilter),
            ("devices/#", "d", UnknownFilter),
            ("devices/d/#", "d", UnknownFilter),
            ("devices/d/messages/devicebound/", "d", UnknownFilter),
            ("devices/D/messages/devicebound/#", "d", ForeignIdentity),
            ("devices/+/messages/devicebound/#", "d/m", ForeignIdentity),
            ("devices/d/modules/m/#", "d", ForeignIdentity),
            ("devices/d/modules/+/#", "d/m", ForeignIdentity),
            ("devices/+/modules/m/#", "d/m", ForeignIdentity),
        ] {
            assert_eq!(of(filter, client_id), Err(error), "{filter} {client_id}");
        }
    }

    #[test]
    fn a_set_says_what_changed() {
        let mut set = Subscriptions::NONE;
        assert!(set.insert(Subscription::Methods, QoS::AtMostOnce));
        assert!(!set.insert(Subscription::Methods, QoS::AtMostOnce));
        assert!(set.insert(Subscription::Methods, QoS::AtLeastOnce));
        assert!(set.iter().eq([(Subscription::Methods, QoS::AtLeastOnce)]));
        assert!(!set.remove(Subscription::CloudMessages));
        assert!(set.remove(Subscription::Methods) && set.is_empty());
    }
}
