//! Metrics, each defined once (feature `metrics`).
//!
//! All metrics go through the [`metrics`](https://docs.rs/metrics) facade, to the recorder that the program has
//! installed. There are few labels: `pool`, `fn` (a function's name), `outcome`, `operation`; never an id, an argument
//! or a message. Counters and histograms are collected per group of messages or turn, so that a job costs almost
//! nothing.
//!
//! | metric | kind | labels | what |
//! |---|---|---|---|
//! | `workpool_enqueued_total` | counter | `pool` `fn` | jobs that were enqueued; duplicates are not |
//! | `workpool_duplicates_total` | counter | `pool` `fn` | enqueues that found a job of their id, or one that holds their unique key |
//! | `workpool_completed_total` | counter | `pool` `fn` `outcome` | jobs with an outcome: `success` `failed` `canceled` |
//! | `workpool_attempts_total` | counter | `pool` `fn` `outcome` | attempts that reported: `success` `failed` `canceled` `snoozed` `returned` |
//! | `workpool_retries_total` | counter | `pool` `fn` | failed attempts that another one was to follow |
//! | `workpool_on_complete_failures_total` | counter | `pool` `fn` | runs of an `on_complete` that failed and became a job of its own; `fn` is the name of the `on_complete` |
//! | `workpool_recovered_total` | counter | `pool` | attempts that were found without a worker, as after a crash |
//! | `workpool_fenced_total` | counter | `pool` | turns refused because a newer generation owns the pool |
//! | `workpool_stale_reports_total` | counter | | reports of runs that do not count any more |
//! | `workpool_blocked_threads_total` | counter | `fn` | pieces of an action's code that kept their thread for 200 ms or more |
//! | `workpool_running` | gauge | `pool` | attempts that occupy a slot |
//! | `workpool_pending` | gauge | `pool` | jobs without an outcome, those that run included |
//! | `workpool_max_parallelism` | gauge | `pool` | how many attempts may run; 0 while the pool is paused |
//! | `workpool_oldest_pending_age_seconds` | gauge | `pool` | for how long the first job that waits for a slot has been due |
//! | `workpool_queue_duration_seconds` | histogram | `pool` `fn` | from due to started |
//! | `workpool_process_duration_seconds` | histogram | `pool` `fn` `outcome` | how long an attempt occupied its slot |
//! | `workpool_loop_iteration_seconds` | histogram | `pool` | one turn of a pool's loop: deciding and launching |
//! | `workpool_store_operation_seconds` | histogram | `operation` | one call of the storage |
//! | `workpool_store_errors_total` | counter | `operation` | calls of the storage that failed |
//!
//! Gauges are written with each turn, and every 5 s while there are jobs.

pub(crate) use inner::*;

/// Describes all metrics to the installed recorder. A runtime does this when it starts; call this for a recorder that
/// is installed later.
#[cfg(feature = "metrics")]
pub fn describe() {
    use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    for (name, text) in COUNTERS {
        describe_counter!(*name, Unit::Count, *text);
    }
    for (name, unit, text) in GAUGES {
        describe_gauge!(*name, *unit, *text);
    }
    for (name, text) in HISTOGRAMS {
        describe_histogram!(*name, Unit::Seconds, *text);
    }
}

#[cfg(feature = "metrics")]
use names::*;

#[cfg(feature = "metrics")]
mod names {
    use ::metrics::Unit;

    pub const ENQUEUED: &str = "workpool_enqueued_total";
    pub const DUPLICATES: &str = "workpool_duplicates_total";
    pub const COMPLETED: &str = "workpool_completed_total";
    pub const ATTEMPTS: &str = "workpool_attempts_total";
    pub const RETRIES: &str = "workpool_retries_total";
    pub const ON_COMPLETE_FAILURES: &str = "workpool_on_complete_failures_total";
    pub const RECOVERED: &str = "workpool_recovered_total";
    pub const FENCED: &str = "workpool_fenced_total";
    pub const STALE_REPORTS: &str = "workpool_stale_reports_total";
    pub const BLOCKED_THREADS: &str = "workpool_blocked_threads_total";
    pub const STORE_ERRORS: &str = "workpool_store_errors_total";
    pub const RUNNING: &str = "workpool_running";
    pub const PENDING: &str = "workpool_pending";
    pub const MAX_PARALLELISM: &str = "workpool_max_parallelism";
    pub const OLDEST_PENDING_AGE: &str = "workpool_oldest_pending_age_seconds";
    pub const QUEUE_DURATION: &str = "workpool_queue_duration_seconds";
    pub const PROCESS_DURATION: &str = "workpool_process_duration_seconds";
    pub const LOOP_ITERATION: &str = "workpool_loop_iteration_seconds";
    pub const STORE_OPERATION: &str = "workpool_store_operation_seconds";
    pub const RATE_LIMITED: &str = "workpool_rate_limited_total";
    pub const SCHEDULE_LAG: &str = "workpool_schedule_lag_seconds";

    pub const COUNTERS: &[(&str, &str)] = &[
        (ENQUEUED, "Jobs that were enqueued."),
        (DUPLICATES, "Enqueues that found a job of their id, or one that holds their unique key."),
        (COMPLETED, "Jobs with an outcome."),
        (ATTEMPTS, "Attempts that reported, by what came of them."),
        (RETRIES, "Failed attempts that another one was to follow."),
        (ON_COMPLETE_FAILURES, "Runs of an on_complete that failed and became a job of its own."),
        (RECOVERED, "Attempts that were found without a worker."),
        (FENCED, "Turns refused because a newer generation owns the pool."),
        (STALE_REPORTS, "Reports of runs that do not count any more."),
        (BLOCKED_THREADS, "Pieces of an action's code that kept their thread for 200 ms or more."),
        (STORE_ERRORS, "Calls of the storage that failed."),
        (RATE_LIMITED, "Times that a pool had to wait for its rate, or began to rest."),
    ];

    pub const GAUGES: &[(&str, Unit, &str)] = &[
        (RUNNING, Unit::Count, "Attempts that occupy a slot."),
        (PENDING, Unit::Count, "Jobs without an outcome, those that run included."),
        (MAX_PARALLELISM, Unit::Count, "How many attempts may run; 0 while the pool is paused."),
        (
            OLDEST_PENDING_AGE,
            Unit::Seconds,
            "For how long the first job that waits for a slot has been due.",
        ),
    ];

    pub const HISTOGRAMS: &[(&str, &str)] = &[
        (QUEUE_DURATION, "From due to started."),
        (PROCESS_DURATION, "How long an attempt occupied its slot."),
        (LOOP_ITERATION, "One turn of a pool's loop: deciding and launching."),
        (STORE_OPERATION, "One call of the storage."),
        (SCHEDULE_LAG, "From the time of a schedule to the enqueue of its job."),
    ];
}

#[cfg(feature = "metrics")]
mod inner {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use ::metrics::{Histogram, counter, gauge, histogram};

    use super::names::*;
    use crate::engine::Launch;
    use crate::model::{Name, RunResult, Segment, Spec};
    use crate::protocol::Event;
    use crate::shared::{PoolShared, Shared};
    use crate::storage::{Hook, Storage, StorageError};
    use crate::store::{OUTCOMES, Tally, outcome_of};

    /// Records a committed group and updates the counts of the pools.
    pub(crate) fn tell(tally: &Tally, shared: &Shared) {
        let mut told: Option<Arc<PoolShared>> = None;
        for line in tally.lines() {
            let pool = match told.take().filter(|pool| pool.id == line.pool) {
                Some(pool) => pool,
                None => {
                    let Some(pool) = shared.pool_by_id(line.pool) else { continue };
                    gauge!(PENDING, "pool" => pool.name.as_str()).set(pool.pending() as f64);
                    pool
                }
            };
            let labels = [("pool", pool.name.as_str()), ("fn", line.function.as_str())];
            for (name, count) in
                [(ENQUEUED, line.enqueued), (DUPLICATES, line.duplicates), (RETRIES, line.retries)]
            {
                if count > 0 {
                    counter!(name, &labels).increment(count);
                }
            }
            for (name, counts) in [(COMPLETED, line.completed), (ATTEMPTS, line.attempts)] {
                for (outcome, count) in OUTCOMES.iter().zip(counts) {
                    if count > 0 {
                        let labels = [labels[0], labels[1], ("outcome", *outcome)];
                        counter!(name, &labels).increment(count);
                    }
                }
            }
            told = Some(pool);
        }
    }

    pub(crate) fn store_event(shared: &Shared, event: &Event) {
        match event {
            Event::OnCompleteFailed { pool, name, .. } => {
                if let Some(pool) = shared.pool_by_id(*pool) {
                    let labels = [("pool", pool.name.as_str()), ("fn", name.as_str())];
                    counter!(ON_COMPLETE_FAILURES, &labels).increment(1);
                }
            }
            Event::Stale { .. } => counter!(STALE_REPORTS).increment(1),
            _ => {}
        }
    }

    pub(crate) fn recovered(pool: &PoolShared, attempts: usize) {
        counter!(RECOVERED, "pool" => pool.name.as_str()).increment(attempts as u64);
    }

    pub(crate) fn fenced(pool: &PoolShared) {
        counter!(FENCED, "pool" => pool.name.as_str()).increment(1);
    }

    pub(crate) fn rate_limited(pool: &PoolShared) {
        counter!(RATE_LIMITED, "pool" => pool.name.as_str()).increment(1);
    }

    pub(crate) fn scheduled(schedule: Name, lag: Duration) {
        histogram!(SCHEDULE_LAG, "schedule" => schedule.as_str()).record(lag);
    }

    /// Records how long each launch has waited.
    pub(crate) fn launched(pool: &PoolShared, launches: &[Launch], now: Segment) {
        let mut last: Option<(Name, Histogram)> = None;
        for launch in launches {
            let function = launch.spec.function;
            let (function, histogram) = match last.take() {
                Some(same) if same.0 == function => same,
                _ => {
                    let labels = [("pool", pool.name.as_str()), ("fn", function.as_str())];
                    (function, histogram!(QUEUE_DURATION, &labels))
                }
            };
            histogram.record(now.since(launch.due));
            last = Some((function, histogram));
        }
    }

    /// Records how long attempts have occupied their slots.
    pub(crate) struct Ended(Option<(Name, usize, Histogram)>);

    impl Ended {
        pub fn new() -> Ended {
            Ended(None)
        }

        pub fn add(&mut self, pool: &PoolShared, spec: &Spec, result: &RunResult, took: Duration) {
            let (function, outcome) = (spec.function, outcome_of(result));
            let is_it = |last: &(Name, usize, Histogram)| last.0 == function && last.1 == outcome;
            if !self.0.as_ref().is_some_and(is_it) {
                let labels = [
                    ("pool", pool.name.as_str()),
                    ("fn", function.as_str()),
                    ("outcome", OUTCOMES[outcome]),
                ];
                self.0 = Some((function, outcome, histogram!(PROCESS_DURATION, &labels)));
            }
            if let Some((.., histogram)) = &self.0 {
                histogram.record(took);
            }
        }
    }

    /// Measures a duration.
    pub(crate) struct Stopwatch(Instant);

    impl Stopwatch {
        pub fn start() -> Stopwatch {
            Stopwatch(Instant::now())
        }

        /// Records the loop's part of a turn.
        pub fn iteration(self, pool: &PoolShared) {
            histogram!(LOOP_ITERATION, "pool" => pool.name.as_str()).record(self.0.elapsed());
        }
    }

    /// Records the state of a pool after a turn. `next_due` is the time at which the first remaining job is or was due.
    pub(crate) fn turn(
        pool: &PoolShared,
        slots: usize,
        running: usize,
        next_due: Option<Segment>,
        now: Segment,
    ) {
        let name = pool.name.as_str();
        let age = next_due.map_or(Duration::ZERO, |due| now.since(due));
        gauge!(RUNNING, "pool" => name).set(running as f64);
        gauge!(PENDING, "pool" => name).set(pool.pending() as f64);
        gauge!(MAX_PARALLELISM, "pool" => name).set(slots as f64);
        gauge!(OLDEST_PENDING_AGE, "pool" => name).set(age);
    }

    /// Records an action that blocks its thread.
    pub(crate) fn blocked_thread(function: Name) {
        counter!(BLOCKED_THREADS, "fn" => function.as_str()).increment(1);
    }

    /// Wraps a storage to measure it.
    pub(crate) fn metered(storage: Box<dyn Storage>) -> Box<dyn Storage> {
        Box::new(Metered(storage))
    }

    struct Metered(Box<dyn Storage>);

    impl Hook for Metered {
        fn may_block(&self) -> bool {
            self.0.may_block()
        }

        fn is_costly(&self) -> bool {
            self.0.is_costly()
        }

        fn call<T: 'static>(
            &mut self,
            operation: &'static str,
            call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
        ) -> Result<T, StorageError> {
            let begun = Instant::now();
            let answer = call(&mut *self.0);
            histogram!(STORE_OPERATION, "operation" => operation).record(begun.elapsed());
            if answer.is_err() {
                counter!(STORE_ERRORS, "operation" => operation).increment(1);
            }
            answer
        }

        fn close(&mut self) {
            self.0.close();
        }
    }
}

/// Does nothing: the feature is disabled.
#[cfg(not(feature = "metrics"))]
mod inner {
    use std::time::Duration;

    use crate::engine::Launch;
    use crate::model::{Name, RunResult, Segment, Spec};
    use crate::protocol::Event;
    use crate::shared::{PoolShared, Shared};
    use crate::storage::Storage;
    use crate::store::Tally;

    #[inline(always)]
    pub(crate) fn describe() {}
    #[inline(always)]
    pub(crate) fn tell(_: &Tally, _: &Shared) {}
    #[inline(always)]
    pub(crate) fn store_event(_: &Shared, _: &Event) {}
    #[inline(always)]
    pub(crate) fn recovered(_: &PoolShared, _: usize) {}
    #[inline(always)]
    pub(crate) fn fenced(_: &PoolShared) {}
    #[inline(always)]
    pub(crate) fn rate_limited(_: &PoolShared) {}
    #[inline(always)]
    pub(crate) fn scheduled(_: Name, _: Duration) {}
    #[inline(always)]
    pub(crate) fn launched(_: &PoolShared, _: &[Launch], _: Segment) {}
    #[inline(always)]
    pub(crate) fn turn(_: &PoolShared, _: usize, _: usize, _: Option<Segment>, _: Segment) {}
    #[inline(always)]
    pub(crate) fn blocked_thread(_: Name) {}
    #[inline(always)]
    pub(crate) fn metered(storage: Box<dyn Storage>) -> Box<dyn Storage> {
        storage
    }

    pub(crate) struct Ended;

    impl Ended {
        #[inline(always)]
        pub fn new() -> Ended {
            Ended
        }
        #[inline(always)]
        pub fn add(&mut self, _: &PoolShared, _: &Spec, _: &RunResult, _: Duration) {}
    }

    pub(crate) struct Stopwatch;

    impl Stopwatch {
        #[inline(always)]
        pub fn start() -> Stopwatch {
            Stopwatch
        }
        #[inline(always)]
        pub fn iteration(self, _: &PoolShared) {}
    }
}
