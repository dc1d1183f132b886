//! Servers to compare, each started anew on one core.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::target::token;

/// For so long a server may take to listen.
const START_TIME: Duration = Duration::from_secs(20);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Our hub, which keeps everything in memory
    Memory,
    /// Our hub, which acknowledges after fsync
    Disk,
    /// Debian's mosquitto
    Mosquitto,
    /// Debian's mosquitto with set_tcp_nodelay
    MosquittoNodelay,
    /// rumqttd 0.20
    Rumqttd,
}

/// A server that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// The authority of its certificate.
    pub ca: PathBuf,
    /// What lets devices in, as `--policy` of the load program takes it.
    pub policy: Option<String>,
    _folder: TempDir,
}

/// Certificates that all servers show: those of a hub.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Has a hub make them.
    ///
    /// # Errors
    /// When it does not start.
    pub fn make(programs: &Path) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = Server::hub(programs, &[], folder.path(), tempfile::tempdir()?, "memory", 0)?;
        drop(server);
        Ok(Self { folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Server {
    /// Starts a server behind the words `pinned`; our hub with so many devices.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start(
        kind: Kind,
        programs: &Path,
        pinned: &[&str],
        certificates: &Certificates,
        devices: usize,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        match kind {
            Kind::Memory | Kind::Disk => {
                let state = folder.path().join("state");
                fs::create_dir(&state)?;
                for name in ["ca.pem", "ca.key", "server.pem", "server.key"] {
                    fs::copy(certificates.file(name), state.join(name))?;
                }
                let store = if kind == Kind::Memory { "memory" } else { "disk" };
                Self::hub(programs, pinned, &state, folder, store, devices)
            }
            Kind::Mosquitto | Kind::MosquittoNodelay => {
                let port = free_port()?;
                let configuration = format!(
                    "listener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\nallow_anonymous true\npersistence false\n\
                     max_queued_messages 0\nlog_type error\nset_tcp_nodelay {}\n",
                    certificates.file("server.pem").display(),
                    certificates.file("server.key").display(),
                    kind == Kind::MosquittoNodelay,
                );
                let path = folder.path().join("mosquitto.conf");
                fs::write(&path, configuration)?;
                let mut command = command(pinned, Path::new("mosquitto"));
                let child = command.arg("-c").arg(path).stderr(Stdio::null()).spawn()?;
                Self::other(child, port, certificates, folder)
            }
            Kind::Rumqttd => {
                let port = free_port()?;
                let mut command = command(pinned, &programs.join("peer_rumqttd"));
                command.arg(port.to_string());
                command.arg(certificates.file("server.pem")).arg(certificates.file("server.key"));
                let child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
                Self::other(child, port, certificates, folder)
            }
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn other(child: Child, port: u16, certificates: &Certificates, folder: TempDir) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Self { child, address, ca: certificates.file("ca.pem"), policy: None, _folder: folder };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > START_TIME {
                return Err(io::Error::other("the server does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn hub(
        programs: &Path,
        pinned: &[&str],
        state: &Path,
        folder: TempDir,
        store: &str,
        devices: usize,
    ) -> io::Result<Self> {
        let mut command = command(pinned, &programs.join("devicebound"));
        command.args(["hub", "--port", "0", "--https-port", "0", "--listen", "127.0.0.1"]);
        command.args(["--json", "--quiet", "--store", store, "--state"]).arg(state);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(output).lines();
        let ready = loop {
            let line = lines.next().ok_or_else(|| io::Error::other("the hub has ended"))??;
            let line: Value = serde_json::from_str(&line)?;
            if line.get("event").and_then(Value::as_str) == Some("ready") {
                break line;
            }
        };
        // The hub goes on without a reader.
        drop(lines);
        let text = |name: &str| {
            ready.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(io::ErrorKind::InvalidData)
        };
        let ca = PathBuf::from(text("ca")?);
        let service = text("serviceConnectionString")?;
        let part =
            |name: &str| service.split(';').find_map(|part| part.strip_prefix(name)).unwrap_or_default();
        let policy = format!("{}={}", part("SharedAccessKeyName="), part("SharedAccessKey="));
        let https: SocketAddr = text("https")?.parse().map_err(io::Error::other)?;
        register(https, &ca, &policy, devices)?;
        let address = text("mqtt")?.parse().map_err(io::Error::other)?;
        Ok(Self { child, address, ca, policy: Some(policy), _folder: folder })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed, so that the next may begin at once; nothing of it is used any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(pinned: &[&str], program: &Path) -> Command {
    match pinned.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Registers `bench-0` and those after it.
fn register(https: SocketAddr, ca: &Path, policy: &str, devices: usize) -> io::Result<()> {
    let pem = fs::read(ca)?;
    let authority = Certificate::from_pem(&pem).map_err(io::Error::other)?;
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority])).build();
    let agent = ureq::Agent::config_builder().tls_config(tls).build().new_agent();
    let token = token("localhost", policy)?;
    let key = STANDARD.encode([7; 32]);
    for number in 0..devices {
        let id = format!("bench-{number}");
        let url = format!("https://localhost:{}/devices/{id}?api-version=2021-04-12", https.port());
        let keys = json!({"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}});
        let body = json!({"deviceId": id, "authentication": keys}).to_string();
        agent.put(url).header("Authorization", &token).send(&body).map_err(io::Error::other)?;
    }
    Ok(())
}
