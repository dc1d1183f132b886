//! For how long certificates are good, and what is said of those that are not.

use std::time::Duration;

use devicebound::time::UnixTime;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

/// So long before the end somebody is told, or a certificate of the hub's own is made anew.
pub(crate) const NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);

/// From when and until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) begin: UnixTime,
    pub(crate) end: UnixTime,
}

/// What the dates come to at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// Good, and over within [`NOTICE`].
    EndsSoon,
    NotYet,
    Over,
}

impl Validity {
    /// The dates of a certificate; `None` where it cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        Some(Self { begin: time(validity.not_before), end: time(validity.not_after) })
    }

    pub(crate) fn at(self, now: UnixTime) -> Standing {
        if now < self.begin {
            Standing::NotYet
        } else if self.end < now {
            Standing::Over
        } else if self.end < now.after(NOTICE) {
            Standing::EndsSoon
        } else {
            Standing::Good
        }
    }

    /// Why a certificate is not good at `now`; `None` where it is.
    pub(crate) fn complaint(self, now: UnixTime) -> Option<String> {
        match self.at(now) {
            Standing::Good | Standing::EndsSoon => None,
            Standing::NotYet => {
                Some(format!("it is good from {} on, and this machine's clock says {now}", self.begin))
            }
            Standing::Over => {
                Some(format!("it was good until {}, and this machine's clock says {now}", self.end))
            }
        }
    }
}

/// A time before 1970 is 1970.
fn time(time: ASN1Time) -> UnixTime {
    UnixTime::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dates_of_a_certificate_come_to_four_things() {
        let day = |days: u64| UnixTime::from_secs(days * 24 * 3600);
        let validity = Validity { begin: day(100), end: day(200) };
        let standings = [99, 100, 169, 171, 200, 201].map(|days| validity.at(day(days)));
        use Standing::{EndsSoon, Good, NotYet, Over};
        assert_eq!(standings, [NotYet, Good, Good, EndsSoon, EndsSoon, Over]);
        assert!(validity.complaint(day(201)).unwrap().contains("good until 1970-07-20"));
        assert!(validity.complaint(day(1)).unwrap().contains("clock says 1970-01-02"));
    }
}
