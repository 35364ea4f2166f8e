//! The pages as somebody who operates the pools sees them: the words for what pools and jobs do, selection, previews.

use crate::common::{Gate, run_real, soon, start};
use crate::dashboard::{
    Answer, ECHO, FAIL, FORM, HANG, HOUR, ask, builder, by_header, delayed, get, hanging, open,
    post,
};
use actix_web::test::TestRequest;
use actix_workpool::web::{Dashboard, Sensitive, insecure_allow_all, workpool_dashboard};
use actix_workpool::{ActionKey, JoinError, PoolConfig, RetryBehavior, WorkId, Workpool};
use serde_json::{Value, json};
use std::time::Duration;

pub async fn page(dashboard: &Dashboard, path: &str) -> String {
    let answer = ask(dashboard, get(path)).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.text
}

pub async fn send(dashboard: &Dashboard, path: &str, form: &str) -> Answer {
    let form = form.to_owned();
    ask(dashboard, post(path).insert_header(("content-type", FORM)).set_payload(form)).await
}

/// The options of a select.
fn options<'p>(page: &'p str, select: &str) -> Vec<&'p str> {
    let (_, rest) = page.split_once(&format!("<select name=\"{select}\">")).expect("a select");
    let (inside, _) = rest.split_once("</select>").unwrap();
    let values = inside.split("<option value=\"").skip(1);
    values.map(|value| value.split('"').next().unwrap()).collect()
}

#[test]
fn a_pool_is_running_idle_paused_or_full() {
    const PASS: ActionKey<(), ()> = ActionKey::new("pass");
    run_real(async {
        let gate = Gate::new();
        let door = gate.clone();
        let builder = builder().action_fn(PASS, move |(), _| {
            let door = door.clone();
            async move {
                door.pass().await;
                Ok(())
            }
        });
        let (runtime, pool) = start(builder, PoolConfig::default().max_parallelism(1)).await;
        let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
        let is = async |status: &str| {
            let shown = ask(&dashboard, get("/api/pools/p")).await.json();
            assert_eq!(shown["status"], status, "{shown}");
            assert!(shown["run_status"].is_null() && shown["turn"].is_null(), "{shown}");
            // An answer that is a moment old is not kept: a change of the pool is made here.
            send(&dashboard, "/pools/p", "").await;
            for path in ["/", "/pools/p"] {
                let page = page(&dashboard, path).await;
                assert!(page.contains(&format!(">{status}</span>")), "{status}: {page}");
            }
        };
        is("idle").await;
        delayed(&pool).await;
        is("idle").await;
        pool.enqueue(PASS.call(())).await.unwrap();
        gate.entered(1).await;
        is("running").await;
        pool.enqueue(PASS.call(())).await.unwrap();
        is("full").await;
        pool.pause().await.unwrap();
        is("paused").await;
        pool.update(PoolConfig::default().paused(false).max_parallelism(0)).await.unwrap();
        is("paused").await;
        pool.update(PoolConfig::default().max_parallelism(3)).await.unwrap();
        gate.open();
        while pool.pending() > 1 {
            tokio::task::yield_now().await;
        }
        is("idle").await;
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn the_navigation_marks_the_page_and_counts() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let works = (0..1_204).map(|n| ECHO.call(json!(n)));
        pool.enqueue_batch(works).run_after(HOUR).await.unwrap();
        pool.enqueue(FAIL.call("no".into())).await.unwrap().join().await.unwrap_err();
        let runs = hanging(&pool, "on").await;
        for (path, marked) in [
            ("/", "Overview"),
            ("/works", "Waiting"),
            ("/works?state=running", "Running"),
            ("/works?state=finished&outcome=failed", "Failed"),
            ("/works?outcome=failed", "Failed"),
            ("/works?state=finished&outcome=success", "Finished"),
            ("/config", "Configuration"),
        ] {
            let page = page(&dashboard, path).await;
            let (_, current) = page.split_once("aria-current=\"page\">").expect("one is marked");
            assert!(current.starts_with(marked), "{path}: {current}");
            assert_eq!(page.matches("aria-current=\"page\"").count(), 1, "{path}");
            let counts: Vec<_> = page.split("class=\"count").skip(1).collect();
            let counts = counts.iter().map(|count| count.split(['>', '<']).nth(1).unwrap());
            assert_eq!(counts.collect::<Vec<_>>(), ["1,204", "1", "1"], "{path}");
        }
        let page = page(&dashboard, &format!("/works/{runs}")).await;
        assert!(!page.contains("aria-current=\"page\""), "{page}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn pools_and_functions_are_chosen_from_those_that_there_are() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        runtime.create_pool("other", PoolConfig::default()).await.unwrap();
        delayed(&pool).await;
        let shown = page(&dashboard, "/works?state=pending&pool=p&function=hang").await;
        assert_eq!(options(&shown, "pool"), ["", "other", "p"]);
        assert_eq!(options(&shown, "function"), ["", "echo", "fail", "hang"]);
        assert!(shown.contains("<option value=\"p\" selected>"), "{shown}");
        assert!(shown.contains("Nothing here.") && shown.contains("Cancel all…"), "{shown}");
        // One that is not there any more is still what is asked for.
        let shown = page(&dashboard, "/works?state=pending&function=gone").await;
        assert!(shown.contains("<option value=\"gone\" selected>"), "{shown}");
        // All that wait are only canceled by pool or function.
        let shown = page(&dashboard, "/works?state=pending&pool=&function=").await;
        assert!(!shown.contains("Cancel all…"), "{shown}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

fn form(action: &str, ids: &[WorkId]) -> String {
    let ids: String = ids.iter().map(|id| format!("&id={id}")).collect();
    format!("action={action}&state=pending&outcome=&pool=p&function={ids}")
}

#[test]
fn selected_jobs_are_canceled_run_or_retried() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(delayed(&pool).await);
        }
        let shown = page(&dashboard, "/works?state=pending&pool=p").await;
        for id in &ids {
            let (begin, end) = (&id.to_string()[..8], &id.to_string()[32..]);
            assert!(shown.contains(&format!("name=\"id\" value=\"{id}\"")), "{shown}");
            assert!(shown.contains(&format!("title=\"{id}\">{begin}…{end}<")), "{shown}");
        }
        let back = |rest: &str| {
            let list = "state=pending&outcome=&pool=p&function=&priority=&key=&limit=";
            format!("../works?{list}&{rest}")
        };
        let answer = send(&dashboard, "/works/selected", &form("cancel", &ids[..2])).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (303, &*back("did=cancel&done=2"))
        );
        for id in &ids[..2] {
            assert_eq!(pool.work::<Value>(*id).join().await, Err(JoinError::Canceled));
        }
        let shown = page(&dashboard, "/works?state=pending&pool=p&did=cancel&done=2").await;
        assert!(shown.contains("2 were canceled."), "{shown}");

        let answer = send(&dashboard, "/works/selected", &form("run", &ids)).await;
        assert_eq!(answer.header("location"), back("did=run&done=3"), "two had ended");
        for id in &ids[2..] {
            pool.work::<Value>(*id).join().await.unwrap();
        }

        let failed = pool.enqueue(FAIL.call("no".into())).await.unwrap();
        failed.join().await.unwrap_err();
        let shown = page(&dashboard, "/works?outcome=failed").await;
        assert!(shown.contains("Retry selected") && shown.contains("Retry all…"), "{shown}");
        let retry = form("retry", &[failed.id()]);
        for done in [1, 0] {
            let answer = send(&dashboard, "/works/selected", &retry).await;
            assert_eq!(answer.header("location"), back(&format!("did=retry&done={done}")));
        }

        // A page of the longest kind fits into the form.
        let works = (0..200).map(|n| ECHO.call(json!(n)));
        let many = pool.enqueue_batch(works).run_after(HOUR).await.unwrap();
        let answer = send(&dashboard, "/works/selected", &form("cancel", many.ids())).await;
        assert_eq!(answer.header("location"), back("did=cancel&done=200"));

        let kept = delayed(&pool).await;
        let answer = send(&dashboard, "/works/selected", &form("cancel", &[])).await;
        assert_eq!(answer.header("location"), back("did=nothing"));
        let shown = page(&dashboard, "/works?did=nothing").await;
        assert!(shown.contains("Select jobs first."), "{shown}");
        for wrong in ["action=cancel&id=1", "action=drop", "id=", "action=cancel&cursor=f.1"] {
            let answer = send(&dashboard, "/works/selected", wrong).await;
            assert_eq!(answer.status, 400, "{wrong}");
        }
        assert!(!pool.work::<Value>(kept).status().await.unwrap().is_final());
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn only_what_is_permitted_is_offered_and_done() {
    run_real(async {
        let (runtime, pool) = start(builder(), PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), by_header);
        let waits = delayed(&pool).await;
        let failed = pool.enqueue(FAIL.call("no".into())).await.unwrap();
        failed.join().await.unwrap_err();
        let as_user =
            |request: TestRequest, user: &'static str| request.insert_header(("x-user", user));
        let lists =
            ["/works?state=pending&pool=p", "/works?state=running", "/works?outcome=failed"];
        for (user, offered) in [
            ("viewer", vec![]),
            ("canceler", vec!["Cancel all…", "Cancel selected"]),
            (
                "admin",
                vec![
                    "Run all now…",
                    "Cancel all…",
                    "Run selected now",
                    "Cancel selected",
                    "Retry all…",
                    "Retry selected",
                ],
            ),
        ] {
            let mut all = String::new();
            for list in lists {
                all += &ask(&dashboard, as_user(get(list), user)).await.text;
            }
            for control in [
                "Run all now…",
                "Cancel all…",
                "Run selected now",
                "Cancel selected",
                "Retry all…",
                "Retry selected",
            ] {
                assert_eq!(all.contains(control), offered.contains(&control), "{user}: {control}");
            }
            assert_eq!(all.contains("type=\"checkbox\""), user != "viewer", "{user}");
        }
        for (user, action, status) in [
            ("viewer", "cancel", 403),
            ("viewer", "retry", 403),
            ("canceler", "run", 403),
            ("canceler", "retry", 403),
            ("canceler", "cancel", 303),
        ] {
            let request =
                as_user(post("/works/selected"), user).insert_header(("content-type", FORM));
            let answer = ask(&dashboard, request.set_payload(form(action, &[waits]))).await;
            assert_eq!(answer.status, status, "{user} {action}");
            if status == 403 {
                assert!(!pool.work::<Value>(waits).status().await.unwrap().is_final());
            }
        }
        // The page of a pool has its controls for those who may use them.
        for (user, forms) in [("viewer", 0), ("canceler", 0), ("admin", 2)] {
            let page = ask(&dashboard, as_user(get("/pools/p"), user)).await.text;
            assert_eq!(page.matches("method=\"post\"").count(), forms, "{user}: {page}");
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn all_failed_jobs_are_retried_without_a_filter() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let other = runtime.create_pool("other", PoolConfig::default()).await.unwrap();
        for pool in [&pool, &other, &other] {
            pool.enqueue(FAIL.call("no".into())).await.unwrap().join().await.unwrap_err();
        }
        let shown = page(&dashboard, "/works/retry?pool=&function=").await;
        assert!(shown.contains("<dd>3</dd>") && shown.contains("Yes, enqueue them"), "{shown}");
        let answer = send(&dashboard, "/works/retry", "pool=&function=").await;
        assert_eq!(answer.header("location"), "retry?pool=&function=&done=3");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_list_shows_the_beginning_of_arguments_as_they_may_be_shown() {
    run_real(async {
        let (runtime, pool, open) = open(PoolConfig::default()).await;
        let long = json!({ "text": format!("begin\n{}", "ü".repeat(200)) });
        pool.enqueue(ECHO.call(long)).run_after(HOUR).await.unwrap();
        let list = page(&open, "/works?state=pending").await;
        assert!(list.contains("{&quot;text&quot;:&quot;begin\\nü"), "{list}");
        assert!(list.contains("üü…</code>") && !list.contains(&"ü".repeat(80)), "{list}");
        // What is redacted may not be JSON, nor one line.
        let redacting =
            workpool_dashboard(runtime.clone(), insecure_allow_all()).redact(|what, _, text| {
                match what {
                    Sensitive::Args => format!("<i>\n{} bytes", text.len()),
                    _ => text.to_owned(),
                }
            });
        let list = page(&redacting, "/works?state=pending").await;
        assert!(list.contains("&lt;i&gt; 418 bytes") && !list.contains("begin"), "{list}");
        // What is large is not given to a function that may take its time with it.
        let huge = json!("x".repeat(20 << 10));
        pool.enqueue(ECHO.call(huge)).run_after(HOUR).await.unwrap();
        let list = page(&redacting, "/works?state=pending").await;
        assert!(list.contains("(20 KiB)"), "{list}");
        // Those of a job that has succeeded are not kept.
        pool.enqueue(ECHO.call(json!("gone"))).await.unwrap().join().await.unwrap();
        let list = page(&open, "/works?outcome=success").await;
        assert!(list.contains("succeeded") && !list.contains("gone"), "{list}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

/// Everything that stands between tags.
fn text_of(page: &str) -> String {
    page.split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| format!("{text} "))
        .collect()
}

#[test]
fn a_state_has_the_same_word_on_all_pages() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let waits = delayed(&pool).await;
        let canceled = delayed(&pool).await;
        pool.cancel(canceled).await.unwrap();
        let done = pool.enqueue(ECHO.call(json!([1, { "a": "b" }]))).await.unwrap();
        done.join().await.unwrap();
        let twice = RetryBehavior::default().max_attempts(2).initial_backoff(Duration::ZERO);
        let failed = pool.enqueue(FAIL.call("no".into())).retry(twice).await.unwrap();
        failed.join().await.unwrap_err();
        let runs = hanging(&pool, "on").await;
        for (id, word, timeline) in [
            (waits, "waiting", vec!["Enqueued", "Waits"]),
            (runs, "running", vec!["Enqueued", "Attempt 1 runs"]),
            (done.id(), "succeeded", vec!["Enqueued", "Attempt 1 succeeded", "Succeeded"]),
            (failed.id(), "failed", vec!["Attempt 1 failed", "Attempt 2 failed", "Failed"]),
            (canceled, "canceled", vec!["Enqueued", "Canceled"]),
        ] {
            let page = page(&dashboard, &format!("/works/{id}")).await;
            assert!(page.contains(&format!(">{word}</span>")), "{word}: {page}");
            let (_, list) = page.split_once("<ol class=\"timeline\">").expect("a timeline");
            for part in timeline {
                assert!(list.contains(part), "{word}: {part} in {list}");
            }
            assert!(page.contains("<svg class=\"life\""), "{page}");
        }
        let page_of = async |path: &str| text_of(&page(&dashboard, path).await);
        for path in [
            "/".to_owned(),
            "/pools/p".into(),
            "/works".into(),
            "/works?state=running".into(),
            "/works?state=finished".into(),
            format!("/works/{}", done.id()),
            format!("/works/{waits}"),
        ] {
            let text = page_of(&path).await;
            let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).collect();
            for other in ["pending", "success", "cancelled", "scheduled"] {
                assert!(!words.contains(&other), "{other} on {path}: {text}");
            }
        }
        let page = page(&dashboard, &format!("/works/{}", done.id())).await;
        assert!(page.contains("[\n  1,\n  {\n    &quot;a&quot;: &quot;b&quot;"), "{page}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_job_has_the_controls_that_apply() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let failed = pool.enqueue(FAIL.call("no".into())).await.unwrap();
        failed.join().await.unwrap_err();
        let done = pool.enqueue(ECHO.call(json!(1))).await.unwrap();
        done.join().await.unwrap();
        for (id, controls) in [
            (delayed(&pool).await, vec!["run", "cancel"]),
            (hanging(&pool, "on").await, vec!["cancel", "abort"]),
            (failed.id(), vec!["retry"]),
            (done.id(), vec![]),
        ] {
            let page = page(&dashboard, &format!("/works/{id}")).await;
            for control in ["run", "cancel", "abort", "retry"] {
                let form = format!("action=\"{id}/{control}\"");
                assert_eq!(page.contains(&form), controls.contains(&control), "{control}: {page}");
            }
        }
        let page = page(&dashboard, &format!("/works/{}", failed.id())).await;
        let (before, _) = page.split_once("Timeline").unwrap();
        assert!(before.contains("<pre>no</pre>"), "the error comes first: {page}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn the_totals_are_those_of_all_pools() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default().max_parallelism(3)).await;
        let four = PoolConfig::default().max_parallelism(4);
        let other = runtime.create_pool("other", four).await.unwrap();
        let each = async |pool: &Workpool| {
            delayed(pool).await;
            pool.enqueue(FAIL.call("no".into())).await.unwrap().join().await.unwrap_err();
            pool.enqueue(HANG.call("on".into())).await.unwrap();
            hanging(pool, "on").await;
        };
        each(&pool).await;
        each(&other).await;
        let shown = text_of(&page(&dashboard, "/").await);
        let shown: Vec<_> = shown.split_whitespace().collect();
        let shown = shown.join(" ");
        for tile in ["Running 4 of 7 slots", "Waiting 2", "Failed 2 in 10 min"] {
            assert!(shown.contains(tile), "{tile} in {shown}");
        }
        let alone = text_of(&page(&dashboard, "/pools/other").await);
        let alone: Vec<_> = alone.split_whitespace().collect();
        assert!(alone.join(" ").contains("Running 2 of 4 slots"), "{alone:?}");
        let moved = send(&dashboard, "/pools/other?back=pool", "max_parallelism=9").await;
        assert_eq!(moved.header("location"), "../pools/other");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}
