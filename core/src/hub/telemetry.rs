//! Telemetry as the hub hands it to its owner.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::keys::{DeviceKey, Receipt};
use crate::iothub::{ApiVersion, PropertyBag};

/// A message of a device to its back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telemetry<'i> {
    /// Who sent it.
    pub device: DeviceKey,
    /// The properties that the device sent.
    pub bag: PropertyBag<'i>,
    /// The body.
    pub payload: &'i [u8],
    /// What to say `stored` with; `None` at QoS 0 and for a will, which nobody waits for.
    pub receipt: Option<Receipt>,
    /// The name of the property that stands for the RETAIN flag, if that was set: nothing is retained.
    pub retain_property: Option<&'static str>,
    /// The device sent it with DUP 1: it may be stored already.
    pub is_dup: bool,
    /// A will.
    pub is_will: bool,
}

impl<'i> Telemetry<'i> {
    pub(super) fn of_will(
        device: DeviceKey,
        api_version: Option<ApiVersion>,
        properties: &'i str,
        payload: &'i [u8],
        retain: bool,
    ) -> Self {
        let bag = PropertyBag::parse(properties).expect("checked when the will was taken");
        Self {
            device,
            bag,
            payload,
            receipt: None,
            retain_property: retain_property(api_version, retain),
            is_dup: false,
            is_will: true,
        }
    }

    /// All properties: those of the bag in order, then the hub's [own](hub_properties).
    pub fn properties(&self) -> impl Iterator<Item = (Cow<'i, str>, Option<Cow<'i, str>>)> {
        let own = hub_properties(self.retain_property, self.is_dup, self.is_will);
        self.bag.iter().chain(own.map(|(name, value)| (name.into(), Some(value.into()))))
    }
}

/// The properties that the hub adds to those of a telemetry message, with their values: for the RETAIN flag by the name of
/// the api-version, for the DUP flag (Azure protocol gateway: `mqtt-dup`), and for a will.
pub fn hub_properties(
    retain_property: Option<&str>,
    is_dup: bool,
    is_will: bool,
) -> impl Iterator<Item = (&str, &'static str)> {
    let retain = retain_property.map(|name| (name, "true"));
    let dup = is_dup.then_some(("mqtt-dup", "true"));
    let will = is_will.then_some(("iothub-MessageType", "Will"));
    [retain, dup, will].into_iter().flatten()
}

#[inline]
pub(super) fn retain_property(api_version: Option<ApiVersion>, retain: bool) -> Option<&'static str> {
    #[cold] // as RETAIN is
    fn name(api_version: Option<ApiVersion>) -> &'static str {
        api_version.unwrap_or(ApiVersion::V2021_04_12).retain_property()
    }
    retain.then(|| name(api_version))
}

/// A will that is to be stored as telemetry `[MQTT-3.1.2-8]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) properties: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}
