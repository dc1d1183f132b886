//! The servers that are compared, each as a process on a CPU of its own, all with one P-256 certificate.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devicebound_benches::load::{Client, EventSource, Failure, Peer, Process, Registry, Tls};
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
    /// Debian's, with the plugin for AMQP 1.0.
    RabbitMq,
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
            Self::RabbitMq => "RabbitMQ",
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
            Kind::RabbitMq => self.rabbit_mq(),
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
        command.args(["--amqp-port", "0", "--emulator-port", "0"]);
        let mut child = Running::spawn(command.stdout(Stdio::piped()))?;
        let mut first = String::new();
        BufReader::new(child.0.stdout.take().ok_or("the hub has no output")?).read_line(&mut first)?;
        let ready: Value = serde_json::from_str(&first).map_err(|_| "the hub does not start")?;
        let address = |name| -> Result<SocketAddr, Failure> {
            let address = ready.get(name).and_then(Value::as_str);
            Ok(address.ok_or("the hub does not say where it listens")?.parse()?)
        };
        let mut server = self.server(child, address("mqtt")?, Some(state))?;
        let (user, password) = server.registry()?.plain()?;
        let partition = |n| format!("devicebound/ConsumerGroups/$Default/Partitions/{n}");
        let tls = server.peer.tls.clone();
        server.events = [(address("amqpEmulator")?, None), (address("amqp")?, tls)]
            .map(|(address, tls)| EventSource {
                address,
                tls,
                user: user.clone(),
                password: password.clone(),
                nodes: (0..4).map(partition).collect(),
            })
            .to_vec();
        Ok(server)
    }

    /// With a folder and ports of its own, beside one that may run already.
    fn rabbit_mq(&self) -> Result<Server, Failure> {
        let (address, distribution, epmd) = (free_address()?, free_address()?, free_address()?);
        let folder = self.folder.path().join("rabbitmq");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("plugins"), "[rabbitmq_amqp1_0].")?;
        let program = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        if !program.is_file() {
            return Err("RabbitMQ is not there: apt-get install rabbitmq-server".into());
        }
        let mut command = self.pinned(program);
        for (name, value) in [
            ("HOME", folder.clone()),
            ("RABBITMQ_MNESIA_BASE", folder.join("data")),
            ("RABBITMQ_LOG_BASE", folder.join("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_NODENAME", "devicebound@localhost".into()),
            ("RABBITMQ_NODE_IP_ADDRESS", address.ip().to_string().into()),
            ("RABBITMQ_NODE_PORT", address.port().to_string().into()),
            ("RABBITMQ_DIST_PORT", distribution.port().to_string().into()),
            ("ERL_EPMD_ADDRESS", epmd.ip().to_string().into()),
            ("ERL_EPMD_PORT", epmd.port().to_string().into()),
        ] {
            command.env(name, value);
        }
        let mut server = self.server(Running::spawn(command.stdout(Stdio::null()))?, address, None)?;
        // What was started is a shell; its child works.
        let id = server.child.0.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let node = children.split_whitespace().next().ok_or("RabbitMQ has no process")?;
        server.process = Process::new(node.parse()?)?;
        let (user, password) = ("guest".to_owned(), "guest".to_owned());
        let nodes = vec!["/queue/events".to_owned()];
        server.events = vec![EventSource { address, tls: None, user, password, nodes }];
        Ok(server)
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
        Ok(Server { child, process, peer, state, events: Vec::new() })
    }
}

/// A server that listens. It ends with this value.
pub(crate) struct Server {
    child: Running,
    pub(crate) process: Process,
    pub(crate) peer: Peer,
    /// The state folder of a hub.
    state: Option<PathBuf>,
    /// Ways to what is stored, over AMQP: without TLS, with it.
    pub(crate) events: Vec<EventSource>,
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
