//! The board: running jobs and those that have finished lately, for everybody to read without asking the store.

use std::collections::VecDeque;
use std::sync::Arc;

use super::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use super::sync::{Map, MapEntry, watch};
use crate::model::{Finished, Progress, RunNumber, Segment, WorkId, WorkStatus};

/// The number of finished jobs that the board holds; older ones are in `finished`. Few enough to stay in a core's
/// cache.
const FINISHED_ON_BOARD: usize = 4_096;

/// Written by the store after each commit and by workers' progress; read by handles.
pub(crate) struct Board {
    entries: Map<WorkId, Entry>,
    /// Written and read by `watch`, which also deletes; filled by the store and by progress.
    watchers: Counted<watch::Sender<Option<WorkStatus>>>,
    /// Jobs whose cancel is answered, and whose start may be on its way. Written by the store; read by loops and
    /// workers before they start; deleted when the attempt has been told.
    canceling: Counted<()>,
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

/// A map that has had no more rows than this keeps its memory.
#[cfg(not(shuttle))]
const SMALL: usize = 16_384;

/// A map that is empty most of the time, which nobody who looks for nothing in it has to lock to find out.
struct Counted<V> {
    rows: Map<WorkId, V>,
    /// Never less than there are rows: a row is counted before it is there. One that is gone before it is counted
    /// would hide another one.
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

    /// Gives memory back after a flood.
    fn shrink(&self) {
        // Under shuttle the map cannot say how large it is.
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

/// The ids of the finished jobs on the board, oldest first. The store's own, so that only it evicts.
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

    /// Changes an entry. Told under its lock, as every change of one is: who watches sees changes in their order.
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
            // Under an id that was forgotten and used again, another job may be running.
            self.entries.remove_if(&oldest, |_, entry| matches!(entry, Entry::Finished(_)));
        }
    }

    /// The row of a finished job has changed. One that is not on the board stays away.
    pub fn replace_finished(&self, row: &Arc<Finished>) {
        if let MapEntry::Occupied(mut entry) = self.entries.entry(row.work_id)
            && let Entry::Finished(finished) = entry.get_mut()
        {
            *finished = row.clone();
        }
    }

    /// The cancel of a job is about to be answered: no attempt of it begins any more.
    pub fn set_canceling(&self, work_id: WorkId) {
        self.canceling.insert(work_id, ());
    }

    /// Returns `true` if an attempt of this job must not begin.
    pub fn is_canceling(&self, work_id: WorkId) -> bool {
        !self.canceling.is_empty()
            && self.canceling.rows.contains_key(&work_id)
            && !planted!(CancelNotHeld)
    }

    /// The attempt has been told, or has ended.
    pub fn end_canceling(&self, work_id: WorkId) {
        self.canceling.remove(work_id);
    }

    /// A job of this id begins anew.
    pub fn forget(&self, work_id: WorkId) {
        self.entries.remove(&work_id);
    }

    /// Takes what a running attempt says of itself; from any other run it is ignored.
    pub fn set_progress(&self, work_id: WorkId, from: RunNumber, said: Progress) {
        if let MapEntry::Occupied(mut entry) = self.entries.entry(work_id)
            && let Entry::Running { run, progress, .. } = entry.get_mut()
            && *run == from
        {
            *progress = Some(Arc::new(said));
            self.tell(work_id, || entry.get().status());
        }
    }

    /// Begins to collect what becomes of a job. The first value comes when the store has looked.
    pub fn watch(&self, work_id: WorkId) -> watch::Receiver<Option<WorkStatus>> {
        // Looked at under the lock that `close` takes to clear the entry.
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

    /// Forgets a watch that nobody reads any more.
    pub fn unwatch(&self, work_id: WorkId) {
        self.watchers.remove_if(work_id, |sender| sender.receiver_count() == 0);
    }

    /// Passes a status on to those who watch the job. A final one ends the watch.
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
            // A watch that has begun since then is another one, and was told nothing yet.
            let told =
                |status: &Option<WorkStatus>| status.as_ref().is_some_and(WorkStatus::is_final);
            self.watchers.remove_if(work_id, |sender| told(&sender.borrow()));
        }
    }

    /// Passes on how a job is by the board, or else `status`, to those who watch it.
    pub fn observe(&self, work_id: WorkId, status: WorkStatus) {
        let place = self.entries.entry(work_id);
        self.tell(work_id, || match &place {
            MapEntry::Occupied(entry) => entry.get().status(),
            MapEntry::Vacant(_) => status,
        });
    }

    /// Returns the number of watches that are counted, and the number that there are.
    #[cfg(all(test, shuttle))]
    pub fn watching(&self) -> (usize, usize) {
        (self.watchers.count.load(Ordering::SeqCst), self.watchers.rows.len())
    }

    /// Returns the number of cancels that are counted, and the number that there are.
    #[cfg(all(test, shuttle))]
    pub fn canceling(&self) -> (usize, usize) {
        (self.canceling.count.load(Ordering::SeqCst), self.canceling.rows.len())
    }

    /// Ends every watch: nothing more will be heard.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut watched: Vec<_> = self.watchers.rows.iter().map(|watch| *watch.key()).collect();
        // In an order that does not depend on the addresses of maps: a seed repeats a run.
        watched.sort_unstable();
        for work_id in watched {
            self.watchers.remove_if(work_id, |_| true);
        }
    }
}
