//! Who a connection is: a device, or a module of a device.

use core::fmt;

use crate::limits::ID_MAX;
use crate::rule::Rule;

/// A device, or a module of a device, by id.
///
/// Ids are 1 to 128 ASCII letters, digits and `- : . + % _ # * ? ! ( ) , = @ ; $ '` (IoT Hub identity registry). They
/// are compared byte by byte and never percent-decoded. An id with `#` or `+` can be registered, but not be used over
/// MQTT: no topic name can contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity<'a> {
    device_id: &'a str,
    module_id: Option<&'a str>,
}

/// Why a text is not the id of a device or of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It is empty.
    #[error("an id is not empty")]
    Empty,
    /// It is longer than [`ID_MAX`] bytes.
    #[error("an id is at most {ID_MAX} characters long")]
    TooLong,
    /// It contains a character that ids do not have.
    // No semicolon: the service's SDKs cut an error's text there.
    #[error("an id is made of ASCII letters, digits, semicolons and - : . + % _ # * ? ! ( ) , = @ $ '")]
    Character,
}

impl IdError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        Rule::ClientId
    }
}

impl<'a> Identity<'a> {
    /// The device `device_id`, or its module `module_id`.
    ///
    /// # Errors
    /// [`IdError`] where one of them is no id.
    pub fn new(device_id: &'a str, module_id: Option<&'a str>) -> Result<Self, IdError> {
        check(device_id)?;
        module_id.map_or(Ok(()), check)?;
        Ok(Self { device_id, module_id })
    }

    /// The identity that an MQTT client id names: `{device id}` or `{device id}/{module id}`.
    ///
    /// # Errors
    /// [`IdError`] where one of the ids is none.
    pub fn from_client_id(client_id: &'a str) -> Result<Self, IdError> {
        match client_id.split_once('/') {
            Some((device_id, module_id)) => Self::new(device_id, Some(module_id)),
            None => Self::new(client_id, None),
        }
    }

    /// The identity of ids that were checked before.
    #[cfg(feature = "device")]
    pub(crate) const fn of_checked_ids(device_id: &'a str, module_id: Option<&'a str>) -> Self {
        Self { device_id, module_id }
    }

    /// The identity of a client id that was checked before, cut at `slash`.
    #[cfg(feature = "hub")]
    #[inline]
    pub(crate) fn of_checked(client_id: &'a str, slash: Option<usize>) -> Self {
        match slash.and_then(|slash| client_id.split_at_checked(slash)) {
            Some((device_id, module_id)) => Self { device_id, module_id: module_id.strip_prefix('/') },
            None => Self { device_id: client_id, module_id: None },
        }
    }

    /// The device, or the device that the module is of.
    #[must_use]
    pub const fn device_id(self) -> &'a str {
        self.device_id
    }

    /// The module; `None` for a device itself.
    #[must_use]
    pub const fn module_id(self) -> Option<&'a str> {
        self.module_id
    }
}

/// The client id: `{device id}` or `{device id}/{module id}`.
impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.device_id)?;
        match self.module_id {
            Some(module_id) => write!(f, "/{module_id}"),
            None => Ok(()),
        }
    }
}

fn check(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > ID_MAX {
        return Err(IdError::TooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&byte);
    if id.bytes().all(allowed) { Ok(()) } else { Err(IdError::Character) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_names_a_device_or_a_module() {
        assert_eq!(Identity::from_client_id("dev"), Identity::new("dev", None));
        assert_eq!(Identity::from_client_id("dev/$edgeHub"), Identity::new("dev", Some("$edgeHub")));
        for (client_id, error) in [
            ("", IdError::Empty),
            ("dev/", IdError::Empty),
            ("/mod", IdError::Empty),
            ("dev/mod/x", IdError::Character),
            ("de v", IdError::Character),
            ("gerät", IdError::Character),
        ] {
            assert_eq!(Identity::from_client_id(client_id), Err(error), "{client_id}");
        }
    }

    #[test]
    fn an_id_has_at_most_128_characters() {
        let id = "a".repeat(129);
        assert!(Identity::new(&id[1..], None).is_ok());
        assert_eq!(Identity::new(&id, None), Err(IdError::TooLong));
    }
}
