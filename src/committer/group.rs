//! The group under way: what it is about, what it has decided, and how it is found again if its commit fails.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::request::{Reply, RunInStore, Settled};
use crate::config::{LogLevel, PoolConfig};
use crate::engine::arrivals::{AttemptReport, CancelAnswer, EnqueueAnswer, RunNowAnswer};
use crate::engine::run_status::KickSource;
use crate::model::{
    Change, Cursors, Demand, Key, Name, PendingTable, PoolId, Retry, RunNumber, Segment, Turn,
    WorkFact, WorkId,
};
use crate::shared::Admitted;
use crate::storage::StorageError;
use crate::transaction::Writes;

/// The group under way.
pub(super) struct Group {
    pub(super) now: Segment,
    pub(super) facts: HashMap<WorkId, Option<WorkFact>>,
    pub(super) known_finished: HashSet<WorkId>,
    pub(super) changes: Vec<Change>,
    pub(super) writes: Writes,
    pub(super) settled: Settled,
    /// Pools with news.
    pub(super) touched: Vec<PoolId>,
    pub(super) advances: Vec<(PoolId, Turn, Demand, bool)>,
    /// Kept to be decided again if the commit fails.
    pub(super) reports: Vec<AttemptReport>,
    pub(super) in_store: Vec<RunInStore>,
    /// The configurations that the group replaces.
    pub(super) configs: Vec<(PoolId, PoolConfig)>,
    /// Answers that tell of the commit.
    pub(super) receipts: Vec<Receipt>,
    /// See [`Settled::left`].
    pub(super) left: BTreeMap<PoolId, i64>,
}

impl Group {
    /// Whether a work of this id is or was there.
    pub(super) fn knows(&self, work_id: WorkId) -> bool {
        self.known_finished.contains(&work_id)
            || self.facts.get(&work_id).is_some_and(Option::is_some)
    }

    /// Whether nobody is told anything of the group: a report that is lost with the process is a lost attempt, and the
    /// turn that acts on it is synced. A page of a `cancel_all` is told of by the last one, which may write nothing.
    pub(super) fn only_takes_reports(&self) -> bool {
        self.receipts.is_empty()
            && self.advances.is_empty()
            && self.in_store.is_empty()
            && self.settled.again.is_empty()
    }

    /// Lets later messages of the group see what a change does to the works that they are about.
    pub(super) fn show(&mut self, change: &Change) {
        if self.facts.is_empty() || planted!(OverlayForgotten) {
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
            Change::RetryWork { work_id, key, attempts, history, .. } => {
                self.change_fact(*work_id, |work| {
                    work.running = None;
                    work.pending_completion = None;
                    work.pending_start = Some(*key);
                    work.attempts = *attempts;
                    work.history = history.clone();
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

    pub(super) fn change_fact(&mut self, work_id: WorkId, change: impl FnOnce(&mut WorkFact)) {
        if let Some(Some(work)) = self.facts.get_mut(&work_id) {
            change(work);
        }
    }
}

pub(super) enum Receipt {
    Enqueue {
        counted: Admitted,
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
    RunNow {
        answer: RunNowAnswer,
        reply: Reply<RunNowAnswer>,
    },
}

/// A group that may have been committed: the answer to its commit was an error, which may have come after the fact.
pub(super) struct Limbo {
    pub(super) group: Group,
    pub(super) witness: Witness,
    pub(super) error: StorageError,
}

/// What is there if, and only if, a group was committed. One trace is enough, for a commit is all or nothing.
pub(super) enum Witness {
    /// The pool's state is that of this turn.
    Turn(PoolId, Turn),
    /// The work is or was there.
    Work(WorkId),
    /// The work has this row in `pending_completion`, or is past it.
    Completion(WorkId, RunNumber),
    /// The work has a row in `pending_cancelation`, or is past it.
    Cancelation(WorkId),
    /// The work has this row in `pending_start`: no other will ever have its key.
    Start(WorkId, Key),
    /// There is nothing to look for.
    Nothing,
}

impl Witness {
    pub(super) fn of(changes: &[Change]) -> Witness {
        let trace = |change: &Change| match change {
            Change::PutState { pool, state } => Some(Witness::Turn(*pool, state.fence())),
            Change::InsertWork { spec, .. } => Some(Witness::Work(spec.work_id)),
            Change::InsertPendingCompletion { work_id, run, .. } => {
                Some(Witness::Completion(*work_id, *run))
            }
            Change::InsertPendingCancelation { work_id, .. } => {
                Some(Witness::Cancelation(*work_id))
            }
            Change::MovePendingStart { work_id, to, .. } => Some(Witness::Start(*work_id, *to)),
            _ => None,
        };
        // A turn is the surest trace, and stands last among its changes.
        let last = changes.last().and_then(trace);
        last.or_else(|| changes.iter().find_map(trace)).unwrap_or(Witness::Nothing)
    }
}

/// What the committer keeps of a pool, so that not every message asks the storage.
pub(super) struct Pool {
    pub(super) name: Name,
    pub(super) config: PoolConfig,
    /// Who may write for the pool, and the last turn that did.
    pub(super) fence: Turn,
    pub(super) cursors: Cursors,
    /// Up to when starts have been read. The turn that was shown them may move the cursor there.
    pub(super) read_until: Segment,
    pub(super) pending: u64,
    pub(super) log_level: LogLevel,
    /// Set while the loop rests.
    pub(super) parked: Option<Parked>,
    /// Which sources have news since the loop last read, and the earliest new start.
    pub(super) news: News,
}

impl Pool {
    pub(super) fn set_config(&mut self, config: PoolConfig) {
        self.log_level = config.settings().log_level;
        self.config = config;
    }

    /// Notes that a table has a new row. Says whether this is the first news since the loop read.
    pub(super) fn note(&mut self, table: PendingTable, segment: Segment) -> bool {
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
    pub(super) fn wake(&mut self) -> Option<(KickSource, Parked)> {
        let news = std::mem::take(&mut self.news);
        let parked = self.parked?;
        let sooner = |start| parked.next_due.is_none_or(|due| start < due);
        let source = match news {
            News { completion: true, .. } => KickSource::Completion,
            News { cancelation: true, .. } => KickSource::Cancelation,
            News { start: Some(start), .. }
                if sooner(start)
                    && KickSource::Enqueue.wakes(parked.saturated)
                    && !planted!(KickSuppressed) =>
            {
                KickSource::Enqueue
            }
            _ => return None,
        };
        self.parked = None;
        Some((source, parked))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Parked {
    /// What the loop would like to see.
    pub(super) demand: Demand,
    pub(super) saturated: bool,
    pub(super) next_due: Option<Segment>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct News {
    pub(super) completion: bool,
    pub(super) cancelation: bool,
    pub(super) start: Option<Segment>,
}
