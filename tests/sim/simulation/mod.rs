//! A simulation: the real actors, engine and store on one thread, under paused time, with everything that they take
//! from outside drawn from one seed: the configuration, what callers do, what functions do, and what goes wrong.
//!
//! ```text
//!   seed ─► plan ──► life 1 ──► crash ──► life 2 ──► shutdown ──► … ──► last life
//!                     │ clients, functions, faults                       faults stop, everything drains
//!                     ▼                                                    │
//!                   world: what callers and functions saw ◄────────────────┘ ──► history: is that allowed?
//! ```
//!
//! Nothing here asks the pool whether it is right. The world holds what callers were told and what functions saw; the
//! history judges that, and what is in the tables in the end.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what a seed draws before it begins |
//! | `world.rs` | time, chance, the trace, and every job as its callers and functions know it |
//! | `history.rs` | the invariants |
//! | `tables.rs` | the storage: its faults, and what a crash leaves of it |
//! | `functions.rs` | what runs in the pool |
//! | `clients.rs` | what callers do |
//! | `unique.rs` | unique jobs: callers, function and invariants |
//! | `life.rs` | one life of the process, from its start to its end |
#![allow(dead_code)] // Each of those who include it uses a part of it.

mod clients;
mod functions;
mod history;
mod keys;
mod life;
mod plan;
mod tables;
mod unique;
mod world;

use std::time::{Duration, Instant};

pub use plan::Store;

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Of everything that happened, in order.
    pub trace: u64,
    /// The first invariant that was violated.
    pub violation: Option<String>,
    /// Simulated minutes, times pools.
    pub pool_minutes: f64,
    pub works: usize,
    pub attempts: usize,
    pub lives: u32,
    pub crashes: u32,
    pub faults: u64,
}

/// Runs one seed.
pub fn run(seed: u64, print: bool) -> Outcome {
    run_on(seed, None, print)
}

/// Runs one seed on a given store, if one is given.
pub fn run_on(seed: u64, store: Option<Store>, print: bool) -> Outcome {
    life::quiet_panics();
    let mut plan = plan::Plan::draw(seed);
    plan.store = store.unwrap_or(plan.store);
    run_plan(seed, plan, print)
}

/// Runs one seed of a small configuration: one pool, a caller, no faults but crashes. For measuring speed.
pub fn run_small(seed: u64) -> Outcome {
    life::quiet_panics();
    run_plan(seed, plan::Plan::small(seed), false)
}

fn run_plan(seed: u64, plan: plan::Plan, print: bool) -> Outcome {
    world::begin(seed, plan, print);
    tables::begin();
    life::all();
    // A panic, such as of tables that cannot be opened any more, is noted as a violation.
    let _ = std::panic::catch_unwind(history::judge);
    world::end()
}

/// Runs seeds one after the other, each twice if `twice`, and sums up. Stops at the first violation.
pub fn run_many(
    seeds: impl Iterator<Item = u64>,
    store: Option<Store>,
    twice: bool,
) -> Result<Summary, Outcome> {
    let mut summary = Summary::default();
    let begun = Instant::now();
    for seed in seeds {
        let mut outcome = run_on(seed, store, false);
        if twice && outcome.violation.is_none() {
            let again = run_on(seed, store, false);
            if again.trace != outcome.trace {
                let (first, second) = (outcome.trace, again.trace);
                outcome.violation = Some(format!("two runs differ: {first:x} and {second:x}"));
            }
        }
        if outcome.violation.is_some() {
            return Err(outcome);
        }
        summary.add(&outcome);
    }
    summary.took = begun.elapsed();
    Ok(summary)
}

/// What many seeds have come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub seeds: u64,
    pub pool_minutes: f64,
    pub works: usize,
    pub attempts: usize,
    pub lives: u64,
    pub crashes: u64,
    pub faults: u64,
    pub took: Duration,
}

impl Summary {
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.pool_minutes += outcome.pool_minutes;
        self.works += outcome.works;
        self.attempts += outcome.attempts;
        self.lives += u64::from(outcome.lives);
        self.crashes += u64::from(outcome.crashes);
        self.faults += outcome.faults;
    }

    pub fn pool_minutes_per_second(&self) -> f64 {
        self.pool_minutes / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { seeds, works, attempts, lives, crashes, faults, took, .. } = self;
        write!(
            f,
            "{seeds} seeds, {lives} lives, {crashes} crashes, {faults} storage faults, {works} jobs, \
             {attempts} attempts; {:.0} pool-minutes in {:.1} s, {:.0} per second",
            self.pool_minutes,
            took.as_secs_f64(),
            self.pool_minutes_per_second()
        )
    }
}
