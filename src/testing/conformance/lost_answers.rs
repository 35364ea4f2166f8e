//! Tests with commits that are answered by an error: some happened, some did not, and the store must find out from the
//! backend which.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hashbrown::HashMap;

use crate::client::Client;
use crate::engine::arrivals::{AttemptReport, CancelAnswer, EnqueueAnswer, RunNowAnswer};
use crate::functions::{Data, Lent, Program};
use crate::model::{
    Change, Conflict, Demand, Finished, FunctionKind, Generation, InternalState, Name, Outcome,
    Payload, PoolConfig, PoolId, Priority, Retention, RunResult, Running, Segment, Spec, SpecHead,
    StateRow, Turn, WorkFact, WorkId,
};
use crate::protocol::{
    Advance, AdvanceError, BatchReady, Canceled, Command, Enqueue, PoolRequest, Reply, Request,
};
use crate::shared::sync::oneshot;
use crate::shared::{Admitted, Catalog, PoolShared, Seams, Shared, SystemClock};
use crate::storage::{Fsync, Hook, Storage, StorageError};
use crate::store::{Settled, Store};

const HEALTHY: u8 = 0;
/// The commit happens, and an error says that it did not.
const LOSES_ANSWERS: u8 = 1;
/// The commit does not happen.
const REFUSES: u8 = 2;
/// The state of pools cannot be read.
const STATE_IS_UNREADABLE: u8 = 3;
/// The next commit conflicts with another writer, and then the state of pools cannot be read once.
const CONFLICT_THEN_UNREADABLE: u8 = 4;
/// The next commit happens and an error says that it did not, and then the state of pools cannot be read once.
const LOST_THEN_UNREADABLE: u8 = 5;
/// The next commit does not happen, and then the state of pools cannot be read once.
const REFUSED_THEN_UNREADABLE: u8 = 6;
/// The next call for a pool's state finds the storage poisoned.
const POISONED: u8 = 7;
/// Before the next commit, another writer moves the cursors of the pool, so that it conflicts.
const CURSORS_ARE_MOVED: u8 = 8;
/// The next `n` commits conflict with another writer: the state is `CONFLICTS + n`. The highest of these values.
const CONFLICTS: u8 = 100;

/// A backend whose answers get lost.
struct BadLine<S> {
    storage: S,
    state: Arc<AtomicU8>,
}

impl<S: Storage> Hook for BadLine<S> {
    fn may_block(&self) -> bool {
        self.storage.may_block()
    }

    /// Groups wait for the turns that follow from them, whatever the backend prefers.
    fn is_costly(&self) -> bool {
        true
    }

    fn call<T: 'static>(
        &mut self,
        _: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        call(&mut self.storage)
    }

    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError> {
        if self.state.load(Ordering::SeqCst) == STATE_IS_UNREADABLE {
            self.state.store(HEALTHY, Ordering::SeqCst);
            return Err(StorageError::Unavailable("it cannot be read".into()));
        }
        if self.state.load(Ordering::SeqCst) == POISONED {
            self.state.store(HEALTHY, Ordering::SeqCst);
            return Err(StorageError::Poisoned("for good".into()));
        }
        self.storage.state(pool)
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        let lost = || Err(StorageError::Unavailable("the answer was lost".into()));
        match self.state.swap(HEALTHY, Ordering::SeqCst) {
            REFUSES => lost(),
            LOSES_ANSWERS => {
                self.storage.commit(changes, now, fsync)?;
                lost()
            }
            LOST_THEN_UNREADABLE => {
                self.storage.commit(changes, now, fsync)?;
                self.state.store(STATE_IS_UNREADABLE, Ordering::SeqCst);
                lost()
            }
            REFUSED_THEN_UNREADABLE => {
                self.state.store(STATE_IS_UNREADABLE, Ordering::SeqCst);
                lost()
            }
            CURSORS_ARE_MOVED => {
                let pools = changes.iter_mut().filter_map(|change| Some(change.new_key()?.pool));
                let pool = pools.last().unwrap_or_default();
                let mut state = self.storage.state(pool)?;
                state.cursors.incoming = MOVED_TO;
                self.storage.commit(&mut vec![Change::PutState { pool, state }], now, fsync)?;
                Err(StorageError::Conflict)
            }
            CONFLICT_THEN_UNREADABLE => {
                self.state.store(STATE_IS_UNREADABLE, Ordering::SeqCst);
                Err(StorageError::Conflict)
            }
            left if left > CONFLICTS => {
                self.state.store(left - 1, Ordering::SeqCst);
                Err(StorageError::Conflict)
            }
            _ => self.storage.commit(changes, now, fsync),
        }
    }
}

struct Line {
    store: Store,
    state: Arc<AtomicU8>,
    shared: Arc<Shared>,
    pool: Arc<PoolShared>,
    internal: InternalState,
}

fn expect<T: Debug + PartialEq>(case: &str, what: &str, told: T, expected: T) {
    assert!(
        told == expected,
        "case `lost answer of {case}`, {what}: expected {expected:?}, the backend leads to {told:?}"
    );
}

impl Line {
    fn open(storage: impl Storage) -> Line {
        let state = Arc::new(AtomicU8::new(HEALTHY));
        let storage = Box::new(BadLine { storage, state: state.clone() });
        let seams = Seams::new(Arc::new(SystemClock::new()), None);
        let shared = Shared::new(Catalog::default(), seams, Retention::default(), "");
        let shared = Arc::new(shared);
        let client = Client::new(shared.clone(), Vec::new());
        let program = Arc::new(Program::new(Lent::new(client, Data::new()), HashMap::new()));
        let store = Store::open(storage, program).expect("the backend opens");
        let name = Name::from_static("lost answers");
        let settings = PoolConfig::default().settings();
        let pool = Arc::new(PoolShared::new(PoolId(0), name, 0, settings));
        let mut line = Line { store, state, shared, pool, internal: InternalState::default() };
        line.open_pool(name);
        line
    }

    /// Opens a pool, which is the one that everything is about from then on.
    fn open_pool(&mut self, name: Name) {
        let config = PoolConfig::default();
        let settings = config.settings();
        let opened = self.ask(|reply| PoolRequest::Open { name, config, reply });
        let opened = opened.expect("a pool is opened");
        self.pool = Arc::new(PoolShared::new(opened.pool, name, opened.pending, settings));
        self.shared.add_pool(self.pool.clone());
        self.internal = opened.claimed.state;
    }

    fn ask<T, R: Into<Request>>(
        &mut self,
        request: impl FnOnce(Reply<T>) -> R,
    ) -> Result<T, StorageError> {
        let (reply, mut answer) = oneshot::channel();
        run(&mut self.store, request(reply));
        answer.try_recv().expect("it is answered at once")
    }

    /// Requests a change while more and more commits conflict: the caller notices nothing.
    fn conflicted<T: Clone + Debug + PartialEq>(
        &mut self,
        case: &str,
        requests: impl IntoIterator<Item = Box<dyn FnOnce(&Arc<PoolShared>, Reply<T>) -> Command>>,
        expected: T,
    ) {
        for (conflicts, request) in [1, 3, 20].into_iter().zip(requests) {
            self.state.store(CONFLICTS + conflicts, Ordering::SeqCst);
            let pool = self.pool.clone();
            let told = self.ask(|reply| request(&pool, reply)).ok();
            let what = format!("after {conflicts} conflicts");
            expect(case, &what, told, Some(expected.clone()));
        }
    }

    /// Requests a change twice: first the commit is refused, then its answer is lost.
    fn change<T: Debug + PartialEq>(
        &mut self,
        case: &str,
        request: impl Fn(&Arc<PoolShared>, Reply<T>) -> Command,
        expected: T,
    ) {
        for (state, expected) in [(REFUSES, None), (LOSES_ANSWERS, Some(expected))] {
            self.state.store(state, Ordering::SeqCst);
            let pool = self.pool.clone();
            let told = self.ask(|reply| request(&pool, reply)).ok();
            let what = if expected.is_some() { "which happened" } else { "which did not" };
            expect(case, what, told, expected);
        }
    }

    /// Does the same as `change`, for a turn.
    fn turn(&mut self, case: &str, changes: &[Change]) {
        for (state, expected) in [(REFUSES, false), (LOSES_ANSWERS, true)] {
            self.state.store(state, Ordering::SeqCst);
            let mut next = InternalState { turn: self.internal.turn + 1, ..self.internal.clone() };
            let mut changes = changes.to_vec();
            changes.push(Change::PutState { pool: self.pool.id, state: StateRow::from(&next) });
            let batch = self.advance(next.fence(), changes);
            expect(case, "the turn is committed", batch, expected);
            if !expected {
                // A loop claims its pool again after a failed turn.
                let pool = self.pool.id;
                let claimed = self.ask(|reply| PoolRequest::Claim { pool, reply });
                next = claimed.expect("the pool is claimed").state;
            }
            self.internal = next;
        }
    }

    fn advance(&mut self, turn: Turn, changes: Vec<Change>) -> bool {
        let advance = self.turn_of(turn, changes);
        let settled = run(&mut self.store, advance);
        let batch = settled.batches.into_iter().map(|(_, BatchReady { batch, .. })| batch);
        batch.last().is_some_and(|batch| batch.is_ok())
    }

    fn turn_of(&self, turn: Turn, changes: Vec<Change>) -> Command {
        let demand = Demand { free_slots: 9, batch_size: 9, ..Demand::default() };
        let (pool, lanes) = (self.pool.id, Vec::new());
        Command::Advance(Advance { pool, turn, changes, lanes, demand, saturated: false })
    }

    fn fact(&mut self, work_id: WorkId) -> Option<WorkFact> {
        self.store.facts(&[work_id]).expect("the backend answers").pop().flatten()
    }
}

/// Runs a request and sends all answers. Retries requests that failed by a conflict, and resolves groups in doubt, as
/// the StoreActor does.
fn run(store: &mut Store, request: impl Into<Request>) -> Settled {
    run_group(store, vec![request.into()])
}

fn run_group(store: &mut Store, requests: Vec<Request>) -> Settled {
    let mut settled = store.run(requests);
    let (mut batches, mut was_in_doubt) = (Vec::new(), false);
    loop {
        for answer in std::mem::take(&mut settled.answers) {
            answer.give();
        }
        batches.append(&mut settled.batches);
        let conflicts = settled.failed == Some(StorageError::Conflict);
        // No loop answers here: a group that waits for turns goes on without them.
        if !conflicts && !settled.unfinished && !settled.is_open && !was_in_doubt {
            return Settled { batches, ..settled };
        }
        was_in_doubt = settled.unfinished;
        settled = store.run(std::mem::take(&mut settled.again));
    }
}

/// Runs the store on a backend whose answers are lost.
pub(super) fn go_through(storage: impl Storage) {
    let mut line = Line::open(storage);
    let pool = line.pool.id;
    let works = [1, 2].map(|number| job(pool, number));
    let later = LATER;
    let [work_id, other] = [works[0].work_id, works[1].work_id];

    let enqueue = |pool: &_, reply| {
        let works = works.iter().map(|spec| (spec.clone(), later)).collect();
        enqueue(pool, works, false, reply)
    };
    line.change("an enqueue", enqueue, vec![EnqueueAnswer::Enqueued; 2]);
    expect("an enqueue", "jobs that are counted", line.pool.pending(), 2);
    let (reply, mut again) = oneshot::channel();
    let repeated = enqueue(&line.pool.clone(), reply);
    run(&mut line.store, repeated);
    let told = again.try_recv().expect("an answer").ok();
    expect("an enqueue", "repeated", told, Some(vec![EnqueueAnswer::Duplicate; 2]));

    let run_now = |_: &_, reply| Command::RunNow { work_id, reply };
    line.change("a run now", run_now, RunNowAnswer::Moved);
    let key = line.fact(work_id).and_then(|fact| fact.pending_start);
    let is_due = key.is_some_and(|key| key.segment < later);
    expect("a run now", "the job is due", is_due, true);

    let cancel = |_: &_, reply| Command::Cancel { work_ids: vec![other], reply };
    line.change("a cancel", cancel, vec![requested(pool)]);

    let (started, generation) = (Segment(2), line.internal.generation);
    let key = key.unwrap_or_default();
    let start = Change::StartWork { work_id, pool, key, run: 1, started, generation };
    let running = Some(Running { run: 1, started, generation });
    line.turn("a turn that starts", &[start]);
    let runs = line.fact(work_id).map(|fact| (fact.runs, fact.running, fact.pending_start));
    expect("a turn that starts", "the job", runs, Some((1, running, None)));

    for state in [REFUSES, LOSES_ANSWERS, HEALTHY] {
        line.state.store(state, Ordering::SeqCst);
        let result = RunResult::Success(Payload::NULL);
        let report = AttemptReport { work_id, run: 1, result };
        let reports = Command::AttemptsFinished(vec![report]);
        let kept = run(&mut line.store, reports).again.len();
        let expected = usize::from(state == REFUSES);
        expect("a report", "reports that are tried again", kept, expected);
    }
    let fact = line.fact(work_id);
    let attempts = fact.as_ref().map(|fact| (fact.attempts, fact.pending_completion.is_some()));
    expect("a report", "the job", attempts, Some((1, true)));

    let spec = works[0].clone();
    let finished = Arc::new(Finished {
        work_id,
        pool,
        function: spec.function,
        outcome: Outcome::Success(Payload::NULL),
        attempts: 1,
        enqueued_at: spec.enqueued_at,
        started: Some(Segment(2)),
        finished_at: Segment(3),
        details: None,
    });
    line.turn("a turn that completes", &[Change::CompleteWork { finished, spec }]);
    expect("a turn that completes", "the job", line.fact(work_id), None);
    expect("a turn that completes", "jobs that are left", line.fact(other).is_some(), true);
    conflicts(&mut line);
    turns_in_conflict(&mut line);
    claims_behind_a_doubt(&mut line);
    poisoned_in_doubt(&mut line);
    moved_cursors(&mut line);
    fused_turns(&mut line);
    line.store.close();
}

/// A time at which another writer says that the pool has arrived: later than now, and earlier than [`LATER`].
const MOVED_TO: Segment = Segment((u32::MAX as u64) << 15);

/// A time that never comes.
const LATER: Segment = Segment((u32::MAX as u64) << 16);

fn job(pool: PoolId, number: u128) -> Spec {
    Spec::new(
        WorkId::from_uuid(uuid::Uuid::from_u128(u128::MAX - number)),
        SpecHead {
            pool,
            kind: FunctionKind::Action,
            function: Name::from_static("case"),
            enqueued_at: Segment(1),
            priority: Priority::NORMAL,
            options: None,
        },
        b"1",
    )
}

fn enqueue(
    pool: &Arc<PoolShared>,
    works: Vec<(Spec, Segment)>,
    fresh: bool,
    reply: Reply<Vec<EnqueueAnswer>>,
) -> Command {
    let counted = Admitted::new(pool.clone(), works.len() as u64).expect("there is room");
    let (conflict, retry_of, on_finish, reply) = (Conflict::Keep, None, None, Some(reply));
    Command::Enqueue(Enqueue { works, fresh, conflict, retry_of, on_finish, counted, reply })
}

fn requested(pool: PoolId) -> Canceled {
    Canceled { answer: CancelAnswer::Requested, pool: Some(pool) }
}

/// Commits conflict with other writers for a while: the store decides the requests again, and callers notice nothing.
fn conflicts(line: &mut Line) {
    type Asks<T> = Box<dyn FnOnce(&Arc<PoolShared>, Reply<T>) -> Command>;
    let pool = line.pool.id;
    let jobs = [11, 12, 13].map(|number| job(pool, number));
    let before = line.pool.pending();

    let enqueues = jobs.clone().map(|spec| -> Asks<_> {
        Box::new(move |pool, reply| enqueue(pool, vec![(spec, LATER)], false, reply))
    });
    line.conflicted("an enqueue", enqueues, vec![EnqueueAnswer::Enqueued]);
    expect("an enqueue", "jobs that are counted", line.pool.pending(), before + 3);

    let runs = jobs.clone().map(|spec| -> Asks<_> {
        Box::new(move |_, reply| Command::RunNow { work_id: spec.work_id, reply })
    });
    line.conflicted("a run now", runs, RunNowAnswer::Moved);

    let cancels = jobs.clone().map(|spec| -> Asks<_> {
        Box::new(move |_, reply| Command::Cancel { work_ids: vec![spec.work_id], reply })
    });
    line.conflicted("a cancel", cancels, vec![requested(pool)]);

    for (conflicts, spec) in [1, 3, 20].into_iter().zip(&jobs) {
        line.state.store(CONFLICTS + conflicts, Ordering::SeqCst);
        let next = InternalState { turn: line.internal.turn + 1, ..line.internal.clone() };
        let work_id = spec.work_id;
        let key = line.fact(work_id).and_then(|fact| fact.pending_start).unwrap_or_default();
        let (started, generation) = (Segment(2), line.internal.generation);
        let start = Change::StartWork { work_id, pool, key, run: 1, started, generation };
        let state = Change::PutState { pool, state: StateRow::from(&next) };
        let committed = line.advance(next.fence(), vec![start, state]);
        expect("a turn", "it is committed", committed, true);
        line.internal = next;

        line.state.store(CONFLICTS + conflicts, Ordering::SeqCst);
        let result = RunResult::Success(Payload::NULL);
        let report = AttemptReport { work_id, run: 1, result };
        run(&mut line.store, Command::AttemptsFinished(vec![report]));
        let attempts = line.fact(work_id).map(|fact| (fact.attempts, fact.runs));
        expect("a report", "it is there", attempts, Some((1, 1)));
    }
}

/// A loop always gets the answer to its turn, even if the turn's group conflicts.
fn turns_in_conflict(line: &mut Line) {
    let pool = line.pool.id;
    let [known, new] = [21, 22].map(|number| job(pool, number));
    let enqueue = |works: &[&Spec], pool: &Arc<PoolShared>, reply| {
        let works = works.iter().map(|spec| (Spec::clone(spec), LATER)).collect();
        enqueue(pool, works, false, reply)
    };
    let counting = line.pool.clone();
    let told = line.ask(|reply| enqueue(&[&known], &counting, reply)).ok();
    expect("a turn in conflict", "an enqueue", told, Some(vec![EnqueueAnswer::Enqueued]));

    for conflicts in [1, 3, 20] {
        // A turn of an old generation, in one group with an enqueue of a job that exists and one that may exist.
        line.state.store(CONFLICTS + conflicts, Ordering::SeqCst);
        let fence = line.internal.fence();
        let over = Turn { generation: Generation(fence.generation.0 - 1), ..fence };
        let (reply, mut answer) = oneshot::channel();
        let enqueue = enqueue(&[&known, &new, &known], &counting, reply);
        let group = vec![line.turn_of(over, Vec::new()).into(), enqueue.into()];
        let settled = run_group(&mut line.store, group);
        let refused = settled.batches.iter().filter(|(_, ready)| {
            ready.turn == over && matches!(ready.batch, Err(AdvanceError::Fenced))
        });
        let what = format!("a generation that is over is told once, after {conflicts} conflicts");
        expect("a turn in conflict", &what, refused.count(), 1);
        let told = answer.try_recv().expect("an answer").ok();
        let second = match conflicts {
            1 => EnqueueAnswer::Enqueued,
            _ => EnqueueAnswer::Duplicate,
        };
        let expected = vec![EnqueueAnswer::Duplicate, second, EnqueueAnswer::Duplicate];
        expect("a turn in conflict", "jobs that are known and new", told, Some(expected));
    }

    line.state.store(CONFLICT_THEN_UNREADABLE, Ordering::SeqCst);
    let next = InternalState { turn: line.internal.turn + 1, ..line.internal.clone() };
    let state = Change::PutState { pool, state: StateRow::from(&next) };
    let turn = line.turn_of(next.fence(), vec![state]);
    let settled = run(&mut line.store, turn);
    let failed = settled.batches.iter().filter(|(_, ready)| {
        ready.turn == next.fence() && matches!(ready.batch, Err(AdvanceError::Storage(_)))
    });
    let what = "a turn that could not be decided again is told to have failed";
    expect("a turn in conflict", what, failed.count(), 1);
    line.state.store(HEALTHY, Ordering::SeqCst);
}

/// A claim waits until it is known whether the turn before it was committed.
fn claims_behind_a_doubt(line: &mut Line) {
    let pool = line.pool.id;
    for (state, happened) in [(LOST_THEN_UNREADABLE, true), (REFUSED_THEN_UNREADABLE, false)] {
        line.state.store(state, Ordering::SeqCst);
        let next = InternalState { turn: line.internal.turn + 1, ..line.internal.clone() };
        let put = Change::PutState { pool, state: StateRow::from(&next) };
        let (reply, mut answer) = oneshot::channel();
        let group = vec![
            line.turn_of(next.fence(), vec![put]).into(),
            PoolRequest::Claim { pool, reply }.into(),
        ];
        let settled = run_group(&mut line.store, group);
        let of_turn = settled.batches.iter().filter(|(_, ready)| ready.turn == next.fence());
        let told: Vec<_> = of_turn.map(|(_, ready)| ready.batch.is_ok()).collect();
        expect("a turn before a claim", "it is told what became of it", told, vec![happened]);
        line.internal = answer.try_recv().expect("an answer").expect("the pool is claimed").state;
        let turn = next.turn - u64::from(!happened);
        expect("a turn before a claim", "the turn that is claimed", line.internal.turn, turn);
    }
}

/// A group waits for the turn of the loop that it wakes. The turn is committed with the group, or told that it was not,
/// and what comes late of a loop whose group was not committed is refused.
fn fused_turns(line: &mut Line) {
    let case = "a fused group";
    let cases = [(HEALTHY, true), (LOSES_ANSWERS, true), (REFUSES, false), (CONFLICTS + 1, false)];
    for (number, (state, happens)) in (40..).zip(cases) {
        for comes_late in [false, true] {
            line.open_pool(Name::intern(&format!("fused {number} {comes_late}")));
            let pool = line.pool.id;
            // There is nothing, so the loop rests.
            line.advance(line.internal.fence(), Vec::new());
            // After a conflict groups do without turns for a while.
            line.store.fuse_again();
            let spec = job(pool, 2 * number + u128::from(comes_late));
            let work_id = spec.work_id;
            let (reply, mut answer) = oneshot::channel();
            let arrival = enqueue(&line.pool, vec![(spec, Segment(1))], true, reply);
            let open = line.store.run(vec![arrival.into()]);
            expect(case, "it waits for a turn", open.is_open, true);
            let batch = open.batches.into_iter().next().and_then(|(_, ready)| ready.batch.ok());
            let start = batch.expect("a batch").starts.pop().expect("a start");
            expect(case, "the job that may start", start.spec.work_id, work_id);

            let next = InternalState { turn: line.internal.turn + 1, ..line.internal.clone() };
            let (started, generation) = (Segment(2), next.generation);
            let changes = vec![
                Change::StartWork { work_id, pool, key: start.key, run: 1, started, generation },
                Change::PutState { pool, state: StateRow::from(&next) },
            ];
            let turn = line.turn_of(next.fence(), changes);
            line.state.store(state, Ordering::SeqCst);
            let (now, later) = match comes_late {
                false => (vec![turn.into()], None),
                true => (Vec::new(), Some(turn)),
            };
            let mut settled = line.store.run(now);
            settled.answers.drain(..).for_each(|answer| answer.give());
            if let Some(turn) = later {
                settled = run(&mut line.store, turn);
            }
            let of_turn = settled.batches.iter().rev().find(|(_, it)| it.turn == next.fence());
            let told = of_turn.map(|(_, ready)| ready.batch.is_ok());
            expect(case, "what the turn is told", told, Some(happens));
            let told = answer.try_recv().expect("an answer").is_ok();
            expect(case, "what the caller is told", told, state != REFUSES);
            let runs = line.fact(work_id).map(|fact| (fact.runs, fact.pending_start.is_some()));
            let expected = match happens {
                true => Some((1, false)),
                false => (state != REFUSES).then_some((0, true)),
            };
            expect(case, "the job", runs, expected);
            line.internal = match happens {
                true => next,
                false => {
                    let claimed = line.ask(|reply| PoolRequest::Claim { pool, reply });
                    claimed.expect("the pool is claimed").state
                }
            };
        }
    }
}

/// Whoever asks while a group is in doubt gets an answer, also if the doubt ends because the storage is poisoned.
fn poisoned_in_doubt(line: &mut Line) {
    let pool = line.pool.id;
    let next = InternalState { turn: line.internal.turn + 1, ..line.internal.clone() };
    let put = Change::PutState { pool, state: StateRow::from(&next) };
    let turn = line.turn_of(next.fence(), vec![put]);
    line.state.store(REFUSED_THEN_UNREADABLE, Ordering::SeqCst);
    let in_doubt = line.store.run(vec![turn.into()]);
    expect("a doubt", "the group", in_doubt.unfinished, true);
    line.state.store(POISONED, Ordering::SeqCst);
    let told = line.ask(|reply| PoolRequest::Claim { pool, reply }).map(drop);
    let poisoned = Err(StorageError::Poisoned("for good".into()));
    expect("a doubt that ends poisoned", "a claim", told, poisoned);
    let claimed = line.ask(|reply| PoolRequest::Claim { pool, reply });
    line.internal = claimed.expect("the pool is claimed").state;
}

/// A new row is never behind the cursors that another writer has moved.
fn moved_cursors(line: &mut Line) {
    line.state.store(CURSORS_ARE_MOVED, Ordering::SeqCst);
    let spec = job(line.pool.id, 31);
    let work_id = spec.work_id;
    let pool = line.pool.clone();
    let told = line.ask(|reply| enqueue(&pool, vec![(spec, Segment(1))], true, reply));
    expect("moved cursors", "an enqueue", told.ok(), Some(vec![EnqueueAnswer::Enqueued]));
    let key = line.fact(work_id).and_then(|fact| fact.pending_start).unwrap_or_default();
    expect("moved cursors", "the job is behind none", key.segment >= MOVED_TO, true);
}
