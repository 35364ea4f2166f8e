//! The tally: what a group does, counted for the metrics. Without the feature `metrics` nothing is counted.

#[cfg(feature = "metrics")]
pub(crate) use counted::*;
#[cfg(not(feature = "metrics"))]
pub(crate) use uncounted::*;

#[cfg(feature = "metrics")]
mod counted {
    use crate::model::{Change, Finished, Name, PoolId, Retry, RunResult};

    /// The outcomes of a job and of an attempt, as labels.
    pub(crate) const OUTCOMES: [&str; 5] = ["success", "failed", "canceled", "snoozed", "returned"];

    pub(crate) fn outcome_of(result: &RunResult) -> usize {
        match result {
            RunResult::Success(_) => 0,
            RunResult::Failed(_) => 1,
            RunResult::Canceled => 2,
            RunResult::Snoozed(_) | RunResult::PoolLimited(_) | RunResult::KeyLimited(_) => 3,
            RunResult::Returned => 4,
        }
    }

    /// Counts what a group does. Filled while the group is decided, reported when it is committed.
    #[derive(Default)]
    pub(crate) struct Tally(Vec<Line>);

    /// The counts of one function.
    pub(crate) struct Line {
        pub pool: PoolId,
        pub function: Name,
        pub enqueued: u64,
        pub duplicates: u64,
        pub retries: u64,
        pub completed: [u64; 5],
        pub attempts: [u64; 5],
    }

    impl Tally {
        pub fn lines(&self) -> &[Line] {
            &self.0
        }

        /// There are few functions, and the last one is the most likely next one.
        fn line(&mut self, pool: PoolId, function: Name) -> &mut Line {
            let is_it = |line: &Line| line.pool == pool && line.function == function;
            let place = self.0.iter().rposition(is_it).unwrap_or_else(|| {
                self.0.push(Line {
                    pool,
                    function,
                    enqueued: 0,
                    duplicates: 0,
                    retries: 0,
                    completed: [0; 5],
                    attempts: [0; 5],
                });
                self.0.len() - 1
            });
            &mut self.0[place]
        }

        pub fn enqueued(&mut self, change: &Change) {
            if let Change::InsertWork { spec, .. } = change {
                self.line(spec.pool, spec.function).enqueued += 1;
            }
        }

        pub fn duplicate(&mut self, pool: PoolId, function: Name) {
            self.line(pool, function).duplicates += 1;
        }

        pub fn attempt(&mut self, function: Option<Name>, change: &Change) {
            if let (Some(function), Change::InsertPendingCompletion { pool, result, retry, .. }) =
                (function, change)
            {
                let line = self.line(*pool, function);
                line.attempts[outcome_of(result)] += 1;
                let again = matches!(result, RunResult::Failed(_)) && *retry != Retry::No;
                line.retries += u64::from(again);
            }
        }

        pub fn completed(&mut self, finished: &Finished) {
            let outcome = finished.outcome.as_str();
            let place = OUTCOMES.iter().position(|known| *known == outcome);
            if let Some(place) = place {
                self.line(finished.pool, finished.function).completed[place] += 1;
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod uncounted {
    use crate::model::{Change, Finished, Name, PoolId};

    #[derive(Default)]
    pub(crate) struct Tally;

    impl Tally {
        #[inline(always)]
        pub fn enqueued(&mut self, _: &Change) {}
        #[inline(always)]
        pub fn duplicate(&mut self, _: PoolId, _: Name) {}
        #[inline(always)]
        pub fn attempt(&mut self, _: Option<Name>, _: &Change) {}
        #[inline(always)]
        pub fn completed(&mut self, _: &Finished) {}
    }
}
