//! An entry of the identity registry, and what a connection proves itself with.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::iothub::sas::SymmetricKey;
use crate::iothub::{IdError, Identity};
use crate::time::UnixTime;

/// How an identity proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// By a SAS token signed with either key.
    Sas {
        /// The primary key.
        primary: SymmetricKey,
        /// The secondary key.
        secondary: SymmetricKey,
    },
    /// By a client certificate with either thumbprint: SHA-1 or SHA-256, upper-case hex.
    SelfSigned {
        /// The primary thumbprint.
        primary: String,
        /// The secondary thumbprint.
        secondary: Option<String>,
    },
    /// By a client certificate of an authority that the hub trusts, whose subject's common name is the client id.
    CertificateAuthority,
}

/// One of two places: an identity can be given a new secret in one while connections use the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySlot {
    /// The first.
    Primary,
    /// The second.
    Secondary,
}

/// What a connection proved itself with. Where the registry takes it away, the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Something that the registry knows nothing of: an access policy's token, or whatever the caller of
    /// [`Hub::accept`](super::Hub::accept) took.
    Other,
    /// A key of the identity.
    Key(KeySlot),
    /// A key of the device that the module belongs to.
    DeviceKey(KeySlot),
    /// A certificate with a thumbprint of the identity.
    Thumbprint(KeySlot),
    /// A certificate of a trusted authority.
    CertificateAuthority,
}

/// The certificate that a client showed in the TLS handshake, where it proved that it holds its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-1 of the DER bytes, in hex of any case.
    pub sha1: String,
    /// SHA-256 of the DER bytes, in hex of any case.
    pub sha256: String,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// From when to when it is valid (notBefore, notAfter); `None` where nobody looked.
    pub validity: Option<(UnixTime, UnixTime)>,
    /// Its chain ends at an authority that the hub's owner trusts, and is valid now.
    pub is_trusted: bool,
    /// Why it is not trusted, in the words of whoever judged the chain.
    pub distrust: Option<String>,
}

impl Authentication {
    fn key(&self, place: KeySlot) -> Option<&SymmetricKey> {
        match (self, place) {
            (Self::Sas { primary, .. }, KeySlot::Primary) => Some(primary),
            (Self::Sas { secondary, .. }, KeySlot::Secondary) => Some(secondary),
            (Self::SelfSigned { .. } | Self::CertificateAuthority, _) => None,
        }
    }

    fn thumbprint(&self, place: KeySlot) -> Option<&str> {
        match (self, place) {
            (Self::SelfSigned { primary, .. }, KeySlot::Primary) => Some(primary),
            (Self::SelfSigned { secondary, .. }, KeySlot::Secondary) => secondary.as_deref(),
            (Self::Sas { .. } | Self::CertificateAuthority, _) => None,
        }
    }

    /// The keys that a SAS token may be signed with, each with its place.
    pub(super) fn keys(&self) -> impl Iterator<Item = (KeySlot, &SymmetricKey)> {
        [KeySlot::Primary, KeySlot::Secondary].into_iter().filter_map(|place| Some((place, self.key(place)?)))
    }

    /// Where the identity has a thumbprint of this certificate.
    pub(super) fn place_of(&self, shown: &ClientCertificate) -> Option<KeySlot> {
        let is_shown = |place: &KeySlot| {
            self.thumbprint(*place).is_some_and(|print| {
                print.eq_ignore_ascii_case(&shown.sha1) || print.eq_ignore_ascii_case(&shown.sha256)
            })
        };
        [KeySlot::Primary, KeySlot::Secondary].into_iter().find(is_shown)
    }

    /// Whether a connection that proved itself with `credential` could still do so, now that `before` has become this.
    pub(super) fn still_takes(&self, before: &Self, credential: Credential) -> bool {
        match credential {
            Credential::Other => true,
            Credential::Key(place) | Credential::DeviceKey(place) => {
                before.key(place).is_some_and(|old| self.keys().any(|(_, key)| key == old))
            }
            Credential::Thumbprint(place) => before.thumbprint(place).is_some_and(|old| {
                [KeySlot::Primary, KeySlot::Secondary]
                    .into_iter()
                    .any(|place| self.thumbprint(place) == Some(old))
            }),
            Credential::CertificateAuthority => *self == Self::CertificateAuthority,
        }
    }
}

/// An entry of the identity registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    client_id: Box<str>,
    /// Where the device id ends, in a module's client id.
    slash: Option<usize>,
    /// Told apart from an earlier identity of the same id.
    pub generation_id: String,
    /// A disabled identity cannot connect; nor can the modules of a disabled device.
    pub enabled: bool,
    /// Why it is disabled, in the words of whoever did it.
    pub status_reason: Option<String>,
    /// When it was last enabled or disabled.
    pub(super) status_updated: Option<UnixTime>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// It is an IoT Edge device (`capabilities.iotEdge`). The hub keeps that and does nothing with it.
    pub is_edge: bool,
    /// The scope of the IoT Edge device that it belongs to (`deviceScope`). The hub keeps that and does nothing with it.
    pub device_scope: Option<String>,
    /// The scopes of the IoT Edge devices above it (`parentScopes`). The hub keeps them and does nothing with them.
    pub parent_scopes: Vec<String>,
    /// Counts the changes of this entry, from 1.
    pub(super) version: u64,
}

impl DeviceIdentity {
    /// A new, enabled identity. `client_id` is the device id, for a module device id, slash, module id.
    ///
    /// # Errors
    /// When `client_id` is no id (1 to 128 characters of the registry's alphabet, each).
    pub fn new(
        client_id: &str,
        generation_id: String,
        authentication: Authentication,
    ) -> Result<Self, IdError> {
        Identity::from_client_id(client_id)?;
        Ok(Self {
            client_id: client_id.into(),
            slash: client_id.find('/'),
            generation_id,
            enabled: true,
            status_reason: None,
            status_updated: None,
            authentication,
            is_edge: false,
            device_scope: None,
            parent_scopes: Vec::new(),
            version: 1,
        })
    }

    /// The client id of its connections: device id, for a module device id, slash, module id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Device id and module id.
    #[must_use]
    #[inline]
    pub fn identity(&self) -> Identity<'_> {
        Identity::of_checked(&self.client_id, self.slash)
    }

    /// When it was last enabled or disabled (`statusUpdatedTime`); `None` where it never was.
    #[must_use]
    pub const fn status_updated(&self) -> Option<UnixTime> {
        self.status_updated
    }

    /// What `If-Match` compares: it changes with every change of this entry, and of nothing else (`etag`, in a twin
    /// `deviceEtag`).
    #[must_use]
    pub fn etag(&self) -> String {
        BASE64.encode(format!("{}.{}", self.generation_id, self.version))
    }
}
