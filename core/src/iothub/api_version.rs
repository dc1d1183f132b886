//! What changed in IoT Hub's MQTT over the years, in one table.

/// The newest api-version in the table, which a device of this crate asks for.
pub const API_VERSION: &str = "2021-04-12";

/// The api-versions of Azure's documents and SDKs for devices and services. A hub takes any; one that is not here is
/// probably misspelt.
#[cfg(feature = "hub")]
const PUBLISHED: [&str; 21] = [
    "2015-08-15-preview",
    "2016-02-03",
    "2016-11-14",
    "2017-06-30",
    "2017-11-08-preview",
    "2018-04-01",
    "2018-06-30",
    "2018-08-30-preview",
    "2019-03-30",
    "2019-07-01-preview",
    "2019-10-01",
    "2020-03-01",
    "2020-03-13",
    "2020-05-31-preview",
    "2020-06-30-preview",
    "2020-09-30",
    "2021-04-12",
    "2021-06-30-preview",
    "2023-06-30",
    "2024-03-31",
    "2025-08-01-preview",
];

/// Whether Azure has published this api-version.
#[cfg(feature = "hub")]
pub(crate) fn is_published(api_version: &str) -> bool {
    PUBLISHED.contains(&api_version)
}

/// The behaviour that a device gets, picked by the api-version in its user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiVersion {
    /// `2016-11-14`: the documents of 2016 to 2018.
    V2016_11_14,
    /// `2021-04-12`: the documents of today, and every api-version that is not in the table.
    V2021_04_12,
}

/// One row of the table.
struct Row {
    retain_property: &'static str,
    wraps_twin: bool,
    patch_status: u16,
}

impl ApiVersion {
    /// The behaviour for an api-version: that of the newest for one that is not in the table; `None` without one, and then there
    /// are no twin requests.
    #[must_use]
    pub fn of(api_version: Option<&str>) -> Option<Self> {
        match api_version? {
            "" => None,
            "2016-11-14" => Some(Self::V2016_11_14),
            _ => Some(Self::V2021_04_12),
        }
    }

    const fn row(self) -> Row {
        match self {
            Self::V2016_11_14 => Row { retain_property: "x-opt-retain", wraps_twin: true, patch_status: 200 },
            Self::V2021_04_12 => Row { retain_property: "mqtt-retain", wraps_twin: false, patch_status: 204 },
        }
    }

    /// The property that a telemetry message gets when it was published with RETAIN 1. Its value is `true`.
    #[must_use]
    pub const fn retain_property(self) -> &'static str {
        self.row().retain_property
    }

    /// Whether the answer to a twin GET is `{"properties":{"desired":…,"reported":…}}`, not `{"desired":…,"reported":…}`.
    #[must_use]
    pub const fn wraps_twin(self) -> bool {
        self.row().wraps_twin
    }

    /// The status of a successful twin PATCH.
    #[must_use]
    pub const fn patch_status(self) -> u16 {
        self.row().patch_status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_api_version_gets_the_newest_behaviour_and_none_gets_none() {
        assert_eq!(ApiVersion::of(Some("2016-11-14")), Some(ApiVersion::V2016_11_14));
        for version in [API_VERSION, "2018-06-30", "2099-01-01-preview"] {
            assert_eq!(ApiVersion::of(Some(version)), Some(ApiVersion::V2021_04_12), "{version}");
        }
        assert_eq!((ApiVersion::of(None), ApiVersion::of(Some(""))), (None, None));
    }
}
