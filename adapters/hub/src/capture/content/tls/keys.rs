//! From a session's secret to the keys that open its records, with ring's AEADs, HKDF and HMAC.

use ring::{aead, hkdf, hmac};
use tls_parser::{TlsCipherEnc, TlsCipherEncMode, TlsCipherSuite, TlsPRF};

use crate::capture::key_log::Random;

/// The cipher suites of TLS 1.3 that are read (RFC 8446 §B.4).
const AES_128_GCM_SHA256: u16 = 0x1301;
const AES_256_GCM_SHA384: u16 = 0x1302;
const CHACHA20_POLY1305_SHA256: u16 = 0x1303;
/// Every record of both versions carries this version on the wire.
const WIRE_VERSION: [u8; 2] = [3, 3];
const NONCE: usize = 12;
/// Bytes of the nonce that TLS 1.2 keeps with the key for AES-GCM; the other eight come with each record (RFC 5288 §3).
const SALT: usize = 4;
const TAG: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// What the hub chose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) version: Version,
    aead: &'static aead::Algorithm,
    is_sha384: bool,
}

impl Suite {
    /// `None` where it is neither AES-GCM nor ChaCha20-Poly1305.
    pub(super) fn of(version: Version, id: u16) -> Option<Self> {
        if version == Version::Tls13 {
            let (aead, is_sha384) = match id {
                AES_128_GCM_SHA256 => (&aead::AES_128_GCM, false),
                AES_256_GCM_SHA384 => (&aead::AES_256_GCM, true),
                CHACHA20_POLY1305_SHA256 => (&aead::CHACHA20_POLY1305, false),
                _ => return None,
            };
            return Some(Self { version, aead, is_sha384 });
        }
        let suite = TlsCipherSuite::from_id(id)?;
        let aead = match (suite.enc, suite.enc_mode, suite.enc_size) {
            (TlsCipherEnc::Aes, TlsCipherEncMode::Gcm, 128) => &aead::AES_128_GCM,
            (TlsCipherEnc::Aes, TlsCipherEncMode::Gcm, 256) => &aead::AES_256_GCM,
            (TlsCipherEnc::Chacha20_Poly1305, ..) => &aead::CHACHA20_POLY1305,
            _ => return None,
        };
        Some(Self { version, aead, is_sha384: suite.prf == TlsPRF::Sha384 })
    }

    const fn hkdf(self) -> hkdf::Algorithm {
        if self.is_sha384 { hkdf::HKDF_SHA384 } else { hkdf::HKDF_SHA256 }
    }

    /// The keys of one side under a traffic secret of TLS 1.3 (RFC 8446 §7.3).
    pub(super) fn of_traffic_secret(self, secret: &[u8]) -> Option<Opener> {
        let mut iv = [0; NONCE];
        self.expand(secret, b"iv", &mut iv)?;
        let mut key = vec![0; self.aead.key_len()];
        self.expand(secret, b"key", &mut key)?;
        self.opener(&key, &iv)
    }

    /// The traffic secret that follows upon a KeyUpdate (RFC 8446 §7.2).
    pub(super) fn next_secret(self, secret: &[u8]) -> Option<Vec<u8>> {
        let mut next = vec![0; if self.is_sha384 { 48 } else { 32 }];
        self.expand(secret, b"traffic upd", &mut next)?;
        Some(next)
    }

    /// HKDF-Expand-Label without a context (RFC 8446 §7.1).
    fn expand(self, secret: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let length = u16::try_from(out.len()).ok()?.to_be_bytes();
        let label_length = u8::try_from(label.len().checked_add(6)?).ok()?;
        let info: [&[u8]; 5] = [&length, &[label_length], b"tls13 ", label, &[0]];
        let secret = hkdf::Prk::new_less_safe(self.hkdf(), secret);
        secret.expand(&info, Length(out.len())).ok()?.fill(out).ok()
    }

    /// The keys of client and server under a master secret of TLS 1.2 (RFC 5246 §6.3).
    pub(super) fn of_master_secret(
        self,
        master: &[u8],
        client: &Random,
        server: &Random,
    ) -> Option<[Opener; 2]> {
        let key = self.aead.key_len();
        let iv = if self.has_explicit_nonce() { SALT } else { NONCE };
        let block = self.prf(master, b"key expansion", &[&server[..], client].concat(), 2 * (key + iv));
        let (keys, ivs) = block.split_at_checked(2 * key)?;
        let (client_key, server_key) = keys.split_at_checked(key)?;
        let (client_iv, server_iv) = ivs.split_at_checked(iv)?;
        Some([self.opener(client_key, client_iv)?, self.opener(server_key, server_iv.get(..iv)?)?])
    }

    /// P_hash of TLS 1.2 (RFC 5246 §5).
    fn prf(self, secret: &[u8], label: &[u8], seed: &[u8], length: usize) -> Vec<u8> {
        let algorithm = if self.is_sha384 { hmac::HMAC_SHA384 } else { hmac::HMAC_SHA256 };
        let key = hmac::Key::new(algorithm, secret);
        let seed = [label, seed].concat();
        let mut a = hmac::sign(&key, &seed);
        let mut block = Vec::new();
        while block.len() < length {
            block.extend_from_slice(hmac::sign(&key, &[a.as_ref(), &seed].concat()).as_ref());
            a = hmac::sign(&key, a.as_ref());
        }
        block.truncate(length);
        block
    }

    fn has_explicit_nonce(self) -> bool {
        self.version == Version::Tls12 && *self.aead != aead::CHACHA20_POLY1305
    }

    fn opener(self, key: &[u8], iv: &[u8]) -> Option<Opener> {
        let mut whole = [0; NONCE];
        whole.get_mut(..iv.len())?.copy_from_slice(iv);
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(self.aead, key).ok()?);
        Some(Opener { suite: self, key, iv: whole })
    }
}

/// Opens the records of one side.
#[derive(Debug)]
pub(super) struct Opener {
    suite: Suite,
    key: aead::LessSafeKey,
    iv: [u8; NONCE],
}

impl Opener {
    /// The type and content of the record with this number; `None` where the key or the number is another.
    pub(super) fn open(&self, number: u64, kind: u8, body: &[u8]) -> Option<(u8, Vec<u8>)> {
        match self.suite.version {
            Version::Tls12 => self.open_12(number, kind, body),
            Version::Tls13 => self.open_13(number, kind, body),
        }
    }

    fn open_13(&self, number: u64, kind: u8, body: &[u8]) -> Option<(u8, Vec<u8>)> {
        let [major, minor] = WIRE_VERSION;
        let [high, low] = u16::try_from(body.len()).ok()?.to_be_bytes();
        let mut content = self.open_as(self.nonce(number), &[kind, major, minor, high, low], body)?;
        // The type is the last byte that is not padding (RFC 8446 §5.2).
        let last = content.iter().rposition(|byte| *byte != 0)?;
        let kind = *content.get(last)?;
        content.truncate(last);
        Some((kind, content))
    }

    fn open_12(&self, number: u64, kind: u8, body: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (nonce, body) = if self.suite.has_explicit_nonce() {
            let (explicit, body) = body.split_at_checked(NONCE - SALT)?;
            let mut nonce = self.iv;
            nonce.get_mut(SALT..)?.copy_from_slice(explicit);
            (nonce, body)
        } else {
            (self.nonce(number), body)
        };
        let [major, minor] = WIRE_VERSION;
        let [high, low] = u16::try_from(body.len().checked_sub(TAG)?).ok()?.to_be_bytes();
        let aad = [&number.to_be_bytes()[..], &[kind, major, minor, high, low]].concat();
        Some((kind, self.open_as(nonce, &aad, body)?))
    }

    /// The number, over the last bytes of the vector.
    fn nonce(&self, number: u64) -> [u8; NONCE] {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().skip(NONCE - 8).zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    fn open_as(&self, nonce: [u8; NONCE], aad: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let mut content = body.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let length = self.key.open_in_place(nonce, aead::Aad::from(aad), &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}
