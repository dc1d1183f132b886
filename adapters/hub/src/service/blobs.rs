//! The hub's own storage, as the storage SDKs speak with it: `/devicebound/uploads/{blob}`.
//!
//! | request | |
//! |---|---|
//! | `PUT` with `x-ms-blob-type: BlockBlob` | Put Blob |
//! | `PUT ?comp=block&blockid=`, `PUT ?comp=blocklist` | Put Block, Put Block List |
//! | `GET`, with or without one range; `HEAD` | Get Blob, Get Blob Properties |
//!
//! The query has the signature of the blob. To read, a token of a policy with ServiceConnect is as good.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::iothub::sas::Rights;
use devicebound::time::UnixTime;
use futures_util::{StreamExt as _, stream};

use super::block_list;
use super::{ApiError, Call, Shared};
use crate::backend::files::blobs::{Conditions, Source};
use crate::clock::unix_time;
use crate::storage::blob::{Blob, Properties};
use crate::storage::fault::{Fault, FaultCode};
use crate::storage::incoming::Whole;
use crate::storage::name::BlobName;
use crate::storage::sas::{self, Permission};
use crate::storage::staged::BlockId;

/// What is read of a file at a time.
const CHUNK: usize = 64 * 1024;
/// The version of the storage API whose shapes these are.
const VERSION: &str = "2018-03-28";

pub(super) async fn put(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let result = write(&backend, &mut call).await;
    Ok(result.unwrap_or_else(|fault| refuse(&backend, &call, &fault)))
}

pub(super) async fn get(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let result = read(&backend, &mut call).await;
    Ok(result.unwrap_or_else(|fault| refuse(&backend, &call, &fault)))
}

pub(super) async fn head(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let result = find(&backend, &call).map(|(_, blob)| {
        let properties = blob.properties();
        let mut response = StatusCode::OK.into_response();
        describe(properties, response.headers_mut());
        insert(response.headers_mut(), "content-length", &properties.size.to_string());
        response
    });
    Ok(result.unwrap_or_else(|fault| refuse(&backend, &call, &fault)))
}

/// The blob that the path names, for who may do that to it.
fn admit(backend: &Shared, call: &Call, permission: Permission) -> Result<BlobName, Fault> {
    let fix = "use the URL that the begin of the upload gave";
    let name = BlobName::new(call.parameter("blob"));
    let name = name.map_err(|error| Fault::new(FaultCode::InvalidUri, error.to_string(), fix))?;
    let token = call.header("authorization");
    if permission == Permission::Read && token.is_some() {
        let checked = backend.access.check(token, &call.path(), Rights::SERVICE_CONNECT);
        checked.map_err(|refused| {
            let fix = "send a token of a policy with ServiceConnect: devicebound sas --service";
            Fault::new(FaultCode::AuthenticationFailed, refused.error.what().to_owned(), fix)
        })?;
        return Ok(name);
    }
    let key = backend.storage()?.key();
    sas::check(key, &name, permission, unix_time(), |member| call.query(member))?;
    Ok(name)
}

async fn write(backend: &Shared, call: &mut Call) -> Result<Response, Fault> {
    let name = admit(backend, call, Permission::Write)?;
    let conditions = Conditions {
        is_new: call.header("if-none-match").is_some_and(|etag| etag.trim() == "*"),
        etag: call.header("if-match").map(|etag| etag.trim().to_owned()),
    };
    let content_type = call.header("x-ms-blob-content-type").or_else(|| call.header("content-type"));
    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
    let source = match call.query("comp").as_deref() {
        None => {
            check_type(call.header("x-ms-blob-type"))?;
            Source::Body(take_body(backend, call).await?)
        }
        Some("block") => {
            let id = BlockId::new(&call.query("blockid").unwrap_or_default().replace(' ', "+"))?;
            let block = take_body(backend, call).await?;
            if block.size() == 0 {
                let what = "a block has at least one byte, and Content-Length is 0";
                return Err(Fault::new(FaultCode::InvalidHeaderValue, what, "send no empty blocks"));
            }
            backend.put_block(&name, id, block).await?;
            return Ok(created(None));
        }
        Some("blocklist") => {
            let body = call.body_within(block_list::BYTES_MAX).await.map_err(|error| late(error.what()))?;
            Source::Blocks(block_list::parse(&body)?)
        }
        Some(other) => return Err(unknown_part(other)),
    };
    let blob = backend.put_blob(name, source, content_type, conditions).await?;
    Ok(created(Some(blob.properties())))
}

fn check_type(shown: Option<&str>) -> Result<(), Fault> {
    let fix = "send x-ms-blob-type: BlockBlob";
    match shown {
        Some(kind) if kind.eq_ignore_ascii_case("BlockBlob") => Ok(()),
        Some(kind) => {
            let what = format!("x-ms-blob-type is {}: this storage has block blobs", kind.escape_debug());
            Err(Fault::new(FaultCode::InvalidHeaderValue, what, fix))
        }
        None => Err(Fault::new(FaultCode::MissingRequiredHeader, "there is no x-ms-blob-type", fix)),
    }
}

fn unknown_part(part: &str) -> Fault {
    let what = format!("comp={} is not part of this storage", part.escape_debug());
    let fix = "see what it has in the README of devicebound-hub";
    Fault::new(FaultCode::InvalidQueryParameterValue, what, fix)
}

fn late(why: &str) -> Fault {
    let fix = "send the body at once, with its length in Content-Length";
    Fault::new(FaultCode::OperationTimedOut, why, fix)
}

/// Writes the body to a file as it comes.
async fn take_body(backend: &Shared, call: &mut Call) -> Result<Whole, Fault> {
    let mut incoming = backend.storage()?.receive().await?;
    let mut body = call.take_body().into_data_stream();
    while let Some(data) = body.next().await {
        let data = data.map_err(|error| late(&format!("the body did not arrive: {error}")))?;
        incoming.write(&data).await?;
    }
    incoming.finish().await
}

fn find(backend: &Shared, call: &Call) -> Result<(BlobName, Arc<Blob>), Fault> {
    let name = admit(backend, call, Permission::Read)?;
    if let Some(part) = call.query("comp") {
        return Err(unknown_part(&part));
    }
    let blob = backend.find_blob(&name, unix_time())?;
    Ok((name, blob))
}

async fn read(backend: &Shared, call: &mut Call) -> Result<Response, Fault> {
    let (_, blob) = find(backend, call)?;
    let size = blob.properties().size;
    let range = call.header("x-ms-range").or_else(|| call.header("range"));
    let range = range.map(|range| range_of(range, size)).transpose()?.flatten();
    let (first, length) = range.unwrap_or((0, size));
    let mut file = backend.storage()?.read(&blob).await?;
    let file = backend.storage()?.on_disk(move || file.seek(SeekFrom::Start(first)).map(|_| file)).await?;
    let chunks = stream::unfold(Some((Arc::clone(backend), file, length)), |state| async move {
        let (backend, mut file, left) = state.filter(|(_, _, left)| *left > 0)?;
        let size = left.min(CHUNK as u64);
        let read = move || {
            let mut chunk = Vec::new();
            let read = file.by_ref().take(size).read_to_end(&mut chunk)?;
            // Nobody shortens a file: it is whole before it has its name.
            if read as u64 == size {
                Ok((file, chunk))
            } else {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
        };
        let read = match backend.storage() {
            Ok(storage) => storage.on_disk(read).await,
            Err(fault) => Err(fault),
        };
        match read {
            Ok((file, chunk)) => {
                Some((Ok(Bytes::from(chunk)), Some((backend, file, left.saturating_sub(size)))))
            }
            Err(fault) => Some((Err(fault), None)),
        }
    });
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, Body::from_stream(chunks)).into_response();
    let headers = response.headers_mut();
    describe(blob.properties(), headers);
    insert(headers, "content-length", &length.to_string());
    if range.is_some() {
        let last = first.saturating_add(length).saturating_sub(1);
        insert(headers, "content-range", &format!("bytes {first}-{last}/{size}"));
    }
    Ok(response)
}

/// First byte and length of `bytes=first-` or `bytes=first-last`; `None` for what is no such range, and so left out
/// (RFC 9110 §14.2).
fn range_of(text: &str, size: u64) -> Result<Option<(u64, u64)>, Fault> {
    let parsed = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')).and_then(
        |(first, last)| {
            let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
            Some((first.parse::<u64>().ok()?, last)).filter(|(first, last)| first <= last)
        },
    );
    let Some((first, last)) = parsed else { return Ok(None) };
    if first >= size {
        let what = format!("the blob has {size} bytes, and the range begins at {first}");
        return Err(Fault::new(FaultCode::InvalidRange, what, "ask for a range within it"));
    }
    Ok(Some((first, last.min(size.saturating_sub(1)).saturating_sub(first).saturating_add(1))))
}

fn created(properties: Option<&Properties>) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    insert(headers, "x-ms-version", VERSION);
    insert(headers, "x-ms-request-server-encrypted", "false");
    if let Some(properties) = properties {
        insert(headers, "etag", &properties.etag());
        insert(headers, "last-modified", &http_date(properties.modified));
    }
    response
}

/// Get Blob Properties.
fn describe(properties: &Properties, headers: &mut HeaderMap) {
    let modified = http_date(properties.modified);
    for (name, value) in [
        ("content-type", properties.content_type.as_str()),
        ("etag", &properties.etag()),
        ("last-modified", &modified),
        ("x-ms-creation-time", &modified),
        ("x-ms-blob-type", "BlockBlob"),
        ("accept-ranges", "bytes"),
        ("x-ms-version", VERSION),
        ("x-ms-server-encrypted", "false"),
    ] {
        insert(headers, name, value);
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // What HTTP cannot carry in a header did not come in one.
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn http_date(time: UnixTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(time.as_millis()))
}

/// A refusal as the storage SDKs read it, and a line of the live view.
fn refuse(backend: &Shared, call: &Call, fault: &Fault) -> Response {
    let name = fault.code.name();
    let path = call.path();
    let request = [call.parts.method.as_str(), path.as_str()];
    let peer = call.peer().map(|peer| peer.address);
    backend.engine.view.request_refused(peer, request, &format!("{name}: {fault}"));
    let escape = |text: String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let message = escape(fault.to_string());
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Error><Code>{name}</Code><Message>{message}</Message></Error>"
    );
    let status = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers =
        [("x-ms-error-code", name.as_str()), ("content-type", "application/xml"), ("x-ms-version", VERSION)];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_the_end_and_one_behind_it_is_refused() {
        assert_eq!(range_of("bytes=0-33554431", 10), Ok(Some((0, 10))));
        assert_eq!(range_of("bytes=4-", 10), Ok(Some((4, 6))));
        assert_eq!(range_of("bytes=4-4", 10), Ok(Some((4, 1))));
        for other in ["bytes=-4", "bytes=5-4", "bytes=0-1,3-4", "lines=1-2", ""] {
            assert_eq!(range_of(other, 10), Ok(None), "{other}");
        }
        assert_eq!(range_of("bytes=10-", 10).unwrap_err().code, FaultCode::InvalidRange);
        assert_eq!(range_of("bytes=0-", 0).unwrap_err().code, FaultCode::InvalidRange);
    }
}
