//! Ten thousand connections that mean no good, against `devicebound hub` on real sockets, beside a device that behaves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use devicebound::Device;
use devicebound::device::{Action, DeviceConfig, Message};
use devicebound_blocking::{Client, Socket as _, Tls, TlsSocket};
use devicebound_testkit::interop::Hub;
use devicebound_testkit::site;
use devicebound_world::vectors;

/// How many, and by how many threads.
const CONNECTIONS: u32 = 10_000;
const THREADS: u32 = 8;
/// After so many the hub's memory is at its working size.
const WARM: u32 = 2_000;
/// How much it may grow from there on, in KiB: less than 1 KiB for each further connection.
const GROWTH_MAX: u64 = 8 * 1024;
/// Longest wait for the hub to end one of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that no hub wants to hear, each for a connection of its own.
fn hostile_bytes() -> Vec<Vec<u8>> {
    let invalid = vectors::load("packets_invalid")
        .iter()
        .filter(|case| case["from"] != "server")
        .map(vectors::bytes)
        .collect();
    // A CONNECT that is good but for its end.
    let connect = vectors::load("packets_valid")
        .into_iter()
        .filter(|case| case["tags"][0] == "connect")
        .map(|case| vectors::bytes(&case));
    let cut = connect.map(|mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    let mut noise = 1_u32;
    let garbage = (0..64).map(|_| {
        (0..200)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_be_bytes()[0]
            })
            .collect()
    });
    let announced = [
        vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F],
        vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    let mut all: Vec<Vec<u8>> = invalid;
    all.extend(cut.chain(garbage).chain(announced));
    all.retain(|bytes| bytes.len() < 10_000);
    all
}

/// One hostile connection: without TLS, cut in the handshake, or with bad bytes inside TLS.
fn attack(number: u32, port: u16, tls: &Tls, bytes: &[u8]) -> std::io::Result<()> {
    if number.is_multiple_of(4) {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        return socket.write_all(bytes);
    }
    let mut socket = TlsSocket::connect("localhost", tls)?;
    let end = Instant::now() + PATIENCE;
    let mut unsent = bytes;
    socket.set_read_timeout(Duration::from_millis(20))?;
    while Instant::now() < end {
        if let Ok(length) = socket.write(unsent) {
            unsent = &unsent[length..];
        }
        match socket.read(&mut [0; 64]) {
            Ok(0) => return Ok(()), // the hub has closed
            // What waits for more bytes than will come is left behind.
            Err(error) if is_idle(&error) && unsent.is_empty() => return socket.shut_down(),
            Err(error) if !is_idle(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_idle(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The hub's resident memory, in KiB.
fn memory(hub: &Hub) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", hub.pid())).expect("the hub runs, on Linux");
    let line =
        status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has resident memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("it is a number of KiB")
}

#[test]
fn ten_thousand_hostile_connections_leave_the_hub_serving_with_its_memory_flat() {
    let hub = Hub::on_free_ports(site!());
    let port: u16 = hub.mqtt_port().parse().expect("a port is a number");
    let tls = Tls::with_authorities_file(hub.ca()).expect("the CA can be read").with_port(port);
    let good = hub.register("good");
    let config = DeviceConfig::from_connection_string(&good.connection_string()).expect("the string is good");
    let mut device = Client::new(Device::new(config).expect("the config is good"), tls.clone());
    let payloads = hostile_bytes();
    let (begun, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut warm = 0;
    let mut acknowledged = 0;
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    while let number = begun.fetch_add(1, Ordering::Relaxed)
                        && number < CONNECTIONS
                        && !stop.load(Ordering::Relaxed)
                    {
                        let bytes = &payloads[number as usize % payloads.len()];
                        // However the hub ends it.
                        let _ = attack(number, port, &tls, bytes);
                    }
                })
            })
            .collect();
        // Meanwhile a device sends one message after the other, each acknowledged.
        while attackers.iter().any(|attacker| !attacker.is_finished()) {
            device.device().telemetry(Message::new(b"still here")).expect("one message is open at a time");
            let before = acknowledged;
            while acknowledged == before {
                device.wait();
                let (machine, mut incoming) = device.split();
                while let Some(next) = incoming.next(machine) {
                    match next {
                        Ok(Action::Acknowledged(_)) => acknowledged += 1,
                        Ok(_) => {}
                        Err(offline) => {
                            stop.store(true, Ordering::Relaxed);
                            assert_eq!(offline.to_string(), "", "the device that behaves was dropped");
                        }
                    }
                }
            }
            if warm == 0 && begun.load(Ordering::Relaxed) >= WARM {
                warm = memory(&hub);
            }
        }
    });
    let grown = memory(&hub).saturating_sub(warm);
    println!(
        "memory {warm} KiB after {WARM} connections, {grown} KiB more after {CONNECTIONS}; {acknowledged} messages acknowledged"
    );
    assert!(grown < GROWTH_MAX, "the hub's memory has grown by {grown} KiB");
    assert_eq!(hub.service().stored_telemetry().len(), acknowledged);
}
