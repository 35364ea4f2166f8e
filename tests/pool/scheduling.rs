//! What starts next: priorities, aging, rates, and pools that rest.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::{
    ConfigError, EnqueueError, Mutation, PoolConfig, PoolError, Priority, PriorityAnswer, Rate,
    Runtime, Transaction, Why, WorkError, WorkFilter, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What has started, in order, each with the time since the beginning.
#[derive(Clone)]
struct Started(Arc<Mutex<Vec<(u64, Duration)>>>, Instant);

impl Started {
    fn numbers(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    fn times(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().map(|(_, at)| at.as_millis() as u64).collect()
    }
}

/// A runtime whose `TASK` notes its argument.
async fn noting(config: PoolConfig) -> (Runtime, Workpool, Started) {
    let started = Started(Arc::default(), Instant::now());
    let notes = started.clone();
    let builder = builder().action_fn(TASK, move |n, _| {
        let Started(notes, begun) = notes.clone();
        async move {
            notes.lock().unwrap().push((n, begun.elapsed()));
            Ok(n)
        }
    });
    let (runtime, pool) = start(builder, config).await;
    (runtime, pool, started)
}

fn prio(number: i8) -> Priority {
    Priority::new(number)
}

#[test]
fn better_priorities_start_first_and_equal_ones_in_the_order_of_their_enqueue() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, started) = noting(config().max_parallelism(1).paused(true)).await;
            let given = [0, 10, -10, 0, -128, 127, -10];
            for (number, priority) in (0..).zip(given) {
                pool.enqueue(TASK.call(number)).priority(prio(priority)).await.unwrap();
            }
            let listed = pool.works(WorkFilter::pending()).await.unwrap().works;
            let priorities: Vec<_> =
                listed.iter().map(|work| work.priority.unwrap().number()).collect();
            assert_eq!(priorities, [-128, -10, -10, 0, 0, 10, 127]);
            let high = pool.works(WorkFilter::pending().priority(Priority::HIGH)).await.unwrap();
            assert_eq!(high.works.len(), 2);
            let last = listed.last().unwrap().work_id;
            assert_eq!(pool.explain(last).await.unwrap().ahead.unwrap().works, 6);
            pool.resume().await.unwrap();
            soon(pool.idle()).await.unwrap();
            assert_eq!(started.numbers(), [4, 2, 6, 0, 3, 1, 5]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_priority_is_kept_across_retries_and_restarts_and_changed_while_the_job_waits() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, started) = noting(config().max_parallelism(1).paused(true)).await;
            let mut works = Vec::new();
            for number in 0..4 {
                works.push(pool.enqueue(TASK.call(number)).priority(Priority::LOW).await.unwrap());
            }
            let later = pool.enqueue(TASK.call(9)).run_after(secs(60)).await.unwrap();
            for work in [&works[2], &later] {
                let answer = work.set_priority(Priority::HIGH).await.unwrap();
                assert_eq!(answer, PriorityAnswer::Changed);
            }
            assert_eq!(works[2].explain().await.unwrap().priority, Some(Priority::HIGH));
            let status = later.status().await.unwrap();
            assert!(matches!(status, WorkStatus::Pending { due: Some(_), .. }), "{status:?}");
            pool.resume().await.unwrap();
            for work in &works {
                soon(work.join()).await.unwrap();
            }
            assert_eq!(started.numbers(), [2, 0, 1, 3]);
            let done = works[2].set_priority(Priority::LOW).await.unwrap();
            assert_eq!(done, PriorityAnswer::AlreadyFinished);
            let unknown = pool.set_priority(id(7), Priority::LOW).await.unwrap();
            assert_eq!(unknown, PriorityAnswer::NotFound);
            later.cancel().await.unwrap();
            runtime.shutdown(secs(1)).await;
            let closed = works[2].set_priority(Priority::LOW).await;
            assert!(matches!(closed, Err(PoolError::Closed)), "{closed:?}");
        });
    });
}

#[test]
fn a_job_that_is_moved_while_its_start_is_under_way_runs_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, started) = noting(config().max_parallelism(1)).await;
            for number in 0..50 {
                let work = pool.enqueue(TASK.call(number)).do_enqueue().unwrap();
                steps((number % 7) as usize).await;
                let answer = work.set_priority(prio((number % 5) as i8 - 2)).await.unwrap();
                assert_ne!(answer, PriorityAnswer::NotFound);
            }
            soon(pool.idle()).await.unwrap();
            let mut numbers = started.numbers();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..50).collect::<Vec<_>>());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn aging_lets_none_starve() {
    run_paused(async {
        for (aging, last) in [(None, true), (Some(ms(100)), false)] {
            let config = config().max_parallelism(1).rate(Rate::per_second(20));
            let config = aging.map_or(config.clone(), |span| config.aging(span));
            let (runtime, pool, started) = noting(config).await;
            pool.enqueue_batch((2_000..2_003).map(|n| TASK.call(n))).await.unwrap();
            let low = pool.enqueue(TASK.call(1_000)).priority(Priority::LOW).await.unwrap();
            for number in 0..60 {
                pool.enqueue(TASK.call(number)).await.unwrap();
                tokio::time::sleep(ms(45)).await;
            }
            soon(low.join()).await.unwrap();
            let place = started.numbers().iter().position(|number| *number == 1_000).unwrap();
            assert_eq!(place >= 58, last, "aging {aging:?}: it was number {place}");
            runtime.shutdown(secs(1)).await;
        }
    });
}

/// Enqueues a task of a high priority in its transaction.
#[derive(Serialize, Deserialize)]
struct Urgent(u64);

impl Mutation for Urgent {
    const NAME: &'static str = "urgent";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        tx.pool("p")?.enqueue(TASK.call(self.0)).priority(Priority::HIGH).submit()?;
        Ok(())
    }
}

#[test]
fn jobs_of_a_batch_and_of_a_transaction_have_priorities() {
    on_each_store(|| {
        run_paused(async {
            let started = Started(Arc::default(), Instant::now());
            let notes = started.0.clone();
            let builder = builder().mutation::<Urgent>().action_fn(TASK, move |n, _| {
                notes.lock().unwrap().push((n, Duration::ZERO));
                async move { Ok(n) }
            });
            let (runtime, pool) = start(builder, config().max_parallelism(1).paused(true)).await;
            pool.enqueue(TASK.call(1)).await.unwrap();
            pool.enqueue(Urgent(2)).priority(prio(-20)).await.unwrap();
            let batch = [TASK.call(3), TASK.call(4)];
            pool.enqueue_batch(batch).priority(prio(-5)).await.unwrap();
            pool.resume().await.unwrap();
            soon(pool.idle()).await.unwrap();
            assert_eq!(started.numbers(), [2, 3, 4, 1]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Rates.

#[test]
fn a_rate_spreads_starts_and_makes_no_attempt_before_its_time() {
    on_each_store(|| {
        run_paused(async {
            let rate = Rate::per_second(10).burst(3);
            let (runtime, pool, started) = noting(config().max_parallelism(50).rate(rate)).await;
            let works = pool.enqueue_batch((0..23).map(|n| TASK.call(n))).await.unwrap();
            for outcome in works.join().await {
                outcome.unwrap();
            }
            // As many attempts as jobs: none is made to find out that it is too early.
            assert_eq!(started.numbers(), (0..23).collect::<Vec<_>>());
            assert_eq!(pool.diagnostics().await.unwrap().report.completed, 23);
            let times = started.times();
            for (number, at) in (0..).zip(&times) {
                let due = 100u64 * u64::saturating_sub(number, 2);
                assert!((due.saturating_sub(6)..due + 20).contains(at), "{number} at {at} ms");
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_job_that_waits_for_the_rate_says_so_and_can_be_canceled() {
    run_paused(async {
        let rate = Rate::per_minute(2);
        let (runtime, pool, started) = noting(config().rate(rate)).await;
        let works = pool.enqueue_batch((0..3).map(|n| TASK.call(n))).await.unwrap();
        let works: Vec<_> = works.handles().collect();
        soon(works[0].join()).await.unwrap();
        settle().await;
        let explained = works[1].explain().await.unwrap();
        assert!(matches!(explained.why, Why::RateLimited { .. }), "{explained}");
        assert!(explained.to_string().contains("waits for the rate of its pool"), "{explained}");
        let expected = works[2].explain().await.unwrap().expected.unwrap().start;
        let wait = expected.duration_since(explained.at).unwrap().as_secs_f64();
        assert!((55.0..62.0).contains(&wait), "{wait}");
        works[1].cancel().await.unwrap();
        tokio::time::timeout(secs(35), works[2].join()).await.unwrap().unwrap();
        assert_eq!(started.numbers(), [0, 2]);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_rate_can_be_changed() {
    on_each_store(|| {
        run_paused(async {
            let rate = Rate::new(1, secs(60));
            let (runtime, pool, started) = noting(config().rate(rate)).await;
            let works = pool.enqueue_batch((0..4).map(|n| TASK.call(n))).await.unwrap();
            let works: Vec<_> = works.handles().collect();
            soon(works[0].join()).await.unwrap();
            settle().await;
            assert_eq!(started.numbers(), [0]);
            pool.update(config().rate(Rate::per_second(10))).await.unwrap();
            // What the old rate owes is owed at the new rate: an interval of 100 ms, not of a minute.
            let begun = Instant::now();
            soon(works[1].join()).await.unwrap();
            soon(works[2].join()).await.unwrap();
            assert!(begun.elapsed() < secs(1));
            pool.update(config().no_rate()).await.unwrap();
            soon(works[3].join()).await.unwrap();
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_rate_holds_across_a_restart() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let begun = Instant::now();
            let builder = || {
                let builder = Runtime::builder().worker_arbiters(0).storage(tables.clone());
                let builder = builder.pool("p", config().rate(Rate::new(1, secs(60))));
                builder.action_fn(TASK, |n, _| async move { Ok(n) })
            };
            let runtime = start_again(builder).await;
            let pool = runtime.pool("p").unwrap();
            let works = pool.enqueue_batch((0..2).map(|n| TASK.call(n))).await.unwrap();
            let ids: Vec<_> = works.handles().map(|work| work.id()).collect();
            let first = works.handles().next().unwrap();
            soon(first.join()).await.unwrap();
            runtime.shutdown(secs(1)).await;
            let runtime = start_again(builder).await;
            let second = runtime.pool("p").unwrap().work::<u64>(ids[1]);
            let end = tokio::time::timeout(secs(120), second.join()).await;
            assert_eq!(end.unwrap(), Ok(1));
            let waited = begun.elapsed();
            assert!(waited >= secs(59) && waited < secs(62), "{waited:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_pool_that_is_to_rest_starts_nothing_and_charges_nothing() {
    on_each_store(|| {
        run_paused(async {
            let begun = Instant::now();
            let notes = Started(Arc::default(), begun);
            let started = notes.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let Started(notes, begun) = notes.clone();
                async move {
                    let at = begun.elapsed();
                    notes.lock().unwrap().push((n, at));
                    assert_eq!(cx.attempt(), 1, "no attempt is charged");
                    match n == 0 && at < secs(10) {
                        true => Err(WorkError::limit_pool(secs(30))),
                        false => Ok(n),
                    }
                }
            });
            let (runtime, pool) = start(builder, config().max_parallelism(1)).await;
            let works = pool.enqueue_batch((0..3).map(|n| TASK.call(n))).no_retry().await.unwrap();
            for outcome in works.join().await {
                outcome.unwrap();
            }
            let (numbers, times) = (started.numbers(), started.times());
            assert_eq!(numbers.len(), 4, "{numbers:?}");
            assert!(times[1..].iter().all(|at| (30_000..30_100).contains(at)), "{times:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn what_could_never_start_is_refused() {
    run_paused(async {
        let (runtime, pool, _) = noting(config().rate(Rate::per_second(1).burst(4))).await;
        pool.enqueue(TASK.call(1)).cost(4).await.unwrap();
        for cost in [0, 5, u32::MAX] {
            match pool.enqueue(TASK.call(1)).cost(cost).await {
                Err(EnqueueError::Config(ConfigError::Cost { given, max: 4 })) => {
                    assert_eq!(given, cost);
                }
                other => panic!("{other:?}"),
            }
        }
        for wrong in [
            config().rate(Rate::per_second(0)),
            config().rate(Rate::new(5, Duration::ZERO)),
            config().rate(Rate::new(1, Duration::MAX)),
            config().rate(Rate::per_second(5).burst(0)),
            config().aging(Duration::from_micros(999)),
        ] {
            let refused = pool.update(wrong).await;
            assert!(matches!(refused, Err(PoolError::Config(_))), "{refused:?}");
        }
        assert_eq!(pool.settings().rate, Some(Rate::per_second(1).burst(4)));
        runtime.shutdown(secs(1)).await;
    });
}
