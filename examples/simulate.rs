//! Runs the simulation of `tests/sim/simulation` on many seeds.
//!
//! ```text
//! cargo run --release --features unstable-storage --example simulate -- --seeds 1000 [--seed FIRST] [--trace] [--twice]
//!     [--store memory|file]
//! ```
//!
//! Prints what was simulated, and the seed and the violated invariant if there is one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

#[path = "../tests/sim/simulation/mod.rs"]
mod simulation;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Store {
    Memory,
    File,
}

#[derive(Parser)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them; random if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Run each seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Stop after so many seconds, however many seeds are left.
    #[arg(long)]
    seconds: Option<u64>,
    /// What to keep the rows in; each seed draws it if not given.
    #[arg(long)]
    store: Option<Store>,
    /// Measure the speed on a small configuration.
    #[arg(long)]
    speed: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let first = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let store = options.store.map(|store| match store {
        Store::Memory => simulation::Store::Memory,
        Store::File => simulation::Store::File,
    });
    println!("seeds {first} and on");
    let begun = Instant::now();
    let seconds = options.seconds.map(Duration::from_secs);
    let in_time = |_: &u64| seconds.is_none_or(|seconds| begun.elapsed() < seconds);
    let seeds = (first..).take(options.seeds as usize).take_while(in_time);
    if options.trace {
        for seed in seeds {
            let outcome = simulation::run_on(seed, store, true);
            println!("{outcome:?}");
            if outcome.violation.is_some() {
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    if options.speed {
        let mut summary = simulation::Summary::default();
        for seed in seeds {
            summary.add(&simulation::run_small(seed));
        }
        summary.took = begun.elapsed();
        println!("{summary}");
        return ExitCode::SUCCESS;
    }
    match simulation::run_many(seeds, store, options.twice) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(outcome) => {
            let violation = outcome.violation.unwrap_or_default();
            println!("seed {}: {violation}", outcome.seed);
            let store = options.store.map(|store| format!(" --store {store:?}").to_lowercase());
            println!(
                "again: cargo run --release --features unstable-storage --example simulate -- --seed {} --trace{}",
                outcome.seed,
                store.unwrap_or_default()
            );
            ExitCode::FAILURE
        }
    }
}
