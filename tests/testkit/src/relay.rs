//! A relay in front of a server, which can make a network of its own faults.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Carries connections from a port of its own to a server. What is done to them is done to those that are open.
#[derive(Clone, Debug)]
pub struct Relay {
    port: u16,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    cut: Notify,
    deafen: Notify,
    mute: Notify,
}

impl Relay {
    /// Listens on a port that is free, and carries what comes to `server`.
    ///
    /// # Panics
    /// When this machine has no port left.
    #[must_use]
    pub fn start(runtime: &Handle, server: SocketAddr) -> Self {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let faults = Arc::<Faults>::default();
        runtime.spawn(serve(Arc::clone(&faults), listener, server));
        Self { port, faults }
    }

    /// The port that clients connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Cuts without a word.
    pub fn cut(&self) {
        self.faults.cut.notify_waiters();
    }

    /// What clients send reaches the server no more; what it sends reaches them.
    pub fn deafen(&self) {
        self.faults.deafen.notify_waiters();
    }

    /// What the server sends reaches clients no more; what they send reaches it.
    pub fn mute(&self) {
        self.faults.mute.notify_waiters();
    }
}

async fn serve(faults: Arc<Faults>, listener: TcpListener, server: SocketAddr) {
    while let Ok((client, _)) = listener.accept().await {
        if let Ok(server) = TcpStream::connect(server).await {
            tokio::spawn(carry(Arc::clone(&faults), client, server));
        }
    }
}

/// Carries bytes until the server closes the connection, or it is cut. Where a fault and bytes are there at once, the fault
/// came first.
async fn carry(faults: Arc<Faults>, mut client: TcpStream, mut server: TcpStream) {
    let (cut, deafen, mute) = (faults.cut.notified(), faults.deafen.notified(), faults.mute.notified());
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let to_server = async {
        tokio::select! {
            biased;
            () = deafen => {}
            _ = copy(&mut from_client, &mut to_server) => drop(to_server.shutdown().await),
        }
        pending::<()>().await;
    };
    let to_client = async {
        tokio::select! {
            biased;
            () = mute => pending().await,
            _ = copy(&mut from_server, &mut to_client) => {}
        }
    };
    tokio::select! {
        biased;
        () = cut => {}
        () = to_server => {}
        () = to_client => {}
    }
}
