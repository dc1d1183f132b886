//! The way through an HTTP proxy: CONNECT (RFC 9110, 9.3.6), which leaves a plain connection to the hub.

use std::fmt;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use tungstenite::http::Uri;

/// Longest answer of a proxy, in bytes: what Apache and nginx allow for all of a request's headers, by default.
const ANSWER_MAX: usize = 8 * 1024;
/// Most headers in it: what Apache allows for a request, by default.
const HEADERS_MAX: usize = 100;

/// Why there is no way through the proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The text is no URL of an HTTP proxy. It is not shown, because there may be a password in it.
    #[error(
        "this is no HTTP proxy; write http://host:port or http://user:password@host:port, special characters as in a URL (%40 for @)"
    )]
    Url,
    /// There is no connection to the proxy itself.
    #[error("the proxy {proxy} cannot be reached: {why}; check its host and port")]
    NoConnection {
        /// Host and port.
        proxy: String,
        /// What the system says.
        why: String,
    },
    /// 407, and no name and password were given.
    #[error("the proxy wants a name and a password (407); write http://user:password@host:port")]
    CredentialsMissing,
    /// 407, though name and password were given.
    #[error("the proxy refuses name and password (407); check them, and that it takes Basic authentication")]
    CredentialsRefused,
    /// 502, as a rule; 5xx in general.
    #[error(
        "the proxy cannot reach {hub} ({status}); check the hub's name, and that the proxy finds its way to it"
    )]
    HubUnreachable {
        /// The status of the answer.
        status: u16,
        /// Host and port.
        hub: String,
    },
    /// 403, as a rule; any other status than 2xx.
    #[error("the proxy does not connect to {hub} ({status}); let it allow CONNECT to there")]
    NotAllowed {
        /// The status of the answer.
        status: u16,
        /// Host and port.
        hub: String,
    },
    /// What came is no answer to CONNECT.
    #[error("the answer is not that of an HTTP proxy; check its host and port")]
    NotAProxy,
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        Self::other(error)
    }
}

/// Where the proxy is, and who asks it.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `user:password` in base64.
    basic: Option<String>,
}

impl Proxy {
    pub(crate) fn parse(url: &str) -> Result<Self, ProxyError> {
        let url: Uri = url.parse().map_err(|_| ProxyError::Url)?;
        let (Some("http"), Some(authority), "/") = (url.scheme_str(), url.authority(), url.path()) else {
            return Err(ProxyError::Url);
        };
        let basic = authority.as_str().rsplit_once('@').map(|(credentials, _)| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let plain: Vec<u8> =
                percent_decode_str(user).chain(Some(b':')).chain(percent_decode_str(password)).collect();
            STANDARD.encode(plain)
        });
        // Brackets belong to the URL, not to the address.
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(ProxyError::Url);
        }
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), basic })
    }
}

/// Without the password, which would let a reader of logs in.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

/// Host and port as they stand in a URL.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What is asked of a proxy, until it has answered.
pub(crate) struct Tunnel {
    hub: String,
    with_credentials: bool,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Tunnel {
    pub(crate) fn new(proxy: &Proxy, host: &str, port: u16) -> Self {
        let hub = authority(host, port);
        let basic = proxy
            .basic
            .as_ref()
            .map(|basic| format!("Proxy-Authorization: Basic {basic}\r\n"))
            .unwrap_or_default();
        let request = format!("CONNECT {hub} HTTP/1.1\r\nHost: {hub}\r\n{basic}\r\n").into_bytes();
        Self { hub, with_credentials: proxy.basic.is_some(), request, answer: Vec::new() }
    }

    /// Writes once at most; whether that was all.
    pub(crate) fn write_tcp(&mut self, tcp: &mut impl Write) -> io::Result<bool> {
        if !self.request.is_empty() {
            let length = tcp.write(&self.request)?;
            self.request.drain(..length);
        }
        Ok(self.request.is_empty())
    }

    /// Reads once; whether the way is open.
    pub(crate) fn read_tcp(&mut self, tcp: &mut impl Read) -> io::Result<bool> {
        let mut room = [0; 1024];
        let length = tcp.read(&mut room)?;
        self.answer.extend(&room[..length]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.answer) {
            Ok(httparse::Status::Partial) if length > 0 && self.answer.len() <= ANSWER_MAX => Ok(false),
            Ok(httparse::Status::Complete(end)) => {
                let status = response.code.unwrap_or_default();
                // The hub says nothing before it is asked.
                let is_all = end == self.answer.len();
                if (200..300).contains(&status) && is_all {
                    Ok(true)
                } else {
                    Err(self.refusal(status).into())
                }
            }
            _ => Err(ProxyError::NotAProxy.into()),
        }
    }

    fn refusal(&self, status: u16) -> ProxyError {
        let hub = self.hub.clone();
        match status {
            407 if self.with_credentials => ProxyError::CredentialsRefused,
            407 => ProxyError::CredentialsMissing,
            500..600 => ProxyError::HubUnreachable { status, hub },
            200..300 => ProxyError::NotAProxy,
            _ => ProxyError::NotAllowed { status, hub },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(url: &str) -> Tunnel {
        Tunnel::new(&Proxy::parse(url).unwrap(), "hub.example.test", 443)
    }

    /// What comes of this answer, read one byte at a time as well as whole.
    fn answered(url: &str, answer: &str) -> Result<bool, String> {
        let mut whole = tunnel(url);
        let result = whole.read_tcp(&mut answer.as_bytes()).map_err(|error| error.to_string());
        let mut bytewise = tunnel(url);
        let mut last = Ok(false);
        let mut bytes = answer.bytes();
        while let (Ok(false), Some(byte)) = (&last, bytes.next()) {
            last = bytewise.read_tcp(&mut [byte].as_slice()).map_err(|error| error.to_string());
        }
        assert_eq!(result, last);
        result
    }

    #[test]
    fn a_proxy_is_asked_for_the_hub_with_name_and_password_as_they_are_meant() {
        let mut written = Vec::new();
        assert!(tunnel("http://al%40home:s%3Ae%20cret@proxy:3128/").write_tcp(&mut written).unwrap());
        let basic = STANDARD.encode("al@home:s:e cret");
        let expected = format!(
            "CONNECT hub.example.test:443 HTTP/1.1\r\nHost: hub.example.test:443\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
        );
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn a_request_that_is_taken_in_parts_is_written_whole() {
        let mut tunnel = tunnel("http://proxy");
        let mut written = Vec::new();
        let mut part = [0; 10];
        while !tunnel.write_tcp(&mut part.as_mut_slice()).unwrap() {
            written.extend(part);
        }
        assert!(String::from_utf8(written).unwrap().starts_with("CONNECT hub.example.test:443 HTTP/1.1\r\n"));
    }

    #[test]
    fn any_2xx_of_any_http_1_opens_the_way() {
        for answer in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\nVia: 1.0 old\r\n\r\n",
            "HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(answered("http://proxy:3128", answer), Ok(true), "{answer}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let (plain, secret) = ("http://proxy:3128", "http://me:secret@proxy:3128");
        for (url, answer, advice) in [
            (
                plain,
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                "write http://user:password@host:port",
            ),
            (secret, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "check them"),
            (plain, "HTTP/1.1 502 Bad Gateway\r\n\r\n", "check the hub's name"),
            (plain, "HTTP/1.0 500 Unable to connect\r\nServer: tinyproxy\r\n\r\n", "check the hub's name"),
            (plain, "HTTP/1.1 403 Forbidden\r\n\r\n", "let it allow CONNECT"),
            (plain, "SSH-2.0-OpenSSH_9.2\r\n", "check its host and port"),
        ] {
            let told = answered(url, answer).unwrap_err();
            assert!(told.contains(advice), "{told}");
        }
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let mut tunnel = tunnel("http://proxy");
        let mut endless = "HTTP/1.1 200 OK\r\nA: ".bytes().chain(std::iter::repeat(b'a'));
        let error = loop {
            let some: Vec<u8> = endless.by_ref().take(1000).collect();
            match tunnel.read_tcp(&mut some.as_slice()) {
                Ok(opened) => assert!(!opened),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), ProxyError::NotAProxy.to_string());
        assert!(tunnel.answer.len() <= ANSWER_MAX + 1024);
    }

    #[test]
    fn an_answer_that_ends_early_or_has_more_behind_it_is_none() {
        for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nhello"] {
            let mut tunnel = tunnel("http://proxy");
            let mut tcp = answer.as_bytes();
            let result = tunnel.read_tcp(&mut tcp).and_then(|_| tunnel.read_tcp(&mut tcp));
            assert_eq!(result.unwrap_err().to_string(), ProxyError::NotAProxy.to_string(), "{answer}");
        }
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_showing_it() {
        for url in [
            "",
            "proxy",
            "proxy:3128",
            "https://me:secret@proxy:3128",
            "http://",
            "http://proxy/path",
            "ftp://proxy",
        ] {
            assert_eq!(Proxy::parse(url).unwrap_err(), ProxyError::Url, "{url}");
        }
    }

    #[test]
    fn port_80_is_meant_where_none_is_written_and_an_ipv6_address_stands_in_brackets() {
        let proxy = Proxy::parse("http://[::1]").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 80));
        assert_eq!(format!("{proxy:?}"), "[::1]:80");
    }
}
