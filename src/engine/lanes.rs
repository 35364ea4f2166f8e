//! Lanes: where the jobs of a key wait, and which of them may start.
//!
//! ```text
//!   enqueue ──► Queue   not due, and others of the key need not wait for it
//!      ├──────► Lane    others of the key are ahead        Queue ──► Ready, Lane, or running: when it is due
//!      ├──────► Ready   may start when a slot is free      Lane  ──► Ready or Held: when a place of the key is free
//!      └──────► Held    holds a place of its key until its time has come
//! ```
//!
//! The order of those that are ready is *start-time fair queueing* (Goyal, Vin and Cheng, 1996): a job gets a tag one step
//! behind that of the job of its key before it, and behind the virtual time, which is the highest tag of a job that was
//! started. So keys have turns, and a key that was idle has no credit. Each priority has a virtual time of its own. In the
//! paper, a key that was idle enters at the virtual time or one step behind its last job, whichever is later. Here it enters
//! almost one step behind the virtual time, as if it had just had a turn, so that nothing has to be remembered of keys
//! without jobs. Jobs without keys stay in the queue: of equal priority, one of the queue starts and one that is ready, in
//! turn, so that neither keys nor jobs without them wait for very many of the others.

use hashbrown::{HashMap, HashSet};

use super::limit;
use crate::model::{
    KeyRule, LaneRow, Priority, Segment, Spec, StartKey, StartPlace, WorkFact, WorkKey,
};

/// The step between the tags of two jobs of a key with the weight 1.
pub(crate) const STEP: u64 = 1 << 16;

/// The tag that a turn gives to a job that is to be ready: the store replaces it.
pub(crate) const UNTAGGED: u64 = u64::MAX;

/// The highest tag of a job of this priority that was started.
#[derive(Clone, Copy)]
pub(crate) struct VirtualTime {
    pub priority: Priority,
    pub time: u64,
}

/// Returns the tag of a job that is the only one of its key. Of the same round it comes before those whose keys have had a
/// turn.
pub(crate) fn first_tag(virtual_time: u64) -> u64 {
    virtual_time.saturating_add(STEP - 1)
}

/// What a job is to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is finished, or not due while others of its key need not wait for it.
    Outside,
    /// It is in the lane.
    Waits,
    /// It holds a place of its key, and waits for a slot or for its time.
    Holds,
    Runs,
}

impl Standing {
    pub fn of(work: &WorkFact) -> Standing {
        work.pending_start.map_or(Standing::Runs, Standing::at)
    }

    /// Returns the standing of a job that waits.
    pub fn at(key: StartKey) -> Standing {
        match key.place {
            StartPlace::Queue => Standing::Outside,
            StartPlace::Held | StartPlace::Ready { .. } => Standing::Holds,
            StartPlace::Lane => Standing::Waits,
        }
    }

    /// The numbers of holders, of running and of waiting jobs that it counts as.
    fn counts(self) -> [i64; 3] {
        match self {
            Standing::Outside => [0, 0, 0],
            Standing::Waits => [0, 0, 1],
            Standing::Holds => [1, 0, 0],
            Standing::Runs => [1, 1, 0],
        }
    }
}

/// What happens to a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneEdit {
    counts: [i64; 3],
    /// The new theoretical arrival time.
    tat: Option<u64>,
    /// The end of the rest, if it is later.
    rest: Segment,
}

impl LaneEdit {
    /// A job of the key changes its standing.
    pub fn pass(&mut self, from: Standing, to: Standing) {
        for (count, (from, to)) in
            self.counts.iter_mut().zip(from.counts().into_iter().zip(to.counts()))
        {
            *count += to - from;
        }
    }

    /// Returns the row as it is afterwards.
    pub fn applied_to(&self, row: LaneRow) -> LaneRow {
        let [holders, running, waiting] = self.counts;
        let sum = |count: u32, by: i64| {
            let sum = i64::from(count) + by;
            debug_assert!(sum >= 0, "a lane counts {count} and {by}");
            u32::try_from(sum.max(0)).unwrap_or(u32::MAX)
        };
        LaneRow {
            holders: sum(row.holders, holders),
            running: sum(row.running, running),
            waiting: sum(row.waiting, waiting),
            tag: row.tag,
            tag_of: row.tag_of,
            tat: self.tat.unwrap_or(row.tat),
            rest: row.rest.max(self.rest),
        }
    }
}

/// What a turn does to the lane of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LaneStep {
    /// The job.
    pub spec: Spec,
    pub from: Standing,
    pub to: Standing,
    pub tat: Option<u64>,
    pub rest: Segment,
}

impl LaneStep {
    /// Returns what it does to the lane.
    pub fn edit(&self) -> LaneEdit {
        let LaneStep { tat, rest, .. } = *self;
        let mut edit = LaneEdit { tat, rest, ..LaneEdit::default() };
        edit.pass(self.from, self.to);
        edit
    }
}

/// The lanes that a turn has changed.
#[derive(Default)]
pub(crate) struct LaneTurn {
    edits: HashMap<WorkKey, LaneEdit>,
    /// Keys of which a job waits for its time since this turn.
    held_back: HashSet<WorkKey>,
    pub steps: Vec<LaneStep>,
}

impl LaneTurn {
    /// Returns a row of the batch as it is at this point of the turn.
    pub fn now(&self, key: &[u8], row: LaneRow) -> LaneRow {
        self.edits.get(key).map_or(row, |edit| edit.applied_to(row))
    }

    /// Returns `true` if the turn has let a job of the key wait for its time.
    pub fn is_held_back(&self, key: &[u8]) -> bool {
        self.held_back.contains(key)
    }

    /// Records that a job of the key waits for its time.
    pub fn hold_back(&mut self, key: &[u8]) {
        self.held_back.insert(WorkKey::new(key));
    }

    /// Records what becomes of a job, if it has a key.
    pub fn pass(&mut self, spec: &Spec, from: Standing, to: Standing) {
        if spec.key().is_some() {
            let (tat, rest) = (None, Segment::default());
            self.step(LaneStep { spec: spec.clone(), from, to, tat, rest });
        }
    }

    /// Records what becomes of a job and of its lane.
    pub fn step(&mut self, step: LaneStep) {
        let Some(key) = step.spec.key() else { return };
        let edit = match self.edits.get_mut(key) {
            Some(edit) => edit,
            None => self.edits.entry(WorkKey::new(key)).or_default(),
        };
        edit.pass(step.from, step.to);
        edit.tat = step.tat.or(edit.tat);
        edit.rest = edit.rest.max(step.rest);
        self.steps.push(step);
    }
}

/// The input of a decision on a lane, besides its row.
#[derive(Clone, Copy)]
pub(crate) struct LaneCx {
    pub rule: KeyRule,
    pub now: Segment,
}

impl LaneCx {
    /// Returns `true` if a job may take a place of the key. While the rate or a rest may hold back jobs, only one stands at
    /// the door, so that they start in order.
    pub fn has_room(&self, row: &LaneRow) -> bool {
        row.holders < self.most() && !(self.has_door(row) && row.holders > row.running)
    }

    /// Returns the number of jobs of a key that may run.
    fn most(&self) -> u32 {
        match planted!(KeyParallelismIgnored) {
            true => u32::MAX,
            false => self.rule.max_parallelism().unwrap_or(u32::MAX),
        }
    }

    /// Returns `true` if the rate or a rest may hold back jobs of the key.
    fn has_door(&self, row: &LaneRow) -> bool {
        self.rule.max_rate().is_some() || row.rest > self.now
    }

    /// Returns `true` if as many jobs of the key run as may.
    pub fn is_full(&self, row: &LaneRow) -> bool {
        row.running >= self.most()
    }

    /// Returns the new theoretical arrival time if a start is admitted, and the time at which it will be, if not.
    pub fn admit(&self, row: &LaneRow, cost: u32) -> Result<u64, Segment> {
        if row.rest > self.now {
            return Err(row.rest);
        }
        match self.rule.max_rate() {
            Some(rate) if !planted!(KeyRateIgnored) => {
                limit::admit(Some(rate), row.tat, cost, self.now)
            }
            _ => Ok(0),
        }
    }

    /// Gives a tag to the next job of a key that becomes ready, at the virtual time of its priority.
    pub fn next_tag(&self, row: &mut LaneRow, spec: &Spec, at: VirtualTime) -> u64 {
        let is_only = row.holders == 0 && row.waiting == 0;
        let step = STEP / u64::from(spec.weight().max(1));
        // Those that run have had their turns.
        let ready = u64::from(row.holders.saturating_sub(row.running));
        let most = at.time.saturating_add(ready.saturating_mul(STEP));
        let last = match row.tag_of == at.priority && ready > 0 {
            true => row.tag,
            // The tag is from another virtual time.
            false => row.tag.min(most),
        };
        let tag = match is_only {
            true => first_tag(at.time),
            false if planted!(TurnsIgnored) => step,
            false => last.max(at.time).saturating_add(step),
        };
        (row.tag, row.tag_of) = (tag, at.priority);
        tag
    }

    /// Returns the place of a job that is enqueued, and counts it in the row.
    pub fn enter(
        &self,
        row: &mut LaneRow,
        spec: &Spec,
        key: StartKey,
        at: VirtualTime,
    ) -> StartKey {
        let waits_alone = !self.rule.is_ordered() || planted!(DelayOvertaken);
        if key.segment > self.now && waits_alone {
            return key.in_place(StartPlace::Queue);
        }
        if row.waiting > 0 || !self.has_room(row) {
            row.waiting += 1;
            return key.in_place(StartPlace::Lane);
        }
        self.seat(row, spec, key, at)
    }

    /// Returns the place of a job that takes a place of its key, and counts it in the row.
    pub fn seat(&self, row: &mut LaneRow, spec: &Spec, key: StartKey, at: VirtualTime) -> StartKey {
        let segment = match self.admit(row, spec.cost()) {
            Err(until) if key.segment <= self.now => until,
            _ => key.segment,
        };
        let place = match segment > self.now {
            true => StartPlace::Held,
            false => StartPlace::Ready { tag: self.next_tag(row, spec, at) },
        };
        row.holders += 1;
        StartKey { segment, place, ..key }
    }

    /// Returns the theoretical arrival time of a key by the rule before, or by one that nobody knows, as of the rule now.
    pub fn tat_anew(&self, before: Option<KeyRule>, row: &LaneRow) -> u64 {
        let Some(rate) = self.rule.max_rate() else { return 0 };
        match before.map(|before| before.max_rate()) {
            Some(before) => limit::convert(before, Some(rate), row.tat, self.now),
            None => limit::capped(rate, row.tat, self.now),
        }
    }

    /// Returns `true` if nothing has to be remembered of the key.
    pub fn is_over(&self, row: &LaneRow) -> bool {
        let owes = self.rule.max_rate().is_some() && limit::owes(row.tat, self.now);
        row.is_empty() && row.rest <= self.now && !owes
    }
}
