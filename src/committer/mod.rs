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

mod decide;
mod group;
mod list;
mod read;
mod request;
mod user_code;

pub(crate) use request::*;
pub(crate) use user_code::guarded;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::engine::arrivals::EnqueueAnswer;
use crate::model::{Change, Segment, WorkFact, WorkId};
use crate::shared::Shared;
use crate::storage::{Fsync, Storage, StorageError};
use crate::transaction::Writes;
use group::{Group, Limbo, News, Pool, Receipt, Witness};

/// Works canceled per group by one `cancel_all`.
const CANCEL_PAGE: usize = 1_000;

/// At least this many rows may be forgotten at a time by retention: twice as many as complete meanwhile.
const RETENTION_STEP: usize = 2_000;

/// A group that is about more works than this gives its memory back.
const MOST_KEPT: usize = 4_096;

/// Decides and commits, group by group.
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
    /// When the pools last wanted something else than an answer.
    last_business: Segment,
    /// Whether the last commit waits to be synced with the next.
    unsynced: bool,
    /// Whether the group under way has written or read something, whatever for.
    wrote: bool,
    has_read: bool,
    closed: bool,
}

impl Committer {
    /// Opens the storage.
    pub fn open(storage: Box<dyn Storage>, shared: Arc<Shared>) -> Result<Self, StorageError> {
        let mut storage = crate::metrics::metered(storage);
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
            last_business: Segment::default(),
            unsynced: false,
            wrote: false,
            has_read: false,
            closed: false,
        })
    }

    /// What the tables say of works, for the suite that backends pass.
    #[cfg(feature = "conformance")]
    pub fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        self.storage.facts(work_ids)
    }

    /// Gives the storage back. Dropping the committer does so too.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.storage.close();
        }
    }

    /// Decides and commits one group.
    pub fn run(&mut self, requests: Vec<Request>) -> Settled {
        let mut settled = self.run_group(requests);
        settled.wrote = std::mem::take(&mut self.wrote);
        settled.read = std::mem::take(&mut self.has_read);
        settled
    }

    fn run_group(&mut self, requests: Vec<Request>) -> Settled {
        if let Some(limbo) = self.limbo.take() {
            let mut settled = self.resolve(limbo);
            if settled.unfinished {
                let error = settled.failed.take().unwrap_or(StorageError::Conflict);
                let refused = self.refuse(requests, error);
                return Settled { unfinished: true, write_failed: true, ..refused };
            }
            settled.again.extend(requests);
            return settled;
        }
        let mut group = match self.begin(&requests) {
            Ok(group) => group,
            Err(error) => return self.refuse(requests, error),
        };
        let count = requests.len();
        let mut requests = requests.into_iter();
        let mut reads = Vec::new();
        while let Some(request) = requests.next() {
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
        if reads.len() < count {
            self.last_business = self.clock;
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
                Request::RunNow { work_id, .. } => ids.push(*work_id),
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
                self.has_read = true;
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
            left: BTreeMap::new(),
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
            Request::RunNow { work_id, reply } => {
                let answer = self.run_now(group, work_id);
                group.receipts.push(Receipt::RunNow { answer, reply });
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

    /// Commits, and settles what that has brought about.
    fn commit(&mut self, mut group: Group) -> Settled {
        group.changes.extend(std::mem::take(&mut group.writes).into_changes());
        // A caller is told nothing that a crash could undo, such as that a work has finished already.
        let tells_of_unsynced = self.unsynced && !group.receipts.is_empty();
        if group.changes.is_empty() && !tells_of_unsynced {
            return self.committed(group);
        }
        let witness = Witness::of(&group.changes);
        let fsync = if group.only_takes_reports() { Fsync::WithNext } else { Fsync::Now };
        match self.storage.commit(&mut group.changes, group.now, fsync) {
            Ok(()) => {
                self.unsynced = fsync == Fsync::WithNext;
                self.wrote = true;
                self.committed(group)
            }
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
            Ok(true) => {
                self.unsynced = true;
                self.wrote = true;
                self.committed(limbo.group)
            }
            Ok(false) => self.refused(limbo.group, limbo.error),
            Err(StorageError::Poisoned(error)) => {
                self.refused(limbo.group, StorageError::Poisoned(error))
            }
            Err(error) => {
                self.limbo = Some(limbo);
                Settled {
                    failed: Some(error),
                    write_failed: true,
                    unfinished: true,
                    ..Settled::default()
                }
            }
        }
    }

    fn happened(&mut self, witness: &Witness) -> Result<bool, StorageError> {
        if planted!(WitnessDenies) {
            return Ok(false);
        }
        let work_id = match witness {
            Witness::Nothing => return Ok(false),
            Witness::Turn(pool, turn) => {
                return Ok(self.storage.state(*pool)?.fence() == *turn);
            }
            Witness::Work(work_id)
            | Witness::Completion(work_id, _)
            | Witness::Cancelation(work_id)
            | Witness::Start(work_id, _) => *work_id,
        };
        let Some(work) = self.storage.facts(&[work_id])?.pop().flatten() else {
            return Ok(self.storage.finished(&[work_id])?.pop().flatten().is_some());
        };
        Ok(match witness {
            Witness::Completion(_, run) => work.runs == *run && work.pending_completion.is_some(),
            Witness::Start(_, key) => work.pending_start == Some(*key),
            Witness::Cancelation(_) => work.is_canceled(),
            _ => true,
        })
    }

    fn refused(&mut self, group: Group, error: StorageError) -> Settled {
        let mut settled =
            Settled { failed: Some(error.clone()), write_failed: true, ..Settled::default() };
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
                Receipt::Enqueue { counted, reply, .. } => {
                    drop(counted);
                    if let Some(reply) = reply {
                        settled.answer(move || drop(reply.send(Err(error))));
                    }
                }
                Receipt::Cancel { reply, .. } => {
                    settled.answer(move || drop(reply.send(Err(error))))
                }
                Receipt::RunNow { reply, .. } => {
                    settled.answer(move || drop(reply.send(Err(error))));
                }
                Receipt::CancelAll { reply, .. } => {
                    settled.answer(move || drop(reply.send(Err(error))));
                }
            }
        }
        for (pool, turn, ..) in group.advances {
            // The fence kept here may have moved with the turn; the claim that follows reads the stored one. No kick until
            // then: it would pass for the receipt of this turn.
            self.pools[pool.0 as usize].parked = None;
            let batch = Err(AdvanceError::Storage(error.clone()));
            settled.batches.push((pool, BatchReady { turn, kick: None, batch }));
        }
        for pool in group.touched {
            // What did not happen is no news; what is tried again will be.
            self.pools[pool.0 as usize].news = News::default();
        }
        settled.batches.extend(group.settled.batches);
        if !group.reports.is_empty() && !planted!(ReportsDropped) {
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
            let answer: Box<dyn FnOnce() + Send> = match request {
                Request::Enqueue(Enqueue { reply: Some(reply), .. }) => {
                    Box::new(move || drop(reply.send(Err(error))))
                }
                Request::Enqueue(_) | Request::Forget => continue,
                Request::RunNow { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Cancel { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::CancelAll(CancelAll { reply, .. }) => {
                    Box::new(move || drop(reply.send(Err(error))))
                }
                Request::Claim { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::OpenPool { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Statuses { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Works { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
                Request::Explain { reply, .. } => Box::new(move || drop(reply.send(Err(error)))),
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

    fn give_receipt(&self, settled: &mut Settled, receipt: Receipt) {
        match receipt {
            Receipt::Enqueue { counted, answers, reply } => {
                let is_new = |answer: &&EnqueueAnswer| **answer == EnqueueAnswer::Enqueued;
                counted.enqueued(answers.iter().filter(is_new).count() as u64);
                if let Some(reply) = reply {
                    settled.answers.push(Box::new(move || drop(reply.send(Ok(answers)))));
                }
            }
            Receipt::Cancel { answers, reply } => {
                settled.answers.push(Box::new(move || drop(reply.send(Ok(answers)))));
            }
            Receipt::RunNow { answer, reply } => {
                settled.answers.push(Box::new(move || drop(reply.send(Ok(answer)))));
            }
            Receipt::CancelAll { total, reply } => {
                settled.answers.push(Box::new(move || drop(reply.send(Ok(total)))));
            }
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}
