//! The store handles one group of requests: read the facts, decide each command in turn, commit once.
//!
//! ```text
//!  commands ─► facts (one call) ─► decide one by one over the overlay ─► changes ─► commit (one call)
//!                                     │                                               │
//!                                     └─ mutations, on_complete: user code            ▼
//!                                        in a Transaction over the same overlay     answers, batches, kicks
//! ```
//!
//! The store runs in the StoreActor if the storage never blocks, and on its own thread if it may block. It knows no
//! actors; it returns what to send as data ([`Settled`]).

mod answer;
mod commit;
mod decide;
mod fuse;
mod group;
mod in_doubt;
mod lane_rows;
mod lanes;
mod list;
mod pools;
mod retention;
mod schedules;
mod settled;
mod tally;
mod user_code;
mod wake;

use std::sync::Arc;

use hashbrown::HashMap;

use crate::functions::Program;
use crate::model::{Change, PoolId, Segment, UniquePlace, WorkFact, WorkId};
use crate::protocol::{BatchReady, Command, Request};
use crate::shared::Shared;
use crate::storage::{Storage, StorageError};
use fuse::Open;
use group::Group;
use in_doubt::InDoubt;
use pools::Pool;

pub(crate) use settled::Settled;
pub(crate) use tally::Tally;
#[cfg(feature = "metrics")]
pub(crate) use tally::{OUTCOMES, outcome_of};

/// The number of jobs in a step of an operation on all jobs of a pool.
const PAGE: usize = 1_000;

/// The number of times that a group is decided when other writers are faster, before a pause.
const TRIES: usize = 4;

/// Decides and commits groups.
pub(crate) struct Store {
    storage: Box<dyn Storage>,
    program: Arc<Program>,
    shared: Arc<Shared>,
    pools: Vec<Pool>,
    last_seq: u64,
    rng: fastrand::Rng,
    clock: Segment,
    /// Completions since retention last ran.
    completions: usize,
    /// The last row of a unique key that retention has looked at.
    looked_at: Option<UniquePlace>,
    /// Empty; their memory is reused for the next group, because large allocations are expensive.
    facts: HashMap<WorkId, Option<WorkFact>>,
    changes: Vec<Change>,
    /// A group whose commit failed and whose trace could not be read since.
    in_doubt: Option<InDoubt>,
    /// A group that waits for turns of loops.
    open: Option<Box<Open>>,
    /// See [`Storage::is_costly`].
    is_costly: bool,
    /// The number of groups that are not to be fused.
    unfused: u32,
    /// Pools whose fence and cursors may differ from the tables, because another writer was faster.
    stale: Vec<PoolId>,
    /// The last time at which the pools requested anything but an answer.
    last_business: Segment,
    /// `true` if the last commit is to be synced with the next.
    unsynced: bool,
    /// `true` if the current group has written or read anything.
    wrote: bool,
    has_read: bool,
    closed: bool,
}

impl Store {
    /// Opens the storage.
    pub fn open(
        mut storage: Box<dyn Storage>,
        program: Arc<Program>,
    ) -> Result<Self, StorageError> {
        let shared = program.client().shared.clone();
        let is_costly = storage.is_costly();
        let opened = storage.open()?;
        shared.seams.go_on_from(opened.clock);
        let mut pools = Vec::new();
        for row in opened.pools {
            if row.pool.0 as usize != pools.len() {
                storage.close();
                return Err(StorageError::Poisoned("pools are not numbered one by one".into()));
            }
            pools.push(Pool::stored(row));
        }
        let rng = shared.seams.rng();
        let (last_seq, clock) = (opened.last_seq, opened.clock);
        Ok(Store {
            storage,
            program,
            shared,
            pools,
            last_seq,
            rng,
            clock,
            completions: 0,
            looked_at: None,
            facts: HashMap::new(),
            changes: Vec::new(),
            in_doubt: None,
            open: None,
            is_costly,
            unfused: 0,
            stale: Vec::new(),
            last_business: Segment::default(),
            unsynced: false,
            wrote: false,
            has_read: false,
            closed: false,
        })
    }

    /// Returns what the tables say of jobs, for the conformance tests of backends.
    #[cfg(feature = "unstable-storage")]
    pub fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        self.storage.facts(work_ids)
    }

    /// Closes the storage. Dropping the store does the same.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.storage.close();
        }
    }

    /// Decides one group. Commits it, or returns batches for loops whose turns the group waits for
    /// ([`Settled::is_open`]): then the next requests are these turns, and the group is committed with them.
    pub fn run(&mut self, requests: Vec<Request>) -> Settled {
        let mut settled = match self.open.take() {
            Some(open) => self.finish_group(*open, requests),
            None => self.run_group(requests),
        };
        settled.wrote = std::mem::take(&mut self.wrote);
        settled.read = std::mem::take(&mut self.has_read);
        settled
    }

    fn run_group(&mut self, requests: Vec<Request>) -> Settled {
        if let Some(in_doubt) = self.in_doubt.take() {
            let mut settled = self.resolve(in_doubt);
            match settled.failed.clone() {
                Some(error) if settled.unfinished || matches!(error, StorageError::Poisoned(_)) => {
                    self.refuse(&mut settled, requests, error);
                }
                _ => settled.again.extend(requests),
            }
            return settled;
        }
        let (mut commands, mut others) = (Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Command(command) => commands.push(command),
                other => others.push(other),
            }
        }
        let is_business = |command: &Command| !matches!(command, Command::Forget);
        if commands.iter().any(is_business) {
            self.last_business = self.clock;
        }
        self.decide_all(commands, others, Vec::new(), TRIES)
    }

    /// Decides commands, as often as other writers are faster. `fenced` has answers for turns that an earlier try
    /// refused: their loops wait for them.
    fn decide_all(
        &mut self,
        mut commands: Vec<Command>,
        others: Vec<Request>,
        mut fenced: Vec<(PoolId, BatchReady)>,
        tries: usize,
    ) -> Settled {
        for _ in 0..tries {
            let mut group = match self.begin(&commands) {
                Ok(group) => group,
                Err(error) => {
                    let mut settled = Settled { batches: fenced, ..Settled::default() };
                    self.refuse(&mut settled, requests_of(commands, others), error);
                    return settled;
                }
            };
            group.settled.batches.append(&mut fenced);
            let mut rest = commands.into_iter();
            while let Some(command) = rest.next() {
                if let Err(error) = self.decide(&mut group, command) {
                    return self.failed_midway(group, requests_of(rest, others), error);
                }
            }
            let batches = self.early_batches(&mut group);
            if !batches.is_empty() {
                self.open = Some(Box::new(Open { group, others }));
                return Settled { batches, is_open: true, ..Settled::default() };
            }
            match self.commit(group) {
                Ok(settled) => return self.settle(settled, others),
                Err(group) => (commands, fenced) = self.take_back(group),
            }
        }
        // Questions see what was asked before them, so they wait as well.
        let (claims, questions) =
            others.into_iter().partition(|request| matches!(request, Request::Pool(_)));
        let mut settled = Settled {
            again: requests_of(commands, questions),
            batches: fenced,
            failed: Some(StorageError::Conflict),
            write_failed: true,
            ..Settled::default()
        };
        self.answer_all(&mut settled, claims);
        settled
    }

    /// Decides the turns that a group has waited for, and commits it.
    fn finish_group(&mut self, open: Open, turns: Vec<Request>) -> Settled {
        let Open { mut group, others } = open;
        let mut rest = turns.into_iter();
        while let Some(turn) = rest.next() {
            let Request::Command(turn) = turn else { continue };
            if let Err(error) = self.decide(&mut group, turn) {
                let rest = rest.chain(others).collect();
                return self.failed_midway(group, rest, error);
            }
        }
        match self.commit(group) {
            Ok(settled) => self.settle(settled, others),
            Err(group) => {
                self.stop_fusing();
                let (commands, fenced) = self.take_back(group);
                self.decide_all(commands, others, fenced, TRIES - 1)
            }
        }
    }

    /// Answers what comes behind a group.
    fn settle(&mut self, mut settled: Settled, others: Vec<Request>) -> Settled {
        match settled.unfinished {
            // An answer now, and a claim even more, would go ahead of a group that may be in the tables.
            true => settled.again.extend(others),
            false => self.answer_all(&mut settled, others),
        }
        settled
    }

    /// Gives up a group because the storage failed while user code or a page was reading it. Nothing of it is
    /// committed.
    fn failed_midway(&mut self, group: Group, rest: Vec<Request>, error: StorageError) -> Settled {
        let mut settled = Settled::default();
        // What was decided goes first again: the order of reports is kept.
        self.fail(&mut settled, group, error.clone());
        self.refuse(&mut settled, rest, error);
        settled
    }

    fn answer_all(&mut self, settled: &mut Settled, requests: Vec<Request>) {
        for request in requests {
            self.answer(settled, request);
        }
    }
}

fn requests_of(commands: impl IntoIterator<Item = Command>, others: Vec<Request>) -> Vec<Request> {
    commands.into_iter().map(Request::from).chain(others).collect()
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
