//! What the dashboard shows of an `on_complete`, and how much it tells those who listen.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use crate::common::{
    ECHO, Note, WithEcho, builder, run_paused, run_real, secs, settle, soon, start,
};
use actix_web::App;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_workpool::web::{Dashboard, insecure_allow_all, workpool_dashboard};
use actix_workpool::{PoolConfig, Runtime, Workpool};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);
/// Four times a second.
const TICK: Duration = Duration::from_millis(250);

async fn open() -> (Runtime, Workpool, Dashboard) {
    let builder = builder().echo().on_complete::<Note>();
    let (runtime, pool) = start(builder, PoolConfig::default()).await;
    let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
    (runtime, pool, dashboard)
}

async fn get(dashboard: &Dashboard, path: &str) -> ServiceResponse {
    let app = init_service(App::new().service(dashboard.scope("/w"))).await;
    call_service(&app, TestRequest::get().uri(path).to_request()).await
}

async fn listen(dashboard: &Dashboard) -> ServiceResponse {
    get(dashboard, "/w/api/events").await
}

#[test]
fn what_becomes_of_an_on_complete_is_shown() {
    run_real(async {
        let (runtime, pool, dashboard) = open().await;
        let text = async |path: String| {
            let answer = get(&dashboard, &path).await;
            String::from_utf8(read_body(answer).await.to_vec()).unwrap()
        };
        for (after, fails, state, said) in [
            (HOUR, false, "waiting", "runs in the commit that completes this job"),
            (Duration::ZERO, false, "done", "ran in the commit that completed this job"),
            (Duration::ZERO, true, "failed", "became"),
        ] {
            let work = pool.enqueue(ECHO.call(1)).run_after(after).on_complete::<Note>(fails);
            let work = work.await.unwrap();
            if after.is_zero() {
                work.join().await.unwrap();
            }
            let shown = text(format!("/w/api/works/{}", work.id())).await;
            let shown = serde_json::from_str::<Value>(&shown).unwrap();
            let shown = &shown["on_complete"];
            assert_eq!((&shown["name"], &shown["state"]), (&json!("note"), &json!(state)));
            let page = text(format!("/w/works/{}", work.id())).await;
            assert!(page.contains("<code>note</code>") && page.contains(said), "{page}");
            // It leads to the job that it has become.
            assert_eq!(shown["follow_up"].is_string(), fails, "{shown}");
            if let Some(follow_up) = shown["follow_up"].as_str() {
                assert!(page.contains(&format!("href=\"{follow_up}\"")), "{page}");
                let shown = text(format!("/w/works/{follow_up}")).await;
                assert!(shown.contains("note"), "{shown}");
            }
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

type Body = Pin<Box<BoxBody>>;

async fn next(body: &mut Body) -> Option<String> {
    let event = poll_fn(|cx| body.as_mut().poll_next(cx)).await?;
    Some(String::from_utf8(event.expect("no error").to_vec()).unwrap())
}

fn body_of(answer: ServiceResponse) -> Body {
    assert_eq!(answer.status(), 200);
    Box::pin(answer.into_body())
}

/// There is always something new.
async fn change(pool: &Workpool) {
    loop {
        pool.enqueue(ECHO.call(1)).run_after(HOUR).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn events_come_four_times_a_second_at_most() {
    run_paused(async {
        let (runtime, pool, dashboard) = open().await;
        let mut body = body_of(listen(&dashboard).await);
        let mut times = Vec::new();
        let listened = async {
            while times.len() < 40 {
                assert!(next(&mut body).await.unwrap().starts_with("event: overview\n"));
                times.push(Instant::now());
            }
        };
        tokio::select! {
            () = change(&pool) => {}
            () = soon(listened) => {}
        }
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= TICK, "{:?}", pair[1] - pair[0]);
        }
        assert!(times[39] - times[0] <= 39 * 2 * TICK, "{:?}", times[39] - times[0]);
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn nothing_is_told_of_pools_in_which_nothing_happens() {
    run_paused(async {
        let (runtime, pool, dashboard) = open().await;
        pool.enqueue(ECHO.call(1)).await.unwrap().join().await.unwrap();
        // The minute that the rates are of passes.
        sleep(Duration::from_secs(120)).await;
        let mut body = body_of(listen(&dashboard).await);
        let mut told = 0;
        let listened = async {
            loop {
                told += usize::from(next(&mut body).await.unwrap().starts_with("event: overview"));
            }
        };
        assert!(timeout(Duration::from_secs(60), listened).await.is_err());
        // The first one, and one for each slot of ten seconds that begins.
        assert!((6..=8).contains(&told), "{told}");
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn who_does_not_read_what_is_told_is_told_no_more_and_loses_his_place() {
    run_paused(async {
        let (runtime, pool, dashboard) = open().await;
        let mut sleeping = Vec::new();
        for _ in 0..32 {
            sleeping.push(body_of(listen(&dashboard).await));
        }
        assert_eq!(listen(&dashboard).await.status(), 503);
        let _ = timeout(secs(30), change(&pool)).await;
        // All places are free, though nobody has gone.
        let mut listening = Vec::new();
        for _ in 0..32 {
            listening.push(body_of(listen(&dashboard).await));
        }
        for body in &mut sleeping {
            let mut told = 0;
            while next(body).await.is_some() {
                told += 1;
            }
            assert_eq!(told, 1);
        }
        settle().await;
        runtime.shutdown(Duration::ZERO).await;
    });
}
