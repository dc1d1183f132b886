//! A thermostat in smol, straight on the core and without an adapter:
//!
//! ```sh
//! export CONNECTION_STRING='HostName=…;DeviceId=…;SharedAccessKey=…'
//! cargo run -p devicebound-suites --example thermostat_smol -- --ca ca.pem --count 10
//! ```

mod on_the_core;
#[path = "../../../adapters/blocking/examples/thermostat/mod.rs"]
mod thermostat;

use std::error::Error;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use clap::Parser;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use on_the_core::{Next, PORT, Unit, tls};
use rustls::pki_types::ServerName;
use smol::Timer;
use smol::future::or;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use smol::net::TcpStream;
use thermostat::Options;

#[derive(Parser)]
struct Arguments {
    /// The device's connection string
    #[arg(long, env, hide_env_values = true)]
    connection_string: String,
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let unit = Unit::new(&arguments.connection_string, &arguments.options)?;
    let port = arguments.options.port.unwrap_or(PORT);
    smol::block_on(run(unit, TlsConnector::from(tls(&arguments.options)?), port));
    Ok(())
}

async fn run(mut unit: Unit, tls: TlsConnector, port: u16) {
    let mut link = None;
    loop {
        match (unit.next(), &mut link) {
            (Next::End, _) => return,
            (Next::Sleep, _) => {
                wake(&unit).await;
                unit.tick();
            }
            (Next::Connect, _) => match connect(&unit, &tls, port).await {
                Ok(stream) => {
                    link = Some(stream);
                    unit.opened();
                }
                Err(error) => unit.closed(Some(error)),
            },
            (Next::Exchange, Some(stream)) => {
                let mut room = [0; 4096];
                let timer = wake(&unit);
                let read =
                    async { poll_fn(|cx| exchange(stream, &mut unit.tx, &mut room, cx)).await.map(Some) };
                match or(read, async {
                    timer.await;
                    Ok(None)
                })
                .await
                {
                    Ok(None) => unit.tick(),
                    Ok(Some(length)) if length > 0 => unit.received(&room[..length]),
                    end => {
                        link = None;
                        unit.closed(end.err());
                    }
                }
            }
            (Next::Close | Next::Exchange, stream) => {
                if let Some(stream) = stream {
                    let _ = stream.write_all(&unit.tx).await; // it is over, however that ends
                    let _ = stream.close().await;
                }
                link = None;
                unit.closed(None);
            }
        }
    }
}

async fn connect(unit: &Unit, tls: &TlsConnector, port: u16) -> io::Result<TlsStream<TcpStream>> {
    let host = unit.device.config().network_host();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    tls.connect(name, tcp).await
}

/// Writes what the hub takes, and reads all the same when it takes nothing.
fn exchange(
    stream: &mut TlsStream<TcpStream>,
    tx: &mut Vec<u8>,
    room: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    while !tx.is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, tx)? {
            Poll::Ready(length) => drop(tx.drain(..length)),
            Poll::Pending => break,
        }
    }
    let _ = Pin::new(&mut *stream).poll_flush(cx)?;
    Pin::new(stream).poll_read(cx, room)
}

/// Waits for the next that is due.
fn wake(unit: &Unit) -> impl Future<Output = ()> + use<> {
    let at = unit.wake_at();
    async move {
        match at {
            Some(at) => drop(Timer::at(at).await),
            None => pending().await,
        }
    }
}
