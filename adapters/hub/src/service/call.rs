//! A request, as a handler gets it.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::parameters::Parameters;
use crate::backend::access::Caller;
use crate::backend::audit::Gone;
use crate::backend::{ClientId, Code, Error};
use crate::transport::tls::TlsPeer;

/// No request has a larger body: a method's payload is at most 128 KB, and JSON may escape each byte of it.
const BODY_MAX: usize = 1024 * 1024;

/// The other end of an HTTPS connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// What the TLS handshake told of it.
    pub tls: TlsPeer,
}

/// A request whose caller was let in.
#[derive(Debug)]
pub struct Call {
    pub(crate) parts: Parts,
    pub(crate) parameters: Parameters,
    /// Who asks.
    pub(crate) caller: Caller,
    /// Ready when the caller is gone.
    pub(crate) gone: Gone,
    body: Body,
}

impl Call {
    pub(super) const fn new(
        parts: Parts,
        parameters: Parameters,
        caller: Caller,
        gone: Gone,
        body: Body,
    ) -> Self {
        Self { parts, parameters, caller, gone, body }
    }

    /// A parameter of the path, decoded; empty where the path has none of this name.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).unwrap_or_default()
    }

    /// The identity that the path names by `id` and, for a module, by `module`.
    pub(crate) fn client_id(&self) -> Result<ClientId, Error> {
        ClientId::new(self.parameter("id"), self.parameters.get("module"))
    }

    /// The text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.parts.headers, name)
    }

    /// The path, decoded, as the client spelled it.
    pub(crate) fn path(&self) -> String {
        let path = percent_decode_str(self.parts.uri.path()).decode_utf8_lossy().into_owned();
        format!("/{}", path.trim_matches('/'))
    }

    /// The query as it was written.
    pub(crate) fn raw_query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// The value of a name in the query, decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        values(self.raw_query(), name).next()
    }

    /// Where the request comes from, if that is known.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.parts.extensions.get()
    }

    /// The body as it comes, once.
    pub(super) fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    /// The body, to its end.
    ///
    /// # Errors
    /// 413001 for one of more than [`BODY_MAX`] bytes, 400004 for one that does not come, or not in time.
    pub(crate) async fn body(&mut self) -> Result<Bytes, Error> {
        self.body_within(BODY_MAX).await
    }

    /// The same for one of at most so many bytes.
    pub(super) async fn body_within(&mut self, most: usize) -> Result<Bytes, Error> {
        let mut stream = self.take_body().into_data_stream();
        let mut bytes = Vec::new();
        while let Some(data) = stream.next().await {
            let data = data.map_err(|error| Error::invalid(format!("the body cannot be read: {error}")))?;
            if bytes.len().saturating_add(data.len()) > most {
                let what = format!("a body has at most {most} bytes");
                return Err(Error::new(Code::MessageTooLarge, what));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.into())
    }

    /// A body that is JSON, whatever its Content-Type says.
    pub(crate) async fn json(&mut self) -> Result<Value, Error> {
        let body = self.body().await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::invalid(format!("the body is not JSON: {error}")))
    }

    /// The same for a body that has members.
    pub(crate) async fn json_object(&mut self) -> Result<Value, Error> {
        let body = self.json().await?;
        if body.is_object() { Ok(body) } else { Err(Error::invalid("the body is a JSON object: {…}")) }
    }
}

/// The values of a name in a query, decoded, in their order.
pub(super) fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = String> + 'q {
    let value = move |pair: &'q str| match pair.split_once('=') {
        Some((known, value)) => (known == name).then_some(value),
        None => (pair == name).then_some(""),
    };
    let decoded = |value: &str| percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').filter_map(value).map(decoded)
}

/// The text of a header.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}
