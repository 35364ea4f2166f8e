//! What the integration tests share: paused time, gates, and a storage that fails when it is told to.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_workpool::model::{Change, Segment, WorkId};
#[cfg(all(feature = "redb", feature = "unstable-storage"))]
use actix_workpool::storage::Redb;
use actix_workpool::storage::{Fsync, Hook, Memory, Opened, Storage, StorageError};
use actix_workpool::testing;
use actix_workpool::testing::network::{Courier, Delivery, Letter};
use actix_workpool::{
    ActionContext, ActionKey, Completion, OnComplete, PoolConfig, Runtime, RuntimeBuilder,
    StartError, Transaction, WorkError, Workpool,
};
use tokio::sync::watch;

/// Runs a test in an actix system whose time stands still unless everybody waits. A test that waits for a virtual
/// week has hung.
pub fn run_paused<T>(test: impl Future<Output = T>) -> T {
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    testing::run(async { tokio::time::timeout(week, test).await.expect("the test hangs") })
}

/// Runs a test in paused time as a task like those of the actors, so that it takes its steps in turn with them.
pub fn run_in_turn<T: 'static>(test: impl Future<Output = T> + 'static) -> T {
    run_paused(async {
        match actix::spawn(test).await {
            Ok(ended) => ended,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    })
}

/// Lets the others that are ready take this many steps, without time passing.
pub async fn steps(count: usize) {
    for _ in 0..count {
        let mut waited = false;
        // Not `yield_now`, which lets them go on until nothing is ready any more.
        std::future::poll_fn(|cx| match std::mem::replace(&mut waited, true) {
            true => std::task::Poll::Ready(()),
            false => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

/// How many steps a race is tried with: enough for the messages of a few turns.
pub const PHASES: std::ops::Range<usize> = 0..40;

/// Runs a test in an actix system in real time, for at most a minute.
pub fn run_real(test: impl Future<Output = ()>) {
    actix::System::new().block_on(soon(test));
}

/// Awaits something that happens soon, in real or in paused time.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it happens soon")
}

/// A builder whose runtime lives on the test's own thread, over tables of its own.
pub fn builder() -> RuntimeBuilder {
    Runtime::builder().worker_arbiters(0).storage(Tables::new())
}

/// Starts a runtime with one pool of the name `p`.
pub async fn start(builder: RuntimeBuilder, config: PoolConfig) -> (Runtime, Workpool) {
    let runtime = builder.pool("p", config).start().await.unwrap();
    let pool = runtime.pool("p").unwrap();
    (runtime, pool)
}

/// Starts over a storage that an earlier, dropped runtime is about to give back.
pub async fn start_again(builder: impl Fn() -> RuntimeBuilder) -> Runtime {
    let attempt = async {
        loop {
            match builder().start().await {
                Err(StartError::Storage(StorageError::InUse)) => tokio::task::yield_now().await,
                started => return started.unwrap(),
            }
        }
    };
    soon(attempt).await
}

/// Answers its argument.
pub const ECHO: ActionKey<u64, u64> = ActionKey::new("echo");

/// Does what [`task`] is told.
pub const TASK: ActionKey<u64, u64> = ActionKey::new("task");

/// Registers [`TASK`], which comes to `then`; with 0 only when the gate is open.
pub fn task<Fut>(
    builder: RuntimeBuilder,
    gate: &Gate,
    then: impl Fn(u64, ActionContext) -> Fut + Clone + Send + Sync + 'static,
) -> RuntimeBuilder
where
    Fut: Future<Output = Result<u64, WorkError>> + 'static,
{
    let gate = gate.clone();
    builder.action_fn(TASK, move |n, cx: ActionContext| {
        let (gate, then) = (gate.clone(), then.clone());
        async move {
            if n == 0 {
                cx.progress_note(3, Some(4), "at the gate");
                gate.pass().await;
            }
            then(n, cx).await
        }
    })
}

pub trait WithEcho {
    fn echo(self) -> Self;
}

impl WithEcho for RuntimeBuilder {
    fn echo(self) -> Self {
        self.action_fn(ECHO, |n, _| async move { Ok(n) })
    }
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Lets everything happen that can without time passing by more than a millisecond. For paused time.
pub async fn settle() {
    tokio::time::sleep(ms(1)).await;
}

/// A door in a function's way: the test sees who has come to it, and opens it.
#[derive(Clone)]
pub struct Gate {
    open: watch::Sender<bool>,
    entered: watch::Sender<usize>,
}

impl Gate {
    pub fn new() -> Gate {
        Gate { open: watch::Sender::new(false), entered: watch::Sender::new(0) }
    }

    pub async fn pass(&self) {
        self.entered.send_modify(|entered| *entered += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }

    /// For a function that does not wait at the gate itself.
    pub fn enter(&self) {
        self.entered.send_modify(|entered| *entered += 1);
    }

    pub async fn entered(&self, count: usize) {
        soon(async { drop(self.entered.subscribe().wait_for(|entered| *entered >= count).await) })
            .await;
    }

    pub fn count(&self) -> usize {
        *self.entered.borrow()
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

/// How many are inside at once, and how many there were at most.
#[derive(Clone, Default)]
pub struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl Crowd {
    pub fn enter(&self) -> impl Drop + use<> {
        let inside = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(inside, Ordering::SeqCst);
        let crowd = self.clone();
        on_drop(move || {
            crowd.0.0.fetch_sub(1, Ordering::SeqCst);
        })
    }

    pub fn inside(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Calls `action` when it is dropped.
pub fn on_drop<F: FnMut()>(action: F) -> OnDrop<F> {
    OnDrop(action)
}

pub struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What happened, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn say(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Refused,
    /// Everything is written, and the storage says that it failed.
    AnswerLost,
}

type Trigger = Box<dyn Fn(&Change) -> bool + Send>;

thread_local! {
    static ON_FILE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a test with its jobs in memory, and once more with all of them in a file, each on a thread of its own. A failure
/// names the store.
pub fn on_each_store(test: impl Fn() + Sync) {
    let stores: &[&str] = match cfg!(all(feature = "redb", feature = "unstable-storage")) {
        true => &["memory", "a file"],
        false => &["memory"],
    };
    let own = std::thread::current().name().unwrap_or("a test").to_owned();
    for store in stores {
        let run = || {
            ON_FILE.set(*store == "a file");
            test();
        };
        std::thread::scope(|threads| {
            let thread =
                std::thread::Builder::new().name(format!("{own}, with its jobs in {store}"));
            let ended = thread.spawn_scoped(threads, run).unwrap().join();
            if let Err(panicked) = ended {
                std::panic::resume_unwind(panicked);
            }
        });
    }
}

/// Where a test keeps its jobs: in memory, or in a file as [`on_each_store`] says. A clone is another handle on the
/// same tables. The file is made when the first runtime opens it, and goes with the last handle.
#[derive(Clone)]
pub struct Tables(Kept);

#[derive(Clone)]
enum Kept {
    Memory(Memory),
    #[cfg(all(feature = "redb", feature = "unstable-storage"))]
    File(Arc<TablesFile>),
}

impl Tables {
    pub fn new() -> Tables {
        #[cfg(all(feature = "redb", feature = "unstable-storage"))]
        if ON_FILE.get() {
            return Tables(Kept::File(Arc::new(TablesFile::new())));
        }
        Tables(Kept::Memory(Memory::new()))
    }
}

#[cfg(all(feature = "redb", feature = "unstable-storage"))]
struct TablesFile {
    path: std::path::PathBuf,
    open: Mutex<Option<Redb>>,
}

#[cfg(all(feature = "redb", feature = "unstable-storage"))]
impl TablesFile {
    /// A small log, so that what a test does goes through all of it.
    const LOG: u64 = 64 << 10;

    fn new() -> TablesFile {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        // Where several files of tests are one program, each has a copy of this, and counts for itself.
        let module = module_path!().replace("::", "-");
        let name = format!("{module}-{}-{number}", std::process::id());
        let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("on-file-{name}.redb"));
        TablesFile { path, open: Mutex::new(None) }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Option<Redb>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(all(feature = "redb", feature = "unstable-storage"))]
impl Drop for TablesFile {
    fn drop(&mut self) {
        drop(self.open().take());
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Hook for Tables {
    fn may_block(&self) -> bool {
        false
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        #[cfg(all(feature = "redb", feature = "unstable-storage"))]
        if let Kept::File(file) = &self.0 {
            let mut open = file.open();
            if open.is_some() {
                return Err(StorageError::InUse);
            }
            let log = TablesFile::LOG;
            return open.insert(Redb::open_with_log(&file.path, log)?.on_one_thread()).open();
        }
        self.call("open", |tables| tables.open())
    }

    fn close(&mut self) {
        match &mut self.0 {
            Kept::Memory(memory) => memory.close(),
            #[cfg(all(feature = "redb", feature = "unstable-storage"))]
            Kept::File(file) => {
                if let Some(mut open) = file.open().take() {
                    open.close();
                }
            }
        }
    }

    /// Asks the storage. A file that no runtime has open answers as one that is closed.
    fn call<T: 'static>(
        &mut self,
        _: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match &mut self.0 {
            Kept::Memory(memory) => call(memory),
            #[cfg(all(feature = "redb", feature = "unstable-storage"))]
            Kept::File(file) => match &mut *file.open() {
                Some(open) => call(open),
                None => Err(StorageError::Poisoned("no runtime has the file open".into())),
            },
        }
    }
}

/// Counts in a table how often it was told of a job.
pub struct Told;

impl OnComplete for Told {
    const NAME: &'static str = "told";
    type Context = ();
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<(), u64>) -> Result<(), WorkError> {
        let times = tx.get::<u64>("told", done.work_id)?.unwrap_or(0) + 1;
        Ok(tx.put("told", done.work_id, &times)?)
    }
}

/// Tables that fail when they are told to. Clones share tables and faults.
#[derive(Clone)]
pub struct Faulty {
    tables: Tables,
    may_block: bool,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    commits: AtomicU64,
    by_number: Mutex<HashMap<u64, Fault>>,
    by_change: Mutex<Option<(Fault, Trigger)>>,
    /// Commits that have failed.
    hits: AtomicU64,
    failing_reads: AtomicBool,
    /// How often each question was asked.
    asked: Mutex<HashMap<&'static str, u64>>,
    failed_reads: AtomicU64,
}

impl Faulty {
    pub fn new() -> Faulty {
        Faulty { tables: Tables::new(), may_block: false, faults: Arc::default() }
    }

    /// With a thread of its own, as a disk would have.
    pub fn on_a_thread(mut self) -> Faulty {
        self.may_block = true;
        self
    }

    /// Fails the commit of that number; the first one ever is 1.
    pub fn fail_commit(&self, number: u64, fault: Fault) {
        self.faults.by_number.lock().unwrap().insert(number, fault);
    }

    /// Fails the next commit that has a change like this, once.
    pub fn fail_next(&self, fault: Fault, has: impl Fn(&Change) -> bool + Send + 'static) {
        *self.faults.by_change.lock().unwrap() = Some((fault, Box::new(has)));
    }

    pub fn fail_reads(&self, failing: bool) {
        self.faults.failing_reads.store(failing, Ordering::SeqCst);
    }

    pub fn failed_reads(&self) -> u64 {
        self.faults.failed_reads.load(Ordering::SeqCst)
    }

    /// How often the storage was asked that, by the name of the method.
    pub fn asked(&self, question: &str) -> u64 {
        self.faults.asked.lock().unwrap().get(question).copied().unwrap_or(0)
    }

    /// Stands still in the next commit, until what this returns is dropped; the gate tells when it has come to that.
    pub fn stand_still(&self) -> (Gate, std::sync::mpsc::Sender<()>) {
        let (gate, (go_on, wait)) = (Gate::new(), std::sync::mpsc::channel());
        let at = gate.clone();
        self.fail_next(Fault::Refused, move |_| {
            at.enter();
            let _ = wait.recv();
            false
        });
        (gate, go_on)
    }

    pub fn commits(&self) -> u64 {
        self.faults.commits.load(Ordering::SeqCst)
    }

    /// How many commits have failed.
    pub fn hits(&self) -> u64 {
        self.faults.hits.load(Ordering::SeqCst)
    }

    fn fault_of(&self, changes: &[Change]) -> Option<Fault> {
        let number = self.faults.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(fault) = self.faults.by_number.lock().unwrap().remove(&number) {
            return Some(fault);
        }
        let mut next = self.faults.by_change.lock().unwrap();
        match &*next {
            Some((_, has)) if changes.iter().any(has) => next.take().map(|(fault, _)| fault),
            _ => None,
        }
    }
}

impl Hook for Faulty {
    fn may_block(&self) -> bool {
        self.may_block
    }

    fn call<T: 'static>(
        &mut self,
        question: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        *self.faults.asked.lock().unwrap().entry(question).or_default() += 1;
        if !self.faults.failing_reads.load(Ordering::SeqCst) {
            return call(&mut self.tables);
        }
        let failed = self.faults.failed_reads.fetch_add(1, Ordering::SeqCst);
        if failed > 100_000 {
            // Somebody asks in a loop that lets nobody else run: let the test end, and see the count.
            self.fail_reads(false);
        }
        Err(StorageError::Unavailable("read fault".into()))
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        Storage::open(&mut self.tables)
    }

    fn close(&mut self) {
        Storage::close(&mut self.tables);
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        let fault = self.fault_of(changes);
        if fault.is_some() {
            self.faults.hits.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            None => Storage::commit(&mut self.tables, changes, now, fsync),
            Some(Fault::Refused) => Err(StorageError::Unavailable("commit refused".into())),
            Some(Fault::AnswerLost) => {
                Storage::commit(&mut self.tables, changes, now, fsync)?;
                Err(StorageError::Unavailable("answer lost".into()))
            }
        }
    }
}

/// Fails if it is told to.
pub struct Note;

impl OnComplete for Note {
    const NAME: &'static str = "note";
    type Context = bool;
    type Output = u64;
    fn apply(_: &mut Transaction<'_>, done: Completion<bool, u64>) -> Result<(), WorkError> {
        match done.context {
            true => Err(WorkError::non_retryable("no")),
            false => Ok(()),
        }
    }
}

/// Carries everything at once, but letters of one kind as it says while it is on.
pub struct Astray {
    pub letter: Letter,
    pub delivery: Delivery,
    pub on: Arc<AtomicBool>,
}

impl Courier for Astray {
    fn take(&self, letter: Letter) -> Delivery {
        match letter == self.letter && self.on.load(Ordering::SeqCst) {
            true => self.delivery,
            false => Delivery::default(),
        }
    }

    fn loses_worker(&self, _: WorkId) -> bool {
        false
    }
}
