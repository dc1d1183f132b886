//! File upload with Azure's device SDKs for Python and Node, `azure-storage-blob` and the service SDK for Node, unmodified.

use devicebound_testkit::interop::{Hub, Sdk};
use devicebound_testkit::site;
use serde_json::json;

/// A size of Azure's own end-to-end tests: several blocks of 4 MB.
const LARGE: u64 = 10_000_000;

#[test]
fn node_uploads_in_blocks_and_the_service_sdk_hears_of_it_until_it_completes() {
    let Some(hub) = Hub::on_azure_ports_with_443(site!(), "file upload with Azure's SDKs for Node") else {
        return;
    };
    let device = hub.register("dev1");
    let mut sdk = Sdk::node(site!(), &hub, "tls");
    sdk.run(json!({"do": "open"}));
    for (name, size) in [("small", 10_000), ("dir/large.bin", LARGE)] {
        let settle = ["abandon", "complete"];
        sdk.run(json!({
            "do": "upload", "device": device.connection_string(), "name": name, "size": size, "settle": settle,
        }));
        let told = sdk.run(json!({"do": "notified"}));
        assert_eq!((&told["deviceId"], &told["blobName"]), (&json!("dev1"), &json!(format!("dev1/{name}"))));
        assert_eq!(told["blobSizeInBytes"], size, "{told}");
        let again = sdk.run(json!({"do": "notified"}));
        assert_eq!(again, told);
    }
    sdk.run(json!({"do": "close"}));
    sdk.end();
}

#[test]
fn python_uploads_what_azure_storage_blob_reads_back() {
    let Some(hub) = Hub::on_azure_ports_with_443(site!(), "file upload with Azure's SDKs for Python") else {
        return;
    };
    let device = hub.register("dev1");
    let mut sdk = Sdk::connected(site!(), &hub, "tls", &device);
    let read = sdk.run(json!({"do": "upload", "name": "dir/a b.txt", "body": "hello", "ca": hub.ca()}));
    assert_eq!(read, "hello");
    let told = hub.service().get("/messages/serviceBound/filenotifications");
    assert_eq!(
        (&told["blobName"], &told["blobSizeInBytes"]),
        (&json!("dev1/dir/a b.txt"), &json!(5)),
        "{told}"
    );
    sdk.end();
}
