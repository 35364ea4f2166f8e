//! The board: running and recently finished jobs, readable by all threads without asking the store.

use std::collections::VecDeque;
use std::sync::Arc;

use super::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use super::sync::{Map, MapEntry, watch};
use crate::model::{Finished, Progress, RunNumber, Segment, WorkId, WorkStatus};

/// The number of finished jobs that the board holds; older ones are in `finished`. Small enough for a core's cache.
const FINISHED_ON_BOARD: usize = 4_096;

/// The board. Written by the store after each commit and by workers' progress; read by handles.
pub(crate) struct Board {
    entries: Map<WorkId, Entry>,
    /// One sender per watched job. `watch` and `unwatch` add and delete senders; the store and progress send through
    /// them.
    watchers: Counted<watch::Sender<Option<WorkStatus>>>,
    /// Jobs whose cancel is answered while their start may be under way. Written by the store; read by loops and
    /// workers before they start an attempt; deleted when the attempt has been told.
    canceling: Counted<()>,
    /// `true` if the runtime is gone: no status follows.
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
                started: started.time(),
                progress: progress.clone(),
            },
            Entry::Finished(row) => WorkStatus::Finished(row.clone().into()),
        }
    }
}

/// A map with a capacity up to this keeps its memory when it becomes empty.
#[cfg(not(shuttle))]
const SMALL: usize = 16_384;

/// A map that is empty most of the time, and can be found empty without a lock.
struct Counted<V> {
    rows: Map<WorkId, V>,
    /// Never lower than the number of rows: a row is counted before it is inserted. If it were counted later, a row
    /// removed in between would hide another one.
    count: AtomicUsize,
}

impl<V> Default for Counted<V> {
    fn default() -> Self {
        Counted { rows: Map::default(), count: AtomicUsize::new(0) }
    }
}

impl<V> Counted<V> {
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    fn insert(&self, work_id: WorkId, row: V) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.rows.insert(work_id, row).is_some() {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn remove_if(&self, work_id: WorkId, goes: impl FnOnce(&V) -> bool) {
        if self.rows.remove_if(&work_id, |_, row| goes(row)).is_some()
            && self.count.fetch_sub(1, Ordering::SeqCst) == 1
        {
            self.shrink();
        }
    }

    /// Frees memory after a burst of jobs.
    fn shrink(&self) {
        // Under shuttle the map has no `capacity`.
        #[cfg(not(shuttle))]
        if self.rows.capacity() > SMALL {
            self.rows.shrink_to_fit();
        }
    }

    fn remove(&self, work_id: WorkId) {
        if !self.is_empty() {
            self.remove_if(work_id, |_| true);
        }
    }
}

/// The ids of the finished jobs on the board, oldest first. Owned by the store, so that only the store evicts.
#[derive(Default)]
pub(crate) struct FinishedOrder(VecDeque<WorkId>);

impl Board {
    pub fn new() -> Board {
        Board {
            entries: Map::default(),
            watchers: Counted::default(),
            canceling: Counted::default(),
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
        self.set(work_id, Entry::Running { run, previous_attempts, started, progress: None });
    }

    /// Changes an entry. Watchers are told under the entry's lock, as for every change, so that they see changes in
    /// order.
    fn set(&self, work_id: WorkId, entry: Entry) {
        match self.entries.entry(work_id) {
            MapEntry::Occupied(mut place) => {
                place.insert(entry);
                self.tell(work_id, || place.get().status());
            }
            MapEntry::Vacant(place) => {
                let place = place.insert(entry);
                self.tell(work_id, || place.status());
            }
        }
    }

    pub fn set_pending(&self, work_id: WorkId, previous_attempts: u32, due: Option<Segment>) {
        let place = self.entries.entry(work_id);
        let due = due.map(Segment::time);
        self.tell(work_id, || WorkStatus::Pending { previous_attempts, due });
        if let MapEntry::Occupied(entry) = place
            && !planted!(BoardStale)
        {
            entry.remove();
        }
    }

    pub fn set_finished(&self, row: &Arc<Finished>, order: &mut FinishedOrder) {
        self.end_canceling(row.work_id);
        self.set(row.work_id, Entry::Finished(row.clone()));
        order.0.push_back(row.work_id);
        if order.0.len() > FINISHED_ON_BOARD
            && let Some(oldest) = order.0.pop_front()
        {
            // Another job may be running under this id, if the id was forgotten and used again.
            self.entries.remove_if(&oldest, |_, entry| matches!(entry, Entry::Finished(_)));
        }
    }

    /// Replaces the row of a finished job, if it is on the board.
    pub fn replace_finished(&self, row: &Arc<Finished>) {
        if let MapEntry::Occupied(mut entry) = self.entries.entry(row.work_id)
            && let Entry::Finished(finished) = entry.get_mut()
        {
            *finished = row.clone();
        }
    }

    /// Keeps further attempts of a job from beginning. Called before the cancel of the job is answered.
    pub fn set_canceling(&self, work_id: WorkId) {
        self.canceling.insert(work_id, ());
    }

    /// Returns `true` if an attempt of this job must not begin.
    pub fn is_canceling(&self, work_id: WorkId) -> bool {
        !self.canceling.is_empty()
            && self.canceling.rows.contains_key(&work_id)
            && !planted!(CancelNotHeld)
    }

    /// Removes the mark of `set_canceling`. Called when the attempt has been told, or has ended.
    pub fn end_canceling(&self, work_id: WorkId) {
        self.canceling.remove(work_id);
    }

    /// Removes the entry of a job, since a new job has its id.
    pub fn forget(&self, work_id: WorkId) {
        self.entries.remove(&work_id);
    }

    /// Records the progress of a running attempt; ignores progress of any other run.
    pub fn set_progress(&self, work_id: WorkId, from: RunNumber, said: Progress) {
        if let MapEntry::Occupied(mut entry) = self.entries.entry(work_id)
            && let Entry::Running { run, progress, .. } = entry.get_mut()
            && *run == from
        {
            *progress = Some(Arc::new(said));
            self.tell(work_id, || entry.get().status());
        }
    }

    /// Watches a job. The first status comes when the store has looked it up.
    pub fn watch(&self, work_id: WorkId) -> watch::Receiver<Option<WorkStatus>> {
        // `closed` is read under the lock that `close` takes to clear the entry.
        match self.watchers.rows.entry(work_id) {
            _ if self.closed.load(Ordering::SeqCst) => watch::channel(None).1,
            MapEntry::Occupied(sender) => sender.get().subscribe(),
            MapEntry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                self.watchers.count.fetch_add(1, Ordering::SeqCst);
                place.insert(sender);
                receiver
            }
        }
    }

    /// Removes a watch that has no readers left.
    pub fn unwatch(&self, work_id: WorkId) {
        self.watchers.remove_if(work_id, |sender| sender.receiver_count() == 0);
    }

    /// Sends a status to the watchers of a job. A final status ends the watch.
    fn tell(&self, work_id: WorkId, status: impl FnOnce() -> WorkStatus) {
        if self.watchers.is_empty() {
            return;
        }
        let Some(sender) = self.watchers.rows.get(&work_id) else { return };
        let status = status();
        let last = status.is_final();
        sender.send_replace(Some(status));
        drop(sender);
        if last {
            // A watch that began meanwhile has received no status yet, and stays.
            let told =
                |status: &Option<WorkStatus>| status.as_ref().is_some_and(WorkStatus::is_final);
            self.watchers.remove_if(work_id, |sender| told(&sender.borrow()));
        }
    }

    /// Sends a job's status on the board, or else `status`, to its watchers.
    pub fn observe(&self, work_id: WorkId, status: WorkStatus) {
        let place = self.entries.entry(work_id);
        self.tell(work_id, || match &place {
            MapEntry::Occupied(entry) => entry.get().status(),
            MapEntry::Vacant(_) => status,
        });
    }

    /// Returns the count of watches, and the actual number of watches.
    #[cfg(all(test, shuttle))]
    pub fn watching(&self) -> (usize, usize) {
        (self.watchers.count.load(Ordering::SeqCst), self.watchers.rows.len())
    }

    /// Returns the count of cancels, and the actual number of cancels.
    #[cfg(all(test, shuttle))]
    pub fn canceling(&self) -> (usize, usize) {
        (self.canceling.count.load(Ordering::SeqCst), self.canceling.rows.len())
    }

    /// Ends every watch.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut watched: Vec<_> = self.watchers.rows.iter().map(|watch| *watch.key()).collect();
        // Sorted, so that the order does not depend on the maps' hashing: runs of one seed are the same.
        watched.sort_unstable();
        for work_id in watched {
            self.watchers.remove_if(work_id, |_| true);
        }
    }
}
