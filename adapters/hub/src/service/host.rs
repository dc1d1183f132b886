//! A request names the host that it is for, once (RFC 9112 §3.2).

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::ApiError;
use crate::backend::Error;

/// Refuses a request whose `Host` is missing, is there twice, or is none.
pub(crate) async fn is_named(request: Request, next: Next) -> Response {
    match check(request.version(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => ApiError::from(error).into_response(),
    }
}

fn check(version: Version, headers: &HeaderMap) -> Result<(), Error> {
    let mut hosts = headers.get_all(HOST).iter();
    let wrong = |what: &'static str| {
        Error::invalid(what).with_fix("send one Host header with the name of the hub (RFC 9112 §3.2)")
    };
    let Some(host) = hosts.next() else {
        // HTTP/1.0 does not know it.
        let is_needed = version > Version::HTTP_10;
        return if is_needed { Err(wrong("the request has no Host header")) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err(wrong("the request has several Host headers"));
    }
    let is_authority = |text: &str| {
        // An authority may have user and password in front; a Host has not.
        !text.contains('@') && text.parse::<Authority>().is_ok_and(|host| is_host_and_port(&host))
    };
    match host.to_str() {
        Ok(text) if is_authority(text) => Ok(()),
        _ => Err(wrong("the Host header is no host, with or without a port")),
    }
}

fn is_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
    !host.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_once() {
        let check = |version, hosts: &[&'static str]| {
            let headers = hosts.iter().map(|host| (HOST, host.parse().unwrap())).collect();
            check(version, &headers).is_ok()
        };
        for host in ["localhost", "localhost:8443", "127.0.0.1", "[::1]:443", "hub.azure-devices.net"] {
            assert!(check(Version::HTTP_11, &[host]), "{host}");
        }
        for hosts in [
            &[][..],
            &["localhost", "localhost"],
            &["localhost", "other"],
            &[""],
            &["me@localhost"],
            &["local host"],
            &["localhost/devices"],
            &["https://localhost"],
            &["localhost:port"],
            &[":443"],
            &["localhost:65536"],
        ] {
            assert!(!check(Version::HTTP_11, hosts), "{hosts:?}");
        }
        assert!(check(Version::HTTP_10, &[]));
        assert!(!check(Version::HTTP_10, &["localhost", "other"]));
    }
}
