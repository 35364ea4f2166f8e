//! Pages of jobs, read after the commit.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::Store;
use super::answer::status_of;
use crate::model::{
    Cursor, Finished, Key, Listed, ListedWork, Name, Outcome, OutcomeKind, Place, PoolId, Segment,
    Spec, StartKey, StartPlace, WorkFact, WorkFilter, WorkId, WorkPage, WorkStatus,
};
use crate::protocol::Listing;
use crate::storage::StorageError;

/// The maximum number of jobs that a page looks at if its filter matches few: more would delay other requests.
const MOST_LOOKED_AT: usize = 2_000;

/// The number of bytes of arguments and results, read with the jobs, after which a page ends.
const MOST_BYTES: usize = 8 << 20;

/// The number of jobs in the first read, while their size is unknown.
const FIRST_STEP: usize = 16;

/// The maximum number of jobs in one read. It may exceed the number wanted, if most are filtered out.
const LONGEST_STEP: usize = 200;

/// The number of jobs that a page may look at for each millisecond that it then leaves to the pools. One look takes up
/// to a microsecond, so the pools have far more than nine tenths of the time, however many pages are requested.
const LOOKED_AT_PER_MS: usize = 50;

/// The fixed cost of a page, in jobs looked at.
const FOR_THE_PAGE: usize = 100;

/// The number of running jobs, sorted by start, that cost as much as one job looked at.
const ORDERED_PER_WORK: usize = 50;

/// The number of bytes read that cost as much as one job looked at.
const BYTES_PER_WORK: usize = 4 << 10;

/// The time without requests after which the pools count as idle: a page then needs no pause.
const LATELY: Duration = Duration::from_millis(10);

/// The cost of a page so far.
#[derive(Default)]
struct Cost {
    works: usize,
    bytes: usize,
    /// The number of running jobs that were scanned to sort them.
    ordered: usize,
}

impl Cost {
    fn add(&mut self, bytes: usize) {
        self.works += 1;
        self.bytes += bytes;
    }

    fn is_enough(&self) -> bool {
        self.works >= MOST_LOOKED_AT || self.bytes >= MOST_BYTES
    }

    /// Returns the number of jobs to read next, if they are as large as those before.
    fn next_step(&self, wanted: usize) -> usize {
        let fitting = match self.works {
            0 => FIRST_STEP,
            works => (MOST_BYTES - self.bytes.min(MOST_BYTES)) / (self.bytes / works).max(1),
        };
        fitting.min(wanted).clamp(1, LONGEST_STEP)
    }
}

fn bytes_of(row: &Finished) -> usize {
    let outcome = match &row.outcome {
        Outcome::Success(output) => output.len(),
        Outcome::Failed(failure) => failure.message.len(),
        Outcome::Canceled => 0,
    };
    let details = row.details.as_deref().map_or(0, |details| {
        details.history.bytes() + details.spec.as_ref().map_or(0, |spec| spec.bytes())
    });
    outcome + details
}

fn kept_spec(row: &Finished) -> Option<Spec> {
    row.details.as_ref()?.spec.clone()
}

impl Store {
    /// Returns the jobs that a filter asks for.
    pub(super) fn works(&mut self, filter: &WorkFilter) -> Result<Listing, StorageError> {
        let mut cost = Cost::default();
        let page = match filter.state {
            Listed::Pending { after } => self.pending_works(filter, after, &mut cost),
            Listed::Running { after } => self.running_works(filter, after, &mut cost),
            Listed::Finished { outcome, before } => {
                self.finished_works(filter, outcome, before, &mut cost)
            }
        };
        Ok(Listing { page: page?, pause: self.pause_after(&cost) })
    }

    /// Returns the pause that the store needs after a page of this cost.
    fn pause_after(&self, cost: &Cost) -> Duration {
        if self.clock.since(self.last_business) > LATELY {
            return Duration::ZERO;
        }
        let read = cost.works + cost.bytes / BYTES_PER_WORK;
        let looked_at = FOR_THE_PAGE + read + cost.ordered / ORDERED_PER_WORK;
        Duration::from_millis((looked_at / LOOKED_AT_PER_MS) as u64)
    }

    fn pending_works(
        &mut self,
        filter: &WorkFilter,
        mut after: Option<StartKey>,
        cost: &mut Cost,
    ) -> Result<WorkPage, StorageError> {
        let pools = self.pools_of(filter);
        let mut works = Vec::new();
        let mut until = StartKey::END;
        if let Some(priority) = filter.priority {
            let begin = StartKey::at(priority, Key::default());
            let begin = begin.in_place(StartPlace::Ready { tag: 0 });
            let end = StartKey::new(priority, Segment(Segment::UNREGISTERED.0 - 1));
            after = Some(after.map_or(begin, |after| after.max(begin)));
            // Behind them are the jobs of all priorities in lanes, and the unregistered ones.
            match after < Some(end) {
                true => until = end,
                false => after = after.max(Some(StartKey::LANES)),
            }
        }
        while !cost.is_enough() && works.len() < filter.limit {
            let left = filter.limit - works.len();
            let of_priority = filter.priority.is_none() || until != StartKey::END;
            let takes_all = of_priority && filter.function.is_none() && filter.key.is_none();
            let step = cost.next_step(if takes_all { left } else { LONGEST_STEP });
            let mut rows = self.next_starts(&pools, after, until, step)?;
            let mut is_end = rows.len() < step;
            if let Some(than) = filter.later_than {
                let is_due = |(key, _): &(StartKey, WorkId)| key.segment <= than;
                if let Some((key, _)) = rows.first().filter(|row| is_due(row)) {
                    // Those of this priority that are due are passed at once, and so are those in lanes.
                    let last = Key { segment: than, seq: u64::MAX };
                    after = Some(match key.is_in_lane() {
                        true => StartKey { seq: u64::MAX, ..StartKey::LANES },
                        false => StartKey::at(key.priority, last),
                    });
                    cost.add(0);
                    continue;
                }
                if let Some(next_priority) = rows.iter().position(is_due) {
                    rows.truncate(next_priority);
                    is_end = false;
                }
            }
            let seen =
                self.look_at(filter, &rows, |_, _, work| status_of(work), &mut works, cost)?;
            after = rows[..seen].last().map(|(key, _)| *key).or(after);
            if is_end && seen == rows.len() {
                if until == StartKey::END {
                    return Ok(WorkPage { works, next: None });
                }
                (after, until) = (Some(StartKey::LANES), StartKey::END);
            }
        }
        let next = after.map(|key| Cursor(Place::Pending(key)));
        Ok(WorkPage { works, next })
    }

    /// Adds the jobs that match the filter to a page, up to its limit. Returns the number of jobs looked at.
    fn look_at<P>(
        &mut self,
        filter: &WorkFilter,
        rows: &[(P, WorkId)],
        status: impl Fn(&Store, &(P, WorkId), &WorkFact) -> WorkStatus,
        works: &mut Vec<ListedWork>,
        cost: &mut Cost,
    ) -> Result<usize, StorageError> {
        let ids: Vec<_> = rows.iter().map(|(_, work_id)| *work_id).collect();
        let mut seen = 0;
        for (row, work) in rows.iter().zip(self.storage.facts(&ids)?) {
            if works.len() == filter.limit {
                break;
            }
            seen += 1;
            cost.add(work.as_ref().map_or(0, |work| work.spec.bytes() + work.history.bytes()));
            if let Some(work) = work.filter(|work| filter.takes(work)) {
                works.push(self.listed(&work, status(self, row, &work)));
            }
        }
        Ok(seen)
    }

    /// Returns the next jobs of several pools, in the order of their keys, which are unique across pools.
    ///
    /// Reads a few jobs of each pool at a time, so that the total is hardly more than wanted.
    fn next_starts(
        &mut self,
        pools: &[PoolId],
        after: Option<StartKey>,
        until: StartKey,
        wanted: usize,
    ) -> Result<Vec<(StartKey, WorkId)>, StorageError> {
        let at_once = wanted.div_ceil(pools.len().max(1));
        let mut heads = BinaryHeap::with_capacity(pools.len());
        let mut read: Vec<VecDeque<(StartKey, WorkId)>> = Vec::with_capacity(pools.len());
        for (place, pool) in pools.iter().enumerate() {
            let rows = self.storage.pending_starts(*pool, after, until, at_once)?;
            heads.extend(rows.first().map(|(key, _)| std::cmp::Reverse((*key, place))));
            read.push(rows.into());
        }
        let mut found = Vec::with_capacity(wanted);
        while found.len() < wanted
            && let Some(std::cmp::Reverse((key, place))) = heads.pop()
        {
            found.extend(read[place].pop_front());
            if read[place].is_empty() {
                let left = (wanted - found.len()).min(at_once);
                read[place] =
                    self.storage.pending_starts(pools[place], Some(key), until, left)?.into();
            }
            heads.extend(read[place].front().map(|(key, _)| std::cmp::Reverse((*key, place))));
        }
        Ok(found)
    }

    fn running_works(
        &mut self,
        filter: &WorkFilter,
        after: Option<(Segment, WorkId)>,
        cost: &mut Cost,
    ) -> Result<WorkPage, StorageError> {
        let mut works = Vec::new();
        let pool = match filter.pool.as_deref().map(|name| self.pool_named(name)) {
            None => None,
            Some(Some(pool)) => Some(pool),
            Some(None) => return Ok(WorkPage { works, next: None }),
        };
        let takes_all =
            filter.function.is_none() && filter.priority.is_none() && filter.key.is_none();
        let wanted = if takes_all { filter.limit } else { MOST_LOOKED_AT };
        cost.ordered = self.running();
        // One more shows whether this is the end.
        let mut places = self.storage.running_places(pool, after, wanted + 1)?;
        let goes_on = places.len() > wanted;
        places.truncate(wanted);
        let status = |it: &Store, (started, work_id): &(Segment, WorkId), work: &WorkFact| {
            WorkStatus::Running {
                previous_attempts: work.attempts,
                started: started.time(),
                progress: it.shared.board.progress_of(*work_id),
            }
        };
        let mut seen = 0;
        while seen < places.len() && works.len() < filter.limit && !cost.is_enough() {
            let left = filter.limit - works.len();
            let step = cost.next_step(if takes_all { left } else { LONGEST_STEP });
            let step = &places[seen..places.len().min(seen + step)];
            seen += self.look_at(filter, step, status, &mut works, cost)?;
        }
        let goes_on = goes_on || seen < places.len();
        let last = places[..seen].last().filter(|_| goes_on);
        Ok(WorkPage { works, next: last.map(|place| Cursor(Place::Running(*place))) })
    }

    fn finished_works(
        &mut self,
        filter: &WorkFilter,
        outcome: Option<OutcomeKind>,
        mut before: Option<u64>,
        cost: &mut Cost,
    ) -> Result<WorkPage, StorageError> {
        let mut works = Vec::new();
        while !cost.is_enough() {
            let left = filter.limit - works.len();
            let takes_all = filter.function.is_none() && filter.pool.is_none() && outcome.is_none();
            let step = cost.next_step(if takes_all { left } else { LONGEST_STEP });
            let rows = self.storage.last_finished(before, step)?;
            if rows.is_empty() {
                return Ok(WorkPage { works, next: None });
            }
            for (number, row) in rows {
                before = Some(number);
                cost.add(bytes_of(&row));
                let pool = self.pool_name(row.pool);
                if !filter.takes_function(row.function)
                    || filter.pool.as_deref().is_some_and(|name| name != pool.as_str())
                    || outcome.is_some_and(|kind| !kind.is_of(&row.outcome))
                {
                    continue;
                }
                works.push(ListedWork {
                    work_id: row.work_id,
                    pool,
                    function: row.function,
                    kind: None,
                    priority: None,
                    enqueued_at: row.enqueued_at.time(),
                    canceling: false,
                    spec: kept_spec(&row),
                    status: WorkStatus::Finished(row.into()),
                });
                if works.len() == filter.limit {
                    let next = Some(Cursor(Place::Finished(number)));
                    return Ok(WorkPage { works, next });
                }
            }
        }
        let next = before.map(|number| Cursor(Place::Finished(number)));
        Ok(WorkPage { works, next })
    }

    /// Returns the pools that may have jobs for a filter. Pools of this process without jobs are skipped.
    fn pools_of(&self, filter: &WorkFilter) -> Vec<PoolId> {
        let all = (0..).map(PoolId).zip(&self.pools);
        let named = all.filter(|(_, pool)| {
            filter.pool.as_deref().is_none_or(|name| name == pool.name.as_str())
        });
        let ids = named.map(|(id, _)| id);
        ids.filter(|id| self.shared.pool_by_id(*id).is_none_or(|pool| pool.pending() > 0)).collect()
    }

    /// Returns the number of attempts that run.
    fn running(&self) -> usize {
        self.shared.pools().iter().map(|pool| pool.gauge.running() as usize).sum()
    }

    fn pool_named(&self, name: &str) -> Option<PoolId> {
        let number = self.pools.iter().position(|pool| pool.name.as_str() == name)?;
        Some(PoolId(number as u32))
    }

    fn pool_name(&self, pool: PoolId) -> Name {
        self.pools[pool.0 as usize].name
    }

    fn listed(&self, work: &WorkFact, status: WorkStatus) -> ListedWork {
        let spec = &work.spec;
        ListedWork {
            work_id: spec.work_id,
            pool: self.pool_name(spec.pool),
            function: spec.function,
            kind: Some(spec.kind),
            priority: Some(work.priority),
            enqueued_at: spec.enqueued_at.time(),
            canceling: work.is_canceled(),
            status,
            spec: Some(spec.clone()),
        }
    }
}
