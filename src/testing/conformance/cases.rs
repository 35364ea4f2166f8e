//! Named cases: which rows a turn reads, and the facts of a job in each of its states.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::{KEYS, POOLS, Script, lane_pages, parts};
use crate::model::PoolConfig;
use crate::model::{
    Batch, Change, Cursors, Demand, FailedAttempt, FailureKind, Finished, FunctionKind, Generation,
    History, Key, LaneRow, Name, Outcome, Payload, PoolId, Priority, Retry, RunResult, Running,
    Segment, Spec, SpecHead, SpecOptions, StartKey, StartPlace, Unique, WorkFact, WorkId, WorkKey,
};
use crate::storage::{Storage, StorageError};

/// The cases. Each one has its own pool, of the same name.
const CASES: [&str; 13] = [
    "rows behind the cursor",
    "rows that are not due",
    "order by segment and seq",
    "batch size",
    "free slots",
    "slots freed by completions",
    "unregistered lane",
    "order of what runs",
    "priorities",
    "unique keys",
    "places of keys",
    "jobs in lanes",
    "state table",
];

/// The base time of the cases: their rows are due 1 to 9 milliseconds later.
const BASE: u64 = 500;

const STARTED_BY: Generation = Generation(3);

/// Runs every case on an empty store. All commits go to the script's memory too.
pub(super) fn go_through<S: Storage>(
    script: &mut Script,
    mut backend: S,
    open: &mut impl FnMut() -> S,
) -> S {
    let pools = CASES.iter().zip(POOLS..).map(|(name, number)| Change::PutGlobals {
        pool: PoolId(number),
        name: Name::intern(name),
        config: PoolConfig::default(),
    });
    script.commit(&mut backend, pools.collect());
    let mut pools = CASES.iter().zip(POOLS..).map(|(name, pool)| (*name, PoolId(pool)));
    let tests = [
        cursors,
        due,
        order,
        batch_size,
        free_slots,
        freed_slots,
        lane,
        running,
        priorities,
        unique,
        places,
        lanes,
    ];
    let mut works = Vec::new();
    for (number, (name, pool)) in pools.by_ref().enumerate() {
        let mut case = Case { name, pool, script, backend: &mut backend };
        match tests.get(number) {
            Some(test) => test(&mut case),
            None => {
                works = every_state(&mut case);
                case.check(&works, "as committed");
            }
        }
    }
    backend.close();
    drop(backend);
    script.memory.close();
    script.memory.open().expect("memory opens");
    let mut backend = open();
    backend.open().expect("the backend opens again");
    let pool = PoolId(POOLS + tests.len() as u32);
    let name = CASES[tests.len()];
    Case { name, pool, script, backend: &mut backend }.check(&works, "opened again");
    backend
}

struct Case<'c> {
    name: &'static str,
    pool: PoolId,
    script: &'c mut Script,
    backend: &'c mut dyn Storage,
}

fn at(millis: u64) -> Segment {
    Segment(BASE + millis)
}

fn demand(free_slots: i64) -> Demand {
    Demand { free_slots, batch_size: 100, ..Demand::default() }
}

impl Case<'_> {
    fn expect<T: Debug + PartialEq>(&self, what: &str, told: Result<T, StorageError>, expected: T) {
        if told.as_ref() != Ok(&expected) {
            let case = self.name;
            panic!("case `{case}`, {what}: expected {expected:?}, the backend answers {told:?}");
        }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        self.script.commit(self.backend, changes);
    }

    fn key(&mut self, millis: u64) -> Key {
        Key { segment: at(millis), seq: self.script.next_seq() }
    }

    fn start_key(&mut self, priority: i8, millis: u64) -> StartKey {
        StartKey::at(Priority::new(priority), self.key(millis))
    }

    /// Inserts waiting jobs, one due at each of these times.
    fn waiting<const N: usize>(&mut self, millis: [u64; N]) -> [(StartKey, Spec); N] {
        self.waiting_by(millis.map(|millis| (0, millis)))
    }

    /// Inserts waiting jobs, one of each of these priorities and due at each of these times.
    fn waiting_by<const N: usize>(&mut self, places: [(i8, u64); N]) -> [(StartKey, Spec); N] {
        let place = StartPlace::Queue;
        self.waiting_in(places.map(|(priority, millis)| (priority, millis, place, None)))
    }

    /// Inserts waiting jobs, one in each of these places, and with a key, if there is one.
    fn waiting_in<const N: usize>(
        &mut self,
        places: [(i8, u64, StartPlace, Option<&[u8]>); N],
    ) -> [(StartKey, Spec); N] {
        let works = places.map(|(priority, millis, place, of)| {
            let key = self.start_key(priority, millis).in_place(place);
            let work_id = WorkId::from_uuid(uuid::Uuid::from_u128(key.seq.into()));
            let head = SpecHead {
                pool: self.pool,
                kind: FunctionKind::Action,
                function: Name::from_static("case"),
                enqueued_at: at(0),
                priority: key.priority,
                options: None,
            };
            let spec = match of {
                Some(of) => Spec::keyed(work_id, head, of, 7, b"1"),
                None => Spec::new(work_id, head, b"1"),
            };
            (key, spec)
        });
        self.script.ids.extend(works.iter().map(|(_, spec)| spec.work_id));
        let insert =
            |(key, spec): &(StartKey, Spec)| Change::InsertWork { spec: spec.clone(), key: *key };
        self.commit(works.iter().map(insert).collect());
        works
    }

    fn start(&mut self, works: &[(StartKey, Spec)]) {
        self.start_at(1, works);
    }

    fn start_at(&mut self, millis: u64, works: &[(StartKey, Spec)]) {
        let start = |(key, spec): &(StartKey, Spec)| Change::StartWork {
            work_id: spec.work_id,
            pool: spec.pool,
            key: *key,
            run: 1,
            started: at(millis),
            generation: STARTED_BY,
        };
        self.commit(works.iter().map(start).collect());
    }

    /// Finishes the jobs' attempts at this time.
    fn finish(&mut self, works: &[(StartKey, Spec)], millis: u64, retry: Retry) -> Vec<Key> {
        let keys: Vec<_> = works.iter().map(|_| self.key(millis)).collect();
        let finish =
            |((_, spec), key): (&(StartKey, Spec), &Key)| Change::InsertPendingCompletion {
                work_id: spec.work_id,
                pool: spec.pool,
                key: *key,
                run: 1,
                result: RunResult::Success(Payload::NULL),
                retry,
                attempts: 1,
            };
        self.commit(works.iter().zip(&keys).map(finish).collect());
        keys
    }

    fn cancel(&mut self, works: &[(StartKey, Spec)], millis: u64) -> Vec<Key> {
        let keys: Vec<_> = works.iter().map(|_| self.key(millis)).collect();
        let cancel = |((_, spec), key): (&(StartKey, Spec), &Key)| {
            Change::InsertPendingCancelation { work_id: spec.work_id, pool: spec.pool, key: *key }
        };
        self.commit(works.iter().zip(&keys).map(cancel).collect());
        keys
    }

    fn batch(&mut self, demand: Demand, now: u64) -> Result<Batch, StorageError> {
        self.backend.read_batch(self.pool, demand, at(now))
    }

    /// Checks which rows of `pending_start` a turn reads, and when the next one is due.
    fn expect_starts(
        &mut self,
        what: &str,
        (demand, now): (Demand, u64),
        starts: &[(StartKey, Spec)],
        next_due: Option<u64>,
    ) {
        let told = self.batch(demand, now).map(|batch| {
            let starts = batch.starts.iter().map(|row| (row.key, row.spec.work_id));
            (starts.collect::<Vec<_>>(), batch.next_due)
        });
        let starts = starts.iter().map(|(key, spec)| (*key, spec.work_id)).collect();
        self.expect(what, told, (starts, next_due.map(at)));
    }

    /// Checks which rows of the other two tables a turn reads.
    fn expect_reports(
        &mut self,
        what: &str,
        (demand, now): (Demand, u64),
        completions: &[Key],
        cancelations: &[Key],
    ) {
        let told = self.batch(demand, now).map(|batch| {
            let completions: Vec<_> = batch.completions.iter().map(|row| row.key).collect();
            (completions, batch.cancelations.iter().map(|row| row.key).collect::<Vec<_>>())
        });
        self.expect(what, told, (completions.to_vec(), cancelations.to_vec()));
    }

    fn check(&mut self, works: &[State], when: &str) {
        for State { name, work_id, fact } in works {
            let told = self.backend.facts(&[*work_id]).map(|mut facts| facts.pop().flatten());
            self.expect(&format!("{name}, {when}"), told, fact.clone());
            let told = self.backend.finished(&[*work_id]).map(|mut rows| rows.pop().flatten());
            let is_finished = told.map(|row| row.is_some());
            self.expect(&format!("{name}, {when}, in finished"), is_finished, fact.is_none());
        }
        let running = |work: &&State| work.fact.as_ref().is_some_and(|fact| fact.running.is_some());
        let mut expected: Vec<_> = works.iter().filter(running).map(|work| work.work_id).collect();
        expected.sort_unstable();
        let told = self.backend.running(self.pool);
        let told = told.map(|rows| rows.iter().map(|row| row.work.spec.work_id).collect());
        self.expect(&format!("rows of running, {when}"), told, expected);
    }
}

fn cursors(case: &mut Case<'_>) {
    let works = case.waiting([1, 2, 3, 4]);
    case.start(&works[..2]);
    let completions = case.finish(&works[..2], 3, Retry::No);
    let cancelations = case.cancel(&works[2..], 5);
    let behind = |cursor| Demand {
        cursors: Cursors { incoming: at(cursor), completion: at(cursor), cancelation: at(cursor) },
        ..demand(9)
    };
    case.expect_starts("starts at the cursor", (behind(3), 9), &works[2..], None);
    case.expect_reports("reports at the cursor", (behind(3), 9), &completions, &cancelations);
    // The cursor moves past started rows.
    case.start(&works[2..3]);
    case.expect_starts("starts behind the cursor", (behind(4), 9), &works[3..], None);
    case.expect_reports("completions behind the cursor", (behind(4), 9), &[], &cancelations);
    case.expect_reports("cancelations behind the cursor", (behind(6), 9), &[], &[]);
}

fn due(case: &mut Case<'_>) {
    let works = case.waiting([2, 3, 5]);
    case.expect_starts("before all", (demand(9), 1), &[], Some(2));
    case.expect_starts("at the first", (demand(9), 2), &works[..1], Some(3));
    case.expect_starts("between two", (demand(9), 4), &works[..2], Some(5));
    case.expect_starts("at the last", (demand(9), 5), &works, None);
    case.start(&works[..1]);
    let completions = case.finish(&works[..1], 6, Retry::No);
    let cancelations = case.cancel(&works[1..2], 7);
    case.expect_reports("before the reports", (demand(9), 5), &[], &[]);
    case.expect_reports("at the first report", (demand(9), 6), &completions, &[]);
    case.expect_reports("at the last report", (demand(9), 7), &completions, &cancelations);
}

fn order(case: &mut Case<'_>) {
    let [late, early, again] = case.waiting([5, 1, 1]);
    let in_order = [early, again, late];
    case.expect_starts("starts", (demand(9), 9), &in_order, None);
    case.start(&in_order);
    let late = case.finish(&in_order[..1], 4, Retry::No);
    let early = case.finish(&in_order[1..], 2, Retry::No);
    let canceled = case.cancel(&in_order[..1], 4);
    let before = case.cancel(&in_order[1..], 3);
    case.expect_reports(
        "reports",
        (demand(9), 9),
        &[early, late].concat(),
        &[before, canceled].concat(),
    );
}

fn batch_size(case: &mut Case<'_>) {
    let works = case.waiting([1, 1, 1, 2, 2, 3, 3]);
    case.start(&works[..3]);
    let completions = case.finish(&works[..3], 4, Retry::No);
    let cancelations = case.cancel(&works[3..], 4);
    for batch_size in 1..3 {
        let few = Demand { batch_size, ..demand(9) };
        let next = [0, 2, 3][batch_size];
        let shown = &works[3..3 + batch_size];
        case.expect_starts("starts", (few, 9), shown, Some(next));
        let (completions, cancelations) = (&completions[..batch_size], &cancelations[..batch_size]);
        case.expect_reports("reports", (few, 9), completions, cancelations);
    }
}

fn free_slots(case: &mut Case<'_>) {
    let works = case.waiting([1, 2, 3]);
    let cancelations = case.cancel(&works[..1], 1);
    case.expect_starts("two of three", (demand(2), 9), &works[..2], Some(3));
    for slots in [0, -1] {
        case.expect_starts("saturated", (demand(slots), 9), &[], Some(1));
        case.expect_reports("cancelations, saturated", (demand(slots), 9), &[], &cancelations);
    }
}

fn freed_slots(case: &mut Case<'_>) {
    let works = case.waiting([1, 1, 2, 3, 4]);
    case.start(&works[..2]);
    let completions = case.finish(&works[..2], 5, Retry::No);
    case.expect_reports("completions, saturated", (demand(0), 9), &completions, &[]);
    case.expect_starts("two are freed", (demand(0), 9), &works[2..4], Some(4));
    case.expect_starts("over the limit by one", (demand(-1), 9), &works[2..3], Some(3));
    case.expect_starts("not freed yet", (demand(0), 4), &[], Some(2));
    let one = Demand { batch_size: 1, ..demand(-1) };
    case.expect_starts("by those that are shown", (one, 9), &[], Some(2));
}

fn lane(case: &mut Case<'_>) {
    let works = case.waiting([1, 2]);
    let to = StartKey { seq: case.script.next_seq(), ..StartKey::END };
    let (from, spec) = works[0].clone();
    let (work_id, pool) = (spec.work_id, spec.pool);
    case.commit(vec![Change::MovePendingStart { work_id, pool, from, to }]);
    case.expect_starts("starts", (demand(9), 9), &works[1..], None);
    case.expect_starts("the next one due", (demand(0), 9), &[], Some(2));
    let told = case.backend.unregistered(pool, None, 9);
    case.expect("the lane", told, vec![(to, spec)]);
    let told = case.backend.pending_starts(pool, None, StartKey::END, 9);
    case.expect("it comes last", told, vec![(works[1].0, works[1].1.work_id), (to, work_id)]);
    let back = case.start_key(0, 3);
    case.commit(vec![Change::MovePendingStart { work_id, pool, from: to, to: back }]);
    let restored = [works[1].clone(), (back, works[0].1.clone())];
    case.expect_starts("out of the lane", (demand(9), 9), &restored, None);
}

/// What a loop is shown of jobs of several priorities, and what becomes of a priority that is changed.
fn unique(case: &mut Case<'_>) {
    let pool = case.pool;
    let mut number = 0;
    let mut job = |hold: Unique| {
        number += 1;
        let work_id = WorkId::from_uuid(uuid::Uuid::from_u128(0xcafe_0000 + number));
        let options = SpecOptions { unique: Some(hold), ..SpecOptions::default() };
        let head = SpecHead {
            pool,
            kind: FunctionKind::Action,
            function: Name::from_static("case"),
            enqueued_at: at(0),
            priority: Priority::NORMAL,
            options: Some(Box::new(options)),
        };
        Spec::new(work_id, head, b"1")
    };
    let period = |millis| Unique::key("k").within(Duration::from_millis(millis));
    let [first, second, third] = [Unique::key("k"), period(5), period(100)].map(&mut job);
    let other = job(Unique::key("l").while_waiting());
    let row = |spec: &Spec| spec.unique_row().expect("it is unique");
    let place = row(&first).0;
    let finish = |spec: &Spec| {
        let finished = Finished {
            work_id: spec.work_id,
            pool,
            function: spec.function,
            outcome: Outcome::Canceled,
            attempts: 0,
            enqueued_at: spec.enqueued_at,
            started: None,
            finished_at: at(9),
            details: None,
        };
        Change::CompleteWork { finished: Arc::new(finished), spec: spec.clone() }
    };
    let expect = |case: &mut Case<'_>, what: &str, expected: Option<&Spec>| {
        let told = case.backend.unique(std::slice::from_ref(&place));
        case.expect(what, told, vec![expected.map(|spec| row(spec).1)]);
    };
    let keys = [1, 1, 1, 2, 7].map(|millis| case.start_key(0, millis));
    let insert = |spec: &Spec, key| Change::InsertWork { spec: spec.clone(), key };
    case.commit(vec![insert(&first, keys[0]), insert(&other, keys[3])]);
    case.script.ids.extend([&first, &second, &third, &other].map(|spec| spec.work_id));
    expect(case, "taken", Some(&first));
    let told = case.backend.unique_rows(Some(&(PoolId(pool.0 - 1), place.1.clone())), 9);
    case.expect("all rows, in order", told, vec![row(&first), row(&other)]);
    let told = case.backend.unique_rows(Some(&place), 9);
    case.expect("those behind one", told, vec![row(&other)]);
    case.commit(vec![insert(&second, keys[1]), finish(&first)]);
    expect(case, "taken by another before the first one finishes", Some(&second));
    case.commit(vec![finish(&second)]);
    expect(case, "free when its job finishes and its period is over", None);
    case.commit(vec![insert(&third, keys[2])]);
    let new = Spec::new(third.work_id, SpecHead::clone(&third), b"new");
    for (what, from, to) in [("in its place", 2, 2), ("elsewhere", 2, 4)] {
        let (from, to) = (keys[from], keys[to]);
        case.commit(vec![Change::ReplaceWork { spec: new.clone(), from, to }]);
        let works = [(keys[3], other.clone()), (to, new.clone())];
        let mut works = works.to_vec();
        works.sort_by_key(|(key, _)| *key);
        case.expect_starts(what, (demand(9), 8), &works, None);
    }
    case.commit(vec![finish(&new), finish(&other)]);
    expect(case, "held for a period that outlives its job", Some(&third));
    case.commit(vec![Change::DeleteUnique { place: place.clone() }]);
    expect(case, "deleted", None);
}

fn priorities(case: &mut Case<'_>) {
    let works = case.waiting_by([(0, 2), (-10, 4), (5, 1), (-10, 3), (-128, 9), (127, 1), (5, 8)]);
    let [normal, high, low, first_high, best, worst, late] = works.clone();
    let all = [first_high.clone(), high.clone(), normal.clone(), low.clone(), worst.clone()];
    case.expect_starts("by priority, then by time", (demand(9), 7), &all, Some(8));
    case.expect_starts("what comes first", (demand(3), 7), &all[..3], Some(1));
    case.expect_starts("nothing is due", (demand(9), 0), &[], Some(1));
    let rated = Demand { max_starts: 2, ..demand(9) };
    case.expect_starts("as many as the rate admits", (rated, 7), &all[..2], Some(1));
    // At 7, `low` has been due for 6 ms: with 1 ms for each it is as good as -1, and `worst` as 121.
    let aged = Demand { aging: Some(Duration::from_millis(1)), ..demand(4) };
    let by_age = [first_high.clone(), high.clone(), normal.clone(), low.clone()];
    case.expect_starts("aging", (aged, 7), &by_age, Some(1));
    // A tenth for each: 5 - 60, 0 - 50, -10 - 40, -10 - 30.
    let aged = Demand { aging: Some(Duration::from_micros(100)), ..demand(4) };
    let by_age = [low.clone(), normal.clone(), first_high.clone(), high.clone()];
    case.expect_starts("aging faster", (aged, 7), &by_age, Some(1));
    let slow = Demand { aging: Some(Duration::from_millis(100)), ..demand(2) };
    case.expect_starts("aging hardly", (slow, 9), &[best.clone(), first_high.clone()], Some(1));
    let expected = [&best, &first_high, &high, &normal, &low, &late, &worst];
    let expected = expected.map(|(key, spec)| (*key, spec.work_id)).to_vec();
    let told = case.backend.pending_starts(case.pool, None, StartKey::END, 9);
    case.expect("in the list", told, expected.clone());
    let told = case.backend.pending_starts(case.pool, Some(high.0), worst.0, 2);
    case.expect("a part of the list", told, expected[3..5].to_vec());

    let (work_id, pool, from) = (low.1.work_id, low.1.pool, low.0);
    let to = case.start_key(-20, 1);
    case.commit(vec![Change::MovePendingStart { work_id, pool, from, to }]);
    let moved = [(to, low.1.clone()), first_high.clone()];
    case.expect_starts("a better priority", (demand(2), 7), &moved, Some(1));
    let fact = case.backend.facts(&[work_id]).map(|facts| {
        facts[0].as_ref().map(|work| (work.priority, work.spec.priority, work.pending_start))
    });
    case.expect("has it", fact, Some((Priority::new(-20), Priority::new(5), Some(to))));
    // It keeps the priority while it runs, and across a retry.
    case.start(&moved[..1]);
    let told = case.backend.facts(&[work_id]).map(|facts| facts[0].as_ref().map(|it| it.priority));
    case.expect("while it runs", told, Some(Priority::new(-20)));
    let completion = case.finish(&moved[..1], 5, Retry::At(at(6))).pop();
    let again = case.start_key(-20, 6);
    case.commit(vec![Change::RetryWork {
        work_id,
        pool,
        completion,
        key: again,
        attempts: 1,
        history: History::default(),
    }]);
    let retried = [(again, low.1), first_high];
    case.expect_starts("retried", (demand(2), 7), &retried, Some(1));
}

/// What a loop is shown of jobs that are ready, that hold a place of their key, or that are in lanes.
fn places(case: &mut Case<'_>) {
    use StartPlace::{Held, Lane, Queue, Ready};
    let (pool, of) = (case.pool, Some(KEYS[0]));
    let works = case.waiting_in([
        (0, 1, Ready { tag: 9 }, of),
        (0, 2, Queue, None),
        (0, 3, Held, of),
        (0, 1, Lane, of),
        (0, 2, Ready { tag: 4 }, None),
        (0, 8, Held, of),
        (5, 1, Ready { tag: 1 }, of),
        (-5, 1, Lane, Some(KEYS[1])),
    ]);
    let [late, queued, held, in_lane, early, delayed, worse, other] = works.clone();
    let all = [queued.clone(), early.clone(), held.clone(), late.clone(), worse.clone()];
    case.expect_starts("in turn", (demand(9), 7), &all, Some(8));
    let ready_first = Demand { ready_first: true, ..demand(9) };
    let others = [early.clone(), queued.clone(), late.clone(), held.clone(), worse.clone()];
    case.expect_starts("the other way round", (ready_first, 7), &others, Some(8));
    case.expect_starts("what comes first", (demand(3), 7), &all[..3], Some(1));
    let key = |case: &mut Case<'_>, work: &(StartKey, Spec)| {
        let facts = case.backend.facts(&[work.1.work_id]);
        facts.map(|facts| facts[0].as_ref()?.pending_start.map(parts))
    };
    for (what, work) in [("held", &held), ("ready", &late), ("in a lane", &in_lane)] {
        let told = key(case, work);
        case.expect(what, told, Some(parts(work.0)));
    }
    let lanes = |case: &mut Case<'_>| {
        let batch = case.batch(demand(9), 7);
        batch.map(|batch| batch.starts.iter().map(|row| row.lane).collect::<Vec<_>>())
    };
    let none = Some(LaneRow::default());
    let told = lanes(case);
    case.expect("lanes without a row", told, vec![None, None, none, none, none]);
    let row = LaneRow { holders: 3, waiting: 1, tag: 9, ..LaneRow::default() };
    case.commit(vec![Change::PutLane { pool, key: WorkKey::new(KEYS[0]), row: Some(row) }]);
    let told = lanes(case);
    case.expect("lanes with a row", told, vec![None, None, Some(row), Some(row), Some(row)]);
    let order = [&early, &late, &queued, &held, &delayed, &worse, &in_lane, &other];
    let order = order.map(|(key, spec)| (*key, spec.work_id)).to_vec();
    let told = case.backend.pending_starts(pool, None, StartKey::END, 9);
    case.expect("in the list", told, order.clone());
    for behind in 0..order.len() {
        let told = case.backend.pending_starts(pool, Some(order[behind].0), StartKey::END, 2);
        let expected = order[behind + 1..].iter().take(2).copied().collect();
        case.expect("a part of the list", told, expected);
        let told = case.backend.pending_starts(pool, None, order[behind].0, 9);
        case.expect("the list before one", told, order[..behind].to_vec());
    }
    let told = case.backend.counts(pool, &Cursors::default());
    let told = told.map(|counts| (counts.waiting, counts.unregistered, counts.oldest_due));
    case.expect("their number", told, (8, 0, Some(at(1))));

    // The priority is changed and changed back: the job keeps its tag, and has the place that it had.
    let moves = |case: &mut Case<'_>, work: &(StartKey, Spec), to: StartKey| {
        let (work_id, from) = (work.1.work_id, work.0);
        case.commit(vec![Change::MovePendingStart { work_id, pool, from, to }]);
        (to, work.1.clone())
    };
    let better = StartKey { priority: Priority::new(-9), ..late.0 };
    let moved = moves(case, &late, better);
    case.expect_starts("a better priority", (demand(1), 7), std::slice::from_ref(&moved), Some(1));
    let late = moves(case, &moved, late.0);
    case.expect_starts("as it was", (demand(9), 7), &all, Some(8));
    // A job whose function is not registered keeps what it waits for.
    let seq = case.script.next_seq();
    let aside = StartKey { seq, segment: Segment::UNREGISTERED, ..held.0 };
    let held = moves(case, &held, aside);
    let told = case.backend.unregistered(pool, None, 9);
    let told = told.map(|rows| rows.iter().map(|(key, _)| parts(*key)).collect());
    case.expect("unregistered", told, vec![parts(aside)]);
    case.start(&[queued, late, worse]);
    case.expect_starts("the others", (demand(9), 7), &[early], Some(8));
    moves(case, &held, StartKey { seq: seq + 1, ..all[2].0 });
    case.script.next_seq();
}

/// The jobs in lanes, which leave them and come back.
fn lanes(case: &mut Case<'_>) {
    let pool = case.pool;
    let mut jobs: Vec<(StartKey, Spec)> = Vec::new();
    for _ in 0..3 {
        jobs.extend(case.waiting_in(KEYS.map(|key| (0, 1, StartPlace::Lane, Some(key)))));
    }
    case.expect_starts("nothing is shown", (demand(9), 9), &[], None);
    let check = |case: &mut Case<'_>, what: &str, jobs: &[(StartKey, Spec)]| {
        for key in KEYS {
            for limit in [0, 1, 2, 9] {
                let told = case.backend.lane_jobs(pool, &WorkKey::new(key), limit);
                let told = told.map(|rows| {
                    rows.into_iter().map(|(key, spec)| (parts(key), spec)).collect::<Vec<_>>()
                });
                let of_key = jobs.iter().filter(|(_, spec)| spec.key() == Some(key));
                let of_key = of_key.map(|(key, spec)| (parts(*key), spec.clone()));
                let name = format!("{what}, {limit} of a key of {} bytes", key.len());
                case.expect(&name, told, of_key.take(limit).collect());
            }
        }
    };
    check(case, "all", &jobs);
    let ready = |tag, key: StartKey| key.in_place(StartPlace::Ready { tag });
    let work = |job: &(StartKey, Spec), from, to| {
        let work_id = job.1.work_id;
        Change::MovePendingStart { work_id, pool, from, to }
    };
    let first = jobs[0].clone();
    let key = WorkKey::new(KEYS[0]);
    for round in 1..4 {
        let out = ready(round, first.0);
        case.commit(vec![work(&first, first.0, out)]);
        check(case, "one has left", &jobs[1..]);
        let shown = [(out, first.1.clone())];
        case.expect_starts("it is ready", (demand(9), 9), &shown, None);
        case.commit(vec![work(&first, out, first.0)]);
        check(case, "it is back", &jobs);
        // The row goes, and the jobs stay.
        let row = Some(LaneRow { tag: round, ..LaneRow::default() });
        for row in [row, None] {
            case.commit(vec![Change::PutLane { pool, key: key.clone(), row }]);
            let told = case.backend.lanes(pool, &[key.clone(), WorkKey::new(KEYS[1])]);
            case.expect("the row", told, vec![row, None]);
            check(case, "with another row", &jobs);
        }
    }
    // It keeps its place when its priority changes, and is replaced in it.
    let to = StartKey { priority: Priority::HIGH, ..first.0 };
    case.commit(vec![work(&first, first.0, to)]);
    jobs[0].0 = to;
    check(case, "another priority", &jobs);
    let head = SpecHead { enqueued_at: at(5), ..SpecHead::clone(&first.1) };
    let spec = Spec::keyed(first.1.work_id, head, KEYS[0], 9, b"new");
    let later = StartKey { segment: at(8), ..to };
    case.commit(vec![Change::ReplaceWork { spec: spec.clone(), from: to, to: later }]);
    jobs[0] = (later, spec);
    check(case, "replaced", &jobs);
    let rows: Vec<_> = (1..).zip(KEYS).collect();
    let put = |(tag, key): &(u64, &[u8])| {
        let row = Some(LaneRow { tag: *tag, ..LaneRow::default() });
        Change::PutLane { pool, key: WorkKey::new(key), row }
    };
    case.commit(rows.iter().map(put).collect());
    let mut expected: Vec<_> = rows
        .iter()
        .map(|(tag, key)| (WorkKey::new(key), LaneRow { tag: *tag, ..LaneRow::default() }))
        .collect();
    expected.sort_by(|(key, _), (other, _)| key.cmp(other));
    for limit in [1, 3, 8, 9] {
        let told = lane_pages(case.backend, pool, limit);
        case.expect("all rows, in pages", told, expected.clone());
    }
    // All leave for good.
    let gone = std::mem::take(&mut jobs);
    let moves = (1..).zip(&gone).map(|(tag, job)| work(job, job.0, ready(tag, job.0)));
    case.commit(moves.collect());
    check(case, "all have left", &[]);
    let told = case.backend.counts(pool, &Cursors::default()).map(|counts| counts.waiting);
    case.expect("their number", told, gone.len() as u64);
}

fn running(case: &mut Case<'_>) {
    let works = case.waiting([1; 6]);
    let [late, first, early, again, ends, waits] = &works;
    let one = std::slice::from_ref;
    case.start_at(5, one(late));
    // Jobs that started together are ordered by id.
    case.start_at(2, &[again.clone(), early.clone(), ends.clone()]);
    case.start_at(1, one(first));
    // A finished attempt occupies its slot until it is handled; a job that waits for its retry does not.
    case.finish(one(early), 6, Retry::No);
    let completion = Some(case.finish(one(ends), 6, Retry::At(at(9)))[0]);
    let (work_id, pool, key) = (ends.1.work_id, case.pool, case.start_key(0, 9));
    let history = History::default();
    case.commit(vec![Change::RetryWork { work_id, pool, completion, key, attempts: 1, history }]);
    let place = |millis, work: &(StartKey, Spec)| (at(millis), work.1.work_id);
    let places = [place(1, first), place(2, early), place(2, again), place(5, late)];
    let all = Some(pool);
    let told = case.backend.running_places(all, None, 9);
    case.expect("all of a pool", told, places.to_vec());
    for (behind, limit) in [(0_usize, 2), (1, 2), (2, 1), (3, 9), (4, 9)] {
        let after = behind.checked_sub(1).map(|last| places[last]);
        let told = case.backend.running_places(all, after, limit);
        let expected = places[behind..].iter().copied().take(limit).collect();
        case.expect(&format!("{limit} behind the first {behind}"), told, expected);
    }
    // The place to continue after need not belong to a row.
    let told = case.backend.running_places(all, Some(place(2, ends)), 9);
    case.expect("behind one that is gone", told, places[3..].to_vec());
    let told = case.backend.running_places(all, Some(place(2, waits)), 9);
    case.expect("behind one that was never there", told, places[3..].to_vec());
    let told = case.backend.running_places(None, Some(place(1, first)), usize::MAX);
    let told = told.map(|told| told.into_iter().filter(|place| places.contains(place)).collect());
    case.expect("among those of all pools", told, places[1..].to_vec());
}

/// A job in one of the states of the table in ARCHITECTURE.md.
struct State {
    name: &'static str,
    work_id: WorkId,
    /// The facts that the tables have about it.
    fact: Option<WorkFact>,
}

fn every_state(case: &mut Case<'_>) -> Vec<State> {
    let works = case.waiting([1; 10]);
    let pool = case.pool;
    let mut states = Vec::new();
    let running = |spec: &Spec| WorkFact {
        running: Some(Running { run: 1, started: at(1), generation: STARTED_BY }),
        runs: 1,
        ..WorkFact::new(spec.clone())
    };
    let mut put = |name, (_, spec): &(StartKey, Spec), fact| {
        states.push(State { name, work_id: spec.work_id, fact });
    };
    let [s1, s2, s3, s5, s7, s8, s9, s10, s12, gone] = &works;
    case.start(&[s2, s3, s5, s8, s9, s10, s12, gone].map(Clone::clone));
    let again = Retry::At(at(8));
    let one = std::slice::from_ref;

    let waits = |work: &(StartKey, Spec)| WorkFact {
        pending_start: Some(work.0),
        ..WorkFact::new(work.1.clone())
    };
    put("S1 enqueued", s1, Some(waits(s1)));
    put("S2 running", s2, Some(running(&s2.1)));

    let key = case.finish(one(s3), 3, Retry::No)[0];
    let completing = |spec, key, retry| WorkFact {
        attempts: 1,
        pending_completion: Some((key, retry)),
        ..running(spec)
    };
    put("S3 completing, final", s3, Some(completing(&s3.1, key, false)));
    let key = case.finish(one(s5), 3, again)[0];
    put("S5 completing, will retry", s5, Some(completing(&s5.1, key, true)));

    let key = case.cancel(one(s7), 3)[0];
    put("S7 cancel pending", s7, Some(WorkFact { pending_cancelation: Some(key), ..waits(s7) }));
    let key = case.cancel(one(s8), 3)[0];
    let fact = WorkFact { pending_cancelation: Some(key), ..running(&s8.1) };
    put("S8 cancel running", s8, Some(fact));

    let completion = case.finish(one(s9), 3, again)[0];
    for (name, work) in [("S9 canceled, retry decided", s9), ("S12 canceled, still running", s12)] {
        let key = case.cancel(one(work), 3)[0];
        case.commit(vec![Change::MarkCanceled { work_id: work.1.work_id, pool, key }]);
        let fact = match name.starts_with("S9") {
            true => completing(&work.1, completion, true),
            false => running(&work.1),
        };
        put(name, work, Some(WorkFact { canceled: true, ..fact }));
    }

    let completion = Some(case.finish(one(s10), 3, again)[0]);
    let key = case.start_key(0, 8);
    let work_id = s10.1.work_id;
    let history = History::from_iter([FailedAttempt {
        attempt: 1,
        started: at(1).time(),
        ended: at(3).time(),
        kind: FailureKind::Error,
        message: "no luck".into(),
    }]);
    let after = history.clone();
    case.commit(vec![Change::RetryWork { work_id, pool, completion, key, attempts: 1, history }]);
    let waits = waits(&(key, s10.1.clone()));
    let fact = WorkFact { attempts: 1, runs: 1, history: after, ..waits };
    put("S10 enqueued again", s10, Some(fact));

    case.finish(one(gone), 3, Retry::No);
    let spec = gone.1.clone();
    let finished = Finished {
        work_id: spec.work_id,
        pool,
        function: spec.function,
        outcome: Outcome::Success(Payload::NULL),
        attempts: 1,
        enqueued_at: spec.enqueued_at,
        started: Some(at(2)),
        finished_at: at(9),
        details: None,
    };
    case.commit(vec![Change::CompleteWork { finished: Arc::new(finished), spec }]);
    put("completed", gone, None);
    states
}
