//! The hub's own certificate authority and the server certificates that it issues: one with an ECDSA key, and one with an
//! RSA key for clients that take no other, as Azure has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::authority::{self, Authority, Files, cannot_make, unusable};
use super::device_certs::common_name;
use super::validity::NOTICE;
use crate::Failure;
use crate::state::provider::provider;
use crate::state::{Secrecy, StateDir};

/// The certificate that devices trust.
pub const CA_FILE: &str = "ca.pem";
const AUTHORITY: Files = Files {
    certificate: CA_FILE,
    key: "ca.key",
    name: "devicebound local authority",
    when_lost: "devices then need the new ca.pem",
};

/// A server certificate of one kind of key.
#[derive(Clone, Copy, Debug)]
struct Kind {
    certificate: &'static str,
    key: &'static str,
    /// Makes a key.
    generate: fn() -> Result<KeyPair, Failure>,
}

const ECDSA: Kind = Kind { certificate: "server.pem", key: "server.key", generate: ecdsa_key };
const RSA: Kind = Kind { certificate: "server-rsa.pem", key: "server-rsa.key", generate: rsa_key };

/// The common name of what this hub makes; what has another one is somebody else's.
const COMMON_NAME: &str = "devicebound hub";
/// What a lost server certificate means.
const RENEWED: &str = "devices trust it as they did the old one";
/// Some platforms refuse server certificates that live longer than 398 days.
const SERVER_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
/// The length of RSA keys, as Azure's server certificates have.
const RSA_BITS: usize = 2048;

/// A certificate, those of the authorities behind it, and its key.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The server's certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the server certificate.
    pub key: PrivateKeyDer<'static>,
}

/// What the TLS listeners need, and the path of the authority for the devices.
#[derive(Debug)]
pub struct Certificates {
    /// In the order in which they are offered; never empty.
    pub servers: Vec<ServerCertificate>,
    /// Where the authority's certificate is, as PEM.
    pub ca_path: PathBuf,
    /// What a person has to do before it is too late.
    pub warning: Option<String>,
    /// Whether one was made just now.
    pub is_new: bool,
}

/// Loads authority and server certificate from the state folder, and makes what is missing, has run out or lacks a name.
/// Without the certificate for clients that take RSA only.
///
/// Besides `names`, the certificate is good for `localhost`, `127.0.0.1` and `::1`.
///
/// # Errors
/// When a name is no host name, the folder cannot be read or written, or what is in it is damaged or not in its time.
pub fn load_or_make(state: &StateDir, names: &[String]) -> Result<Certificates, Failure> {
    load(state, names, &[ECDSA])
}

/// The same with the one for clients that take RSA only.
///
/// # Errors
/// As [`load_or_make`].
pub fn load_or_make_all(state: &StateDir, names: &[String]) -> Result<Certificates, Failure> {
    load(state, names, &[ECDSA, RSA])
}

fn load(state: &StateDir, names: &[String], kinds: &[Kind]) -> Result<Certificates, Failure> {
    let names = all_names(names)?;
    let authority = Authority::load_or_make(state, &AUTHORITY)?;
    let (mut servers, mut is_new) = (Vec::with_capacity(kinds.len()), false);
    for kind in kinds {
        let stored = kind.stored(state, &authority, &names)?;
        is_new |= stored.is_none();
        let (certificate, key) = match stored {
            Some(stored) => stored,
            None => kind.issue(state, &authority, &names, SERVER_LIFE)?,
        };
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| unusable(kind.certificate, RENEWED, &error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| unusable(kind.key, RENEWED, &error))?;
        servers.push(ServerCertificate { chain: vec![certificate, authority.certificate()], key });
    }
    let ca_path = state.file(AUTHORITY.certificate);
    Ok(Certificates { servers, ca_path, warning: authority.warning(), is_new })
}

impl Kind {
    /// What is in the folder, if it still serves.
    fn stored(
        &self,
        state: &StateDir,
        authority: &Authority,
        names: &[ServerName<'static>],
    ) -> Result<Option<(String, String)>, Failure> {
        let Some(certificate) = state.read(self.certificate)? else { return Ok(None) };
        let parsed = CertificateDer::from_pem_slice(certificate.as_bytes());
        if let Some(name) = parsed.as_ref().ok().and_then(common_name).filter(|name| name != COMMON_NAME) {
            return Err(Failure::new(
                format!(
                    "{} in the state folder is of `{name}`, and this hub did not make it",
                    self.certificate
                ),
                format!(
                    "give certificates of one's own with --cert FILE --key FILE, and remove {}",
                    self.certificate
                ),
            ));
        }
        let Some(key) = state.read(self.key)? else { return Ok(None) };
        let serves =
            parsed.is_ok_and(|parsed| is_pair(&parsed, &key) && still_serves(authority, &parsed, names));
        Ok(serves.then_some((certificate, key)))
    }

    /// Issues a certificate for these names, and keeps it.
    fn issue(
        &self,
        state: &StateDir,
        authority: &Authority,
        names: &[ServerName<'static>],
        life: Duration,
    ) -> Result<(String, String), Failure> {
        let failed = |error| cannot_make("the server certificate", &error);
        let mut params = authority::lasting(life);
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.subject_alt_names = names.iter().map(alt_name).collect::<Result<_, _>>().map_err(failed)?;
        // RSA keys without ECDHE are not served, so that none has to encipher.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = (self.generate)()?;
        let certificate = authority.sign(params, &key)?.pem();
        let key = key.serialize_pem();
        state.write(self.key, key.as_bytes(), Secrecy::Secret)?;
        state.write(self.certificate, certificate.as_bytes(), Secrecy::Open)?;
        Ok((certificate, key))
    }
}

fn ecdsa_key() -> Result<KeyPair, Failure> {
    KeyPair::generate().map_err(|error| cannot_make("a key", &error))
}

/// ring signs with RSA keys and makes none.
fn rsa_key() -> Result<KeyPair, Failure> {
    use rsa::pkcs8::EncodePrivateKey as _;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot make an RSA key: {error}"), "see why the system gives no randomness")
    };
    let key = rsa::PrivateKey::new(&mut getrandom::SysRng, RSA_BITS).map_err(|error| failed(&error))?;
    let pkcs8 = key.to_pkcs8_der().map_err(|error| failed(&error))?;
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.as_bytes())).map_err(|error| failed(&error))
}

/// Whether the certificate is for this key.
fn is_pair(certificate: &CertificateDer<'_>, key_pem: &str) -> bool {
    let Ok(key) = KeyPair::from_pem(key_pem) else { return false };
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *key.public_key_raw())
}

/// Whether a client that trusts this authority takes the certificate for every name, now and for a while.
fn still_serves(
    authority: &Authority,
    certificate: &CertificateDer<'_>,
    names: &[ServerName<'static>],
) -> bool {
    let check = || {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).ok()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let moments = [now, now.saturating_add(NOTICE)].map(UnixTime::since_unix_epoch);
        let takes = |name, moment| verifier.verify_server_cert(certificate, &[], name, &[], moment).is_ok();
        Some(names.iter().all(|name| moments.iter().all(|moment| takes(name, *moment))))
    };
    check().unwrap_or(false)
}

fn all_names(names: &[String]) -> Result<Vec<ServerName<'static>>, Failure> {
    let mut all = vec![
        ServerName::try_from("localhost").map_err(|_| not_a_name("localhost"))?,
        ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ServerName::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    for name in names {
        let name = ServerName::try_from(name.clone()).map_err(|_| not_a_name(name))?;
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

fn alt_name(name: &ServerName<'static>) -> Result<SanType, rcgen::Error> {
    match name {
        ServerName::IpAddress(address) => Ok(SanType::IpAddress((*address).into())),
        name => Ok(SanType::DnsName(name.to_str().as_ref().try_into()?)),
    }
}

fn not_a_name(name: &str) -> Failure {
    Failure::new(format!("`{name}` is neither a host name nor an IP address"), "check --name and --listen")
}

/// Puts a certificate in the folder that is good for so long.
#[cfg(test)]
pub(crate) fn issue_for(state: &StateDir, life: Duration) {
    let authority = Authority::load_or_make(state, &AUTHORITY).unwrap();
    ECDSA.issue(state, &authority, &all_names(&[]).unwrap(), life).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        (folder, state)
    }

    fn server_certificate(state: &StateDir, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        load_or_make(state, &names).unwrap().servers[0].chain[0].clone()
    }

    #[test]
    fn the_second_start_keeps_authority_and_certificates() {
        let (_folder, state) = folder();
        let all = || {
            let certificates = load_or_make_all(&state, &["hub.example".to_owned()]).unwrap();
            (
                certificates.is_new,
                certificates.servers.into_iter().map(|server| server.chain).collect::<Vec<_>>(),
            )
        };
        let (is_new, first) = all();
        assert!(is_new && first.len() == 2);
        assert_eq!(all(), (false, first));
    }

    #[test]
    fn a_new_name_makes_a_new_certificate_of_the_same_authority() {
        let (_folder, state) = folder();
        let first = server_certificate(&state, &[]);
        let authority = state.read(AUTHORITY.certificate).unwrap();
        assert_ne!(server_certificate(&state, &["hub.example", "10.1.2.3"]), first);
        assert_eq!(state.read(AUTHORITY.certificate).unwrap(), authority);
    }

    #[test]
    fn a_certificate_that_is_damaged_or_of_another_key_is_made_anew() {
        let (_folder, state) = folder();
        let (_other_folder, other) = folder();
        server_certificate(&other, &[]);
        let foreign = other.read(ECDSA.key).unwrap().unwrap();
        for (name, text) in [(ECDSA.certificate, ""), (ECDSA.key, ""), (ECDSA.key, foreign.as_str())] {
            let first = server_certificate(&state, &[]);
            state.write(name, text.as_bytes(), Secrecy::Secret).unwrap();
            assert_ne!(server_certificate(&state, &[]), first, "{name}");
        }
    }

    #[test]
    fn a_certificate_of_somebody_else_is_not_written_over_in_silence() {
        let (_folder, state) = folder();
        let own = super::super::device_certs::self_signed("my-hub", SERVER_LIFE).unwrap();
        state.write(ECDSA.certificate, own.chain.as_bytes(), Secrecy::Open).unwrap();
        state.write(ECDSA.key, own.key.as_bytes(), Secrecy::Secret).unwrap();
        let failure = load_or_make(&state, &[]).unwrap_err();
        assert!(failure.cause().contains("my-hub") && failure.next().contains("--cert"), "{failure}");
        assert_eq!(state.read(ECDSA.certificate).unwrap(), Some(own.chain));
    }

    #[test]
    fn what_is_no_host_name_is_refused_by_that_name() {
        let (_folder, state) = folder();
        for name in ["", " ", "two words", "https://hub", "hub:8883", "*.example", &"a".repeat(64)] {
            let failure = load_or_make(&state, &[name.to_owned()]).unwrap_err();
            assert!(failure.cause().contains(&format!("`{name}`")), "{failure}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone_and_the_authoritys_certificate_is_for_every_program() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, state) = folder();
        load_or_make_all(&state, &[]).unwrap();
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for key in [AUTHORITY.key, ECDSA.key, RSA.key] {
            assert_eq!(mode(state.file(key)), 0o600, "{key}");
        }
        assert_eq!(mode(state.file(AUTHORITY.certificate)), 0o644);
        // Others pass through it, and list nothing.
        assert_eq!(mode(state.path().to_path_buf()), 0o711);
    }
}
