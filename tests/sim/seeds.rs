//! Many seeds, each twice.

/// In a debug build everything takes ten times as long, and every assertion of the pool itself is checked as well.
const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 1_000 };

#[test]
fn no_seed_violates_an_invariant_and_each_goes_the_same_way_twice() {
    match crate::simulation::run_many(0..SEEDS, None, true) {
        Ok(summary) => println!("{summary}"),
        Err(outcome) => panic!("seed {}: {}", outcome.seed, outcome.violation.unwrap()),
    }
}

/// Seeds that once found something, each with what that was.
const REGRESSIONS: [u64; 5] = [
    90,              // a change of the configuration was committed and answered as failed
    348,             // a loop that claimed its pool again spun on a timer that was due
    10605, // a launch that followed a batch that could not be read had no timer for its timeout
    2310080921434, // of the checker: a timeout in a shutdown counted, and the crash after it as well
    229943396321577, // a kick passed the answer to a turn that had failed, and was taken for its receipt
];

#[test]
fn seeds_that_once_found_something_find_nothing() {
    for seed in REGRESSIONS {
        for store in [crate::simulation::Store::Memory, crate::simulation::Store::File] {
            let outcome = crate::simulation::run_on(seed, Some(store), false);
            assert_eq!(outcome.violation, None, "seed {seed}, {store:?}");
        }
    }
}
