//! The MainActor: one pool's loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hashbrown::HashMap;

use super::hosts::Spawner;
use super::messages::{
    Abort, Configure, Drain, Drained, HandBack, Inspect, Inspection, RunningAttempt, Stop,
};
use super::worker::{Attempt, timed_out};
use crate::committer::{Advance, AdvanceError, BatchReady, Request};
use crate::config::PoolConfig;
use crate::context::{Control, Stage};
use crate::engine::arrivals::AttemptReport;
use crate::engine::run_status::{KickSource, rest};
use crate::engine::{Launch, Lost, Step, TurnCx, demand, step};
use crate::error::PoolError;
use crate::figures::Figures;
use crate::metrics;
use crate::model::{
    Batch, Change, Claimed, InternalState, RunNumber, RunResult, RunStatus, RunningRow, Segment,
    StateRow, WorkId,
};
use crate::shared::{PoolShared, Shared};
use crate::storage::StorageError;
use crate::sync::oneshot;
use crate::telemetry;

/// How often a loop looks whether it is making progress.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(5);

/// A turn that the store has not answered in this time is given up, and the pool claimed anew.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an aborted attempt has to report before its slot is taken back without it.
const ABANDON_AFTER: Duration = Duration::from_secs(2);

/// The wait before a loop claims its pool anew after a failed turn.
const CLAIM_BACKOFF: Duration = Duration::from_millis(50);

/// Owns a pool's `internal_state` and `run_status`.
///
/// Promises: one turn in flight; a launch follows its commit; what runs never exceeds the limit that was in force
/// when it started. It decides nothing itself (that is the engine's), writes nothing itself (that is the store's), and
/// never awaits.
pub(super) struct MainActor {
    shared: Arc<Shared>,
    pool: Arc<PoolShared>,
    /// What turns are decided by; ahead of `committed` while a change is on its way.
    config: PoolConfig,
    committed: PoolConfig,
    spawner: Spawner,
    rng: fastrand::Rng,

    state: InternalState,
    /// What was done lately. Written after commits and launches, copied for those who ask.
    figures: Figures,
    /// The first reign of this loop: what a later one started, it has launched or knows that it has not.
    first_generation: Option<crate::model::Generation>,
    status: RunStatus,
    /// What follows the commit that is in flight.
    flight: Option<Flight>,
    /// Attempts that were launched here and whose completion no turn has handled yet.
    live: HashMap<WorkId, Live>,
    /// Rows of `running` without a worker, for the next turn.
    lost: Vec<Lost>,
    /// Changes of the configuration that the next turn commits; turns are decided by them already.
    configures: Vec<Configure>,
    /// Changes of the configuration whose turn was given up: the claim tells whether they were committed.
    in_doubt: Vec<(oneshot::Sender<Result<(), PoolError>>, PoolConfig)>,
    /// A kick that came while a turn was in flight.
    kicked: bool,
    /// The next look is the watchdog's.
    probing: bool,
    /// Set from a failed turn until the pool is claimed anew.
    claiming: bool,

    /// When which attempts are to be told to end, and how.
    deadlines: BTreeMap<(Segment, WorkId), Deadline>,
    tick: Option<(Segment, SpawnHandle)>,
    /// Aborts of attempts that wait for the commit of their start.
    aborts: HashMap<WorkId, Duration>,
    /// Who waits for the last attempt, and what became of those that ended since then.
    draining: Option<oneshot::Sender<Drained>>,
    drained: Drained,
    /// Set by shutdown: nothing is started any more.
    stopping: bool,
}

struct Live {
    control: Arc<Control>,
    /// When it was launched.
    since: Duration,
    /// Its row in `deadlines`.
    deadline: Option<Segment>,
}

#[derive(Default)]
struct Flight {
    since: Segment,
    /// Whether the watchdog sent it.
    probe: bool,
    launches: Vec<Launch>,
    signals: Vec<WorkId>,
    /// How many rows of `running` without a worker it takes back.
    recovered: usize,
    configures: Vec<oneshot::Sender<Result<(), PoolError>>>,
    /// The configuration that is committed with it, if it changes.
    config: Option<PoolConfig>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    run: RunNumber,
    /// What is due.
    stage: Stage,
    /// Whether the abort was sent before: then the slot is taken back.
    abandon: bool,
}

impl MainActor {
    pub fn new(
        shared: Arc<Shared>,
        pool: Arc<PoolShared>,
        spawner: Spawner,
        claimed: Claimed,
    ) -> MainActor {
        let rng = shared.seams.rng();
        let generation = claimed.state.generation;
        let mut main = MainActor {
            shared,
            pool,
            committed: PoolConfig::default(),
            config: PoolConfig::default(),
            spawner,
            rng,
            state: InternalState::default(),
            figures: Figures::default(),
            first_generation: None,
            status: RunStatus::Idle { generation },
            flight: None,
            live: HashMap::new(),
            lost: Vec::new(),
            configures: Vec::new(),
            in_doubt: Vec::new(),
            kicked: false,
            probing: false,
            claiming: false,
            deadlines: BTreeMap::new(),
            tick: None,
            aborts: HashMap::new(),
            draining: None,
            drained: Drained::default(),
            stopping: false,
        };
        main.take_over(claimed);
        main
    }

    /// Goes on from the tables. Rows of `running` that no worker of ours stands behind are lost.
    fn take_over(&mut self, claimed: Claimed) {
        let Claimed { state, running, config } = claimed;
        debug_assert!(
            state.generation > self.state.generation,
            "each reign is later than the last"
        );
        self.first_generation.get_or_insert(state.generation);
        self.pool.set_settings(config.settings());
        for (reply, wanted) in self.in_doubt.drain(..) {
            let is_there = config == wanted && !planted!(DoubtRefused);
            let _ = reply.send(is_there.then_some(()).ok_or(StorageError::Conflict.into()));
        }
        self.committed = config.clone();
        self.config = config;
        for Configure { config, .. } in &self.configures {
            self.config = config.clone().over(&self.config);
        }
        self.state = state;
        self.figures.committed(&self.state.report, self.now());
        self.pool.gauge.set_running(self.state.running.len());
        self.claiming = false;
        self.lost.clear();
        self.aborts.clear();
        for row in running {
            let RunningRow { running, ref work } = row;
            let work_id = work.spec.work_id;
            match self.live.get(&work_id).filter(|live| live.control.run == running.run) {
                // The receipt that was to be followed by the signal may have been lost.
                Some(live) if work.canceled => live.control.raise(Stage::Canceled),
                Some(_) => {}
                None if work.pending_completion.is_some() => {}
                // Committed by a turn of this loop whose receipt never came: not launched. Rows from before this loop
                // were launched, for all it knows.
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

    fn slots(&self) -> usize {
        if self.stopping { 0 } else { self.config.settings().slots() }
    }

    fn now(&self) -> Segment {
        self.shared.seams.segment()
    }

    /// The first segment that is no earlier than `wait` from now.
    fn after(&self, wait: Duration) -> Segment {
        Segment(0).after(self.shared.seams.now().saturating_add(wait))
    }

    fn send(&self, request: Request) {
        if let Some(store) = self.shared.store() {
            store.send(request);
        }
    }

    /// Starts a turn by asking for its input, unless one is under way.
    fn look_again(&mut self) {
        if self.flight.is_some() || self.claiming {
            self.kicked = true;
            return;
        }
        self.advance(Vec::new(), Flight::default());
    }

    /// Sends a turn's decisions to the store and asks for the next batch. `flight` says what follows their commit.
    fn advance(&mut self, mut changes: Vec<Change>, mut flight: Flight) {
        if planted!(LaunchBeforeCommit) {
            self.launch(std::mem::take(&mut flight.launches));
        }
        flight.configures = self.configure(&mut changes);
        let slots = self.slots();
        self.kicked = false;
        flight.probe = std::mem::take(&mut self.probing);
        self.status = RunStatus::Running;
        flight.config = (!flight.configures.is_empty()).then(|| self.config.clone());
        flight.since = self.now();
        self.flight = Some(flight);
        let advance = Advance {
            pool: self.pool.id,
            turn: self.state.fence(),
            changes,
            demand: demand(&self.state, slots),
            saturated: self.state.running.len() >= slots,
        };
        self.send(Request::Advance(advance));
    }

    /// Adds the changes of the configuration that came meanwhile; the turn was decided by them already.
    fn configure(
        &mut self,
        changes: &mut Vec<Change>,
    ) -> Vec<oneshot::Sender<Result<(), PoolError>>> {
        let replies: Vec<_> = self.configures.drain(..).map(|configure| configure.reply).collect();
        if replies.is_empty() {
            return replies;
        }
        if changes.is_empty() {
            self.state.turn += 1;
            let state = StateRow::from(&self.state);
            changes.push(Change::PutState { pool: self.pool.id, state });
        }
        let (pool, name, config) = (self.pool.id, self.pool.name, self.config.clone());
        if !planted!(ConfigLost) {
            changes.push(Change::PutGlobals { pool, name, config });
        }
        replies
    }

    /// The receipt of a commit: what waited for it happens now.
    fn follow_commit(&mut self, flight: Flight) {
        let Flight { mut launches, signals, recovered, configures, config: committed, .. } = flight;
        if recovered > 0 {
            telemetry::recovered(&self.pool, recovered);
        }
        if let Some(committed) = committed {
            self.pool.set_settings(committed.settings());
            self.committed = committed;
        }
        for reply in configures {
            let _ = reply.send(Ok(()));
        }
        self.figures.committed(&self.state.report, self.now());
        self.withhold(&mut launches);
        self.launch(launches);
        for work_id in signals {
            if let Some(live) = self.live.get(&work_id) {
                live.control.raise(Stage::Canceled);
            }
            self.shared.board.end_canceling(work_id);
        }
    }

    /// Hands back what was decided to start but must not any more: its work was canceled, or the runtime shuts down.
    fn withhold(&mut self, launches: &mut Vec<Launch>) {
        let (stopping, board) = (self.stopping, &self.shared.board);
        let withheld = launches
            .extract_if(.., |launch| stopping || board.is_canceling(launch.spec.work_id))
            .map(|launch| AttemptReport {
                work_id: launch.spec.work_id,
                run: launch.run,
                result: RunResult::HandedBack,
            });
        let reports: Vec<_> = withheld.collect();
        if !reports.is_empty() {
            self.send(Request::AttemptsFinished(reports));
        }
    }

    fn launch(&mut self, launches: Vec<Launch>) {
        if launches.is_empty() {
            return;
        }
        let (now, since) = (self.now(), self.shared.seams.now());
        let max_result_bytes = self.config.settings().max_payload_bytes;
        let log_level = self.pool.settings().log_level;
        metrics::launched(&self.pool, &launches, now);
        self.figures.launched(&launches, now);
        let mut attempts = Vec::with_capacity(launches.len());
        for launch in launches {
            let work_id = launch.spec.work_id;
            let (run, attempt) = (launch.run, launch.attempt);
            self.shared.board.set_running(work_id, run, attempt - 1, now);
            telemetry::started(&self.pool, log_level, &launch, now);
            let timeout = launch.spec.timeout();
            let control = Arc::new(Control::new(launch, max_result_bytes, self.shared.clone()));
            self.live.insert(work_id, Live { control: control.clone(), since, deadline: None });
            if let Some(timeout) = timeout
                && !planted!(TimeoutIgnored)
            {
                let deadline = Deadline { run, stage: Stage::AbortTimeout, abandon: false };
                self.set_deadline(work_id, self.after(timeout), deadline);
            }
            if let Some(after) = self.aborts.remove(&work_id) {
                let deadline = Deadline { run, stage: Stage::AbortCanceled, abandon: false };
                self.set_deadline(work_id, self.after(after), deadline);
            }
            attempts.push(Attempt::new(control));
        }
        self.spawner.start(attempts);
    }

    /// Takes one turn on a batch.
    fn turn(&mut self, batch: Batch, ctx: &mut Context<Self>) {
        let (mut ended, mut durations) = ((0, Duration::ZERO), metrics::Ended::new());
        let now = self.shared.seams.now();
        for row in &batch.completions {
            self.drained.count(&row.result);
            let work_id = row.work.spec.work_id;
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
        let slots = self.slots();
        let registry = &self.shared.registry;
        let cx = TurnCx {
            max_parallelism: slots,
            can_run: &|spec| registry.can_run(spec),
            lost: std::mem::take(&mut self.lost),
        };
        let recovered = cx.lost.len();
        let before = std::mem::take(&mut self.state);
        let Step { state, changes, launches, signals, report } =
            step(before, batch, self.pool.id, cx);
        self.state = state;
        self.pool.gauge.set_running(self.state.running.len());
        metrics::turn(&self.pool, slots, self.state.running.len(), next_due, read_at);
        if let Some(report) = report {
            telemetry::report(&self.pool, &report, self.state.running.len());
        }
        if !changes.is_empty() || !self.configures.is_empty() || self.kicked {
            self.advance(changes, Flight { launches, signals, recovered, ..Flight::default() });
        } else {
            self.status = rest(&self.state, next_due, slots);
        }
        self.set_tick(ctx);
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if self.state.running.is_empty()
            && self.flight.is_none()
            && let Some(reply) = self.draining.take()
        {
            let _ = reply.send(self.drained);
        }
    }

    /// One timer, for whatever comes first: a work that is due or an attempt whose time is up.
    fn set_tick(&mut self, ctx: &mut Context<Self>) {
        let due = match self.status {
            RunStatus::Scheduled { segment, saturated: false, .. } if !planted!(TimerLost) => {
                Some(segment)
            }
            _ => None,
        };
        let deadline = self.deadlines.keys().next().map(|(segment, _)| *segment);
        let Some(next) = due.into_iter().chain(deadline).min() else { return };
        if let Some((set, handle)) = self.tick {
            // A timer that comes too early finds nothing due and is set again.
            if set <= next {
                return;
            }
            ctx.cancel_future(handle);
        }
        let wait = Duration::from_millis(next.0).saturating_sub(self.shared.seams.now());
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
        if let RunStatus::Scheduled { segment, saturated: false, .. } = self.status
            && segment <= now
        {
            telemetry::kicked(&self.pool, KickSource::Timer);
            self.look_again();
        }
        self.set_tick(ctx);
    }

    /// An attempt has one deadline: the earlier one counts.
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

    /// Tells an attempt to end; one that was told before and is still there loses its slot.
    fn end(&mut self, work_id: WorkId, deadline: Deadline) {
        let Some(live) = self.live.get_mut(&work_id) else { return };
        if live.control.run != deadline.run {
            return;
        }
        live.deadline = None;
        if live.control.is_reported() {
            // It has ended, or is the store's affair now.
            return;
        }
        let control = live.control.clone();
        control.raise(deadline.stage);
        if !deadline.abandon {
            let last = Deadline { abandon: true, ..deadline };
            self.set_deadline(work_id, self.after(ABANDON_AFTER), last);
            return;
        }
        telemetry::abandoned(&self.pool, &control);
        let host = control.host();
        let result = match deadline.stage {
            Stage::AbortCanceled => RunResult::Canceled,
            Stage::AbortHandBack => RunResult::HandedBack,
            _ => RunResult::Failed(timed_out(&control)),
        };
        self.send(Request::AttemptsFinished(vec![AttemptReport {
            work_id,
            run: deadline.run,
            result,
        }]));
        self.spawner.replace_stuck(host);
    }

    /// Answers changes of the configuration that were not committed, and takes them back.
    fn refuse_configures(
        &mut self,
        in_flight: Vec<oneshot::Sender<Result<(), PoolError>>>,
        error: &StorageError,
    ) {
        let waiting = self.configures.drain(..).map(|configure| configure.reply);
        for reply in in_flight.into_iter().chain(waiting) {
            let _ = reply.send(Err(PoolError::Storage(error.clone())));
        }
        self.config = self.committed.clone();
    }

    /// Begins a new reign, from what the tables say.
    fn claim_soon(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        self.claiming = true;
        // Until then no timer has anything to look for: one that is due would come again and again.
        self.status = RunStatus::Running;
        // A turn that is given up is committed before the claim or never: behind that it is refused.
        if let Some(Flight { configures, config: Some(config), .. }) = self.flight.take() {
            self.in_doubt.extend(configures.into_iter().map(|reply| (reply, config.clone())));
        }
        ctx.run_later(wait, |main, ctx| main.claim(ctx));
    }

    fn claim(&mut self, ctx: &mut Context<Self>) {
        let (reply, claimed) = oneshot::channel();
        self.send(Request::Claim { pool: self.pool.id, reply });
        let claimed = claimed.into_actor(self).map(|claimed, main, ctx| match claimed {
            Ok(Ok(claimed)) => {
                main.take_over(claimed);
                main.look_again();
            }
            Ok(Err(error)) => {
                telemetry::claim_failed(&main.pool, &error);
                let never_known = match error {
                    StorageError::Poisoned(_) => std::mem::take(&mut main.in_doubt),
                    _ => Vec::new(),
                };
                let never_known = never_known.into_iter().map(|(reply, _)| reply).collect();
                main.refuse_configures(never_known, &error);
                // With a storage that stays broken there is nothing left to wait for.
                if let Some(reply) = main.draining.take() {
                    let _ = reply.send(main.drained);
                }
                main.claim_soon(Duration::from_secs(1), ctx);
            }
            // The store is gone, and so will this actor be.
            Err(_) => ctx.stop(),
        });
        ctx.spawn(claimed);
    }

    /// Looks whether the loop moves: a turn that is never answered, or a wake-up that never came.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        if let Some(flight) = &self.flight {
            let stalled = now.since(flight.since);
            if stalled >= TURN_TIMEOUT {
                telemetry::stalled(&self.pool, stalled);
                self.claim_soon(Duration::ZERO, ctx);
            }
            return;
        }
        if self.claiming {
            return;
        }
        // A look costs one message to the store, and finds what a lost wake-up has left.
        let has_work = self.pool.pending() > 0;
        let report_due = !self.state.running.is_empty();
        if has_work || report_due {
            self.probing = true;
            telemetry::kicked(&self.pool, KickSource::Watchdog);
            self.look_again();
        }
    }
}

impl MainActor {
    /// What the watchdog's look finds should have been found without it, if it is old.
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

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look_again();
        ctx.run_interval(WATCHDOG_INTERVAL, Self::watch);
    }
}

impl Handler<BatchReady> for MainActor {
    type Result = ();

    fn handle(&mut self, ready: BatchReady, ctx: &mut Self::Context) {
        let BatchReady { turn, kick, batch } = ready;
        let iteration = metrics::Stopwatch::start();
        if let Err(AdvanceError::Fenced) = batch {
            metrics::fenced(&self.pool);
        }
        if (turn != self.state.fence() || self.claiming) && !planted!(BatchUnfenced) {
            telemetry::stale_batch(&self.pool, turn);
            return;
        }
        if let Some(source) = kick {
            telemetry::kicked(&self.pool, source);
        }
        // A kick that crosses a question to the store answers it: both see what there is at this turn. The answer
        // that comes after it finds the loop resting, or a turn further on.
        let flight = self.flight.take().unwrap_or_default();
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
                    AdvanceError::Fenced => {
                        self.refuse_configures(flight.configures, &StorageError::Conflict);
                    }
                    AdvanceError::Storage(error) => {
                        self.refuse_configures(flight.configures, &error);
                    }
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

impl Handler<Configure> for MainActor {
    type Result = ();

    fn handle(&mut self, configure: Configure, _: &mut Self::Context) {
        // From now on, so that nothing starts against it once it is acknowledged.
        self.config = configure.config.clone().over(&self.config);
        self.configures.push(configure);
        telemetry::kicked(&self.pool, KickSource::Configure);
        self.look_again();
    }
}

impl Handler<Abort> for MainActor {
    type Result = ();

    fn handle(&mut self, Abort { work_id, after }: Abort, ctx: &mut Self::Context) {
        if planted!(AbortIgnored) {
            return;
        }
        let Some(live) = self.live.get(&work_id) else {
            if self.state.running.contains_key(&work_id) {
                // Decided but not launched: its commit is in flight.
                self.aborts.insert(work_id, after);
            }
            return;
        };
        let run = live.control.run;
        let deadline = Deadline { run, stage: Stage::AbortCanceled, abandon: false };
        self.set_deadline(work_id, self.after(after), deadline);
        self.set_tick(ctx);
    }
}

impl Handler<Inspect> for MainActor {
    type Result = ();

    fn handle(&mut self, Inspect(reply): Inspect, _: &mut Self::Context) {
        let mut running: Vec<_> = self
            .live
            .iter()
            .filter_map(|(work_id, live)| {
                let control = &live.control;
                Some(RunningAttempt {
                    work_id: *work_id,
                    function: control.spec.function,
                    attempt: control.attempt,
                    started: self.state.running.get(work_id)?.started,
                })
            })
            .collect();
        running.sort_by_key(|attempt| (attempt.started, attempt.work_id));
        let _ = reply.send(Inspection {
            status: self.status,
            slots: self.slots(),
            turn: self.state.turn,
            report: self.state.report,
            #[cfg(feature = "actix-web")]
            recent: self.figures.recent(self.shared.seams.segment()),
            running,
        });
    }
}

impl Handler<Drain> for MainActor {
    type Result = ();

    fn handle(&mut self, Drain(reply): Drain, _: &mut Self::Context) {
        self.stopping = true;
        self.drained = Drained::default();
        self.draining = Some(reply);
        self.look_again();
    }
}

impl Handler<HandBack> for MainActor {
    type Result = ();

    fn handle(&mut self, HandBack { notice }: HandBack, ctx: &mut Self::Context) {
        let mut running: Vec<_> = self.live.keys().copied().collect();
        // In an order that a simulation can repeat.
        running.sort_unstable();
        for work_id in running {
            let control = &self.live[&work_id].control;
            control.raise(Stage::ShuttingDown);
            let run = control.run;
            let deadline = Deadline { run, stage: Stage::AbortHandBack, abandon: false };
            self.set_deadline(work_id, self.after(notice), deadline);
        }
        self.set_tick(ctx);
    }
}

impl Handler<Stop> for MainActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        // After a shutdown there are none. Without one they end here, also where their thread goes on.
        let mut running: Vec<_> = self.live.iter().collect();
        running.sort_unstable_by_key(|(work_id, _)| **work_id);
        for (_, live) in running {
            live.control.raise(Stage::AbortHandBack);
        }
        ctx.stop();
    }
}
