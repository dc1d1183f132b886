//! Direct methods.

use std::sync::Arc;
use std::time::Duration;

use devicebound::hub::{CallId, MethodRequest};
use devicebound::limits::METHOD_RESPONSE_TIME;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Backend, ClientId, Error, find};
use crate::engine::Engine;
use crate::engine::core::CallOutcome;

/// What the device answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodResult {
    /// The status, the device's own choice.
    pub status: i32,
    /// The body: JSON, nothing, or whatever a careless device sent.
    pub payload: Vec<u8>,
}

impl MethodResult {
    /// The body as JSON; what a careless device sent, as text.
    #[must_use]
    pub fn to_json(&self) -> Value {
        if self.payload.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|_| String::from_utf8_lossy(&self.payload).into_owned().into())
    }
}

/// Reads `{"methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds"}`.
///
/// # Errors
/// 400004 with what cannot be meant.
pub fn request_of(body: &Value) -> Result<MethodRequest, Error> {
    let invalid = |message: &str| Error::invalid(message.to_owned());
    let seconds = |name: &str, default: Duration| match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .map(Duration::from_secs)
            .ok_or_else(|| invalid(&format!("{name} is a number of seconds"))),
    };
    let name =
        body.get("methodName").and_then(Value::as_str).ok_or_else(|| invalid("methodName is missing"))?;
    Ok(MethodRequest {
        name: name.to_owned(),
        payload: body.get("payload").filter(|payload| !payload.is_null()).map(Value::to_string),
        response_timeout: seconds("responseTimeoutInSeconds", METHOD_RESPONSE_TIME.1)?,
        connect_timeout: seconds("connectTimeoutInSeconds", Duration::ZERO)?,
    })
}

impl Backend {
    /// Calls a direct method and waits for the device's answer. Whoever drops the future ends the call.
    ///
    /// # Errors
    /// 404001, 404010, 404103 where the device is not there, 403800 where it has too many calls, 400004, 504101 where it
    /// does not answer; 503001 where the hub ends first.
    pub async fn invoke(&self, id: &ClientId, request: MethodRequest) -> Result<MethodResult, Error> {
        let engine = Arc::clone(&self.engine);
        let called = self.at(id, move |core, now, id| {
            let key = find(core, id)?;
            let call = core.hub.invoke(now, key, request)?;
            let outcome = core.expect_outcome(call);
            // Made here, so that the call ends even if its caller has hung up by now.
            Ok::<_, Error>(OpenCall { engine, device_id: id.device_id().to_owned(), call, outcome })
        });
        let mut open = called.await?;
        // The machine ends every call; only a hub that stops forgets one.
        let (status, payload) = (&mut open.outcome).await.map_err(|_| Error::stopping())??;
        Ok(MethodResult { status, payload })
    }
}

/// A call that somebody waits for, until this is dropped.
#[derive(Debug)]
struct OpenCall {
    engine: Arc<Engine>,
    device_id: String,
    call: CallId,
    outcome: oneshot::Receiver<CallOutcome>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let (place, call) = (self.engine.place_of(&self.device_id), self.call);
        // Nothing happens where it has ended.
        self.engine.send(place, move |worker| worker.with(|core, _| core.cancel(call)));
    }
}
