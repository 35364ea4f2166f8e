//! Conformance tests for storage backends: a backend passes if it always gives the same answers as [`Memory`].
//!
//! [`exercise`] first runs named cases: which rows a turn reads, and the facts of a job in each of its states, also
//! after the tables are reopened. A failure names the case and the expected value. Then it applies the same random
//! commits to the backend and to memory, and compares the answers to every question after each commit; now and then it
//! closes and reopens the backend. A failure names the seed. Last, it loses the answers to commits
//! ([`lost_answers()`]).
//!
//! ```no_run
//! use actix_workpool::{storage::Memory, testing::conformance};
//!
//! let tables = Memory::new();
//! // Opens the same tables each time: here memory itself stands in for a file.
//! conformance::exercise(1, 200, || tables.clone());
//! ```

mod cases;
mod lost_answers;

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::model::PoolConfig;
use crate::model::{
    Batch, Change, Cursors, Demand, Epoch, FailedAttempt, Failure, FailureKind, Finished,
    FinishedDetails, FunctionKind, Generation, History, Key, LanePlace, LaneRow, Name,
    OnCompleteCall, Outcome, Payload, PoolId, Priority, Report, Retry, RetryBehavior, RunResult,
    RunningRow, Segment, SpanLink, Spec, SpecHead, SpecOptions, StartKey, StartPlace, StateRow,
    TableKey, Unique, UniquePlace, WorkFact, WorkId, WorkKey,
};
use crate::storage::{Fsync, Memory, Opened, Storage, StorageError, range_is_empty};

pub(crate) const POOLS: u32 = 3;

/// Keys of both lengths that are the limits, and some that begin with each other.
pub(crate) const KEYS: [&[u8]; 8] =
    [b"a", b"ab", b"a\0", b"b", b"\0", b"\xff", &[b'a'; WorkKey::MAX], &[0xff; WorkKey::MAX]];

/// All parts of a place, also those that are not in its order.
pub(crate) fn parts(key: StartKey) -> (Priority, Segment, u64, StartPlace) {
    (key.priority, key.segment, key.seq, key.place)
}

/// Returns all rows of `lanes` of a pool in the order of their keys, read in pages.
pub(crate) fn lane_pages(
    storage: &mut dyn Storage,
    pool: PoolId,
    limit: usize,
) -> Result<Vec<(WorkKey, LaneRow)>, StorageError> {
    let (mut found, mut after): (Vec<_>, Option<LanePlace>) = (Vec::new(), None);
    loop {
        let page = storage.lane_rows(pool, after.as_ref(), limit)?;
        let is_last = page.len() < limit;
        after = page.last().map(|(place, _)| place.clone());
        found.extend(page.into_iter().map(|(place, row)| (place.key, row)));
        if is_last {
            found.sort_by(|(key, _), (other, _)| key.cmp(other));
            return Ok(found);
        }
    }
}

/// Runs `commits` commits drawn from `seed`. `open` opens the same store each time; the first time it is empty.
///
/// # Panics
/// Panics if the backend answers differently from memory, or with an error.
pub fn exercise<S: Storage>(seed: u64, commits: usize, mut open: impl FnMut() -> S) {
    let mut script = Script::new(seed);
    let opened = Opened::default();
    let mut backend = open();
    assert_eq!(backend.open().expect("the backend opens"), opened, "seed {seed}: an empty store");
    script.commit(&mut backend, Script::pools());
    let mut backend = cases::go_through(&mut script, backend, &mut open);
    for number in 0..commits {
        script.now = Segment(script.now.0 + script.rng.u64(..5));
        let changes = script.draw();
        script.commit(&mut backend, changes);
        script.compare(&mut backend, number);
        if script.rng.u8(..) < 12 {
            backend.close();
            drop(backend);
            script.memory.close();
            backend = open();
            let ours = script.memory.open().expect("memory opens");
            let theirs = backend.open().expect("the backend opens again");
            assert_eq!(theirs, ours, "seed {seed}, commit {number}: opened again");
            script.compare(&mut backend, number);
        }
    }
    backend.close();
    drop(backend);
    lost_answers(open());
}

/// Reports an error for commits that happened and for others that did not: the pool must find out from the backend
/// which ones happened. A part of [`exercise`], for a store of any content that is not open.
///
/// # Panics
/// Panics if the pool finds out wrongly, or something happens twice; the message names the case.
pub fn lost_answers(storage: impl Storage) {
    lost_answers::go_through(storage);
}

/// A generator of random changes, each valid after the previous ones.
pub(crate) struct Script {
    pub rng: fastrand::Rng,
    seed: u64,
    pub now: Segment,
    seq: u64,
    /// The tables after all changes drawn so far.
    pub memory: Memory,
    /// The ids of all jobs ever inserted.
    pub ids: Vec<WorkId>,
}

impl Script {
    pub fn new(seed: u64) -> Script {
        let mut memory = Memory::new();
        memory.open().expect("memory opens");
        Script {
            rng: fastrand::Rng::with_seed(seed),
            seed,
            now: Segment(1_000),
            seq: 0,
            memory,
            ids: Vec::new(),
        }
    }

    pub fn pools() -> Vec<Change> {
        let globals = |number| Change::PutGlobals {
            pool: PoolId(number),
            name: Name::intern(&format!("pool-{number}")),
            config: PoolConfig::default().max_parallelism(number as usize),
        };
        (0..POOLS).map(globals).collect()
    }

    fn commit(&mut self, backend: &mut dyn Storage, changes: Vec<Change>) {
        let mut theirs = changes.clone();
        let mut ours = changes;
        let fsync = if self.rng.bool() { Fsync::Now } else { Fsync::WithNext };
        self.memory.commit(&mut ours, self.now, Fsync::Now).expect("memory commits");
        backend.commit(&mut theirs, self.now, fsync).expect("the backend commits");
        assert!(theirs.is_empty(), "seed {}: a commit empties its list", self.seed);
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn key(&mut self, delay: u64) -> Key {
        Key { segment: Segment(self.now.0 + delay), seq: self.next_seq() }
    }

    /// Returns the key of a job of this priority that waits.
    fn start_key(&mut self, priority: Priority, delay: u64) -> StartKey {
        StartKey::at(priority, self.key(delay))
    }

    /// Draws a priority. Most are the normal one.
    fn priority(&mut self) -> Priority {
        match self.rng.u8(..5) {
            0 => Priority::new(self.rng.i8(..)),
            1 => Priority::HIGH,
            2 => Priority::LOW,
            _ => Priority::NORMAL,
        }
    }

    /// Draws the changes of one commit, each valid after the one before.
    pub fn draw(&mut self) -> Vec<Change> {
        let pool = PoolId(self.rng.u32(..POOLS));
        let mut changes = match self.rng.u8(..12) {
            10.. => self.moves(),
            9 => self.replaces(),
            8 => self.fused(pool),
            0 | 1 => self.inserts(),
            2 => self.starts(pool),
            3 => self.finishes(pool),
            4 => self.completions(pool),
            5 => self.cancels(),
            6 => self.cancelations(pool),
            _ => self.others(pool),
        };
        changes.splice(0..0, self.retried());
        if self.rng.u8(..3) == 0 {
            changes.extend(self.lanes());
        }
        if self.rng.bool() {
            changes.push(Change::PutState { pool, state: self.state() });
        }
        if self.rng.u8(..8) == 0 {
            // Large values test commits that do not fit in the log.
            let key = TableKey::from(vec![self.rng.u8(..4)]);
            let text = "x".repeat(self.rng.usize(..6_000));
            let value = Payload::new(format!("{text:?}").as_bytes());
            changes.push(Change::PutRow { table: Name::from_static("t"), key, value });
        }
        changes
    }

    /// Marks a finished job as retried, now and then.
    fn retried(&mut self) -> Option<Change> {
        if self.rng.u8(..4) > 0 {
            return None;
        }
        let rows = self.memory.last_finished(None, 9).expect("memory reads");
        let (_, row) = self.rng.choice(rows)?;
        let mut details = row.details.as_deref().cloned().unwrap_or_default();
        details.retried_as = Some(WorkId::from_uuid(uuid::Uuid::from_u128(self.rng.u128(..))));
        let finished = Finished { details: details.if_any(), ..Finished::clone(&row) };
        Some(Change::MarkRetried { finished: Arc::new(finished) })
    }

    fn inserts(&mut self) -> Vec<Change> {
        let count = self.rng.usize(..6);
        (0..count)
            .map(|_| {
                let spec = self.spec();
                self.ids.push(spec.work_id);
                let delay = if self.rng.bool() { 0 } else { self.rng.u64(..40) };
                let place = self.place(&spec);
                let key = self.start_key(spec.priority, delay).in_place(place);
                Change::InsertWork { spec, key }
            })
            .collect()
    }

    /// Draws what a job waits for. Only a job with a key is in a lane.
    fn place(&mut self, spec: &Spec) -> StartPlace {
        match self.rng.u8(..8) {
            0 => self.held(),
            1 | 2 => StartPlace::Ready { tag: self.tag() },
            3..6 if spec.key().is_some() => StartPlace::Lane,
            _ => StartPlace::Queue,
        }
    }

    /// Draws what a job waits for whose attempt has failed.
    fn held(&mut self) -> StartPlace {
        if self.rng.bool() { StartPlace::Held } else { StartPlace::Queue }
    }

    fn tag(&mut self) -> u64 {
        self.rng.u64(..6) << self.rng.u32(..61)
    }

    /// Draws rows of `lanes`, which need not fit the jobs.
    fn lanes(&mut self) -> Vec<Change> {
        let count = self.rng.usize(1..4);
        (0..count)
            .map(|_| {
                let (pool, key) = (PoolId(self.rng.u32(..POOLS)), self.work_key());
                let row = (self.rng.u8(..3) > 0).then(|| LaneRow {
                    holders: self.rng.u32(..),
                    running: self.rng.u32(..3),
                    waiting: self.rng.u32(..300),
                    tag: self.tag(),
                    tag_of: self.priority(),
                    tat: self.rng.u64(..),
                    rest: Segment(self.rng.u64(..)),
                });
                Change::PutLane { pool, key, row }
            })
            .collect()
    }

    fn work_key(&mut self) -> WorkKey {
        WorkKey::new(self.rng.choice(KEYS).expect("a key"))
    }

    /// Moves jobs that wait, some of them several times.
    fn moves(&mut self) -> Vec<Change> {
        let ids: Vec<_> = self.ids.iter().copied().filter(|_| self.rng.u8(..) < 30).collect();
        let mut changes = Vec::new();
        for work in self.memory.facts(&ids).expect("memory reads").into_iter().flatten() {
            let (work_id, pool) = (work.spec.work_id, work.spec.pool);
            let Some(mut from) = work.pending_start else { continue };
            for _ in 0..self.rng.usize(1..4) {
                let to = self.elsewhere(&work.spec, from);
                changes.push(Change::MovePendingStart { work_id, pool, from, to });
                from = to;
            }
        }
        changes
    }

    /// Draws another place for a job that waits. Where it does not wait for its time, it may keep its `seq`, and come
    /// back to a place where it was.
    fn elsewhere(&mut self, spec: &Spec, from: StartKey) -> StartKey {
        let priority = if self.rng.bool() { self.priority() } else { from.priority };
        let unregistered = StartKey { segment: Segment::UNREGISTERED, ..from };
        let other = match from.place {
            StartPlace::Queue => StartPlace::Held,
            StartPlace::Held => StartPlace::Queue,
            place => place,
        };
        let segment = match from.is_unregistered() || self.rng.bool() {
            true => Segment(self.now.0 + self.rng.u64(..20)),
            false => from.segment,
        };
        let to = StartKey { priority, segment, ..from };
        let place = if self.rng.u8(..3) == 0 { from.place } else { self.place(spec) };
        match (self.rng.u8(..8), place) {
            // Its place in the order is the same.
            (0, _) if !from.is_unregistered() => from.in_place(other),
            (0 | 1, _) => StartKey { seq: self.next_seq(), ..unregistered },
            (_, StartPlace::Queue | StartPlace::Held) => {
                StartKey { seq: self.next_seq(), place, ..to }
            }
            _ => to.in_place(place),
        }
    }

    fn spec(&mut self) -> Spec {
        let options = self.rng.bool().then(|| SpecOptions {
            on_complete: self.rng.bool().then(|| OnCompleteCall {
                name: Name::from_static("done"),
                context: self.payload(),
            }),
            retry: self.rng.bool().then(|| RetryBehavior {
                max_attempts: self.rng.u32(1..),
                initial_backoff_ms: self.rng.u64(..),
                base: 1.0 + self.rng.f64(),
            }),
            timeout: self.rng.bool().then(|| Duration::from_nanos(self.rng.u64(..))),
            extra_cost: if self.rng.bool() { 0 } else { self.rng.u32(..) },
            unique: self.rng.bool().then(|| self.unique()),
            span: SpanLink::default(),
        });
        // Options that are all defaults are stored as `None`.
        let says = |options: &SpecOptions| *options != SpecOptions::default();
        let work_id = WorkId::from_uuid(uuid::Uuid::from_u128(self.rng.u128(..)));
        let head = SpecHead {
            pool: PoolId(self.rng.u32(..POOLS)),
            kind: self
                .rng
                .choice([
                    FunctionKind::Action,
                    FunctionKind::Mutation,
                    FunctionKind::Query,
                    FunctionKind::OnComplete,
                ])
                .expect("a kind"),
            function: Name::from_static(self.rng.choice(["a", "mail.send", "ü"]).expect("a name")),
            enqueued_at: self.now,
            priority: self.priority(),
            options: options.filter(says).map(Box::new),
        };
        let args = self.payload();
        if self.rng.bool() {
            return Spec::new(work_id, head, args.as_bytes());
        }
        let (key, weight) = (self.work_key(), self.rng.u16(1..));
        Spec::keyed(work_id, head, key.as_bytes(), weight, args.as_bytes())
    }

    /// Draws a unique key of a few.
    fn unique(&mut self) -> Unique {
        let key = Unique::key(vec![self.rng.u8(..3); self.rng.usize(1..4)]);
        match self.rng.u8(..3) {
            0 => key.while_waiting(),
            1 => key,
            _ => key.within(Duration::from_millis(self.rng.u64(1..60))),
        }
    }

    /// Draws the key of a row of `unique`.
    fn unique_place(&mut self) -> UniquePlace {
        (PoolId(self.rng.u32(..POOLS)), self.unique().key)
    }

    /// Replaces a job that was never started, in its place or elsewhere.
    fn replaces(&mut self) -> Vec<Change> {
        let ids: Vec<_> = self.ids.iter().copied().filter(|_| self.rng.u8(..) < 40).collect();
        let facts = self.memory.facts(&ids).expect("memory reads");
        let mut changes = Vec::new();
        for work in facts.into_iter().flatten().filter(WorkFact::is_unstarted) {
            let Some(from) = work.pending_start else { continue };
            let new = self.spec();
            let head = SpecHead { pool: work.spec.pool, ..SpecHead::clone(&new) };
            let new = Spec::new(new.work_id, head, new.args());
            let spec = new.in_place_of(&work.spec);
            let to = if self.rng.bool() { from } else { self.elsewhere(&spec, from) };
            changes.push(Change::ReplaceWork { spec, from, to });
        }
        changes
    }

    fn payload(&mut self) -> Payload {
        let len = self.rng.usize(..200);
        match len {
            0..20 => Payload::NULL,
            _ => Payload::new(format!("{:?}", "x".repeat(len)).as_bytes()),
        }
    }

    fn demand(&mut self) -> Demand {
        Demand {
            cursors: Cursors::default(),
            free_slots: self.rng.i64(-2..8),
            max_starts: if self.rng.bool() { usize::MAX } else { self.rng.usize(..4) },
            aging: self.rng.bool().then(|| Duration::from_millis(self.rng.u64(1..9))),
            ready_first: self.rng.bool(),
            batch_size: self.rng.usize(1..9),
        }
    }

    fn starts(&mut self, pool: PoolId) -> Vec<Change> {
        let demand = self.demand();
        let batch = self.memory.read_batch(pool, demand, self.now).expect("memory reads");
        let (started, generation) = (self.now, Generation(self.rng.u64(..9)));
        let start = |row: crate::model::StartRow| Change::StartWork {
            work_id: row.spec.work_id,
            pool,
            key: row.key,
            run: row.runs + 1,
            started,
            generation,
        };
        batch.starts.into_iter().map(start).collect()
    }

    fn finishes(&mut self, pool: PoolId) -> Vec<Change> {
        let rows = self.memory.running(pool).expect("memory reads");
        let mut changes = Vec::new();
        for row in rows.into_iter().filter(|row| row.work.pending_completion.is_none()) {
            if self.rng.bool() {
                continue;
            }
            let again = Retry::At(Segment(self.now.0 + self.rng.u64(..50)));
            let (result, retry) = match self.rng.u8(..7) {
                0 => (RunResult::Success(self.payload()), Retry::No),
                1 => (RunResult::Failed(self.failure()), again),
                2 => (RunResult::Canceled, Retry::No),
                3 => (RunResult::Snoozed(Duration::from_millis(self.rng.u64(..))), again),
                4 => (RunResult::PoolLimited(Duration::from_millis(self.rng.u64(..))), again),
                5 => (RunResult::KeyLimited(Duration::from_millis(self.rng.u64(..))), again),
                _ => (RunResult::Returned, again),
            };
            changes.push(Change::InsertPendingCompletion {
                work_id: row.work.spec.work_id,
                pool,
                key: self.key(0),
                run: row.work.runs,
                result,
                retry,
                attempts: row.work.attempts + self.rng.u32(..2),
            });
        }
        changes
    }

    /// Draws what the turn of a loop does in the commit that brings its rows: jobs are enqueued and started at once, and
    /// attempts end without a row in `pending_completion`.
    fn fused(&mut self, pool: PoolId) -> Vec<Change> {
        let mut changes = Vec::new();
        for row in self.memory.running(pool).expect("memory reads") {
            let RunningRow { work, .. } = row;
            if work.pending_completion.is_some() || self.rng.bool() {
                continue;
            }
            let is_last = work.is_canceled() || self.rng.bool();
            changes.push(match is_last {
                true => self.complete(work.spec, work.attempts + 1),
                false => Change::RetryWork {
                    work_id: work.spec.work_id,
                    pool,
                    completion: None,
                    key: self.start_key(work.priority, 0).in_place(self.held()),
                    attempts: work.attempts + 1,
                    history: self.history(work.history),
                },
            });
        }
        for _ in 0..self.rng.usize(..4) {
            let spec = self.spec();
            let place = self.place(&spec);
            let key = self.start_key(spec.priority, 0).in_place(place);
            self.ids.push(spec.work_id);
            let (run, started) = (1, self.now);
            let generation = Generation(self.rng.u64(..9));
            changes.push(Change::InsertRunning { spec, key, run, started, generation });
        }
        changes
    }

    fn failure(&mut self) -> Failure {
        Failure {
            kind: self.rng.choice([FailureKind::Error, FailureKind::Lost]).expect("a kind"),
            message: "m".repeat(self.rng.usize(..30)),
            retryable: self.rng.bool(),
            retry_after: self.rng.bool().then(|| Duration::from_millis(self.rng.u64(..))),
        }
    }

    fn completions(&mut self, pool: PoolId) -> Vec<Change> {
        let demand = self.demand();
        let batch = self.memory.read_batch(pool, demand, self.now).expect("memory reads");
        let mut changes = Vec::new();
        for row in batch.completions {
            changes.push(match row.retry {
                // A canceled job is never enqueued again.
                Retry::At(segment) if !row.work.canceled => Change::RetryWork {
                    work_id: row.work.spec.work_id,
                    pool,
                    completion: Some(row.key),
                    key: StartKey { segment, ..self.start_key(row.work.priority, 0) }
                        .in_place(self.held()),
                    attempts: row.work.attempts,
                    history: self.history(row.work.history),
                },
                _ => self.complete(row.work.spec, row.work.attempts),
            });
        }
        changes
    }

    /// Adds a failed attempt now and then.
    fn history(&mut self, before: History) -> History {
        if self.rng.u8(..4) > 0 {
            return before;
        }
        let Failure { kind, message, .. } = self.failure();
        let started = Segment(self.rng.u64(..)).time();
        let (attempt, ended) = (self.rng.u32(..), self.now.time());
        before.with(FailedAttempt { attempt, started, ended, kind, message })
    }

    fn complete(&mut self, spec: Spec, attempts: u32) -> Change {
        let outcome = match self.rng.u8(..3) {
            0 => Outcome::Success(self.payload()),
            1 => Outcome::Failed(self.failure()),
            _ => Outcome::Canceled,
        };
        let details = FinishedDetails {
            history: self.history(History::default()),
            on_complete: spec.on_complete().map(|call| call.name),
            follow_up: (self.rng.u8(..4) == 0).then_some(spec.work_id),
            retried_as: None,
            spec: (self.rng.u8(..8) == 0).then(|| spec.clone()),
        };
        let finished = Finished {
            work_id: spec.work_id,
            pool: spec.pool,
            function: spec.function,
            outcome,
            attempts,
            enqueued_at: spec.enqueued_at,
            started: self.rng.bool().then(|| Segment(self.rng.u64(..u64::MAX))),
            finished_at: self.now,
            details: details.if_any(),
        };
        Change::CompleteWork { finished: Arc::new(finished), spec }
    }

    fn cancels(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let ids: Vec<_> = self.ids.iter().copied().filter(|_| self.rng.u8(..) < 30).collect();
        for work in self.memory.facts(&ids).expect("memory reads").into_iter().flatten() {
            if work.pending_cancelation.is_none() && !work.canceled {
                let (work_id, pool) = (work.spec.work_id, work.spec.pool);
                let key = self.key(0);
                changes.push(Change::InsertPendingCancelation { work_id, pool, key });
            }
        }
        changes
    }

    fn cancelations(&mut self, pool: PoolId) -> Vec<Change> {
        let demand = self.demand();
        let batch = self.memory.read_batch(pool, demand, self.now).expect("memory reads");
        let mut changes = Vec::new();
        for row in batch.cancelations {
            let (work_id, key) = (row.work_id, row.key);
            changes.push(match row.work {
                None => Change::DeletePendingCancelation { pool, key },
                Some(work) if work.pending_start.is_some() => {
                    self.complete(work.spec, work.attempts)
                }
                Some(_) => Change::MarkCanceled { work_id, pool, key },
            });
        }
        changes
    }

    fn others(&mut self, pool: PoolId) -> Vec<Change> {
        let table = Name::from_static(self.rng.choice(["t", "t2", ""]).expect("a table"));
        let key = TableKey::from(vec![self.rng.u8(..4); self.rng.usize(..3)]);
        match self.rng.u8(..6) {
            5 => vec![Change::DeleteUnique { place: self.unique_place() }],
            0 | 1 => vec![Change::PutRow { table, key, value: self.payload() }],
            2 => vec![Change::DeleteRow { table, key }],
            3 => {
                let (before, keep) = self.retention();
                let old = self.memory.expired(before, keep, 3).expect("memory reads");
                old.into_iter().map(|work_id| Change::DeleteFinished { work_id }).collect()
            }
            _ => {
                // Moves a row into the unregistered lane, or out of it.
                let lane = self.memory.unregistered(pool, None, 2).expect("memory reads");
                if let Some((from, spec)) = lane.into_iter().next() {
                    let (work_id, to) = (spec.work_id, self.start_key(from.priority, 0));
                    let to = to.in_place(from.place);
                    return vec![Change::MovePendingStart { work_id, pool, from, to }];
                }
                let demand = Demand { free_slots: 1, batch_size: 1, ..Demand::default() };
                let batch = self.memory.read_batch(pool, demand, self.now).expect("memory reads");
                let Some(row) = batch.starts.into_iter().next() else { return Vec::new() };
                let seq = self.next_seq();
                let to = StartKey { segment: Segment::UNREGISTERED, seq, ..row.key };
                let work_id = row.spec.work_id;
                vec![Change::MovePendingStart { work_id, pool, from: row.key, to }]
            }
        }
    }

    /// Returns the key of a waiting row, or a random key around the present.
    fn some_key(&mut self) -> StartKey {
        let work_id = self.rng.choice(&self.ids).copied();
        let facts = self.memory.facts(work_id.as_slice()).expect("memory reads");
        let key = facts.into_iter().flatten().find_map(|work| work.pending_start);
        key.filter(|_| self.rng.bool()).unwrap_or_else(|| StartKey {
            priority: self.priority(),
            segment: match self.rng.u8(..9) {
                0 => Segment::UNREGISTERED,
                _ => Segment(self.now.0.saturating_sub(20) + self.rng.u64(..60)),
            },
            seq: self.rng.u64(..=self.seq),
            place: match self.rng.u8(..4) {
                0 => StartPlace::Held,
                1 => StartPlace::Ready { tag: self.tag() },
                2 => StartPlace::Lane,
                _ => StartPlace::Queue,
            },
        })
    }

    /// Returns the place of a running row, or a random place around the present.
    fn some_start(&mut self) -> (Segment, WorkId) {
        let all = self.memory.running_places(None, None, usize::MAX).expect("memory reads");
        let place = self.rng.choice(&all).copied().filter(|_| self.rng.bool());
        place.unwrap_or_else(|| {
            let started = Segment(self.now.0.saturating_sub(self.rng.u64(..20)));
            (started, WorkId::from_uuid(uuid::Uuid::from_u128(self.rng.u128(..))))
        })
    }

    fn retention(&mut self) -> (Segment, u64) {
        (Segment(self.now.0.saturating_sub(self.rng.u64(..60))), self.rng.u64(..20))
    }

    fn state(&mut self) -> StateRow {
        let mut number = || self.rng.u64(..);
        StateRow {
            generation: Generation(number()),
            epoch: Epoch(number()),
            turn: number(),
            cursors: Cursors {
                incoming: Segment(number()),
                completion: Segment(number()),
                cancelation: Segment(number()),
            },
            last_recovery: Segment(number()),
            last_report: Segment(number()),
            report: Report { completed: number(), retries: number(), ..Report::default() },
            tat: number() * (number() & 1),
        }
    }

    /// Compares the answers of the backend and of memory to every question.
    fn compare(&mut self, backend: &mut impl Storage, number: usize) {
        let at = format!("seed {}, commit {number}", self.seed);
        macro_rules! same {
            ($call:ident ( $($argument:expr),* ) $(, $keys:expr)?) => {{
                let ours = self.memory.$call($($argument),*).expect("memory answers");
                let theirs = backend.$call($($argument),*).expect("the backend answers");
                assert_eq!(theirs, ours, "{at}: {}", stringify!($call));
                // Keys that are equal in their order may differ in other parts.
                $(assert_eq!($keys(&theirs), $keys(&ours), "{at}: keys of {}", stringify!($call));)?
            }};
        }
        let of_batch =
            |batch: &Batch| batch.starts.iter().map(|row| parts(row.key)).collect::<Vec<_>>();
        let of_jobs = |rows: &Vec<(StartKey, Spec)>| {
            rows.iter().map(|(key, _)| parts(*key)).collect::<Vec<_>>()
        };
        let of_list = |rows: &Vec<(StartKey, WorkId)>| {
            let queued = |key: StartKey| match key.place {
                StartPlace::Held => key.in_place(StartPlace::Queue),
                _ => key,
            };
            rows.iter().map(|(key, _)| parts(queued(*key))).collect::<Vec<_>>()
        };
        let ours = self.memory.facts(&self.ids).expect("memory answers");
        let theirs = backend.facts(&self.ids).expect("the backend answers");
        for ((work_id, ours), theirs) in self.ids.iter().zip(ours).zip(theirs) {
            assert_eq!(theirs, ours, "{at}: facts of {work_id}");
            let [theirs, ours] = [theirs, ours].map(|work| work?.pending_start.map(parts));
            assert_eq!(theirs, ours, "{at}: the place of {work_id}");
        }
        same!(finished(&self.ids));
        let (before, keep) = self.retention();
        let limit = self.rng.usize(..9);
        same!(expired(before, keep, limit));
        same!(last_finished(None, usize::MAX));
        same!(last_finished(None, limit));
        let number = Some(self.rng.u64(..=self.seq));
        same!(last_finished(number, limit));
        // The last pool does not exist. The pools from `POOLS` on belong to the named cases.
        for pool in (0..POOLS).chain([POOLS + 100]).map(PoolId) {
            let demand = self.demand();
            same!(read_batch(pool, demand, self.now), of_batch);
            same!(counts(pool, &Cursors::default()));
            same!(state(pool));
            same!(running(pool));
            let (pool_or_all, after) = (Some(pool).filter(|_| self.rng.bool()), self.some_start());
            same!(running_places(pool_or_all, None, usize::MAX));
            same!(running_places(pool_or_all, None, limit));
            same!(running_places(pool_or_all, Some(after), limit));
            same!(unregistered(pool, None, limit), of_jobs);
            let after = Some(self.some_key());
            same!(unregistered(pool, after.filter(|key| key.is_unregistered()), limit), of_jobs);
            same!(works(pool, None, limit));
            let after = self.rng.choice(&self.ids).copied();
            same!(works(pool, after, limit));
            let (after, until) = (self.some_key(), self.some_key());
            same!(pending_starts(pool, None, until, limit), of_list);
            same!(pending_starts(pool, Some(after), until, limit), of_list);
            same!(pending_starts(pool, None, StartKey::END, usize::MAX), of_list);
            let keys = KEYS.map(WorkKey::new);
            same!(lanes(pool, &keys));
            for key in &keys {
                same!(lane_jobs(pool, key, limit), of_jobs);
                same!(lane_jobs(pool, key, usize::MAX), of_jobs);
            }
            // Each backend has an order of its own.
            let limit = self.rng.usize(1..5);
            let ours = lane_pages(&mut self.memory, pool, limit).expect("memory answers");
            let theirs = lane_pages(backend, pool, limit).expect("the backend answers");
            assert_eq!(theirs, ours, "{at}: lane_rows");
        }
        let places = [(); 4].map(|()| self.unique_place());
        same!(unique(&places));
        same!(unique_rows(None, usize::MAX));
        same!(unique_rows(None, limit));
        same!(unique_rows(Some(&places[0]), limit));
        for table in ["t", "t2", "", "t3"].map(Name::from_static) {
            let key = |rng: &mut fastrand::Rng| TableKey::from(vec![rng.u8(..4); rng.usize(..3)]);
            let (from, to) = (key(&mut self.rng), key(&mut self.rng));
            same!(get(table, &from));
            same!(scan(table, &(Bound::Unbounded, Bound::Unbounded), usize::MAX));
            same!(scan(table, &(Bound::Included(from.clone()), Bound::Unbounded), limit));
            let range = (Bound::Excluded(from), Bound::Included(to));
            if !range_is_empty(&range) {
                same!(scan(table, &range, limit));
            }
        }
    }
}
