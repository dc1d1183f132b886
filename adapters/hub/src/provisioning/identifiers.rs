//! Texts that nobody has used before, and moments as the service writes them.

use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::UnixTime;

/// Length of a key that the service makes (DPS: symmetric key attestation).
const KEY_LENGTH: usize = 64;

/// A random GUID.
pub(super) fn guid() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    random(&mut bytes)?;
    let [a, b, c, d, e, f, g, h, i, rest @ ..] = bytes;
    let first = u32::from_be_bytes([a, b, c, d]);
    let (second, third) = (u16::from_be_bytes([e, f]), u16::from_be_bytes([g & 0x0F | 0x40, h]));
    let rest: String =
        std::iter::once(&(i & 0x3F | 0x80)).chain(&rest).map(|byte| format!("{byte:02x}")).collect();
    let (fourth, fifth) = rest.split_at(4);
    Ok(format!("{first:08x}-{second:04x}-{third:04x}-{fourth}-{fifth}"))
}

/// The id of an operation: `5.{16 hex}.{guid}`.
pub(super) fn operation_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 8];
    random(&mut bytes)?;
    Ok(format!("5.{:016x}.{}", u64::from_be_bytes(bytes), guid()?))
}

/// A key that nobody can guess.
pub(super) fn key() -> Result<SymmetricKey, getrandom::Error> {
    let mut bytes = [0; KEY_LENGTH];
    random(&mut bytes)?;
    Ok(SymmetricKey::from_bytes(&bytes))
}

fn random(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(bytes)
}

/// A moment with seven decimals, as .NET writes it.
pub(super) fn moment(time: UnixTime) -> String {
    let text = time.to_string();
    format!("{}0000Z", text.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_has_the_form_of_the_real_service() {
        let guid = guid().unwrap();
        assert_eq!(guid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{guid}");
        let operation_id = operation_id().unwrap();
        let parts: Vec<_> = operation_id.split('.').collect();
        assert_eq!((parts.len(), parts[0], parts[1].len()), (3, "5", 16), "{operation_id}");
        assert_eq!(moment(UnixTime::from_millis(1_586_488_273_027)), "2020-04-10T03:11:13.0270000Z");
        assert_eq!(key().unwrap().to_base64().len(), 88);
    }
}
