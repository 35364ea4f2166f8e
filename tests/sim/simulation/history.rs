//! What may happen: every invariant, judged by what callers were told, what functions saw, and what the tables hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_workpool::model::{Cursors, Finished, Name, PoolId};
use actix_workpool::{FailureKind, Outcome, Retention, TableKey, WorkId, WorkStatus};

use super::functions::Output;
use super::tables;
use super::world::{
    Ack, Act, Code, End, Ended, How, Kind, Micros, OnDone, Rest, Seen, Start, Work, World, millis,
    trace, with,
};

/// With nothing wrong, a due job starts no later than this after it could: a lost wake-up would be found by the
/// pool's own watchdog after 5 s.
const PROMPT: Micros = millis(1_000);

/// By how much the two clocks that an attempt is seen by may disagree: both are read in whole milliseconds.
const SLACK: Micros = millis(2);

impl World {
    /// A function begins: may it?
    pub fn attempt_started(&mut self, number: u32, id: WorkId, attempt: u32) -> Option<(u32, Act)> {
        if self.dead {
            return None;
        }
        trace!(self, "attempt {attempt} of {number} starts");
        self.bind(number, id);
        let (now, by_pool_clock) = (self.now(), self.pool_now());
        self.may_start(number, attempt, now, by_pool_clock);
        self.is_admitted(number, now, by_pool_clock);
        self.is_scheduled(number);
        self.is_let_in(number, now, by_pool_clock);
        self.in_order(number);
        let (life, crashes) = (self.life, self.crashes);
        let work = &mut self.works[number as usize];
        if work.is_hurried() {
            // From now on only its retries wait.
            work.due = work.due.min(by_pool_clock);
            work.latest_due = work.latest_due.min(by_pool_clock);
        }
        (work.moved, work.moved_at) = (false, None);
        work.starts.push(Start {
            at: now,
            by_pool_clock,
            life,
            crashes,
            is_lost: false,
            ended: None,
        });
        let start = work.starts.len() - 1;
        let act = work.acts[start.min(work.acts.len() - 1)];
        let pool = work.pool;
        let pool = &mut self.pools[pool];
        pool.running += 1;
        let (running, slots, name) = (pool.running, pool.slots(), pool.name);
        if running >= slots {
            pool.was_full = now;
        }
        if running > slots {
            self.violate(format_args!("{running} attempts run in {name}, {slots} may"));
        }
        Some((start as u32, act))
    }

    fn may_start(&mut self, number: u32, attempt: u32, now: Micros, by_pool_clock: Micros) {
        let work = &self.works[number as usize];
        let Work { ack, due, retry, cancel_told, told_finished, ref seen, .. } = *work;
        let max_attempts = retry.map_or(1, |retry| retry.max_attempts);
        let (least, most) = work.counted(self.crashes, false);
        let mut wrong = None;
        let mut expect = |holds: bool, what: &'static str| {
            if !holds {
                wrong.get_or_insert(what);
            }
        };
        expect(ack != Ack::Planned && ack != Ack::Refused, "was not enqueued");
        expect(seen.is_none(), "has its outcome");
        expect(!told_finished, "is said to have its outcome");
        expect(!cancel_told, "was canceled");
        let hurried = work.is_hurried();
        expect(by_pool_clock >= due || hurried, "is not due");
        expect(attempt <= max_attempts, "has no attempts left");
        expect((least + 1..=most + 1).contains(&attempt), "has another number of attempts");
        let mut eligible_by_pool_clock = work.latest_due;
        if let Some(Start { ended, .. }) = work.starts.last() {
            match ended {
                None => expect(false, "is running"),
                Some(ended) => {
                    let waits = work.waits(ended, attempt);
                    if let Some((least, most)) = waits {
                        // Set back before a restart, the pool's clock goes on from the last commit.
                        let set_back = self.plan.wall_jumps && ended.crashes < self.crashes;
                        let least = if set_back { 0 } else { least };
                        expect(
                            set_back
                                || hurried
                                || by_pool_clock + SLACK >= ended.by_pool_clock + least,
                            "waits",
                        );
                        // It waits from when its report has arrived.
                        let reported = ended.by_pool_clock + self.arrives_after(ended.at);
                        eligible_by_pool_clock = eligible_by_pool_clock.max(reported + most);
                    }
                }
            }
        }
        if let Some(moved_at) = work.moved_at {
            eligible_by_pool_clock = eligible_by_pool_clock.min(moved_at);
        }
        if let Some(what) = wrong {
            let range = (least, most);
            self.violate(format_args!(
                "attempt {attempt} of {number} starts, and it {what}; counted {range:?}, due {due}"
            ));
            return;
        }
        let pool = &self.pools[work.pool];
        let late = by_pool_clock.saturating_sub(eligible_by_pool_clock);
        // What the rate holds back starts soon after what came before it.
        let held = pool.rest.map_or(0, |rest| rest.ends);
        let rated = self.plan.pools[work.pool].rate.is_some();
        let held = held.max(if rated { pool.last_start } else { 0 });
        let held = held.max(self.held_by_key(number));
        let held = held.max(pool.was_full).max(self.quick_from());
        let late = late.min(now.saturating_sub(held));
        // What a crash has ended waits from when it is found.
        let found_later = work.starts.last().is_some_and(|start| start.life != self.life);
        if late > PROMPT && work.kind == Kind::Job && !found_later {
            let ms = late / 1_000;
            self.violate(format_args!("attempt {attempt} of {number} starts {ms} ms late"));
        }
    }

    /// A job of a schedule starts: may it?
    fn is_scheduled(&mut self, number: u32) {
        let work = &self.works[number as usize];
        let Some((place, nominal)) = work.tick else { return };
        let (is_first, made) = (work.starts.is_empty(), work.sent_moment);
        if is_first && self.paused_since[place].is_some_and(|since| made > since) {
            self.violate(format_args!("job {number} starts, and its schedule is paused"));
        }
        let other = self.works.iter().find(|other| {
            other.tick.is_some_and(|(of, at)| of == place && at != nominal)
                && other.starts.last().is_some_and(|start| start.ended.is_none())
        });
        if place == 0 && other.is_some() {
            self.violate(format_args!("job {number} starts, and the one before it runs"));
        }
    }

    /// A job starts: does the rate of its pool admit it?
    fn is_admitted(&mut self, number: u32, now: Micros, by_pool_clock: Micros) {
        let work = &self.works[number as usize];
        let (place, rate) = (work.pool, self.plan.pools[work.pool].rate);
        let exact = !self.plan.stalls && !self.plan.wall_jumps && self.plan.faults.late == 0;
        let (disorder, disturbed) = (self.disorder, self.is_disturbed());
        let pool = &mut self.pools[place];
        pool.last_start = now;
        if !exact {
            return;
        }
        let rests = pool.rest.filter(|rest| {
            // Jobs that were started before the rest was known may begin a little later.
            by_pool_clock > rest.from + millis(1_000) && by_pool_clock + SLACK < rest.until
        });
        if rests.is_some_and(|rest| rest.disorder == disorder) && !disturbed {
            return self.violate(format_args!("job {number} starts while its pool rests"));
        }
        if disturbed {
            // A commit in doubt delays what it has counted.
            return pool.starts.clear();
        }
        let Some(rate) = rate else { return };
        let interval = rate.interval().as_micros() as Micros;
        pool.starts.push(by_pool_clock);
        // 5 ms for late timers, and some for the way to the worker.
        let (slack, burst) = (millis(50), Micros::from(rate.max_burst()));
        for (count, from) in (1..).zip(pool.starts.iter().rev()) {
            let most = burst + (by_pool_clock - from + slack) / interval;
            if count > most {
                let ms = (by_pool_clock - from) / 1_000;
                let what = format!("{count} jobs start in {ms} ms, {rate} may");
                return self.violate(what);
            }
        }
    }

    /// Jobs that are due at once start in the order in which they were acknowledged, and of their priorities, if nothing
    /// interferes.
    fn in_order(&mut self, number: u32) {
        let disorder = self.disorder;
        let work = &self.works[number as usize];
        if !work.starts.is_empty() {
            return;
        }
        let (pool, sent, acked) = (work.pool, work.sent_moment, work.acked_moment);
        let ages = self.plan.pools[pool].aging.is_some();
        let (priority, key) = (work.priority, work.key);
        // Their tags are from different virtual times.
        let mixed = self.plan.priorities || self.plan.weights[15] > 0;
        let queue = &self.pools[pool].queue;
        let Some(place) = queue.iter().position(|queued| *queued == number) else { return };
        let before = queue[..place].iter().copied().find(|earlier| {
            let earlier = &self.works[*earlier as usize];
            earlier.key == key
                && (key.is_none() || !mixed)
                && earlier.order == disorder
                && (earlier.priority == priority
                    || earlier.priority < priority && !ages && key.is_none())
                && !earlier.cancel_sent
                && (earlier.acked_moment < sent || (earlier.sent_moment < sent && acked > 0))
        });
        let undisturbed = work.order == disorder;
        self.pools[pool].queue.remove(place);
        let rested = self.has_rested(pool, key);
        if let Some(earlier) = before.filter(|_| undisturbed && !rested) {
            self.violate(format_args!("job {number} starts before {earlier}, which came first"));
        }
    }

    pub fn attempt_ended(&mut self, number: u32, start: u32, how: How) {
        trace!(self, "start {start} of {number} ends: {how:?}");
        let (now, by_pool_clock, crashes) = (self.now(), self.pool_now(), self.crashes);
        let (stalled, dead) = (self.stalled, self.dead);
        let (disorder, arrives) = (self.disorder, self.arrives_after(now));
        let work = &mut self.works[number as usize];
        let begun = work.starts[start as usize].at;
        work.starts[start as usize].ended = Some(Ended { how, at: now, by_pool_clock, crashes });
        let (pool, timeout, abort_by) = (work.pool, work.timeout, work.abort_by);
        self.key_left(number, how, arrives);
        let pool = &mut self.pools[pool];
        if let How::Returned(End::LimitPool { ms }) = how {
            let (from, until) = (by_pool_clock, by_pool_clock + millis(ms));
            let ends = (now + millis(ms) + arrives).max(pool.rest.map_or(0, |rest| rest.ends));
            pool.rest = Some(Rest { from, until, ends, disorder });
        }
        if pool.running >= pool.slots() {
            pool.was_full = now;
        }
        pool.running = pool.running.saturating_sub(1);
        if dead || stalled + millis(100) >= begun {
            return;
        }
        if timeout.is_some_and(|timeout| now > begun + timeout + millis(200)) {
            self.violate(format_args!("an attempt of {number} takes longer than its timeout"));
        }
        if abort_by.is_some_and(|by| by > begun && now > by) {
            self.violate(format_args!("an attempt of {number} goes on after its abort"));
        }
    }

    /// Somebody is told an outcome: it is the only one, and a possible one.
    pub fn saw(&mut self, number: u32, code: Code, attempts: Option<u32>) {
        if self.dead {
            return;
        }
        let (at, moment) = (self.now(), self.tick());
        let seen = Seen { code, attempts, at, moment };
        if let Some(known) = &mut self.works[number as usize].seen {
            let same_attempts =
                known.attempts.is_none() || attempts.is_none() || known.attempts == attempts;
            known.attempts = known.attempts.or(attempts);
            if known.code != seen.code || !same_attempts {
                let known = known.clone();
                self.violate(format_args!("job {number} ends twice: {known:?} and {seen:?}"));
            }
            return;
        }
        trace!(self, "job {number} ended: {:?}", seen.code);
        if let Err(what) = self.is_possible(number, &seen.code, seen.attempts) {
            self.violate(format_args!("job {number} ends as {seen:?}, and {what}"));
        }
        self.works[number as usize].seen = Some(seen);
    }

    fn is_possible(
        &self,
        number: u32,
        code: &Code,
        attempts: Option<u32>,
    ) -> Result<(), &'static str> {
        let work = &self.works[number as usize];
        let max_attempts = work.retry.map_or(1, |retry| retry.max_attempts);
        let is = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
        let ends = || work.starts.iter().filter_map(|start| start.ended.as_ref());
        let ended = |how: How| ends().any(|ended| ended.how == how);
        let returned = |end: fn(&End) -> bool| {
            ends().any(|ended| matches!(ended.how, How::Returned(how) if end(&how)))
        };
        let action = work.kind.is_action();
        is(!matches!(work.ack, Ack::Refused | Ack::Planned), "it was not enqueued")?;
        match code {
            Code::Success(start) if action => {
                let ended = work.starts.get(*start as usize).and_then(|start| start.ended);
                let success = ended.is_some_and(|ended| ended.how == How::Returned(End::Success));
                is(success, "no attempt has returned that")?;
            }
            Code::Success(_) => {
                is(work.kind == Kind::Check || work.calls > 0, "its code was never called")?;
            }
            Code::Canceled => {
                let itself = work.acts.iter().any(|act| act.end == End::Canceled);
                is(work.cancel_sent || itself, "nobody has canceled it")?;
            }
            Code::Failed(FailureKind::Timeout) => {
                let timeout = work.timeout.unwrap_or(Micros::MAX);
                let took = |start: &Start| {
                    start.ended.is_some_and(|ended| {
                        ended.by_pool_clock + SLACK >= start.by_pool_clock.saturating_add(timeout)
                    })
                };
                is(work.starts.iter().any(took), "no attempt took that long")?;
            }
            Code::Failed(FailureKind::Lost) => {
                let is_lost = work.starts.last().is_some_and(|start| start.is_lost);
                is(is_lost || self.crashes > work.sent_crashes, "nothing was lost")?;
            }
            Code::Failed(FailureKind::Panic) if action => {
                is(returned(|end| *end == End::Panic), "no attempt has panicked")?;
            }
            Code::Failed(FailureKind::Error) if action => {
                is(returned(|end| matches!(end, End::Error { .. })), "no attempt has failed")?;
            }
            Code::Failed(FailureKind::Decode | FailureKind::Encode) => {
                is(false, "everything decodes")?;
            }
            Code::Failed(_) => {}
        }
        let Some(attempts) = attempts else { return Ok(()) };
        is(attempts <= max_attempts, "that is more often than it may be tried")?;
        let final_error =
            returned(|end| matches!(end, End::Error { retryable: false, .. })) || !action;
        let retryable = matches!(code, Code::Failed(_)) && !final_error;
        is(!retryable || attempts == max_attempts, "it has attempts left")?;
        // A start that was under way then, and lost in a crash, counts as a failure.
        let lost = *code == Code::Failed(FailureKind::Lost);
        let canceled = *code == Code::Canceled || lost;
        is(work.canceled_unstarted <= canceled, "its cancel was granted")?;
        if action {
            let (least, most) = work.counted(self.crashes, true);
            is((least..=most).contains(&attempts), "that is another number of attempts")?;
        }
        let _ = ended;
        Ok(())
    }

    /// Somebody is told a status, having asked at `moment`.
    pub fn saw_status(&mut self, number: u32, status: &WorkStatus, moment: u64) {
        if self.dead {
            return;
        }
        let work = &self.works[number as usize];
        let seen = work.seen.as_ref().filter(|seen| seen.moment <= moment);
        let was_acked = matches!(work.ack, Ack::Acked) && work.acked_moment <= moment;
        match status {
            WorkStatus::Finished(row) => {
                self.saw_outcome(number, row.outcome(), row.attempts());
            }
            WorkStatus::Unknown => {
                if was_acked && !self.may_be_forgotten(number) {
                    self.violate(format_args!("job {number} is not known any more"));
                }
            }
            WorkStatus::Pending { .. } | WorkStatus::Running { .. } if seen.is_some() => {
                self.violate(format_args!("job {number} goes back from its outcome to {status:?}"));
            }
            WorkStatus::Pending { .. } | WorkStatus::Running { .. } => {}
            other => self.violate(format_args!("job {number} has the new status {other:?}")),
        }
    }

    /// Whether a status contradicts what the functions see. It may for as long as messages are under way.
    pub fn is_odd(&self, number: u32, status: &WorkStatus) -> bool {
        let work = &self.works[number as usize];
        let runs = work.starts.last().is_some_and(|start| start.ended.is_none());
        work.kind.is_action()
            && match status {
                WorkStatus::Running { .. } => !runs,
                WorkStatus::Pending { .. } => runs,
                _ => false,
            }
    }

    pub fn saw_outcome(&mut self, number: u32, outcome: &Outcome, attempts: u32) {
        let code = match outcome {
            Outcome::Success(output) => match serde_json::from_slice::<Output>(output.as_bytes()) {
                Ok((of, start)) if of == number => Code::Success(start),
                _ => return self.violate(format_args!("job {number} has another's result")),
            },
            Outcome::Failed(failure) => Code::Failed(failure.kind),
            Outcome::Canceled => Code::Canceled,
        };
        self.saw(number, code, Some(attempts));
    }

    /// Whether retention may have deleted what is known of a job.
    fn may_be_forgotten(&self, number: u32) -> bool {
        let Retention { max_age, max_count, .. } = self.plan.retention;
        let work = &self.works[number as usize];
        // It may have ended as soon as it was sent; only what was seen says that it is younger.
        let ended = work.seen.as_ref().map_or(work.sent_at, |seen| seen.at);
        let since = if work.seen.is_some() { work.sent_at } else { ended };
        let old = max_age.is_some_and(|age| {
            let age = age.as_micros() as Micros;
            // The wall clock of a later life may be ahead.
            self.plan.wall_jumps || self.now() + SLACK >= since + age
        });
        old || max_count.is_some()
    }
}

impl Work {
    /// Whether its wait may have been ended for it.
    pub fn is_hurried(&self) -> bool {
        self.moved || self.hurrying > 0
    }

    pub fn runs(&self) -> bool {
        self.starts.last().is_some_and(|start| start.ended.is_none())
    }

    /// How many attempts count, at least and at most: `ended` when the job has its outcome.
    pub fn counted(&self, crashes: u32, ended: bool) -> (u32, u32) {
        let (mut least, mut most) = (0u32, 0u32);
        // Lives that ended badly may each have cost one attempt that was committed and never began.
        let mut seen_crashes = self.sent_crashes;
        for (place, start) in self.starts.iter().enumerate() {
            most += start.crashes - seen_crashes;
            let next = self.starts.get(place + 1).map_or(crashes, |next| next.crashes);
            let Some(end) = start.ended else {
                seen_crashes = start.crashes;
                most += 1;
                continue;
            };
            let lost_since = next > end.crashes;
            let (surely, perhaps) = match end.how {
                How::Returned(
                    End::Snooze { .. } | End::LimitPool { .. } | End::LimitKey { .. },
                ) => (0, u32::from(lost_since)),
                // Said while the runtime shuts down, it hands the job back.
                How::Returned(End::Canceled) => (0, 1),
                How::Returned(_) => (1, 1),
                How::Heeded { shutdown: false } | How::Dropped { shutdown: false } => (1, 1),
                How::Heeded { .. } | How::Dropped { .. } => (0, 1),
                How::Crashed => (1, 1),
            };
            let exact_return = matches!(end.how, How::Dropped { shutdown: true })
                && !lost_since
                && self.timeout.is_none()
                && !self.cancel_sent;
            least += surely;
            most += if exact_return { 0 } else { perhaps };
            let stopped = matches!(end.how, How::Heeded { .. } | How::Dropped { .. });
            let timed_out = stopped
                && self.timeout.is_some_and(|timeout| {
                    end.by_pool_clock + SLACK >= start.by_pool_clock.saturating_add(timeout)
                });
            // The crash that a running attempt dies in, or that a report is lost in, costs that attempt and no other. One
            // that ends at its timeout while the runtime shuts down may have counted for that: then it may cost
            // another one.
            let own =
                u32::from(lost_since && (surely == 0 && !timed_out || end.how == How::Crashed));
            seen_crashes = (end.crashes + own).min(next);
        }
        most += crashes - seen_crashes;
        // While a job ends by its cancel, what it did last may not have counted.
        let canceled = ended && self.cancel_sent;
        (if canceled { least.saturating_sub(1) } else { least }, most)
    }

    /// How long the next attempt waits after the last, at least and at most. `None` where that is not known.
    fn waits(&self, ended: &Ended, attempt: u32) -> Option<(Micros, Micros)> {
        let backoff = |jitter: f64| {
            let retry = self.retry?;
            let exponent = attempt.saturating_sub(2) as i32;
            let ms = retry.initial_backoff_ms as f64 * retry.base.powi(exponent) * jitter;
            Some((ms * 1_000.0) as Micros)
        };
        let exactly = |ms: u64| Some((millis(ms), millis(ms)));
        match ended.how {
            How::Returned(End::Snooze { ms } | End::LimitPool { ms } | End::LimitKey { ms }) => {
                exactly(ms).map(|(_, most)| (0, most))
            }
            How::Returned(End::Error { after_ms: Some(ms), .. }) => {
                exactly(ms).map(|(least, most)| match backoff(0.5) {
                    // Lost in a crash it waits as any other.
                    Some(other) => (least.min(other), most.max(backoff(1.5).unwrap_or(most))),
                    None => (least, most),
                })
            }
            How::Returned(End::Canceled)
            | How::Dropped { shutdown: true }
            | How::Heeded { shutdown: true } => Some((0, backoff(1.5).unwrap_or(0))),
            _ => backoff(0.5).zip(backoff(1.5)),
        }
    }
}

/// Judges what is left in the end: the tables, and what everybody was told.
pub fn judge() {
    if with(|world| world.violation.is_some()) {
        return;
    }
    with(|world| {
        world.dead = false;
        trace!(world, "the end");
    });
    pending_tables_are_empty();
    let lanes = tables::look(super::keys::lanes_are_right);
    with(|world| lanes.unwrap_or_else(|wrong| world.violate(wrong)));
    let completed = tables::completed();
    outcomes_are_unique(&completed);
    counters_are_a_fold(&completed);
    user_tables_are_right();
    with(|world| world.dead = true);
}

fn pending_tables_are_empty() {
    let pools = with(|world| world.pools.len());
    for pool in 0..pools {
        let id = PoolId(pool as u32);
        let counts = tables::look(|tables| tables.counts(id, &Cursors::default()));
        let works = tables::look(|tables| tables.works(id, None, 10));
        with(|world| {
            let rows = counts.waiting
                + counts.running
                + counts.completing
                + counts.canceling
                + counts.unregistered;
            let mut numbers = works.iter().map(|id| world.number_of(*id)).collect::<Vec<_>>();
            numbers.sort();
            if rows > 0 || !works.is_empty() {
                world.violate(format_args!("pool {pool} is not empty: {counts:?} {numbers:?}"));
            }
        });
    }
}

fn outcomes_are_unique(completed: &[Arc<Finished>]) {
    let mut rows: HashMap<WorkId, u32> = HashMap::new();
    for row in completed {
        *rows.entry(row.work_id).or_default() += 1;
        with(|world| {
            if let Some(number) = world.number_of(row.work_id) {
                world.saw_outcome(number, &row.outcome, row.attempts);
            }
        });
    }
    let ids: Vec<_> = with(|world| world.works.iter().map(|work| work.id).collect());
    let succeeded = |world: &World, parent: u32| {
        let seen = world.works[parent as usize].seen.as_ref();
        seen.is_some_and(|seen| matches!(seen.code, Code::Success(_)))
    };
    for (number, id) in ids.into_iter().enumerate() {
        let count = id.and_then(|id| rows.get(&id)).copied().unwrap_or_default();
        with(|world| {
            let ack = world.works[number].ack;
            let expected = match ack {
                Ack::Acked => 1..=1,
                Ack::Sent => 0..=1,
                Ack::Refused | Ack::Planned => 0..=0,
                Ack::With(parent) if succeeded(world, parent) => 1..=1,
                Ack::With(_) => 0..=0,
            };
            if !expected.contains(&count) {
                world.violate(format_args!("job {number} ({ack:?}) has {count} outcomes"));
            }
            if world.works[number].canceled_unstarted
                && world.works[number].kind.is_action()
                && world.works[number].seen.as_ref().is_some_and(|seen| {
                    !matches!(seen.code, Code::Canceled | Code::Failed(FailureKind::Lost))
                })
            {
                world
                    .violate(format_args!("job {number} was canceled in time and ended otherwise"));
            }
        });
    }
    // What retention keeps.
    if with(|world| world.plan.retention == Retention::FOREVER) {
        let ids: Vec<_> = completed.iter().map(|row| row.work_id).collect();
        let kept = tables::look(|tables| tables.finished(&ids));
        for (row, kept) in completed.iter().zip(kept) {
            if kept.as_ref() != Some(row) {
                with(|world| world.violate(format_args!("outcome of {} is not kept", row.work_id)));
            }
        }
    }
}

/// The counters of a pool are what its jobs add up to.
fn counters_are_a_fold(completed: &[Arc<Finished>]) {
    for pool in 0..with(|world| world.pools.len()) {
        let id = PoolId(pool as u32);
        let report = tables::look(|tables| tables.state(id)).report;
        let of_pool = || completed.iter().filter(|row| row.pool == id);
        let count =
            |is: fn(&Outcome) -> bool| of_pool().filter(|row| is(&row.outcome)).count() as u64;
        let succeeded = count(|outcome| matches!(outcome, Outcome::Success(_)));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let canceled = count(|outcome| matches!(outcome, Outcome::Canceled));
        let attempts: u64 = of_pool().map(|row| u64::from(row.attempts)).sum();
        let counted = (report.succeeded, report.failed, report.canceled, report.completed);
        let retried = |row: &Arc<Finished>| match row.outcome {
            // The last attempt of a canceled job may be one that failed, or the one that was canceled.
            Outcome::Canceled => (row.attempts.saturating_sub(1), row.attempts),
            _ => (row.attempts - 1, row.attempts - 1),
        };
        let (least, most) = of_pool()
            .map(retried)
            .fold((0, 0), |(least, most), row| (least + u64::from(row.0), most + u64::from(row.1)));
        with(|world| {
            let folded = (succeeded, failed, canceled, attempts);
            if counted != folded {
                world.violate(format_args!("pool {pool} counts {counted:?}, it was {folded:?}"));
            }
            if !(least..=most).contains(&report.retries) {
                let retries = report.retries;
                world.violate(format_args!(
                    "pool {pool} counts {retries} retries, it was {least} to {most}"
                ));
            }
        });
    }
}

fn rows<T: serde::de::DeserializeOwned>(table: &'static str) -> Vec<(TableKey, T)> {
    let everything = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let rows =
        tables::look(|tables| tables.scan(Name::from_static(table), &everything, usize::MAX));
    let decode = |(key, value): (TableKey, actix_workpool::Payload)| {
        (key, serde_json::from_slice(value.as_bytes()).expect("rows decode"))
    };
    rows.into_iter().map(decode).collect()
}

/// Every effect is there exactly once.
fn user_tables_are_right() {
    let numbered = |key: &TableKey| key.as_u64().expect("a number") as u32;
    let transfers: HashMap<u32, u64> =
        rows("transfers").iter().map(|(key, count)| (numbered(key), *count)).collect();
    let done: HashMap<u32, (u64, String)> =
        rows("done").into_iter().map(|(key, row)| (numbered(&key), row)).collect();
    let ledger: HashMap<u64, i64> =
        rows("ledger").iter().map(|(key, sum)| (key.as_u64().expect("a number"), *sum)).collect();
    with(|world| {
        let mut expected: HashMap<u64, i64> = HashMap::new();
        let mut wrong = None;
        for (number, work) in world.works.iter().enumerate() {
            let number = number as u32;
            let ended = work.seen.as_ref().map(|seen| &seen.code);
            let count = transfers.get(&number).copied().unwrap_or_default();
            let succeeded = matches!(ended, Some(Code::Success(_))) && work.kind == Kind::Transfer;
            if count != u64::from(succeeded) {
                wrong = Some(format!("transfer {number} ({ended:?}) has {count} effects"));
            }
            if succeeded {
                let (from, to, amount) = work.transfer;
                *expected.entry(from).or_default() -= amount;
                *expected.entry(to).or_default() += amount;
            }
            let row = done.get(&number);
            let effects = row.map_or(0, |(count, _)| *count);
            let happens = |plan: &OnDone| ended.is_some() && plan.fails < 4;
            let expected = u64::from(work.on_complete.as_ref().is_some_and(happens));
            if effects != expected {
                wrong = Some(format!("on_complete of {number} ({ended:?}) has {effects} effects"));
            }
            let told = match ended {
                Some(Code::Success(start)) => format!("success {start}"),
                Some(Code::Failed(kind)) => format!("failed {kind:?}"),
                Some(Code::Canceled) => "canceled".into(),
                None => String::new(),
            };
            if row.is_some_and(|(_, outcome)| *outcome != told) {
                wrong = Some(format!("on_complete of {number} was told {row:?}, it was {told}"));
            }
        }
        if let Some(wrong) = wrong {
            world.violate(wrong);
        }
        let accounts = world.plan.accounts;
        for account in 0..accounts {
            let (is, expected) = (ledger.get(&account), expected.get(&account));
            if is.copied().unwrap_or_default() != expected.copied().unwrap_or_default() {
                world.violate(format_args!("account {account} has {is:?}, not {expected:?}"));
            }
        }
    });
}

/// How long everything that is left may take: one after the other, with every attempt and every wait at its longest.
pub fn drain_limit(world: &World) -> Duration {
    let mut limit = millis(120_000);
    for work in &world.works {
        // One that is planned may be enqueued by another that is still to run.
        if work.ack == Ack::Refused || work.seen.is_some() {
            continue;
        }
        // The job of a schedule is due when it is made, but nobody knows when it was enqueued.
        if work.tick.is_none() {
            limit += work.latest_due.saturating_sub(world.pool_now()) + work.delay;
        }
        let retry = work.retry.unwrap_or(actix_workpool::RetryBehavior::new().max_attempts(1));
        let longest = work.acts.iter().map(|act| act.work_ms).max().unwrap_or_default();
        let one = millis(longest.max(4_000) + 5_000) + retry.initial_backoff_ms * 1_000 * 32;
        // What is snoozed is tried more often.
        limit += one * u64::from(retry.max_attempts + 6);
    }
    Duration::from_micros(limit + world.uniques.left()) + super::keys::slower(world)
}
