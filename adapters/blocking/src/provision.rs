//! A device learns its hub.

use std::io;
use std::thread;
use std::time::Instant;

use devicebound::provisioning::{Provisioned, ProvisioningConfig};
use devicebound_client::{Registration, RegistrationStep};

use super::socket::TICK;
use super::{Client, PARTING_TIME, ProvisionError, Socket, Tls, TlsSocket, has_come, left, read, write};

impl Client<TlsSocket> {
    /// Asks the Device Provisioning Service for the device's hub, over as many connections as it takes, until there is an
    /// answer or the config's patience ends. `tls` is the way to the service; it has the client certificate where the
    /// device shows one.
    ///
    /// A device that its hub does not know any more is provisioned again in the same way: see
    /// [`Offline::Closed`](super::Offline::Closed) with a refused CONNECT.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub fn provision(config: ProvisioningConfig, tls: &Tls) -> Result<Provisioned, ProvisionError> {
        Self::provision_over(config, |host| TlsSocket::connect(host, tls))
    }
}

impl<S: Socket> Client<S> {
    /// As [`provision`](Client::provision), on any socket; `connect` opens one to the host that it is given, in bounded
    /// time.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub fn provision_over(
        config: ProvisioningConfig,
        mut connect: impl FnMut(&str) -> io::Result<S>,
    ) -> Result<Provisioned, ProvisionError> {
        let mut registration = Registration::new(config, Instant::now)?;
        let mut socket: Option<S> = None;
        loop {
            match registration.step() {
                RegistrationStep::Pause(at) => {
                    thread::sleep(left(at, None));
                    registration.timed_out();
                }
                RegistrationStep::Connect(at) => {
                    thread::sleep(left(at, None));
                    match connect(registration.network_host()) {
                        Ok(opened) => {
                            socket = Some(opened);
                            registration.opened();
                        }
                        Err(error) => registration.closed(Some(error)),
                    }
                }
                RegistrationStep::Exchange(deadline) => {
                    let exchanged = match &mut socket {
                        Some(socket) => exchange(socket, &mut registration, deadline),
                        None => Err(io::ErrorKind::NotConnected.into()),
                    };
                    if let Err(error) = exchanged {
                        socket = None;
                        registration.closed(Some(error));
                    }
                }
                RegistrationStep::Close => {
                    leave(socket.take(), &mut registration);
                    registration.closed(None);
                }
                RegistrationStep::Done => {
                    leave(socket.take(), &mut registration);
                    return registration.outcome();
                }
            }
        }
    }
}

/// Writes what is left. The connection is over: nothing depends on how the transport ends.
fn leave(socket: Option<impl Socket>, registration: &mut Registration) {
    let Some(mut socket) = socket else { return };
    let end = Instant::now() + PARTING_TIME;
    while matches!(write(&mut socket, registration), Ok(false)) && !has_come(end) {}
    let _ = socket.shut_down();
}

/// Writes once and reads once.
fn exchange(socket: &mut impl Socket, registration: &mut Registration, deadline: Instant) -> io::Result<()> {
    let written = write(socket, registration);
    let left = left(deadline, None);
    socket.set_read_timeout(if matches!(written, Ok(true)) { left } else { left.min(TICK) })?;
    match (read(socket, registration.room())?, written) {
        (Some(length), _) => registration.received(length),
        // What had arrived when a write failed was read first.
        (None, Err(error)) => return Err(error),
        (None, Ok(_)) if has_come(deadline) => registration.timed_out(),
        (None, Ok(_)) => {}
    }
    Ok(())
}
