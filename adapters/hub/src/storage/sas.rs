//! Service shared access signatures for one blob (Azure Storage: Create a service SAS, version 2018-03-28).
//!
//! Only this hub makes them, so those of another version, or with members that it does not use, are not its own.

use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::UnixTime;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fault::{Fault, FaultCode};
use super::name::BlobName;
use super::{ACCOUNT, CONTAINER};

/// The version whose string to sign this is.
const VERSION: &str = "2018-03-28";
/// Read, to look at what was written, and write.
const PERMISSIONS: &str = "rw";
const FIX: &str = "begin the upload anew: POST /devices/{id}/files gives another signature";

/// What a request does to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Get Blob, Get Blob Properties.
    Read,
    /// Put Blob, Put Block, Put Block List.
    Write,
}

/// The query of a URL that opens a blob until then; it begins with `?`.
#[must_use]
pub fn token(key: &SymmetricKey, name: &BlobName, expiry: UnixTime) -> String {
    let expiry = expiry_text(expiry);
    let signature = signature(key, &resource(name), PERMISSIONS, &expiry);
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (expiry, signature) = (encode(&expiry), encode(&signature));
    format!("?sv={VERSION}&sr=b&sig={signature}&se={expiry}&sp={PERMISSIONS}")
}

/// Whether a query opens this blob. `member` gives a decoded member of it.
///
/// # Errors
/// 403: AuthenticationFailed, AuthorizationPermissionMismatch.
pub fn check(
    key: &SymmetricKey,
    name: &BlobName,
    permission: Permission,
    now: UnixTime,
    member: impl Fn(&str) -> Option<String>,
) -> Result<(), Fault> {
    let refused = |what: &str| Err(Fault::new(FaultCode::AuthenticationFailed, what, FIX));
    let text = |name| member(name).unwrap_or_default();
    // A plus that was not encoded became a blank.
    let (shown, expiry, permissions) = (text("sig").replace(' ', "+"), text("se"), text("sp"));
    if shown.is_empty() {
        return refused("the URL has no signature of this hub");
    }
    let made = signature(key, &resource(name), &permissions, &expiry);
    // Of MACs under a key that nobody else has, so that time tells nothing of the signature.
    let is_signed = key.hmac_sha256(made.as_bytes()) == key.hmac_sha256(shown.as_bytes());
    if !is_signed || text("sv") != VERSION || text("sr") != "b" {
        return refused("the signature is not this hub's for this blob, time and permission");
    }
    let until = OffsetDateTime::parse(&expiry, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp);
    if UnixTime::from_secs(u64::try_from(until).unwrap_or_default()) <= now {
        return refused(&format!("the signature was good until {expiry}, and it is {now}"));
    }
    let wanted = match permission {
        Permission::Read => 'r',
        Permission::Write => 'w',
    };
    if !permissions.contains(wanted) {
        let what = format!("the signature permits `{permissions}`, and `{wanted}` is needed");
        return Err(Fault::new(FaultCode::AuthorizationPermissionMismatch, what, FIX));
    }
    Ok(())
}

/// To the second, as the real hub writes it.
fn expiry_text(expiry: UnixTime) -> String {
    let text = expiry.to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

fn resource(name: &BlobName) -> String {
    format!("/blob/{ACCOUNT}/{CONTAINER}/{}", name.as_str())
}

fn signature(key: &SymmetricKey, resource: &str, permissions: &str, expiry: &str) -> String {
    // sp, st, se, resource, si, sip, spr, sv, rscc, rscd, rsce, rscl, rsct
    let text = [permissions, "", expiry, resource, "", "", "", VERSION, "", "", "", "", ""].join("\n");
    key.signature(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_azurite_takes() {
        // The public account of Azurite.
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let key = SymmetricKey::from_base64(key).unwrap();
        let resource = "/blob/devstoreaccount1/uploads/dev1/dir/a b.txt";
        let made = signature(&key, resource, "rw", "2030-01-01T00:00:00Z");
        assert_eq!(made, "P0A/Hz2hikbYOd+k1UoGRqzVxCmnEBIHVFnOx7EzDxk=");
    }

    #[test]
    fn a_token_opens_its_own_blob_until_it_expires() {
        let (key, other) = (SymmetricKey::from_bytes(&[7; 32]), SymmetricKey::from_bytes(&[8; 32]));
        let name = |text| BlobName::new(text).unwrap();
        let until = UnixTime::from_secs(1_900_000_000);
        let token = token(&key, &name("d/a b"), until);
        let judge = |key: &SymmetricKey, name: &BlobName, token: &str, now| {
            let member = |wanted: &str| {
                let mut pairs =
                    token.trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('='));
                let value = pairs.find(|(name, _)| *name == wanted)?.1;
                Some(percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned())
            };
            check(key, name, Permission::Write, UnixTime::from_secs(now), member).map_err(|fault| fault.code)
        };
        assert_eq!(judge(&key, &name("d/a b"), &token, 1_899_999_999), Ok(()));
        let failed = Err(FaultCode::AuthenticationFailed);
        assert_eq!(judge(&key, &name("d/a b"), &token, 1_900_000_000), failed, "expired");
        assert_eq!(judge(&key, &name("d/a"), &token, 0), failed, "another blob");
        assert_eq!(judge(&other, &name("d/a b"), &token, 0), failed, "another key");
        assert_eq!(judge(&key, &name("d/a b"), "", 0), failed, "none");
        assert_eq!(judge(&key, &name("d/a b"), &token.replace("sp=rw", "sp=rwd"), 0), failed);
        assert_eq!(judge(&key, &name("d/a b"), &token.replace("2018-03-28", "2021-08-06"), 0), failed);
        let reads = signature(&key, &resource(&name("d/a b")), "r", "2030-01-01T00:00:00Z");
        let encoded = utf8_percent_encode(&reads, NON_ALPHANUMERIC);
        let token = format!("?sv={VERSION}&sr=b&sig={encoded}&se=2030-01-01T00:00:00Z&sp=r");
        assert_eq!(judge(&key, &name("d/a b"), &token, 0), Err(FaultCode::AuthorizationPermissionMismatch));
    }
}
