//! Keys and tokens of devices that register (IoT Hub DPS: symmetric key attestation).

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::RegistrationId;
use crate::iothub::sas::{self, SasError, SasToken, SymmetricKey};
use crate::time::UnixTime;

/// The policy that documented tokens name. Azure's Python SDK names none.
const KEY_NAME: &str = "registration";

/// The key of the device `registration_id` in an enrollment group with the key `group_key`: the HMAC-SHA256 of the id, as
/// the device writes it, under the group's key.
#[must_use]
pub fn derive_key(group_key: &SymmetricKey, registration_id: RegistrationId<'_>) -> SymmetricKey {
    group_key.derive(registration_id.as_str().as_bytes())
}

/// What a token of a device is for: `{id scope}/registrations/{registration id}`, not encoded.
#[must_use]
pub fn resource(id_scope: &str, registration_id: RegistrationId<'_>) -> String {
    format!("{id_scope}/registrations/{}", registration_id.as_str())
}

/// Makes a token with which a device registers, good until `expiry`, in whole seconds.
#[must_use]
pub fn sign(
    id_scope: &str,
    registration_id: RegistrationId<'_>,
    key: &SymmetricKey,
    expiry: UnixTime,
) -> String {
    sas::sign(&resource(id_scope, registration_id), key, expiry, Some(KEY_NAME))
}

/// Decides whether `token` opens the registration of `registration_id` at `now`, signed with one of `keys`; `skew` is
/// how long it is good beyond its expiry. Gives the expiry.
///
/// Scope and id are compared without regard to letter case. What is signed is `sr` as it stands in the token, encoded or
/// not (Azure's Node SDK does not encode it).
///
/// # Errors
/// [`SasError`], all but [`SasError::Malformed`].
pub fn verify<'k>(
    token: &SasToken<'_>,
    id_scope: &str,
    registration_id: RegistrationId<'_>,
    keys: impl IntoIterator<Item = &'k SymmetricKey>,
    now: UnixTime,
    skew: Duration,
) -> Result<UnixTime, SasError> {
    // Before all else, and with every key, so that time does not tell what was wrong.
    let is_signed = keys.into_iter().fold(false, |found, key| found | token.is_signed_with(key));
    if !token.resource().eq_ignore_ascii_case(&resource(id_scope, registration_id)) {
        return Err(SasError::WrongScope);
    }
    if token.key_name().is_some_and(|name| name != KEY_NAME) {
        return Err(SasError::Forbidden);
    }
    if !is_signed {
        return Err(SasError::BadSignature);
    }
    if now >= token.expiry().after(skew) {
        return Err(SasError::Expired);
    }
    Ok(token.expiry())
}
