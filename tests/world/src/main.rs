//! Runs the World from seeds: `cargo run -p devicebound-world -- --seed 7 --trace`
//!
//! With `--seed` it runs that one, with `--from` one seed after another; `--day` and `--storm` run fleets.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use devicebound_world::allocations::Counting;
use devicebound_world::{
    Breach, Command, Day, Failure, Footprint, Marks, Reached, Run, Storm, USAGE, every_history, read_input,
    replay,
};

#[global_allocator]
static COUNTING: Counting = Counting;

/// After so many seeds every mark was reached, or something in the World is broken.
const SEEDS_FOR_ALL_MARKS: u64 = 2000;
/// A run without end says so often how far it is.
const MILESTONE: u64 = 10_000;
/// Devices whose memory is measured.
const MEASURED: usize = 10_000;

/// Why the runner fails.
enum Trouble {
    Run(Box<Failure>),
    Other(String),
}

impl From<Box<Failure>> for Trouble {
    fn from(failure: Box<Failure>) -> Self {
        Self::Run(failure)
    }
}

impl From<Breach> for Trouble {
    fn from(breach: Breach) -> Self {
        Self::Other(breach.to_string())
    }
}

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::One { run, trace } => one(&run, trace),
        Command::Many { first, time, seeds } => many(&first, time, seeds),
        Command::Input(path) => input(&path),
        Command::Histories(depth) => histories(depth),
        Command::Day(day) => work(day),
        Command::Storm(storm) => weather(storm),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Other(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Err(Trouble::Run(failure)) => {
            let shrunk = failure.shrunk();
            println!("\n{failure}\n\nwhat is left of it when all is taken away that is not needed:");
            shrunk.lines.iter().for_each(|line| println!("{line}"));
            println!("{}", shrunk.breach);
            ExitCode::FAILURE
        }
    }
}

fn one(run: &Run, trace: bool) -> Result<(), Trouble> {
    println!("seed {}: {} steps, {}", run.seed, run.steps, run.options());
    let summary = if trace { run.go_aloud(|line| println!("{line}"))? } else { run.go()? };
    println!("{}{}", summary.marks, Reached(&summary.marks));
    println!("trace hash {:016x}, {:?} simulated", summary.hash, summary.elapsed);
    Ok(())
}

/// What many runs have shown.
#[derive(Default)]
struct Tally {
    count: u64,
    marks: Marks,
    simulated: Duration,
    longest_rest: Duration,
}

fn many(first: &Run, time: Option<Duration>, seeds: Option<u64>) -> Result<(), Trouble> {
    let start = Instant::now();
    let mut tally = Tally::default();
    println!("seeds from {} on", first.seed);
    for seed in first.seed.. {
        let enough = seeds.is_none_or(|seeds| tally.count >= seeds);
        let over = match (time, seeds) {
            (Some(time), _) => start.elapsed() >= time,
            (None, seeds) => seeds.is_some(),
        };
        if enough && over {
            break;
        }
        let summary = Run { seed, ..first.clone() }.go()?;
        tally.count += 1;
        tally.marks.add(&summary.marks);
        tally.simulated += summary.elapsed;
        tally.longest_rest = tally.longest_rest.max(summary.rest);
        if tally.count.is_multiple_of(MILESTONE) {
            println!("{} seeds up to {seed}", tally.count);
            all_reached(&tally)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    print!("{}{}", tally.marks, Reached(&tally.marks));
    println!("longest time to rest: {:?}", tally.longest_rest);
    println!(
        "{} seeds from {} in {seconds:.1} s: {:.0} seeds a second, {:.0} simulated seconds a second",
        tally.count,
        first.seed,
        tally.count as f64 / seconds,
        tally.simulated.as_secs_f64() / seconds
    );
    all_reached(&tally)
}

/// A fault or a rule that many runs have not reached is one that they have not shown.
fn all_reached(tally: &Tally) -> Result<(), Trouble> {
    let missing = tally.marks.missing();
    if tally.count < SEEDS_FOR_ALL_MARKS || missing.is_empty() {
        return Ok(());
    }
    Err(Trouble::Other(format!("{} seeds did not reach: {}", tally.count, missing.join("; "))))
}

fn input(path: &Path) -> Result<(), Trouble> {
    let bytes = read_input(path).map_err(|error| Trouble::Other(error.to_string()))?;
    replay(&bytes, |line| println!("{line}"))?;
    println!("{} bytes, and nothing that cannot be", bytes.len());
    Ok(())
}

fn histories(depth: u32) -> Result<(), Trouble> {
    let start = Instant::now();
    let count =
        every_history(depth).map_err(|(history, breach)| Trouble::Other(format!("{history:?}: {breach}")))?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} histories of {depth} steps in {seconds:.1} s: all come to rest");
    Ok(())
}

fn work(day: Day) -> Result<(), Trouble> {
    println!("{}", Footprint::measure(MEASURED));
    println!("{} devices, {} hours", day.devices, day.hours);
    let start = Instant::now();
    println!("{}", day.run()?);
    println!("in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn weather(storm: Storm) -> Result<(), Trouble> {
    println!("{}", Footprint::measure(MEASURED));
    println!("{} devices, seed {}, the hub is away for {:?}", storm.devices, storm.seed, storm.outage);
    let start = Instant::now();
    println!("{}", storm.run()?);
    println!("in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
