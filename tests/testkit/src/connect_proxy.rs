//! A small HTTP proxy that knows CONNECT and nothing else.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// Whom a proxy lets through.
#[derive(Clone, Copy, Debug)]
pub enum Admission {
    /// Everybody.
    All,
    /// Who shows this `user:password`; 407 for anybody else.
    Only(&'static str),
    /// Nobody; this is the status.
    None(u16),
}

/// A proxy on a port of its own.
#[derive(Clone, Debug)]
pub struct ConnectProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Listens on a port that is free.
    ///
    /// # Panics
    /// When this machine has no port left.
    #[must_use]
    pub fn start(runtime: &Handle, admission: Admission) -> Self {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::<Mutex<_>>::default();
        let log = Arc::clone(&asked);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, admission, Arc::clone(&log)));
            }
        });
        Self { port, asked }
    }

    /// How clients name it; `credentials` are `user:password@` or nothing.
    #[must_use]
    pub fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}127.0.0.1:{}", self.port)
    }

    /// The first lines of all requests.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers one request, and carries bytes until both ends have closed.
async fn carry(client: TcpStream, admission: Admission, asked: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let first = head.first().cloned().unwrap_or_default();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(first.clone());
    let shown = |credentials: &str| {
        head.contains(&format!("Proxy-Authorization: Basic {}", STANDARD.encode(credentials)))
    };
    let status = match admission {
        Admission::Only(credentials) if !shown(credentials) => Some(407),
        Admission::None(status) => Some(status),
        Admission::All | Admission::Only(_) => None,
    };
    if let Some(status) = status {
        return client.write_all(format!("HTTP/1.1 {status} No\r\n\r\n").as_bytes()).await;
    }
    let target = first.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let mut hub = TcpStream::connect(target.ok_or(io::ErrorKind::InvalidData)?).await?;
    // As many proxies do, with an older version and more than a status.
    client.write_all(b"HTTP/1.0 200 Connection established\r\nVia: 1.1 test\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut hub).await.map(drop)
}
