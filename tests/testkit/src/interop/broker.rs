//! Debian's mosquitto as an MQTT server, which nobody here wrote either: what our devices do is right only where it thinks so.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use devicebound_tokio::Tls;
use rcgen::CertifiedKey;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Program;
use crate::relay::Relay;

/// Where Debian keeps the server, which a user's `PATH` may lack.
const FOLDER: &str = "/usr/sbin";

/// What it speaks over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// MQTT, straight.
    Tls,
    /// MQTT over WebSocket.
    WebSocket,
}

/// A mosquitto that listens by TLS, takes any user, and logs each packet; in front of it a relay that can cut.
#[derive(Debug)]
pub struct Broker {
    program: Program,
    over: Over,
    authority: String,
    relay: Relay,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Broker {
    /// Starts it on a port that is free.
    ///
    /// # Panics
    /// When it is missing, with the line that installs it; when it does not start.
    #[must_use]
    pub fn start(over: Over) -> Self {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let names = ["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).expect("certificates can be made");
        let authority = cert.pem();
        write(folder.path(), "hub.pem", &authority);
        write(folder.path(), "hub.key", &signing_key.serialize_pem());

        let (program, address) = serve(folder.path(), over);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let relay = Relay::start(runtime.handle(), address);
        Self { program, over, authority, relay, _runtime: runtime, _folder: folder }
    }

    /// How devices reach it: through the relay, trusting its authority.
    ///
    /// # Panics
    /// Never; the authority was made here.
    #[must_use]
    pub fn tls(&self) -> Tls {
        let tls = Tls::with_authorities(self.authority.as_bytes()).expect("it is a certificate");
        let tls = tls.with_port(self.relay.port());
        if self.over == Over::WebSocket { tls.with_websocket() } else { tls }
    }

    /// What stands between devices and the broker.
    #[must_use]
    pub fn relay(&self) -> Relay {
        self.relay.clone()
    }

    /// Waits for a line of the log that contains `text`; other lines pass by.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, text: &str) -> String {
        self.program.expect_text(text)
    }
}

/// The broker cannot be asked for any port, so it is given one that was free just now, and another where somebody else has
/// taken that.
fn serve(folder: &Path, over: Over) -> (Program, SocketAddr) {
    loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a port is free");
        // Started by root, it would become a user who may not read the key. Mosquitto 2.0.11 does not start with a listener
        // for WebSocket alone.
        let config = format!(
            "listener 0 {folder}/unused\nlistener {} {}\nprotocol {protocol}\ncertfile {folder}/hub.pem\nkeyfile {folder}/hub.key\nallow_anonymous true\nuser root\n",
            address.port(),
            address.ip(),
            protocol = if over == Over::WebSocket { "websockets" } else { "mqtt" },
            folder = folder.display(),
        );
        write(folder, "mosquitto.conf", &config);
        let mut command = Command::new("mosquitto");
        command.env("PATH", path()).arg("-v").arg("-c").arg(folder.join("mosquitto.conf"));
        let mut program = Program::start("mosquitto", &mut command);
        let runs = program.expect("a listening broker", |line| {
            let runs = line.ends_with(" running");
            (runs || line.contains("Address already in use")).then_some(runs)
        });
        if runs {
            return (program, address);
        }
    }
}

fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(FOLDER);
    path
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
}
