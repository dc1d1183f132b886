//! Runs the World from seeds: `cargo run -p devicebound-tests --example world -- --seed 7 --trace`
//!
//! With `--seed` it runs that one; otherwise one seed after another, for `--seconds`, or without end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use devicebound_tests::world::{Failure, Marks, Run};

const USAGE: &str = "usage: world [--seed N] [--steps N] [--devices N] [--trace]
       world --from N [--seconds N] [--seeds N] [--steps N] [--devices N]

  --seed N      run this seed
  --from N      run this seed and those after it, without end or as far as the next two say
  --seconds N   for so long
  --seeds N     so many, and as many more as --seconds leaves time for
  --steps N     steps before the faults stop, 1 to 1000000; 200 where it is not given
  --devices N   devices, 1 to 10000; drawn from 1 to 5 where it is not given
  --trace       print all that happens, in the words of the dialect";

#[derive(Debug, Default)]
struct Arguments {
    seed: Option<u64>,
    from: Option<u64>,
    seconds: Option<u64>,
    seeds: Option<u64>,
    steps: Option<u64>,
    devices: Option<u64>,
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match arguments.from {
        Some(from) => many(&arguments, from),
        None => one(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let shrunk = failure.shrunk();
            println!("\n{failure}\n\nwhat is left of it when all is taken away that is not needed:");
            shrunk.lines.iter().for_each(|line| println!("{line}"));
            println!("{}", shrunk.breach);
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            let (number, most) = match word.as_str() {
                "--trace" => {
                    arguments.trace = true;
                    continue;
                }
                "--seed" => (&mut arguments.seed, u64::MAX),
                "--from" => (&mut arguments.from, u64::MAX),
                "--seconds" => (&mut arguments.seconds, 1_000_000),
                "--seeds" => (&mut arguments.seeds, 1_000_000_000),
                "--steps" => (&mut arguments.steps, 1_000_000),
                "--devices" => (&mut arguments.devices, 10_000),
                _ => return Err(format!("there is no option {word}")),
            };
            let least = u64::from(most != u64::MAX);
            let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            let parsed = value.parse().ok().filter(|value| (least..=most).contains(value));
            *number = Some(
                parsed
                    .ok_or_else(|| format!("{word} takes a number from {least} to {most}, not {value:?}"))?,
            );
        }
        if arguments.seed.is_some() && arguments.from.is_some() {
            return Err("--seed runs one seed, --from many: take one of them".to_owned());
        }
        if arguments.trace && arguments.from.is_some() {
            return Err("--trace goes with --seed".to_owned());
        }
        if arguments.from.is_none() && (arguments.seconds.is_some() || arguments.seeds.is_some()) {
            return Err("--seconds and --seeds go with --from".to_owned());
        }
        Ok(arguments)
    }

    fn run(&self, seed: u64) -> Run {
        let mut run = Run::new(seed);
        run.devices = self.devices.and_then(|devices| usize::try_from(devices).ok());
        run.steps = self.steps.and_then(|steps| u32::try_from(steps).ok()).unwrap_or(run.steps);
        run
    }
}

fn one(arguments: &Arguments) -> Result<(), Box<Failure>> {
    let run = arguments.run(arguments.seed.unwrap_or(1));
    println!("seed {}: {} steps, {}", run.seed, run.steps, run.options());
    let summary = if arguments.trace { run.go_aloud(|line| println!("{line}"))? } else { run.go()? };
    println!("{}trace hash {:016x}, {:?} simulated", summary.marks, summary.hash, summary.elapsed);
    Ok(())
}

/// A run prints how often each fault and each rule was reached.
fn many(arguments: &Arguments, from: u64) -> Result<(), Box<Failure>> {
    let start = Instant::now();
    let (mut marks, mut simulated, mut count) = (Marks::default(), Duration::ZERO, 0_u64);
    let time = arguments.seconds.map(Duration::from_secs);
    for seed in from.. {
        let enough = arguments.seeds.is_none_or(|seeds| count >= seeds);
        let over = match (time, arguments.seeds) {
            (Some(time), _) => start.elapsed() >= time,
            (None, seeds) => seeds.is_some(),
        };
        if enough && over {
            break;
        }
        let summary = arguments.run(seed).go()?;
        marks.add(&summary.marks);
        simulated += summary.elapsed;
        count += 1;
        if count.is_multiple_of(10_000) {
            println!("{count} seeds up to {seed}");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    print!("{marks}");
    println!(
        "{count} seeds from {from} in {seconds:.1} s: {:.0} seeds a second, {:.0} simulated seconds a second",
        count as f64 / seconds,
        simulated.as_secs_f64() / seconds
    );
    Ok(())
}
