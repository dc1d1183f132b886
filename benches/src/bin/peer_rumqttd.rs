//! The broker rumqttd 0.20 with TLS on one port: `peer_rumqttd PORT CERTIFICATES KEY`.

use std::env::args;
use std::error::Error;

use rumqttd::{Broker, Config};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [port, certificates, key] = arguments.as_slice() else {
        return Err("call it with PORT CERTIFICATES KEY".into());
    };
    // The values of its own rumqttd.toml, but for the limits on connections and packets in flight, and for the pause
    // after each connection, which would be measured.
    let config: Config = serde_json::from_value(json!({
        "id": 0,
        "router": {
            "id": 0,
            "max_connections": 20_000,
            "max_outgoing_packet_count": 200,
            "max_segment_size": 104_857_600,
            "max_segment_count": 10,
        },
        "v4": {"1": {
            "name": "v4-1",
            "listen": format!("127.0.0.1:{port}"),
            "next_connection_delay_ms": 0,
            "connections": {
                "connection_timeout_ms": 60_000,
                "max_payload_size": 20_480,
                "max_inflight_count": 200,
                "dynamic_filters": true,
            },
            "tls": {"certpath": certificates, "keypath": key},
        }},
    }))?;
    Broker::new(config).start()?;
    Ok(())
}
