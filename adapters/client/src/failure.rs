//! Why there is no transport, and what to do about it.

use std::fmt;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, Error as TlsFailure};

/// Why a transport could not be opened, or broke, with the host that it was for.
#[derive(Debug)]
pub struct TransportError {
    host: String,
    error: io::Error,
}

impl TransportError {
    pub(crate) fn new(host: &str, error: io::Error) -> Self {
        Self { host: host.to_owned(), error }
    }

    /// The host: the hub, or the gateway.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What went wrong: the system's error, or within an [`io::Error`] that of TLS, proxy or WebSocket.
    #[must_use]
    pub const fn error(&self) -> &io::Error {
        &self.error
    }

    /// What to do about it, where that can be said and the error itself does not say it.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        let inner = self.error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFailure>());
        match inner {
            Some(failure) => Some(fix_of_tls(failure)),
            None => fix_of_tcp(self.error.kind()),
        }
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no transport to {}: {}", self.host, self.error)?;
        self.fix().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

fn fix_of_tcp(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ConnectionRefused => "check host and port, and that the hub is running",
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "check the network; where a firewall closes port 8883, use Tls::with_websocket or Tls::with_proxy"
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            "nothing to fix unless it repeats: then check what sits between, and the hub's log"
        }
        _ => return None,
    })
}

fn fix_of_tls(failure: &TlsFailure) -> &'static str {
    match failure {
        TlsFailure::InvalidCertificate(certificate) => fix_of_certificate(certificate),
        TlsFailure::InvalidMessage(_) | TlsFailure::InappropriateMessage { .. } => {
            "what answers does not speak TLS there; check the port: 8883 for MQTT, 443 for WebSocket"
        }
        TlsFailure::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError,
        ) => {
            "the hub refuses the device's certificate; check its dates and chain, and that its key belongs to it"
        }
        TlsFailure::AlertReceived(_) | TlsFailure::PeerIncompatible(_) => {
            "check that the hub speaks TLS 1.2 or 1.3, and the name that it is asked for"
        }
        _ => "check that host and port are those of an IoT Hub, and what sits between",
    }
}

fn fix_of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => {
            "trust the authority that has signed the hub's certificate: Tls::with_authorities_file with its PEM file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "connect by a name that is in the hub's certificate, or give one that is to Tls::with_server_name"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "check the device's clock first, then the dates of the hub's certificate"
        }
        _ => {
            "the hub's certificate cannot be used; look at it with: openssl s_client -connect HOST:8883 -showcerts"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: io::Error) -> String {
        TransportError::new("hub.example.test", error).to_string()
    }

    #[test]
    fn an_error_of_tls_names_the_host_and_says_what_to_do() {
        let certificate =
            |error| io::Error::new(ErrorKind::InvalidData, TlsFailure::InvalidCertificate(error));
        for (error, fix) in [
            (CertificateError::UnknownIssuer, "Tls::with_authorities_file"),
            (CertificateError::NotValidForName, "Tls::with_server_name"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::BadEncoding, "openssl s_client"),
        ] {
            let told = told(certificate(error));
            assert!(told.starts_with("no transport to hub.example.test: ") && told.contains(fix), "{told}");
        }
        let alert = TlsFailure::AlertReceived(AlertDescription::UnknownCA);
        assert!(told(io::Error::new(ErrorKind::InvalidData, alert)).contains("the device's certificate"));
    }

    #[test]
    fn an_error_of_tcp_names_the_host_and_says_what_to_do() {
        assert!(told(ErrorKind::ConnectionRefused.into()).contains("check host and port"));
        assert!(told(ErrorKind::TimedOut.into()).contains("Tls::with_websocket"));
        assert_eq!(told(io::Error::other("odd")), "no transport to hub.example.test: odd");
    }
}
