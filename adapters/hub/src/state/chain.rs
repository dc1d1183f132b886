//! The way from a certificate that webpki does not read, X.509 v1, to an authority. All others go through webpki.

use devicebound::time::UnixTime;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Certificates between a device's and its authority: as many as webpki follows.
const DEPTH_MAX: usize = 6;

/// Whether a certificate is of version 1, which has no extensions (RFC 5280 §4.1.2.1).
pub(super) fn is_v1(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.version().0 == 0)
}

/// Whether each certificate from `leaf` on is signed by the next, up to one of the authorities, and all are in their time.
/// Those on the way have to be authorities themselves; the last is one because it was named as one.
pub(super) fn leads_to_authority(
    leaf: &CertificateDer<'_>,
    shown: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
    now: UnixTime,
) -> bool {
    let parse = |certificate| X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
    let Some(mut current) = parse(leaf) else { return false };
    let authorities: Vec<_> = authorities.iter().filter_map(|authority| parse(authority)).collect();
    let shown: Vec<_> = shown.iter().filter_map(|shown| parse(shown)).collect();
    for depth in 0..=DEPTH_MAX {
        if !is_in_time(&current, now) {
            return false;
        }
        if authorities.iter().any(|authority| is_in_time(authority, now) && has_signed(authority, &current)) {
            return true;
        }
        let next = shown.iter().find(|next| may_sign(next, depth) && has_signed(next, &current));
        let Some(next) = next else { return false };
        current = next.clone();
    }
    false
}

fn is_in_time(certificate: &X509Certificate<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
}

fn has_signed(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    issuer.subject() == subject.issuer() && subject.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Whether a certificate is of an authority that may have `below` others between itself and a device's.
fn may_sign(certificate: &X509Certificate<'_>, below: usize) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten();
    let is_authority = constraints.is_some_and(|constraints| {
        let reach = constraints.value.path_len_constraint.and_then(|reach| usize::try_from(reach).ok());
        constraints.value.ca && reach.is_none_or(|reach| below <= reach)
    });
    let signs = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    is_authority && signs
}
