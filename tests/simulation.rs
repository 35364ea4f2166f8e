//! Many seeds, each twice.

#[path = "simulation/mod.rs"]
mod simulation;

/// In a debug build everything takes ten times as long, and every assertion of the pool itself is checked as well.
const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 1_000 };

#[test]
fn no_seed_violates_an_invariant_and_each_goes_the_same_way_twice() {
    match simulation::run_many(0..SEEDS, true) {
        Ok(summary) => println!("{summary}"),
        Err(outcome) => panic!("seed {}: {}", outcome.seed, outcome.violation.unwrap()),
    }
}
