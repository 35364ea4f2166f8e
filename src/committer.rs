//! One group of messages: read what it is about, decide each in turn, commit once.
//!
//! ```text
//!  requests ─► facts (one call) ─► decide one by one over the overlay ─► changes ─► commit (one call)
//!                                     │                                               │
//!                                     └─ mutations, on_complete: user code            ▼
//!                                        in a Transaction over the same overlay     answers, batches, kicks
//! ```
//!
//! The committer belongs to the store: it runs in the StoreActor when the storage answers at once, and on a thread of
//! its own when the storage may block. It knows no actors; what is to be sent it returns as data.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;

use crate::board::WorkStatus;
use crate::config::{LogLevel, PoolConfig};
use crate::engine::arrivals::{
    self, ArrivalCx, AttemptReport, CancelAnswer, EnqueueAnswer, FinishAnswer,
};
use crate::engine::run_status::KickSource;
use crate::enqueue::follow_up;
use crate::error::panic_message;
use crate::model::{
    Batch, Change, Claimed, Counts, Cursors, Demand, Failure, FailureKind, Finished, Generation,
    Key, Name, OnCompleteCall, Payload, PendingTable, PoolId, Retry, RunNumber, RunResult, Segment,
    Spec, StateRow, Turn, WorkFact, WorkId,
};
use crate::registry::{Code, CompletionCall, encode, limit_result};
use crate::shared::Shared;
use crate::storage::{Fsync, Storage, StorageError};
use crate::transaction::{Reader, Transaction, Writes};

/// Called once with the outcome of a work.
pub(crate) type OnFinish = Box<dyn FnOnce(&Arc<Finished>) + Send>;

/// Carries an answer to whoever awaits it; one who went away is no error.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// A message to the store.
pub(crate) enum Request {
    Enqueue(Enqueue),
    Cancel {
        work_ids: Vec<WorkId>,
        reply: Reply<Vec<CancelAnswer>>,
    },
    CancelAll(CancelAll),
    AttemptsFinished(Vec<AttemptReport>),
    RunInStore(RunInStore),
    Advance(Advance),
    /// Begins or renews a reign over a pool.
    Claim {
        pool: PoolId,
        reply: Reply<Claimed>,
    },
    OpenPool {
        name: Name,
        config: PoolConfig,
        reply: Reply<PoolOpened>,
    },
    Statuses {
        work_ids: Vec<WorkId>,
        reply: Reply<Vec<WorkStatus>>,
    },
    /// Asks to be told the outcome of a work, now or when it has one; `None` when the work is not known.
    Listen {
        work_id: WorkId,
        listener: Listener,
    },
    /// Asks that the board's watchers of a work be told its status.
    Observe {
        work_id: WorkId,
    },
    Query {
        function: Name,
        args: Vec<u8>,
        reply: Reply<Result<Payload, Failure>>,
    },
    Counts {
        pool: PoolId,
        reply: Reply<(Counts, Vec<Name>)>,
    },
    /// Forgets finished works that are old enough.
    Forget,
}

/// Who waits for the outcome of a work.
pub(crate) enum Listener {
    /// A join: told the outcome, or that the work is not known.
    Join(Reply<Option<Arc<Finished>>>),
    /// A notification: told the outcome.
    Notify(OnFinish),
}

impl Listener {
    /// Tells the outcome. What a listener does on hearing it is user code, whose panic is its own affair.
    pub fn tell(self, row: Option<&Arc<Finished>>) {
        match (self, row) {
            (Listener::Join(reply), row) => drop(reply.send(Ok(row.cloned()))),
            (Listener::Notify(on_finish), Some(row)) => {
                let _ = catch_unwind(AssertUnwindSafe(|| on_finish(row)));
            }
            (Listener::Notify(_), None) => {}
        }
    }

    /// Tells that nothing more will be known.
    pub fn fail(self, error: &StorageError) {
        if let Listener::Join(reply) = self {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Whether nobody waits any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, Listener::Join(reply) if reply.is_closed())
    }
}

pub(crate) struct Enqueue {
    pub pool: PoolId,
    pub works: Vec<(Arc<Spec>, Segment)>,
    /// Whether no other work can have these ids.
    pub fresh: bool,
    pub on_finish: Option<OnFinish>,
    pub reply: Option<Reply<Vec<EnqueueAnswer>>>,
}

/// Cancels page by page, so that others get their turn.
pub(crate) struct CancelAll {
    pub pool: PoolId,
    /// Works enqueued later than this are left alone.
    pub until: Segment,
    /// Works that were found and not gone through yet, the next one last.
    pub found: Vec<WorkId>,
    /// Where the next search begins; `None` when everything was found.
    pub search: Option<Option<WorkId>>,
    pub requested: u64,
    pub reply: Reply<u64>,
}

/// An attempt of a mutation or a query: the store runs it.
#[derive(Clone)]
pub(crate) struct RunInStore {
    pub spec: Arc<Spec>,
    pub run: RunNumber,
}

/// Commits what a loop decided and asks for its next batch.
pub(crate) struct Advance {
    pub pool: PoolId,
    /// The turn that the changes belong to; with no changes, the last one that was committed.
    pub turn: Turn,
    pub changes: Vec<Change>,
    pub demand: Demand,
    /// Whether all slots are taken, as far as the loop knows.
    pub saturated: bool,
}

/// The answer to an [`Advance`]: receipt of the commit and input of the next turn. A loop that was left with an empty
/// batch rests, and gets another when there is news for it.
#[derive(Debug)]
pub(crate) struct BatchReady {
    pub turn: Turn,
    /// Set when nobody asked: the loop rests, and this is why it should look again.
    pub kick: Option<KickSource>,
    pub batch: Result<Batch, AdvanceError>,
}

/// Why a commit of a loop did not happen. The loop claims its pool anew and goes on from the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdvanceError {
    /// Another generation reigns, or the turn was committed already.
    Fenced,
    Storage(StorageError),
}

/// The answer to [`Request::OpenPool`].
#[derive(Debug)]
pub(crate) struct PoolOpened {
    pub pool: PoolId,
    pub config: PoolConfig,
    pub pending: u64,
    pub claimed: Claimed,
}

/// What happened, for the board, the listeners and the log.
pub(crate) enum Event {
    Enqueued { spec: Arc<Spec>, due: Segment },
    Retrying { work_id: WorkId, pool: PoolId, function: Option<Name>, due: Segment, attempts: u32 },
    Completed { finished: Arc<Finished> },
    Stale { work_id: WorkId, run: RunNumber },
    OnCompleteFailed { work_id: WorkId, pool: PoolId, name: Name, follow_up: WorkId },
    SlowMutation { function: Name, took: Duration },
    Unregistered { work_id: WorkId, pool: PoolId },
}

/// What is to be sent once a group is decided.
#[derive(Default)]
pub(crate) struct Settled {
    pub events: Vec<Event>,
    pub listeners: Vec<(WorkId, Listener)>,
    pub batches: Vec<(PoolId, BatchReady)>,
    /// By how much each pool's count of works without an outcome falls; negative where transactions have enqueued.
    pub left: HashMap<PoolId, i64>,
    /// Works that were enqueued under an id that was in use before and forgotten.
    pub revived: Vec<WorkId>,
    /// Run last: an answered caller finds board and tables as it was told.
    pub answers: Vec<Box<dyn FnOnce() + Send>>,
    /// Watchers of these works are told these statuses.
    pub observed: Vec<(WorkId, WorkStatus)>,
    /// To be decided in a later group: pages that follow, and reports that a failed commit could not take.
    pub again: Vec<Request>,
    /// Why nothing was committed.
    pub failed: Option<StorageError>,
    /// Whether the committer needs another call, also if there is no message: a group is in limbo.
    pub unfinished: bool,
}

/// A mutation that takes longer holds everything else up.
const SLOW_MUTATION: Duration = Duration::from_millis(50);

/// Works canceled per group by one `cancel_all`.
const CANCEL_PAGE: usize = 1_000;

/// Works found at a time by one `cancel_all`.
const SEARCH_PAGE: usize = 200_000;

/// At least this many rows may be forgotten at a time by retention: twice as many as complete meanwhile.
const RETENTION_STEP: usize = 2_000;

/// A group that is about more works than this gives its memory back.
const MOST_KEPT: usize = 4_096;

/// What the committer keeps of a pool, so that not every message asks the storage.
struct Pool {
    name: Name,
    config: PoolConfig,
    /// Who may write for the pool, and the last turn that did.
    fence: Turn,
    cursors: Cursors,
    /// Up to when starts have been read. The turn that was shown them may move the cursor there.
    read_until: Segment,
    pending: u64,
    log_level: LogLevel,
    /// Set while the loop rests.
    parked: Option<Parked>,
    /// Which sources have news since the loop last read, and the earliest new start.
    news: News,
}

#[derive(Clone, Copy)]
struct Parked {
    /// What the loop would like to see.
    demand: Demand,
    saturated: bool,
    next_due: Option<Segment>,
}

#[derive(Clone, Copy, Default)]
struct News {
    completion: bool,
    cancelation: bool,
    start: Option<Segment>,
}

pub(crate) struct Committer {
    storage: Box<dyn Storage>,
    shared: Arc<Shared>,
    pools: Vec<Pool>,
    last_seq: u64,
    rng: fastrand::Rng,
    clock: Segment,
    /// Completions since retention last looked.
    completions: usize,
    /// Empty; their memory serves one group after the other. Large pieces of memory are dear to allocate.
    facts: HashMap<WorkId, Option<WorkFact>>,
    changes: Vec<Change>,
    /// A group whose commit failed and could not be looked for since.
    limbo: Option<Limbo>,
    closed: bool,
}

/// A group that may have been committed: the answer to its commit was an error, which may have come after the fact.
struct Limbo {
    group: Group,
    witness: Witness,
    error: StorageError,
}

/// What is there if, and only if, a group was committed. One trace is enough, for a commit is all or nothing.
enum Witness {
    /// The pool's state is that of this turn.
    Turn(PoolId, Turn),
    /// The work is or was there.
    Work(WorkId),
    /// The work has this row in `pending_completion`, or is past it.
    Completion(WorkId, RunNumber),
    /// The work has a row in `pending_cancelation`, or is past it.
    Cancelation(WorkId),
    /// There is nothing to look for.
    Nothing,
}

/// The group under way.
struct Group {
    now: Segment,
    facts: HashMap<WorkId, Option<WorkFact>>,
    known_finished: HashSet<WorkId>,
    changes: Vec<Change>,
    writes: Writes,
    settled: Settled,
    /// Pools with news.
    touched: Vec<PoolId>,
    advances: Vec<(PoolId, Turn, Demand, bool)>,
    /// Kept to be decided again if the commit fails.
    reports: Vec<AttemptReport>,
    in_store: Vec<RunInStore>,
    /// The configurations that the group replaces.
    configs: Vec<(PoolId, PoolConfig)>,
    /// Answers that tell of the commit.
    receipts: Vec<Receipt>,
    /// See [`Settled::left`].
    left: HashMap<PoolId, i64>,
}

enum Receipt {
    Enqueue {
        pool: PoolId,
        counted: u64,
        answers: Vec<EnqueueAnswer>,
        reply: Option<Reply<Vec<EnqueueAnswer>>>,
    },
    Cancel {
        answers: Vec<CancelAnswer>,
        reply: Reply<Vec<CancelAnswer>>,
    },
    CancelAll {
        total: u64,
        reply: Reply<u64>,
    },
}

impl Committer {
    /// Opens the storage.
    pub fn open(mut storage: Box<dyn Storage>, shared: Arc<Shared>) -> Result<Self, StorageError> {
        let opened = storage.open()?;
        shared.seams.go_on_from(opened.clock);
        let mut pools = Vec::new();
        for row in opened.pools {
            if row.pool.0 as usize != pools.len() {
                storage.close();
                return Err(StorageError::Poisoned("pools are not numbered one by one".into()));
            }
            pools.push(Pool {
                name: row.name,
                log_level: row.config.settings().log_level,
                config: row.config,
                fence: row.state.fence(),
                cursors: row.state.cursors,
                read_until: Segment::default(),
                pending: row.pending,
                parked: None,
                news: News::default(),
            });
        }
        let rng = shared.seams.rng();
        let (last_seq, clock) = (opened.last_seq, opened.clock);
        Ok(Committer {
            storage,
            shared,
            pools,
            last_seq,
            rng,
            clock,
            completions: 0,
            facts: HashMap::new(),
            changes: Vec::new(),
            limbo: None,
            closed: false,
        })
    }

    /// Gives the storage back. Dropping the committer does so too.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.storage.close();
        }
    }

    /// Decides and commits one group.
    pub fn run(&mut self, requests: Vec<Request>) -> Settled {
        if let Some(limbo) = self.limbo.take() {
            let mut settled = self.resolve(limbo);
            if settled.unfinished {
                let error = settled.failed.take().unwrap_or(StorageError::Conflict);
                let refused = self.refuse(requests, error);
                return Settled { unfinished: true, ..refused };
            }
            settled.again.extend(requests);
            return settled;
        }
        let mut group = match self.begin(&requests) {
            Ok(group) => group,
            Err(error) => return self.refuse(requests, error),
        };
        let mut requests = VecDeque::from(requests);
        let mut reads = Vec::new();
        while let Some(request) = requests.pop_front() {
            if request.only_reads() {
                reads.push(request);
            } else if let Err(error) = self.decide(&mut group, request) {
                // The storage failed while user code or a page was reading it: nothing of the group happens.
                reads.extend(requests);
                let mut settled = self.refuse(reads, error.clone());
                self.fail(&mut settled, group, error);
                return settled;
            }
        }
        let mut settled = self.commit(group);
        for request in reads {
            self.read(&mut settled, request);
        }
        settled
    }

    /// Reads the facts of all works that the group is about, in one call.
    fn begin(&mut self, requests: &[Request]) -> Result<Group, StorageError> {
        let mut ids = Vec::new();
        let mut ask_finished = Vec::new();
        for request in requests {
            match request {
                Request::Enqueue(enqueue) if !enqueue.fresh => {
                    ask_finished.extend(enqueue.works.iter().map(|(spec, _)| spec.work_id));
                }
                Request::Cancel { work_ids, .. } => ids.extend(work_ids),
                Request::AttemptsFinished(reports) => {
                    ids.extend(reports.iter().map(|report| report.work_id));
                }
                Request::RunInStore(run) => ids.push(run.spec.work_id),
                _ => {}
            }
        }
        ids.extend(&ask_finished);
        let facts = match ids.is_empty() {
            true => HashMap::new(),
            false => {
                let mut facts = std::mem::take(&mut self.facts);
                facts.extend(ids.iter().copied().zip(self.storage.facts(&ids)?));
                facts
            }
        };
        let known_finished = match ask_finished.is_empty() {
            true => HashSet::new(),
            false => {
                let rows = self.storage.finished(&ask_finished)?;
                rows.into_iter().flatten().map(|row| row.work_id).collect()
            }
        };
        self.clock = self.clock.max(self.shared.seams.segment());
        Ok(Group {
            now: self.clock,
            facts,
            known_finished,
            changes: std::mem::take(&mut self.changes),
            writes: Writes::default(),
            settled: Settled::default(),
            touched: Vec::new(),
            advances: Vec::new(),
            reports: Vec::new(),
            in_store: Vec::new(),
            configs: Vec::new(),
            receipts: Vec::new(),
            left: HashMap::new(),
        })
    }

    /// Decides one request over what the earlier ones of the group have changed. When the storage fails meanwhile,
    /// the group holds everything that is to be answered or tried again.
    fn decide(&mut self, group: &mut Group, request: Request) -> Result<(), StorageError> {
        match request {
            Request::Enqueue(enqueue) => self.enqueue(group, enqueue),
            Request::Cancel { work_ids, reply } => {
                let answers = work_ids.iter().map(|id| self.cancel(group, *id)).collect();
                group.receipts.push(Receipt::Cancel { answers, reply });
            }
            Request::CancelAll(page) => self.cancel_page(group, page)?,
            Request::AttemptsFinished(reports) => {
                group.reports.reserve(reports.len());
                for report in reports {
                    group.reports.push(report.clone());
                    self.attempt_finished(group, report);
                }
            }
            Request::RunInStore(run) => {
                group.in_store.push(run.clone());
                self.run_in_store(group, &run)?;
            }
            Request::Advance(advance) => self.advance(group, advance)?,
            _ => debug_assert!(false, "reads are answered after the commit"),
        }
        Ok(())
    }

    /// Answers a request that belongs to no group: it sees what the group has committed.
    fn read(&mut self, settled: &mut Settled, request: Request) {
        match request {
            Request::Claim { pool, reply } => {
                let claimed = self.claim(pool);
                settled.answer(move || drop(reply.send(claimed)));
            }
            Request::OpenPool { name, config, reply } => {
                let opened = self.open_pool(name, config);
                settled.answer(move || drop(reply.send(opened)));
            }
            Request::Statuses { work_ids, reply } => {
                let statuses = self.statuses(&work_ids);
                settled.answer(move || drop(reply.send(statuses)));
            }
            Request::Observe { work_id } => match self.statuses(&[work_id]) {
                Ok(statuses) => {
                    settled.observed.extend(statuses.into_iter().map(|status| (work_id, status)))
                }
                Err(error) => {
                    settled.failed = Some(error);
                    settled.again.push(Request::Observe { work_id });
                }
            },
            Request::Listen { work_id, listener } => match self
                .statuses(&[work_id])
                .map(|mut all| all.pop())
            {
                Ok(Some(WorkStatus::Finished(row))) => {
                    settled.answer(move || listener.tell(Some(&row)))
                }
                Ok(Some(WorkStatus::Unknown) | None) => settled.answer(move || listener.tell(None)),
                Ok(Some(_)) => settled.listeners.push((work_id, listener)),
                Err(error) => {
                    settled.failed = Some(error);
                    settled.again.push(Request::Listen { work_id, listener });
                }
            },
            Request::Query { function, args, reply } => {
                let answer = self.query(function, &args);
                settled.answer(move || drop(reply.send(answer)));
            }
            Request::Forget => self.forget_expired(),
            Request::Counts { pool, reply } => {
                let counts = self.counts(pool);
                settled.answer(move || drop(reply.send(counts)));
            }
            _ => debug_assert!(false, "everything else is decided in its group"),
        }
    }

    /// Commits, and settles what that has brought about.
    fn commit(&mut self, mut group: Group) -> Settled {
        group.changes.extend(std::mem::take(&mut group.writes).into_changes());
        if group.changes.is_empty() {
            return self.committed(group);
        }
        let witness = Witness::of(&group.changes);
        // A report that is lost with the process is a lost attempt; the turn that acts on it is synced.
        let tells_nobody =
            group.receipts.is_empty() && group.advances.is_empty() && group.in_store.is_empty();
        let fsync = if tells_nobody { Fsync::WithNext } else { Fsync::Now };
        match self.storage.commit(&mut group.changes, group.now, fsync) {
            Ok(()) => self.committed(group),
            // These say for certain that nothing was written, or that nothing more can be found out.
            Err(error @ (StorageError::Conflict | StorageError::Poisoned(_))) => {
                self.refused(group, error)
            }
            Err(error) => self.resolve(Limbo { group, witness, error }),
        }
    }

    /// Finds out whether a group was committed after all, and goes on accordingly.
    fn resolve(&mut self, limbo: Limbo) -> Settled {
        match self.happened(&limbo.witness) {
            Ok(true) => self.committed(limbo.group),
            Ok(false) => self.refused(limbo.group, limbo.error),
            Err(StorageError::Poisoned(error)) => {
                self.refused(limbo.group, StorageError::Poisoned(error))
            }
            Err(error) => {
                self.limbo = Some(limbo);
                Settled { failed: Some(error), unfinished: true, ..Settled::default() }
            }
        }
    }

    fn happened(&mut self, witness: &Witness) -> Result<bool, StorageError> {
        let work_id = match witness {
            Witness::Nothing => return Ok(false),
            Witness::Turn(pool, turn) => {
                return Ok(self.storage.state(*pool)?.fence() == *turn);
            }
            Witness::Work(work_id)
            | Witness::Completion(work_id, _)
            | Witness::Cancelation(work_id) => *work_id,
        };
        let Some(work) = self.storage.facts(&[work_id])?.pop().flatten() else {
            return Ok(self.storage.finished(&[work_id])?.pop().flatten().is_some());
        };
        Ok(match witness {
            Witness::Completion(_, run) => work.runs == *run && work.pending_completion.is_some(),
            Witness::Cancelation(_) => work.canceled || work.pending_cancelation.is_some(),
            _ => true,
        })
    }

    fn refused(&mut self, group: Group, error: StorageError) -> Settled {
        let mut settled = Settled { failed: Some(error.clone()), ..Settled::default() };
        self.fail(&mut settled, group, error);
        settled
    }

    /// Reads the batches of the loops that asked, so that they see everything the group did, and gathers what is to be
    /// sent.
    fn committed(&mut self, mut group: Group) -> Settled {
        for receipt in std::mem::take(&mut group.receipts) {
            self.give_receipt(&mut group.settled, receipt);
        }
        group.facts.clear();
        if group.facts.capacity() <= MOST_KEPT {
            self.facts = group.facts;
        }
        group.changes.clear();
        if group.changes.capacity() <= MOST_KEPT {
            self.changes = group.changes;
        }
        group.settled.left = std::mem::take(&mut group.left);
        for (pool, turn, demand, saturated) in std::mem::take(&mut group.advances) {
            let batch = self.read_batch(pool, demand, saturated);
            group.settled.batches.push((pool, BatchReady { turn, kick: None, batch }));
        }
        for pool in group.touched {
            let entry = &mut self.pools[pool.0 as usize];
            if let Some((source, parked)) = entry.wake() {
                let turn = entry.fence;
                let batch = self.read_batch(pool, parked.demand, parked.saturated);
                let ready = BatchReady { turn, kick: Some(source), batch };
                group.settled.batches.push((pool, ready));
            }
        }
        let completed = |event: &&Event| matches!(event, Event::Completed { .. });
        self.completions += group.settled.events.iter().filter(completed).count();
        if self.completions >= RETENTION_STEP / 2 {
            self.forget_expired();
        }
        group.settled
    }

    /// Nothing of the group happened. Callers are told, loops claim anew, reports are kept.
    fn fail(&mut self, settled: &mut Settled, group: Group, error: StorageError) {
        for receipt in group.receipts {
            let error = error.clone();
            match receipt {
                Receipt::Enqueue { pool, counted, reply, .. } => {
                    self.uncount(pool, counted);
                    if let Some(reply) = reply {
                        settled.answer(move || drop(reply.send(Err(error))));
                    }
                }
                Receipt::Cancel { reply, .. } => {
                    settled.answer(move || drop(reply.send(Err(error))))
                }
                Receipt::CancelAll { reply, .. } => {
                    settled.answer(move || drop(reply.send(Err(error))));
                }
            }
        }
        for (pool, turn, ..) in group.advances {
            // The fence kept here may have moved with the turn; the claim that follows reads the stored one.
            let batch = Err(AdvanceError::Storage(error.clone()));
            settled.batches.push((pool, BatchReady { turn, kick: None, batch }));
        }
        for pool in group.touched {
            // What did not happen is no news; what is tried again will be.
            self.pools[pool.0 as usize].news = News::default();
        }
        settled.batches.extend(group.settled.batches);
        if !group.reports.is_empty() {
            settled.again.push(Request::AttemptsFinished(group.reports));
        }
        settled.again.extend(group.in_store.into_iter().map(Request::RunInStore));
        for request in group.settled.again {
            match request {
                // The page before this one was not canceled.
                Request::CancelAll(CancelAll { reply, .. }) => {
                    let error = error.clone();
                    settled.answer(move || drop(reply.send(Err(error))));
                }
                request => settled.again.push(request),
            }
        }
        for (pool, config) in group.configs {
            self.pools[pool.0 as usize].set_config(config);
        }
    }

    /// Answers a group that could not even be read.
    fn refuse(&self, requests: Vec<Request>, error: StorageError) -> Settled {
        let mut settled = Settled { failed: Some(error.clone()), ..Settled::default() };
        for request in requests {
            let error = error.clone();
            if let Request::Enqueue(enqueue) = &request {
                self.uncount(enqueue.pool, enqueue.works.len() as u64);
            }
            let answer: Box<dyn FnOnce() + Send> = match request {
                Request::Enqueue(Enqueue { reply: Some(reply), .. }) => {
                    Box::new(move || drop(reply.send(Err(error))))
                }
                Request::Enqueue(_) | Request::Forget => continue,
                Request::Cancel { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::CancelAll(CancelAll { reply, .. }) => {
                    Box::new(move || drop(reply.send(Err(error))))
                }
                Request::Claim { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::OpenPool { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Statuses { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Query { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Counts { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Advance(Advance { pool, turn, .. }) => {
                    let batch = Err(AdvanceError::Storage(error));
                    settled.batches.push((pool, BatchReady { turn, kick: None, batch }));
                    continue;
                }
                // What must not be lost is tried again.
                kept @ (Request::AttemptsFinished(_)
                | Request::RunInStore(_)
                | Request::Listen { .. }
                | Request::Observe { .. }) => {
                    settled.again.push(kept);
                    continue;
                }
            };
            settled.answers.push(answer);
        }
        settled
    }

    /// Takes back what a handle has counted for an enqueue that did not happen.
    fn uncount(&self, pool: PoolId, works: u64) {
        if let Some(pool) = self.shared.pool_by_id(pool) {
            pool.leave(works);
        }
    }

    fn enqueue(&mut self, group: &mut Group, request: Enqueue) {
        let Enqueue { pool, works, fresh, on_finish, reply } = request;
        let counted = works.len() as u64;
        let mut answers = Vec::with_capacity(works.len());
        group.changes.reserve(works.len());
        let first = works.first().map(|(spec, _)| spec.work_id);
        for (spec, due) in works {
            let known = !fresh && group.knows(spec.work_id);
            let arrival = arrivals::enqueue(spec, due, known);
            answers.push(arrival.answer);
            if let Some(change) = arrival.change {
                self.note_enqueued(group, &change, due);
                if !fresh && let Change::InsertWork { spec, .. } = &change {
                    group.settled.revived.push(spec.work_id);
                }
                self.push(group, change);
            }
        }
        match (first, on_finish) {
            (Some(work_id), Some(on_finish)) if answers[0] == EnqueueAnswer::Enqueued => {
                group.settled.listeners.push((work_id, Listener::Notify(on_finish)));
            }
            (Some(work_id), Some(on_finish)) => {
                // The work was there before, and may have its outcome already.
                let listener = Listener::Notify(on_finish);
                group.settled.again.push(Request::Listen { work_id, listener });
            }
            _ => {}
        }
        group.receipts.push(Receipt::Enqueue { pool, counted, answers, reply });
    }

    /// Enqueues are events only where somebody wants to see every work.
    fn note_enqueued(&self, group: &mut Group, change: &Change, due: Segment) {
        if let Change::InsertWork { spec, .. } = change
            && self.pools[spec.pool.0 as usize].log_level <= LogLevel::Info
        {
            group.settled.events.push(Event::Enqueued { spec: spec.clone(), due });
        }
    }

    fn cancel(&mut self, group: &mut Group, work_id: WorkId) -> CancelAnswer {
        let fact = group.facts.get(&work_id).and_then(Option::as_ref);
        let arrival = arrivals::cancel(fact, group.now);
        if let Some(change) = arrival.change {
            self.push(group, change);
        }
        arrival.answer
    }

    fn cancel_page(&mut self, group: &mut Group, mut page: CancelAll) -> Result<(), StorageError> {
        let read = self.find_works(&mut page).and_then(|ids| {
            let facts = self.storage.facts(&ids)?;
            Ok(ids.into_iter().zip(facts).collect::<Vec<_>>())
        });
        let rows = match read {
            Ok(rows) => rows,
            Err(error) => {
                let receipt = Receipt::CancelAll { total: page.requested, reply: page.reply };
                group.receipts.push(receipt);
                return Err(error);
            }
        };
        for (work_id, fact) in rows {
            // What the group has changed already goes before what the storage says.
            let fact = group.facts.entry(work_id).or_insert(fact);
            if fact.as_ref().is_some_and(|work| work.spec.enqueued_at > page.until) {
                continue;
            }
            if self.cancel(group, work_id) == CancelAnswer::Requested {
                page.requested += 1;
            }
        }
        let is_last = page.found.is_empty() && page.search.is_none();
        match is_last {
            true => {
                let receipt = Receipt::CancelAll { total: page.requested, reply: page.reply };
                group.receipts.push(receipt);
            }
            false => group.settled.again.push(Request::CancelAll(page)),
        }
        Ok(())
    }

    /// The next works to cancel. They are searched for many at a time, since a search may go through all there are.
    fn find_works(&mut self, page: &mut CancelAll) -> Result<Vec<WorkId>, StorageError> {
        if page.found.is_empty()
            && let Some(after) = page.search.take()
        {
            page.found = self.storage.works(page.pool, after, SEARCH_PAGE)?;
            page.search = match page.found.len() < SEARCH_PAGE {
                true => None,
                false => Some(page.found.last().copied()),
            };
            page.found.reverse();
        }
        let rest = page.found.len().saturating_sub(CANCEL_PAGE);
        let mut next = page.found.split_off(rest);
        next.reverse();
        Ok(next)
    }

    fn attempt_finished(&mut self, group: &mut Group, report: AttemptReport) {
        let (work_id, run) = (report.work_id, report.run);
        let fact = group.facts.get(&work_id).and_then(Option::as_ref);
        let waits_from = Segment(0).after(self.shared.seams.now());
        let cx = ArrivalCx { now: group.now, waits_from, chance: self.rng.f64() };
        let arrival = arrivals::attempt_finished(fact, report, cx);
        debug_assert_eq!(arrival.change.is_some(), arrival.answer == FinishAnswer::Accepted);
        match arrival.change {
            Some(change) => self.push(group, change),
            None => group.settled.events.push(Event::Stale { work_id, run }),
        }
    }

    /// Runs a mutation or a query and records its completion in the same commit.
    fn run_in_store(
        &mut self,
        group: &mut Group,
        attempt: &RunInStore,
    ) -> Result<(), StorageError> {
        let spec = &attempt.spec;
        let fact = group.facts.get(&spec.work_id).and_then(Option::as_ref);
        let counts = fact.is_some_and(|work| {
            work.running.is_some() && work.runs == attempt.run && work.pending_completion.is_none()
        });
        if !counts {
            group.settled.events.push(Event::Stale { work_id: spec.work_id, run: attempt.run });
            return Ok(());
        }
        let result = self.call(group, spec)?;
        let report = AttemptReport { work_id: spec.work_id, run: attempt.run, result };
        self.attempt_finished(group, report);
        Ok(())
    }

    /// Calls a mutation, a query, or the `on_complete` of a follow-up work. Its effects join the group if it succeeds.
    fn call(&mut self, group: &mut Group, spec: &Spec) -> Result<RunResult, StorageError> {
        let (function, args) = (spec.function, spec.args.as_bytes());
        let shared = self.shared.clone();
        let max = self.pools[spec.pool.0 as usize].config.settings().max_payload_bytes;
        let Some(registered) = shared.registry.get(function) else {
            let message = format!("function {function} is not registered");
            return Ok(RunResult::Failed(Failure::permanent(FailureKind::Error, message)));
        };
        match &registered.code {
            Code::Mutation(apply) => self.transact(group, function, max, |tx| apply(args, tx)),
            Code::OnComplete(apply) => self.transact(group, function, max, |tx| {
                match crate::registry::decode::<CompletionCall>(args) {
                    Ok(call) => apply(tx, &call),
                    Err(failure) => RunResult::Failed(failure),
                }
            }),
            Code::Query(_) => self.read_only(&group.writes, function, args),
            Code::Action(_) | Code::Blocking(_) => {
                let message = format!("function {function} is an action and runs on a worker");
                Ok(RunResult::Failed(Failure::permanent(FailureKind::Error, message)))
            }
        }
    }

    /// Runs user code in a transaction: all of its effects join the group, or none.
    fn transact(
        &mut self,
        group: &mut Group,
        function: Name,
        max_result_bytes: usize,
        code: impl FnOnce(&mut Transaction<'_>) -> RunResult,
    ) -> Result<RunResult, StorageError> {
        let shared = self.shared.clone();
        let begun = Instant::now();
        let reader = Reader::new(&mut *self.storage, &group.writes);
        let mut transaction = Transaction::new(reader, &shared, &group.left);
        let result = guarded(|| code(&mut transaction));
        if let Some(error) = transaction.failure() {
            return Err(error);
        }
        let (writes, enqueued) = transaction.into_effects();
        let result = limit_result(result, max_result_bytes);
        let took = begun.elapsed();
        if took > SLOW_MUTATION {
            group.settled.events.push(Event::SlowMutation { function, took });
        }
        if !matches!(result, RunResult::Success(_)) {
            return Ok(result);
        }
        group.writes.merge(writes);
        for (spec, due) in enqueued {
            // An id that the user chose may be known.
            let work_id = spec.work_id;
            if !group.facts.contains_key(&work_id) {
                let fact = self.storage.facts(&[work_id])?.pop().flatten();
                group.facts.insert(work_id, fact);
            }
            if !group.knows(work_id) && self.storage.finished(&[work_id])?.pop().flatten().is_some()
            {
                group.known_finished.insert(work_id);
            }
            let arrival = arrivals::enqueue(spec.clone(), due, group.knows(work_id));
            if let Some(change) = arrival.change {
                *group.left.entry(spec.pool).or_default() -= 1;
                group.settled.revived.push(work_id);
                self.note_enqueued(group, &change, due);
                self.push(group, change);
            }
        }
        Ok(result)
    }

    fn advance(&mut self, group: &mut Group, advance: Advance) -> Result<(), StorageError> {
        let Advance { pool, turn, mut changes, demand, saturated } = advance;
        let fence = self.pools[pool.0 as usize].fence;
        let expected = match changes.is_empty() {
            true => fence,
            false => Turn { number: fence.number + 1, ..fence },
        };
        if turn != expected {
            let refused = BatchReady { turn, kick: None, batch: Err(AdvanceError::Fenced) };
            group.settled.batches.push((pool, refused));
            return Ok(());
        }
        // From here on the group answers this turn, whether it commits or fails.
        group.advances.push((pool, turn, demand, saturated));
        group.settled.events.reserve(changes.len());
        for change in &mut changes {
            self.observe(group, pool, change)?;
            self.stamp(group, change);
        }
        match group.changes.is_empty() {
            true => group.changes = changes,
            false => group.changes.append(&mut changes),
        }
        Ok(())
    }

    /// Notes what a change of a loop means beside the rows it writes.
    fn observe(
        &mut self,
        group: &mut Group,
        pool: PoolId,
        change: &Change,
    ) -> Result<(), StorageError> {
        match change {
            Change::RetryWork { work_id, key, attempts, .. } => {
                let function = self.function_of(pool, *work_id)?;
                let (work_id, due, attempts) = (*work_id, key.segment, *attempts);
                group.settled.events.push(Event::Retrying {
                    work_id,
                    pool,
                    function,
                    due,
                    attempts,
                });
            }
            Change::CompleteWork { finished, spec } => {
                group.known_finished.insert(finished.work_id);
                *group.left.entry(pool).or_default() += 1;
                group.settled.events.push(Event::Completed { finished: finished.clone() });
                if let Some(call) = spec.on_complete() {
                    self.on_complete(group, spec, call, finished)?;
                }
            }
            Change::MovePendingStart { work_id, to, .. } if to.segment == Segment::UNREGISTERED => {
                group.settled.events.push(Event::Unregistered { work_id: *work_id, pool });
            }
            Change::PutState { state, .. } => {
                let entry = &mut self.pools[pool.0 as usize];
                entry.fence = state.fence();
                entry.cursors = state.cursors;
            }
            Change::PutGlobals { config, .. } => {
                let entry = &mut self.pools[pool.0 as usize];
                group.configs.push((pool, entry.config.clone()));
                entry.set_config(config.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// The function of a work, where every work is logged.
    fn function_of(&mut self, pool: PoolId, work_id: WorkId) -> Result<Option<Name>, StorageError> {
        if self.pools[pool.0 as usize].log_level > LogLevel::Info {
            return Ok(None);
        }
        let fact = self.storage.facts(&[work_id])?.pop().flatten();
        Ok(fact.map(|work| work.spec.function))
    }

    /// Runs the `on_complete` of a work in the commit that completes it. One that fails becomes a work of its own.
    fn on_complete(
        &mut self,
        group: &mut Group,
        spec: &Spec,
        call: &OnCompleteCall,
        finished: &Finished,
    ) -> Result<(), StorageError> {
        let completion = CompletionCall {
            work_id: spec.work_id,
            context: call.context.clone(),
            outcome: finished.outcome.clone(),
            attempts: finished.attempts,
        };
        let shared = self.shared.clone();
        let registered = shared.registry.get(call.name).map(|function| &function.code);
        if let Some(Code::OnComplete(apply)) = registered {
            let result =
                self.transact(group, call.name, usize::MAX, |tx| apply(tx, &completion))?;
            if matches!(result, RunResult::Success(_)) {
                return Ok(());
            }
        }
        let args = encode(&completion).map_err(|error| {
            StorageError::Unavailable(format!("failed to encode a completion: {error}"))
        })?;
        let follow_up = follow_up(&shared, spec, call.name, &args, group.now);
        *group.left.entry(follow_up.pool).or_default() -= 1;
        group.settled.events.push(Event::OnCompleteFailed {
            work_id: spec.work_id,
            pool: spec.pool,
            name: call.name,
            follow_up: follow_up.work_id,
        });
        let key = Key { segment: group.now, seq: 0 };
        self.push(group, Change::InsertWork { spec: follow_up, key });
        Ok(())
    }

    /// Adds a change to the group.
    fn push(&mut self, group: &mut Group, mut change: Change) {
        self.stamp(group, &mut change);
        group.changes.push(change);
    }

    /// Gives a new row its place, and shows later messages what the change does.
    fn stamp(&mut self, group: &mut Group, change: &mut Change) {
        if let Some((pool, table, key)) = change.new_key() {
            let entry = &mut self.pools[pool.0 as usize];
            let cursor = match table {
                PendingTable::Start => entry.cursors.incoming.max(entry.read_until),
                PendingTable::Completion => entry.cursors.completion,
                PendingTable::Cancelation => entry.cursors.cancelation,
            };
            self.last_seq += 1;
            // Never behind the cursor, nor where a turn under way may put it: no turn would ever find the row.
            *key = Key { segment: key.segment.max(cursor), seq: self.last_seq };
            if entry.note(table, key.segment) {
                group.touched.push(pool);
            }
        }
        group.show(change);
    }

    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        saturated: bool,
    ) -> Result<Batch, AdvanceError> {
        let batch =
            self.storage.read_batch(pool, demand, self.clock).map_err(AdvanceError::Storage)?;
        let entry = &mut self.pools[pool.0 as usize];
        entry.read_until = self.clock;
        entry.news = News::default();
        entry.parked = match batch.is_empty() {
            true => Some(Parked { demand, saturated, next_due: batch.next_due }),
            false => None,
        };
        Ok(batch)
    }

    /// Begins a new reign: what an earlier one still sends is refused from now on.
    fn claim(&mut self, pool: PoolId) -> Result<Claimed, StorageError> {
        let running = self.storage.running(pool)?;
        // After a failed commit the fence kept here may be ahead of the stored one.
        let stored = self.storage.state(pool)?;
        let generation = Generation(stored.generation.0 + 1);
        let state = StateRow { generation, epoch: self.shared.epoch, ..stored };
        let entry = &self.pools[pool.0 as usize];
        let (name, config) = (entry.name, entry.config.clone());
        let mut changes = vec![
            Change::PutGlobals { pool, name, config: config.clone() },
            Change::PutState { pool, state },
        ];
        self.storage.commit(&mut changes, self.clock, Fsync::Now)?;
        let entry = &mut self.pools[pool.0 as usize];
        entry.fence = state.fence();
        entry.cursors = state.cursors;
        entry.parked = None;
        let mut internal = crate::model::InternalState::from(state);
        internal.running = running.iter().map(|row| (row.work.spec.work_id, row.running)).collect();
        Ok(Claimed { state: internal, running, config })
    }

    fn open_pool(&mut self, name: Name, config: PoolConfig) -> Result<PoolOpened, StorageError> {
        let stored = self.pools.len();
        let number = match self.pools.iter().position(|pool| pool.name == name) {
            Some(number) => number,
            None => {
                self.pools.push(Pool {
                    name,
                    log_level: LogLevel::default(),
                    config: PoolConfig::default(),
                    fence: Turn::default(),
                    cursors: Cursors::default(),
                    read_until: Segment::default(),
                    pending: 0,
                    parked: None,
                    news: News::default(),
                });
                self.pools.len() - 1
            }
        };
        let pool = PoolId(number as u32);
        let before = self.pools[number].config.clone();
        let config = config.over(&before);
        self.pools[number].set_config(config.clone());
        let claimed = match self.claim(pool) {
            Ok(claimed) => claimed,
            Err(error) => {
                // Nothing was written: the number is still free, or the configuration as it was.
                self.pools[number].set_config(before);
                self.pools.truncate(stored);
                return Err(error);
            }
        };
        self.restore_registered(pool)?;
        let pending = self.pools[number].pending;
        Ok(PoolOpened { pool, config, pending, claimed })
    }

    /// Moves works out of the unregistered lane whose function is registered now.
    fn restore_registered(&mut self, pool: PoolId) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let page = self.storage.unregistered(pool, after, CANCEL_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            let mut changes = Vec::new();
            for (from, spec) in page {
                if self.shared.registry.can_run(&spec) {
                    self.last_seq += 1;
                    let to = Key { segment: self.clock, seq: self.last_seq };
                    let work_id = spec.work_id;
                    changes.push(Change::MovePendingStart { work_id, pool, from, to });
                }
            }
            if !changes.is_empty() {
                self.storage.commit(&mut changes, self.clock, Fsync::Now)?;
            }
        }
    }

    fn statuses(&mut self, work_ids: &[WorkId]) -> Result<Vec<WorkStatus>, StorageError> {
        let facts = self.storage.facts(work_ids)?;
        let finished = self.storage.finished(work_ids)?;
        let status = |(fact, row): (Option<WorkFact>, Option<Arc<Finished>>)| match (fact, row) {
            (Some(work), _) => status_of(&work),
            (None, Some(row)) => WorkStatus::Finished(row),
            (None, None) => WorkStatus::Unknown,
        };
        Ok(facts.into_iter().zip(finished).map(status).collect())
    }

    fn query(
        &mut self,
        function: Name,
        args: &[u8],
    ) -> Result<Result<Payload, Failure>, StorageError> {
        let writes = Writes::default();
        Ok(match self.read_only(&writes, function, args)? {
            RunResult::Success(output) => Ok(output),
            RunResult::Failed(failure) => Err(failure),
            _ => Err(Failure::permanent(FailureKind::Error, "the query gave no result")),
        })
    }

    fn read_only(
        &mut self,
        writes: &Writes,
        function: Name,
        args: &[u8],
    ) -> Result<RunResult, StorageError> {
        let shared = self.shared.clone();
        let Some(Code::Query(read)) = shared.registry.get(function).map(|known| &known.code) else {
            let message = format!("function {function} is not a query");
            return Ok(RunResult::Failed(Failure::permanent(FailureKind::Error, message)));
        };
        let mut reader = Reader::new(&mut *self.storage, writes);
        let result = guarded(|| read(args, &mut reader));
        match reader.failure() {
            Some(error) => Err(error),
            None => Ok(result),
        }
    }

    fn counts(&mut self, pool: PoolId) -> Result<(Counts, Vec<Name>), StorageError> {
        let cursors = self.pools[pool.0 as usize].cursors;
        let counts = self.storage.counts(pool, &cursors)?;
        let mut names = Vec::new();
        if counts.unregistered > 0 {
            let rows = self.storage.unregistered(pool, None, CANCEL_PAGE)?;
            names.extend(rows.into_iter().map(|(_, spec)| spec.function));
            names.sort_unstable();
            names.dedup();
        }
        Ok((counts, names))
    }

    fn forget_expired(&mut self) {
        let retention = self.shared.retention;
        let before = match retention.max_age {
            Some(age) => Segment(self.clock.0.saturating_sub(age.as_millis() as u64)),
            None => Segment(0),
        };
        let keep = retention.max_count.unwrap_or(u64::MAX);
        // What cannot be forgotten now is forgotten later.
        let limit = RETENTION_STEP.max(2 * std::mem::take(&mut self.completions));
        let Ok(expired) = self.storage.expired(before, keep, limit) else { return };
        let mut changes: Vec<_> =
            expired.into_iter().map(|work_id| Change::DeleteFinished { work_id }).collect();
        if !changes.is_empty() {
            let _ = self.storage.commit(&mut changes, self.clock, Fsync::WithNext);
        }
    }

    fn give_receipt(&self, settled: &mut Settled, receipt: Receipt) {
        match receipt {
            Receipt::Enqueue { pool, answers, reply, .. } => {
                let duplicates =
                    answers.iter().filter(|answer| **answer == EnqueueAnswer::Duplicate).count();
                if duplicates > 0
                    && let Some(pool) = self.shared.pool_by_id(pool)
                {
                    pool.leave(duplicates as u64);
                }
                if let Some(reply) = reply {
                    settled.answers.push(Box::new(move || drop(reply.send(Ok(answers)))));
                }
            }
            Receipt::Cancel { answers, reply } => {
                settled.answers.push(Box::new(move || drop(reply.send(Ok(answers)))));
            }
            Receipt::CancelAll { total, reply } => {
                settled.answers.push(Box::new(move || drop(reply.send(Ok(total)))));
            }
        }
    }
}

impl Settled {
    fn answer(&mut self, answer: impl FnOnce() + Send + 'static) {
        self.answers.push(Box::new(answer));
    }
}

impl Request {
    /// Whether it changes no work, so that it can wait for the commit and see what that did.
    fn only_reads(&self) -> bool {
        !matches!(
            self,
            Request::Enqueue(_)
                | Request::Cancel { .. }
                | Request::CancelAll(_)
                | Request::AttemptsFinished(_)
                | Request::RunInStore(_)
                | Request::Advance(_)
        )
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Witness {
    fn of(changes: &[Change]) -> Witness {
        let trace = |change: &Change| match change {
            Change::PutState { pool, state } => Some(Witness::Turn(*pool, state.fence())),
            Change::InsertWork { spec, .. } => Some(Witness::Work(spec.work_id)),
            Change::InsertPendingCompletion { work_id, run, .. } => {
                Some(Witness::Completion(*work_id, *run))
            }
            Change::InsertPendingCancelation { work_id, .. } => {
                Some(Witness::Cancelation(*work_id))
            }
            _ => None,
        };
        // A turn is the surest trace, and stands last among its changes.
        let last = changes.last().and_then(trace);
        last.or_else(|| changes.iter().find_map(trace)).unwrap_or(Witness::Nothing)
    }
}

impl Pool {
    fn set_config(&mut self, config: PoolConfig) {
        self.log_level = config.settings().log_level;
        self.config = config;
    }

    /// Notes that a table has a new row. Says whether this is the first news since the loop read.
    fn note(&mut self, table: PendingTable, segment: Segment) -> bool {
        let quiet = !self.news.completion && !self.news.cancelation && self.news.start.is_none();
        match table {
            PendingTable::Completion => self.news.completion = true,
            PendingTable::Cancelation => self.news.cancelation = true,
            PendingTable::Start => {
                let earliest = self.news.start.map_or(segment, |start| start.min(segment));
                self.news.start = Some(earliest);
            }
        }
        quiet
    }

    /// Why a resting loop should look again, if it should. It is told once and then runs.
    fn wake(&mut self) -> Option<(KickSource, Parked)> {
        let news = std::mem::take(&mut self.news);
        let parked = self.parked?;
        let sooner = |start| parked.next_due.is_none_or(|due| start < due);
        let source = match news {
            News { completion: true, .. } => KickSource::Completion,
            News { cancelation: true, .. } => KickSource::Cancelation,
            News { start: Some(start), .. }
                if sooner(start) && KickSource::Enqueue.wakes(parked.saturated) =>
            {
                KickSource::Enqueue
            }
            _ => return None,
        };
        self.parked = None;
        Some((source, parked))
    }
}

impl Group {
    /// Whether a work of this id is or was there.
    fn knows(&self, work_id: WorkId) -> bool {
        self.known_finished.contains(&work_id)
            || self.facts.get(&work_id).is_some_and(Option::is_some)
    }

    /// Lets later messages of the group see what a change does to the works that they are about.
    fn show(&mut self, change: &Change) {
        if self.facts.is_empty() {
            return;
        }
        match change {
            Change::InsertWork { spec, key } => {
                if let Some(fact) = self.facts.get_mut(&spec.work_id) {
                    let work = WorkFact::new(spec.clone());
                    *fact = Some(WorkFact { pending_start: Some(*key), ..work });
                }
            }
            Change::InsertPendingCompletion { work_id, key, retry, attempts, .. } => {
                self.change_fact(*work_id, |work| {
                    work.pending_completion = Some((*key, *retry != Retry::No));
                    work.attempts = *attempts;
                });
            }
            Change::InsertPendingCancelation { work_id, key, .. } => {
                self.change_fact(*work_id, |work| work.pending_cancelation = Some(*key));
            }
            Change::StartWork { work_id, run, generation, .. } => {
                self.change_fact(*work_id, |work| {
                    work.pending_start = None;
                    work.running = Some(*generation);
                    work.runs = *run;
                });
            }
            Change::MovePendingStart { work_id, to, .. } => {
                self.change_fact(*work_id, |work| work.pending_start = Some(*to));
            }
            Change::RetryWork { work_id, key, attempts, .. } => {
                self.change_fact(*work_id, |work| {
                    work.running = None;
                    work.pending_completion = None;
                    work.pending_start = Some(*key);
                    work.attempts = *attempts;
                });
            }
            Change::CompleteWork { finished, .. } => {
                if let Some(fact) = self.facts.get_mut(&finished.work_id) {
                    *fact = None;
                }
            }
            Change::MarkCanceled { work_id, .. } => {
                self.change_fact(*work_id, |work| {
                    work.canceled = true;
                    work.pending_cancelation = None;
                });
            }
            _ => {}
        }
    }

    fn change_fact(&mut self, work_id: WorkId, change: impl FnOnce(&mut WorkFact)) {
        if let Some(Some(work)) = self.facts.get_mut(&work_id) {
            change(work);
        }
    }
}

/// The status that the tables give a work; see the state table in ARCHITECTURE.md.
fn status_of(work: &WorkFact) -> WorkStatus {
    let will_retry = matches!(work.pending_completion, Some((_, true)));
    match work.pending_start {
        Some(key) => WorkStatus::Pending {
            previous_attempts: work.attempts,
            due: Some(key.segment).filter(|due| *due != Segment::UNREGISTERED),
        },
        None if will_retry => WorkStatus::Pending { previous_attempts: work.attempts, due: None },
        None => WorkStatus::Running {
            previous_attempts: work.attempts,
            started: work.spec.enqueued_at,
            progress: None,
        },
    }
}

/// Runs user code; a panic is a failed attempt.
pub(crate) fn guarded(code: impl FnOnce() -> RunResult) -> RunResult {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => result,
        Err(panic) => {
            RunResult::Failed(Failure::retryable(FailureKind::Panic, panic_message(&*panic)))
        }
    }
}
