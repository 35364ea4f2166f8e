//! Defects that the pool once had, one by one.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::common::*;
use actix_workpool::model::{Change, PoolId, Segment, WorkId};
use actix_workpool::storage::{self, Fsync, Memory, Storage, StorageError};
use actix_workpool::testing::network::{Delivery, Letter};
use actix_workpool::{
    ActionContext, ActionKey, BlockingAction, CancelAnswer, Completion, EnqueueError, Failure,
    FailureKind, FunctionKind, JoinError, Mutation, OnComplete, PoolConfig, PoolError, Query,
    Reader, Retention, RetryBehavior, Runtime, RuntimeBuilder, Transaction, WorkError, WorkStatus,
    Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

const TASK: ActionKey<u64, u64> = ActionKey::new("task");

fn config() -> PoolConfig {
    PoolConfig::default()
}

fn id(number: u128) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(number))
}

fn failure<T: std::fmt::Debug>(outcome: Result<T, JoinError>) -> (u32, Failure) {
    match outcome {
        Err(JoinError::Failed { attempts, failure }) => (attempts, failure),
        other => panic!("{other:?} is no failure"),
    }
}

fn starts(change: &Change) -> bool {
    matches!(change, Change::StartWork { .. })
}

fn reports(change: &Change) -> bool {
    matches!(change, Change::InsertPendingCompletion { .. })
}

fn completes(change: &Change) -> bool {
    matches!(change, Change::CompleteWork { .. })
}

fn configures(change: &Change) -> bool {
    matches!(change, Change::PutGlobals { .. })
}

/// Waits for the first failed commit, without time passing behind it.
async fn until_hit(storage: &Faulty) {
    while storage.hits() == 0 {
        steps(1).await;
    }
}

/// What a [`Hooked`] storage is asked.
enum Call<'a> {
    Read,
    Commit(&'a [Change], Fsync),
}

type Hook = Box<dyn FnMut(Call<'_>) -> Result<(), StorageError> + Send>;

/// Tables in memory that ask the test before each call. Clones share tables and hook.
#[derive(Clone)]
struct Hooked {
    tables: Memory,
    may_block: bool,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl Hooked {
    fn new(may_block: bool) -> Hooked {
        Hooked { tables: Memory::new(), may_block, hook: Arc::default() }
    }

    fn before_each_call(
        &self,
        hook: impl FnMut(Call<'_>) -> Result<(), StorageError> + Send + 'static,
    ) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Holds each commit of a start until what this returns is dropped; the gate tells when one has come.
    fn hold_starts(&self) -> (Gate, mpsc::Sender<()>) {
        let (held, (release, released)) = (Gate::new(), mpsc::channel::<()>());
        let at = held.clone();
        self.before_each_call(move |call| {
            if let Call::Commit(changes, _) = call
                && changes.iter().any(starts)
            {
                at.enter();
                let _ = released.recv();
            }
            Ok(())
        });
        (held, release)
    }

    fn unhook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    fn ask(&self, call: Call<'_>) -> Result<(), StorageError> {
        self.hook.lock().unwrap().as_mut().map_or(Ok(()), |hook| hook(call))
    }
}

impl storage::Hook for Hooked {
    fn may_block(&self) -> bool {
        self.may_block
    }

    fn call<T: 'static>(
        &mut self,
        operation: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if !matches!(operation, "open" | "close") {
            self.ask(Call::Read)?;
        }
        call(&mut self.tables)
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        self.ask(Call::Commit(changes, fsync))?;
        self.tables.commit(changes, now, fsync)
    }
}

// Answers

#[test]
fn a_cancel_tells_nothing_of_a_report_that_is_not_synced() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).pool("p", config());
        let runtime = builder.action_fn(TASK, |n, _| async move { Ok(n) }).start().await.unwrap();
        let pool = runtime.pool("p").unwrap();

        // The cancel is sent while the report is committed, so that a group of its own follows at once.
        let canceling = Arc::new(Mutex::new(None));
        let commits = Arc::new(Mutex::new(Vec::new()));
        storage.before_each_call({
            let (pool, canceling, commits) = (pool.clone(), canceling.clone(), commits.clone());
            move |call| {
                let Call::Commit(changes, fsync) = call else { return Ok(()) };
                commits.lock().unwrap().push((changes.len(), fsync));
                if changes.iter().any(reports) {
                    let pool = pool.clone();
                    let mut cancel = Box::pin(async move { pool.cancel(id(1)).await });
                    let sent = cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(sent.is_pending());
                    *canceling.lock().unwrap() = Some(cancel);
                }
                Ok(())
            }
        });
        let work = pool.enqueue(TASK.call(1)).id(id(1)).await.unwrap();
        assert_eq!(work.join().await, Ok(1));
        let cancel = canceling.lock().unwrap().take().expect("it was sent");
        assert_eq!(cancel.await.unwrap(), CancelAnswer::AlreadyFinished);
        let commits = std::mem::take(&mut *commits.lock().unwrap());
        let report = commits.iter().position(|(_, fsync)| *fsync == Fsync::WithNext);
        let next = commits[report.expect("a report") + 1];
        assert_eq!(next, (0, Fsync::Now), "synced before the answer: {commits:?}");
        runtime.shutdown(secs(1)).await;
    });
}

// Restarts and shutdowns

#[test]
fn a_failed_first_turn_after_a_restart_does_not_make_a_lost_attempt_one_that_never_ran() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        run_paused(async move {
            let (storage, gate) = (Faulty::new(), Gate::new());
            let builder = || {
                let gate = gate.clone();
                let builder = builder().storage(storage.clone()).pool("p", config());
                builder.action_fn(TASK, move |_, cx| {
                    let gate = gate.clone();
                    async move {
                        gate.pass().await;
                        Ok(u64::from(cx.attempt()))
                    }
                })
            };
            let runtime = builder().start().await.unwrap();
            let pool = runtime.pool("p").unwrap();
            let once = pool.enqueue(TASK.call(1)).await.unwrap().id();
            let retry = RetryBehavior::default().max_attempts(3);
            let again = pool.enqueue(TASK.call(2)).retry(retry).await.unwrap().id();
            gate.entered(2).await;
            drop(runtime);

            storage.fail_next(fault, completes);
            let runtime = start_again(builder).await;
            gate.open();
            let pool = runtime.pool("p").unwrap();
            let (attempts, lost) = failure(soon(pool.work::<u64>(once).join()).await);
            assert_eq!((attempts, lost.kind), (1, FailureKind::Lost), "{fault:?}");
            let retried = soon(pool.work::<u64>(again).join()).await;
            assert_eq!(retried, Ok(2), "the lost attempt is charged, {fault:?}");
            assert_eq!((storage.hits(), gate.count()), (1, 3), "{fault:?}");
            runtime.shutdown(secs(1)).await;
        });
    }
}

/// An action whose first attempt never ends, and whose next one answers its number.
fn endless_at_first(builder: RuntimeBuilder, gate: &Gate) -> RuntimeBuilder {
    let gate = gate.clone();
    builder.action_fn(TASK, move |_, cx| {
        let gate = gate.clone();
        async move {
            gate.enter();
            if gate.count() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(u64::from(cx.attempt()))
        }
    })
}

#[test]
fn a_shutdown_without_grace_ends_wherever_the_start_of_a_work_is_then() {
    let (withheld, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for phase in PHASES {
        let (withheld, started) = (withheld.clone(), started.clone());
        run_in_turn(async move {
            let (tables, gate) = (Memory::new(), Gate::new());
            let builder = || endless_at_first(builder().storage(tables.clone()), &gate);
            let (runtime, pool) = start(builder(), config()).await;
            let work = pool.do_enqueue(TASK.call(1)).unwrap();
            steps(phase).await;
            let begun = Instant::now();
            let report = runtime.shutdown(Duration::ZERO).await;
            assert!(begun.elapsed() < secs(2), "phase {phase} took {:?}", begun.elapsed());
            assert_eq!(report.pending, 1, "phase {phase}");
            match (gate.count(), report.handed_back) {
                (0, 0) => gate.enter(),
                (0, 1) => {
                    gate.enter();
                    withheld.fetch_add(1, Ordering::SeqCst);
                }
                (1, 1) => drop(started.fetch_add(1, Ordering::SeqCst)),
                other => panic!("(started, handed back) is {other:?} in phase {phase}"),
            }

            let (runtime, pool) = start(builder(), config()).await;
            let joined = soon(pool.work::<u64>(work.id()).join()).await;
            assert_eq!(joined, Ok(1), "no attempt is charged, phase {phase}");
            runtime.shutdown(secs(1)).await;
        });
    }
    let (withheld, started) = (withheld.load(Ordering::SeqCst), started.load(Ordering::SeqCst));
    assert!(withheld > 0 && started > 0, "{withheld} were withheld, {started} had started");
}

#[test]
fn a_shutdown_while_the_commit_of_a_start_is_in_flight_hands_the_work_back() {
    run_real(async {
        let (storage, gate) = (Hooked::new(true), Gate::new());
        let builder = || endless_at_first(builder().storage(storage.clone()), &gate);
        let (runtime, pool) = start(builder(), config()).await;
        let (held, release) = storage.hold_starts();
        let work = pool.enqueue(TASK.call(1)).await.unwrap();
        held.entered(1).await;
        let mut shutdown = std::pin::pin!(runtime.shutdown(Duration::ZERO));
        let early = timeout(ms(50), &mut shutdown).await;
        assert!(early.is_err(), "it cannot end before the commit has");
        drop(release);
        let report = timeout(secs(5), shutdown).await.expect("it ends when the commit has");
        assert_eq!((report.handed_back, report.pending, gate.count()), (1, 1, 0));

        storage.unhook();
        gate.enter();
        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(soon(pool.work::<u64>(work.id()).join()).await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_shutdown_counts_what_ended_whatever_else_is_handed_back() {
    for phase in PHASES {
        run_in_turn(async move {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let gate = at.clone();
                async move {
                    gate.enter();
                    match n {
                        1 => cx.canceled().await,
                        _ => std::future::pending().await,
                    }
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let ends = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let _never_ends = pool.do_enqueue(TASK.call(2)).unwrap();
            steps(phase).await;
            let report = runtime.shutdown(Duration::ZERO).await;
            assert_eq!(ends.join().await, Ok(1));
            assert_eq!((report.finished, report.pending), (1, 1), "phase {phase}: {report:?}");
        });
    }
}

/// Enqueues an echo of 7 under this id, in another pool.
#[derive(Serialize, Deserialize)]
struct Relay(WorkId);

fn relay(tx: &mut Transaction<'_>, work_id: WorkId) -> Result<(), WorkError> {
    tx.pool("q")?.enqueue(ECHO.call(7)).id(work_id).submit()?;
    Ok(())
}

impl Mutation for Relay {
    const NAME: &'static str = "relay";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        relay(tx, self.0)
    }
}

struct Relayed;

impl OnComplete for Relayed {
    const NAME: &'static str = "relayed";
    type Context = WorkId;
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<WorkId, u64>) -> Result<(), WorkError> {
        relay(tx, done.context)
    }
}

#[test]
fn transactions_enqueue_into_other_pools_also_while_a_shutdown_waits() {
    run_in_turn(async {
        let (storage, gate) = (Faulty::new(), Gate::new());
        let builder = || {
            let gate = gate.clone();
            let builder = builder().storage(storage.clone()).echo().mutation::<Relay>();
            builder.on_complete::<Relayed>().pool("q", config()).action_fn(TASK, move |n, _| {
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    Ok(n)
                }
            })
        };
        let (runtime, pool) = start(builder(), config()).await;
        let action = pool.enqueue(TASK.call(1)).on_complete::<Relayed>(id(1)).await.unwrap();
        gate.entered(1).await;
        // The mutation is applied a second time, after a pause in which the shutdown begins.
        storage.fail_next(Fault::Refused, reports);
        let mutation = pool.do_enqueue(Relay(id(2))).unwrap();
        until_hit(&storage).await;
        let (report, ()) = tokio::join!(biased; runtime.shutdown(secs(60)), async {
            let late = pool.do_enqueue(ECHO.call(1));
            assert!(matches!(late, Err(EnqueueError::Closed)), "{late:?}");
            assert!(!matches!(mutation.status().await, Ok(WorkStatus::Finished(_))));
            gate.open();
        });
        assert_eq!(report.pending, 2, "what was enqueued waits for the next runtime");
        assert_eq!(action.join().await, Ok(1));
        assert_eq!(mutation.join().await, Ok(()));

        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(pool.pending(), 0, "no `on_complete` became a work of its own");
        for number in [1, 2] {
            let relayed = runtime.pool("q").unwrap().work::<u64>(id(number));
            assert_eq!(soon(relayed.join()).await, Ok(7), "{number}");
        }
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_function_that_stops_because_of_a_shutdown_does_not_cancel_its_work() {
    // How long the function takes to stop; after half a second it is dropped.
    for delay in [0, 1, 499, 500, 501, 600] {
        run_paused(async move {
            let (tables, gate) = (Memory::new(), Gate::new());
            let builder = || {
                let gate = gate.clone();
                builder().storage(tables.clone()).action_fn(TASK, move |delay, cx| {
                    let gate = gate.clone();
                    async move {
                        gate.enter();
                        if gate.count() > 1 {
                            return Ok(u64::from(cx.attempt()));
                        }
                        cx.canceled().await;
                        tokio::time::sleep(ms(delay)).await;
                        Err(WorkError::canceled())
                    }
                })
            };
            let (runtime, pool) = start(builder(), config()).await;
            let work = pool.enqueue(TASK.call(delay)).await.unwrap();
            gate.entered(1).await;
            let report = runtime.shutdown(Duration::ZERO).await;
            assert_eq!((report.handed_back, report.pending), (1, 1), "after {delay} ms");

            let (runtime, pool) = start(builder(), config()).await;
            let joined = soon(pool.work::<u64>(work.id()).join()).await;
            assert_eq!(joined, Ok(1), "after {delay} ms");
            runtime.shutdown(secs(1)).await;
        });
    }
}

#[test]
fn a_function_that_stops_just_when_it_is_to_be_dropped_does_not_cancel_its_work() {
    run_real(async {
        let (tables, gate) = (Memory::new(), Gate::new());
        let builder = || {
            let gate = gate.clone();
            let builder = Runtime::builder().worker_arbiters(1).storage(tables.clone());
            builder.action_fn(TASK, move |_, cx| {
                let gate = gate.clone();
                async move {
                    gate.enter();
                    if gate.count() > 1 {
                        return Ok(u64::from(cx.attempt()));
                    }
                    while !cx.is_canceled() {
                        std::thread::yield_now();
                    }
                    // It keeps its thread while the notice of half a second ends, and then stops of itself.
                    std::thread::sleep(ms(700));
                    Err(WorkError::canceled())
                }
            })
        };
        let (runtime, pool) = start(builder(), config()).await;
        let work = pool.enqueue(TASK.call(1)).await.unwrap();
        gate.entered(1).await;
        let report = runtime.shutdown(Duration::ZERO).await;
        assert_eq!((report.handed_back, report.pending), (1, 1));

        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(soon(pool.work::<u64>(work.id()).join()).await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}

// Storages that fail

/// What meets the poisoned storage first.
#[derive(Clone, Copy, Debug)]
enum First {
    Update,
    Report,
    Join,
    Shutdown,
}

async fn poisoned_for_good(may_block: bool, first: First) {
    let (storage, gate) = (Hooked::new(may_block), Gate::new());
    let at = gate.clone();
    let builder = builder().storage(storage.clone()).echo().action_fn(TASK, move |n, _| {
        let gate = at.clone();
        async move {
            gate.pass().await;
            Ok(n)
        }
    });
    let (runtime, pool) = start(builder, config()).await;
    let running = pool.enqueue(TASK.call(1)).await.unwrap();
    let waiting = pool.enqueue(ECHO.call(2)).run_after(secs(3_600)).await.unwrap();
    gate.entered(1).await;
    let (joined, mut watch) = (running.clone(), running.watch());
    let joined = actix::spawn(async move { joined.join().await });
    assert!(watch.next().await.is_some());
    // Behind this question the join is there.
    pool.diagnostics().await.unwrap();
    storage.before_each_call(|_| Err(StorageError::Poisoned("for good".into())));

    let is_poisoned = |error: &StorageError| matches!(error, StorageError::Poisoned(_));
    match first {
        First::Update => {
            let updated = soon(pool.update(config().max_parallelism(3))).await;
            let Err(PoolError::Storage(error)) = updated else { panic!("{updated:?}") };
            assert!(is_poisoned(&error), "{error:?}");
        }
        First::Report => gate.open(),
        First::Join => {
            let joined = soon(waiting.join()).await;
            let Err(JoinError::Storage(error)) = joined else { panic!("{joined:?}") };
            assert!(is_poisoned(&error), "{error:?}");
        }
        First::Shutdown => {
            soon(runtime.shutdown(secs(1))).await;
        }
    }
    if !matches!(first, First::Shutdown) {
        let outcome = soon(joined).await.unwrap();
        assert!(matches!(outcome, Err(JoinError::Storage(_))), "{outcome:?}");
        gate.open();
        for work in [&running, &waiting] {
            let outcome = soon(work.join()).await;
            assert!(matches!(outcome, Err(JoinError::Storage(_))), "{outcome:?}");
        }
        let updated = soon(pool.update(config().max_parallelism(4))).await;
        assert!(matches!(updated, Err(PoolError::Storage(_))), "{updated:?}");
        let enqueued = soon(async { pool.enqueue(ECHO.call(3)).await }).await;
        assert!(matches!(enqueued, Err(EnqueueError::Storage(_))), "{enqueued:?}");
        let canceled = soon(waiting.cancel()).await;
        assert!(matches!(canceled, Err(PoolError::Storage(_))), "{canceled:?}");
    } else {
        assert!(soon(joined).await.unwrap().is_err());
    }
    soon(async { while watch.next().await.is_some() {} }).await;
    soon(async { while waiting.watch().next().await.is_some() {} }).await;
    let (idle, _) = tokio::join!(soon(pool.idle()), soon(runtime.shutdown(secs(1))));
    assert!(idle.is_err(), "its works have no outcome");
}

#[test]
fn nothing_hangs_on_a_storage_that_is_poisoned_for_good() {
    for first in [First::Update, First::Report, First::Join, First::Shutdown] {
        run_paused(poisoned_for_good(false, first));
    }
    run_real(poisoned_for_good(true, First::Update));
}

#[test]
fn an_attempt_that_ended_in_time_is_not_overtaken_by_its_timeout_while_the_storage_fails() {
    for reading_fails in [false, true] {
        run_paused(async move {
            let (storage, gate) = (Hooked::new(false), Gate::new());
            let at = gate.clone();
            let builder = builder().storage(storage.clone()).action_fn(TASK, move |n, _| {
                at.enter();
                async move {
                    tokio::time::sleep(ms(900)).await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config().attempt_timeout(secs(1))).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let refused = Arc::new(AtomicUsize::new(0));
            let counted = refused.clone();
            storage.before_each_call(move |call| {
                let fails = match call {
                    Call::Read => reading_fails,
                    Call::Commit(..) => true,
                };
                if !fails {
                    return Ok(());
                }
                counted.fetch_add(1, Ordering::SeqCst);
                Err(StorageError::Unavailable("for five seconds".into()))
            });
            tokio::time::sleep(secs(5)).await;
            assert!(refused.load(Ordering::SeqCst) > 1);
            storage.unhook();
            assert_eq!(soon(work.join()).await, Ok(1));
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    }
}

#[test]
fn a_pool_whose_creation_the_storage_refused_leaves_no_gap() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        run_paused(async move {
            let storage = Faulty::new();
            let builder = || builder().storage(storage.clone()).echo();
            let (runtime, pool) = start(builder(), config()).await;
            storage.fail_next(fault, configures);
            let refused = runtime.create_pool("refused", config().max_parallelism(3)).await;
            assert!(matches!(refused, Err(PoolError::Storage(_))), "{refused:?}");
            assert!(matches!(runtime.pool("refused"), Err(PoolError::Unknown(_))));
            let other = runtime.create_pool("other", config()).await.unwrap();
            assert_eq!(soon(other.enqueue(ECHO.call(1)).await.unwrap().join()).await, Ok(1));
            let later = other.enqueue(ECHO.call(2)).run_after(secs(60)).await.unwrap();
            let again = runtime.create_pool("refused", config()).await.unwrap();
            assert_eq!(soon(again.enqueue(ECHO.call(3)).await.unwrap().join()).await, Ok(3));
            assert_eq!(soon(pool.enqueue(ECHO.call(4)).await.unwrap().join()).await, Ok(4));
            runtime.shutdown(secs(1)).await;

            let builder = builder().pool("other", config()).pool("refused", config());
            let (runtime, pool) = start(builder, config()).await;
            let other = runtime.pool("other").unwrap();
            assert_eq!(other.pending(), 1, "{fault:?}");
            assert_eq!(other.work::<u64>(later.id()).join().await, Ok(2), "{fault:?}");
            for pool in [pool, other, runtime.pool("refused").unwrap()] {
                let work = pool.enqueue(ECHO.call(5)).await.unwrap();
                assert_eq!(soon(work.join()).await, Ok(5), "{} after {fault:?}", pool.name());
            }
            runtime.shutdown(secs(1)).await;
        });
    }
}

/// An action at a gate, and how many of it are inside.
fn crowded(builder: RuntimeBuilder, gate: &Gate, crowd: &Crowd) -> RuntimeBuilder {
    let (gate, crowd) = (gate.clone(), crowd.clone());
    builder.action_fn(TASK, move |n, _| {
        let (gate, crowd) = (gate.clone(), crowd.clone());
        async move {
            let _inside = crowd.enter();
            gate.pass().await;
            Ok(n)
        }
    })
}

#[test]
fn an_update_that_the_storage_refused_is_not_in_force_afterwards() {
    run_paused(async {
        let (storage, gate, crowd) = (Faulty::new(), Gate::new(), Crowd::default());
        let builder = || crowded(builder().storage(storage.clone()), &gate, &crowd);
        let (runtime, pool) = start(builder(), config().max_parallelism(1)).await;
        storage.fail_next(Fault::Refused, configures);
        let works = pool.enqueue_batch((0..4).map(|n| TASK.call(n))).await.unwrap();
        gate.entered(1).await;
        let refused = pool.update(config().max_parallelism(3).max_pending(5)).await;
        assert!(matches!(refused, Err(PoolError::Storage(_))), "{refused:?}");
        tokio::time::sleep(secs(10)).await;
        let settings = pool.settings();
        assert_eq!((settings.max_parallelism, settings.max_pending), (1, 10_000_000));
        assert_eq!((storage.hits(), crowd.most()), (1, 1));
        gate.open();
        assert!(works.join().await.iter().all(Result::is_ok));
        assert_eq!(crowd.most(), 1);
        runtime.shutdown(secs(1)).await;
        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(pool.settings().max_parallelism, 1);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn an_update_that_is_made_while_the_pool_is_claimed_anew_holds() {
    run_in_turn(async {
        let (storage, gate, crowd) = (Faulty::new(), Gate::new(), Crowd::default());
        let builder = || crowded(builder().storage(storage.clone()), &gate, &crowd);
        let (runtime, pool) = start(builder(), config().max_parallelism(1)).await;
        storage.fail_next(Fault::Refused, starts);
        let works = pool.enqueue_batch((0..4).map(|n| TASK.call(n)));
        let works = works.await.unwrap();
        until_hit(&storage).await;
        // The loop has heard of it, and waits before it claims the pool.
        steps(10).await;
        soon(pool.update(config().max_parallelism(3))).await.unwrap();
        assert_eq!(pool.settings().max_parallelism, 3);
        gate.entered(3).await;
        settle().await;
        assert_eq!(crowd.inside(), 3);
        gate.open();
        assert!(works.join().await.iter().all(Result::is_ok));
        assert_eq!(crowd.most(), 3);
        runtime.shutdown(secs(1)).await;
        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(pool.settings().max_parallelism, 3);
        runtime.shutdown(secs(1)).await;
    });
}

// Timeouts and cancelation

#[derive(Serialize, Deserialize)]
enum Job {
    /// Keeps its thread until the test lets it go.
    Hog,
    Note(u64),
}

/// Where jobs are seen.
struct Desk {
    hog: Gate,
    release: Mutex<mpsc::Receiver<()>>,
    ran: Mutex<Vec<u64>>,
}

impl BlockingAction for Job {
    const NAME: &'static str = "job";
    type Output = ();

    fn run(self, cx: &ActionContext) -> Result<(), WorkError> {
        let desk = cx.data::<Desk>();
        match self {
            Job::Hog => {
                desk.hog.enter();
                let _ = desk.release.lock().unwrap().recv();
            }
            Job::Note(number) => desk.ran.lock().unwrap().push(number),
        }
        Ok(())
    }
}

/// Answers the notes that were taken.
const SEEN: ActionKey<(), Vec<u64>> = ActionKey::new("seen");

/// One thread for blocking actions, which the first one keeps until the sender is dropped.
async fn one_thread_that_is_taken() -> (Runtime, Workpool, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let hog = Gate::new();
    let desk = Desk { hog: hog.clone(), release: Mutex::new(released), ran: Mutex::default() };
    let builder = builder().blocking_threads(1).blocking_action::<Job>().data(desk);
    let builder = builder
        .action_fn(SEEN, |(), cx| async move { Ok(cx.data::<Desk>().ran.lock().unwrap().clone()) });
    let (runtime, pool) = start(builder, config()).await;
    pool.enqueue(Job::Hog).await.unwrap();
    hog.entered(1).await;
    (runtime, pool, release)
}

#[test]
fn a_blocking_action_that_was_given_up_while_it_waited_for_a_thread_never_runs() {
    run_real(async {
        let (runtime, pool, release) = one_thread_that_is_taken().await;
        let late = pool.enqueue(Job::Note(1)).timeout(ms(50)).await.unwrap();
        assert_eq!(failure(soon(late.join()).await).1.kind, FailureKind::Timeout);
        let aborted = pool.enqueue(Job::Note(2)).await.unwrap();
        let mut watch = aborted.watch();
        while !matches!(soon(watch.next()).await, Some(WorkStatus::Running { .. })) {}
        assert_eq!(aborted.abort(Duration::ZERO).await.unwrap(), CancelAnswer::Requested);
        assert_eq!(soon(aborted.join()).await, Err(JoinError::Canceled));
        // The one thread takes them in order.
        let last = pool.enqueue(Job::Note(3)).await.unwrap();
        drop(release);
        assert_eq!(soon(last.join()).await, Ok(()));
        assert_eq!(soon(pool.enqueue(SEEN.call(())).await.unwrap().join()).await, Ok(vec![3]));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_blocking_action_that_was_canceled_while_it_waited_for_a_thread_never_runs() {
    run_real(async {
        let (runtime, pool, release) = one_thread_that_is_taken().await;
        let canceled = pool.enqueue(Job::Note(1)).await.unwrap();
        let mut watch = canceled.watch();
        while !matches!(soon(watch.next()).await, Some(WorkStatus::Running { .. })) {}
        assert_eq!(canceled.cancel().await.unwrap(), CancelAnswer::Requested);
        let last = pool.enqueue(Job::Note(2)).await.unwrap();
        drop(release);
        assert_eq!(soon(canceled.join()).await, Err(JoinError::Canceled));
        assert_eq!(soon(last.join()).await, Ok(()));
        assert_eq!(soon(pool.enqueue(SEEN.call(())).await.unwrap().join()).await, Ok(vec![2]));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_cancel_all_that_was_begun_is_gone_through_before_the_store_closes() {
    run_paused(async {
        let (runtime, pool) = start(builder().echo(), config()).await;
        let works = pool.enqueue_batch((0..5_000).map(|n| ECHO.call(n))).run_after(secs(60));
        works.await.unwrap();
        let canceling = actix::spawn(async move { pool.cancel_all().await });
        tokio::task::yield_now().await;
        runtime.shutdown(Duration::ZERO).await;
        assert_eq!(canceling.await.unwrap().unwrap(), 5_000);
    });
}

#[test]
fn a_report_that_a_failing_store_has_not_taken_is_tried_again_while_it_closes() {
    run_paused(async {
        let mut storage = Faulty::new();
        let gate = Gate::new();
        let (key, waits) = (ActionKey::<(), ()>::new("waits"), gate.clone());
        let builder = builder().storage(storage.clone()).action_fn(key, move |(), _| {
            let gate = waits.clone();
            async move {
                gate.pass().await;
                Ok(())
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(key.call(())).await.unwrap().id();
        gate.entered(1).await;
        storage.fail_reads(true);
        gate.open();
        settle().await;
        // The loop gives up: the store is to be closed, and holds the report still.
        let ending = actix::spawn(async move { runtime.shutdown(Duration::ZERO).await });
        tokio::time::sleep(secs(3)).await;
        assert!(!ending.is_finished());
        storage.fail_reads(false);
        ending.await.unwrap();
        storage.open().unwrap();
        let fact = storage.facts(&[work]).unwrap().remove(0).unwrap();
        assert!(fact.pending_completion.is_some(), "{fact:?}");
    });
}

#[derive(Serialize, Deserialize)]
struct Put(u64);

impl Mutation for Put {
    const NAME: &'static str = "put";
    type Output = u64;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
        tx.put("puts", self.0, &self.0)?;
        Ok(self.0)
    }
}

#[derive(Serialize, Deserialize)]
struct Puts;

impl Query for Puts {
    const NAME: &'static str = "puts";
    type Output = usize;

    fn read(self, reader: &mut Reader<'_>) -> Result<usize, WorkError> {
        Ok(reader.scan::<u64>("puts")?.len())
    }
}

#[test]
fn the_timeout_of_a_pool_is_none_of_mutations_and_queries() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).echo().mutation::<Put>().query::<Puts>();
        let timeouts = Arc::new(Mutex::new(Vec::new()));
        let seen = timeouts.clone();
        // What runs in the store waits there, longer than any timeout.
        let since = Instant::now();
        storage.before_each_call(move |call| {
            let Call::Commit(changes, _) = call else { return Ok(()) };
            for change in changes {
                if let Change::InsertWork { spec, .. } = change {
                    seen.lock().unwrap().push((spec.kind, spec.timeout()));
                }
            }
            match changes.iter().any(reports) && since.elapsed() < secs(30) {
                true => Err(StorageError::Unavailable("for half a minute".into())),
                false => Ok(()),
            }
        });
        let paused = config().attempt_timeout(ms(10)).paused(true);
        let (runtime, pool) = start(builder, paused).await;
        let put = pool.enqueue(Put(1)).await.unwrap();
        let own = pool.enqueue(Put(2)).timeout(ms(5)).await.unwrap();
        let puts = pool.enqueue(Puts).await.unwrap();
        pool.resume().await.unwrap();
        assert_eq!(soon(put.join()).await, Ok(1));
        assert_eq!(soon(own.join()).await, Ok(2));
        assert!(soon(puts.join()).await.is_ok());
        assert!(since.elapsed() >= secs(30));
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        let (mutation, query) = (FunctionKind::Mutation, FunctionKind::Query);
        let action = (FunctionKind::Action, Some(ms(10)));
        let expected = [(mutation, None), (mutation, None), (query, None), action];
        assert_eq!(*timeouts.lock().unwrap(), expected);
        runtime.shutdown(secs(1)).await;
    });
}

/// Whether the loop has handed the work to a worker: then the board says that it runs, without asking the store.
fn is_launched(pool: &Workpool, work_id: WorkId) -> bool {
    let mut status = std::pin::pin!(pool.status(work_id));
    let status = status.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    matches!(status, Poll::Ready(Ok(WorkStatus::Running { .. })))
}

#[test]
fn a_work_does_not_start_once_its_cancel_is_answered() {
    let canceled_first = Arc::new(AtomicUsize::new(0));
    for phase in PHASES {
        let canceled_first = canceled_first.clone();
        run_in_turn(async move {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |_, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    Err(WorkError::canceled())
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.do_enqueue(TASK.call(1)).unwrap();
            steps(phase).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested, "phase {phase}");
            let launched = is_launched(&pool, work.id());
            assert_eq!(soon(work.join()).await, Err(JoinError::Canceled), "phase {phase}");
            if !launched {
                assert_eq!(gate.count(), 0, "started behind the answer in phase {phase}");
                canceled_first.fetch_add(1, Ordering::SeqCst);
            }
            runtime.shutdown(secs(1)).await;
        });
    }
    let count = canceled_first.load(Ordering::SeqCst);
    assert!(0 < count && count < PHASES.len(), "{count} were canceled before they started");
}

type Cancel = Pin<Box<dyn Future<Output = Result<CancelAnswer, PoolError>> + Send>>;

#[test]
fn a_cancel_that_is_answered_before_the_receipt_of_a_start_keeps_the_code_from_starting() {
    run_in_turn(async {
        let (storage, gate) = (Hooked::new(false), Gate::new());
        let at = gate.clone();
        let builder = builder().storage(storage.clone()).action_fn(TASK, move |_, cx| {
            at.enter();
            async move {
                cx.canceled().await;
                Err(WorkError::canceled())
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        // As if another thread had asked while the start is being written: the store takes the cancel in its next
        // group, and the loop has not had the receipt of the start yet.
        let asked: Arc<Mutex<Option<Cancel>>> = Arc::default();
        let (ask, canceling) = (asked.clone(), pool.clone());
        storage.before_each_call(move |call| {
            if let Call::Commit(changes, _) = call
                && changes.iter().any(starts)
            {
                let pool = canceling.clone();
                let mut cancel: Cancel = Box::pin(async move { pool.cancel(id(1)).await });
                let sent = cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(sent.is_pending());
                *ask.lock().unwrap() = Some(cancel);
            }
            Ok(())
        });
        let enqueued = actix::spawn({
            let pool = pool.clone();
            async move { pool.enqueue(TASK.call(1)).id(id(1)).await.map(drop) }
        });
        let cancel = loop {
            if let Some(cancel) = asked.lock().unwrap().take() {
                break cancel;
            }
            steps(1).await;
        };
        assert_eq!(cancel.await.unwrap(), CancelAnswer::Requested);
        assert!(!is_launched(&pool, id(1)), "the receipt is still on its way");
        enqueued.await.unwrap().unwrap();
        let joined = soon(pool.work::<u64>(id(1)).join()).await;
        assert_eq!(joined, Err(JoinError::Canceled));
        assert_eq!(gate.count(), 0, "it started behind the answer");
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_transaction_does_not_enqueue_a_finished_id_that_is_canceled_beside_it() {
    run_in_turn(async {
        let storage = Faulty::new();
        let ran = Gate::new();
        let at = ran.clone();
        let builder = builder().storage(storage.clone()).mutation::<Relay>();
        let builder = builder.pool("q", config()).action_fn(ECHO, move |n, _| {
            at.enter();
            async move { Ok(n) }
        });
        let (runtime, pool) = start(builder, config()).await;
        let other = runtime.pool("q").unwrap();
        assert_eq!(other.enqueue(ECHO.call(1)).id(id(1)).await.unwrap().join().await, Ok(1));
        // The mutation is kept and applied in the next group, which the cancel opens.
        storage.fail_next(Fault::Refused, reports);
        let mutation = pool.do_enqueue(Relay(id(1))).unwrap();
        until_hit(&storage).await;
        let commits = storage.commits();
        assert_eq!(other.cancel(id(1)).await.unwrap(), CancelAnswer::AlreadyFinished);
        assert_eq!(storage.commits(), commits + 1, "the mutation is in the group of the cancel");
        assert_eq!(soon(mutation.join()).await, Ok(()));
        soon(other.idle()).await.unwrap();
        tokio::time::sleep(secs(10)).await;
        assert_eq!((ran.count(), other.pending()), (1, 0));
        assert_eq!(other.diagnostics().await.unwrap().report.completed, 1);
        runtime.shutdown(secs(1)).await;
    });
}

// Counts and memory

#[test]
fn idle_returns_when_what_was_counted_is_not_enqueued_after_all() {
    run_paused(async {
        let storage = Faulty::new();
        let (runtime, pool) = start(builder().storage(storage.clone()).echo(), config()).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).id(id(1)).await.unwrap().join().await, Ok(1));
        soon(pool.idle()).await.unwrap();
        let counted = async { assert_eq!(pool.pending(), 1) };
        let duplicate = async { pool.enqueue(ECHO.call(1)).id(id(1)).await };
        let (duplicate, (), idle) = tokio::join!(biased; duplicate, counted, soon(pool.idle()));
        assert!(duplicate.is_ok());
        idle.unwrap();

        storage.fail_next(Fault::Refused, |change| matches!(change, Change::InsertWork { .. }));
        let counted = async { assert_eq!(pool.pending(), 1) };
        let refused = async { pool.enqueue(ECHO.call(2)).await };
        let (refused, (), idle) = tokio::join!(biased; refused, counted, soon(pool.idle()));
        assert!(matches!(refused, Err(EnqueueError::Storage(_))), "{refused:?}");
        idle.unwrap();
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn idle_returns_when_what_was_counted_is_refused_as_too_much() {
    run_real(async {
        let builder = Runtime::builder().worker_arbiters(1).echo();
        let (runtime, pool) = start(builder, config().max_pending(1)).await;
        let (flooding, done) = (pool.clone(), Arc::new(AtomicBool::new(false)));
        let ended = done.clone();
        let flood = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                // Made ahead, so that the counting comes in quick succession.
                let batches: Vec<_> = (0..500)
                    .map(|_| flooding.enqueue_batch([ECHO.call(1), ECHO.call(2)]).into_future())
                    .collect();
                for mut batch in batches {
                    let answer = batch.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    let Poll::Ready(Err(error)) = answer else { panic!("it was not refused") };
                    assert!(matches!(error, EnqueueError::Overloaded { .. }), "{error:?}");
                }
            }
        });
        // Now and then the question falls between a count and its refusal.
        let mut outcome = Ok(());
        for round in 0..1_000 {
            let mut asked: Vec<_> = (0..500).map(|_| Box::pin(pool.idle())).collect();
            asked.retain_mut(|idle| {
                idle.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            });
            let answered = async {
                for idle in asked {
                    idle.await.unwrap();
                }
            };
            if timeout(secs(5), answered).await.is_err() {
                outcome = Err(format!("it hangs in round {round}"));
                break;
            }
        }
        done.store(true, Ordering::SeqCst);
        flood.join().unwrap();
        outcome.unwrap();
        assert_eq!(pool.pending(), 0);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn finished_works_grow_old_although_nothing_completes_and_their_ids_can_be_used_again() {
    run_paused(async {
        let (mut tables, gate) = (Memory::new(), Gate::new());
        let at = gate.clone();
        let retention = Retention { max_age: Some(secs(60)), max_count: None };
        let builder = builder().storage(tables.clone()).retention(retention).echo();
        let builder = builder.action_fn(TASK, move |n, cx| {
            let gate = at.clone();
            async move {
                cx.progress(n, Some(10));
                gate.pass().await;
                Ok(n)
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).id(id(1)).await.unwrap().join().await, Ok(1));
        assert!(tables.finished(&[id(1)]).unwrap()[0].is_some());
        tokio::time::sleep(secs(200)).await;
        assert!(tables.finished(&[id(1)]).unwrap()[0].is_none(), "it is older than a minute");

        let again = pool.enqueue(TASK.call(2)).id(id(1)).await.unwrap();
        gate.entered(1).await;
        let WorkStatus::Running { progress: Some(progress), .. } = again.status().await.unwrap()
        else {
            panic!("{:?}", again.status().await)
        };
        assert_eq!((progress.done, progress.total), (2, Some(10)));
        let running = pool.running().await.unwrap();
        assert_eq!(running[0].progress, Some(progress));
        gate.open();
        assert_eq!(soon(again.join()).await, Ok(2));
        runtime.shutdown(secs(1)).await;
    });
}

/// Three bytes a sign, so that a cut may fall within one.
const SIGN: &str = "€";
const SIGNS: usize = 400_000;

#[derive(Serialize, Deserialize)]
struct Wordy;

impl Mutation for Wordy {
    const NAME: &'static str = "wordy";
    type Output = ();

    fn apply(self, _: &mut Transaction<'_>) -> Result<(), WorkError> {
        Err(WorkError::non_retryable(SIGN.repeat(SIGNS)))
    }
}

#[derive(Serialize, Deserialize)]
struct WordyBlocking;

impl BlockingAction for WordyBlocking {
    const NAME: &'static str = "wordy.blocking";
    type Output = ();

    fn run(self, _: &ActionContext) -> Result<(), WorkError> {
        Err(WorkError::retryable(SIGN.repeat(SIGNS)))
    }
}

#[test]
fn a_huge_error_message_is_cut() {
    run_real(async {
        let builder = builder().mutation::<Wordy>().blocking_action::<WordyBlocking>();
        let builder = builder.action_fn(TASK, |n, _| async move {
            match n {
                0 => Err(WorkError::retryable(SIGN.repeat(SIGNS))),
                1 => Err(WorkError::non_retryable(SIGN.repeat(SIGNS))),
                _ => panic!("{}", SIGN.repeat(SIGNS)),
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        let mut failures = Vec::new();
        for n in 0..3 {
            failures.push(failure(pool.enqueue(TASK.call(n)).await.unwrap().join().await).1);
        }
        failures.push(failure(pool.enqueue(Wordy).await.unwrap().join().await).1);
        failures.push(failure(pool.enqueue(WordyBlocking).await.unwrap().join().await).1);
        for failure in failures {
            let bytes = failure.message.len();
            assert!((16_000..=16 * 1024 + 16).contains(&bytes), "{bytes} of {:?}", failure.kind);
            assert!(failure.message.starts_with(SIGN));
        }
        runtime.shutdown(secs(1)).await;
    });
}

/// Cancels very many works, and meanwhile does something again and again. Answers how often it was done and how long
/// the slowest took.
async fn meanwhile_cancel_all(action: impl AsyncFn(&Workpool)) -> (usize, Duration) {
    const WORKS: u64 = 250_000;
    let builder = Runtime::builder().worker_arbiters(1).echo().pool("q", config());
    let (runtime, pool) = start(builder, config().paused(true)).await;
    let beside = runtime.pool("q").unwrap();
    let batch = pool.enqueue_batch((0..WORKS).map(|n| ECHO.call(n))).await.unwrap();
    let done = AtomicBool::new(false);
    let canceling = async {
        let canceled = timeout(secs(20), pool.cancel_all()).await;
        done.store(true, Ordering::SeqCst);
        canceled.expect("it takes a time in proportion").unwrap()
    };
    let (mut times, mut slowest) = (0, Duration::ZERO);
    let asking = async {
        while !done.load(Ordering::SeqCst) {
            let begun = Instant::now();
            action(&beside).await;
            slowest = slowest.max(begun.elapsed());
            times += 1;
        }
    };
    let (canceled, ()) = tokio::join!(canceling, asking);
    assert_eq!(canceled, WORKS);
    timeout(secs(20), pool.idle()).await.expect("all of them end").unwrap();
    assert_eq!(batch.handles().last().unwrap().join().await, Err(JoinError::Canceled));
    runtime.shutdown(secs(1)).await;
    (times, slowest)
}

#[test]
fn cancel_all_goes_through_very_many_works_in_time_and_others_are_answered_meanwhile() {
    run_real(async {
        let (answered, slowest) = meanwhile_cancel_all(async |pool| {
            assert_eq!(pool.status(id(1)).await.unwrap(), WorkStatus::Unknown);
            pool.enqueue(ECHO.call(1)).await.unwrap();
        })
        .await;
        assert!(answered >= 10 && slowest < secs(1), "{answered}, the slowest in {slowest:?}");
    });
}

#[test]
fn works_of_other_pools_run_while_cancel_all_goes_through_very_many() {
    run_real(async {
        let (ran, slowest) = meanwhile_cancel_all(async |pool| {
            let work = pool.enqueue(ECHO.call(1)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
        })
        .await;
        assert!(ran >= 10 && slowest < secs(1), "{ran} ran, the slowest in {slowest:?}");
    });
}

// Threads

/// Set in a process that runs one test only, so that no other has threads there.
#[cfg(target_os = "linux")]
const ALONE: &str = "WORKPOOL_TEST_ALONE";

#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
#[cfg(target_os = "linux")]
fn threads_that_were_replaced_because_they_were_blocked_end() {
    const NAME: &str = "regressions::threads_that_were_replaced_because_they_were_blocked_end";
    const ROUNDS: usize = 4;
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
        return;
    }
    run_real(async {
        let released = Arc::new(AtomicBool::new(false));
        let blocked = released.clone();
        let builder = Runtime::builder().worker_arbiters(2).echo().action_fn(TASK, move |n, _| {
            let released = blocked.clone();
            async move {
                while !released.load(Ordering::SeqCst) {
                    std::thread::sleep(ms(5));
                }
                Ok(n)
            }
        });
        let (runtime, pool) = start(builder, config().max_parallelism(2)).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        let before = threads();
        for _ in 0..ROUNDS {
            let stuck = pool.enqueue_batch([TASK.call(1), TASK.call(2)]).timeout(ms(50));
            for outcome in soon(stuck.await.unwrap().join()).await {
                assert_eq!(failure(outcome).1.kind, FailureKind::Timeout);
            }
        }
        let work = pool.enqueue(ECHO.call(2)).await.unwrap();
        assert_eq!(soon(work.join()).await, Ok(2));
        let most = threads();
        assert!(most >= before + 2 * ROUNDS - 2, "{before} threads became {most}");
        released.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        while threads() > before + 1 && begun.elapsed() < secs(5) {
            tokio::time::sleep(ms(10)).await;
        }
        let after = threads();
        assert!(after <= before + 1, "{before} threads became {most} and then {after}");
        let work = pool.enqueue(ECHO.call(3)).await.unwrap();
        assert_eq!(soon(work.join()).await, Ok(3));
        runtime.shutdown(secs(1)).await;
    });
}

// The watchdog

/// Waits without letting the paused time pass: what is awaited comes from another thread.
async fn awake<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        cx.waker().wake_by_ref();
        polled
    })
    .await
}

#[test]
fn a_turn_that_is_not_answered_for_long_is_given_up_and_its_work_still_runs_once() {
    run_paused(async {
        let (mut storage, gate) = (Hooked::new(true), Gate::new());
        let at = gate.clone();
        let builder = builder().storage(storage.clone()).action_fn(TASK, move |n, _| {
            at.enter();
            async move { Ok(n) }
        });
        let (runtime, pool) = awake(start(builder, config())).await;
        let (held, release) = storage.hold_starts();
        let work = awake(pool.enqueue(TASK.call(7)).into_future()).await.unwrap();
        awake(held.entered(1)).await;
        let before = storage.tables.state(PoolId(0)).unwrap().generation;
        // The time passes that no turn takes; the thread of the storage stands still all the while.
        tokio::time::sleep(secs(60)).await;
        drop(release);
        assert_eq!(awake(work.join()).await, Ok(7));
        assert_eq!(gate.count(), 1, "what the given-up turn started was not launched twice");
        let after = storage.tables.state(PoolId(0)).unwrap().generation;
        assert!(after > before, "the loop reigns anew: {after} after {before}");
        let report = awake(pool.diagnostics()).await.unwrap().report;
        assert_eq!((report.completed, report.succeeded), (1, 1), "{report:?}");
        storage.unhook();
        awake(runtime.shutdown(secs(1))).await;
    });
}

#[test]
fn every_page_of_a_cancel_all_is_synced_before_its_answer() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).echo();
        let (runtime, pool) = start(builder, config().paused(true)).await;
        pool.enqueue_batch((0..2_000).map(|n| ECHO.call(n))).await.unwrap();
        let (pages, later) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = (pages.clone(), later.clone());
        storage.before_each_call(move |call| {
            let cancels =
                |change: &Change| matches!(change, Change::InsertPendingCancelation { .. });
            if let Call::Commit(changes, fsync) = call
                && changes.iter().any(cancels)
            {
                seen.0.fetch_add(1, Ordering::SeqCst);
                seen.1.fetch_add(usize::from(fsync == Fsync::WithNext), Ordering::SeqCst);
            }
            Ok(())
        });
        assert_eq!(pool.cancel_all().await.unwrap(), 2_000);
        assert_eq!((pages.load(Ordering::SeqCst), later.load(Ordering::SeqCst)), (2, 0));
        storage.unhook();
        runtime.shutdown(secs(1)).await;
    });
}

/// Answers to turns are late.
fn late_answers(on: &Arc<AtomicBool>) -> Astray {
    let delivery = Delivery { after: secs(60), again: None };
    Astray { letter: Letter::Batch, delivery, on: on.clone() }
}

#[test]
fn a_change_of_the_configuration_whose_turn_is_given_up_is_answered_by_what_the_tables_say() {
    run_paused(async {
        let late = Arc::new(AtomicBool::new(false));
        let builder = builder().echo().courier(late_answers(&late));
        let (runtime, pool) = start(builder, config()).await;
        late.store(true, Ordering::SeqCst);
        let asked = Instant::now();
        let update = actix::spawn({
            let pool = pool.clone();
            async move { pool.update(config().max_parallelism(7)).await }
        });
        tokio::time::sleep(secs(1)).await;
        late.store(false, Ordering::SeqCst);
        // It was committed at once; the loop gives the turn up and finds that out.
        assert!(matches!(update.await.unwrap(), Ok(())));
        let took = asked.elapsed();
        assert!((secs(30)..secs(60)).contains(&took), "{took:?}");
        assert_eq!(pool.settings().max_parallelism, 7);
        assert_eq!(pool.diagnostics().await.unwrap().spare_capacity, 7);
        // The answer that comes in the end is that to a turn of an earlier reign.
        tokio::time::sleep(secs(60)).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_kick_that_overtakes_the_answer_to_a_failed_turn_does_not_pass_for_its_receipt() {
    run_paused(async {
        let late = Arc::new(AtomicBool::new(false));
        let storage = Faulty::new();
        let builder = builder().storage(storage.clone()).echo().courier(late_answers(&late));
        let (runtime, pool) = start(builder, config().max_parallelism(3)).await;
        storage.fail_next(Fault::Refused, configures);
        late.store(true, Ordering::SeqCst);
        let update = actix::spawn({
            let pool = pool.clone();
            async move { pool.update(config().max_parallelism(7)).await }
        });
        until_hit(&storage).await;
        late.store(false, Ordering::SeqCst);
        let work = pool.enqueue(ECHO.call(1)).await.unwrap();
        assert!(matches!(update.await.unwrap(), Err(PoolError::Storage(_))));
        assert_eq!(pool.settings().max_parallelism, 3);
        assert_eq!(work.join().await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}
