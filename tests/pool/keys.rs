//! Keys: order, parallelism, rates and turns of the jobs of one key, and that they hold across retries, restarts and
//! changes of the rules.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::{
    ActionKey, ConfigError, Conflict, EnqueueError, KeyRule, KeyStatus, ListedWork, Mutation,
    PoolConfig, Priority, PriorityAnswer, Rate, RetryBehavior, RunNowAnswer, Runtime, Transaction,
    Unique, Why, WorkError, WorkFilter, WorkHandle, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What a job of these tests does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Job {
    number: u64,
    /// How long each attempt takes, in milliseconds.
    takes: u64,
    /// How its first attempts end.
    ends: Vec<End>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum End {
    Fail,
    Snooze(u64),
    LimitKey(u64),
}

const JOB: ActionKey<Job, u64> = ActionKey::new("job");

fn job(number: u64) -> Job {
    Job { number, takes: 10, ends: Vec::new() }
}

/// The starts, in order: the number of the job, and the time since the beginning in milliseconds.
#[derive(Clone)]
struct Log {
    starts: Arc<Mutex<Vec<(u64, u64)>>>,
    begun: Instant,
    crowd: Crowd,
}

impl Log {
    fn new() -> Log {
        Log { starts: Arc::default(), begun: Instant::now(), crowd: Crowd::default() }
    }

    fn numbers(&self) -> Vec<u64> {
        self.starts.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    fn times(&self) -> Vec<u64> {
        self.starts.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    fn clear(&self) {
        self.starts.lock().unwrap().clear();
    }
}

fn logging(log: &Log) -> actix_workpool::RuntimeBuilder {
    let log = log.clone();
    let attempts = Arc::new(Mutex::new(std::collections::HashMap::<u64, usize>::new()));
    builder().action_fn(JOB, move |job: Job, _| {
        let (log, attempts) = (log.clone(), attempts.clone());
        async move {
            let at = log.begun.elapsed().as_millis() as u64;
            log.starts.lock().unwrap().push((job.number, at));
            let _inside = log.crowd.enter();
            let attempt = {
                let mut attempts = attempts.lock().unwrap();
                let attempt = attempts.entry(job.number).or_default();
                *attempt += 1;
                *attempt
            };
            tokio::time::sleep(Duration::from_millis(job.takes)).await;
            match job.ends.get(attempt - 1) {
                None => Ok(job.number),
                Some(End::Fail) => Err(WorkError::from("fails")),
                Some(End::Snooze(wait)) => Err(WorkError::snooze(ms(*wait))),
                Some(End::LimitKey(wait)) => Err(WorkError::limit_key(ms(*wait))),
            }
        }
    })
}

async fn logged(config: PoolConfig) -> (Runtime, Workpool, Log) {
    let log = Log::new();
    let (runtime, pool) = start(logging(&log), config).await;
    (runtime, pool, log)
}

fn ordered() -> PoolConfig {
    config().per_key(KeyRule::ordered())
}

fn at_once(jobs: u32) -> PoolConfig {
    config().per_key(KeyRule::default().parallelism(jobs))
}

async fn enqueue(pool: &Workpool, key: &str, job: Job) -> WorkHandle<u64> {
    let job = pool.enqueue(JOB.call(job)).key(key).retry(retries(5));
    soon(job.into_future()).await.expect("it is enqueued")
}

async fn idle(pool: &Workpool) {
    tokio::time::timeout(secs(3_600), pool.idle()).await.expect("it becomes idle").unwrap();
}

#[test]
fn ordered_jobs_run_one_after_another_across_retries_snoozes_and_delays() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered()).await;
            let ends = vec![End::Fail, End::Snooze(5_000), End::Fail];
            enqueue(&pool, "a", Job { ends, ..job(1) }).await;
            enqueue(&pool, "a", Job { ends: vec![End::LimitKey(700)], ..job(2) }).await;
            pool.enqueue(JOB.call(job(3))).key("a").run_after(secs(60)).await.unwrap();
            enqueue(&pool, "a", job(4)).await;
            enqueue(&pool, "b", job(5)).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [1, 5, 1, 1, 1, 2, 2, 3, 4]);
            assert!(log.times()[7] >= 60_000, "{:?}", log.times());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn no_more_of_a_key_run_at_once_than_may_and_others_are_not_held_up() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(at_once(2).max_parallelism(8)).await;
            let long = |number| Job { takes: 1_000, ..job(number) };
            let many = (0..20).map(|number| JOB.call(long(number)));
            pool.enqueue_batch(many).key("a").await.unwrap();
            let others = (100..104).map(|number| JOB.call(long(number)));
            pool.enqueue_batch(others)
                .keyed_by(|call| call.args().number.to_string())
                .await
                .unwrap();
            tokio::time::sleep(ms(500)).await;
            assert_eq!(log.numbers(), [0, 1, 100, 101, 102, 103]);
            idle(&pool).await;
            assert_eq!(log.numbers()[6..], (2..20).collect::<Vec<_>>());
            let times = log.times();
            assert!(times[23] < 10_100, "two at a time take ten seconds: {times:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_job_that_waits_for_its_retry_or_its_time_lets_others_pass_if_the_key_is_not_ordered() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(at_once(1)).await;
            enqueue(&pool, "a", Job { ends: vec![End::Fail], ..job(1) }).await;
            pool.enqueue(JOB.call(job(2))).key("a").run_after(secs(60)).await.unwrap();
            enqueue(&pool, "a", job(3)).await;
            enqueue(&pool, "a", job(4)).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [1, 3, 4, 1, 2]);
            assert_eq!(log.crowd.most(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn keys_have_turns() {
    on_each_store(|| {
        run_paused(async {
            let config = config().max_parallelism(1).paused(true);
            let (runtime, pool, log) = logged(config).await;
            for number in 0..6 {
                enqueue(&pool, "a", job(number)).await;
            }
            for number in 10..13 {
                enqueue(&pool, "b", job(number)).await;
            }
            enqueue(&pool, "c", job(20)).await;
            pool.enqueue(JOB.call(job(30))).await.unwrap();
            pool.enqueue(JOB.call(job(31))).await.unwrap();
            pool.resume().await.unwrap();
            idle(&pool).await;
            let (without, keyed): (Vec<_>, Vec<_>) =
                log.numbers().into_iter().partition(|number| *number >= 30);
            assert_eq!(keyed, [0, 10, 20, 1, 11, 2, 12, 3, 4, 5]);
            assert_eq!(without, [30, 31]);
            let last = log.numbers().iter().position(|number| *number == 31).unwrap();
            assert!(last < 4, "jobs without a key take turns with those that have one: {last}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_late_job_of_another_key_waits_for_one_round_and_a_key_that_comes_back_has_no_credit() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(config().max_parallelism(1)).await;
            for number in 0..50 {
                enqueue(&pool, "a", Job { takes: 100, ..job(number) }).await;
            }
            tokio::time::sleep(ms(1_050)).await;
            // One after another: each is enqueued when the one before has finished.
            for number in 100..104 {
                let one = enqueue(&pool, "b", Job { takes: 100, ..job(number) }).await;
                assert_eq!(soon(one.join()).await, Ok(number));
            }
            let numbers = log.numbers();
            let place = |number| numbers.iter().position(|it| *it == number).unwrap();
            let gaps: Vec<_> = (100..104).map(place).collect();
            assert_eq!(gaps[0], 11, "{numbers:?}");
            assert!(gaps.windows(2).all(|pair| pair[1] - pair[0] == 2), "{numbers:?}");
            idle(&pool).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_key_of_three_times_the_weight_has_three_turns() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(config().max_parallelism(1).paused(true)).await;
            let calls = |from: u64| (from..from + 12).map(|number| JOB.call(job(number)));
            pool.enqueue_batch(calls(0)).key("free").await.unwrap();
            pool.enqueue_batch(calls(100)).key("paying").weight(3).await.unwrap();
            pool.resume().await.unwrap();
            idle(&pool).await;
            let first: Vec<_> = log.numbers()[..12].to_vec();
            let paying = first.iter().filter(|number| **number >= 100).count();
            assert!((8..=10).contains(&paying), "{first:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_rate_of_each_key_holds_back_the_jobs_of_that_key_only() {
    on_each_store(|| {
        run_paused(async {
            let rule = KeyRule::default().rate(Rate::per_second(2).burst(2));
            let (runtime, pool, log) = logged(config().per_key(rule)).await;
            for number in 0..6 {
                enqueue(&pool, "a", job(number)).await;
            }
            enqueue(&pool, "b", job(10)).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [0, 1, 10, 2, 3, 4, 5]);
            let times = log.times();
            for (place, least) in [(3, 490), (4, 990), (5, 1_490), (6, 1_990)] {
                assert!((least..least + 60).contains(&times[place]), "{times:?}");
            }
            let heavy = pool.enqueue(JOB.call(job(1))).key("a").cost(3).await;
            let Err(EnqueueError::Config(error)) = heavy else { panic!("{heavy:?}") };
            assert_eq!(error, ConfigError::Cost { given: 3, max: 2 });
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_key_that_is_to_rest_starts_nothing_until_then() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(config()).await;
            let limited = Job { ends: vec![End::LimitKey(30_000)], ..job(1) };
            enqueue(&pool, "a", limited).await;
            tokio::time::sleep(ms(100)).await;
            for number in 2..5 {
                enqueue(&pool, "a", job(number)).await;
            }
            enqueue(&pool, "b", job(10)).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [1, 10, 1, 2, 3, 4]);
            let times = log.times();
            assert!(times[2] >= 30_000 && times[5] < 30_200, "{times:?}");
            // A job without a key only waits itself.
            let alone = Job { ends: vec![End::LimitKey(1_000)], ..job(20) };
            pool.enqueue(JOB.call(alone)).await.unwrap();
            pool.enqueue(JOB.call(job(21))).await.unwrap();
            idle(&pool).await;
            assert_eq!(log.numbers()[6..], [20, 21, 20]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_canceled_job_leaves_its_lane_and_a_canceled_head_lets_the_next_one_in() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered()).await;
            let head = Job { ends: vec![End::Snooze(3_600_000)], ..job(1) };
            let head = enqueue(&pool, "a", head).await;
            let mut works = Vec::new();
            for number in 2..6 {
                works.push(enqueue(&pool, "a", job(number)).await);
            }
            tokio::time::sleep(secs(1)).await;
            works[0].cancel().await.unwrap();
            works[2].cancel().await.unwrap();
            tokio::time::sleep(secs(1)).await;
            assert_eq!((log.numbers(), pool.pending()), (vec![1], 3));
            head.cancel().await.unwrap();
            idle(&pool).await;
            assert_eq!(log.numbers(), [1, 3, 5]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn the_rules_can_be_changed_while_jobs_wait() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered().max_parallelism(8)).await;
            let long = |number| Job { takes: 1_000, ..job(number) };
            for number in 0..6 {
                enqueue(&pool, "a", long(number)).await;
            }
            tokio::time::sleep(ms(100)).await;
            assert_eq!(log.numbers(), [0]);
            pool.update(at_once(3)).await.unwrap();
            tokio::time::sleep(ms(100)).await;
            assert_eq!(log.numbers(), [0, 1, 2]);
            pool.update(at_once(1)).await.unwrap();
            tokio::time::sleep(ms(2_500)).await;
            assert_eq!(log.numbers(), [0, 1, 2, 3, 4], "{:?}", log.times());
            pool.update(config().per_key(KeyRule::default())).await.unwrap();
            enqueue(&pool, "a", long(6)).await;
            tokio::time::sleep(ms(100)).await;
            assert_eq!(log.numbers(), [0, 1, 2, 3, 4, 5, 6]);
            idle(&pool).await;

            // Jobs that are ready go back into the lane, in order.
            log.clear();
            pool.update(config().max_parallelism(1).paused(true)).await.unwrap();
            for number in 10..14 {
                enqueue(&pool, "a", long(number)).await;
            }
            pool.update(at_once(1).max_parallelism(8).paused(false)).await.unwrap();
            enqueue(&pool, "a", long(14)).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [10, 11, 12, 13, 14]);
            assert!(log.times().windows(2).all(|pair| pair[1] - pair[0] >= 1_000));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_flood_in_a_lane_leaves_it_when_the_limit_goes() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered().max_parallelism(100)).await;
            let long = Job { takes: 100_000, ..job(0) };
            let calls = (0..2_500).map(|_| JOB.call(long.clone()));
            pool.enqueue_batch(calls).key("a").await.unwrap();
            tokio::time::sleep(ms(100)).await;
            assert_eq!(log.numbers().len(), 1);
            pool.update(config().per_key(KeyRule::default())).await.unwrap();
            tokio::time::sleep(ms(100)).await;
            assert_eq!(log.numbers().len(), 100);
            idle(&pool).await;
            assert_eq!(log.numbers().len(), 2_500);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn lanes_survive_a_restart() {
    on_each_store(|| {
        let tables = Tables::new();
        for rule in [KeyRule::ordered(), KeyRule::default().parallelism(1)] {
            let config = config().per_key(rule);
            run_paused(async {
                let log = Log::new();
                let builder = logging(&log).storage(tables.clone());
                let (runtime, pool) = start(builder, config.clone()).await;
                let long = |number| Job { takes: 3_600_000, ..job(number) };
                for number in 1..5 {
                    enqueue(&pool, "a", long(number)).await;
                }
                tokio::time::sleep(ms(100)).await;
                assert_eq!(log.numbers(), [1]);
                runtime.shutdown(ms(10)).await;
            });
            run_paused(async {
                let log = Log::new();
                let builder = logging(&log).storage(tables.clone());
                let (runtime, pool) = start(builder, config.clone()).await;
                let rest = Duration::from_secs(4 * 3_600);
                tokio::time::timeout(2 * rest, pool.idle()).await.unwrap().unwrap();
                match rule.is_ordered() {
                    true => assert_eq!(log.numbers(), [1, 2, 3, 4]),
                    // The one that was returned is behind the others.
                    false => assert_eq!(log.numbers(), [2, 3, 4, 1]),
                }
                assert_eq!(log.crowd.most(), 1);
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[derive(Serialize, Deserialize)]
struct Spawn(u64);

impl Mutation for Spawn {
    const NAME: &'static str = "spawn";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        for number in self.0..self.0 + 3 {
            tx.pool("p")?.enqueue(JOB.call(job(number))).key("a").submit()?;
        }
        Ok(())
    }
}

#[test]
fn jobs_of_transactions_and_of_several_callers_share_a_lane() {
    on_each_store(|| {
        run_paused(async {
            let log = Log::new();
            let builder = logging(&log).mutation::<Spawn>();
            let (runtime, pool) = start(builder, ordered().max_parallelism(8)).await;
            let calls = [0, 10, 20].map(|from| pool.enqueue(Spawn(from)).into_future());
            let alone = [30, 40, 50]
                .map(|number| pool.enqueue(JOB.call(job(number))).key("a").into_future());
            let [a, b, c] = calls;
            let [d, e, f] = alone;
            let (_, _, _, d, e, f) = tokio::join!(a, b, c, d, e, f);
            drop((d.unwrap(), e.unwrap(), f.unwrap()));
            idle(&pool).await;
            let numbers = log.numbers();
            assert_eq!((numbers.len(), log.crowd.most()), (12, 1), "{numbers:?}");
            for from in [0, 10, 20] {
                let three: Vec<_> =
                    numbers.iter().filter(|it| (from..from + 3).contains(*it)).copied().collect();
                assert_eq!(three, [from, from + 1, from + 2]);
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_priority_chooses_among_keys_and_keeps_the_order_in_a_lane() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered().max_parallelism(1).paused(true)).await;
            let mut works = Vec::new();
            for number in 0..3 {
                works.push(enqueue(&pool, "a", job(number)).await);
            }
            enqueue(&pool, "b", job(10)).await;
            let high = pool.enqueue(JOB.call(job(20))).key("c").priority(Priority::HIGH);
            high.await.unwrap();
            assert_eq!(
                works[2].set_priority(Priority::HIGH).await.unwrap(),
                PriorityAnswer::Changed
            );
            assert_eq!(works[2].run_now().await.unwrap(), RunNowAnswer::AlreadyDue);
            pool.resume().await.unwrap();
            idle(&pool).await;
            assert_eq!(log.numbers(), [20, 0, 10, 1, 2]);

            // An ordered job that is not due holds up the others until it is run.
            let config = PoolConfig::default().paused(false);
            pool.update(config).await.unwrap();
            log.clear();
            let later = pool.enqueue(JOB.call(job(1))).key("a").run_after(secs(500));
            let later = later.await.unwrap();
            enqueue(&pool, "a", job(2)).await;
            let behind = pool.enqueue(JOB.call(job(3))).key("a").run_after(secs(900));
            let behind = behind.await.unwrap();
            assert_eq!(behind.run_now().await.unwrap(), RunNowAnswer::Moved);
            tokio::time::sleep(secs(10)).await;
            assert!(log.numbers().is_empty());
            assert_eq!(later.run_now().await.unwrap(), RunNowAnswer::Moved);
            idle(&pool).await;
            assert_eq!(log.numbers(), [1, 2, 3]);
            assert!(log.times()[2] < 20_000);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_job_in_a_lane_can_be_replaced_and_postponed() {
    on_each_store(|| {
        run_paused(async {
            for rule in [KeyRule::ordered(), KeyRule::default().parallelism(1)] {
                let (runtime, pool, log) = logged(config().per_key(rule)).await;
                enqueue(&pool, "a", Job { takes: 1_000, ..job(1) }).await;
                let unique = || Unique::key("u").while_waiting();
                let first = pool.enqueue(JOB.call(job(2))).key("a").unique(unique()).await.unwrap();
                enqueue(&pool, "a", job(3)).await;
                let replace = |number: u64, conflict| {
                    let job = pool.enqueue(JOB.call(job(number))).key("other").unique(unique());
                    job.on_conflict(conflict).into_future()
                };
                let again = replace(20, Conflict::Replace).await.unwrap();
                assert_eq!(again.id(), first.id());
                replace(21, Conflict::Debounce(secs(30))).await.unwrap();
                idle(&pool).await;
                match rule.is_ordered() {
                    true => assert_eq!(log.numbers(), [1, 21, 3]),
                    false => assert_eq!(log.numbers(), [1, 3, 21]),
                }
                assert_eq!(log.crowd.most(), 1);
                runtime.shutdown(secs(1)).await;
            }
        });
    });
}

#[test]
fn a_function_that_is_not_registered_holds_up_its_ordered_key_only() {
    on_each_store(|| {
        let tables = Tables::new();
        const OTHER: ActionKey<u64, ()> = ActionKey::new("other");
        run_paused(async {
            let log = Log::new();
            let builder = logging(&log).action_fn(OTHER, |_, _| async { Ok(()) });
            let (runtime, pool) =
                start(builder.storage(tables.clone()), ordered().paused(true)).await;
            pool.enqueue(OTHER.call(1)).key("a").await.unwrap();
            enqueue(&pool, "a", job(1)).await;
            enqueue(&pool, "b", job(2)).await;
            runtime.shutdown(ms(10)).await;
        });
        run_paused(async {
            let log = Log::new();
            let builder = logging(&log).storage(tables.clone());
            let (runtime, pool) = start(builder, ordered().paused(false)).await;
            tokio::time::sleep(secs(60)).await;
            assert_eq!((log.numbers(), pool.pending()), (vec![2], 2));
            runtime.shutdown(ms(10)).await;
        });
        run_paused(async {
            let log = Log::new();
            let builder = logging(&log).action_fn(OTHER, |_, _| async { Ok(()) });
            let (runtime, pool) = start(builder.storage(tables.clone()), ordered()).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [1]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_poisonous_head_fails_and_the_lane_goes_on() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered()).await;
            let ends = vec![End::Fail; 9];
            let bad = pool.enqueue(JOB.call(Job { ends, ..job(1) })).key("a");
            bad.retry(RetryBehavior::default().max_attempts(3)).await.unwrap();
            enqueue(&pool, "a", job(2)).await;
            idle(&pool).await;
            assert_eq!(log.numbers(), [1, 1, 1, 2]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn bad_keys_and_rules_are_refused() {
    run_paused(async {
        let (runtime, pool, _) = logged(config()).await;
        let refused = |answer: Result<WorkHandle<u64>, EnqueueError>| match answer {
            Err(EnqueueError::Config(error)) => error,
            other => panic!("{other:?}"),
        };
        let empty = refused(pool.enqueue(JOB.call(job(1))).key("").await);
        assert_eq!(empty, ConfigError::WorkKey { len: 0, max: 256 });
        let long = refused(pool.enqueue(JOB.call(job(1))).key(vec![7; 257]).await);
        assert_eq!(long, ConfigError::WorkKey { len: 257, max: 256 });
        pool.enqueue(JOB.call(job(1))).key(vec![7; 256]).await.unwrap();
        let weight = refused(pool.enqueue(JOB.call(job(1))).key("a").weight(0).await);
        assert_eq!(weight, ConfigError::Weight { given: 0, max: 1_000 });
        let alone = refused(pool.enqueue(JOB.call(job(1))).weight(2).await);
        assert_eq!(alone, ConfigError::WeightWithoutKey);
        let calls = [JOB.call(job(1)), JOB.call(job(2))];
        let one_bad = pool.enqueue_batch(calls).keyed_by(|call| match call.args().number {
            1 => "a",
            _ => "",
        });
        assert!(one_bad.await.is_err());
        let none = KeyRule::default().parallelism(0);
        for rule in [none, KeyRule::ordered().rate(Rate::per_second(0))] {
            assert!(pool.update(config().per_key(rule)).await.is_err());
        }
        idle(&pool).await;
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn explanations_lists_and_counts_show_keys() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, _) = logged(ordered().max_parallelism(8)).await;
            let long = |number| Job { takes: 60_000, ..job(number) };
            let mut works = Vec::new();
            for number in 0..4 {
                works.push(enqueue(&pool, "a", long(number)).await);
            }
            works[3].set_priority(Priority::HIGH).await.unwrap();
            enqueue(&pool, "b", long(10)).await;
            tokio::time::sleep(ms(10)).await;
            let explained = works[2].explain().await.unwrap();
            assert_eq!(explained.why, Why::BehindKey { running: Some(works[0].id()) });
            assert_eq!(explained.ahead.unwrap().works, 2);
            assert_eq!(explained.key(), Some(&b"a"[..]));
            let said = explained.to_string();
            assert!(said.contains("waits for others of its key") && said.contains("2 jobs ahead"));

            let listed = |filter: WorkFilter| async { pool.works(filter).await.unwrap().works };
            let ids =
                |works: Vec<ListedWork>| works.iter().map(|it| it.work_id).collect::<Vec<_>>();
            let all: Vec<_> = works[1..].iter().map(WorkHandle::id).collect();
            assert_eq!(ids(listed(WorkFilter::pending()).await), all);
            assert_eq!(ids(listed(WorkFilter::pending().key("a")).await), all);
            assert_eq!(ids(listed(WorkFilter::pending().key("c")).await), []);
            let high = listed(WorkFilter::pending().priority(Priority::HIGH)).await;
            assert_eq!(ids(high), [works[3].id()]);
            let normal = listed(WorkFilter::pending().priority(Priority::NORMAL)).await;
            assert_eq!(ids(normal), all[..2]);
            let running = listed(WorkFilter::running().key("a")).await;
            assert_eq!(running[0].key(), Some(&b"a"[..]));
            assert_eq!(ids(running), [works[0].id()]);
            assert!(pool.works(WorkFilter::finished().key("a")).await.is_err());
            let mut filter = WorkFilter::pending().limit(1);
            let mut found = Vec::new();
            loop {
                let page = pool.works(filter.clone()).await.unwrap();
                found.extend(ids(page.works));
                let Some(next) = page.next else { break };
                let next = next.to_string().parse().unwrap();
                filter = WorkFilter::pending().limit(1).after(next).unwrap();
            }
            assert_eq!(found, all);

            let keys = pool.busiest_keys(10).await.unwrap();
            let counts = |key: &KeyStatus| (key.key().to_vec(), key.running, key.waiting);
            let counts: Vec<_> = keys.iter().map(counts).collect();
            assert_eq!(counts, [(b"a".to_vec(), 1, 3), (b"b".to_vec(), 1, 0)]);
            assert_eq!(pool.busiest_keys(1).await.unwrap().len(), 1);
            runtime.shutdown(ms(10)).await;
        });
    });
}

#[test]
fn a_job_that_the_rate_of_its_key_holds_back_says_so() {
    on_each_store(|| {
        run_paused(async {
            let rule = KeyRule::default().rate(Rate::per_minute(1));
            let (runtime, pool, _) = logged(config().per_key(rule)).await;
            enqueue(&pool, "a", job(1)).await;
            tokio::time::sleep(ms(100)).await;
            let second = enqueue(&pool, "a", job(2)).await;
            let third = enqueue(&pool, "a", job(3)).await;
            let explained = second.explain().await.unwrap();
            assert!(matches!(explained.why, Why::KeyLimited { .. }), "{explained}");
            assert!(explained.to_string().contains("waits for the rate of its key"));
            assert!(explained.expected.is_some());
            let explained = third.explain().await.unwrap();
            assert_eq!(explained.why, Why::BehindKey { running: None });
            runtime.shutdown(ms(10)).await;
        });
    });
}

/// Regression: a rate of more than one start in 5 ms was not kept.
#[test]
fn a_fast_rate_of_a_key_is_kept() {
    run_paused(async {
        let rule = KeyRule::default().rate(Rate::per_second(250));
        let (runtime, pool, log) = logged(config().max_parallelism(64).per_key(rule)).await;
        let calls = (0..500).map(|n| JOB.call(Job { takes: 0, ..job(n) }));
        pool.enqueue_batch(calls).key("a").await.unwrap();
        idle(&pool).await;
        let times = log.times();
        assert!(
            times[499] - times[0] > 1_900,
            "500 jobs at 250/s took {} ms",
            times[499] - times[0]
        );
        runtime.shutdown(secs(1)).await;
    });
}

/// Regression: the key waited until the job that its rate had held back was due.
#[test]
fn a_key_goes_on_at_a_new_rate() {
    on_each_store(|| {
        run_paused(async {
            let per_key = |rate| config().per_key(KeyRule::default().rate(rate));
            let (runtime, pool, log) = logged(per_key(Rate::per_hour(1))).await;
            for number in 0..5 {
                enqueue(&pool, "a", job(number)).await;
            }
            tokio::time::sleep(secs(1)).await;
            pool.update(per_key(Rate::per_second(1))).await.unwrap();
            tokio::time::sleep(secs(60)).await;
            assert_eq!(log.numbers(), [0, 2, 3, 4], "one keeps its time");
            idle(&pool).await;
            assert_eq!(log.numbers(), [0, 2, 3, 4, 1]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Regression: jobs that had waited for their time came before all that were ready.
#[test]
fn a_flood_that_is_due_at_once_does_not_hold_up_other_keys() {
    run_paused(async {
        let (runtime, pool, log) = logged(config().max_parallelism(1)).await;
        enqueue(&pool, "b", job(1)).await;
        let calls = (100..200).map(|n| JOB.call(job(n)));
        pool.enqueue_batch(calls).key("a").run_after(secs(1)).await.unwrap();
        tokio::time::sleep(ms(1_050)).await;
        enqueue(&pool, "b", job(2)).await;
        idle(&pool).await;
        let place = log.numbers().iter().position(|n| *n == 2).unwrap();
        assert!(place < 15, "b's job started as number {place}");
        runtime.shutdown(secs(1)).await;
    });
}

/// Regression: its start was led to its place in the lane, of which a change of its priority had left a note.
#[test]
fn a_job_that_leaves_its_lane_is_started_from_where_it_is() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(at_once(1).max_parallelism(1)).await;
            pool.enqueue(JOB.call(Job { takes: 1_000, ..job(1) })).await.unwrap();
            tokio::time::sleep(ms(10)).await;
            let unique = || Unique::key("u").while_waiting();
            pool.enqueue(JOB.call(job(2))).key("a").unique(unique()).await.unwrap();
            let j = enqueue(&pool, "a", job(3)).await;
            j.set_priority(Priority::HIGH).await.unwrap();
            pool.enqueue(JOB.call(job(2)))
                .key("a")
                .unique(unique())
                .on_conflict(Conflict::Debounce(secs(30)))
                .await
                .unwrap();
            tokio::time::sleep(secs(60)).await;
            assert_eq!(log.numbers(), [1, 3, 2]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Regression: it held the place of its key until it was due.
#[test]
fn a_job_that_is_not_due_gives_up_its_place_when_its_key_is_ordered_no_more() {
    run_paused(async {
        let (runtime, pool, log) = logged(ordered().max_parallelism(8)).await;
        pool.enqueue(JOB.call(job(1))).key("a").run_after(secs(86_400)).await.unwrap();
        enqueue(&pool, "a", job(2)).await;
        tokio::time::sleep(secs(1)).await;
        pool.update(at_once(1)).await.unwrap();
        tokio::time::sleep(secs(60)).await;
        assert_eq!(log.numbers(), [2]);
        runtime.shutdown(secs(1)).await;
    });
}

/// Regression: of more lanes than a group settles, the rest stayed as they were.
#[test]
fn many_lanes_open_at_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, log) = logged(ordered().max_parallelism(10_000)).await;
            let long = Job { takes: 3_600_000, ..job(0) };
            let calls = (0..1_800).map(|number| JOB.call(Job { number, ..long.clone() }));
            let calls = pool.enqueue_batch(calls);
            calls.keyed_by(|call| format!("{}", call.args().number % 600)).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            assert_eq!(log.numbers().len(), 600);
            pool.update(config().per_key(KeyRule::default())).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            assert_eq!(log.numbers().len(), 1_800);
            runtime.shutdown(ms(10)).await;
        });
    });
}

/// Regression: a delay of zero was rounded up, and the job overtaken by a later one of its key.
#[test]
fn a_delay_of_zero_costs_no_turn() {
    run_paused(async {
        let (runtime, pool, log) = logged(at_once(1)).await;
        tokio::time::sleep(ms(1)).await;
        pool.enqueue(JOB.call(job(1))).key("a").run_after(secs(0)).await.unwrap();
        let past = std::time::SystemTime::UNIX_EPOCH;
        pool.enqueue(JOB.call(job(2))).key("a").run_at(past).await.unwrap();
        enqueue(&pool, "a", job(3)).await;
        idle(&pool).await;
        assert_eq!(log.numbers(), [1, 2, 3]);
        runtime.shutdown(secs(1)).await;
    });
}
