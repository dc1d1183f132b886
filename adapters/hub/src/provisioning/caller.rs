//! Who asks, and which enrollment lets it in.

use std::sync::Arc;
use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::Authentication;
use devicebound::iothub::provisioning::{RegistrationId, derive_key, verify};
use devicebound::iothub::sas::{SasError, SasToken, SymmetricKey};
use devicebound::time::UnixTime;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::Provisioning;
use super::attestation::Attestation;
use super::certificates;
use super::entry::{Entry, Kind};
use super::error::Refusal;

/// A device that registers, polls or looks itself up.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// As it writes it.
    pub(crate) registration_id: String,
    pub(crate) proof: Proof,
    pub(crate) api_version: String,
}

/// What it shows.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    Nothing,
    /// A SAS token.
    Token(String),
    /// The certificates of its TLS connection, its own first.
    Certificates(Arc<[CertificateDer<'static>]>),
}

/// A device that was let in.
#[derive(Clone, Debug)]
pub(super) struct Attested {
    /// By this.
    pub(super) entry: Arc<Entry>,
    /// How it is to prove itself at its hub.
    pub(super) authentication: Authentication,
    /// What its registration says of that: the member's name, and its value.
    pub(super) mechanism: (&'static str, Value),
}

impl Proof {
    /// Whether a refusal is told of as one of a certificate.
    pub(super) const fn is_certificate(&self) -> bool {
        matches!(self, Self::Certificates(_))
    }
}

impl Provisioning {
    /// Which enrollment lets the device in: its own, else the first group whose key or certificate stands behind what it
    /// shows.
    pub(super) fn attest(&self, caller: &Caller, now: UnixTime) -> Result<Attested, Refusal> {
        let id = RegistrationId::new(&caller.registration_id).map_err(|error| {
            Refusal::of(400_004, error.rule(), format_args!("`{}` came", caller.registration_id))
        })?;
        let unauthorized = |rule| Refusal::unauthorized(rule, caller.proof.is_certificate());
        let own = self.records.entry(Kind::Individual, id.as_str());
        if own.as_ref().is_some_and(|entry| is_tpm(entry)) {
            return Err(unauthorized(Rule::DpsTpm));
        }
        match (&caller.proof, own) {
            (Proof::Nothing, _) => Err(unauthorized(Rule::DpsNoCredentials)),
            (Proof::Token(text), own) => {
                let token = SasToken::parse(text).map_err(|_| unauthorized(Rule::DpsSasMalformed))?;
                match own {
                    Some(entry) => self.by_own_key(&token, id, entry, now).map_err(unauthorized),
                    None => self.by_group_key(&token, id, now)?.map_err(unauthorized),
                }
            }
            (Proof::Certificates(chain), Some(entry)) => {
                by_own_certificate(chain, id, entry, now).map_err(unauthorized)
            }
            (Proof::Certificates(chain), None) => {
                self.by_group_certificate(chain, id, now)?.map_err(unauthorized)
            }
        }
    }

    fn check<'k>(
        &self,
        token: &SasToken<'_>,
        id: RegistrationId<'_>,
        keys: impl IntoIterator<Item = &'k SymmetricKey>,
        now: UnixTime,
    ) -> Result<(), Rule> {
        verify(token, &self.settings.id_scope, id, keys, now, Duration::ZERO).map(drop).map_err(rule)
    }

    fn by_own_key(
        &self,
        token: &SasToken<'_>,
        id: RegistrationId<'_>,
        entry: Arc<Entry>,
        now: UnixTime,
    ) -> Result<Attested, Rule> {
        let Attestation::Keys { primary, secondary } = &entry.attestation else {
            return Err(Rule::DpsAttestation);
        };
        self.check(token, id, [primary, secondary], now)?;
        let authentication = Authentication::Sas { primary: primary.clone(), secondary: secondary.clone() };
        Ok(Attested { authentication, mechanism: ("symmetricKey", json!({})), entry })
    }

    /// The outer error: there is nobody who could let it in.
    fn by_group_key(
        &self,
        token: &SasToken<'_>,
        id: RegistrationId<'_>,
        now: UnixTime,
    ) -> Result<Result<Attested, Rule>, Refusal> {
        let mut refusal = None;
        for entry in self.records.groups() {
            let Attestation::Keys { primary, secondary } = &entry.attestation else { continue };
            let derived = [primary, secondary].map(|key| derive_key(key, id));
            match self.check(token, id, &derived, now) {
                Ok(()) => {
                    let [primary, secondary] = derived;
                    let mechanism = ("symmetricKey", json!({"enrollmentGroupId": entry.id}));
                    let authentication = Authentication::Sas { primary, secondary };
                    return Ok(Ok(Attested { authentication, mechanism, entry }));
                }
                // The most telling reason is kept: a group's own key, then whatever is not a signature.
                Err(Rule::DpsSasSignature) if self.check(token, id, [primary, secondary], now).is_ok() => {
                    refusal = Some(Rule::DpsGroupKey);
                }
                Err(rule) if rule != Rule::DpsSasSignature || refusal.is_none() => refusal = Some(rule),
                Err(_) => {}
            }
        }
        refusal.map(Err).ok_or_else(|| unknown(id))
    }

    /// The same for certificates: the group that is nearest to the device's own counts.
    fn by_group_certificate(
        &self,
        chain: &[CertificateDer<'static>],
        id: RegistrationId<'_>,
        now: UnixTime,
    ) -> Result<Result<Attested, Rule>, Refusal> {
        let mut nearest: Option<(usize, Arc<Entry>)> = None;
        let mut has_group = false;
        for entry in self.records.groups() {
            for authority in entry.attestation.authorities(&self.settings.authorities) {
                has_group = true;
                let Some(distance) = certificates::distance(chain, authority, now) else { continue };
                if nearest.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
                    nearest = Some((distance, Arc::clone(&entry)));
                }
            }
        }
        let Some(leaf) = chain.first() else { return Ok(Err(Rule::DpsNoCredentials)) };
        match nearest {
            Some((_, entry)) => Ok(by_certificate(leaf, id, entry)),
            None if has_group => Ok(Err(Rule::DpsCertificateChain)),
            None => Err(unknown(id)),
        }
    }
}

fn by_own_certificate(
    chain: &[CertificateDer<'static>],
    id: RegistrationId<'_>,
    entry: Arc<Entry>,
    now: UnixTime,
) -> Result<Attested, Rule> {
    let leaf = chain.first().ok_or(Rule::DpsNoCredentials)?;
    match &entry.attestation {
        Attestation::Certificates(known) if known.contains(leaf) => {}
        Attestation::Certificates(_) => return Err(Rule::DpsCertificate),
        _ => return Err(Rule::DpsAttestation),
    }
    if !certificates::is_in_time(leaf, now) {
        return Err(Rule::DpsCertificateChain);
    }
    by_certificate(leaf, id, entry)
}

fn by_certificate(
    leaf: &CertificateDer<'static>,
    id: RegistrationId<'_>,
    entry: Arc<Entry>,
) -> Result<Attested, Rule> {
    if !certificates::common_name(leaf).is_some_and(|name| name.eq_ignore_ascii_case(id.as_str())) {
        return Err(Rule::DpsCertificateName);
    }
    let mut mechanism = json!({"certificateInfo": certificates::info(leaf)});
    if let (Kind::Group, Some(mechanism)) = (entry.kind, mechanism.as_object_mut()) {
        mechanism.insert("enrollmentGroupId".to_owned(), entry.id.clone().into());
    }
    let authentication =
        Authentication::SelfSigned { primary: certificates::thumbprint(leaf), secondary: None };
    Ok(Attested { authentication, mechanism: ("x509", mechanism), entry })
}

fn is_tpm(entry: &Entry) -> bool {
    matches!(entry.attestation, Attestation::Unsupported)
}

fn unknown(id: RegistrationId<'_>) -> Refusal {
    Refusal::of(404_201, Rule::DpsUnknown, format_args!("there is none for `{}`", id.as_str()))
}

const fn rule(error: SasError) -> Rule {
    match error {
        SasError::Malformed(_) => Rule::DpsSasMalformed,
        SasError::WrongScope => Rule::DpsSasScope,
        SasError::BadSignature => Rule::DpsSasSignature,
        SasError::Forbidden => Rule::DpsSasPolicy,
        SasError::Expired => Rule::DpsSasExpired,
    }
}
