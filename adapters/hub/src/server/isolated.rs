//! A loopback address of its own for a hub, so that any number of hubs run side by side with SDKs that know one port only.
//!
//! All of 127.0.0.0/8 is loopback on Linux and Windows. macOS has 127.0.0.1 alone until it is given more.

use std::net::{IpAddr, Ipv4Addr};

use super::listen::{self, Listeners, Ports};
use crate::Failure;

/// The first and the last address that is tried: 127.0.0.2 to 127.0.3.255. 127.0.0.1 is left to a hub that is started by
/// hand.
const FIRST: u32 = 0x7f00_0002;
const LAST: u32 = 0x7f00_03ff;

/// Binds the usual ports on the first loopback address on which all of them are free. `start` says where the search
/// begins: hubs that start at the same time do not all try the same addresses.
///
/// # Errors
/// When no address has them free, and what to do about it.
pub async fn bind(ports: &Ports, start: u32) -> Result<(Listeners, IpAddr), Failure> {
    let count = LAST - FIRST + 1;
    let mut last = None;
    for step in 0..count {
        let address = IpAddr::V4(Ipv4Addr::from(FIRST + (start % count + step) % count));
        match listen::bind(&Ports { addresses: vec![address], ..ports.clone() }).await {
            Ok(listeners) => return Ok((listeners, address)),
            Err(failure) if !failure.cause().contains(" is in use ") => {
                return Err(no_address(address, &failure));
            }
            Err(failure) => last = Some(failure),
        }
    }
    let cause = "no loopback address from 127.0.0.2 to 127.0.3.255 has its ports free".to_owned();
    let next = last.map_or_else(String::new, |failure| format!("; the last one: {}", failure.cause()));
    Err(Failure::new(cause, format!("stop hubs that are not needed any more{next}")))
}

fn no_address(address: IpAddr, failure: &Failure) -> Failure {
    let next = if cfg!(target_os = "macos") {
        format!(
            "give this machine the address: sudo ifconfig lo0 alias {address} up; or run without --isolated"
        )
    } else {
        failure.next().to_owned()
    };
    Failure::new(failure.cause().to_owned(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(mqtt: u16, https: u16) -> Ports {
        Ports { addresses: Vec::new(), mqtt, https: Some(https), amqp: Some(0), emulator: None }
    }

    #[tokio::test]
    async fn two_hubs_get_an_address_each_with_the_same_ports() {
        // Ports that nothing else here uses; nobody needs a right for them.
        let ports = ports(28_883, 28_443);
        let (first, one) = bind(&ports, 700).await.unwrap();
        let (second, other) = bind(&ports, 700).await.unwrap();
        assert_ne!(one, other);
        for (listeners, address) in [(&first, one), (&second, other)] {
            assert_eq!(listeners.mqtt[0].local_addr().unwrap(), (address, 28_883).into());
            assert_eq!(listeners.https[0].local_addr().unwrap(), (address, 28_443).into());
        }
    }

    #[tokio::test]
    async fn the_search_goes_on_from_the_last_address_to_the_first() {
        let ports = ports(28_884, 28_444);
        let (_last, last) = bind(&ports, LAST - FIRST).await.unwrap();
        let (_first, first) = bind(&ports, LAST - FIRST).await.unwrap();
        assert_eq!((last.to_string(), first.to_string()), ("127.0.3.255".to_owned(), "127.0.0.2".to_owned()));
    }
}
