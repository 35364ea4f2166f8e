//! The current group: the jobs it is about, its decisions, and the commands it has taken.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::lane_rows::Lanes;
use super::settled::{Ending, Receipt, Settled};
use crate::engine::arrivals::{self, AttemptReport, EnqueueAnswer};
use crate::engine::lanes::LaneStep;
use crate::functions::Writes;
use crate::model::{
    Change, Conflict, Demand, Finished, KeyRule, PoolConfig, PoolId, Retry, Running, Segment, Spec,
    StartKey, Turn, UniquePlace, UniqueRow, WorkFact, WorkId, WorkKey,
};
use crate::protocol::{CancelAll, Command, OnFinish, Reply, RunInStore, SweepLanes, SweepPage};
use crate::shared::Admitted;

/// The current group.
pub(super) struct Group {
    pub now: Segment,
    pub facts: HashMap<WorkId, Option<WorkFact>>,
    pub known_finished: HashSet<WorkId>,
    /// Rows of the unique keys that the group is about. The facts of their jobs are in `facts`.
    pub unique: HashMap<UniquePlace, Option<UniqueRow>>,
    /// Rows of the lanes that the group is about.
    pub lanes: Lanes,
    /// Jobs that turns of the group have moved into lanes.
    pub entered: Vec<(StartKey, Spec)>,
    /// Pools whose lanes are to be looked at behind the group.
    pub sweeps: Vec<(PoolId, Option<KeyRule>)>,
    /// Lanes that have room still, and more jobs than the group lets out.
    pub unsettled: BTreeMap<PoolId, Vec<WorkKey>>,
    /// Rows of failed jobs that are retried.
    pub failed: HashMap<WorkId, Arc<Finished>>,
    pub changes: Vec<Change>,
    pub writes: Writes,
    pub settled: Settled,
    /// Pools with new rows.
    pub touched: Vec<PoolId>,
    /// Jobs that were moved or replaced: see [`Pool::moved`](super::pools::Pool::moved).
    pub moved: Vec<(PoolId, WorkId, Moved)>,
    /// Jobs that were replaced: the facts have their content.
    pub replaced: Vec<WorkId>,
    /// The pools whose loops were sent their batch before the commit.
    pub early: Vec<Early>,
    /// The highest `seq` before the group.
    pub last_seq: u64,
    /// The places in `changes` of the keys that the group has assigned, in the order of `seq`.
    pub places: Vec<u32>,
    /// The commands that were decided, in order.
    pub taken: Vec<Taken>,
    /// The configurations that the group replaces.
    pub configs: Vec<(PoolId, PoolConfig)>,
    /// See [`Settled::left`].
    pub left: BTreeMap<PoolId, i64>,
    /// `true` if retention must run.
    pub forget: bool,
}

/// What has become of a job that waits since a turn may have been shown it.
#[derive(Clone)]
pub(super) struct Moved {
    /// Its place.
    pub to: StartKey,
    /// Its content, if that was replaced.
    pub spec: Option<Spec>,
}

impl Moved {
    /// Returns the sum of this and of what had become of the job before.
    pub fn after(self, before: Option<&Moved>) -> Moved {
        let spec = self.spec.or_else(|| before?.spec.clone());
        Moved { to: self.to, spec }
    }
}

/// A pool whose loop was sent its batch before the commit.
pub(super) struct Early {
    pub pool: PoolId,
    /// The last turn of the loop before this batch.
    pub turn: Turn,
    /// `true` if the turn that was decided on the batch is part of the group.
    pub joined: bool,
}

/// A decided command, with all that is needed to answer it, to retry it, or to decide it again.
pub(super) enum Taken {
    /// A command with a caller that gets the answer.
    Asked(Receipt),
    Enqueue(TakenEnqueue),
    /// A page of a `cancel_all`.
    Page {
        page: CancelAll,
        /// The jobs that this page is about, in order.
        ids: Vec<WorkId>,
        /// The number of them that it cancels.
        requested: u64,
    },
    /// A page of lanes that were looked at.
    Sweep {
        sweep: SweepLanes,
        /// The next page, if there is one.
        next: Option<SweepPage>,
    },
    Reports(Vec<AttemptReport>),
    InStore(Vec<RunInStore>),
    /// A turn. Its loop is told when it is committed, and gets its next batch.
    Turn {
        pool: PoolId,
        turn: Turn,
        demand: Demand,
        saturated: bool,
        /// What it does to lanes.
        lanes: Vec<LaneStep>,
        /// Its range in the group's changes.
        changes: Range<usize>,
        /// `true` if it was decided on a batch of this group. It cannot be decided again.
        is_early: bool,
        /// See [`BatchReady::replaced`](crate::protocol::BatchReady::replaced).
        replaced: Vec<(WorkId, Option<Spec>)>,
    },
}

/// Creates a receipt: `answer` is called when the group is committed, and `again` recreates the command.
pub(super) fn receipt<T: Send + 'static>(
    reply: Reply<T>,
    answer: T,
    again: impl FnOnce(Reply<T>) -> Command + Send + 'static,
) -> Taken {
    Taken::Asked(Box::new(move |ending| {
        match ending {
            Ending::Committed => drop(reply.send(Ok(answer))),
            Ending::Failed(error) => drop(reply.send(Err(error))),
            Ending::Again => return Some(again(reply)),
        }
        None
    }))
}

/// A decided enqueue.
pub(super) struct TakenEnqueue {
    pub fresh: bool,
    pub conflict: Conflict,
    pub retry_of: Option<WorkId>,
    pub on_finish: Option<OnFinish>,
    pub counted: Admitted,
    pub answers: Vec<EnqueueAnswer>,
    pub reply: Option<Reply<Vec<EnqueueAnswer>>>,
    /// Its range in the group's changes.
    pub changes: Range<usize>,
    /// The first job.
    pub first: Option<WorkId>,
    /// The jobs that existed, or whose unique key another job held, with their positions.
    pub known: Vec<(usize, Spec, Segment)>,
}

impl Group {
    /// Returns `true` if a job of this id exists or existed.
    pub fn knows(&self, work_id: WorkId) -> bool {
        self.known_finished.contains(&work_id) || self.fact(work_id).is_some()
    }

    /// Returns the job that holds the unique key that this job is about to take. The group knows the key's row.
    pub fn holder_of(&self, spec: &Spec) -> Option<(WorkId, Option<&WorkFact>)> {
        let key = spec.unique()?.key.clone();
        let row = self.unique.get(&(spec.pool, key))?.as_ref()?;
        // One that finishes in this group may have no facts here that say so.
        let is_finished = self.known_finished.contains(&row.work_id);
        let fact = self.fact(row.work_id).filter(|_| !is_finished);
        arrivals::holds(row, fact, self.now).then_some((row.work_id, fact))
    }

    /// Adds the facts of jobs that were read in the middle of the group, with what the group has done to them.
    pub fn learn(&mut self, read: HashMap<WorkId, Option<WorkFact>>) {
        let facts = std::mem::replace(&mut self.facts, read);
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            self.show(change);
        }
        self.changes = changes;
        let learned = std::mem::replace(&mut self.facts, facts);
        self.facts.extend(learned);
    }

    /// Returns `true` if a turn of this pool is part of the group.
    pub fn has_turn_of(&self, pool: PoolId) -> bool {
        self.taken.iter().any(|taken| matches!(taken, Taken::Turn { pool: of, .. } if *of == pool))
    }

    /// Returns the facts of a job that the group is about.
    pub fn fact(&self, work_id: WorkId) -> Option<&WorkFact> {
        self.facts.get(&work_id).and_then(Option::as_ref)
    }

    /// Returns `true` if the group only takes reports, so that nobody is told anything: a report that is lost with the
    /// process is a lost attempt, and the turn that acts on it is synced. A page of a `cancel_all` does not count,
    /// because the last page, which may write nothing, answers for all.
    pub fn only_takes_reports(&self) -> bool {
        self.taken.iter().all(|taken| matches!(taken, Taken::Reports(_)))
    }

    /// Returns `true` if a caller is told something when the group is committed.
    pub fn answers_callers(&self) -> bool {
        self.taken.iter().any(|taken| match taken {
            Taken::Asked(_) | Taken::Enqueue(_) => true,
            Taken::Page { page, .. } => page.is_last(),
            Taken::Sweep { .. } | Taken::Reports(_) | Taken::InStore(_) | Taken::Turn { .. } => {
                false
            }
        })
    }

    /// Shows later messages of the group that a job has taken a unique key.
    pub fn take_key(&mut self, spec: &Spec) {
        let Some((place, row)) = spec.unique_row() else { return };
        self.unique.insert(place, Some(row));
        self.facts.entry(spec.work_id).or_insert(None);
    }

    /// Shows later messages of the group what a change does to their jobs.
    pub fn show(&mut self, change: &Change) {
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
            // Made of changes that were shown.
            Change::InsertRunning { .. } => {}
            Change::InsertPendingCompletion { work_id, key, retry, attempts, .. } => {
                self.change_fact(*work_id, |work| {
                    work.pending_completion = Some((*key, *retry != Retry::No));
                    work.attempts = *attempts;
                });
            }
            Change::InsertPendingCancelation { work_id, key, .. } => {
                self.change_fact(*work_id, |work| work.pending_cancelation = Some(*key));
            }
            Change::StartWork { work_id, run, started, generation, .. } => {
                self.change_fact(*work_id, |work| {
                    work.pending_start = None;
                    let (run, started, generation) = (*run, *started, *generation);
                    work.running = Some(Running { run, started, generation });
                    work.runs = run;
                });
            }
            Change::MovePendingStart { work_id, to, .. } => {
                self.change_fact(*work_id, |work| {
                    work.pending_start = Some(*to);
                    work.priority = to.priority;
                });
            }
            Change::ReplaceWork { spec, to, .. } => {
                self.change_fact(spec.work_id, |work| {
                    work.spec = spec.clone();
                    work.pending_start = Some(*to);
                    work.priority = to.priority;
                });
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

    fn change_fact(&mut self, work_id: WorkId, change: impl FnOnce(&mut WorkFact)) {
        if let Some(Some(work)) = self.facts.get_mut(&work_id) {
            change(work);
        }
    }
}
