//! The files of the page. They are in the program, so that nothing is fetched from anywhere.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::backend::{Code, Error};
use crate::service::ApiError;

/// Scripts, styles and requests of this origin alone; no markup from text, no frames, no forms.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:ident,)*) => {
        /// Name, type and text of each file.
        const FILES: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!(concat!("assets/", $name)))),*];
    };
}

files! {
    "index.html": HTML,
    "style.css": STYLE,
    "icon.svg": IMAGE,
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "dom.js": SCRIPT,
    "devices.js": SCRIPT,
    "device.js": SCRIPT,
    "panels.js": SCRIPT,
    "snippets.js": SCRIPT,
    "look.js": SCRIPT,
    "chart.js": SCRIPT,
    "hub.js": SCRIPT,
    "rules.js": SCRIPT,
}

pub(super) async fn index(headers: HeaderMap) -> Result<Response, ApiError> {
    serve("index.html", &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    serve(&name, &headers)
}

fn serve(name: &str, request: &HeaderMap) -> Result<Response, ApiError> {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Err(Error::new(Code::ResourceNotFound, "the page has no such file")
            .with_fix("open /")
            .into());
    };
    let digest = Sha256::digest(text);
    let etag = format!("\"{:02x?}\"", digest.get(..8).unwrap_or_default()).replace([' ', ',', '[', ']'], "");
    let headers: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &etag),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if request.get(IF_NONE_MATCH).is_some_and(|known| known == etag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, *text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_names_no_other_host() {
        let size: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(size < 150_000, "{size}");
        for (name, _, text) in FILES {
            let others = text.matches("://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(others, 0, "{name}");
        }
    }

    #[test]
    fn nothing_of_the_page_makes_markup_from_text() {
        for (name, _, text) in FILES {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "<script>",
                "style=",
                "onclick=",
            ] {
                assert!(!text.contains(word), "{name}: {word}");
            }
        }
    }
}
