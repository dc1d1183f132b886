//! The page at `/`: it shows what the service API and its streams tell, and can do what they can do and nothing more.
//!
//! ```text
//!  link with a one-time code in the fragment ─▶ POST /page/session ─▶ cookie: HttpOnly, SameSite=Strict, 8 h
//!  request of the page: cookie, same origin, a name of this machine ─▶ a token of the page's policy ─▶ endpoint table
//! ```
//!
//! A cookie opens nothing by itself: `sign_in` turns it into the token that any program would show, so that rights, events
//! and metering are those of the table.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use devicebound::iothub::sas::{self, Policy, SymmetricKey};

use crate::clock::unix_time;

mod assets;
mod sessions;

use sessions::{COOKIE_NAME, SESSION_TIME, is_session};
pub use sessions::{Sessions, new_code};

/// The host in the page's tokens: every hub goes by it.
const TOKEN_HOST: &str = "localhost";

/// What the page needs of the hub.
#[derive(Debug)]
pub struct Page {
    /// Who may look.
    pub sessions: Sessions,
    /// Whose rights the page has.
    pub policy: Policy,
    /// Names of the hub besides `localhost` and addresses.
    pub host_names: Vec<String>,
    /// The certificate of the hub's authority, as PEM.
    pub ca: String,
}

/// The files of the page, and its sessions.
pub fn router(page: &Arc<Page>) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/page/ca.pem", get(authority))
        .route("/page/{file}", get(assets::file))
        .route("/page/session", post(sessions::begin).delete(sessions::end))
        .with_state(Arc::clone(page))
}

/// The authority that clients have to trust. Every client is shown it in the handshake, so it is no secret.
async fn authority(State(page): State<Arc<Page>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-pem-file")], page.ca.clone())
}

/// For all of `router` the way from a session to a token.
pub fn signed_in(router: Router, page: &Arc<Page>) -> Router {
    router.layer(from_fn_with_state(Arc::clone(page), sign_in))
}

/// Gives a request that shows a session of the page the token of the page's policy.
async fn sign_in(State(page): State<Arc<Page>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !headers.contains_key(AUTHORIZATION)
        && session_of(headers).is_some_and(|session| page.key().is_some_and(|key| is_session(key, session)))
        && page.is_own(request.method(), headers)
        && let Some(token) = page.token()
    {
        request.headers_mut().insert(AUTHORIZATION, token);
    }
    next.run(request).await
}

/// The session that a cookie names.
fn session_of(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut cookies =
        lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find_map(|(name, value)| (name == COOKIE_NAME).then_some(value))
}

impl Page {
    /// Whether a request comes from this page and from no other: its Host is a name of this hub (a name that was made to point
    /// here is not, so DNS rebinding finds no session), and its Origin is that host. What changes something says its Origin.
    fn is_own(&self, method: &Method, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(host) = text(HOST).filter(|host| self.is_own_name(host)) else { return false };
        let is_same = |origin: &str| {
            origin.strip_prefix("https://").is_some_and(|from| from.eq_ignore_ascii_case(host))
        };
        let fetched = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        match text(ORIGIN) {
            Some(origin) => is_same(origin),
            None => method == Method::GET && matches!(fetched, None | Some("same-origin" | "none")),
        }
    }

    fn key(&self) -> Option<&SymmetricKey> {
        self.policy.keys.first()
    }

    fn is_own_name(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']);
        name.eq_ignore_ascii_case(TOKEN_HOST)
            || name.parse::<std::net::IpAddr>().is_ok()
            || self.host_names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// A token of the page's policy that is good for as long as a session.
    fn token(&self) -> Option<HeaderValue> {
        let token =
            sas::sign(TOKEN_HOST, self.key()?, unix_time().after(SESSION_TIME), Some(&self.policy.name));
        HeaderValue::from_str(&token).ok()
    }
}

#[cfg(test)]
mod tests {
    use devicebound::iothub::sas::Rights;

    use super::*;

    fn page() -> Page {
        let policy = Policy { name: "iothubowner".to_owned(), keys: Vec::new(), rights: Rights::NONE };
        Page {
            sessions: Sessions::default(),
            policy,
            host_names: vec!["hub.example".to_owned()],
            ca: String::new(),
        }
    }

    fn is_own(method: Method, fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        page().is_own(&method, &headers)
    }

    #[test]
    fn a_session_counts_under_names_of_this_hub_alone() {
        for host in ["localhost", "localhost:8443", "127.0.0.1", "[::1]:443", "HUB.example"] {
            assert!(is_own(Method::GET, &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example"] {
            assert!(!is_own(Method::GET, &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn another_site_cannot_use_a_session() {
        let host = ("host", "localhost");
        assert!(is_own(Method::POST, &[host, ("origin", "https://localhost")]));
        assert!(!is_own(Method::POST, &[host]), "what changes something says where it comes from");
        for origin in ["https://evil.example", "http://localhost", "https://localhost:8443", "null"] {
            assert!(!is_own(Method::POST, &[host, ("origin", origin)]), "{origin}");
        }
        assert!(!is_own(Method::GET, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(!is_own(Method::GET, &[host, ("sec-fetch-site", "same-site")]));
        assert!(is_own(Method::GET, &[host, ("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "a=b; devicebound-session=abc ; c=d".parse().unwrap());
        assert_eq!(session_of(&headers), Some("abc"));
    }
}
