//! Load for an MQTT 3.1.1 server: many connections from one thread, and what they cost the server.
//!
//! The generator must never be what is measured. So it is one thread on `epoll`, takes large reads, keeps each client's
//! PUBLISH encoded, writes all that fits the window in one record, and allocates nothing per message. Each report says
//! how busy it was: one that was always busy has measured itself.

mod devices;
mod events;
mod line;
mod process;
mod run;
mod swarm;
mod traffic;

pub use devices::Registry;
pub use events::{EventSource, Read, read_events};
pub use line::{Peer, Tls};
pub use process::{Process, pin_to, raise_file_limit};
pub use run::{Connected, Idle, Published, connect, idle, publish};
pub use traffic::Publishing;

/// Whatever went wrong, in words. Load that does not run as asked is no measurement, so the first error ends it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// As whom a client connects.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client id; with IoT Hub the device id.
    pub id: String,
    /// User name and password; anonymous without.
    pub credentials: Option<(String, String)>,
}

impl Client {
    /// The first `count` clients of a server that takes anybody.
    #[must_use]
    pub fn anonymous(count: usize) -> Vec<Self> {
        (0..count).map(|index| Self { id: device_id(index), credentials: None }).collect()
    }

    /// What the client publishes to: the same length and form with every server.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("devices/{}/messages/events/", self.id)
    }
}

fn device_id(index: usize) -> String {
    format!("load-{index:07}")
}
