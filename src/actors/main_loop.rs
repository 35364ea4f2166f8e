//! The MainActor: the loop of one pool.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hashbrown::{HashMap, HashSet};

use super::alarm::Alarm;
use super::attempt::{Attempt, timed_out};
use super::hosts::Spawner;
use super::lifecycle::{Effect, Flight, Life, Transition};
use super::messages::{Ring, Watch};
use crate::engine::arrivals::AttemptReport;
use crate::engine::lanes::LaneStep;
use crate::engine::rest::{KickSource, rest};
use crate::engine::{Launch, Lost, Step, TurnCx, demand, limit, step};
use crate::functions::{Control, Program, Stage};
use crate::model::{
    Batch, Change, Claimed, FunctionKind, Generation, InternalState, PoolConfig, RunNumber,
    RunResult, RunStatus, RunningRow, Segment, Spec, StateRow, Turn, WorkId,
};
use crate::observe::{metrics, telemetry};
use crate::protocol::{
    Advance, AdvanceError, BatchReady, Command, Drained, Inspection, LoopMessage, PoolRequest,
    Reply, Request, RunInStore, RunningAttempt,
};
use crate::shared::rates::Rates;
use crate::shared::sync::oneshot;
use crate::shared::{PoolShared, Shared};
use crate::storage::StorageError;

/// The interval at which a loop that is not idle checks that it makes progress.
pub(super) const WATCHDOG_INTERVAL: Duration = Duration::from_secs(5);

/// The time after which a turn without an answer is given up, and the pool claimed again.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// The time that an aborted attempt has to report before its slot is freed without a report.
const ABANDON_AFTER: Duration = Duration::from_secs(2);

/// The time by which timers are set early. They go off at the end of a millisecond, so one that is set a little late
/// goes off a millisecond late.
const TIMER_SLACK: Duration = Duration::from_micros(100);

/// The wait before a loop claims its pool again after a failed turn.
const CLAIM_BACKOFF: Duration = Duration::from_millis(50);

/// Owns a pool's `internal_state` and `run_status`.
///
/// Guarantees: one turn in flight; a launch follows its commit; the number of running jobs never exceeds the limit that
/// was in force when they started. It leaves decisions to the engine and writes to the store, and never awaits.
pub(super) struct MainActor {
    program: Arc<Program>,
    pool: Arc<PoolShared>,
    spawner: Spawner,
    /// Wakes the loop in time for the next due job. The timer wakes it a little later.
    alarm: Option<Alarm>,
    rng: fastrand::Rng,
    life: Life,
    state: InternalState,
    config: Configuration,
    /// The rates of the last minutes. Updated after commits and launches, copied for callers that ask.
    rates: Rates,
    /// The first generation of this loop, which knows whether each start since then was launched.
    first_generation: Option<Generation>,
    /// Attempts that were launched here and whose completion no turn has handled yet.
    live: HashMap<WorkId, Live>,
    /// Rows of `running` without a worker, to recover in the next turn.
    lost: Vec<Lost>,
    /// The times at which attempts are told to end, and how.
    deadlines: BTreeMap<(Segment, WorkId), Deadline>,
    tick: Option<(Segment, SpawnHandle)>,
    /// Aborts of attempts whose start is not committed yet.
    aborts: HashMap<WorkId, Duration>,
    /// Set by shutdown: no more jobs are started.
    draining: Option<Draining>,
    /// `true` while a group waits for the turn in progress.
    owes_turn: bool,
    /// `true` while the loop rests and nothing runs. Read by the conductor.
    is_idle: Rc<Cell<bool>>,
}

/// The configuration of a pool, with its pending changes.
#[derive(Default)]
struct Configuration {
    /// The configuration that turns use; ahead of `committed` while a change is in flight.
    wanted: PoolConfig,
    committed: PoolConfig,
    /// Changes that the next turn commits; turns use them already.
    waiting: Vec<(PoolConfig, Reply<()>)>,
    /// Changes whose turn was given up, with the resulting configuration: the claim shows whether they were committed.
    in_doubt: Vec<(PoolConfig, Reply<()>)>,
}

impl Configuration {
    /// Takes over the stored configuration, and answers the changes that were in doubt.
    fn take_over(&mut self, stored: PoolConfig) {
        for (wanted, reply) in self.in_doubt.drain(..) {
            let is_there = stored == wanted && !planted!(DoubtRefused);
            let _ = reply.send(is_there.then_some(()).ok_or(StorageError::Conflict));
        }
        self.committed = stored;
        self.wanted = self.committed.clone();
        for (config, _) in &self.waiting {
            self.wanted = config.clone().over(&self.wanted);
        }
    }

    /// Keeps changes for the next turn: the turn that had them was refused for another reason.
    fn try_again(&mut self, in_flight: Vec<Reply<()>>, config: Option<PoolConfig>) {
        let Some(config) = config else { return };
        let again = in_flight.into_iter().map(|reply| (config.clone(), reply));
        self.waiting.splice(0..0, again);
    }

    /// Answers changes that were not committed, and undoes them.
    fn refuse(&mut self, in_flight: Vec<Reply<()>>, error: &StorageError) {
        let waiting = self.waiting.drain(..).map(|(_, reply)| reply);
        for reply in in_flight.into_iter().chain(waiting) {
            let _ = reply.send(Err(error.clone()));
        }
        self.wanted = self.committed.clone();
    }
}

struct Live {
    control: Arc<Control>,
    /// The time of the launch.
    since: Duration,
    /// Its key in `deadlines`.
    deadline: Option<Segment>,
    /// `true` if the loop has reported the attempt in its worker's place.
    is_abandoned: bool,
}

impl Live {
    /// Returns `true` if the store has the report, or is to make it.
    fn is_reported(&self) -> bool {
        self.is_abandoned || self.control.is_reported()
    }
}

/// A shutdown of the pool.
struct Draining {
    /// The caller that waits for the last attempt.
    reply: Option<oneshot::Sender<Drained>>,
    /// The outcomes of the attempts that have ended since the shutdown began.
    drained: Drained,
    /// The jobs of these attempts: a turn that fails sees them again.
    counted: HashSet<WorkId>,
}

impl Draining {
    fn answer(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(self.drained);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    run: RunNumber,
    /// The stage to set.
    stage: Stage,
    /// `true` if the abort was sent before: then the slot is freed.
    abandon: bool,
}

impl MainActor {
    pub fn new(
        program: Arc<Program>,
        pool: Arc<PoolShared>,
        spawner: Spawner,
        alarm: Option<Alarm>,
        claimed: Claimed,
    ) -> MainActor {
        let rng = program.shared().seams.rng();
        let generation = claimed.state.generation;
        let mut main = MainActor {
            program,
            pool,
            spawner,
            alarm,
            rng,
            life: Life::Claiming { kicked: false },
            state: InternalState::default(),
            config: Configuration::default(),
            rates: Rates::default(),
            first_generation: None,
            live: HashMap::new(),
            lost: Vec::new(),
            deadlines: BTreeMap::new(),
            tick: None,
            aborts: HashMap::new(),
            draining: None,
            owes_turn: false,
            is_idle: Rc::default(),
        };
        main.first_generation = Some(generation);
        main.take_over(claimed);
        main
    }

    /// Continues from the tables. Rows of `running` without a worker of this loop are lost.
    fn take_over(&mut self, claimed: Claimed) {
        let Claimed { state, running, config } = claimed;
        debug_assert!(
            state.generation > self.state.generation,
            "each generation is later than the last"
        );
        self.pool.set_settings(config.settings());
        self.config.take_over(config);
        self.state = state;
        self.rates.committed(&self.state.report, self.now());
        self.pool.gauge.set_running(self.state.running.len());
        self.accept(Transition::Claimed(RunStatus::Idle { generation: self.state.generation }));
        self.lost.clear();
        self.aborts.clear();
        for row in running {
            let RunningRow { running, ref work } = row;
            let work_id = work.spec.work_id;
            match self.live.get(&work_id).filter(|live| live.control.run == running.run) {
                // The receipt that triggers the signal may have been lost.
                Some(live) if work.canceled => live.control.raise(Stage::Canceled),
                Some(_) => {}
                None if work.pending_completion.is_some() => {}
                // Committed by a turn of this loop whose receipt never came: not launched. Rows from before this loop
                // count as launched, because it cannot know.
                None => {
                    let launched = Some(running.generation) < self.first_generation;
                    self.lost.push(Lost { row, launched, chance: self.rng.f64() });
                }
            }
        }
        let state = &self.state;
        self.live.retain(|work_id, live| {
            state.running.get(work_id).is_some_and(|running| running.run == live.control.run)
        });
    }

    /// Applies a transition of the loop's life and returns the effect.
    fn accept(&mut self, transition: Transition) -> Effect {
        let life = std::mem::replace(&mut self.life, Life::Claiming { kicked: false });
        let (life, effect) = life.accept(transition);
        self.life = life;
        let is_resting = matches!(self.life, Life::Resting(_));
        self.is_idle.set(is_resting && self.state.running.is_empty());
        effect
    }

    /// Returns what is `true` while the loop rests and nothing runs.
    pub fn idleness(&self) -> Rc<Cell<bool>> {
        self.is_idle.clone()
    }

    fn shared(&self) -> &Shared {
        self.program.shared()
    }

    fn slots(&self) -> usize {
        match self.draining.is_some() || self.shared().is_held() {
            true => 0,
            false => self.config.wanted.settings().slots(),
        }
    }

    fn now(&self) -> Segment {
        self.shared().seams.segment()
    }

    /// Returns the first segment that is no earlier than `wait` from now.
    fn after(&self, wait: Duration) -> Segment {
        Segment(0).after(self.shared().seams.now().saturating_add(wait))
    }

    fn send(&self, request: impl Into<Request>) {
        // The send fails if the store is gone; this actor will stop as well.
        let _ = self.program.client().send(request);
    }

    /// Starts a turn by asking for its input, unless one is in progress.
    fn look_again(&mut self) {
        self.look(false);
    }

    fn look(&mut self, probe: bool) {
        if let Effect::Look = self.accept(Transition::Kick) {
            let flight = Flight { probe, ..Flight::default() };
            self.advance(Vec::new(), Vec::new(), flight);
        }
    }

    /// Sends a turn's decisions to the store and asks for the next batch. `flight` says what to do after their commit.
    fn advance(&mut self, mut changes: Vec<Change>, lanes: Vec<LaneStep>, mut flight: Flight) {
        self.owes_turn = false;
        if planted!(LaunchBeforeCommit) {
            self.launch(std::mem::take(&mut flight.launches));
        }
        flight.configures = self.configure(&mut changes);
        let slots = self.slots();
        flight.config = (!flight.configures.is_empty()).then(|| self.config.wanted.clone());
        flight.since = self.now();
        self.accept(Transition::Send(Box::new(flight)));
        let now = self.now();
        let before = self.state.limited_until;
        let demand = demand(&mut self.state, &self.config.wanted.settings(), slots, now);
        let limited_until = self.state.limited_until;
        if limited_until > before {
            metrics::rate_limited(&self.pool);
        }
        self.pool.gauge.set_limited_until(limited_until);
        let advance = Advance {
            pool: self.pool.id,
            turn: self.state.fence(),
            changes,
            lanes,
            demand,
            saturated: self.state.running.len() >= slots || limited_until > now,
        };
        self.send(Command::Advance(advance));
    }

    /// Adds pending changes of the configuration, which the turn has used already.
    fn configure(&mut self, changes: &mut Vec<Change>) -> Vec<Reply<()>> {
        let replies: Vec<_> = self.config.waiting.drain(..).map(|(_, reply)| reply).collect();
        if replies.is_empty() {
            return replies;
        }
        if changes.is_empty() {
            self.state.turn += 1;
            let state = StateRow::from(&self.state);
            changes.push(Change::PutState { pool: self.pool.id, state });
        }
        let (pool, name, config) = (self.pool.id, self.pool.name, self.config.wanted.clone());
        if !planted!(ConfigLost) {
            changes.push(Change::PutGlobals { pool, name, config });
        }
        replies
    }

    /// Does what waited for the commit of a turn.
    fn follow_commit(&mut self, flight: Flight) {
        let Flight { mut launches, signals, recovered, configures, config: committed, .. } = flight;
        if recovered > 0 {
            telemetry::recovered(&self.pool, recovered);
        }
        if let Some(committed) = committed {
            self.pool.set_settings(committed.settings());
            self.config.committed = committed;
        }
        for reply in configures {
            let _ = reply.send(Ok(()));
        }
        self.rates.committed(&self.state.report, self.now());
        self.withhold(&mut launches);
        self.launch(launches);
        for work_id in signals {
            if let Some(live) = self.live.get(&work_id) {
                live.control.raise(Stage::Canceled);
            }
            self.shared().board.end_canceling(work_id);
        }
    }

    /// Changes launches of jobs that were replaced before their start was committed. One that was postponed instead was not
    /// started.
    fn replace(&mut self, launches: &mut Vec<Launch>, replaced: Vec<(WorkId, Option<Spec>)>) {
        for (work_id, spec) in replaced {
            let Some(place) = launches.iter().position(|launch| launch.spec.work_id == work_id)
            else {
                continue;
            };
            match spec {
                Some(spec) => launches[place].spec = spec,
                None => {
                    launches.remove(place);
                    self.aborts.remove(&work_id);
                    self.state.running.remove(&work_id);
                    // The batch that comes along was read for one slot less.
                    self.accept(Transition::Kick);
                    self.pool.gauge.set_running(self.state.running.len());
                }
            }
        }
    }

    /// Returns jobs to the queue that must no longer start: they were canceled, or the runtime shuts down.
    fn withhold(&mut self, launches: &mut Vec<Launch>) {
        let (stopping, board) = (self.draining.is_some(), &self.shared().board);
        let withheld = launches
            .extract_if(.., |launch| stopping || board.is_canceling(launch.spec.work_id))
            .map(|launch| AttemptReport {
                work_id: launch.spec.work_id,
                run: launch.run,
                result: RunResult::Returned,
            });
        let reports: Vec<_> = withheld.collect();
        for report in &reports {
            self.aborts.remove(&report.work_id);
        }
        if !reports.is_empty() {
            self.send(Command::AttemptsFinished(reports));
        }
    }

    /// Launches the starts of a turn: actions on workers, everything else in the store.
    fn launch(&mut self, launches: Vec<Launch>) {
        if launches.is_empty() {
            return;
        }
        let (now, since) = (self.now(), self.shared().seams.now());
        let max_result_bytes = self.config.wanted.settings().max_payload_bytes;
        metrics::launched(&self.pool, &launches, now);
        self.rates.launched(&launches, now);
        let mut attempts = Vec::with_capacity(launches.len());
        let mut in_store = Vec::new();
        for launch in launches {
            let work_id = launch.spec.work_id;
            let (run, attempt) = (launch.run, launch.attempt);
            self.shared().board.set_running(work_id, run, attempt - 1, now);
            telemetry::started(&self.pool, &launch, now);
            let (timeout, kind) = (launch.spec.timeout(), launch.spec.kind);
            let control =
                Arc::new(Control::new(launch, max_result_bytes, self.program.lent.clone()));
            self.live.insert(
                work_id,
                Live { control: control.clone(), since, deadline: None, is_abandoned: false },
            );
            if let Some(timeout) = timeout
                && !planted!(TimeoutIgnored)
            {
                let deadline = Deadline { run, stage: Stage::AbortTimeout, abandon: false };
                self.set_deadline(work_id, self.after(timeout), deadline);
            }
            if !self.aborts.is_empty()
                && let Some(after) = self.aborts.remove(&work_id)
            {
                let deadline = Deadline { run, stage: Stage::AbortCanceled, abandon: false };
                self.set_deadline(work_id, self.after(after), deadline);
            }
            match kind {
                FunctionKind::Action => attempts.push(Attempt::new(control)),
                FunctionKind::Mutation | FunctionKind::Query | FunctionKind::OnComplete => {
                    // From here on the store must report.
                    control.set_reported();
                    in_store.push(RunInStore { spec: control.spec.clone(), run });
                }
            }
        }
        if !in_store.is_empty() {
            self.send(Command::RunInStore(in_store));
        }
        if !attempts.is_empty() {
            self.spawner.start(attempts);
        }
    }

    /// Decides one turn on a batch.
    fn turn(&mut self, batch: Batch, ctx: &mut Context<Self>) {
        let (mut ended, mut durations) = ((0, Duration::ZERO), metrics::Ended::new());
        let now = self.shared().seams.now();
        for row in &batch.completions {
            let work_id = row.work.spec.work_id;
            if let Some(draining) = &mut self.draining
                && draining.counted.insert(work_id)
            {
                draining.drained.count(&row.result);
            }
            if !self.aborts.is_empty() {
                self.aborts.remove(&work_id);
            }
            let Some(Live { since, deadline, .. }) = self.live.remove(&work_id) else { continue };
            let took = now.saturating_sub(since);
            ended = (ended.0 + 1, ended.1 + took);
            durations.add(&self.pool, &row.work.spec, &row.result, took);
            if let Some(segment) = deadline {
                self.deadlines.remove(&(segment, work_id));
            }
        }
        self.pool.gauge.ended(ended.0, ended.1);
        let (next_due, read_at) = (batch.next_due, batch.read_at);
        let is_limited = !batch.starts.is_empty();
        let slots = self.slots();
        let lost = std::mem::take(&mut self.lost);
        let recovered = lost.len();
        let catalog = &self.program.shared().catalog;
        let can_run = |spec: &_| catalog.can_run(spec);
        let settings = self.config.wanted.settings();
        let rate = settings.rate;
        let key_rule = settings.per_key;
        let cx = TurnCx { max_parallelism: slots, rate, key_rule, can_run: &can_run, lost };
        let before = std::mem::take(&mut self.state);
        let Step { state, changes, lanes, launches, signals, report } =
            step(before, batch, self.pool.id, cx);
        self.state = state;
        self.pool.gauge.set_running(self.state.running.len());
        metrics::turn(&self.pool, slots, self.state.running.len(), next_due, read_at);
        if let Some(report) = report {
            telemetry::report(&self.pool, &report, self.state.running.len());
        }
        // A job that the rate admits later must be out of the batch before the loop rests.
        let is_left = is_limited && self.state.limited_until > Segment::default();
        if !changes.is_empty()
            || !self.config.waiting.is_empty()
            || self.life.is_kicked()
            || is_left
        {
            let flight = Flight { launches, signals, recovered, ..Flight::default() };
            self.advance(changes, lanes, flight);
        } else {
            self.accept(Transition::Rest(rest(&self.state, next_due, slots)));
        }
        self.set_tick(ctx);
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if self.state.running.is_empty()
            && self.life.in_flight().is_none()
            && let Some(draining) = &mut self.draining
        {
            draining.answer();
        }
    }

    /// Sets one timer for whatever comes first: the next due job or the next deadline.
    fn set_tick(&mut self, ctx: &mut Context<Self>) {
        let due = match self.life.status() {
            RunStatus::Scheduled { segment, saturated: false, .. } if !planted!(TimerLost) => {
                Some(segment)
            }
            _ => None,
        };
        let deadline = self.deadlines.keys().next().map(|(segment, _)| *segment);
        let Some(next) = due.into_iter().chain(deadline).min() else { return };
        if let Some((set, handle)) = self.tick {
            // A timer that fires too early finds nothing due and is set again.
            if set <= next {
                return;
            }
            ctx.cancel_future(handle);
        }
        let wait = Duration::from_millis(next.0).saturating_sub(self.shared().seams.now());
        if let Some(alarm) = self.alarm.as_ref().filter(|_| due == Some(next)) {
            alarm.ring_after(wait, self.pool.id, ctx.address().recipient());
        }
        // One that has gone off early is set again, for the whole rest.
        let wait = if wait > 2 * TIMER_SLACK { wait - TIMER_SLACK } else { wait };
        let handle = ctx.run_later(wait, |main, ctx| {
            main.tick = None;
            main.on_tick(ctx);
        });
        self.tick = Some((next, handle));
    }

    fn on_tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        while let Some(((segment, work_id), deadline)) = self.deadlines.first_key_value() {
            if *segment > now {
                break;
            }
            let (work_id, deadline) = (*work_id, *deadline);
            self.deadlines.pop_first();
            self.end(work_id, deadline);
        }
        if let RunStatus::Scheduled { segment, saturated: false, .. } = self.life.status()
            && segment <= now
        {
            telemetry::kicked(&self.pool, KickSource::Timer);
            self.look_again();
        }
        self.set_tick(ctx);
    }

    /// Sets the deadline of an attempt. It has only one: the earlier one counts.
    fn set_deadline(&mut self, work_id: WorkId, segment: Segment, deadline: Deadline) {
        let Some(live) = self.live.get_mut(&work_id) else { return };
        if let Some(set) = live.deadline {
            if set <= segment {
                return;
            }
            self.deadlines.remove(&(set, work_id));
        }
        live.deadline = Some(segment);
        self.deadlines.insert((segment, work_id), deadline);
    }

    /// Tells an attempt to end; if it was told before and still runs, frees its slot.
    fn end(&mut self, work_id: WorkId, deadline: Deadline) {
        let Some(live) = self.live.get_mut(&work_id) else { return };
        if live.control.run != deadline.run {
            return;
        }
        live.deadline = None;
        if live.control.is_reported() {
            // It has ended, or runs in the store.
            return;
        }
        let control = live.control.clone();
        control.raise(deadline.stage);
        if !deadline.abandon {
            let last = Deadline { abandon: true, ..deadline };
            self.set_deadline(work_id, self.after(ABANDON_AFTER), last);
            return;
        }
        live.is_abandoned = true;
        telemetry::abandoned(&self.pool, &control);
        let result = match deadline.stage {
            Stage::AbortCanceled => RunResult::Canceled,
            Stage::AbortReturn => RunResult::Returned,
            _ => RunResult::Failed(timed_out(&control)),
        };
        self.send(Command::AttemptsFinished(vec![AttemptReport {
            work_id,
            run: deadline.run,
            result,
        }]));
    }

    /// Begins a new generation from the tables.
    fn claim_soon(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        // A turn that is given up is committed before the claim or never: after the claim it is refused.
        if let Effect::Landed(flight) = self.accept(Transition::Fail)
            && let Flight { configures, config: Some(config), .. } = *flight
        {
            let in_doubt = configures.into_iter().map(|reply| (config.clone(), reply));
            self.config.in_doubt.extend(in_doubt);
        }
        ctx.run_later(wait, |main, ctx| main.claim(ctx));
    }

    fn claim(&mut self, ctx: &mut Context<Self>) {
        let (reply, claimed) = oneshot::channel();
        self.send(PoolRequest::Claim { pool: self.pool.id, reply });
        let claimed = claimed.into_actor(self).map(|claimed, main, ctx| match claimed {
            Ok(Ok(claimed)) => {
                main.take_over(claimed);
                main.look_again();
            }
            Ok(Err(error)) => main.claim_failed(&error, ctx),
            // The store is gone; this actor will stop as well.
            Err(_) => ctx.stop(),
        });
        ctx.spawn(claimed);
    }

    fn claim_failed(&mut self, error: &StorageError, ctx: &mut Context<Self>) {
        telemetry::claim_failed(&self.pool, error);
        let never_known = match error {
            StorageError::Poisoned(_) => std::mem::take(&mut self.config.in_doubt),
            _ => Vec::new(),
        };
        let never_known = never_known.into_iter().map(|(_, reply)| reply).collect();
        self.config.refuse(never_known, error);
        // A failed store takes nothing more, and one that fails for a while has all the reports: nobody waits for it.
        let is_over = matches!(error, StorageError::Poisoned(_));
        if (is_over || self.live.values().all(Live::is_reported))
            && let Some(draining) = &mut self.draining
        {
            draining.answer();
        }
        self.claim_soon(Duration::from_secs(1), ctx);
    }

    /// Checks that the loop makes progress: detects a turn without an answer, and lost wake-ups.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        if let Some(flight) = self.life.in_flight() {
            let stalled = now.since(flight.since);
            if stalled >= TURN_TIMEOUT {
                telemetry::stalled(&self.pool, stalled);
                self.claim_soon(Duration::ZERO, ctx);
            }
            return;
        }
        if self.life.is_claiming() {
            return;
        }
        // A look costs one message to the store, and finds what a lost wake-up has left behind.
        let has_work = self.pool.pending() > 0;
        let report_due = !self.state.running.is_empty();
        if has_work || report_due {
            telemetry::kicked(&self.pool, KickSource::Watchdog);
            self.look(true);
        }
    }
}

impl MainActor {
    /// Logs a lost wake-up: the watchdog's look should find no old rows.
    fn judge_probe(&self, batch: &Batch) {
        // A start may have waited for a slot that a completion of this batch has freed.
        let starts = batch.starts.first().filter(|_| batch.completions.is_empty());
        let starts = starts.map(|row| row.key.segment);
        let completions = batch.completions.first().map(|row| row.key.segment);
        let Some(oldest) = starts.into_iter().chain(completions).min() else { return };
        let waited = batch.read_at.since(oldest);
        if waited >= WATCHDOG_INTERVAL / 2 {
            telemetry::wakeup_lost(&self.pool, waited);
        }
    }
}

impl Actor for MainActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.look_again();
    }
}

impl Handler<Ring> for MainActor {
    type Result = ();

    fn handle(&mut self, _: Ring, ctx: &mut Self::Context) {
        let now = self.now();
        if let Some((_, handle)) = self.tick.take_if(|(set, _)| *set <= now) {
            ctx.cancel_future(handle);
        }
        self.on_tick(ctx);
    }
}

impl Handler<Watch> for MainActor {
    type Result = ();

    fn handle(&mut self, _: Watch, ctx: &mut Self::Context) {
        self.watch(ctx);
    }
}

impl Handler<BatchReady> for MainActor {
    type Result = ();

    fn handle(&mut self, ready: BatchReady, ctx: &mut Self::Context) {
        let BatchReady { turn, kick, is_early, batch, replaced } = ready;
        if is_early && batch.is_ok() {
            // The group that waits for the turn need not wait any longer when this handler ends without one.
            self.owes_turn = true;
        }
        if is_early && batch.is_err() && self.life.in_flight().is_some() {
            // The receipt of the turn in flight may still come, or never: the claim tells.
            if turn == self.state.fence() {
                self.claim_soon(CLAIM_BACKOFF, ctx);
            }
            return;
        }
        self.on_batch(turn, kick, batch, replaced, ctx);
        if std::mem::take(&mut self.owes_turn) {
            self.send(Request::Pass(self.pool.id));
        }
    }
}

impl MainActor {
    fn on_batch(
        &mut self,
        turn: Turn,
        kick: Option<KickSource>,
        batch: Result<Batch, AdvanceError>,
        replaced: Vec<(WorkId, Option<Spec>)>,
        ctx: &mut Context<Self>,
    ) {
        let iteration = metrics::Stopwatch::start();
        if let Err(AdvanceError::Fenced) = batch {
            metrics::fenced(&self.pool);
        }
        if (turn != self.state.fence() || self.life.is_claiming()) && !planted!(BatchUnfenced) {
            telemetry::stale_batch(&self.pool, turn);
            return;
        }
        if let Some(source) = kick {
            telemetry::kicked(&self.pool, source);
        }
        let mut flight = match self.accept(Transition::Answer) {
            Effect::Landed(flight) => *flight,
            Effect::Nothing | Effect::Look => Flight::default(),
        };
        self.replace(&mut flight.launches, replaced);
        match batch {
            Ok(batch) => {
                if flight.probe {
                    self.judge_probe(&batch);
                }
                self.follow_commit(flight);
                self.turn(batch, ctx);
                iteration.iteration(&self.pool);
            }
            Err(error) => {
                telemetry::turn_failed(&self.pool, &error);
                match error {
                    AdvanceError::Fenced | AdvanceError::Storage(StorageError::Conflict) => {
                        self.config.try_again(flight.configures, flight.config);
                    }
                    AdvanceError::Storage(error) => self.config.refuse(flight.configures, &error),
                    AdvanceError::Unread(_) => {
                        self.follow_commit(flight);
                        self.set_tick(ctx);
                    }
                }
                self.claim_soon(CLAIM_BACKOFF, ctx);
            }
        }
    }
}

impl Handler<LoopMessage> for MainActor {
    type Result = ();

    fn handle(&mut self, message: LoopMessage, ctx: &mut Self::Context) {
        match message {
            LoopMessage::Configure { config, reply } => {
                // Effective at once, so that nothing starts against it after it is acknowledged.
                let wanted = config.clone().over(&self.config.wanted);
                let before = std::mem::replace(&mut self.config.wanted, wanted).settings().rate;
                let rate = self.config.wanted.settings().rate;
                self.state.tat = limit::convert(before, rate, self.state.tat, self.now());
                self.state.limited_until = Segment::default();
                self.config.waiting.push((config, reply));
                telemetry::kicked(&self.pool, KickSource::Configure);
                self.look_again();
            }
            LoopMessage::Abort { work_id, after } => self.abort(work_id, after, ctx),
            LoopMessage::Inspect(reply) => {
                let _ = reply.send(self.inspect());
            }
            LoopMessage::Drain(reply) => {
                self.draining = Some(Draining {
                    reply: Some(reply),
                    drained: Drained::default(),
                    counted: HashSet::new(),
                });
                self.look_again();
            }
            LoopMessage::ReturnRunning { notice } => self.return_running(notice, ctx),
            LoopMessage::Stop => {
                // After a shutdown none are left. Without one they end here, even if their thread continues.
                for (_, live) in self.in_order() {
                    live.control.raise(Stage::AbortReturn);
                }
                ctx.stop();
            }
        }
    }
}

impl MainActor {
    /// Drops the attempt of a canceled job if it has not ended after this time.
    fn abort(&mut self, work_id: WorkId, after: Duration, ctx: &mut Context<Self>) {
        if planted!(AbortIgnored) {
            return;
        }
        let Some(live) = self.live.get(&work_id) else {
            if self.state.running.contains_key(&work_id) {
                // The start is decided but not launched: its commit is in flight.
                self.aborts.insert(work_id, after);
            }
            return;
        };
        let run = live.control.run;
        let deadline = Deadline { run, stage: Stage::AbortCanceled, abandon: false };
        self.set_deadline(work_id, self.after(after), deadline);
        self.set_tick(ctx);
    }

    fn inspect(&mut self) -> Inspection {
        let running = |(work_id, live): (WorkId, &Live)| {
            let control = &live.control;
            Some(RunningAttempt {
                work_id,
                function: control.spec.function,
                attempt: control.attempt,
                started: self.state.running.get(&work_id)?.started,
            })
        };
        let mut running: Vec<_> = self.in_order().into_iter().filter_map(running).collect();
        running.sort_by_key(|attempt| (attempt.started, attempt.work_id));
        let now = self.now();
        Inspection {
            slots: self.slots(),
            report: self.state.report,
            recent: self.rates.recent(now),
            running,
        }
    }

    /// Tells running attempts to end within the notice.
    fn return_running(&mut self, notice: Duration, ctx: &mut Context<Self>) {
        let running: Vec<_> =
            self.in_order().into_iter().map(|(id, live)| (id, live.control.clone())).collect();
        for (work_id, control) in running {
            control.raise(Stage::ShuttingDown);
            let run = control.run;
            let deadline = Deadline { run, stage: Stage::AbortReturn, abandon: false };
            self.set_deadline(work_id, self.after(notice), deadline);
        }
        self.set_tick(ctx);
    }

    /// Returns the running attempts, in an order that a simulation can repeat.
    fn in_order(&self) -> Vec<(WorkId, &Live)> {
        let mut running: Vec<_> =
            self.live.iter().map(|(work_id, live)| (*work_id, live)).collect();
        running.sort_unstable_by_key(|(work_id, _)| *work_id);
        running
    }
}
