//! A device learns its hub.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use devicebound::provisioning::{Provisioned, ProvisioningConfig};
use devicebound_client::{Registration, RegistrationStep};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    CONNECT_TIME, Client, Opening, PARTING_TIME, ProvisionError, Tls, TlsSocket, poll_read, poll_write,
};

impl Client<TlsSocket> {
    /// Asks the Device Provisioning Service for the device's hub, over as many connections as it takes, until there is an
    /// answer or the config's patience ends. `tls` is the way to the service; it has the client certificate where the
    /// device shows one.
    ///
    /// A device that its hub does not know any more is provisioned again in the same way: see
    /// [`Offline::Closed`](super::Offline::Closed) with a refused CONNECT.
    ///
    /// The future may be dropped: the service has then registered the device or has not, and registers it again.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub async fn provision(config: ProvisioningConfig, tls: Tls) -> Result<Provisioned, ProvisionError> {
        let connect = move |host: &str| -> Opening<TlsSocket> {
            Box::pin(TlsSocket::connect(host.to_owned(), tls.clone()))
        };
        Self::provision_over(config, connect).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Client<S> {
    /// As [`provision`](Client::provision), on any socket; `connect` opens one to the host that it is given.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub async fn provision_over(
        config: ProvisioningConfig,
        mut connect: impl FnMut(&str) -> Opening<S> + Send,
    ) -> Result<Provisioned, ProvisionError> {
        let mut registration = Registration::new(config, || Instant::now().into_std())?;
        let mut socket: Option<S> = None;
        loop {
            match registration.step() {
                RegistrationStep::Pause(at) => {
                    sleep_until(at.into()).await;
                    registration.timed_out();
                }
                RegistrationStep::Connect(at) => {
                    sleep_until(at.into()).await;
                    let opening = connect(registration.network_host());
                    let opened = timeout(CONNECT_TIME, opening).await;
                    match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                        Ok(opened) => {
                            socket = Some(opened);
                            registration.opened();
                        }
                        Err(error) => registration.closed(Some(error)),
                    }
                }
                RegistrationStep::Exchange(deadline) => {
                    let exchanged = match &mut socket {
                        Some(socket) => exchange(socket, &mut registration, deadline.into()).await,
                        None => Err(io::ErrorKind::NotConnected.into()),
                    };
                    if let Err(error) = exchanged {
                        socket = None;
                        registration.closed(Some(error));
                    }
                }
                RegistrationStep::Close => {
                    leave(socket.take(), &mut registration).await;
                    registration.closed(None);
                }
                RegistrationStep::Done => {
                    leave(socket.take(), &mut registration).await;
                    return registration.outcome();
                }
            }
        }
    }
}

/// Writes what is left. The connection is over: nothing depends on how the transport ends.
async fn leave<S: AsyncRead + AsyncWrite + Unpin>(socket: Option<S>, registration: &mut Registration) {
    let Some(mut socket) = socket else { return };
    let part = async {
        poll_fn(|cx| poll_write(&mut socket, registration, cx)).await?;
        socket.shutdown().await
    };
    let _ = timeout(PARTING_TIME, part).await;
}

/// Writes and reads until something was read, or `deadline` has come and nothing was there.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    registration: &mut Registration,
    deadline: Instant,
) -> io::Result<()> {
    let mut alarm = pin!(sleep_until(deadline));
    poll_fn(|cx| {
        let written = poll_write(socket, registration, cx);
        match poll_read(socket, registration.room(), cx)? {
            Poll::Ready(length) => {
                registration.received(length);
                Poll::Ready(Ok(()))
            }
            // What had arrived when the write failed was read first.
            Poll::Pending => match written {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => alarm.as_mut().poll(cx).map(|()| {
                    registration.timed_out();
                    Ok(())
                }),
            },
        }
    })
    .await
}
