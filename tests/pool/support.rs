//! What the tests of several topics use: actions, changes to look for, and a storage that asks the test.

use std::future::Future;
use std::sync::{Arc, Mutex, mpsc};

use crate::common::*;
use actix_workpool::model::{Change, Segment};
use actix_workpool::storage::{self, Fsync, Memory, Storage, StorageError};
use actix_workpool::{
    ActionKey, Failure, JoinError, Mutation, PoolConfig, Query, Reader, RetryBehavior, Runtime,
    RuntimeBuilder, Transaction, WorkError, WorkId, Workpool,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub const NAP: ActionKey<u64, u64> = ActionKey::new("nap");

pub fn config() -> PoolConfig {
    PoolConfig::default()
}

pub fn retries(attempts: u32) -> RetryBehavior {
    RetryBehavior::default().max_attempts(attempts).initial_backoff(ms(100))
}

pub fn id(number: u128) -> WorkId {
    WorkId::from_uuid(Uuid::from_u128(number))
}

/// A runtime whose `TASK` waits at a gate and answers its argument.
pub async fn gated(config: PoolConfig) -> (Runtime, Workpool, Gate) {
    let gate = Gate::new();
    let at = gate.clone();
    let builder = builder().action_fn(TASK, move |n, _| {
        let gate = at.clone();
        async move {
            gate.pass().await;
            Ok(n)
        }
    });
    let (runtime, pool) = start(builder, config).await;
    (runtime, pool, gate)
}

pub fn failure<T: std::fmt::Debug>(outcome: Result<T, JoinError>) -> (u32, Failure) {
    match outcome {
        Err(JoinError::Failed { attempts, failure }) => (attempts, failure),
        other => panic!("{other:?} is no failure"),
    }
}

pub fn starts(change: &Change) -> bool {
    matches!(change, Change::StartWork { .. })
}

pub fn reports(change: &Change) -> bool {
    matches!(change, Change::InsertPendingCompletion { .. })
}

pub fn completes(change: &Change) -> bool {
    matches!(change, Change::CompleteWork { .. })
}

pub fn configures(change: &Change) -> bool {
    matches!(change, Change::PutGlobals { .. })
}

/// Waits for the first failed commit, without time passing behind it.
pub async fn until_hit(storage: &Faulty) {
    while storage.hits() == 0 {
        steps(1).await;
    }
}

/// What a [`Hooked`] storage is asked.
pub enum Call<'a> {
    Read,
    Commit(&'a [Change], Fsync),
}

pub type Hook = Box<dyn FnMut(Call<'_>) -> Result<(), StorageError> + Send>;

/// Tables in memory that ask the test before each call. Clones share tables and hook.
#[derive(Clone)]
pub struct Hooked {
    pub tables: Memory,
    pub may_block: bool,
    pub hook: Arc<Mutex<Option<Hook>>>,
}

impl Hooked {
    pub fn new(may_block: bool) -> Hooked {
        Hooked { tables: Memory::new(), may_block, hook: Arc::default() }
    }

    pub fn before_each_call(
        &self,
        hook: impl FnMut(Call<'_>) -> Result<(), StorageError> + Send + 'static,
    ) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Holds each commit of a start until what this returns is dropped; the gate tells when one has come.
    pub fn hold_starts(&self) -> (Gate, mpsc::Sender<()>) {
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

    pub fn unhook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    pub fn ask(&self, call: Call<'_>) -> Result<(), StorageError> {
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

/// Waits without letting the paused time pass: what is awaited comes from another thread.
pub async fn awake<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        cx.waker().wake_by_ref();
        polled
    })
    .await
}

pub fn inserts(change: &Change) -> bool {
    matches!(change, Change::InsertWork { .. })
}

pub fn cancels(change: &Change) -> bool {
    matches!(change, Change::InsertPendingCancelation { .. })
}

#[derive(Serialize, Deserialize)]
pub struct Deposit {
    pub account: String,
    pub amount: u64,
}

impl Mutation for Deposit {
    const NAME: &'static str = "deposit";
    type Output = u64;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
        let balance = tx.get::<u64>("accounts", &self.account)?.unwrap_or(0) + self.amount;
        tx.put("accounts", &self.account, &balance)?;
        Ok(balance)
    }
}

pub fn attempts<T: std::fmt::Debug>(outcome: Result<T, JoinError>) -> u32 {
    match outcome {
        Err(JoinError::Failed { attempts, .. }) => attempts,
        other => panic!("{other:?} is no failure"),
    }
}

/// Jobs still run.
pub async fn works(pool: &Workpool) {
    assert_eq!(soon(pool.enqueue(ECHO.call(3)).await.unwrap().join()).await, Ok(3));
}

#[derive(Serialize, Deserialize)]
pub struct ToldOf(pub WorkId);

impl Query for ToldOf {
    const NAME: &'static str = "told.of";
    type Output = u64;

    fn read(self, reader: &mut Reader<'_>) -> Result<u64, WorkError> {
        Ok(reader.get("told", self.0)?.unwrap_or(0))
    }
}

/// Enqueues an echo of 7 under this id, in another pool.
#[derive(Serialize, Deserialize)]
pub struct Relay(pub WorkId);

pub fn relay(tx: &mut Transaction<'_>, work_id: WorkId) -> Result<(), WorkError> {
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

/// Lets time pass until something has come about, also while a thread is held, and no longer.
pub async fn pass_until(mut come: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if awake(come()).await {
            return;
        }
        tokio::time::advance(ms(10)).await;
        steps(20).await;
    }
    panic!("it never came");
}

/// A builder with [`TASK`], which says its argument to the log when it runs, and answers it.
pub fn telling() -> (RuntimeBuilder, Log) {
    let log = Log::default();
    let told = log.clone();
    let builder = builder().action_fn(TASK, move |n, _| {
        told.say(n.to_string());
        async move { Ok(n) }
    });
    (builder, log)
}
