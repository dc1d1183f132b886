//! A thousand thermostats in one thread, in a bare mio loop straight on the core and without an adapter. Their connection
//! strings come from standard input, one a line:
//!
//! ```sh
//! cargo run -p devicebound-suites --example thermostat_mio -- --ca ca.pem --quiet --count 1 < connection-strings
//! ```

mod on_the_core;
#[path = "../../../adapters/blocking/examples/thermostat/mod.rs"]
mod thermostat;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Read as _, Write as _, stdin};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use devicebound::device::ConnectionState;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use on_the_core::{Next, PORT, Unit, tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use thermostat::Options;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Arguments::parse().options;
    let units = stdin().lines().map(|line| Unit::new(line?.trim(), &options));
    let units = units.collect::<Result<Vec<_>, _>>()?;
    let host = units.first().ok_or("give connection strings on standard input, one a line")?;
    let host = host.device.config().network_host().to_owned();
    let network = Network {
        addresses: (host.as_str(), options.port.unwrap_or(PORT)).to_socket_addrs()?.collect(),
        name: ServerName::try_from(host)?,
        tls: tls(&options)?,
        poll: Poll::new()?,
    };
    Fleet::new(units, network).run()
}

/// What all devices share: they are of one hub.
struct Network {
    addresses: Vec<SocketAddr>,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    poll: Poll,
}

struct Fleet {
    slots: Vec<Slot>,
    /// When which slot wants to be woken.
    timers: BTreeSet<(Instant, usize)>,
    network: Network,
}

struct Slot {
    unit: Unit,
    link: Option<Link>,
    wake_at: Option<Instant>,
    has_ended: bool,
}

/// A TCP connection and TLS on it.
struct Link {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl Fleet {
    fn new(units: Vec<Unit>, network: Network) -> Self {
        let slot = |unit| Slot { unit, link: None, wake_at: None, has_ended: false };
        Self { slots: units.into_iter().map(slot).collect(), timers: BTreeSet::new(), network }
    }

    fn run(mut self) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let all = self.slots.len();
        let mut events = Events::with_capacity(all);
        let mut offline: BTreeSet<usize> = (0..all).collect();
        let mut awake: Vec<usize> = (0..all).collect();
        loop {
            for index in awake.drain(..) {
                self.turn(index)?;
                let slot = &self.slots[index];
                // One that has ended was online before.
                let was_online =
                    slot.has_ended || slot.unit.device.status().connection == ConnectionState::Online;
                if was_online && offline.remove(&index) && offline.is_empty() {
                    println!("{all} devices are online after {} ms", start.elapsed().as_millis());
                }
            }
            if self.slots.iter().all(|slot| slot.has_ended) {
                println!("{all} devices have ended after {} ms", start.elapsed().as_millis());
                return Ok(());
            }
            let timeout = self.timers.first().map(|(at, _)| at.saturating_duration_since(Instant::now()));
            match self.network.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            awake.extend(events.iter().map(|event| event.token().0));
            let now = Instant::now();
            awake.extend(self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, index)| *index));
        }
    }

    /// Does all that one device can do now.
    fn turn(&mut self, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        slot.turn(&self.network, Token(index))?;
        let wake_at = slot.unit.wake_at().filter(|_| !slot.has_ended);
        if wake_at != slot.wake_at {
            self.timers.extend(wake_at.map(|at| (at, index)));
            if let Some(before) = std::mem::replace(&mut slot.wake_at, wake_at) {
                self.timers.remove(&(before, index));
            }
        }
        Ok(())
    }
}

impl Slot {
    fn turn(&mut self, network: &Network, token: Token) -> io::Result<()> {
        // What has arrived comes before what is due.
        let mut is_due = true;
        loop {
            let next = self.unit.next();
            match (next, &mut self.link) {
                (Next::End, _) => {
                    self.has_ended = true;
                    return Ok(());
                }
                (Next::Connect, _) => {
                    self.link = Some(network.connect(token, self.unit.device.status().failures)?);
                    self.unit.opened();
                }
                (Next::Exchange, Some(link)) => match link.exchange(&mut self.unit) {
                    Ok(true) => continue,
                    Ok(false) if is_due => {}
                    Ok(false) => return Ok(()),
                    Err(error) => {
                        self.unit.next(); // what came before the end
                        self.link = None;
                        self.unit.closed(Some(error));
                    }
                },
                (Next::Close | Next::Exchange, link) => {
                    if let Some(link) = link {
                        let _ = link.part(&mut self.unit); // it is over, however that ends
                    }
                    self.link = None;
                    self.unit.closed(None);
                }
                (Next::Sleep, _) if is_due => {}
                (Next::Sleep, _) => return Ok(()),
            }
            if is_due && matches!(next, Next::Exchange | Next::Sleep) {
                is_due = false;
                self.unit.tick();
            }
        }
    }
}

impl Network {
    /// Begins a connection, to the next address after each failure. The device machine waits only so long for what becomes
    /// of it.
    fn connect(&self, token: Token, failures: u32) -> io::Result<Link> {
        let address = self.addresses[failures as usize % self.addresses.len()];
        let mut tcp = TcpStream::connect(address)?;
        self.poll.registry().register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls =
            ClientConnection::new(Arc::clone(&self.tls), self.name.clone()).map_err(io::Error::other)?;
        Ok(Link { tcp, tls })
    }
}

impl Link {
    /// Writes and reads until neither goes on; whether something was read. mio tells of a socket only once.
    fn exchange(&mut self, unit: &mut Unit) -> io::Result<bool> {
        let written = self.write(unit);
        let mut has_read = false;
        while let Some(length) = at_once(self.tls.read_tls(&mut self.tcp))? {
            self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut room = [0; 4096];
            while let Some(length @ 1..) = at_once(self.tls.reader().read(&mut room))? {
                unit.received(&room[..length]);
                has_read = true;
            }
            if length == 0 {
                return if has_read { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        written?;
        // The handshake may have something to say after what was read.
        self.write(unit)?;
        Ok(has_read)
    }

    fn write(&mut self, unit: &mut Unit) -> io::Result<()> {
        loop {
            let taken = self.tls.writer().write(&unit.tx)?;
            unit.tx.drain(..taken);
            if !self.tls.wants_write() || at_once(self.tls.write_tls(&mut self.tcp))?.is_none() {
                return Ok(());
            }
        }
    }

    fn part(&mut self, unit: &mut Unit) -> io::Result<()> {
        self.write(unit)?;
        self.tls.send_close_notify();
        self.write(unit)
    }
}

/// `None` where the call is to be made again when mio tells of the socket, which may not be connected yet.
fn at_once<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => Ok(None),
            _ => Err(error),
        },
    }
}
