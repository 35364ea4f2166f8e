//! Who runs and who has finished lately, for everybody to read without asking the store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use hashbrown::DefaultHashBuilder;
use serde::Serialize;
use tokio::sync::watch;

use crate::model::{Failure, Finished, RunNumber, Segment, WorkId};

/// How far an attempt is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// How much is done, in units of the function's choice.
    pub done: u64,
    /// How much there is, if that is known.
    pub total: Option<u64>,
    /// What it is at.
    pub note: Option<String>,
}

/// Where a work is in its life.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WorkStatus {
    /// It waits for its time or for a slot.
    Pending {
        /// How many attempts were charged before.
        previous_attempts: u32,
        /// Before when it is not started; `None` while that is not settled, or if its function is not registered here.
        due: Option<Segment>,
    },
    /// An attempt is running.
    Running {
        /// How many attempts were charged before this one.
        previous_attempts: u32,
        /// When it started.
        started: Segment,
        /// What it last said.
        progress: Option<Arc<Progress>>,
    },
    /// It has an outcome.
    Finished(#[serde(serialize_with = "finished_fields")] Arc<Finished>),
    /// No work of this id was ever enqueued here, or its outcome is forgotten.
    Unknown,
}

fn finished_fields<S: serde::Serializer>(row: &Finished, serializer: S) -> Result<S::Ok, S::Error> {
    row.serialize(serializer)
}

impl WorkStatus {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, WorkStatus::Finished(_) | WorkStatus::Unknown)
    }
}

/// How many finished works the board holds; older ones are in `finished`. Few enough to stay in a core's cache.
const FINISHED_ON_BOARD: usize = 4_096;

/// How many failures of works that wait for a retry the board holds.
const FAILURES_ON_BOARD: usize = 4_096;

/// How much of such a failure's message is kept, in characters.
const LONGEST_MESSAGE: usize = 1_000;

/// Written by the store after each commit and by workers' progress; read by handles.
pub(crate) struct Board {
    entries: DashMap<WorkId, Entry, DefaultHashBuilder>,
    /// Written and read by `watch`, which also deletes; filled by the store and by progress.
    watchers: DashMap<WorkId, watch::Sender<Option<WorkStatus>>, DefaultHashBuilder>,
    /// The number of `watchers`, so that nobody looks when there are none.
    watching: AtomicUsize,
    /// Works whose cancel is answered, and whose start may be on its way. Written by the store; read by loops and
    /// workers before they start; deleted when the attempt has been told.
    canceling: DashMap<WorkId, (), DefaultHashBuilder>,
    /// Whether `canceling` has any.
    any_canceling: AtomicUsize,
    /// How the last attempt of works that wait for a retry has failed. Written by loops, read by `explain`, deleted
    /// by the outcome; the oldest go first when there are too many.
    failures: DashMap<WorkId, Arc<Failure>, DefaultHashBuilder>,
    failure_order: Mutex<VecDeque<WorkId>>,
    /// Whether `failures` has any.
    any_failures: AtomicUsize,
    /// Set when nothing more will be heard.
    closed: AtomicBool,
}

enum Entry {
    Running {
        run: RunNumber,
        previous_attempts: u32,
        started: Segment,
        progress: Option<Arc<Progress>>,
    },
    Finished(Arc<Finished>),
}

impl Entry {
    fn status(&self) -> WorkStatus {
        match self {
            Entry::Running { previous_attempts, started, progress, .. } => WorkStatus::Running {
                previous_attempts: *previous_attempts,
                started: *started,
                progress: progress.clone(),
            },
            Entry::Finished(row) => WorkStatus::Finished(row.clone()),
        }
    }
}

/// The ids of the finished works on the board, oldest first. The store's own, so that only it evicts.
#[derive(Default)]
pub(crate) struct FinishedOrder(VecDeque<WorkId>);

impl Board {
    pub fn new() -> Board {
        Board {
            entries: DashMap::default(),
            watchers: DashMap::default(),
            watching: AtomicUsize::new(0),
            canceling: DashMap::default(),
            any_canceling: AtomicUsize::new(0),
            failures: DashMap::default(),
            failure_order: Mutex::default(),
            any_failures: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub fn status(&self, work_id: WorkId) -> Option<WorkStatus> {
        self.entries.get(&work_id).map(|entry| entry.status())
    }

    pub fn finished(&self, work_id: WorkId) -> Option<Arc<Finished>> {
        match &*self.entries.get(&work_id)? {
            Entry::Finished(row) => Some(row.clone()),
            Entry::Running { .. } => None,
        }
    }

    pub fn progress_of(&self, work_id: WorkId) -> Option<Arc<Progress>> {
        match &*self.entries.get(&work_id)? {
            Entry::Running { progress, .. } => progress.clone(),
            Entry::Finished(_) => None,
        }
    }

    pub fn set_running(
        &self,
        work_id: WorkId,
        run: RunNumber,
        previous_attempts: u32,
        started: Segment,
    ) {
        let entry = Entry::Running { run, previous_attempts, started, progress: None };
        self.entries.insert(work_id, entry);
        self.tell(work_id, || WorkStatus::Running { previous_attempts, started, progress: None });
    }

    pub fn set_pending(&self, work_id: WorkId, previous_attempts: u32, due: Option<Segment>) {
        if !planted!(BoardStale) {
            self.entries.remove(&work_id);
        }
        self.tell(work_id, || WorkStatus::Pending { previous_attempts, due });
    }

    pub fn set_finished(&self, row: &Arc<Finished>, order: &mut FinishedOrder) {
        self.end_canceling(row.work_id);
        self.forget_failure(row.work_id);
        self.entries.insert(row.work_id, Entry::Finished(row.clone()));
        order.0.push_back(row.work_id);
        if order.0.len() > FINISHED_ON_BOARD
            && let Some(oldest) = order.0.pop_front()
        {
            // Under an id that was forgotten and used again, another work may be running.
            self.entries.remove_if(&oldest, |_, entry| matches!(entry, Entry::Finished(_)));
        }
        self.tell(row.work_id, || WorkStatus::Finished(row.clone()));
    }

    /// The cancel of a work is about to be answered: no attempt of it begins any more.
    pub fn set_canceling(&self, work_id: WorkId) {
        if self.canceling.insert(work_id, ()).is_none() {
            self.any_canceling.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Whether an attempt of this work must not begin.
    pub fn is_canceling(&self, work_id: WorkId) -> bool {
        self.any_canceling.load(Ordering::SeqCst) > 0
            && self.canceling.contains_key(&work_id)
            && !planted!(CancelNotHeld)
    }

    /// The attempt has been told, or has ended.
    pub fn end_canceling(&self, work_id: WorkId) {
        if self.any_canceling.load(Ordering::SeqCst) > 0
            && self.canceling.remove(&work_id).is_some()
        {
            self.any_canceling.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// An attempt has failed, and another one will be made.
    pub fn set_last_failure(&self, work_id: WorkId, failure: &Failure) {
        let mut failure = failure.clone();
        if let Some((end, _)) = failure.message.char_indices().nth(LONGEST_MESSAGE) {
            failure.message.truncate(end);
            failure.message.push('…');
        }
        if self.failures.insert(work_id, Arc::new(failure)).is_some() {
            return;
        }
        self.any_failures.fetch_add(1, Ordering::SeqCst);
        let mut order = self.failure_order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(work_id);
        if order.len() > FAILURES_ON_BOARD
            && let Some(oldest) = order.pop_front()
        {
            drop(order);
            self.forget_failure(oldest);
        }
    }

    pub fn last_failure(&self, work_id: WorkId) -> Option<Arc<Failure>> {
        self.failures.get(&work_id).map(|failure| failure.clone())
    }

    fn forget_failure(&self, work_id: WorkId) {
        if self.any_failures.load(Ordering::SeqCst) > 0 && self.failures.remove(&work_id).is_some()
        {
            self.any_failures.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A work of this id begins anew.
    pub fn forget(&self, work_id: WorkId) {
        self.entries.remove(&work_id);
    }

    /// Takes what a running attempt says of itself; from any other run it is ignored.
    pub fn set_progress(&self, work_id: WorkId, from: RunNumber, said: Progress) {
        let said = Arc::new(said);
        let status = match self.entries.entry(work_id) {
            MapEntry::Occupied(mut entry) => match entry.get_mut() {
                Entry::Running { run, progress, .. } if *run == from => {
                    *progress = Some(said);
                    entry.get().status()
                }
                _ => return,
            },
            MapEntry::Vacant(_) => return,
        };
        self.tell(work_id, || status);
    }

    /// Begins to collect what becomes of a work. The first value comes when the store has looked.
    pub fn watch(&self, work_id: WorkId) -> watch::Receiver<Option<WorkStatus>> {
        // Looked at under the lock that `close` takes to clear the entry.
        match self.watchers.entry(work_id) {
            _ if self.closed.load(Ordering::SeqCst) => watch::channel(None).1,
            MapEntry::Occupied(sender) => sender.get().subscribe(),
            MapEntry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                place.insert(sender);
                self.watching.fetch_add(1, Ordering::SeqCst);
                receiver
            }
        }
    }

    /// Forgets a watch that nobody reads any more.
    pub fn unwatch(&self, work_id: WorkId) {
        if self.watchers.remove_if(&work_id, |_, sender| sender.receiver_count() == 0).is_some() {
            self.watching.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Passes a status on to those who watch the work. A final one ends the watch.
    pub fn tell(&self, work_id: WorkId, status: impl FnOnce() -> WorkStatus) {
        if self.watching.load(Ordering::SeqCst) == 0 {
            return;
        }
        let Some(sender) = self.watchers.get(&work_id) else { return };
        let status = status();
        let last = status.is_final();
        sender.send_replace(Some(status));
        drop(sender);
        if last && self.watchers.remove(&work_id).is_some() {
            self.watching.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Ends every watch: nothing more will be heard.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut watched: Vec<_> = self.watchers.iter().map(|watch| *watch.key()).collect();
        // In an order that does not depend on the addresses of maps: a seed repeats a run.
        watched.sort_unstable();
        for work_id in watched {
            self.watchers.remove(&work_id);
        }
        self.watching.store(0, Ordering::SeqCst);
    }
}
