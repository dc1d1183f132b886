//! Finds the endpoint of a request, and lets in who may ask.
//!
//! ```text
//!  path ─▶ decoded once ─▶ endpoint ─▶ audited: token ─▶ api-version ─▶ metering ─▶ handler ─▶ answer
//! ```

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use percent_encoding::percent_decode_str;

use super::call::{Call, Peer, header};
use super::endpoint::{Answer, Right, Route};
use super::endpoints::instead;
use super::parameters::Parameters;
use super::{ApiError, Shared};
use crate::backend::access::{Caller, Refused};
use crate::backend::audit::{Outcome, Protocol, Subject};
use crate::backend::{Backend, ClientId, Code, Error};
use crate::transport::websocket;

/// All endpoints, and who lets in.
#[derive(Debug)]
struct Api {
    backend: Shared,
    routes: Vec<Route>,
    /// What serves the paths that no endpoint has.
    others: Router,
}

/// Rides on the answer of `others` to a path that they do not have either.
#[derive(Clone, Copy, Debug)]
struct Unserved;

/// Serves these endpoints, and by `others` what has none of their paths. Each request carries a [`Peer`] as extension.
pub(super) fn router(backend: Arc<Backend>, routes: Vec<Route>, others: Router) -> Router {
    let others = others.fallback(async || {
        let mut response = StatusCode::NOT_FOUND.into_response();
        response.extensions_mut().insert(Unserved);
        response
    });
    Router::new().fallback(answer).with_state(Arc::new(Api { backend, routes, others }))
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    match Arc::clone(&api).respond(request).await {
        Ok(response) => response,
        Err(error) => {
            let code = error.code();
            let why = format!("{} {}: {}", code.number(), code.name(), error.as_ref());
            api.backend.engine.view.request_refused(peer, [method.as_str(), &path], &why);
            error.into_response()
        }
    }
}

/// The endpoint of a request.
struct Found {
    /// Its place among the routes.
    index: usize,
    parameters: Parameters,
    /// The path with its words spelled as in the table.
    path: String,
}

impl Api {
    async fn respond(self: Arc<Self>, request: Request) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let Some(found) = self.find(&parts)? else { return self.pass_on(parts, body).await };
        let subject = self.subject(&found, &parts);
        let backend = Arc::clone(&self.backend);
        let answered = backend.audited(subject, |gone| async move {
            let caller = match self.let_in(&found, &parts).await {
                Ok(caller) => caller,
                Err(Refused { error, policy }) => return Outcome::refused(policy, error.into()),
            };
            let result = match self.admit(&found, &parts).await {
                Ok(handler) => handler(Call::new(parts, found.parameters, caller.clone(), gone, body)).await,
                Err(error) => Err(error.into()),
            };
            Outcome::of(caller, result.map(|response| (response.status().as_u16(), response)))
        });
        answered.await
    }

    /// Passes on a request whose path no endpoint has.
    async fn pass_on(&self, mut parts: Parts, body: Body) -> Result<Response, ApiError> {
        if is_web_socket(&parts) {
            return Err(unknown(&parts));
        }
        let original = parts.clone();
        // Their paths are taken apart before they are decoded.
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        let target = uri.path_and_query.as_ref().map(|target| with_slashes(target.as_str()));
        uri.path_and_query = target.and_then(|target| target.parse().ok());
        parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| original.uri.clone());
        let Ok(response) =
            TowerToHyperService::new(self.others.clone()).call(Request::from_parts(parts, body)).await;
        match response.extensions().get::<Unserved>() {
            Some(_) => Err(unknown(&original)),
            None => Ok(response),
        }
    }

    /// Finds the endpoint of a request; `None` where none has its path. The path is decoded once, and only then taken apart:
    /// Azure IoT Explorer sends each slash as `%2F`, and an id has none.
    fn find(&self, parts: &Parts) -> Result<Option<Found>, ApiError> {
        let (method, raw) = (&parts.method, parts.uri.path());
        let path = percent_decode_str(raw)
            .decode_utf8()
            .map_err(|_| Error::invalid(format!("the path {raw} is not UTF-8 once it is decoded")))?;
        let segments: Vec<&str> = segments(&path);
        let (mut best, mut others) = (None, Vec::new());
        for (index, route) in self.routes.iter().enumerate() {
            let Some((parameters, words, path)) = Parameters::of(route.path, &segments) else { continue };
            if route.method != *method {
                others.push(route.method.as_str());
            } else if best.as_ref().is_none_or(|(most, _)| words > *most) {
                // Words before parameters: `POST /devices/query` is the query, `GET /devices/query` a device of that name.
                best = Some((words, Found { index, parameters, path }));
            }
        }
        if let Some((_, found)) = best {
            return Ok(Some(found));
        }
        if method == Method::HEAD {
            // GET may lock a message; HEAD changes nothing (RFC 9110 §9.2.1).
            return Err(Error::new(Code::MethodNotAllowed, format!("HEAD {path}: send GET")).into());
        }
        if others.is_empty() { Ok(None) } else { Err(not_taken(method, &path, others)) }
    }

    fn subject(&self, found: &Found, parts: &Parts) -> Subject {
        let audit = self.routes.get(found.index).and_then(|route| route.audit);
        let text = |name| header(&parts.headers, name).map(str::to_owned);
        Subject {
            protocol: Protocol::Https,
            kind: audit.map(|audit| audit.kind(&parts.headers)),
            device_id: found.parameters.get("id").unwrap_or_default().to_owned(),
            module_id: found.parameters.get("module").map(str::to_owned),
            user_agent: text("user-agent"),
            size: text("content-length").and_then(|length| length.parse().ok()),
        }
    }

    /// Who asks, if they may.
    async fn let_in(&self, found: &Found, parts: &Parts) -> Result<Caller, Refused> {
        let right = self.routes.get(found.index).ok_or_else(Error::stopping)?.right;
        let peer = parts.extensions.get::<Peer>();
        let token = one_token(parts)?;
        let access = &self.backend.access;
        match right {
            Right::Anybody | Right::BlobSignature => Ok(Caller::default()),
            Right::Policy(rights) => access.check(token, &found.path, rights),
            // An address of IPv4 may come in the form of IPv6.
            Right::LocalOr(_) if peer.is_some_and(|peer| peer.address.ip().to_canonical().is_loopback()) => {
                Ok(Caller::default())
            }
            Right::LocalOr(rights) => access.check(token, &found.path, rights),
            Right::Device => {
                let device = ClientId::new(found.parameters.get("id").unwrap_or_default(), None)?;
                let certificate =
                    peer.and_then(|peer| peer.tls.certificate.as_ref()).map(|shown| &shown.judged);
                self.backend.check_device(&device, token, certificate).await
            }
        }
    }

    /// The handler of a request whose caller was let in, once it names an api-version and the tier has room for it.
    async fn admit(
        &self,
        found: &Found,
        parts: &Parts,
    ) -> Result<&(dyn Fn(Call) -> Answer + Send + Sync), Error> {
        let route = self.routes.get(found.index).ok_or_else(Error::stopping)?;
        if route.versioned {
            check_version(parts.uri.query().unwrap_or_default())?;
        }
        if let Some(operation) = route.operation {
            self.backend.admit(operation).await?;
        }
        Ok(&route.handler)
    }
}

/// What a path is made of. A slash too many at either end is no part of it.
fn segments(path: &str) -> Vec<&str> {
    let inner = path.trim_start_matches('/');
    inner.strip_suffix('/').unwrap_or(inner).split('/').collect()
}

/// The token of a request. Of two, each reader would take another one.
fn one_token(parts: &Parts) -> Result<Option<&str>, Error> {
    if parts.headers.get_all("authorization").iter().count() > 1 {
        return Err(
            Error::new(Code::Unauthorized, "there are several Authorization headers").with_fix("send one")
        );
    }
    Ok(header(&parts.headers, "authorization"))
}

/// Azure refuses requests that name no version, and so does this hub, so that a program that works here works there.
fn check_version(query: &str) -> Result<(), Error> {
    let names_one = |pair: &str| pair.strip_prefix("api-version=").is_some_and(|version| !version.is_empty());
    if query.split('&').any(names_one) {
        return Ok(());
    }
    Err(Error::new(Code::InvalidProtocolVersion, "the request names no api-version")
        .with_fix("append ?api-version=2021-04-12 to the path"))
}

fn not_taken(method: &Method, path: &str, mut others: Vec<&str>) -> ApiError {
    others.dedup();
    let allowed = others.join(", ");
    let what = format!("{method} {path}: this path takes {allowed}");
    ApiError::from(Error::new(Code::MethodNotAllowed, what)).allowing(allowed)
}

/// The same request with its slashes as they are; the query stays.
fn with_slashes(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = format!("/{}", path.replace("%2F", "/").replace("%2f", "/").trim_start_matches('/'));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

fn is_web_socket(parts: &Parts) -> bool {
    header(&parts.headers, "upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

fn unknown(parts: &Parts) -> ApiError {
    let method = &parts.method;
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    let error = |what| Error::new(Code::ResourceNotFound, what);
    let error = match instead(&segments(&path)) {
        Some(advice) => error(format!("{method} {path}: {advice}")),
        None if is_web_socket(parts) => error(format!("there is no WebSocket at {path}"))
            .with_fix(format!("connect to {}", websocket::PATH)),
        None => error(format!("{method} {path} is not part of this hub's service API")),
    };
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_version_of_the_api() {
        for query in ["api-version=2021-04-12", "top=3&api-version=2030-01-01"] {
            assert!(check_version(query).is_ok(), "{query}");
        }
        for query in ["", "api-version=", "top=3", "x-api-version=1"] {
            assert!(check_version(query).is_err(), "{query}");
        }
    }

    #[test]
    fn an_encoded_slash_is_one_and_the_query_stays() {
        assert_eq!(with_slashes("/0ne1%2Fregistrations%2fd?a=%2F"), "/0ne1/registrations/d?a=%2F");
        assert_eq!(with_slashes("%2Fenrollments"), "/enrollments");
    }

    #[test]
    fn a_path_is_what_stands_between_its_slashes() {
        assert_eq!(segments("/devices"), ["devices"]);
        assert_eq!(segments("/devices/"), ["devices"]);
        assert_eq!(segments("//devices/query"), ["devices", "query"]);
        assert_eq!(segments("/devices//modules"), ["devices", "", "modules"]);
        assert_eq!(segments("/"), [""]);
    }
}
