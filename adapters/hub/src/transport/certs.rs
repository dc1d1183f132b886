//! The hub's own certificate authority and the server certificate that it issues.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::authority::{self, Authority, Files, cannot_make, unusable};
use super::tls::provider;
use crate::Failure;
use crate::state::{Secrecy, StateDir};

const AUTHORITY: Files = Files {
    certificate: "ca.pem",
    key: "ca.key",
    name: "devicebound local authority",
    when_lost: "devices then need the new ca.pem",
};
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";

/// What a lost server certificate means.
const RENEWED: &str = "devices trust it as they did the old one";
/// Some platforms refuse server certificates that live longer than 398 days.
const SERVER_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
/// A certificate that runs out sooner is made anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the TLS listeners need, and the path of the authority for the devices.
#[derive(Debug)]
pub struct Certificates {
    /// The server certificate with the authority's behind it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the server certificate.
    pub key: PrivateKeyDer<'static>,
    /// Where the authority's certificate is, as PEM.
    pub ca_path: PathBuf,
}

/// Loads authority and server certificate from the state folder, and makes what is missing, has run out or lacks a name.
///
/// Besides `names`, the certificate is good for `localhost`, `127.0.0.1` and `::1`.
///
/// # Errors
/// When a name is no host name, or the folder cannot be read or written.
pub fn load_or_make(state: &StateDir, names: &[String]) -> Result<Certificates, Failure> {
    let names = all_names(names)?;
    let authority = Authority::load_or_make(state, &AUTHORITY)?;
    let stored = match (state.read(SERVER_CERTIFICATE)?, state.read(SERVER_KEY)?) {
        (Some(certificate), Some(key)) => {
            still_serves(&authority, &certificate, &names).then_some((certificate, key))
        }
        _ => None,
    };
    let (certificate, key) = match stored {
        Some(stored) => stored,
        None => issue(state, &authority, &names)?,
    };
    let chain = vec![parse(&certificate)?, authority.certificate()?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| unusable(SERVER_KEY, RENEWED, &error))?;
    Ok(Certificates { chain, key, ca_path: state.file(AUTHORITY.certificate) })
}

/// Issues a certificate for these names, and keeps it.
fn issue(
    state: &StateDir,
    authority: &Authority,
    names: &[ServerName<'static>],
) -> Result<(String, String), Failure> {
    let failed = |error| cannot_make("the server certificate", &error);
    let mut params = authority::lasting(SERVER_LIFE);
    params.distinguished_name.push(DnType::CommonName, "devicebound hub");
    params.subject_alt_names = names.iter().map(alt_name).collect::<Result<_, _>>().map_err(failed)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (certificate, key) = authority.issue(params)?;
    state.write(SERVER_KEY, key.as_bytes(), Secrecy::Secret)?;
    state.write(SERVER_CERTIFICATE, certificate.as_bytes(), Secrecy::Open)?;
    Ok((certificate, key))
}

/// Whether a client that trusts this authority takes the certificate for every name, now and for a while.
fn still_serves(authority: &Authority, certificate_pem: &str, names: &[ServerName<'static>]) -> bool {
    let check = || {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().ok()?).ok()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build().ok()?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let later = UnixTime::since_unix_epoch(since_epoch.saturating_add(RENEW_BEFORE));
        let takes = |name| verifier.verify_server_cert(&certificate, &[], name, &[], later).is_ok();
        Some(names.iter().all(takes))
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

fn parse(certificate_pem: &str) -> Result<CertificateDer<'static>, Failure> {
    CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|error| unusable(SERVER_CERTIFICATE, RENEWED, &error))
}

fn not_a_name(name: &str) -> Failure {
    Failure::new(format!("`{name}` is neither a host name nor an IP address"), "check --name and --listen")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_certificate(state: &StateDir, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        load_or_make(state, &names).unwrap().chain[0].clone()
    }

    #[test]
    fn the_second_start_keeps_authority_and_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let first = server_certificate(&state, &["hub.example"]);
        let authority = state.read(AUTHORITY.certificate).unwrap();
        assert_eq!(server_certificate(&state, &["hub.example"]), first);
        assert_eq!(state.read(AUTHORITY.certificate).unwrap(), authority);
    }

    #[test]
    fn a_new_name_makes_a_new_certificate_of_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let first = server_certificate(&state, &[]);
        let authority = state.read(AUTHORITY.certificate).unwrap();
        assert_ne!(server_certificate(&state, &["hub.example", "10.1.2.3"]), first);
        assert_eq!(state.read(AUTHORITY.certificate).unwrap(), authority);
    }

    #[test]
    fn a_certificate_of_a_lost_authority_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let first = server_certificate(&state, &[]);
        state.remove(AUTHORITY.key);
        assert_ne!(server_certificate(&state, &[]), first);
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        server_certificate(&state, &[]);
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.file(AUTHORITY.key)), 0o600);
        assert_eq!(mode(state.file(SERVER_KEY)), 0o600);
        assert_eq!(mode(state.path().to_path_buf()), 0o700);
    }
}
