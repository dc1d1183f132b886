//! The servers that are compared, each as a process on a CPU of its own, all with one P-256 certificate.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devicebound_benches::load::{Client, Failure, Peer, Process, Registry, Tls};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

#[cfg(feature = "rumqttd")]
pub(crate) mod rumqttd;

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// What the hub keeps of its authority, and of the certificate that all servers show.
const AUTHORITY: [&str; 4] = ["ca.pem", "ca.key", "server.pem", "server.key"];
/// The certificate and its authority's behind it, as the hub sends them.
const CHAIN: &str = "chain.pem";

/// A server in one of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Acknowledges from memory.
    HubMemory,
    /// Acknowledges after fsync.
    HubDisk,
    /// As Debian ships it.
    Mosquitto,
    /// With `set_tcp_nodelay true`.
    MosquittoNoDelay,
    #[cfg(feature = "rumqttd")]
    Rumqttd,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HubMemory => "devicebound (memory)",
            Self::HubDisk => "devicebound (disk)",
            Self::Mosquitto => "mosquitto",
            Self::MosquittoNoDelay => "mosquitto (nodelay)",
            #[cfg(feature = "rumqttd")]
            Self::Rumqttd => "rumqttd",
        }
    }
}

/// Where servers run: a folder that goes away at the end, and a CPU.
pub(crate) struct Place {
    hub: PathBuf,
    cpu: usize,
    folder: TempDir,
}

impl Place {
    pub(crate) fn new(hub: PathBuf, cpu: usize) -> Result<Self, Failure> {
        let place = Self { hub, cpu, folder: TempDir::with_prefix("devicebound-compare-")? };
        // The hub makes the certificates that all servers use.
        place.hub("authority", "memory")?.stop()?;
        let chain = [place.authority("server.pem"), place.authority("ca.pem")].map(fs::read_to_string);
        let [server, ca] = chain;
        fs::write(place.authority(CHAIN), server? + &ca?)?;
        Ok(place)
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn start(&self, kind: Kind) -> Result<Server, Failure> {
        match kind {
            Kind::HubMemory => self.hub("memory", "memory"),
            Kind::HubDisk => self.hub("disk", "disk"),
            Kind::Mosquitto => self.mosquitto("mosquitto.conf", false),
            Kind::MosquittoNoDelay => self.mosquitto("mosquitto-nodelay.conf", true),
            #[cfg(feature = "rumqttd")]
            Kind::Rumqttd => self.rumqttd(),
        }
    }

    fn authority(&self, file: &str) -> PathBuf {
        self.folder.path().join("authority").join(file)
    }

    fn hub(&self, folder: &str, store: &str) -> Result<Server, Failure> {
        let state = self.folder.path().join(folder);
        // What an earlier server left would be part of what is measured.
        let _ = fs::remove_dir_all(&state);
        fs::create_dir(&state)?;
        for file in AUTHORITY {
            let made = self.authority(file);
            // The first hub of all makes them.
            if made.is_file() {
                fs::copy(made, state.join(file))?;
            }
        }
        let mut command = self.pinned(&self.hub);
        command.arg("hub").arg("--state").arg(&state).args(["--port", "0", "--https-port", "0"]);
        command.args(["--listen", "127.0.0.1", "--json", "--quiet", "--store", store]);
        let mut child = Running::spawn(command.stdout(Stdio::piped()))?;
        let mut first = String::new();
        BufReader::new(child.0.stdout.take().ok_or("the hub has no output")?).read_line(&mut first)?;
        let ready: Value = serde_json::from_str(&first).map_err(|_| "the hub does not start")?;
        let address =
            ready.get("mqtt").and_then(Value::as_str).ok_or("the hub does not say where it listens")?;
        let address = address.parse()?;
        self.server(child, address, Some(state))
    }

    fn mosquitto(&self, file: &str, no_delay: bool) -> Result<Server, Failure> {
        let address = free_address()?;
        let path = |file| self.authority(file).display().to_string();
        let settings = [
            format!("listener {} {}", address.port(), address.ip()),
            format!("cafile {}", path("ca.pem")),
            format!("certfile {}", path(CHAIN)),
            format!("keyfile {}", path("server.key")),
            "allow_anonymous true".to_owned(),
            format!("set_tcp_nodelay {no_delay}"),
            // Neither log nor disk, which the hub in memory does not have either.
            "log_dest none".to_owned(),
            "persistence false".to_owned(),
            // Heeded when root starts it: the key is for root alone.
            "user root".to_owned(),
        ];
        let configuration = self.folder.path().join(file);
        fs::write(&configuration, settings.join("\n"))?;
        // Debian keeps it where only root looks.
        let program = Path::new("/usr/sbin/mosquitto");
        let program = if program.is_file() { program } else { Path::new("mosquitto") };
        let mut command = self.pinned(program);
        command.arg("-c").arg(configuration).stderr(Stdio::null());
        self.server(Running::spawn(&mut command)?, address, None)
    }

    #[cfg(feature = "rumqttd")]
    fn rumqttd(&self) -> Result<Server, Failure> {
        let address = free_address()?;
        let mut command = self.pinned(&std::env::current_exe()?);
        command.arg("rumqttd").arg(address.port().to_string());
        command.arg(self.authority(CHAIN)).arg(self.authority("server.key")).stdout(Stdio::null());
        self.server(Running::spawn(&mut command)?, address, None)
    }

    /// A program on the servers' CPU from its first thread on.
    fn pinned(&self, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(self.cpu.to_string()).arg(program);
        command
    }

    fn server(&self, child: Running, address: SocketAddr, state: Option<PathBuf>) -> Result<Server, Failure> {
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > PATIENCE {
                return Err(format!("nobody listens on {address}").into());
            }
            std::thread::sleep(LOOK);
        }
        let process = Process::new(child.0.id())?;
        let peer = Peer { address, tls: Some(Tls::new(&self.authority("ca.pem"), "localhost")?) };
        Ok(Server { child, process, peer, state })
    }
}

/// A server that listens. It ends with this value.
pub(crate) struct Server {
    child: Running,
    pub(crate) process: Process,
    pub(crate) peer: Peer,
    /// The state folder of a hub.
    state: Option<PathBuf>,
}

impl Server {
    /// Clients that this server accepts; a hub registers them first.
    pub(crate) fn clients(&self, count: usize) -> Result<Vec<Client>, Failure> {
        match &self.state {
            Some(state) => Registry::of(state)?.clients(count),
            None => Ok(Client::anonymous(count)),
        }
    }

    /// The registry of a hub.
    pub(crate) fn registry(&self) -> Result<Registry, Failure> {
        Registry::of(self.state.as_ref().ok_or("only a hub has a registry")?)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(self.child.0.id().try_into()?), Signal::SIGTERM)?;
        self.child.0.wait()?;
        Ok(())
    }
}

/// A process that does not outlive its value.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.map_err(|error| format!("cannot run {command:?}: {error}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
