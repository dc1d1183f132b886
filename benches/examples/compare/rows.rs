//! The rows of issue 6: who is measured at what, and what is to come of it.

use std::fmt;
use std::time::Duration;

use devicebound_benches::load::{Failure, Process, Publishing, connect, idle, publish, read_events};

use super::servers::{Kind, Place, Server};

/// Bytes of a message's body, in all rows.
const PAYLOAD: usize = 128;
const WARM_UP: Duration = Duration::from_secs(1);
/// Messages that a peer is given to read: it takes in some ten thousand in a second.
const PEER_EVENTS: u64 = 300_000;
/// Clients that connect at a time: enough to keep one CPU busy.
const CONNECTING: usize = 8;

/// How often, and for how long each time.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
}

/// One row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    task: Task,
    servers: &'static [Kind],
    targets: &'static [Target],
}

#[derive(Clone, Copy)]
enum Task {
    /// `connections` clients publish, each at most `window` at a time.
    Publish { connections: usize, window: u16, rate: Option<u32> },
    /// So many clients connect and disconnect.
    Connect { count: usize },
    /// So many clients are connected and do nothing. Once: a server that had connections before has memory to spare.
    Idle { connections: usize },
    /// So many devices are registered and do nothing. Once.
    Records { count: usize },
    /// What 1,000 devices sent, or a peer as many messages, is read by one reader over AMQP; over TLS where that is said. Once.
    Events { tls: bool },
}

impl Task {
    const fn is_done_once(self) -> bool {
        matches!(self, Self::Idle { .. } | Self::Records { .. } | Self::Events { .. })
    }
}

/// A figure of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// Messages or connects per second.
    Rate,
    /// CPU time of the server for each, in microseconds.
    Cpu,
    /// Median latency, in microseconds.
    P50,
    /// Memory of each connection or record, in KiB.
    Memory,
    /// Events read per second, as a multiple of those taken in.
    RateOfIntake,
    /// CPU time of an event read, as a multiple of one taken in.
    CpuOfIntake,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What is to come of a row.
struct Target {
    figure: Figure,
    of: Kind,
    /// The ratio to the best of these in the same round is bounded; the figure itself, if there are none.
    beside: &'static [Kind],
    bound: Bound,
}

const MOSQUITTOS: &[Kind] = &[Kind::Mosquitto, Kind::MosquittoNoDelay];

const fn beside(figure: Figure, of: Kind, beside: &'static [Kind], bound: Bound) -> Target {
    Target { figure, of, beside, bound }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = match self.figure {
            Figure::Rate => "rate",
            Figure::Cpu => "CPU",
            Figure::P50 => "p50",
            Figure::Memory => "KiB each",
            Figure::RateOfIntake => "rate of reading / of intake",
            Figure::CpuOfIntake => "CPU of reading / of intake",
        };
        match self.bound {
            Bound::AtLeast(bound) => write!(f, "{}: {figure} ≥ {bound}", self.of.name())?,
            Bound::AtMost(bound) => write!(f, "{}: {figure} ≤ {bound}", self.of.name())?,
        }
        let names: Vec<_> = self.beside.iter().map(|kind| kind.name()).collect();
        if names.is_empty() { Ok(()) } else { write!(f, " × {}", names.join(" or ")) }
    }
}

/// The table of issue 6.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "100 connections, window 16, from memory",
        task: Task::Publish { connections: 100, window: 16, rate: None },
        servers: &[Kind::HubMemory, Kind::Mosquitto, Kind::MosquittoNoDelay],
        targets: &[beside(Figure::Rate, Kind::HubMemory, MOSQUITTOS, Bound::AtLeast(3.0))],
    },
    #[cfg(feature = "rumqttd")]
    Row {
        name: "100 connections, window 16, from memory, beside rumqttd",
        task: Task::Publish { connections: 100, window: 16, rate: None },
        servers: &[Kind::HubMemory, Kind::Rumqttd],
        targets: &[beside(Figure::Rate, Kind::HubMemory, &[Kind::Rumqttd], Bound::AtLeast(1.0))],
    },
    Row {
        name: "100 connections, window 16, after fsync",
        task: Task::Publish { connections: 100, window: 16, rate: None },
        servers: &[Kind::HubDisk, Kind::Mosquitto, Kind::MosquittoNoDelay],
        targets: &[beside(Figure::Rate, Kind::HubDisk, MOSQUITTOS, Bound::AtLeast(2.0))],
    },
    Row {
        name: "1 connection, window 16",
        task: Task::Publish { connections: 1, window: 16, rate: None },
        servers: &[Kind::HubMemory, Kind::Mosquitto, Kind::MosquittoNoDelay],
        targets: &[
            beside(Figure::Rate, Kind::HubMemory, MOSQUITTOS, Bound::AtLeast(0.9)),
            beside(Figure::Cpu, Kind::HubMemory, MOSQUITTOS, Bound::AtMost(0.6)),
        ],
    },
    Row {
        name: "1,000 connections, window 1",
        task: Task::Publish { connections: 1000, window: 1, rate: None },
        servers: &[Kind::HubMemory, Kind::Mosquitto, Kind::MosquittoNoDelay],
        targets: &[beside(Figure::Rate, Kind::HubMemory, MOSQUITTOS, Bound::AtLeast(1.15))],
    },
    Row {
        name: "20,000 messages/s, 100 connections",
        task: Task::Publish { connections: 100, window: 16, rate: Some(20_000) },
        servers: &[Kind::HubMemory, Kind::MosquittoNoDelay],
        targets: &[
            beside(Figure::Cpu, Kind::HubMemory, &[Kind::MosquittoNoDelay], Bound::AtMost(1.0)),
            beside(Figure::P50, Kind::HubMemory, &[Kind::MosquittoNoDelay], Bound::AtMost(1.0)),
        ],
    },
    Row {
        name: "TLS connects",
        task: Task::Connect { count: 2000 },
        servers: &[Kind::HubMemory, Kind::MosquittoNoDelay],
        targets: &[beside(Figure::Cpu, Kind::HubMemory, &[Kind::MosquittoNoDelay], Bound::AtMost(0.6))],
    },
    Row {
        name: "10,000 idle TLS connections",
        task: Task::Idle { connections: 10_000 },
        servers: &[Kind::HubMemory, Kind::MosquittoNoDelay],
        targets: &[beside(Figure::Memory, Kind::HubMemory, &[], Bound::AtMost(12.5))],
    },
    Row {
        name: "1,000,000 idle device records",
        task: Task::Records { count: 1_000_000 },
        servers: &[Kind::HubMemory, Kind::HubDisk],
        targets: &[
            beside(Figure::Memory, Kind::HubMemory, &[], Bound::AtMost(1.0)),
            beside(Figure::Memory, Kind::HubDisk, &[], Bound::AtMost(1.0)),
        ],
    },
    Row {
        name: "one AMQP reader of what is stored",
        task: Task::Events { tls: false },
        servers: &[Kind::HubMemory, Kind::HubDisk, Kind::RabbitMq],
        targets: &[
            beside(Figure::Rate, Kind::HubMemory, &[], Bound::AtLeast(400_000.0)),
            beside(Figure::RateOfIntake, Kind::HubMemory, &[], Bound::AtLeast(1.0)),
            beside(Figure::CpuOfIntake, Kind::HubMemory, &[], Bound::AtMost(1.0)),
            beside(Figure::Rate, Kind::HubMemory, &[Kind::RabbitMq], Bound::AtLeast(1.0)),
        ],
    },
    Row {
        name: "one AMQP reader of what is stored, over TLS",
        task: Task::Events { tls: true },
        servers: &[Kind::HubMemory, Kind::HubDisk],
        targets: &[
            beside(Figure::Rate, Kind::HubMemory, &[], Bound::AtLeast(400_000.0)),
            beside(Figure::Rate, Kind::HubDisk, &[], Bound::AtLeast(400_000.0)),
        ],
    },
];

/// What came of one turn; what the task does not have is not a number.
#[derive(Clone, Copy)]
struct Turn {
    rate: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
    memory: f64,
    /// How busy the load was, of one CPU.
    generator: f64,
    /// Rate and CPU time of reading, as multiples of those of taking in.
    of_intake: [f64; 2],
}

impl Turn {
    const NOTHING: Self = Self {
        rate: f64::NAN,
        cpu: f64::NAN,
        p50: f64::NAN,
        p99: f64::NAN,
        memory: f64::NAN,
        generator: f64::NAN,
        of_intake: [f64::NAN; 2],
    };

    const fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Rate => self.rate,
            Figure::Cpu => self.cpu,
            Figure::P50 => self.p50,
            Figure::Memory => self.memory,
            Figure::RateOfIntake => self.of_intake[0],
            Figure::CpuOfIntake => self.of_intake[1],
        }
    }
}

/// A row with what came of it: for each server, its turns by round.
pub(crate) struct Measured<'r> {
    row: &'r Row,
    turns: Vec<Vec<Turn>>,
}

/// Measures a row.
pub(crate) fn measure<'r>(row: &'r Row, place: &Place, setting: Setting) -> Result<Measured<'r>, Failure> {
    let mut turns = vec![Vec::new(); row.servers.len()];
    if row.task.is_done_once() {
        for (kind, turns) in row.servers.iter().zip(&mut turns) {
            let server = place.start(*kind)?;
            turns
                .push(turn(row.task, &server, setting).map_err(|error| format!("{}: {error}", kind.name()))?);
            server.stop()?;
        }
        return Ok(Measured { row, turns });
    }
    let servers: Vec<Server> = row.servers.iter().map(|kind| place.start(*kind)).collect::<Result<_, _>>()?;
    for round in 0..setting.rounds {
        for place in 0..servers.len() {
            let index = (round + place) % servers.len();
            let turn = turn(row.task, &servers[index], setting);
            turns[index].push(turn.map_err(|error| format!("{}: {error}", row.servers[index].name()))?);
        }
    }
    servers.into_iter().try_for_each(Server::stop)?;
    Ok(Measured { row, turns })
}

fn turn(task: Task, server: &Server, setting: Setting) -> Result<Turn, Failure> {
    let process = &server.process;
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let share = |cpu: Duration, elapsed: Duration| cpu.as_secs_f64() / elapsed.as_secs_f64();
    match task {
        Task::Publish { connections, window, rate } => {
            let plan =
                Publishing { payload: PAYLOAD, window, rate, warm_up: WARM_UP, duration: setting.turn };
            let published = publish(&server.peer, &server.clients(connections)?, &plan, Some(process))?;
            Ok(Turn {
                rate: published.rate(),
                cpu: published.server_ns().unwrap_or(f64::NAN) / 1e3,
                p50: micros(published.p50),
                p99: micros(published.p99),
                generator: share(published.generator_cpu, published.elapsed),
                ..Turn::NOTHING
            })
        }
        Task::Connect { count } => {
            let connected = connect(&server.peer, &server.clients(count)?, CONNECTING, count, Some(process))?;
            Ok(Turn {
                rate: connected.connects as f64 / connected.elapsed.as_secs_f64(),
                cpu: connected.server_cpu.map_or(f64::NAN, |cpu| micros(cpu) / connected.connects as f64),
                p50: micros(connected.p50),
                p99: micros(connected.p99),
                generator: share(connected.generator_cpu, connected.elapsed),
                ..Turn::NOTHING
            })
        }
        Task::Idle { connections } => {
            let idle = idle(&server.peer, &server.clients(connections)?, process)?;
            Ok(Turn { memory: idle.per_connection() / 1024.0, ..Turn::NOTHING })
        }
        Task::Records { count } => records(server, process, count),
        Task::Events { tls } => events(server, tls, setting),
    }
}

fn records(server: &Server, process: &Process, count: usize) -> Result<Turn, Failure> {
    process.wait_until_quiet()?;
    let before = process.resident()?;
    server.registry()?.register(count)?;
    process.wait_until_quiet()?;
    let bytes = process.resident()?.saturating_sub(before);
    Ok(Turn { memory: bytes as f64 / count as f64 / 1024.0, ..Turn::NOTHING })
}

/// Stores messages and reads them, some times over; the reading with the median rate counts.
fn events(server: &Server, tls: bool, setting: Setting) -> Result<Turn, Failure> {
    let process = &server.process;
    let source = server.events.get(usize::from(tls)).ok_or("it has no such port of AMQP")?;
    let intake = match server.registry() {
        Ok(_) => {
            let plan = Publishing {
                payload: PAYLOAD,
                window: 16,
                rate: None,
                warm_up: WARM_UP,
                duration: setting.turn,
            };
            Some(publish(&server.peer, &server.clients(1000)?, &plan, Some(process))?)
        }
        Err(_) => None,
    };
    let mut turns = Vec::new();
    for _ in 0..setting.rounds {
        let events = match intake {
            Some(_) => server.registry()?.telemetry()?,
            None => {
                source.fill(&[b'x'; PAYLOAD], PEER_EVENTS)?;
                PEER_EVENTS
            }
        };
        let read = read_events(source, events, process)?;
        let rate = read.events as f64 / read.elapsed.as_secs_f64();
        let cpu = read.server_cpu.as_secs_f64() * 1e6 / read.events as f64;
        let of_intake = intake.map_or([f64::NAN; 2], |intake| {
            [rate / intake.rate(), cpu * 1e3 / intake.server_ns().unwrap_or(f64::NAN)]
        });
        let generator = read.reader_cpu.as_secs_f64() / read.elapsed.as_secs_f64();
        turns.push(Turn { rate, cpu, generator, of_intake, ..Turn::NOTHING });
    }
    turns.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    turns.get(turns.len() / 2).copied().ok_or_else(|| "there was no round".into())
}

impl Measured<'_> {
    /// The row's targets as rows of a table.
    pub(crate) fn verdicts(&self) -> String {
        self.row.targets.iter().map(|target| self.verdict(target)).collect()
    }

    fn verdict(&self, target: &Target) -> String {
        let figures = |kind| self.turns_of(kind).iter().map(|turn| turn.figure(target.figure));
        let peers: Vec<Vec<f64>> = target.beside.iter().map(|kind| figures(*kind).collect()).collect();
        let better =
            if matches!(target.figure, Figure::Rate | Figure::RateOfIntake) { f64::max } else { f64::min };
        let of_round = |(round, own): (usize, f64)| match peers.iter().map(|peer| peer[round]).reduce(better)
        {
            Some(best) => own / best,
            None => own,
        };
        let measured = median(figures(target.of).enumerate().map(of_round));
        let met = match target.bound {
            Bound::AtLeast(bound) => measured >= bound,
            Bound::AtMost(bound) => measured <= bound,
        };
        let verdict = if met { "met" } else { "missed" };
        format!("| {} | {target} | {measured:.2} | {verdict} |\n", self.row.name)
    }

    fn turns_of(&self, kind: Kind) -> &[Turn] {
        let index = self.row.servers.iter().position(|server| *server == kind);
        index.and_then(|index| self.turns.get(index)).map_or(&[], Vec::as_slice)
    }
}

/// The medians of each server's turns.
impl fmt::Display for Measured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", self.row.name)?;
        writeln!(
            f,
            "| server | per second | CPU each, µs | p50, µs | p99, µs | memory each, KiB | load busy, % |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
        for (kind, turns) in self.row.servers.iter().zip(&self.turns) {
            write!(f, "| {} |", kind.name())?;
            let column = |figure: fn(&Turn) -> f64| median(turns.iter().map(figure));
            let columns = [
                (column(|turn| turn.rate), 0),
                (column(|turn| turn.cpu), 2),
                (column(|turn| turn.p50), 1),
                (column(|turn| turn.p99), 0),
                (column(|turn| turn.memory), 2),
                (column(|turn| turn.generator * 100.0), 0),
            ];
            for (median, digits) in columns {
                if median.is_nan() { write!(f, " – |")? } else { write!(f, " {median:.digits$} |")? }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
