//! rumqttd, which is a library: this program is it when it is asked to be.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use devicebound_benches::load::Failure;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings, TlsConfig};

/// More than any row has.
const CONNECTIONS_MAX: usize = 20_000;
/// What its own example configuration says, but for the log: 10 MiB ten times over instead of 100 MiB, so that a run
/// of some minutes fits the memory of small machines.
const SEGMENT_SIZE: usize = 10 * 1024 * 1024;
const SEGMENTS: usize = 10;

pub(crate) fn serve(port: u16, certificate: String, key: String) -> Result<(), Failure> {
    let router = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_SIZE,
        max_segment_count: SEGMENTS,
        // One log for all telemetry, as in the hub; without a filter that fits it takes no message.
        initialized_filters: Some(vec!["devices/#".to_owned()]),
        ..RouterConfig::default()
    };
    let server = ServerSettings {
        name: "compared".to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: Some(TlsConfig::Rustls { capath: None, certpath: certificate, keypath: key }),
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    };
    let config = Config { router, v4: Some(HashMap::from([("1".to_owned(), server)])), ..Config::default() };
    Ok(Broker::new(config).start()?)
}
