//! Schedules: each time once, whatever happens to the process and its clocks.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::*;
use crate::support::*;
use actix_workpool::storage::Memory;
use actix_workpool::testing::Clock;
use actix_workpool::{
    CatchUp, EnqueueError, Overlap, PoolConfig, PoolError, Runtime, RuntimeBuilder, Schedule,
    ScheduleError, StartError, WorkFilter,
};
use tokio::time::Instant;

/// A wall clock that can be set, and otherwise follows the test's.
#[derive(Clone)]
struct Wall(Arc<Mutex<Duration>>, Instant);

/// Midnight in UTC, 2027-01-01.
const MIDNIGHT: Duration = Duration::from_secs(1_798_761_600);

impl Wall {
    fn at(time: Duration) -> Wall {
        Wall(Arc::new(Mutex::new(time)), Instant::now())
    }

    fn set(&self, change: impl FnOnce(Duration) -> Duration) {
        let mut anchor = self.0.lock().unwrap();
        *anchor = change(*anchor);
    }

    fn shown(&self) -> Duration {
        *self.0.lock().unwrap() + self.1.elapsed()
    }
}

impl Clock for Wall {
    fn now(&self) -> Duration {
        MIDNIGHT + self.1.elapsed()
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.shown()
    }
}

/// The wall clock at the start of each run, in whole seconds behind midnight.
type Runs = Arc<Mutex<Vec<u64>>>;

fn noting(wall: &Wall) -> (RuntimeBuilder, Runs) {
    let runs = Runs::default();
    let (notes, clock) = (runs.clone(), wall.clone());
    let builder = builder().clock(wall.clone()).action_fn(TASK, move |n, _| {
        let at = clock.shown().as_secs().saturating_sub(MIDNIGHT.as_secs());
        notes.lock().unwrap().push(at);
        async move {
            tokio::time::sleep(Duration::from_secs(n)).await;
            Ok(n)
        }
    });
    (builder, runs)
}

fn every(secs: u64) -> Schedule {
    Schedule::every("s", Duration::from_secs(secs)).unwrap().job("p", TASK.call(0))
}

async fn begin(builder: RuntimeBuilder) -> Runtime {
    builder.pool("p", config()).start().await.unwrap()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

const NONE: [u64; 0] = [];

fn seen(runs: &Runs) -> Vec<u64> {
    std::mem::take(&mut *runs.lock().unwrap())
}

#[test]
fn a_schedule_fires_at_its_times_and_new_ones_have_missed_nothing() {
    on_each_store(|| {
        run_paused(async {
            let wall = Wall::at(MIDNIGHT + secs(100));
            let (builder, runs) = noting(&wall);
            let cron = Schedule::cron("c", "*/2 * * * *").unwrap().job("p", TASK.call(0));
            let runtime = begin(builder.schedule(every(60)).schedule(cron)).await;
            pass(201).await;
            assert_eq!(seen(&runs), [120, 120, 180, 240, 240, 300]);
            let all = runtime.schedules().await.unwrap();
            assert_eq!((all[0].id.as_str(), all[1].id.as_str()), ("c", "s"));
            assert_eq!(all[0].times, "*/2 * * * * UTC");
            assert_eq!(all[1].last_time, Some(UNIX_EPOCH + MIDNIGHT + secs(300)));
            assert_eq!(all[1].next, Some(UNIX_EPOCH + MIDNIGHT + secs(360)));
            let job = all[1].last_job.unwrap();
            assert!(runtime.status(job).await.unwrap().is_final());
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Regression of others (cron-plus 108): every 15 s stopped for an hour.
#[test]
fn a_short_period_goes_on_for_hours() {
    run_paused(async {
        let wall = Wall::at(MIDNIGHT);
        let (builder, runs) = noting(&wall);
        let cron = Schedule::cron("c", "*/15 * * * * *").unwrap().job("p", TASK.call(0));
        let runtime = begin(builder.schedule(cron)).await;
        pass(3 * 3_600 + 1).await;
        let expected: Vec<u64> = (1..=720).map(|number| number * 15).collect();
        assert_eq!(seen(&runs), expected);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_wall_clock_that_is_set_fires_nothing_twice() {
    run_paused(async {
        let wall = Wall::at(MIDNIGHT);
        let (builder, runs) = noting(&wall);
        let catch_up = CatchUp::Skip;
        let runtime = begin(builder.schedule(every(3_600).catch_up(catch_up))).await;
        pass(3_601).await;
        assert_eq!(seen(&runs), [3_600]);
        // Back by half an hour: 3,600 comes once more, and is over.
        wall.set(|time| time - secs(1_800));
        pass(1_900).await;
        assert_eq!(seen(&runs), NONE);
        // The machine slept for three hours: it fires at the next time, within a minute of waking.
        wall.set(|time| time + secs(3 * 3_600));
        pass(61).await;
        assert_eq!(seen(&runs), NONE);
        let left = 5 * 3_600 - (wall.shown() - MIDNIGHT).as_secs();
        pass(left + 1).await;
        assert_eq!(seen(&runs), [5 * 3_600]);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn what_was_missed_while_nothing_ran_is_caught_up_with_as_asked() {
    on_each_store(|| {
        run_paused(async {
            let hour = secs(3_600);
            for (catch_up, fired) in [
                (CatchUp::Skip, 0),
                (CatchUp::Once { within: hour }, 1),
                (CatchUp::All { within: 3 * hour }, 3),
                (CatchUp::All { within: 30 * hour }, 5),
            ] {
                let (wall, tables) = (Wall::at(MIDNIGHT + secs(10)), Tables::new());
                let again = |wall: &Wall| {
                    let (builder, runs) = noting(wall);
                    let schedule = every(3_600).catch_up(catch_up).overlap(Overlap::QueueAll);
                    (builder.storage(tables.clone()).schedule(schedule), runs)
                };
                let (builder, runs) = again(&wall);
                let runtime = begin(builder).await;
                pass(3_600).await;
                assert_eq!(seen(&runs), [3_600]);
                runtime.shutdown(secs(1)).await;
                drop(runtime);
                // Five are missed.
                wall.set(|time| time + 5 * hour + secs(1_000));
                let runtime = start_again(|| {
                    let (builder, _) = again(&wall);
                    builder.pool("p", config())
                })
                .await;
                pass(5).await;
                let done = runtime.works(WorkFilter::finished()).await.unwrap().works.len();
                assert_eq!(done, 1 + fired, "{catch_up:?}");
                runtime.shutdown(secs(1)).await;
            }
        });
    });
}

#[test]
fn an_overlap_is_handled_as_asked() {
    run_paused(async {
        // Each run takes 25 s, and one is due each 10 s.
        for (overlap, started, skipped) in [
            (Overlap::Skip, vec![10, 40, 70], 7),
            (Overlap::QueueOne, vec![10, 35, 60, 85], 4),
            (Overlap::QueueAll, vec![10, 35, 60, 85], 0),
        ] {
            let wall = Wall::at(MIDNIGHT);
            let (builder, runs) = noting(&wall);
            let schedule = Schedule::every("s", secs(10)).unwrap().job("p", TASK.call(25));
            let builder = builder.schedule(schedule.overlap(overlap));
            let config = PoolConfig::default().max_parallelism(1);
            let runtime = builder.pool("p", config).start().await.unwrap();
            pass(102).await;
            let mut at = seen(&runs);
            at.retain(|at| *at <= 90);
            assert_eq!(at, started, "{overlap:?}");
            let row = runtime.schedules().await.unwrap().remove(0);
            assert!(row.skipped.abs_diff(skipped) <= 1, "{overlap:?}: {}", row.skipped);
            runtime.shutdown(Duration::ZERO).await;
        }
        let wall = Wall::at(MIDNIGHT);
        let (builder, runs) = noting(&wall);
        let schedule = Schedule::every("s", secs(10)).unwrap().job("p", TASK.call(5));
        let schedule = schedule.overlap(Overlap::CancelPrevious);
        let runtime = begin(builder.schedule(schedule)).await;
        pass(31).await;
        assert_eq!(seen(&runs), [10, 20, 30]);
        runtime.shutdown(secs(10)).await;
    });
}

#[test]
fn a_schedule_is_paused_triggered_and_removed() {
    on_each_store(|| {
        run_paused(async {
            let (wall, tables) = (Wall::at(MIDNIGHT), Tables::new());
            let again = || {
                let (builder, runs) = noting(&wall);
                (builder.storage(tables.clone()).schedule(every(60)), runs)
            };
            let (builder, runs) = again();
            let runtime = begin(builder).await;
            let schedule = runtime.schedule("s").unwrap();
            let times: Vec<_> = [60, 120, 180].map(|at| UNIX_EPOCH + MIDNIGHT + secs(at)).into();
            assert_eq!(schedule.next(3), times);
            schedule.pause().await.unwrap();
            pass(100).await;
            assert_eq!(seen(&runs), NONE);
            let job = schedule.trigger().await.unwrap();
            soon(runtime.pool("p").unwrap().work::<u64>(job).join()).await.unwrap();
            assert_eq!(seen(&runs).len(), 1);
            let row = runtime.schedules().await.unwrap().remove(0);
            assert!(row.paused && row.next.is_none() && row.registered);
            runtime.shutdown(secs(1)).await;
            drop((runtime, schedule));
            // It stays paused, and what it did not fire meanwhile is not missed.
            let runs = Arc::new(Mutex::new(None));
            let runtime = start_again(|| {
                let (builder, noted) = again();
                *runs.lock().unwrap() = Some(noted);
                builder.pool("p", config())
            })
            .await;
            let runs = runs.lock().unwrap().take().unwrap();
            pass(200).await;
            assert_eq!(seen(&runs), NONE);
            let schedule = runtime.schedule("s").unwrap();
            schedule.resume().await.unwrap();
            pass(61).await;
            assert_eq!(seen(&runs).len(), 1);
            schedule.remove().await.unwrap();
            pass(200).await;
            assert_eq!(seen(&runs), NONE);
            assert_eq!(runtime.schedules().await.unwrap(), []);
            runtime.shutdown(secs(1)).await;
            assert!(matches!(schedule.pause().await, Err(PoolError::Closed)));
            assert!(matches!(schedule.trigger().await, Err(EnqueueError::Closed)));
        });
    });
}

#[test]
fn one_that_is_no_longer_in_the_code_is_shown_and_does_not_fire() {
    run_paused(async {
        let (wall, tables) = (Wall::at(MIDNIGHT), Memory::new());
        let (builder, _) = noting(&wall);
        let runtime = begin(builder.storage(tables.clone()).schedule(every(60))).await;
        runtime.shutdown(secs(1)).await;
        drop(runtime);
        let runtime =
            start_again(|| noting(&wall).0.storage(tables.clone()).pool("p", config())).await;
        pass(200).await;
        let row = runtime.schedules().await.unwrap().remove(0);
        assert!(!row.registered && row.next.is_none() && row.last_job.is_none());
        let unknown = runtime.schedule("s").unwrap_err();
        assert!(unknown.to_string().contains("schedule \"s\" does not exist"), "{unknown}");
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_closure_that_panics_delays_its_schedule_and_no_other() {
    run_paused(async {
        let wall = Wall::at(MIDNIGHT);
        let (builder, runs) = noting(&wall);
        let tries = Arc::new(Mutex::new(0));
        let seen_tries = tries.clone();
        let fragile = Schedule::every("fragile", secs(60)).unwrap();
        let fragile = fragile.job_with("p", "task", move |_| {
            *tries.lock().unwrap() += 1;
            assert!(*tries.lock().unwrap() > 3, "not yet");
            TASK.call(0)
        });
        let runtime = begin(builder.schedule(fragile).schedule(every(60))).await;
        pass(75).await;
        // After 1, 2 and 4 s; the other one is on time.
        assert_eq!(seen(&runs), [60, 67]);
        assert_eq!(*seen_tries.lock().unwrap(), 4);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_full_pool_delays_a_schedule_and_loses_nothing() {
    run_paused(async {
        let wall = Wall::at(MIDNIGHT);
        let (builder, runs) = noting(&wall);
        let config = PoolConfig::default().max_pending(1).paused(true);
        let runtime = builder.schedule(every(60)).pool("p", config).start().await.unwrap();
        let pool = runtime.pool("p").unwrap();
        pool.enqueue(TASK.call(0)).await.unwrap();
        pass(65).await;
        assert_eq!(pool.pending(), 1);
        pool.resume().await.unwrap();
        pass(3).await;
        assert_eq!(seen(&runs).len(), 2);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn what_could_never_fire_is_refused() {
    run_paused(async {
        let message = |error: ScheduleError| error.to_string();
        for (given, says) in
            [("0 0 30 2 *", "never"), ("61 * * * *", "minute"), ("* * * *", "field"), ("", "field")]
        {
            let error = message(Schedule::cron("s", given).unwrap_err());
            assert!(error.contains(says), "{given}: {error}");
        }
        let daily = || Schedule::cron("s", "@daily").unwrap();
        let error = message(daily().zone("Europe/Atlantis").unwrap_err());
        assert!(error.contains("Europe/Atlantis"), "{error}");
        assert!(Schedule::every("s", Duration::ZERO).is_err());
        assert!(Schedule::every("s", Duration::MAX).is_err());
        assert!(matches!(every(60).zone("UTC"), Err(ScheduleError::ZoneOfPeriod)));
        assert!(matches!(Schedule::cron("", "@daily"), Err(ScheduleError::Id(_))));
        assert!(matches!(Schedule::cron(&"x".repeat(201), "@daily"), Err(ScheduleError::Id(_))));

        let start = async |schedules: Vec<Schedule>| {
            let builder = builder().action_fn(TASK, |n, _| async move { Ok(n) });
            let builder = schedules.into_iter().fold(builder, RuntimeBuilder::schedule);
            builder.pool("p", config()).start().await.unwrap_err()
        };
        let error = start(vec![every(60), every(90)]).await;
        assert!(matches!(error, StartError::DuplicateSchedule(_)), "{error}");
        let error = start(vec![daily()]).await;
        assert_eq!(error.to_string(), "schedule s: it has no job: call `.job(pool, function)`");
        let error = start(vec![daily().job("q", TASK.call(1))]).await;
        assert!(error.to_string().starts_with("schedule s: pool q does not exist"), "{error}");
        let error = start(vec![daily().job("p", ECHO.call(1))]).await;
        assert!(error.to_string().starts_with("schedule s: function echo is not"), "{error}");
    });
}
