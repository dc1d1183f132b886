//! The ports: MQTT over TLS on 8883, HTTPS on 443 or else on 8443, AMQP over TLS on 5671 or else on a free one.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::Failure;
use crate::amqp::AMQP_PORT;

/// MQTT over TLS; the device SDKs know no other.
pub const MQTT_PORT: u16 = 8883;
/// HTTPS and MQTT over WebSocket; the device SDKs know no other.
pub const HTTPS_PORT: u16 = 443;
/// Taken where 443 cannot be had.
pub const HTTPS_FALLBACK_PORT: u16 = 8443;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The addresses; none means loopback, IPv4 and (where the machine has it) IPv6.
    pub addresses: Vec<IpAddr>,
    /// The port of MQTT over TLS; 0 takes a free one.
    pub mqtt: u16,
    /// The port of HTTPS; 0 takes a free one, `None` tries 443 and then 8443.
    pub https: Option<u16>,
    /// The port of AMQP over TLS; 0 takes a free one, `None` tries 5671 and then a free one.
    pub amqp: Option<u16>,
    /// The port of AMQP without TLS, on loopback alone; 0 takes a free one, `None` opens none.
    pub emulator: Option<u16>,
}

/// Sockets that listen.
#[derive(Debug)]
pub struct Listeners {
    /// MQTT over TLS, one for each address; never empty.
    pub mqtt: Vec<TcpListener>,
    /// HTTPS, one for each address; never empty.
    pub https: Vec<TcpListener>,
    /// Why HTTPS is not on 443, when it was asked to be.
    pub https_note: Option<String>,
    /// AMQP over TLS, one for each address; never empty.
    pub amqp: Vec<TcpListener>,
    /// Why AMQP is not on 5671, when it was asked to be.
    pub amqp_note: Option<String>,
    /// AMQP without TLS; usually empty.
    pub emulator: Vec<TcpListener>,
}

/// Binds all ports, on every address.
///
/// # Errors
/// When a port cannot be had: it is in use, it needs a permission, or the machine lacks the address.
pub async fn bind(ports: &Ports) -> Result<Listeners, Failure> {
    let mqtt = bind_port(&ports.addresses, ports.mqtt).await.map_err(|refused| refused.failure("--port"))?;
    let (https, https_note) = match ports.https {
        Some(port) => {
            let bound = bind_port(&ports.addresses, port).await;
            (bound.map_err(|refused| refused.failure("--https-port"))?, None)
        }
        None => match bind_port(&ports.addresses, HTTPS_PORT).await {
            Ok(listeners) => (listeners, None),
            Err(refused) => {
                let bound = bind_port(&ports.addresses, HTTPS_FALLBACK_PORT).await;
                let listeners = bound.map_err(|second| second.failure("--https-port"))?;
                (listeners, Some(fallback_note(&refused)))
            }
        },
    };
    let (amqp, amqp_note) = bind_amqp(ports).await?;
    let emulator = match ports.emulator {
        Some(port) => bind_port(&[], port).await.map_err(|refused| refused.failure("--emulator-port"))?,
        None => Vec::new(),
    };
    Ok(Listeners { mqtt, https, https_note, amqp, amqp_note, emulator })
}

async fn bind_amqp(ports: &Ports) -> Result<(Vec<TcpListener>, Option<String>), Failure> {
    let refused = match bind_port(&ports.addresses, ports.amqp.unwrap_or(AMQP_PORT)).await {
        Ok(listeners) => return Ok((listeners, None)),
        Err(refused) if ports.amqp.is_some() => return Err(refused.failure("--amqp-port")),
        Err(refused) => refused,
    };
    let listeners = bind_port(&ports.addresses, 0).await.map_err(|second| second.failure("--amqp-port"))?;
    Ok((listeners, Some(fallback_note(&refused))))
}

/// An address that would not be bound, and why.
#[derive(Debug)]
struct Refused {
    address: SocketAddr,
    error: io::Error,
}

impl Refused {
    fn cause(&self) -> String {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => format!("port {} is in use ({})", self.address.port(), self.address),
            io::ErrorKind::PermissionDenied => format!("no permission for port {}", self.address.port()),
            io::ErrorKind::AddrNotAvailable => format!("this machine has no address {}", self.address.ip()),
            _ => format!("cannot listen on {}: {}", self.address, self.error),
        }
    }

    fn failure(&self, flag: &str) -> Failure {
        let next = match self.error.kind() {
            io::ErrorKind::PermissionDenied => permission_advice(),
            io::ErrorKind::AddrNotAvailable => "check --listen".to_owned(),
            _ => format!("stop the program that holds it, or choose another port: {flag} 0 takes a free one"),
        };
        Failure::new(self.cause(), next)
    }
}

fn fallback_note(refused: &Refused) -> String {
    let mut note = refused.cause();
    if refused.error.kind() == io::ErrorKind::PermissionDenied {
        // Writing to a String cannot fail.
        let _ = write!(note, "; {}", permission_advice());
    }
    note
}

fn permission_advice() -> String {
    if cfg!(target_os = "linux") {
        let program = std::env::current_exe()
            .map_or_else(|_| "devicebound".to_owned(), |path| path.display().to_string());
        format!("allow it: sudo setcap cap_net_bind_service=+ep {program}")
    } else {
        "run as administrator".to_owned()
    }
}

/// All addresses on one port; with port 0 the first address picks it.
async fn bind_port(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, Refused> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let by_default = addresses.is_empty();
    let addresses = if by_default { &loopback[..] } else { addresses };
    let mut port = port;
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let address = SocketAddr::new(address, port);
        let bound =
            TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((local, listener)) => {
                port = local.port();
                listeners.push(listener);
            }
            // Containers often have no IPv6; nobody asked for it by name.
            Err(error) if by_default && address.is_ipv6() && lacks_address(&error) => {}
            Err(error) => return Err(Refused { address, error }),
        }
    }
    Ok(listeners)
}

fn lacks_address(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        // EAFNOSUPPORT has no kind of its own.
        || error.to_string().contains("Address family not supported")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(mqtt: u16, https: Option<u16>) -> Ports {
        Ports { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], mqtt, https, amqp: Some(0), emulator: None }
    }

    #[tokio::test]
    async fn port_0_takes_a_free_port_on_every_address() {
        let all = Ports { addresses: Vec::new(), ..ports(0, Some(0)) };
        let listeners = bind(&all).await.unwrap();
        let numbers: Vec<u16> = listeners.mqtt.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!(numbers.iter().all(|&port| port == numbers[0] && port != 0), "{numbers:?}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_way_out() {
        let first = bind(&ports(0, Some(0))).await.unwrap();
        let taken = first.mqtt[0].local_addr().unwrap().port();
        let failure = bind(&ports(taken, Some(0))).await.unwrap_err();
        assert!(failure.cause().contains(&format!("port {taken} is in use")), "{failure}");
        assert!(failure.next().contains("--port 0"), "{failure}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        let elsewhere =
            Ports { addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))], ..ports(0, Some(0)) };
        let failure = bind(&elsewhere).await.unwrap_err();
        assert!(failure.cause().contains("192.0.2.1"), "{failure}");
    }
}
