//! What one request of the API is: how it is found, who may ask for it, how it is counted and told.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::{HeaderMap, Method};
use axum::response::Response;
use devicebound::hub::Operation;
use devicebound::iothub::sas::Rights;

use super::{ApiError, Call};

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Who shows a token of a policy that has this right.
    Policy(Rights),
    /// The same; from this machine anybody.
    LocalOr(Rights),
    /// The device that the path names, by its token or its certificate, or a policy with DeviceConnect.
    Device,
    /// Who has the signature of a blob, or, to read it, a token of a policy with ServiceConnect: the handler checks it, as
    /// the storage has refusals of its own.
    BlobSignature,
    /// Anybody: the handler itself sees who it is.
    Anybody,
}

/// The event that a request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The category of the documents.
    pub category: &'static str,
    /// What is done.
    pub operation: &'static str,
    /// What is done where the request has If-Match.
    pub conditional: Option<&'static str>,
}

impl Audit {
    /// An event of this category, for this operation.
    #[must_use]
    pub const fn new(category: &'static str, operation: &'static str) -> Self {
        Self { category, operation, conditional: None }
    }

    /// Another operation where the request has If-Match.
    #[must_use]
    pub const fn or_with_etag(self, operation: &'static str) -> Self {
        Self { conditional: Some(operation), ..self }
    }

    /// Category and operation of a request.
    pub(super) fn kind(&self, headers: &HeaderMap) -> (&'static str, &'static str) {
        let conditional = self.conditional.filter(|_| headers.contains_key("if-match"));
        (self.category, conditional.unwrap_or(self.operation))
    }
}

/// What a handler gives.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response, ApiError>> + Send>>;

/// One request of the API. `S` is what its handler works on.
#[derive(Debug)]
pub struct Endpoint<S: 'static> {
    /// The method.
    pub method: Method,
    /// The path: words, which are found in any case of letters, and parameters in braces; `{*name}` is all the rest.
    pub path: &'static str,
    /// Who may ask.
    pub right: Right,
    /// What it counts as where the hub has a tier; `None` where the hub machine counts it, or nobody does.
    pub operation: Option<Operation>,
    /// The event that it leaves; `None` where the documents have no category for it.
    pub audit: Option<Audit>,
    /// Whether it names an api-version, as everything of Azure's API does. Which one does not matter: there is one shape.
    pub versioned: bool,
    /// What answers it.
    pub handler: fn(Arc<S>, Call) -> Answer,
}

/// An endpoint with what its handler works on.
pub struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) right: Right,
    pub(super) operation: Option<Operation>,
    pub(super) audit: Option<Audit>,
    pub(super) versioned: bool,
    pub(super) handler: Box<dyn Fn(Call) -> Answer + Send + Sync>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The endpoints of a table, which work on `state`.
pub fn mount<S: Send + Sync>(state: &Arc<S>, table: &'static [Endpoint<S>]) -> Vec<Route> {
    let route = |endpoint: &'static Endpoint<S>| {
        let (state, handler) = (Arc::clone(state), endpoint.handler);
        Route {
            method: endpoint.method.clone(),
            path: endpoint.path,
            right: endpoint.right,
            operation: endpoint.operation,
            audit: endpoint.audit,
            versioned: endpoint.versioned,
            handler: Box::new(move |call| handler(Arc::clone(&state), call)),
        }
    };
    table.iter().map(route).collect()
}
