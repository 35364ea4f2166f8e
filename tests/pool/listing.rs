//! Jobs listed by state, page by page.

use crate::common::*;
use actix_workpool::{
    ActionKey, ConfigError, Cursor, OutcomeKind, PoolConfig, PoolError, Runtime, RuntimeBuilder,
    WorkError, WorkFilter, WorkId, WorkPage, WorkStatus, Workpool,
};

const OTHER: ActionKey<u64, u64> = ActionKey::new("other");

fn config() -> PoolConfig {
    PoolConfig::default().max_parallelism(2)
}

/// `TASK` 0 waits at the gate, 1 fails, and anything else succeeds, as `OTHER` always does.
fn functions(builder: RuntimeBuilder, gate: &Gate) -> RuntimeBuilder {
    let builder = task(builder, gate, |n, _| async move {
        match n {
            1 => Err(WorkError::non_retryable("no luck")),
            n => Ok(n),
        }
    });
    builder.action_fn(OTHER, |n, _| async move { Ok(n) })
}

fn ids(page: &WorkPage) -> Vec<WorkId> {
    page.works.iter().map(|work| work.work_id).collect()
}

/// Everything that a filter lists, and in how many pages. Cursors go through their text, as in a URL.
async fn all(runtime: &Runtime, filter: WorkFilter, limit: usize) -> (Vec<WorkId>, usize) {
    let mut found = Vec::new();
    let mut next: Option<Cursor> = None;
    for pages in 1.. {
        let mut filter = filter.clone().limit(limit);
        if let Some(cursor) = next {
            filter = filter.after(cursor.to_string().parse().unwrap()).unwrap();
        }
        let page = runtime.works(filter).await.unwrap();
        assert!(page.works.len() <= limit);
        serde_json::to_value(&page).unwrap();
        found.extend(ids(&page));
        next = page.next;
        if next.is_none() {
            return (found, pages);
        }
    }
    unreachable!("a listing ends")
}

async fn enqueue(pool: &Workpool, n: u64) -> WorkId {
    pool.enqueue(TASK.call(n)).await.unwrap().id()
}

#[test]
fn pending_jobs_are_listed_in_due_order_across_pools() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let builder = functions(builder(), &gate).pool("q", config());
            let (runtime, p) = start(builder, config()).await;
            let q = runtime.pool("q").unwrap();
            let mut works = Vec::new();
            for delay in [70, 10, 50, 30, 20, 60, 40] {
                let pool = if delay % 20 == 0 { &q } else { &p };
                let work = pool.enqueue(TASK.call(delay)).run_after(secs(delay)).await.unwrap();
                works.push((delay, work.id()));
            }
            works.sort_unstable();
            let in_order: Vec<_> = works.iter().map(|(_, id)| *id).collect();
            for limit in [1, 2, 3, 7, 100] {
                let (found, pages) = all(&runtime, WorkFilter::pending(), limit).await;
                assert_eq!(found, in_order, "pages of {limit}");
                assert!(pages <= 7 / limit + 1);
            }
            let of_q: Vec<_> =
                works.iter().filter(|work| work.0 % 20 == 0).map(|work| work.1).collect();
            assert_eq!(ids(&q.works(WorkFilter::pending()).await.unwrap()), of_q);
            let page = runtime.works(WorkFilter::pending().pool("q")).await.unwrap();
            assert_eq!((ids(&page), page.next), (of_q, None));
            let first = &runtime.works(WorkFilter::pending().limit(1)).await.unwrap().works[0];
            assert_eq!((first.pool.as_str(), first.function.as_str()), ("p", "task"));
            let WorkStatus::Pending { previous_attempts: 0, due: Some(due) } = first.status else {
                panic!("{first:?}");
            };
            assert!(due.duration_since(first.enqueued_at).unwrap() >= secs(10), "{first:?}");
            let nowhere = runtime.works(WorkFilter::pending().pool("no such pool")).await.unwrap();
            assert_eq!((nowhere.works.len(), nowhere.next), (0, None));
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn running_jobs_are_listed_until_they_end() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let (runtime, pool) =
                start(functions(builder(), &gate), config().max_parallelism(5)).await;
            let mut works = Vec::new();
            for _ in 0..5 {
                works.push(enqueue(&pool, 0).await);
                tokio::time::sleep(ms(10)).await;
            }
            for limit in [1, 2, 5] {
                assert_eq!(all(&runtime, WorkFilter::running(), limit).await.0, works);
            }
            let page = pool.works(WorkFilter::running()).await.unwrap();
            let WorkStatus::Running { progress, .. } = &page.works[0].status else {
                panic!("{page:?}")
            };
            assert_eq!(progress.as_ref().unwrap().note.as_deref(), Some("at the gate"));
            assert!(!page.works[4].canceling);
            pool.cancel(works[4]).await.unwrap();
            assert!(pool.works(WorkFilter::running()).await.unwrap().works[4].canceling);
            assert!(all(&runtime, WorkFilter::pending(), 9).await.0.is_empty());
            gate.open();
            pool.idle().await.unwrap();
            assert!(all(&runtime, WorkFilter::running(), 9).await.0.is_empty());
            assert_eq!(all(&runtime, WorkFilter::finished(), 2).await.0.len(), 5);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn finished_jobs_are_listed_newest_first_by_outcome() {
    on_each_store(|| {
        run_paused(async {
            let storage = Tables::new();
            let gate = Gate::new();
            let again = || functions(builder(), &gate).storage(storage.clone()).pool("p", config());
            let runtime = again().start().await.unwrap();
            let pool = runtime.pool("p").unwrap();
            let mut works = Vec::new();
            for n in [2, 1, 3, 1, 4, 1, 5] {
                let work = pool.enqueue(TASK.call(n)).await.unwrap();
                let _ = soon(work.join()).await;
                works.insert(0, (n, work.id()));
            }
            let later = pool.enqueue(TASK.call(6)).run_after(secs(3_600)).await.unwrap();
            later.cancel().await.unwrap();
            let _ = soon(later.join()).await;
            works.insert(0, (0, later.id()));
            let of = |wanted: fn(u64) -> bool| -> Vec<_> {
                works.iter().filter(|(n, _)| wanted(*n)).map(|(_, id)| *id).collect()
            };
            let mut runtime = runtime;
            for _ in 0..2 {
                for limit in [1, 3, 8, 500] {
                    let list = async |filter| all(&runtime, filter, limit).await.0;
                    let with = WorkFilter::finished_with;
                    assert_eq!(list(WorkFilter::finished()).await, of(|_| true));
                    assert_eq!(list(with(OutcomeKind::Success)).await, of(|n| n > 1));
                    assert_eq!(list(with(OutcomeKind::Failed)).await, of(|n| n == 1));
                    assert_eq!(list(with(OutcomeKind::Canceled)).await, of(|n| n == 0));
                }
                // Also after a restart, with everything in the tables.
                runtime.shutdown(secs(0)).await;
                runtime = again().start().await.unwrap();
            }
            // What finishes between two pages does not shift them.
            let first = runtime.works(WorkFilter::finished().limit(3)).await.unwrap();
            let pool = runtime.pool("p").unwrap();
            soon(pool.enqueue(TASK.call(9)).await.unwrap().join()).await.unwrap();
            let rest = WorkFilter::finished().after(first.next.unwrap()).unwrap();
            assert_eq!(ids(&runtime.works(rest).await.unwrap()), of(|_| true)[3..]);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn a_page_of_a_rare_function_looks_at_a_bounded_number_of_jobs() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let (runtime, pool) = start(functions(builder(), &gate), config()).await;
            let mut rare = Vec::new();
            for _ in 0..2 {
                let many = (0..2_500).map(|_| TASK.call(7));
                pool.enqueue_batch(many).run_after(secs(60)).await.unwrap();
                rare.push(pool.enqueue(OTHER.call(7)).run_after(secs(60)).await.unwrap().id());
            }
            let first = runtime.works(WorkFilter::pending().function("other")).await.unwrap();
            assert!(first.works.is_empty() && first.next.is_some());
            for limit in [1, 100] {
                let filter = WorkFilter::pending().function("other");
                let (found, pages) = all(&runtime, filter, limit).await;
                assert_eq!(found, rare);
                assert!((3..=6).contains(&pages), "{pages}");
            }
            pool.idle().await.unwrap();
            let (mut found, pages) =
                all(&runtime, WorkFilter::finished().function("other"), 100).await;
            found.sort_unstable();
            rare.sort_unstable();
            assert_eq!(found, rare);
            assert!((3..=6).contains(&pages), "{pages}");
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn a_page_looks_at_a_bounded_number_of_bytes() {
    on_each_store(|| {
        run_paused(async {
            const LARGE: ActionKey<String, String> = ActionKey::new("large");
            let builder = builder().action_fn(LARGE, |text, _| async move { Ok(text) });
            let (runtime, pool) = start(builder, config()).await;
            let many = (0..60).map(|_| LARGE.call("x".repeat(500_000)));
            let mut works: Vec<_> = Vec::new();
            for function in many {
                works.push(pool.enqueue(function).run_after(secs(60)).await.unwrap().id());
            }
            let a_few = |pages: usize| assert!((3..=6).contains(&pages), "{pages}");
            let (found, pages) = all(&runtime, WorkFilter::pending(), 100).await;
            assert_eq!(found, works);
            a_few(pages);
            let absent = WorkFilter::pending().function("other");
            let (found, pages) = all(&runtime, absent, 100).await;
            assert!(found.is_empty());
            a_few(pages);
            pool.idle().await.unwrap();
            let (mut found, pages) = all(&runtime, WorkFilter::finished(), 100).await;
            found.sort_unstable();
            assert_eq!(found, works);
            a_few(pages);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn a_page_of_what_runs_is_bounded_in_jobs_and_bytes_and_goes_across_pools() {
    on_each_store(|| {
        run_paused(async {
            const LARGE: ActionKey<String, usize> = ActionKey::new("large");
            let gate = Gate::new();
            let at = gate.clone();
            let builder = functions(builder(), &gate).action_fn(LARGE, move |text: String, _| {
                let gate = at.clone();
                async move {
                    gate.pass().await;
                    Ok(text.len())
                }
            });
            let many = config().max_parallelism(3_000);
            let (runtime, p) = start(
                builder.pool("q", many.clone()).pool("r", config().max_parallelism(40)),
                many,
            )
            .await;
            let [q, r] = ["q", "r"].map(|name| runtime.pool(name).unwrap());
            // The pools take turns, at different times; the rare ones come last.
            for round in 0..4 {
                let pool = if round % 2 == 0 { &p } else { &q };
                pool.enqueue_batch((0..700).map(|_| TASK.call(0))).await.unwrap();
                tokio::time::sleep(ms(10)).await;
            }
            let mut rare = Vec::new();
            for _ in 0..40 {
                rare.push(r.enqueue(LARGE.call("x".repeat(500_000))).await.unwrap().id());
                tokio::time::sleep(ms(10)).await;
            }
            let (found, pages) = all(&runtime, WorkFilter::running(), 500).await;
            assert_eq!((found.len(), &found[2_800..]), (2_840, &rare[..]));
            assert!((6..=10).contains(&pages), "{pages}");
            let mut once = found.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), found.len(), "each is listed once");
            let of_q = WorkFilter::running().pool("q");
            assert_eq!(all(&runtime, of_q, 333).await.0.len(), 1_400);
            let (found, pages) = all(&runtime, WorkFilter::running().pool("r"), 500).await;
            assert_eq!(found, rare);
            assert!((3..=4).contains(&pages), "8 MiB at a time: {pages}");
            for limit in [1, 500] {
                let few = WorkFilter::running().function("large");
                let (found, pages) = all(&runtime, few.clone(), limit).await;
                assert_eq!(found, rare);
                // The first one looks at 2,000 others.
                assert_eq!(pages, 1 + rare.len().div_ceil(limit), "pages of {limit}");
                let first = runtime.works(few).await.unwrap();
                assert!(first.works.is_empty() && first.next.is_some(), "others come first");
            }
            let nowhere = runtime.works(WorkFilter::running().pool("no such pool")).await.unwrap();
            assert_eq!((nowhere.works.len(), nowhere.next), (0, None));
            gate.open();
            for pool in [p, q, r] {
                pool.idle().await.unwrap();
            }
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn what_cannot_be_listed_is_an_error() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(functions(builder(), &Gate::new()), config()).await;
            for given in [0, 501] {
                let error = pool.works(WorkFilter::running().limit(given)).await.unwrap_err();
                assert!(matches!(error, PoolError::Config(ConfigError::PageSize { max: 500, .. })));
            }
            pool.enqueue(TASK.call(2)).run_after(secs(9)).await.unwrap();
            pool.enqueue(TASK.call(2)).run_after(secs(9)).await.unwrap();
            let page = pool.works(WorkFilter::pending().limit(1)).await.unwrap();
            let error = WorkFilter::finished().after(page.next.unwrap()).unwrap_err();
            assert!(matches!(error, ConfigError::Cursor { .. }), "{error}");
            runtime.shutdown(secs(0)).await;
            assert!(matches!(pool.works(WorkFilter::pending()).await, Err(PoolError::Closed)));
        });
    });
}
