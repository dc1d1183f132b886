//! What routes can be about.

use std::fmt;

/// Where a message comes from (Azure Resource Manager: `RoutingSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Telemetry of devices.
    DeviceMessages,
    /// Changes of twins.
    TwinChange,
    /// Identities that are made and removed.
    DeviceLifecycle,
    /// Jobs that end.
    DeviceJobLifecycle,
    /// Devices that connect and disconnect.
    DeviceConnectionState,
    /// Changes of digital twins.
    DigitalTwinChange,
    /// Messages of Azure Event Grid's MQTT broker.
    MqttBroker,
}

impl Source {
    /// All there are.
    pub(crate) const ALL: [Self; 7] = [
        Self::DeviceMessages,
        Self::TwinChange,
        Self::DeviceLifecycle,
        Self::DeviceJobLifecycle,
        Self::DeviceConnectionState,
        Self::DigitalTwinChange,
        Self::MqttBroker,
    ];

    /// As Azure writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceMessages => "DeviceMessages",
            Self::TwinChange => "TwinChangeEvents",
            Self::DeviceLifecycle => "DeviceLifecycleEvents",
            Self::DeviceJobLifecycle => "DeviceJobLifecycleEvents",
            Self::DeviceConnectionState => "DeviceConnectionStateEvents",
            Self::DigitalTwinChange => "DigitalTwinChangeEvents",
            Self::MqttBroker => "MqttBrokerMessages",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In any case of letters: `az` writes `devicemessages`.
impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|source| source.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("`{}` is none of the sources {names}", text.escape_debug())
        })
    }
}
