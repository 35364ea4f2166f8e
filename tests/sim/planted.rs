//! Every bug that is planted is found, and in how many seeds.

use actix_workpool::testing::planted::{Bug, plant};

/// At most so many seeds are needed to find one.
const SEEDS: u64 = 2_000;

#[test]
#[cfg_attr(debug_assertions, ignore = "takes long in a debug build: run with --release")]
fn each_planted_bug_is_found() {
    let mut missed = Vec::new();
    println!("| planted bug | what it does | seeds | found as |\n|---|---|---|---|");
    for bug in Bug::ALL {
        plant(Some(*bug));
        let found = (0..SEEDS)
            .find_map(|seed| Some((seed, crate::simulation::run(seed, false).violation?)));
        plant(None);
        match found {
            Some((seed, violation)) => {
                let violation: String = violation.chars().take(90).collect();
                println!("| `{bug:?}` | {} | {} | {violation} |", bug.what(), seed + 1);
            }
            None => {
                println!("| `{bug:?}` | {} | not found | |", bug.what());
                missed.push(*bug);
            }
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
