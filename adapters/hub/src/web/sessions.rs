//! Who may look at the page: a code that works once becomes a session that ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::UnixTime;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Page;
use crate::backend::{Code, Error};
use crate::clock::unix_time;
use crate::service::ApiError;

/// The name of the cookie. `__Host-` would keep it to this host and `Secure` as well, but Chromium does not take it for
/// an IP address.
pub(super) const COOKIE_NAME: &str = "devicebound-session";
/// How long a session is good (own limit: a working day).
pub(super) const SESSION_TIME: Duration = Duration::from_secs(8 * 3600);
/// How long a link is good (own limit); `devicebound page` makes new ones.
const CODE_TIME: Duration = Duration::from_secs(3600);
/// How many used codes are remembered (own limit). Who makes more has the policy's key anyhow.
const USED_MAX: usize = 1024;
/// Bytes of randomness in a code.
const NONCE_LENGTH: usize = 16;

/// What a proof is for: one of the one kind is no good for the other.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Code,
    Session,
}

/// Codes that were used. Codes and sessions are proofs signed with the policy's key: they outlive a restart of the hub, and
/// end with the key.
#[derive(Debug, Default)]
pub struct Sessions {
    used: Mutex<VecDeque<String>>,
}

/// A code for a link to the page; it opens one session.
///
/// # Errors
/// When the system has no randomness.
pub fn new_code(key: &SymmetricKey) -> Result<String, getrandom::Error> {
    let mut nonce = [0; NONCE_LENGTH];
    getrandom::fill(&mut nonce)?;
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(prove(Kind::Code, key, unix_time().after(CODE_TIME), &nonce))
}

impl Sessions {
    /// The session that a code opens, once.
    fn redeem(&self, key: &SymmetricKey, code: &str) -> Option<String> {
        let nonce = is_proof(Kind::Code, key, code)?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.iter().any(|known| known == nonce) {
            return None;
        }
        if used.len() == USED_MAX {
            used.pop_front();
        }
        used.push_back(nonce.to_owned());
        Some(prove(Kind::Session, key, unix_time().after(SESSION_TIME), nonce))
    }
}

/// Whether a session was begun here and has not ended.
pub(super) fn is_session(key: &SymmetricKey, session: &str) -> bool {
    is_proof(Kind::Session, key, session).is_some()
}

/// `EXPIRY.NONCE.SIGNATURE`, in characters that need no encoding in a fragment or in a cookie.
fn prove(kind: Kind, key: &SymmetricKey, expiry: UnixTime, nonce: &str) -> String {
    let claim = format!("{}.{nonce}", expiry.as_secs());
    let signature = key.signature(format!("devicebound page {kind:?}\n{claim}").as_bytes());
    let digest: String = Sha256::digest(signature).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{claim}.{digest}")
}

/// The nonce of a proof that is good.
fn is_proof<'p>(kind: Kind, key: &SymmetricKey, proof: &'p str) -> Option<&'p str> {
    let mut parts = proof.splitn(3, '.');
    let expiry = UnixTime::from_secs(parts.next()?.parse().ok()?);
    let nonce = parts.next()?;
    // Digests are compared, so that the time it takes tells nothing of the signature.
    let is_same = Sha256::digest(prove(kind, key, expiry, nonce)) == Sha256::digest(proof);
    (is_same && unix_time() < expiry).then_some(nonce)
}

/// `POST /page/session` with `{"code":"…"}`: 204 and the cookie.
pub(super) async fn begin(
    State(page): State<Arc<Page>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
    let refused = || {
        Error::new(Code::Unauthorized, "this link was used already, or has expired")
            .with_fix("take a new one: devicebound page")
    };
    if !page.is_own(&method, &headers) {
        let what = "a session begins on the hub's own page";
        return Err(Error::new(Code::Unauthorized, what)
            .with_fix("open the link that the hub printed")
            .into());
    }
    let session = page.key().and_then(|key| page.sessions.redeem(key, code)).ok_or_else(refused)?;
    let age = SESSION_TIME.as_secs();
    let cookie = format!("{COOKIE_NAME}={session}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Strict");
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie), (CACHE_CONTROL, "no-store".to_owned())])
        .into_response())
}

/// `DELETE /page/session`: has the browser forget the session.
pub(super) async fn end() -> Response {
    let cookie = format!("{COOKIE_NAME}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SymmetricKey {
        SymmetricKey::from_bytes(text.as_bytes())
    }

    #[test]
    fn a_code_opens_one_session_which_outlives_a_restart_but_not_the_key() {
        let (sessions, key) = (Sessions::default(), key("a key"));
        let code = new_code(&key).unwrap();
        let session = sessions.redeem(&key, &code).unwrap();
        assert_eq!(sessions.redeem(&key, &code), None, "a code works once");
        assert!(is_session(&key, &session));
        assert!(!is_session(&super::tests::key("another key"), &session));
    }

    #[test]
    fn what_was_not_made_here_opens_nothing() {
        let (sessions, key) = (Sessions::default(), key("a key"));
        let code = new_code(&key).unwrap();
        assert!(!is_session(&key, &code), "a code is no session");
        let session = sessions.redeem(&key, &code).unwrap();
        assert_eq!(sessions.redeem(&key, &session), None, "a session is no code");
        let expired = prove(Kind::Session, &key, UnixTime::from_secs(1), "n");
        let prolonged = session.replacen(|c: char| c.is_ascii_digit(), "9", 1);
        for wrong in ["", ".", "..", "1.2.3", &expired, &prolonged, &session[..session.len() - 1]] {
            assert!(!is_session(&key, wrong), "{wrong}");
        }
    }
}
