//! The states of a job (see the state table in ARCHITECTURE.md) through the actors.
//!
//! Time is paused: it moves only when everything waits, straight to the next timer. Nothing here sleeps to wait for
//! something; actions wait at gates, and tests wait for what actions and handles tell them.

use std::future::{Future, IntoFuture};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::{PHASES, Tables, on_each_store, run_in_turn, steps};
use actix_workpool::testing::Clock;
use actix_workpool::{
    Action, ActionContext, CancelAnswer, FailureKind, JoinError, Outcome, PoolConfig,
    RetryBehavior, Runtime, RuntimeBuilder, WorkError, WorkHandle, WorkId, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// What actions do, and what they tell.

/// What one run of a [`Script`] waits for, and how it ends.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Run(Wait, End);

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Wait {
    Nothing,
    Gate,
    /// Until it is told to stop, and then for the gate.
    Told,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum End {
    Return,
    Fail,
    FailForGood,
    Panic,
    Snooze(u64),
    RetryAfter(u64),
    Cancel,
    Never,
}

const RETURN: Run = Run(Wait::Nothing, End::Return);
const FAIL: Run = Run(Wait::Nothing, End::Fail);
const RETURN_AT_GATE: Run = Run(Wait::Gate, End::Return);
const FAIL_AT_GATE: Run = Run(Wait::Gate, End::Fail);

/// Does in its n-th run what stands in the n-th place; the last is repeated. Returns its label.
#[derive(Serialize, Deserialize)]
struct Script {
    label: u64,
    runs: Vec<Run>,
}

fn script(label: u64, runs: &[Run]) -> Script {
    Script { label, runs: runs.to_vec() }
}

impl Action for Script {
    const NAME: &'static str = "script";
    type Output = u64;

    async fn run(self, cx: ActionContext) -> Result<u64, WorkError> {
        let lab = cx.data::<Arc<Lab>>();
        let (run, _inside) = lab.enter(self.label, cx.attempt());
        let Run(wait, end) = *self.runs.get(run).or(self.runs.last()).expect("a script has runs");
        if let Wait::Told = wait {
            cx.canceled().await;
            lab.told.send_modify(|told| *told += 1);
        }
        if let Wait::Gate | Wait::Told = wait {
            lab.gate.acquire().await.expect("the gate stays").forget();
        }
        match end {
            End::Return => Ok(self.label),
            End::Fail => Err(WorkError::retryable("no luck")),
            End::FailForGood => Err(WorkError::non_retryable("never")),
            End::Panic => panic!("at the disco"),
            End::Snooze(millis) => Err(WorkError::snooze(ms(millis))),
            End::RetryAfter(millis) => Err(WorkError::retry_after(ms(millis), "busy")),
            End::Cancel => Err(WorkError::canceled()),
            End::Never => std::future::pending().await,
        }
    }
}

/// A function that is not registered everywhere.
#[derive(Serialize, Deserialize)]
struct Rare;

impl Action for Rare {
    const NAME: &'static str = "rare";
    type Output = u64;

    async fn run(self, _: ActionContext) -> Result<u64, WorkError> {
        Ok(1)
    }
}

/// Does nothing. Time passes while it waits to be due.
#[derive(Serialize, Deserialize)]
struct Tick;

impl Action for Tick {
    const NAME: &'static str = "tick";
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        Ok(())
    }
}

/// Where scripts say what they do, and where their gate is.
struct Lab {
    starts: watch::Sender<Vec<Start>>,
    /// The labels of runs that ended or were dropped, in order.
    ended: watch::Sender<Vec<u64>>,
    /// How many runs were told to stop.
    told: watch::Sender<usize>,
    gate: Semaphore,
    inside: AtomicUsize,
    /// How many runs may be inside when one starts.
    limit: AtomicUsize,
    /// Starts beyond the limit: how many were inside, and the limit.
    exceeded: Mutex<Vec<(usize, usize)>>,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    label: u64,
    attempt: u32,
    at: Instant,
}

struct Inside {
    lab: Arc<Lab>,
    label: u64,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.lab.inside.fetch_sub(1, Ordering::SeqCst);
        self.lab.ended.send_modify(|ended| ended.push(self.label));
    }
}

impl Lab {
    fn new() -> Arc<Lab> {
        Arc::new(Lab {
            starts: watch::Sender::new(Vec::new()),
            ended: watch::Sender::new(Vec::new()),
            told: watch::Sender::new(0),
            gate: Semaphore::new(0),
            inside: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            exceeded: Mutex::default(),
        })
    }

    /// Notes a start. Says how many earlier runs of this label there were.
    fn enter(self: &Arc<Self>, label: u64, attempt: u32) -> (usize, Inside) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        let limit = self.limit.load(Ordering::SeqCst);
        if inside > limit {
            self.exceeded.lock().unwrap().push((inside, limit));
        }
        let earlier = self.starts().iter().filter(|start| start.label == label).count();
        let start = Start { label, attempt, at: Instant::now() };
        self.starts.send_modify(|starts| starts.push(start));
        (earlier, Inside { lab: self.clone(), label })
    }

    fn starts(&self) -> Vec<Start> {
        self.starts.borrow().clone()
    }

    fn labels(&self) -> Vec<u64> {
        self.starts().iter().map(|start| start.label).collect()
    }

    fn attempts(&self) -> Vec<u32> {
        self.starts().iter().map(|start| start.attempt).collect()
    }

    /// How long it was from each start to the next.
    fn gaps(&self) -> Vec<Duration> {
        self.starts().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    fn open(&self, runs: usize) {
        self.gate.add_permits(runs);
    }

    async fn until_started(&self, runs: usize) {
        self.starts.subscribe().wait_for(|starts| starts.len() >= runs).await.unwrap();
    }

    async fn until_ended(&self, runs: usize) {
        self.ended.subscribe().wait_for(|ended| ended.len() >= runs).await.unwrap();
    }

    async fn until_told(&self, runs: usize) {
        self.told.subscribe().wait_for(|told| *told >= runs).await.unwrap();
    }

    fn assert_limit_kept(&self) {
        let exceeded = self.exceeded.lock().unwrap();
        assert!(exceeded.is_empty(), "(running, limit) at starts: {exceeded:?}");
    }
}

/// A runtime with the pool under test, and one beside it that time passes with.
struct Bench {
    runtime: Runtime,
    pool: Workpool,
    lab: Arc<Lab>,
}

fn builder(lab: &Arc<Lab>, config: PoolConfig) -> RuntimeBuilder {
    crate::common::builder()
        .seed(7)
        .data(lab.clone())
        .action::<Script>()
        .action::<Tick>()
        .pool("pool", config)
        .pool("time", PoolConfig::default())
}

impl Bench {
    async fn new(config: PoolConfig) -> Bench {
        Bench::build(config, |builder| builder).await
    }

    async fn build(
        config: PoolConfig,
        more: impl FnOnce(RuntimeBuilder) -> RuntimeBuilder,
    ) -> Bench {
        let lab = Lab::new();
        let runtime = more(builder(&lab, config)).start().await.unwrap();
        let pool = runtime.pool("pool").unwrap();
        Bench { runtime, pool, lab }
    }

    async fn enqueue(&self, label: u64, runs: &[Run]) -> WorkHandle<u64> {
        self.pool.enqueue(script(label, runs)).await.unwrap()
    }

    /// Enqueues with the default retry policy: five attempts.
    async fn enqueue_retried(&self, label: u64, runs: &[Run]) -> WorkHandle<u64> {
        let retry = RetryBehavior::default();
        self.pool.enqueue(script(label, runs)).retry(retry).await.unwrap()
    }

    /// Lets time pass; what was due in it has run to its next wait.
    async fn pass(&self, time: Duration) {
        let beside = self.runtime.pool("time").unwrap();
        beside.enqueue(Tick).run_after(time).await.unwrap().join().await.unwrap();
    }
}

fn limit(attempts: usize) -> PoolConfig {
    PoolConfig::default().max_parallelism(attempts)
}

/// Waits until the job waits to be tried again after this many attempts.
async fn until_pending(work: &WorkHandle<u64>, attempts: u32) {
    let mut changes = work.watch();
    loop {
        match changes.next().await {
            Some(WorkStatus::Pending { previous_attempts, .. })
                if previous_attempts == attempts =>
            {
                return;
            }
            Some(_) => {}
            None => panic!("{work:?} ended before it was pending after {attempts} attempts"),
        }
    }
}

async fn assert_pending(work: &WorkHandle<u64>, attempts: u32) {
    match work.status().await.unwrap() {
        WorkStatus::Pending { previous_attempts, due: Some(_) } => {
            assert_eq!(previous_attempts, attempts);
        }
        other => panic!("{other:?} is not pending"),
    }
}

async fn assert_running(work: &WorkHandle<u64>, attempts: u32) {
    match work.status().await.unwrap() {
        WorkStatus::Running { previous_attempts, .. } => assert_eq!(previous_attempts, attempts),
        other => panic!("{other:?} is not running"),
    }
}

/// Its outcome in words, and how many attempts counted.
async fn finished(work: &WorkHandle<u64>) -> (&'static str, u32) {
    match work.status().await.unwrap() {
        WorkStatus::Finished(row) => (row.outcome().as_str(), row.attempts()),
        other => panic!("{other:?} is not finished"),
    }
}

async fn canceled(work: &WorkHandle<u64>) -> u32 {
    assert_eq!(work.join().await, Err(JoinError::Canceled));
    let (outcome, attempts) = finished(work).await;
    assert_eq!(outcome, "canceled");
    attempts
}

/// The kind of the failure it ended with, and how many attempts counted.
async fn failed(work: &WorkHandle<u64>) -> (FailureKind, u32) {
    match work.join().await {
        Err(JoinError::Failed { attempts, failure }) => (failure.kind, attempts),
        other => panic!("{other:?} is no failure"),
    }
}

/// The pool is empty, and its counters say what happened:
/// attempts completed, jobs succeeded, failed, failures retried, jobs canceled.
async fn assert_counters(bench: &Bench, expected: [u64; 5]) {
    let seen = bench.pool.diagnostics().await.unwrap();
    assert_eq!((seen.waiting, seen.running, seen.completing, seen.canceling), (0, 0, 0, 0));
    assert_eq!(bench.pool.pending(), 0);
    let report = seen.report;
    let counters =
        [report.completed, report.succeeded, report.failed, report.retries, report.canceled];
    assert_eq!(counters, expected);
}

// One state after the other.

#[test]
fn s1_enqueued_is_pending_while_no_slot_is_free() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let _first = bench.enqueue(1, &[RETURN_AT_GATE]).await;
            let second = bench.enqueue(2, &[RETURN]).await;
            bench.pass(MINUTE).await;
            assert_pending(&second, 0).await;
            assert_eq!(bench.lab.labels(), [1]);
        });
    });
}

#[test]
fn s1_enqueued_becomes_s2() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[RETURN_AT_GATE]).await;
            bench.lab.until_started(1).await;
            assert_running(&work, 0).await;
            let running = bench.pool.running().await.unwrap();
            assert_eq!(running.len(), 1);
            assert_eq!((running[0].work_id, running[0].attempt), (work.id(), 1));
        });
    });
}

#[test]
fn s2_running_stays_s2_until_it_ends() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[RETURN_AT_GATE]).await;
            bench.pass(60 * MINUTE).await;
            assert_running(&work, 0).await;
            assert_eq!(bench.lab.attempts(), [1]);
        });
    });
}

#[test]
fn s2_success_is_gone_with_its_result() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(42, &[RETURN_AT_GATE]).await;
            bench.lab.until_started(1).await;
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(42));
            assert_eq!(finished(&work).await, ("success", 1));
            assert_eq!(work.join().await, Ok(42), "joining again answers the same");
            assert_counters(&bench, [1, 1, 0, 0, 0]).await;
        });
    });
}

#[test]
fn s2_failed_without_retry_is_gone() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[FAIL, RETURN]).await;
            assert_eq!(failed(&work).await, (FailureKind::Error, 1));
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.attempts(), [1]);
            assert_counters(&bench, [1, 0, 1, 0, 0]).await;
        });
    });
}

#[test]
fn s2_failed_for_good_is_gone_though_it_may_be_retried() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work =
                bench.enqueue_retried(1, &[Run(Wait::Nothing, End::FailForGood), RETURN]).await;
            assert_eq!(failed(&work).await, (FailureKind::Error, 1));
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.attempts(), [1]);
        });
    });
}

#[test]
fn s2_that_cancels_itself_is_gone() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[Run(Wait::Nothing, End::Cancel), RETURN]).await;
            assert_eq!(canceled(&work).await, 1);
            assert_counters(&bench, [1, 0, 0, 0, 1]).await;
        });
    });
}

#[test]
fn s2_failed_with_no_attempt_left_is_gone() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[FAIL]).await;
            assert_eq!(failed(&work).await, (FailureKind::Error, 5));
            bench.pass(60 * MINUTE).await;
            assert_eq!(bench.lab.attempts(), [1, 2, 3, 4, 5]);
            assert_counters(&bench, [5, 0, 1, 4, 0]).await;
        });
    });
}

#[test]
fn s3_final_frees_its_slot_for_the_next() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            bench.lab.limit.store(1, Ordering::SeqCst);
            for (label, end) in [End::Return, End::Fail, End::FailForGood, End::Panic, End::Cancel]
                .into_iter()
                .enumerate()
            {
                bench.enqueue(label as u64, &[Run(Wait::Nothing, end)]).await;
            }
            let last = bench.enqueue(9, &[RETURN]).await;
            assert_eq!(last.join().await, Ok(9));
            assert_eq!(bench.lab.labels(), [0, 1, 2, 3, 4, 9]);
            bench.lab.assert_limit_kept();
            assert_counters(&bench, [6, 2, 3, 0, 1]).await;
        });
    });
}

#[test]
fn s5_will_retry_becomes_s10_and_frees_its_slot() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[FAIL_AT_GATE, RETURN]).await;
            let other = bench.enqueue(2, &[RETURN_AT_GATE]).await;
            bench.lab.until_started(1).await;
            bench.lab.open(1);
            bench.lab.until_started(2).await;
            assert_pending(&work, 1).await;
            assert_running(&other, 0).await;
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(bench.lab.labels(), [1, 2, 1]);
            assert_counters(&bench, [3, 2, 0, 1, 0]).await;
        });
    });
}

#[test]
fn s10_re_enqueued_becomes_s2_with_its_attempts() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[FAIL, FAIL, RETURN_AT_GATE]).await;
            bench.lab.until_started(3).await;
            assert_running(&work, 2).await;
            assert_eq!(bench.lab.attempts(), [1, 2, 3]);
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(finished(&work).await, ("success", 3));
            assert_counters(&bench, [3, 1, 0, 2, 0]).await;
        });
    });
}

#[test]
fn s7_cancel_pending_is_canceled_and_never_starts() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let first = bench.enqueue(1, &[RETURN_AT_GATE]).await;
            let waits_for_a_slot = bench.enqueue(2, &[RETURN]).await;
            let waits_for_its_time =
                bench.pool.enqueue(script(3, &[RETURN])).run_after(MINUTE).await.unwrap();
            for work in [&waits_for_a_slot, &waits_for_its_time] {
                assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
                assert_eq!(canceled(work).await, 0);
            }
            bench.lab.open(1);
            assert_eq!(first.join().await, Ok(1));
            bench.pass(2 * MINUTE).await;
            assert_eq!(bench.lab.labels(), [1]);
            assert_counters(&bench, [1, 1, 0, 0, 2]).await;
        });
    });
}

#[test]
fn s7_cancel_races_a_start_and_one_of_them_wins() {
    on_each_store(|| {
        for phase in PHASES {
            run_in_turn(async move {
                let bench = Bench::new(limit(1)).await;
                let work =
                    bench.pool.do_enqueue(script(1, &[Run(Wait::Told, End::Cancel)])).unwrap();
                bench.lab.open(1);
                steps(phase).await;
                assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested, "phase {phase}");
                let attempts = canceled(&work).await;
                assert_eq!(bench.lab.starts().len(), attempts as usize, "phase {phase}");
            });
        }
    });
}

#[test]
fn s8_cancel_running_becomes_s12_and_the_attempt_is_told() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[Run(Wait::Told, End::Cancel)]).await;
            bench.lab.until_started(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            bench.lab.until_told(1).await;
            assert_running(&work, 0).await;
            bench.lab.open(1);
            assert_eq!(canceled(&work).await, 1);
            assert_counters(&bench, [1, 0, 0, 0, 1]).await;
        });
    });
}

#[test]
fn s12_canceled_still_running_stays_s12() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[Run(Wait::Told, End::Return)]).await;
            bench.lab.until_started(1).await;
            work.cancel().await.unwrap();
            bench.pass(60 * MINUTE).await;
            assert_running(&work, 0).await;
            assert_eq!(bench.lab.attempts(), [1]);
        });
    });
}

#[test]
fn s12_success_is_a_success() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(5, &[Run(Wait::Told, End::Return)]).await;
            bench.lab.until_started(1).await;
            work.cancel().await.unwrap();
            bench.lab.until_told(1).await;
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(5));
            assert_counters(&bench, [1, 1, 0, 0, 0]).await;
        });
    });
}

#[test]
fn s12_that_fails_panics_or_snoozes_is_canceled_and_does_not_run_again() {
    on_each_store(|| {
        for (end, counted) in [
            (End::Fail, 1),
            (End::Panic, 1),
            (End::RetryAfter(5), 1),
            (End::Cancel, 1),
            (End::Snooze(5), 0),
        ] {
            run_in_turn(async move {
                let bench = Bench::new(limit(1)).await;
                let work = bench.enqueue_retried(1, &[Run(Wait::Told, end), RETURN]).await;
                bench.lab.until_started(1).await;
                work.cancel().await.unwrap();
                bench.lab.until_told(1).await;
                bench.lab.open(1);
                assert_eq!(canceled(&work).await, counted);
                bench.pass(MINUTE).await;
                assert_eq!(bench.lab.attempts(), [1]);
            });
        }
    });
}

#[test]
fn s9_a_cancel_that_races_a_retry_wins() {
    on_each_store(|| {
        for phase in PHASES {
            for end in [End::Fail, End::Snooze(5_000)] {
                run_in_turn(async move {
                    let bench = Bench::new(limit(1)).await;
                    let work =
                        bench.enqueue_retried(1, &[Run(Wait::Gate, end), RETURN_AT_GATE]).await;
                    bench.lab.until_started(1).await;
                    bench.lab.open(1);
                    steps(phase).await;
                    assert_eq!(
                        work.cancel().await.unwrap(),
                        CancelAnswer::Requested,
                        "phase {phase}"
                    );
                    let attempts = canceled(&work).await;
                    assert!(attempts <= 1, "phase {phase}");
                    bench.pass(MINUTE).await;
                    assert_eq!(
                        bench.lab.starts().len(),
                        1,
                        "phase {phase}: canceled, not run again"
                    );
                });
            }
        }
    });
}

#[test]
fn s10_cancel_during_the_retry_wait_is_canceled() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[FAIL, RETURN]).await;
            until_pending(&work, 1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(canceled(&work).await, 1);
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.attempts(), [1]);
            assert_counters(&bench, [1, 0, 0, 1, 1]).await;
        });
    });
}

#[test]
fn a_second_cancel_changes_nothing() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[Run(Wait::Told, End::Cancel)]).await;
            bench.lab.until_started(1).await;
            // Together they come in one group: the second sees what the first wrote.
            let (first, second) = tokio::join!(work.cancel(), work.cancel());
            assert_eq!(first.unwrap(), CancelAnswer::Requested);
            assert_eq!(second.unwrap(), CancelAnswer::AlreadyRequested);
            bench.lab.until_told(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyRequested);
            bench.lab.open(1);
            assert_eq!(canceled(&work).await, 1);
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyFinished);
            assert_counters(&bench, [1, 0, 0, 0, 1]).await;
        });
    });
}

#[test]
fn a_cancel_of_a_finished_or_unknown_job_changes_nothing() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[RETURN]).await;
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyFinished);
            assert_eq!(work.join().await, Ok(1));
            let unknown = bench.pool.work::<u64>(WorkId::from_uuid(uuid::Uuid::from_u128(1)));
            assert_eq!(unknown.cancel().await.unwrap(), CancelAnswer::NotFound);
            assert_eq!(unknown.status().await.unwrap(), WorkStatus::Unknown);
            assert_eq!(unknown.join().await, Err(JoinError::Unknown(unknown.id())));
            assert_counters(&bench, [1, 1, 0, 0, 0]).await;
        });
    });
}

#[test]
fn cancel_all_reaches_jobs_in_every_state() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(2)).await;
            let in_retry = bench.enqueue_retried(1, &[FAIL, RETURN]).await;
            until_pending(&in_retry, 1).await;
            let told = [Run(Wait::Told, End::Cancel)];
            let running = [bench.enqueue(2, &told).await, bench.enqueue(3, &told).await];
            let waiting = bench.enqueue(4, &[RETURN]).await;
            bench.lab.until_started(3).await;
            assert_eq!(bench.pool.cancel_all().await.unwrap(), 4);
            bench.lab.open(2);
            for work in [&in_retry, &running[0], &running[1], &waiting] {
                canceled(work).await;
            }
            assert_eq!(bench.lab.labels(), [1, 2, 3]);
            assert_counters(&bench, [3, 0, 0, 1, 4]).await;
        });
    });
}

#[test]
fn a_watch_shows_each_state_of_a_job() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1).paused(true)).await;
            let work = bench.enqueue_retried(1, &[FAIL_AT_GATE, RETURN_AT_GATE]).await;
            let mut changes = work.watch();
            let pending = |status, attempts| matches!(status, Some(WorkStatus::Pending { previous_attempts, .. }) if previous_attempts == attempts);
            let running = |status, attempts| matches!(status, Some(WorkStatus::Running { previous_attempts, .. }) if previous_attempts == attempts);
            assert!(pending(changes.next().await, 0));
            bench.pool.resume().await.unwrap();
            assert!(running(changes.next().await, 0));
            bench.lab.open(1);
            assert!(pending(changes.next().await, 1));
            assert!(running(changes.next().await, 1));
            bench.lab.open(1);
            match changes.next().await {
                Some(WorkStatus::Finished(row)) => {
                    assert!(matches!(row.outcome(), Outcome::Success(_)));
                    assert_eq!(row.attempts(), 2);
                }
                other => panic!("{other:?} is not the end"),
            }
            assert_eq!(changes.next().await, None);
        });
    });
}

// Order and limits.

#[test]
fn jobs_run_in_the_order_in_which_they_were_enqueued() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            for label in 0..10 {
                bench.enqueue(label, &[RETURN]).await;
            }
            let batch = (10..30).map(|label| script(label, &[RETURN]));
            let batch = bench.pool.enqueue_batch(batch).await.unwrap();
            assert!(batch.join().await.iter().all(Result::is_ok));
            assert_eq!(bench.lab.labels(), (0..30).collect::<Vec<_>>());
        });
    });
}

#[test]
fn jobs_run_in_the_order_in_which_they_are_due() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            for delay in [30, 10, 20, 0] {
                let work = bench.pool.enqueue(script(delay, &[RETURN])).run_after(ms(delay));
                work.await.unwrap();
            }
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.labels(), [0, 10, 20, 30]);
        });
    });
}

#[test]
fn all_slots_are_used_and_none_beyond() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(3)).await;
            bench.lab.limit.store(3, Ordering::SeqCst);
            let works = (0..12).map(|label| script(label, &[RETURN_AT_GATE]));
            let works = bench.pool.enqueue_batch(works).await.unwrap();
            for started in 3..=12 {
                bench.lab.until_started(started).await;
                bench.pass(ms(1)).await;
                assert_eq!(bench.lab.starts().len(), started);
                bench.lab.open(1);
            }
            bench.lab.open(2);
            assert!(works.join().await.iter().all(Result::is_ok));
            bench.lab.assert_limit_kept();
        });
    });
}

#[test]
fn a_limit_that_is_lowered_is_kept_by_the_next_starts() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(4)).await;
            let works = (0..8).map(|label| script(label, &[RETURN_AT_GATE]));
            let works = bench.pool.enqueue_batch(works).await.unwrap();
            bench.lab.until_started(4).await;
            bench.pool.update(limit(1)).await.unwrap();
            bench.lab.limit.store(1, Ordering::SeqCst);
            bench.lab.open(3);
            bench.lab.until_ended(3).await;
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.starts().len(), 4, "one still runs");
            bench.lab.open(5);
            assert!(works.join().await.iter().all(Result::is_ok));
            bench.lab.assert_limit_kept();
        });
    });
}

#[test]
fn a_limit_of_zero_starts_nothing_until_it_is_raised() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(2)).await;
            let works = (0..6).map(|label| script(label, &[RETURN_AT_GATE]));
            let works = bench.pool.enqueue_batch(works).await.unwrap();
            bench.lab.until_started(2).await;
            bench.pool.update(limit(0)).await.unwrap();
            bench.lab.open(2);
            bench.lab.until_ended(2).await;
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.starts().len(), 2);
            bench.lab.limit.store(3, Ordering::SeqCst);
            bench.pool.update(limit(3)).await.unwrap();
            bench.lab.until_started(5).await;
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.starts().len(), 5);
            bench.lab.open(4);
            assert!(works.join().await.iter().all(Result::is_ok));
            bench.lab.assert_limit_kept();
        });
    });
}

#[test]
fn a_lowered_limit_holds_from_the_moment_it_is_acknowledged() {
    on_each_store(|| {
        for phase in PHASES {
            run_in_turn(async move {
                let bench = Bench::new(limit(2)).await;
                bench.pool.do_enqueue(script(1, &[RETURN_AT_GATE])).unwrap();
                steps(phase).await;
                // The turn that could start this one and the new limit cross each other.
                bench.pool.do_enqueue(script(2, &[RETURN_AT_GATE])).unwrap();
                bench.pool.update(limit(1)).await.unwrap();
                let running = bench.lab.inside.load(Ordering::SeqCst);
                bench.pass(MINUTE).await;
                let later = bench.lab.inside.load(Ordering::SeqCst);
                assert!(later <= running.max(1), "phase {phase}: {running} ran, then {later}");
            });
        }
    });
}

#[test]
fn a_paused_pool_starts_nothing_and_goes_on_when_it_is_resumed() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(2)).await;
            let running = bench.enqueue(1, &[RETURN_AT_GATE]).await;
            bench.lab.until_started(1).await;
            bench.pool.pause().await.unwrap();
            let waiting = bench.enqueue(2, &[RETURN]).await;
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.labels(), [1]);
            assert_pending(&waiting, 0).await;
            bench.lab.open(1);
            assert_eq!(running.join().await, Ok(1), "what was running goes on");
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.labels(), [1]);
            bench.pool.resume().await.unwrap();
            assert_eq!(waiting.join().await, Ok(2));
        });
    });
}

#[test]
fn a_pool_that_is_paused_cancels_and_does_not_retry_before_it_is_resumed() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let retried = bench.enqueue_retried(1, &[FAIL, RETURN]).await;
            until_pending(&retried, 1).await;
            bench.pool.pause().await.unwrap();
            let unwanted = bench.enqueue(2, &[RETURN]).await;
            unwanted.cancel().await.unwrap();
            assert_eq!(canceled(&unwanted).await, 0);
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.attempts(), [1]);
            bench.pool.resume().await.unwrap();
            assert_eq!(retried.join().await, Ok(1));
        });
    });
}

#[test]
fn nothing_starts_after_a_pause_is_acknowledged() {
    on_each_store(|| {
        for phase in PHASES {
            run_in_turn(async move {
                let bench = Bench::new(limit(2)).await;
                bench.pool.do_enqueue(script(1, &[RETURN_AT_GATE])).unwrap();
                steps(phase).await;
                bench.pool.do_enqueue(script(2, &[RETURN_AT_GATE])).unwrap();
                bench.pool.pause().await.unwrap();
                let before = bench.lab.labels();
                bench.pass(MINUTE).await;
                assert_eq!(bench.lab.labels(), before, "phase {phase}");
            });
        }
    });
}

// Identities.

#[test]
fn an_id_is_enqueued_once() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let id = WorkId::from_uuid(uuid::Uuid::from_u128(7));
            let enqueue =
                |label| bench.pool.enqueue(script(label, &[RETURN_AT_GATE])).id(id).into_future();
            let (first, second) = tokio::join!(enqueue(1), enqueue(2));
            assert_eq!((first.unwrap().id(), second.unwrap().id()), (id, id));
            bench.lab.until_started(1).await;
            let third = enqueue(3).await.unwrap();
            bench.lab.open(9);
            assert_eq!(third.join().await, Ok(1), "the handle is on the job that is there");
            let fourth = enqueue(4).await.unwrap();
            assert_eq!(fourth.join().await, Ok(1), "and on the outcome of the one that was");
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.labels(), [1]);
            assert_counters(&bench, [1, 1, 0, 0, 0]).await;
        });
    });
}

// Time.

#[test]
fn a_delayed_job_never_starts_early() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(100)).await;
            for micros in (0..20_000).step_by(333) {
                // Within any millisecond of the pool's clock.
                tokio::time::advance(Duration::from_micros(7)).await;
                let (delay, before) = (Duration::from_micros(micros), Instant::now());
                let work = bench.pool.enqueue(script(micros, &[RETURN])).run_after(delay);
                assert_eq!(work.await.unwrap().join().await, Ok(micros));
                let waited = bench.lab.starts().last().unwrap().at - before;
                assert!(waited >= delay, "{waited:?} is less than {delay:?}");
                // The pool's clock, tokio's timer and its paused clock each count whole milliseconds.
                assert!(waited <= delay + ms(4), "{waited:?} is much more than {delay:?}");
            }
        });
    });
}

#[test]
fn a_job_that_is_to_run_at_a_time_runs_then_and_one_for_a_past_time_at_once() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let begun = Instant::now();
            let past = SystemTime::now() - MINUTE;
            let at_once = bench.pool.enqueue(script(1, &[RETURN])).run_at(past).await.unwrap();
            assert_eq!(at_once.join().await, Ok(1));
            assert!(begun.elapsed() < ms(5));
            let wall = SystemTime::now();
            let later =
                bench.pool.enqueue(script(2, &[RETURN])).run_at(wall + MINUTE).await.unwrap();
            let not_before = MINUTE - wall.elapsed().unwrap();
            let begun = Instant::now();
            assert_eq!(later.join().await, Ok(2));
            assert!(begun.elapsed() >= not_before);
        });
    });
}

#[test]
fn a_job_that_is_due_earlier_wakes_a_pool_that_waits_for_a_later_one() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let late =
                bench.pool.enqueue(script(1, &[RETURN])).run_after(60 * MINUTE).await.unwrap();
            bench.pass(ms(3)).await;
            let begun = Instant::now();
            assert_eq!(bench.enqueue(2, &[RETURN]).await.join().await, Ok(2));
            assert!(begun.elapsed() < ms(5), "it did not wait for the watchdog");
            assert_eq!(late.join().await, Ok(1));
        });
    });
}

#[test]
fn retries_wait_within_the_bounds_of_their_jitter() {
    on_each_store(|| {
        let mut waits = Vec::new();
        for seed in 0..20 {
            let bounds = run_seeded(seed, |bench| async move {
                let work = bench.enqueue_retried(1, &[FAIL]).await;
                assert_eq!(failed(&work).await, (FailureKind::Error, 5));
                bench.lab.gaps()
            });
            for (retry, waited) in bounds.iter().enumerate() {
                let even = 250.0 * f64::from(1 << retry);
                let waited = waited.as_secs_f64() * 1000.0;
                // The clock counts whole milliseconds.
                let bounds = even * 0.5 - 1.0..even * 1.5 + 4.0;
                assert!(bounds.contains(&waited), "seed {seed}: retry {retry} waited {waited} ms");
            }
            waits.push(bounds);
        }
        waits.dedup();
        assert!(waits.len() > 1, "seeds differ in their jitter");
    });
}

#[test]
fn a_seed_repeats_a_run() {
    on_each_store(|| {
        let run = || {
            run_seeded(11, |bench| async move {
                failed(&bench.enqueue_retried(1, &[FAIL]).await).await;
                bench.lab.gaps()
            })
        };
        let millis = |gaps: Vec<Duration>| gaps.iter().map(Duration::as_millis).collect::<Vec<_>>();
        let (first, second) = (millis(run()), millis(run()));
        for (one, other) in first.iter().zip(&second) {
            // Where in a millisecond the runs begin is not seeded.
            assert!(one.abs_diff(*other) <= 2, "{first:?} and {second:?}");
        }
    });
}

/// Runs a test with this seed and returns what it returns.
fn run_seeded<T: 'static, F: Future<Output = T> + 'static>(
    seed: u64,
    test: impl FnOnce(Bench) -> F + 'static,
) -> T {
    run_in_turn(
        async move { test(Bench::build(limit(1), |builder| builder.seed(seed)).await).await },
    )
}

#[test]
fn a_wait_that_the_function_asks_for_replaces_the_backoff() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench
                .enqueue_retried(1, &[Run(Wait::Nothing, End::RetryAfter(90_000)), RETURN])
                .await;
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(finished(&work).await, ("success", 2));
            let waited = bench.lab.gaps()[0];
            assert!((ms(89_999)..ms(90_004)).contains(&waited), "{waited:?}");
        });
    });
}

#[test]
fn a_snooze_does_not_count() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let snooze = Run(Wait::Nothing, End::Snooze(5_000));
            // No retry policy: a snooze needs none.
            let work = bench.enqueue(1, &[snooze, snooze, snooze, RETURN_AT_GATE]).await;
            bench.lab.until_started(2).await;
            bench.pass(ms(100)).await;
            assert_pending(&work, 0).await;
            bench.lab.until_started(4).await;
            assert_running(&work, 0).await;
            assert_eq!(bench.lab.attempts(), [1, 1, 1, 1]);
            for waited in bench.lab.gaps() {
                assert!((ms(4_999)..ms(5_004)).contains(&waited), "{waited:?}");
            }
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(finished(&work).await, ("success", 1));
            assert_counters(&bench, [1, 1, 0, 0, 0]).await;
        });
    });
}

/// The pool's clock counts whole milliseconds; what begins late in one of them must not end early for that.
#[test]
fn a_snooze_and_an_asked_wait_never_end_early() {
    on_each_store(|| {
        for end in [End::Snooze(5), End::RetryAfter(5)] {
            run_in_turn(async move {
                let clock = Ticking::since(Instant::now(), 0);
                let bench = Bench::build(limit(1), |builder| builder.clock(clock)).await;
                tokio::time::advance(Duration::from_micros(900)).await;
                let _work = bench.enqueue_retried(1, &[Run(Wait::Nothing, end), RETURN]).await;
                bench.lab.until_started(1).await;
                while bench.lab.starts().len() < 2 {
                    steps(20).await;
                    tokio::time::advance(Duration::from_micros(100)).await;
                }
                let waited = bench.lab.gaps()[0];
                assert!(waited >= ms(5), "{waited:?} is less than 5 ms");
            });
        }
    });
}

#[test]
fn an_attempt_that_takes_too_long_is_dropped_counts_and_is_retried() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let retry = RetryBehavior::default().max_attempts(2).initial_backoff(ms(10));
            let never = script(1, &[Run(Wait::Nothing, End::Never)]);
            let work = bench
                .pool
                .enqueue(never)
                .retry(retry)
                .timeout(Duration::from_secs(7))
                .await
                .unwrap();
            bench.lab.until_ended(1).await;
            let waited = bench.lab.starts()[0].at.elapsed();
            assert!((ms(6_999)..ms(7_004)).contains(&waited), "{waited:?}");
            assert_eq!(failed(&work).await, (FailureKind::Timeout, 2));
            bench.lab.until_ended(2).await;
            assert_counters(&bench, [2, 0, 1, 1, 0]).await;
        });
    });
}

#[test]
fn an_attempt_that_ends_in_time_does_not_time_out_nor_does_the_next() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1).attempt_timeout(Duration::from_secs(7))).await;
            let snooze = Run(Wait::Nothing, End::Snooze(4_000));
            let work = bench.enqueue(1, &[snooze, RETURN_AT_GATE]).await;
            bench.lab.until_started(2).await;
            // Past the deadline of the first attempt, within that of the second.
            bench.pass(Duration::from_secs(5)).await;
            assert_running(&work, 0).await;
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(1));
        });
    });
}

#[test]
fn an_abort_drops_a_running_attempt_after_its_grace() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue_retried(1, &[Run(Wait::Nothing, End::Never), RETURN]).await;
            bench.lab.until_started(1).await;
            let begun = Instant::now();
            let answer = work.abort(Duration::from_secs(3)).await.unwrap();
            assert_eq!(answer, CancelAnswer::Requested);
            bench.pass(Duration::from_secs(2)).await;
            assert_running(&work, 0).await;
            assert_eq!(canceled(&work).await, 1);
            let waited = begun.elapsed();
            assert!((ms(2_999)..ms(3_004)).contains(&waited), "{waited:?}");
            assert_eq!(*bench.lab.ended.borrow(), [1], "its future is dropped");
            bench.pass(MINUTE).await;
            assert_eq!(bench.lab.attempts(), [1]);
            assert_counters(&bench, [1, 0, 0, 0, 1]).await;
        });
    });
}

#[test]
fn an_abort_lets_an_attempt_end_within_its_grace() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(6, &[Run(Wait::Told, End::Return)]).await;
            bench.lab.until_started(1).await;
            work.abort(MINUTE).await.unwrap();
            bench.lab.until_told(1).await;
            bench.lab.open(1);
            assert_eq!(work.join().await, Ok(6));
        });
    });
}

#[test]
fn an_abort_comes_after_a_cancel_too() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[Run(Wait::Nothing, End::Never)]).await;
            bench.lab.until_started(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            bench.pass(MINUTE).await;
            assert_running(&work, 0).await;
            let answer = work.abort(Duration::ZERO).await.unwrap();
            assert_eq!(answer, CancelAnswer::AlreadyRequested);
            assert_eq!(canceled(&work).await, 1);
        });
    });
}

#[test]
fn an_abort_of_a_waiting_or_finished_job_is_a_cancel() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let done = bench.enqueue(1, &[RETURN]).await;
            assert_eq!(done.join().await, Ok(1));
            assert_eq!(done.abort(Duration::ZERO).await.unwrap(), CancelAnswer::AlreadyFinished);
            let waiting = bench.pool.enqueue(script(2, &[RETURN])).run_after(MINUTE).await.unwrap();
            assert_eq!(waiting.abort(Duration::ZERO).await.unwrap(), CancelAnswer::Requested);
            assert_eq!(canceled(&waiting).await, 0);
            assert_eq!(bench.lab.labels(), [1]);
        });
    });
}

// Faults.

#[test]
fn a_panic_is_a_failed_attempt_with_its_message() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            let work = bench.enqueue(1, &[Run(Wait::Nothing, End::Panic)]).await;
            let Err(JoinError::Failed { attempts: 1, failure }) = work.join().await else {
                panic!("it failed in its only attempt")
            };
            assert_eq!((failure.kind, &*failure.message), (FailureKind::Panic, "at the disco"));
            let panics_later = Run(Wait::Gate, End::Panic);
            let retried = bench.enqueue_retried(2, &[panics_later, RETURN]).await;
            bench.lab.until_started(2).await;
            bench.lab.open(1);
            assert_eq!(retried.join().await, Ok(2), "the pool goes on");
            assert_counters(&bench, [3, 1, 1, 1, 0]).await;
        });
    });
}

#[test]
fn an_attempt_that_is_returned_at_shutdown_runs_again_without_counting() {
    on_each_store(|| {
        run_in_turn(async {
            let tables = Tables::new();
            let bench = Bench::build(limit(1), |builder| builder.storage(tables.clone())).await;
            let work = bench.enqueue(1, &[Run(Wait::Nothing, End::Never)]).await;
            bench.lab.until_started(1).await;
            let report = bench.runtime.shutdown(Duration::from_secs(3)).await;
            assert_eq!((report.finished, report.returned, report.pending), (0, 1, 1));
            assert_eq!(*bench.lab.ended.borrow(), [1], "its future is dropped");

            let later =
                Bench::build(limit(1).paused(true), |builder| builder.storage(tables)).await;
            let work = later.pool.work::<u64>(work.id());
            assert_pending(&work, 0).await;
            later.pool.resume().await.unwrap();
            later.lab.until_started(1).await;
            assert_eq!(later.lab.attempts(), [1]);
        });
    });
}

#[test]
fn a_retry_wait_goes_on_in_the_next_runtime() {
    on_each_store(|| {
        run_in_turn(async {
            let (tables, begun) = (Tables::new(), Instant::now());
            // One clock for both: that of the wall goes on while time is paused.
            let clock = || Ticking::since(begun, 0);
            let bench =
                Bench::build(limit(1), |builder| builder.clock(clock()).storage(tables.clone()))
                    .await;
            let busy = Run(Wait::Nothing, End::RetryAfter(60_000));
            let work = bench.enqueue_retried(1, &[busy]).await;
            until_pending(&work, 1).await;
            let failed = bench.lab.starts()[0].at;
            bench.runtime.shutdown(Duration::ZERO).await;

            let later =
                Bench::build(limit(1), |builder| builder.clock(clock()).storage(tables)).await;
            let work = later.pool.work::<u64>(work.id());
            assert_pending(&work, 1).await;
            later.lab.until_started(1).await;
            let start = later.lab.starts()[0];
            assert_eq!(start.attempt, 2);
            let waited = start.at - failed;
            assert!((ms(59_999)..ms(60_004)).contains(&waited), "{waited:?}");
        });
    });
}

#[test]
fn a_job_whose_function_is_not_registered_waits_and_hides_nothing() {
    on_each_store(|| {
        run_in_turn(async {
            let tables = Tables::new();
            let with_rare = |builder: RuntimeBuilder| builder.action::<Rare>();
            let bench = Bench::build(limit(1).paused(true), |builder| {
                with_rare(builder).storage(tables.clone())
            })
            .await;
            let rare = bench.pool.enqueue(Rare).await.unwrap().id();
            let known = bench.enqueue(2, &[RETURN]).await.id();
            bench.runtime.shutdown(Duration::ZERO).await;

            let without =
                Bench::build(limit(1).paused(false), |builder| builder.storage(tables.clone()))
                    .await;
            assert_eq!(without.pool.work::<u64>(known).join().await, Ok(2));
            let seen = without.pool.diagnostics().await.unwrap();
            assert_eq!((seen.waiting, seen.unregistered), (0, 1));
            assert_eq!(seen.unregistered_names.len(), 1);
            let status = without.pool.status(rare).await.unwrap();
            assert_eq!(status, WorkStatus::Pending { previous_attempts: 0, due: None });
            without.runtime.shutdown(Duration::ZERO).await;

            let again = Bench::build(limit(1), |builder| with_rare(builder).storage(tables)).await;
            assert_eq!(again.pool.work::<u64>(rare).join().await, Ok(1));
        });
    });
}

#[test]
fn running_attempts_are_dropped_with_the_last_handle_on_the_runtime() {
    on_each_store(|| {
        run_in_turn(async {
            let bench = Bench::new(limit(1)).await;
            bench.enqueue(1, &[Run(Wait::Nothing, End::Never)]).await;
            bench.lab.until_started(1).await;
            let Bench { runtime, lab, .. } = bench;
            drop(runtime);
            let ended = tokio::time::timeout(MINUTE, lab.until_ended(1)).await;
            assert!(ended.is_ok(), "the attempt goes on");
        });
    });
}

// Rows and cursors: whatever time passes between two looks at the clock, no row is left behind.

/// A clock that moves on by `tick` with every look, beside the time that passes.
struct Ticking {
    started: Instant,
    looks: AtomicU64,
    tick: u64,
}

impl Ticking {
    fn since(started: Instant, tick: u64) -> Ticking {
        Ticking { started, looks: AtomicU64::new(0), tick }
    }
}

impl Clock for Ticking {
    fn now(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::SeqCst);
        MINUTE + self.started.elapsed() + ms(looks * self.tick)
    }
}

#[test]
fn a_retry_that_is_due_at_once_is_not_left_behind_the_cursor() {
    on_each_store(|| {
        for end in [End::Fail, End::Snooze(0), End::RetryAfter(0)] {
            run_in_turn(async move {
                let clock = Ticking::since(Instant::now(), 1);
                let bench = Bench::build(limit(1), |builder| builder.clock(clock)).await;
                let retry = RetryBehavior::default().initial_backoff(Duration::ZERO);
                let work = script(1, &[Run(Wait::Nothing, end), RETURN]);
                let work = bench.pool.enqueue(work).retry(retry).await.unwrap();
                let joined = tokio::time::timeout(MINUTE, work.join()).await;
                assert_eq!(joined.ok(), Some(Ok(1)), "it is never tried again");
            });
        }
    });
}

#[test]
fn an_enqueue_that_was_under_way_while_the_loop_read_is_not_left_behind_the_cursor() {
    on_each_store(|| {
        for phase in PHASES {
            run_in_turn(async move {
                let bench = Bench::new(limit(100)).await;
                // Prepared, and by that due, before the loop reads; sent when it may have read.
                let prepared = bench.pool.enqueue(script(1, &[RETURN])).into_future();
                bench.pass(ms(10)).await;
                bench.pool.do_enqueue(script(2, &[RETURN])).unwrap();
                steps(phase).await;
                let work = prepared.await.unwrap();
                let joined = tokio::time::timeout(MINUTE, work.join()).await;
                assert_eq!(joined.ok(), Some(Ok(1)), "phase {phase}: acknowledged, never started");
            });
        }
    });
}
