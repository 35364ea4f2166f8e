//! One life of the process after the other: how each begins, what goes wrong meanwhile, and how it ends.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Once;
use std::task::Poll;
use std::time::Duration;

use actix::Actor;
use actix_workpool::{PoolConfig, Runtime, RuntimeBuilder, StartError};
use tokio::task::JoinHandle;

use super::clients::{Callers, Ear, Tasks, client, schedules, set_limit};
use super::functions::{OURS, give_way, register};
use super::history::drain_limit;
use super::plan::{FaultPlan, POOLS, Store, below, pick};
use super::tables::{self, SimStorage};
use super::world::{SimClock, SimCourier, is_there, millis, trace, with};

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Around a call of the storage: before it, or after it and before its answer.
    CrashAtCall { call: u64, after: bool },
    /// At a write, a change of length or a sync of the disk.
    CrashAtStep { step: u64 },
    /// At some time, and some steps later.
    Crash { ms: u64, steps: u32 },
    Shutdown {
        ms: u64,
        grace_ms: u64,
        crash_after_calls: Option<u64>,
        crash_after_steps: Option<u64>,
    },
    /// The last handle on the runtime is dropped, and the thread goes on for some steps.
    Drop { ms: u64, steps: u32 },
    /// Faults stop, and everything drains.
    Drain { ms: u64 },
}

/// Runs all lives of a seed.
pub fn all() {
    let lives = with(|world| world.rng.u32(0..=world.plan.lives));
    for number in 0..=lives {
        let fate = draw_fate(number == lives);
        let clean = one(fate);
        if with(|world| world.violation.is_some()) {
            return;
        }
        if matches!(fate, Fate::Drain { .. }) && !clean {
            with(|world| world.violate("the last life does not end well"));
        }
    }
}

fn draw_fate(last: bool) -> Fate {
    with(|world| {
        let length = world.plan.life_ms;
        let alt = last || below(&mut world.rng, 4) > 0;
        world.alt_registered = alt;
        let rng = &mut world.rng;
        let ms = rng.u64(0..=length);
        if last {
            return Fate::Drain { ms };
        }
        let on_disk = world.plan.store == Store::File;
        let fate = match below(rng, 10) {
            0..=3 if on_disk && rng.bool() => {
                let most = pick(rng, &[20, 100, 600]);
                Fate::CrashAtStep { step: rng.u64(1..most) }
            }
            0 => Fate::CrashAtCall { call: rng.u64(1..16), after: rng.bool() },
            1..=3 => Fate::CrashAtCall { call: rng.u64(1..200), after: rng.bool() },
            4 | 5 => Fate::Crash { ms, steps: rng.u32(0..40) },
            6 | 7 => {
                let grace_ms = pick(rng, &[0, 100, 10_000]);
                let crash = below(rng, 4) == 0;
                let crash_after_calls = crash.then(|| rng.u64(1..8));
                let crash = on_disk && below(rng, 3) == 0;
                let crash_after_steps = crash.then(|| rng.u64(1..30));
                Fate::Shutdown { ms, grace_ms, crash_after_calls, crash_after_steps }
            }
            _ => Fate::Drop { ms, steps: rng.u32(0..20) },
        };
        trace!(world, "fate {fate:?}");
        fate
    })
}

/// Runs one life. Says whether everything was written in the end.
fn one(fate: Fate) -> bool {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime can be built")
    });
    let clean = system.block_on(async {
        with(|world| world.begin_life());
        let mut life = Box::pin(live(fate));
        // A crash ends this at once, wherever the others are.
        let clean = poll_fn(|cx| {
            let dead = with(|world| {
                world.waker = Some(cx.waker().clone());
                world.dead
            });
            if dead { Poll::Ready(false) } else { life.as_mut().poll(cx) }
        })
        .await;
        // Here, since outside of the system time does not stand still.
        with(|world| world.crash());
        clean
    });
    drop(system);
    match clean {
        true => tables::closed(),
        false => tables::crash(),
    }
    with(|world| world.end_life(clean));
    clean
}

async fn live(fate: Fate) -> bool {
    if let Fate::CrashAtCall { call, after } = fate {
        with(|world| world.crash_at = Some((call, after)));
    }
    if let Fate::CrashAtStep { step } = fate {
        with(|world| world.stop_after(step));
    }
    let last = matches!(fate, Fate::Drain { .. });
    with(|world| {
        if world.plan.faults.disk && world.disk.is_some() && below(&mut world.rng, 4) == 0 {
            world.break_disk(last);
        }
    });
    let Some(callers) = start(last).await else {
        // It could not be started, and must have left nothing.
        return false;
    };
    let faults = actix::spawn(go_wrong(last));
    for _ in 0..with(|world| world.plan.clients) {
        callers.clients.spawn(client(callers.clone()));
    }
    let (clients, tasks) = (callers.clients.clone(), callers.tasks.clone());
    tokio::select! {
        biased;
        clean = come_to(fate, callers, faults) => clean,
        () = poisoned() => {
            give_up(&clients, &tasks).await;
            false
        }
    }
}

/// Goes on until the life has come to its end. Says whether everything was written.
async fn come_to(fate: Fate, callers: Callers, faults: JoinHandle<()>) -> bool {
    match fate {
        Fate::CrashAtCall { .. } | Fate::CrashAtStep { .. } => {
            let longest = with(|world| world.plan.life_ms * 2);
            tokio::time::sleep(Duration::from_millis(longest)).await;
            with(|world| world.crash());
            false
        }
        Fate::Crash { ms, steps } => {
            after(ms, steps).await;
            with(|world| world.crash());
            false
        }
        Fate::Drop { ms, steps } => {
            after(ms, steps).await;
            with(|world| {
                trace!(world, "the runtime is dropped");
                world.shutting_down = true;
            });
            callers.clients.abort();
            callers.tasks.abort();
            drop(callers);
            after(0, steps).await;
            false
        }
        Fate::Shutdown { ms, grace_ms, crash_after_calls, crash_after_steps } => {
            after(ms, 0).await;
            with(|world| {
                trace!(world, "shutdown with a grace of {grace_ms} ms");
                world.shutting_down = true;
                world.crash_at = crash_after_calls.map(|calls| (world.calls + calls, true));
                if let Some(steps) = crash_after_steps {
                    world.stop_after(steps);
                }
            });
            callers.runtime.shutdown(Duration::from_millis(grace_ms)).await;
            ended(grace_ms)
        }
        Fate::Drain { ms } => {
            after(ms, 0).await;
            faults.abort();
            drain(&callers).await;
            true
        }
    }
}

/// Returns some time after the storage has said that it is to be opened again.
async fn poisoned() {
    let is_poisoned = || with(|world| world.poisoned);
    poll_fn(|_| if is_poisoned() { Poll::Ready(()) } else { Poll::Pending }).await;
    after(with(|world| pick(&mut world.rng, &[0, 0, 500, 10_000])), 0).await;
}

/// With a storage that is to be opened again, nothing works; but whoever asks for something is told so.
async fn give_up(clients: &Tasks, tasks: &Tasks) {
    with(|world| {
        trace!(world, "the storage is given up");
        world.shutting_down = true;
    });
    let answered = with(|world| Duration::from_millis(world.plan.pause_ms + 120_000));
    let all = async {
        clients.end().await;
        tasks.end().await;
    };
    if tokio::time::timeout(answered, all).await.is_err() {
        with(|world| world.violate("a caller of a storage that is to be opened again waits"));
    }
}

async fn after(ms: u64, steps: u32) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    for _ in 0..steps {
        give_way().await;
    }
}

async fn start(last: bool) -> Option<Callers> {
    let (seed, alt) = with(|world| (world.rng.u64(..), world.alt_registered));
    let pools = with(|world| world.pools.len());
    let mut tries = 0;
    let runtime = loop {
        let mut builder = Runtime::builder()
            .storage(SimStorage::new())
            .clock(SimClock)
            .courier(SimCourier)
            .worker_arbiters(0)
            .retention(with(|world| world.plan.retention))
            .seed(seed.wrapping_add(tries));
        for (number, name) in POOLS.iter().enumerate().take(pools) {
            // Later lives leave everything unset: what callers have set must hold.
            let config = with(|world| match world.pools[number].created {
                true => PoolConfig::default(),
                false => world.plan.config(number),
            });
            builder = builder.pool(name, config);
        }
        // In the last life everything must come to an end.
        if let Some(period) = with(|world| world.plan.schedules).filter(|_| !last) {
            builder = schedules(period).into_iter().fold(builder, RuntimeBuilder::schedule);
        }
        match register(builder, alt).start().await {
            Ok(runtime) => break runtime,
            Err(StartError::Storage(error)) => {
                let again = with(|world| {
                    trace!(world, "start fails: {error}");
                    let excused = world.is_disturbed() || world.full;
                    if !excused {
                        world.violate(format_args!("start fails with nothing wrong: {error}"));
                    }
                    last || below(&mut world.rng, 2) == 0
                });
                if !again {
                    return None;
                }
                if last {
                    with(|world| world.mend());
                }
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => {
                with(|world| world.violate(format_args!("start fails: {error}")));
                return std::future::pending().await;
            }
        }
    };
    let mut handles = Vec::new();
    for (number, name) in POOLS.iter().enumerate().take(pools) {
        let pool = runtime.pool(name).expect("a pool that was configured");
        let settings = pool.settings();
        with(|world| {
            let now = world.now();
            let found = (settings.max_parallelism, settings.paused);
            let max_pending = world.plan.pools[number].max_pending;
            let pool = &mut world.pools[number];
            pool.created = true;
            pool.was_full = now;
            let asked = pool.asked.take();
            if found != pool.limit && Some(found) != asked || settings.max_pending != max_pending {
                let known = pool.limit;
                world.violate(format_args!(
                    "pool {number} starts with {found:?}, it was set to {known:?} or {asked:?}"
                ));
            }
            world.pools[number].limit = found;
            world.found_rule(number, settings.per_key);
        });
        handles.push(pool);
    }
    with(|world| {
        world.started = true;
        trace!(world, "started");
    });
    Some(Callers {
        runtime,
        pools: Rc::new(handles),
        clients: Tasks::default(),
        tasks: Tasks::default(),
        ear: Ear.start(),
    })
}

/// What goes wrong in a life besides its end.
async fn go_wrong(last: bool) {
    let nothing = with(|world| {
        let FaultPlan { refuse, answer_lost, conflict, read, full, disk, .. } = world.plan.faults;
        let disk = disk && world.disk.is_some();
        let storage = refuse + answer_lost + conflict + read > 0 || full || disk;
        !storage && !world.plan.stalls && !world.plan.wall_jumps
    });
    if nothing {
        return;
    }
    loop {
        let (pause, lasts) = with(|world| {
            let faults = world.plan.faults;
            let rng = &mut world.rng;
            (rng.u64(1..=faults.every_ms), rng.u64(1..=faults.for_ms))
        });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let stall = with(|world| {
            if world.plan.faults.disk && world.disk.is_some() && world.rng.bool() {
                world.break_disk(last);
                return None;
            }
            match below(&mut world.rng, 4) {
                0 if world.plan.wall_jumps => {
                    let by = world.rng.i64(-3_600_000..3_600_000);
                    world.set_wall(by);
                }
                1 if world.plan.stalls => {
                    let by = Duration::from_millis(pick(&mut world.rng, &[3, 700, 6_000, 40_000]));
                    world.stalls(by);
                    return Some(by);
                }
                2 if world.plan.faults.full => {
                    world.set_full(true);
                    trace!(world, "the storage is full");
                }
                _ => {
                    world.faulty = true;
                    trace!(world, "the storage begins to fail");
                }
            }
            None
        });
        if let Some(by) = stall {
            tokio::time::advance(by).await;
            with(|world| world.disturb());
            continue;
        }
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        with(|world| {
            if world.faulty || world.full {
                trace!(world, "the storage works again");
            }
            world.mend();
        });
    }
}

/// After a shutdown nothing runs any more. Says whether everything could be written.
fn ended(grace_ms: u64) -> bool {
    with(|world| {
        if world.dead {
            return false;
        }
        trace!(world, "shut down");
        let _ = grace_ms;
        let running: usize = world.pools.iter().map(|pool| pool.running).sum();
        if running > 0 {
            world.violate(format_args!("{running} attempts run after the shutdown"));
        }
        world.is_well()
    })
}

/// Faults stop: every job must end, every caller must be answered, within a bound.
async fn drain(callers: &Callers) {
    let answered = with(|world| {
        trace!(world, "drain");
        world.mend();
        world.quiet = true;
        world.disturb();
        Duration::from_millis(world.plan.pause_ms + 120_000)
    });
    // What they are at they bring to its end: an answer never waits for a job.
    if tokio::time::timeout(answered, callers.clients.end()).await.is_err() {
        with(|world| world.violate("a caller is not answered"));
        return;
    }
    let limit = with(|world| drain_limit(world));
    let drained = async {
        for (number, pool) in callers.pools.iter().enumerate() {
            loop {
                let wanted = with(|world| {
                    let (limit, paused) = world.pools[number].limit;
                    let limit = limit.max(1);
                    let pool = &mut world.pools[number];
                    (paused || pool.limit.0 == 0).then(|| {
                        pool.asked = Some((limit, false));
                        limit
                    })
                });
                match wanted {
                    None => break,
                    Some(limit) => set_limit(pool, number, limit, false).await,
                }
                // Right after the faults it may still be refused.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        callers.tasks.end().await;
        // What runs may enqueue into another pool.
        for _ in 0..2 {
            for pool in callers.pools.iter() {
                let _ = pool.idle().await;
            }
        }
    };
    if tokio::time::timeout(limit, drained).await.is_err() {
        let pending: Vec<_> = callers.pools.iter().map(|pool| pool.pending()).collect();
        with(|world| {
            world.violate(format_args!("not drained in {limit:?}: {pending:?} are pending"));
        });
        return;
    }
    ask_everything(callers).await;
    with(|world| world.shutting_down = true);
    let report = callers.runtime.shutdown(Duration::from_secs(30)).await;
    with(|world| {
        if report.pending > 0 {
            world.violate(format_args!("after the last shutdown {} are pending", report.pending));
        }
    });
    let _ = ended(30_000);
}

/// With everything done, every question has one answer.
async fn ask_everything(callers: &Callers) {
    let asked: Vec<_> = with(|world| {
        let ids = world.works.iter().enumerate();
        let ids = ids.filter_map(|(number, work)| Some((number as u32, work.id?)));
        ids.collect()
    });
    let ids: Vec<_> = asked.iter().map(|(_, id)| *id).collect();
    let moment = with(|world| world.tick());
    match callers.pools[0].status_batch(&ids).await {
        Ok(statuses) => with(|world| {
            for ((number, _), status) in asked.iter().zip(&statuses) {
                if !status.is_final() {
                    world.violate(format_args!("job {number} is {status:?} in an idle pool"));
                }
                world.saw_status(*number, status, moment);
            }
        }),
        Err(error) => with(|world| world.violate(format_args!("status fails: {error}"))),
    }
    for (number, pool) in callers.pools.iter().enumerate() {
        let pending = pool.pending();
        match pool.diagnostics().await {
            Ok(told) => with(|world| {
                let left = told.waiting + told.running + told.completing + told.canceling;
                if (pending, left, told.unregistered) != (0, 0, 0) {
                    world.violate(format_args!("idle pool {number} has {pending} {told:?}"));
                }
                let settings_slots = world.pools[number].slots() as u64;
                if told.spare_capacity != settings_slots {
                    let spare = told.spare_capacity;
                    world.violate(format_args!(
                        "idle pool {number} has {spare} free slots of {settings_slots}"
                    ));
                }
            }),
            Err(error) => with(|world| world.violate(format_args!("diagnostics fail: {error}"))),
        }
    }
    if let Err(error) = callers.runtime.query(super::functions::Check(0)).await {
        with(|world| world.violate(format_args!("query fails: {error}")));
    }
    let _ = millis(0);
}

/// Panics of the simulated functions say nothing; any other is a defect.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let message = panic.payload_as_str().unwrap_or_default();
            if message.starts_with(OURS) {
                return;
            }
            if is_there() {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                with(|world| world.violate(format_args!("panic at {place}: {message}")));
            } else {
                default(panic);
            }
        }));
    });
}
