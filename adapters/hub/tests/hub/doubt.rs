//! What is answered for an identity when the store could not make a change of it, and cannot say what it has either.

use axum::http::StatusCode;
use devicebound::hub::{
    Action, Authentication, DeviceIdentity, DeviceRecord, Event, Hub, HubConfig, Progress, TlsClient, Wait,
};
use devicebound::time::Instant;
use devicebound_hub::clock::unix_time;
use serde_json::json;

use crate::client::Client;
use crate::common::{ACCEPTED, connect, key};

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;

impl Client {
    async fn status(&self, method: &str, path: &str) -> StatusCode {
        self.ask(method, path, &[], json!({})).await.0
    }
}

#[tokio::test(flavor = "local")]
async fn a_registration_that_failed_is_neither_there_nor_refused_as_known_until_the_store_can_tell() {
    let client = Client::start();
    client.hub.store.break_down();
    for method in ["PUT", "GET", "PUT", "DELETE"] {
        assert_eq!(client.status(method, "/devices/new").await, UNAVAILABLE, "{method}");
    }
    client.hub.store.recover();
    assert_eq!(client.status("GET", "/devices/new").await, NOT_FOUND);
    assert_eq!(client.status("PUT", "/devices/new").await, OK);
}

#[tokio::test(flavor = "local")]
async fn a_device_that_could_not_be_removed_is_there_as_before() {
    let client = Client::start();
    client.hub.store.fail();
    assert_eq!(client.status("DELETE", "/devices/demo").await, UNAVAILABLE);
    assert_eq!(client.status("GET", "/devices/demo").await, OK);
    client.hub.store.break_down();
    for method in ["DELETE", "GET", "PUT"] {
        assert_eq!(client.status(method, "/devices/demo").await, UNAVAILABLE, "{method}");
    }
    client.hub.store.recover();
    assert_eq!(client.status("GET", "/devices/demo").await, OK);
    let _device = client.hub.connected(&connect()).await;
}

#[tokio::test(flavor = "local")]
async fn a_twin_whose_change_failed_is_not_shown_until_the_store_can_tell() {
    let client = Client::start();
    client.hub.store.break_down();
    let patch = json!({"properties": {"desired": {"interval": 60}}});
    let (status, _) = client.ask("PATCH", "/twins/demo", &[], patch).await;
    assert_eq!(status, UNAVAILABLE);
    assert_eq!(client.status("GET", "/twins/demo").await, UNAVAILABLE);
    client.hub.store.recover();
    let (status, twin) = client.ask("GET", "/twins/demo", &[], json!({})).await;
    assert_eq!((status, &twin["properties"]["desired"]["interval"]), (OK, &json!(null)));
}

#[test]
fn a_device_is_let_in_when_its_registration_is_safe_and_not_before() {
    let now = Instant::from_secs(1);
    let mut hub = Hub::new(HubConfig::default(), now, unix_time());
    let authentication = Authentication::Sas { primary: key(), secondary: key() };
    let identity = DeviceIdentity::new("demo", "1".to_owned(), authentication).unwrap();
    let device = hub.register(DeviceRecord::new(identity)).unwrap();
    let link = hub.open(now).unwrap();
    let (connect, mut tx) = (connect(), Vec::new());
    let Ok(Action::Authenticate(request)) =
        hub.handle(now, link, Event::Received(&mut &connect[..]), &mut tx)
    else {
        panic!("a CONNECT is to be judged");
    };
    let grant = hub.authenticate(now, link, &request, TlsClient::default()).unwrap();
    assert_eq!(hub.accept(now, link, grant), None, "the session changes nothing");
    let waits = hub.handle(now, link, Event::Received(&mut &[][..]), &mut tx);
    assert!(matches!(waits, Ok(Action::Wait(Wait::Store))), "{waits:?}");
    assert!(tx.is_empty());

    hub.committed(device, hub.record(device).unwrap().revision());
    assert_eq!(hub.poll_transmit(now, link, &mut tx), Ok(Progress::Idle));
    assert_eq!(tx, ACCEPTED);
}
