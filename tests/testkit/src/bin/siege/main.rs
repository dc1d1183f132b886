//! `devicebound hub` under attack: rows A, B, C, E and F of a fault matrix, each measured on the real program.
//!
//! ```sh
//! cargo run -p devicebound-testkit --release --bin siege              # all rows, about ten minutes
//! cargo run -p devicebound-testkit --release --bin siege -- A1 B8     # these rows
//! cargo run -p devicebound-testkit --release --bin siege -- --short   # small numbers, less than two minutes
//! cargo run -p devicebound-testkit --release --bin siege -- --full    # what takes long at its full length
//! ```
//!
//! ```text
//!            one thread           the program, one for each row            a thread of its own
//!  attackers (tokio, TLS) ─────▶  devicebound hub ◀──── a probe: a device that behaves, on our own client,
//!                                  │  ▲                 and a back end that calls its method each second
//!        /proc/PID: memory, CPU, ◀─┘  └── the service API
//!        descriptors
//! ```
//!
//! Each row prints its figures beside its criteria and ends well only if it meets them all. Criteria are those of the
//! matrix. Those that are times hold for a machine that does nothing else; `--short`, which runs beside builds on two
//! cores, allows [`Scale::patience`] times as much.

mod a;
mod b;
mod c;
mod e;
mod f;
mod ground;
mod probe;
mod report;
mod wire;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use ground::Ground;
use report::Report;

/// Linux's folder in memory.
const MEMORY: &str = "/dev/shm";

/// What a row comes to: an error is a failure of the siege itself, a missed criterion stands in the report.
type Outcome<T = ()> = Result<T, Trouble>;

/// Why a row cannot be measured.
type Trouble = Box<dyn Error + Send + Sync>;

/// One row of the matrix.
struct Row {
    id: &'static str,
    fault: &'static str,
    run: fn(&Siege, &mut Report) -> Outcome,
    /// It mostly waits, and may do so beside others when time is short.
    waits: bool,
}

const ROWS: &[Row] = &[
    row("A1", "CONNECT a byte every 5 s", a::slow_connect).waiting(),
    row("A2", "nothing, part of a TLS handshake, nothing in TLS", a::silence).waiting(),
    row("A3", "first packets that announce 256 MiB", a::announced),
    row("A5", "wrong passwords without end", a::wrong_passwords),
    row("A6", "what is no CONNECT, two of them, garbage, TLS alerts, HTTP", a::no_connect),
    row("A7", "connections that are closed at once", a::closed_at_once),
    row("A4", "keep alive, then silence", a::keep_alive).waiting(),
    row("B1", "floods of QoS 0 and QoS 1, a reader of 100 messages a second", b::flood),
    row("B2", "floods of SUBSCRIBE", b::subscriptions),
    row("B3", "cloud messages that are never acknowledged", b::full_mailbox),
    row("B4", "all packet ids in flight, and round again", b::packet_ids),
    row("B5", "one packet id for everything, PUBACKs for strange ids", b::strange_ids),
    row("B6", "topics of 64 KiB", b::topics),
    row("B7", "JSON that blows up", b::documents),
    row("B8", "devices that stop reading", b::deaf).waiting(),
    row("B9", "PINGREQ floods, segments of 1 byte, segments of 2-byte packets", b::pings),
    row("B10", "method answers of others, twice, late, after a reconnect", b::method_answers),
    row("C3", "malformed packets on fresh connections", c::malformed),
    row("C4", "each invalid packet beside 100 devices", c::beside_others),
    row("E9", "two machines with one identity", e::takeovers),
    row("F1", "HTTPS: nothing, half a head, a head a byte every 5 s", f::slow_heads).waiting(),
    row("F2", "AMQP: nothing, half a header, SASL a byte every 5 s", f::slow_sasl).waiting(),
    row("F3", "AMQP: what is no AMQP, foreign tokens, wrong states", f::no_amqp),
    row("E10", "idle connections, some of which go silent", e::idle).waiting(),
];

const fn row(id: &'static str, fault: &'static str, run: fn(&Siege, &mut Report) -> Outcome) -> Row {
    Row { id, fault, run, waits: false }
}

impl Row {
    const fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }

    fn measure(&self, siege: &Siege) -> Report {
        let begun = Instant::now();
        let mut report = Report::new(self.id, self.fault);
        if let Err(error) = (self.run)(siege, &mut report) {
            report.check("the row could be run", error, "no error", false);
        }
        report.took(begun.elapsed());
        report
    }
}

#[derive(Parser)]
#[command(about = "Measures `devicebound hub` under attack")]
struct Arguments {
    /// Which rows, as `A1 B8`; all without any
    rows: Vec<String>,
    /// Small numbers: less than two minutes for all rows
    #[arg(long, conflicts_with = "full")]
    short: bool,
    /// What takes long at its full length
    #[arg(long)]
    full: bool,
    /// The program [default: the release build of this workspace, made first]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where state folders are made [default: in memory, where the system has a folder there: a probe would measure what
    /// else the disk has to do]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
}

/// How large the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Short,
    Usual,
    Full,
}

impl Scale {
    const fn pick<T: Copy>(self, short: T, usual: T, full: T) -> T {
        match self {
            Self::Short => short,
            Self::Usual => usual,
            Self::Full => full,
        }
    }

    /// So many times as long as the matrix says, a thing may take.
    const fn patience(self) -> u32 {
        self.pick(5, 1, 1)
    }
}

/// What all rows share.
struct Siege {
    scale: Scale,
    program: PathBuf,
    /// Where state folders are made.
    scratch: PathBuf,
}

impl Siege {
    fn ground(&self) -> Outcome<Ground> {
        self.ground_with(&[])
    }

    /// The same, with options of the program.
    fn ground_with(&self, options: &[&str]) -> Outcome<Ground> {
        Ground::start(&self.program, &self.scratch, options)
    }

    /// A bound on a time, for this machine.
    fn within(&self, bound: Duration) -> Duration {
        bound * self.scale.patience()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match besiege(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// True if all criteria were met.
fn besiege(arguments: &Arguments) -> Outcome<bool> {
    let rows = chosen(&arguments.rows)?;
    let (soft, _) = rlimit::Resource::NOFILE.get()?;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?.max(soft);
    let scale = match (arguments.short, arguments.full) {
        (true, _) => Scale::Short,
        (_, true) => Scale::Full,
        _ => Scale::Usual,
    };
    let folder = target_folder()?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => build(&folder)?,
    };
    println!("{} ({scale:?}, {descriptors} descriptors)", program.display());
    let in_memory = Some(PathBuf::from(MEMORY)).filter(|memory| memory.is_dir());
    let scratch = arguments.state.clone().or(in_memory).unwrap_or(folder);
    let siege = Siege { scale, program, scratch };
    Ok(measure(&siege, &rows))
}

/// Row by row; what mostly waits does so beside the others when time is short.
fn measure(siege: &Siege, rows: &[&Row]) -> bool {
    let (aside, inline): (Vec<&Row>, Vec<&Row>) =
        rows.iter().copied().partition(|row| siege.scale == Scale::Short && row.waits);
    let tell = |report: Report| {
        println!("{report}");
        report.is_good()
    };
    thread::scope(|scope| {
        let aside: Vec<_> = aside.iter().map(|row| scope.spawn(|| row.measure(siege))).collect();
        let mut good = true;
        for row in inline {
            good &= tell(row.measure(siege));
        }
        for row in aside {
            good &= row.join().is_ok_and(tell);
        }
        good
    })
}

fn chosen(names: &[String]) -> Outcome<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let row = |name: &String| {
        let found = ROWS.iter().find(|row| row.id.eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("there is no row {name}; rows are {}", ids()).into())
    };
    names.iter().map(row).collect()
}

fn ids() -> String {
    ROWS.iter().map(|row| row.id).collect::<Vec<_>>().join(" ")
}

/// The folder that cargo put this program into.
fn target_folder() -> Outcome<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.parent().ok_or("this program is in no folder of cargo's")?.to_owned())
}

/// The hub as its users build it, with the features that it has alone.
fn build(folder: &Path) -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "-p", "devicebound-hub", "--manifest-path", manifest]);
    if !command.status()?.success() {
        return Err("the hub could not be built".into());
    }
    let program = folder.with_file_name("release").join("devicebound");
    if !program.exists() {
        return Err(format!("{} was not built; name the program with --program", program.display()).into());
    }
    Ok(program)
}
