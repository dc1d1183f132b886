//! File uploads: begin, storage, end, and what the back end hears.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use devicebound_hub::backend::files::{Files, Uploads};
use devicebound_hub::state::StateDir;
use devicebound_hub::storage::{Bounds, Storage};
use devicebound_hub::store::Store as _;
use futures_util::stream;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::client::{Client, message};
use crate::common::Hub;

const NOTIFICATIONS: &str = "/messages/serviceBound/filenotifications";

/// A hub with a storage, and the device `demo`.
struct Site {
    client: Client,
    state: TempDir,
}

/// An answer of the storage.
struct Stored {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Stored {
    fn code(&self) -> &str {
        self.headers.get("x-ms-error-code").map_or("", |code| code.to_str().unwrap())
    }
}

impl Site {
    fn start() -> Self {
        Self::with(Uploads::default())
    }

    fn with(uploads: Uploads) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self { client: open(Hub::start(), state.path(), uploads), state }
    }

    /// Another hub on the same state folder and store.
    fn restart(self) -> Self {
        let Self { client, state } = self;
        let hub = Hub::start_on(&client.hub.store);
        Self { client: open(hub, state.path(), Uploads::default()), state }
    }

    async fn begin(&self, name: &str) -> Value {
        let (status, begun) = self.ask("POST", "/devices/demo/files", json!({"blobName": name})).await;
        assert_eq!(status, StatusCode::OK, "{begun}");
        begun
    }

    async fn end(&self, begun: &Value, is_success: bool) -> (StatusCode, Value) {
        let body = json!({"correlationId": begun["correlationId"], "isSuccess": is_success, "statusCode": 200,
            "statusDescription": "done"});
        self.ask("POST", "/devices/demo/files/notifications", body).await
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.client.ask(method, path, &[("host", "hub.test:8443")], body).await
    }

    /// The next notification and its lock.
    async fn notification(&self) -> Option<(Value, String)> {
        let (status, headers, body) =
            self.client.exchange("service", "GET", NOTIFICATIONS, &[], Value::Null).await;
        let lock = || headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
        (status == StatusCode::OK).then(|| (body, lock()))
    }

    /// Asks the storage, as the storage SDKs do with the URL of a begun upload.
    async fn storage(
        &self,
        method: &str,
        begun: &Value,
        more: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Stored {
        let text = |name: &str| begun[name].as_str().unwrap().to_owned();
        let path = text("hostName").strip_prefix("hub.test:8443").unwrap().to_owned();
        let name = text("blobName").replace(' ', "%20");
        let url = format!("{path}/{}/{name}{}{more}", text("containerName"), text("sasToken"));
        self.raw(method, &url, headers, body).await
    }

    async fn raw(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Body) -> Stored {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Stored { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn put(&self, begun: &Value, body: &'static str) -> Stored {
        self.storage("PUT", begun, "", &[("x-ms-blob-type", "BlockBlob")], Body::from(body)).await
    }

    /// Files in the folder of the storage, blocks left out.
    fn files(&self) -> usize {
        let folder = std::fs::read_dir(self.state.path().join("uploads")).unwrap();
        folder.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file()).count()
    }
}

fn open(hub: Hub, state: &Path, uploads: Uploads) -> Client {
    let mut store = hub.store.clone();
    let (state, documents) = (StateDir::open(state).unwrap(), store.documents().unwrap());
    let storage = Storage::open(&state, &documents, uploads.bounds).unwrap();
    let files = Files::load(storage, "hub.test".to_owned(), uploads.sas_ttl, &documents).unwrap();
    Client::with(hub, Router::new(), |backend| backend.with_files(files))
}

#[tokio::test(flavor = "local")]
async fn a_file_is_uploaded_read_back_and_told_to_the_back_end_until_it_is_completed() {
    let site = Site::start();
    let begun = site.begin("dir/a b.txt").await;
    assert_eq!(begun["hostName"], "hub.test:8443/devicebound");
    assert_eq!(
        (&begun["containerName"], &begun["blobName"]),
        (&json!("uploads"), &json!("demo/dir/a b.txt"))
    );
    let put = site.put(&begun, "hello").await;
    assert_eq!(put.status, 201, "{:?}", put.body);
    let head = site.storage("HEAD", &begun, "", &[], Body::empty()).await;
    assert_eq!(
        (head.status, &head.headers["content-length"], &head.headers["etag"]),
        (200, &"5".parse().unwrap(), &put.headers["etag"])
    );
    let got = site.storage("GET", &begun, "", &[], Body::empty()).await;
    assert_eq!((got.status, &got.body[..]), (200, &b"hello"[..]));
    let part = site.storage("GET", &begun, "", &[("x-ms-range", "bytes=1-2")], Body::empty()).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"el"[..]));
    assert_eq!(part.headers["content-range"], "bytes 1-2/5");
    // A back end reads with a token of its own.
    let read = site
        .client
        .exchange("service", "GET", "/devicebound/uploads/demo/dir/a%20b.txt", &[], Value::Null)
        .await;
    assert_eq!(read.0, StatusCode::OK);
    let refused = site
        .client
        .ask_as("device", "GET", "/devicebound/uploads/demo/dir/a%20b.txt", &[], Value::Null)
        .await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN);

    assert_eq!(site.notification().await, None, "the upload has not ended");
    assert_eq!(site.end(&begun, true).await.0, StatusCode::NO_CONTENT);
    let (told, lock) = site.notification().await.unwrap();
    assert_eq!((&told["deviceId"], &told["blobName"]), (&json!("demo"), &json!("demo/dir/a b.txt")));
    assert_eq!(told["blobUri"], "https://hub.test/devicebound/uploads/demo/dir/a%20b.txt");
    assert_eq!(told["blobSizeInBytes"], 5);
    assert!(told["lastUpdatedTime"].as_str().unwrap().ends_with("+00:00"), "{told}");
    assert!(told["enqueuedTimeUtc"].as_str().unwrap().ends_with("0000Z"), "{told}");
    assert_eq!(site.notification().await, None, "it is locked");
    let abandon = format!("{NOTIFICATIONS}/{lock}/abandon");
    assert_eq!(site.ask("POST", &abandon, Value::Null).await.0, StatusCode::NO_CONTENT);
    let (again, lock) = site.notification().await.unwrap();
    assert_eq!(again, told);
    let complete = format!("{NOTIFICATIONS}/{lock}");
    assert_eq!(site.ask("DELETE", &complete, Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.notification().await, None);
    assert_eq!(site.ask("DELETE", &complete, Value::Null).await.0, StatusCode::PRECONDITION_FAILED);
    let told = site.client.hub.engine.operations.log.after(0).unwrap().line;
    assert!(told.contains("FileUploadOperations"), "{told}");
}

#[tokio::test(flavor = "local")]
async fn all_three_forms_of_path_that_sdks_send_are_the_same() {
    let site = Site::start();
    // C: a slash before the question mark, and slashes of the blob encoded.
    let (status, begun) = site.ask("POST", "/devices/demo/files/", json!({"blobName": "a/b"})).await;
    assert_eq!(status, StatusCode::OK, "{begun}");
    let url = format!("/devicebound/uploads/demo%2fa%2fb{}", begun["sasToken"].as_str().unwrap());
    let put = site.raw("PUT", &url, &[("x-ms-blob-type", "BlockBlob")], Body::from("x")).await;
    assert_eq!(put.status, 201, "{:?}", put.body);
    let end = json!({"correlationId": begun["correlationId"], "isSuccess": true, "statusCode": 0, "statusDescription": ""});
    assert_eq!(site.ask("POST", "/devices/demo/files/notifications/", end).await.0, StatusCode::NO_CONTENT);
    // Node: the correlation id in the path alone.
    let begun = site.begin("c").await;
    let path = format!("/devices/demo/files/notifications/{}", begun["correlationId"].as_str().unwrap());
    assert_eq!(site.ask("POST", &path, json!({"isSuccess": false})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.notification().await.unwrap().0["blobName"], "demo/a/b");
    assert_eq!(site.notification().await, None, "a failed upload tells nobody");
}

#[tokio::test(flavor = "local")]
async fn blocks_become_a_blob_in_the_order_of_their_list() {
    let site = Site::start();
    let begun = site.begin("blocks").await;
    for (id, body) in [("MDAx", "one"), ("MDAy", "two"), ("MDAz", "three")] {
        let put =
            site.storage("PUT", &begun, &format!("&comp=block&blockid={id}"), &[], Body::from(body)).await;
        assert_eq!(put.status, 201, "{:?}", put.body);
    }
    let list = |ids: &[&str]| {
        let ids: String = ids.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        Body::from(format!("<?xml version=\"1.0\"?><BlockList>{ids}</BlockList>"))
    };
    let missing = site.storage("PUT", &begun, "&comp=blocklist", &[], list(&["MDAx", "MDA0"])).await;
    assert_eq!((missing.status, missing.code()), (400, "InvalidBlockList"));
    assert_eq!(site.storage("GET", &begun, "", &[], Body::empty()).await.code(), "BlobNotFound");
    // What was acknowledged outlives the hub.
    let site = site.restart();
    let put = site.storage("PUT", &begun, "&comp=blocklist", &[], list(&["MDAy", "MDAx"])).await;
    assert_eq!(put.status, 201, "{:?}", put.body);
    assert_eq!(&site.storage("GET", &begun, "", &[], Body::empty()).await.body[..], b"twoone");
    // The list used them up.
    assert_eq!(
        site.storage("PUT", &begun, "&comp=blocklist", &[], list(&["MDAz"])).await.code(),
        "InvalidBlockList"
    );
    let staged = std::fs::read_dir(site.state.path().join("uploads/staged")).unwrap().count();
    assert_eq!((staged, site.files()), (0, 1));
}

#[tokio::test(flavor = "local")]
async fn names_that_climb_are_refused_and_leave_nothing_outside_of_the_folder() {
    let site = Site::start();
    for name in ["../x", "a/../../x", "/etc/passwd", "a//b", "a\\..\\b", "a\nb", "", "."] {
        let (status, answer) = site.ask("POST", "/devices/demo/files", json!({"blobName": name})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name:?}");
        assert!(message(&answer).contains("no name of a blob"), "{answer}");
    }
    let begun = site.begin("ok").await;
    let token = begun["sasToken"].as_str().unwrap();
    for path in
        ["demo/../../../policies.json", "demo/%2e%2e/x", "%2Fetc%2Fpasswd", "demo/a%0Ab", "demo/..%5Cx"]
    {
        let url = format!("/devicebound/uploads/{path}{token}");
        let put = site.raw("PUT", &url, &[("x-ms-blob-type", "BlockBlob")], Body::from("x")).await;
        assert!(matches!(put.code(), "InvalidUri" | "AuthenticationFailed"), "{path}: {}", put.status);
    }
    let other = site
        .raw(
            "PUT",
            &format!("/devicebound/uploads/other/ok{token}"),
            &[("x-ms-blob-type", "BlockBlob")],
            Body::from("x"),
        )
        .await;
    assert_eq!((other.status, other.code()), (403, "AuthenticationFailed"), "the signature is for one blob");
    assert_eq!(site.files(), 0);
    // A block id is no path either.
    let put = site.storage("PUT", &begun, "&comp=block&blockid=Li4vLi4veA==", &[], Body::from("x")).await;
    assert_eq!(put.status, 201);
    assert!(!site.state.path().join("x").exists());
}

#[tokio::test(flavor = "local")]
async fn an_end_is_refused_twice_for_others_and_for_what_never_began() {
    let site = Site::start();
    site.client.ask("PUT", "/devices/other", &[], json!({"deviceId": "other"})).await;
    let begun = site.begin("a").await;
    let body = json!({"correlationId": begun["correlationId"], "isSuccess": true});
    let (status, _) = site.ask("POST", "/devices/other/files/notifications", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "it is another device's");
    // The device says that it is there, and it is not: accepted, and nobody hears of it.
    assert_eq!(site.end(&begun, true).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.notification().await, None);
    let (status, answer) = site.end(&begun, true).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&answer).contains("begin another one"), "{answer}");
    for body in [json!({}), json!({"correlationId": "x"}), json!({"isSuccess": true}), json!([])] {
        let (status, _) = site.ask("POST", "/devices/demo/files/notifications", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test(flavor = "local")]
async fn ten_uploads_of_a_device_are_under_way_and_those_that_never_end_expire() {
    let site = Site::with(Uploads { sas_ttl: Duration::ZERO, ..Uploads::default() });
    for n in 0..11 {
        let begun = site.begin(&n.to_string()).await;
        let put = site.put(&begun, "x").await;
        assert_eq!((put.status, put.code()), (403, "AuthenticationFailed"), "its signature has expired");
        assert_eq!(site.end(&begun, true).await.0, StatusCode::BAD_REQUEST);
    }
    let site = Site::start();
    for n in 0..10 {
        site.begin(&n.to_string()).await;
    }
    let body = json!({"blobName": "10"});
    let (status, answer) = site.ask("POST", "/devices/demo/files", body.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message(&answer).contains("DeviceMaximumActiveFileUploadLimitExceeded"), "{answer}");
    let site = site.restart();
    assert_eq!(
        site.ask("POST", "/devices/demo/files", body).await.0,
        StatusCode::FORBIDDEN,
        "they outlive the hub"
    );
}

#[tokio::test(flavor = "local")]
async fn what_was_acknowledged_outlives_the_hub_and_what_is_too_old_goes() {
    let site = Site::start();
    let begun = site.begin("a").await;
    assert_eq!(site.put(&begun, "one").await.status, 201);
    let site = site.restart();
    assert_eq!(&site.storage("GET", &begun, "", &[], Body::empty()).await.body[..], b"one");
    assert_eq!(site.end(&begun, true).await.0, StatusCode::NO_CONTENT);
    let site = site.restart();
    assert_eq!(site.notification().await.unwrap().0["blobSizeInBytes"], 3);
    // Replaced: the file before goes, and one that must be new is refused.
    let new = [("x-ms-blob-type", "BlockBlob"), ("if-none-match", "*")];
    let refused = site.storage("PUT", &begun, "", &new, Body::from("two")).await;
    assert_eq!((refused.status, refused.code()), (409, "BlobAlreadyExists"));
    assert_eq!(site.put(&begun, "three").await.status, 201);
    assert_eq!(site.files(), 1);
    std::fs::write(site.state.path().join("uploads/left-over"), "x").unwrap();
    let state = &site.state;
    let client = open(
        Hub::start_on(&site.client.hub.store),
        state.path(),
        Uploads { bounds: Bounds { age: Duration::ZERO, ..Bounds::default() }, ..Uploads::default() },
    );
    assert_eq!(site.files(), 1, "what no document names is removed");
    let (status, _) = client.ask("POST", "/devices/demo/files", &[], json!({"blobName": "b"})).await;
    assert_eq!((status, site.files()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "local")]
async fn a_body_that_does_not_fit_breaks_off_or_comes_without_a_type_leaves_nothing() {
    let site =
        Site::with(Uploads { bounds: Bounds { bytes: 10_000, ..Bounds::default() }, ..Uploads::default() });
    let begun = site.begin("a").await;
    let typed = [("x-ms-blob-type", "BlockBlob")];
    let large = site.storage("PUT", &begun, "", &typed, Body::from(vec![0; 10_001])).await;
    assert_eq!((large.status, large.code()), (409, "AccountQuotaExceeded"));
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let broken = stream::iter([Ok(Bytes::from("half")), Err(reset)]);
    let cut = site.storage("PUT", &begun, "", &typed, Body::from_stream(broken)).await;
    assert_eq!((cut.status, cut.code()), (408, "OperationTimedOut"));
    for (headers, code) in
        [(&[][..], "MissingRequiredHeader"), (&[("x-ms-blob-type", "PageBlob")], "InvalidHeaderValue")]
    {
        let refused = site.storage("PUT", &begun, "", headers, Body::from("x")).await;
        assert_eq!((refused.status, refused.code()), (400, code));
    }
    assert_eq!(site.storage("PUT", &begun, "&comp=page", &typed, Body::from("x")).await.status, 400);
    assert_eq!(
        site.storage("PUT", &begun, "&comp=block&blockid=%21", &typed, Body::from("x")).await.status,
        400
    );
    assert_eq!(site.files(), 0);
    // Nothing of it is still counted.
    assert_eq!(site.storage("PUT", &begun, "", &typed, Body::from(vec![0; 10_000])).await.status, 201);
    let read = site.storage("GET", &begun, "", &[("range", "bytes=10000-")], Body::empty()).await;
    assert_eq!((read.status, read.code()), (416, "InvalidRange"));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_notification_that_is_held_for_too_long_comes_again() {
    let site = Site::start();
    let begun = site.begin("a").await;
    site.put(&begun, "x").await;
    site.end(&begun, true).await;
    let (first, lock) = site.notification().await.unwrap();
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(site.notification().await, None);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(site.notification().await.unwrap().0, first);
    let complete = format!("{NOTIFICATIONS}/{lock}");
    assert_eq!(site.ask("DELETE", &complete, Value::Null).await.0, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test(flavor = "local")]
async fn what_the_store_does_not_take_was_not_done() {
    let site = Site::start();
    let begun = site.begin("a").await;
    site.client.hub.store.fail();
    let put = site.put(&begun, "x").await;
    assert_eq!((put.status, put.code()), (503, "ServerBusy"));
    assert_eq!(site.files(), 0);
    let (status, _) = site.ask("POST", "/devices/demo/files", json!({"blobName": "b"})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(site.end(&begun, false).await.0, StatusCode::SERVICE_UNAVAILABLE);
    site.client.hub.store.recover();
    assert_eq!(site.put(&begun, "x").await.status, 201);
    assert_eq!(site.end(&begun, true).await.0, StatusCode::NO_CONTENT);
    assert!(site.notification().await.is_some());
}

#[tokio::test(flavor = "local")]
async fn a_hub_without_a_storage_says_so() {
    let client = Client::start();
    let (status, answer) = client.ask("POST", "/devices/demo/files", &[], json!({"blobName": "a"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&answer).contains("no storage for file uploads"), "{answer}");
}
