//! The dashboard's scope: who may do what, from where, and what is answered.

use std::time::Duration;

use crate::common::{
    Faulty, PHASES, ms, run_in_turn, run_paused, run_real, secs, settle, soon, start, steps,
};
use actix_web::body::MessageBody;
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, HttpRequest, HttpResponse, web};
use actix_workpool::testing::Clock;
use actix_workpool::web::{
    Dashboard, Permission, Permissions, Pool, PoolName, Refusal, Sensitive, insecure_allow_all,
    workpool_dashboard,
};
use actix_workpool::{
    ActionKey, JoinError, PoolConfig, RetryBehavior, Runtime, RuntimeBuilder, Schedule, Why,
    WorkError, WorkId, Workpool,
};
use serde_json::{Value, json};

pub const ECHO: ActionKey<Value, Value> = ActionKey::new("echo");
pub const FAIL: ActionKey<String, ()> = ActionKey::new("fail");
pub const HANG: ActionKey<String, ()> = ActionKey::new("hang");
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn builder() -> RuntimeBuilder {
    crate::common::builder()
        .action_fn(ECHO, |value, _| async move { Ok(value) })
        .action_fn(FAIL, |message, _| async move { Err(WorkError::retryable(message)) })
        .action_fn(HANG, |note, cx| async move {
            cx.progress_note(1, Some(4), note);
            cx.canceled().await;
            Err(WorkError::canceled())
        })
}

/// Knows whom a header names.
pub fn by_header(request: &HttpRequest) -> Result<Permissions, Refusal> {
    match request.headers().get("x-user").map(HeaderValue::as_bytes) {
        Some(b"viewer") => Ok(Permissions::read_only()),
        Some(b"canceler") => Ok(Permissions::read_only().with(Permission::Cancel)),
        Some(b"admin") => Ok(Permissions::full()),
        _ => {
            let challenge = Some(HeaderValue::from_static("Basic realm=\"workpool\""));
            Err(Refusal::Unauthorized { challenge })
        }
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
        value.to_str().unwrap()
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error").to_owned()
    }
}

pub const PREFIX: &str = "/ops/workpool";

pub async fn ask(dashboard: &Dashboard, request: TestRequest) -> Answer {
    let app = init_service(App::new().service(dashboard.scope(PREFIX))).await;
    let answer = call_service(&app, request.to_request()).await;
    let (status, headers) = (answer.status(), answer.headers().clone());
    // Events have no end.
    let bytes = match headers.get("content-type").map(HeaderValue::as_bytes) {
        Some(b"text/event-stream") => {
            let mut body = std::pin::pin!(answer.into_body());
            let first = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
            // Whoever asks for the head alone gets no event.
            first.map(|event| event.expect("no error")).unwrap_or_default()
        }
        _ => read_body(answer).await,
    };
    Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

pub fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(&format!("{PREFIX}{path}"))
}

pub fn post(path: &str) -> TestRequest {
    TestRequest::post().uri(&format!("{PREFIX}{path}"))
}

fn patch(path: &str, body: &Value) -> TestRequest {
    TestRequest::patch().uri(&format!("{PREFIX}{path}")).set_json(body)
}

pub async fn open(config: PoolConfig) -> (Runtime, Workpool, Dashboard) {
    let (runtime, pool) = start(builder(), config).await;
    let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
    (runtime, pool, dashboard)
}

pub async fn delayed(pool: &Workpool) -> WorkId {
    pool.enqueue(ECHO.call(json!(1))).run_after(HOUR).await.unwrap().id()
}

/// A route, and the type and content of the body that it takes.
type Route = (Method, &'static str, Option<(&'static str, &'static str)>);

/// Every route: its method, its path with `{id}` for a job that waits, and what it takes.
fn routes() -> Vec<Route> {
    let json = Some(("application/json", r#"{"max_parallelism": 3}"#));
    vec![
        (Method::GET, "/healthz", None),
        (Method::GET, "/api/overview", None),
        (Method::GET, "/api/works", None),
        (Method::GET, "/api/works/{id}", None),
        (Method::GET, "/api/config", None),
        (Method::POST, "/api/works/cancel?pool=p", None),
        (Method::POST, "/api/works/run?pool=p", None),
        (Method::POST, "/api/works/{id}/cancel", None),
        (Method::POST, "/api/works/{id}/abort", None),
        (Method::POST, "/api/works/{id}/run", None),
        (Method::POST, "/api/works/{id}/priority?priority=-10", None),
        (Method::POST, "/api/works/{id}/retry", None),
        (Method::POST, "/api/works/retry?pool=p", None),
        (Method::GET, "/api/pools/p", None),
        (Method::GET, "/api/pools/p/keys", None),
        (Method::PATCH, "/api/pools/p", json),
        (Method::GET, "/api/events", None),
        (Method::GET, "/api/schedules", None),
        (Method::POST, "/api/schedules/s/pause", None),
        (Method::POST, "/api/schedules/s/resume", None),
        (Method::POST, "/api/schedules/s/trigger", None),
        (Method::GET, "/schedules", None),
        (Method::POST, "/schedules/s/trigger", None),
        (Method::GET, "/api/openapi.json", None),
        (Method::GET, "", None),
        (Method::GET, "/", None),
        (Method::GET, "/works", None),
        (Method::GET, "/works/{id}", None),
        (Method::GET, "/find?id={id}", None),
        (Method::GET, "/config", None),
        (Method::GET, "/works/cancel?pool=p", None),
        (Method::GET, "/works/run?function=echo", None),
        (Method::POST, "/works/cancel", Some((FORM, "pool=p&function="))),
        (Method::POST, "/works/run", Some((FORM, "pool=p"))),
        (Method::GET, "/works/retry?function=echo", None),
        (Method::POST, "/works/retry", Some((FORM, "function=echo"))),
        (Method::GET, "/assets/workpool.svg", None),
        (Method::GET, "/assets/workpool.css", None),
        (Method::GET, "/assets/workpool.js", None),
        (Method::POST, "/works/{id}/cancel", None),
        (Method::POST, "/works/{id}/abort", None),
        (Method::POST, "/works/{id}/run", None),
        (Method::POST, "/works/{id}/priority", Some((FORM, "priority=5"))),
        (Method::POST, "/works/{id}/retry", None),
        (Method::POST, "/pools/p", Some((FORM, "max_parallelism=3"))),
        (Method::GET, "/?range=24h", None),
        (Method::GET, "/pools/p", None),
        (Method::GET, "/pools/p?range=24h", None),
        (Method::GET, "/pools/p/keys", None),
        (Method::POST, "/works/selected", Some((FORM, "action=cancel&state=pending"))),
        (Method::POST, "/pools/p?back=pool", Some((FORM, "max_parallelism=3"))),
        (Method::POST, "/pools/p?back=config", Some((FORM, "max_parallelism=3"))),
    ]
}

/// Pages that ask before it is done to many jobs.
const MANY: [&str; 3] = ["s/cancel?", "s/run?", "s/retry?"];

#[test]
fn each_route_lets_in_whom_it_should() {
    run_real(async {
        let schedule = Schedule::every("s", Duration::from_secs(3_600)).unwrap();
        let builder = builder().schedule(schedule.job("p", ECHO.call(Value::Null)));
        let (runtime, pool) = start(builder, PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), by_header);
        let same = [("sec-fetch-site", "same-origin"), ("origin", "http://ops.example")];
        let cross = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
        let places = [(true, same[0]), (true, same[1]), (false, cross[0]), (false, cross[1])];
        for (method, path, body) in routes() {
            for user in [None, Some("viewer"), Some("admin")] {
                for (is_same_origin, place) in places {
                    let path = path.replace("{id}", &delayed(&pool).await.to_string());
                    let mut request = TestRequest::with_uri(&format!("{PREFIX}{path}"))
                        .method(method.clone())
                        .insert_header(("host", "ops.example"))
                        .insert_header(place);
                    if let Some(user) = user {
                        request = request.insert_header(("x-user", user));
                    }
                    if let Some((kind, body)) = body {
                        request = request.insert_header(("content-type", kind)).set_payload(body);
                    }
                    let answer = ask(&dashboard, request).await;
                    let reads = method == Method::GET && !path.ends_with("events");
                    let expected = match user {
                        _ if !reads && !is_same_origin => 403,
                        _ if path == "/healthz" => 200,
                        None => 401,
                        Some("viewer") if method != Method::GET => 403,
                        // They ask before they do it.
                        Some("viewer") if MANY.iter().any(|many| path.contains(many)) => 403,
                        _ if path.is_empty() => 308,
                        _ if path.starts_with("/find") => 303,
                        _ if method == Method::POST && !path.starts_with("/api") => 303,
                        _ => 200,
                    };
                    let asked = format!("{method} {path} by {user:?} from {place:?}");
                    assert_eq!(answer.status, expected, "{asked}: {}", answer.text);
                    assert_is_guarded(&answer, &asked);
                    let works = runtime.pool("p").unwrap().settings().max_parallelism;
                    let may = user == Some("admin") && is_same_origin;
                    assert!(works == 10 || may || body.is_none(), "{asked} has changed the pool");
                    pool.update(PoolConfig::default().max_parallelism(10)).await.unwrap();
                }
            }
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

fn assert_is_guarded(answer: &Answer, asked: &str) {
    assert!(answer.headers.contains_key("content-security-policy"), "{asked}");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("referrer-policy"), "same-origin");
}

#[test]
fn each_route_of_the_api_is_described() {
    run_real(async {
        let (runtime, _, dashboard) = open(PoolConfig::default()).await;
        let described = ask(&dashboard, get("/api/openapi.json")).await.json();
        assert_eq!(described["openapi"], "3.1.0");
        for (method, path, _) in routes() {
            if path == "/healthz" || path.starts_with("/api/") {
                let path = path.split('?').next().unwrap().replace("/pools/p", "/pools/{name}");
                let path = path.replace("/schedules/s", "/schedules/{id}");
                let method = method.as_str().to_lowercase();
                assert!(described["paths"][&path][&method].is_object(), "{method} {path}");
            }
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn each_control_needs_its_own_permission() {
    run_real(async {
        let (runtime, pool) = start(builder(), PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), by_header);
        for (method, path, _) in routes()
            .into_iter()
            .filter(|route| route.1.starts_with("/api") && route.0 == Method::POST)
        {
            let id = delayed(&pool).await.to_string();
            let request = TestRequest::with_uri(&format!("{PREFIX}{}", path.replace("{id}", &id)))
                .method(method)
                .insert_header(("x-user", "canceler"));
            let expected = if path.contains("cancel") { 200 } else { 403 };
            let answer = ask(&dashboard, request).await;
            assert_eq!(answer.status, expected, "{path}");
            let waits = get(&format!("/api/works/{id}")).insert_header(("x-user", "viewer"));
            let waits = ask(&dashboard, waits).await.json()["explain"]["why"] == "not_due";
            assert_eq!(waits, expected == 403, "{path}");
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn who_is_not_known_is_asked_and_refusals_are_guarded_as_well() {
    run_real(async {
        let (runtime, _) = start(builder(), PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), by_header);
        let answer = ask(&dashboard, get("/api/overview")).await;
        assert_eq!(answer.code(), "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"workpool\"");
        let elsewhere = workpool_dashboard(runtime.clone(), |_: &HttpRequest| {
            let answer = HttpResponse::Found().insert_header(("location", "/login")).finish();
            Err(Refusal::from(answer))
        });
        for path in ["/api/overview", "/nothing"] {
            let answer = ask(&elsewhere, get(path)).await;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (302, "/login"));
            assert_is_guarded(&answer, path);
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn the_overview_has_each_pool_and_its_large_numbers_as_text() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default().max_parallelism(2)).await;
        let work = pool.enqueue(ECHO.call(json!(7))).await.unwrap();
        work.join().await.unwrap();
        delayed(&pool).await;
        let overview = ask(&dashboard, get("/api/overview")).await.json();
        assert!(overview["at"].as_str().unwrap().parse::<u64>().unwrap() > 1_600_000_000_000);
        let shown = &overview["pools"][0];
        assert_eq!(shown["name"], "p");
        assert_eq!((&shown["waiting"], &shown["pending"]), (&json!("1"), &json!("1")));
        assert_eq!((&shown["max_parallelism"], &shown["paused"]), (&json!(2), &json!(false)));
        assert_eq!(shown["report"]["succeeded"], "1");
        assert!(shown["oldest_due"].is_string());
        let alone = ask(&dashboard, get("/api/pools/p")).await.json();
        assert_eq!((&alone["name"], &alone["waiting"]), (&json!("p"), &json!("1")));
        assert_eq!(ask(&dashboard, get("/api/pools/other")).await.code(), "unknown_pool");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

/// A clock that starts with a slot of the figures.
struct FromTheSlot(tokio::time::Instant);

impl Clock for FromTheSlot {
    fn now(&self) -> Duration {
        secs(1_600_000_000) + self.0.elapsed()
    }
}

#[test]
fn rates_and_lags_are_those_of_the_last_minute_and_slots_remember_the_others() {
    const NAP: ActionKey<bool, ()> = ActionKey::new("nap");
    run_paused(async {
        let builder = builder().clock(FromTheSlot(tokio::time::Instant::now())).action_fn(
            NAP,
            |succeeds, _| async move {
                tokio::time::sleep(secs(1)).await;
                match succeeds {
                    true => Ok(()),
                    false => Err(WorkError::non_retryable("no")),
                }
            },
        );
        let (runtime, pool) = start(builder, PoolConfig::default().max_parallelism(1)).await;
        let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
        let lately = async || ask(&dashboard, get("/api/pools/p")).await.json()["lately"].take();
        let sum = |lately: &Value, what: &str| -> u64 {
            let slots = lately["slots"].as_array().unwrap().iter();
            slots.map(|slot| slot[what].as_u64().unwrap()).sum()
        };
        let before = lately().await;
        assert_eq!((&before["completed_per_s"], &before["start_lag"]), (&json!(0.0), &json!(null)));

        // They wait for one slot: 0 s, 1 s, 2 s … 19 s.
        let works: Vec<_> = (0..20).map(|n| NAP.call(n % 4 != 0)).collect();
        pool.enqueue_batch(works).await.unwrap();
        pool.idle().await.unwrap();
        tokio::time::sleep(ms(5_500)).await;
        let now = lately().await;
        // 20 in 65 s, of which 5 failed.
        assert_eq!((&now["completed_per_s"], &now["failed_per_s"]), (&json!(0.308), &json!(0.077)));
        let lag = |which: &str| now["start_lag"][which].as_u64().unwrap();
        assert!((9_000..9_300).contains(&lag("p50_ms")), "{now}");
        assert!((19_000..19_300).contains(&lag("p99_ms")), "{now}");
        assert_eq!((sum(&now, "completed"), sum(&now, "failed")), (20, 5));
        let slots = now["slots"].as_array().unwrap();
        assert_eq!(slots.len(), 60);
        let first = slots[57]["start_lag"]["p99_ms"].as_u64().unwrap();
        assert!((9_000..9_300).contains(&first), "those of the first slot alone: {now}");
        assert_eq!(slots[59]["start_lag"], json!(null));
        let page = ask(&dashboard, get("/")).await.text;
        assert!(page.contains("0.31/s") && page.matches("<svg").count() == 3, "{page}");
        assert!(!page.contains("style="), "{page}");

        tokio::time::sleep(secs(70)).await;
        let later = lately().await;
        assert_eq!((&later["completed_per_s"], &later["start_lag"]), (&json!(0.0), &json!(null)));
        assert_eq!(sum(&later, "completed"), 20);
        tokio::time::sleep(secs(600)).await;
        assert_eq!(sum(&lately().await, "completed"), 0);
        // The charts of a day remember it for a day.
        let shown = async |path: &str| ask(&dashboard, get(path)).await.text;
        for path in ["/", "/pools/p"] {
            let (minutes, day) = (shown(path).await, shown(&format!("{path}?range=24h")).await);
            assert!(!minutes.contains("/s succeeded"), "{minutes}");
            // 15 and 5 of five minutes, of which the last ones may have been in the next slot.
            assert!(day.contains("0.05/s succeeded, 0.02/s failed"), "{day}");
            assert!(day.contains("p99 19 s"), "{day}");
        }
        tokio::time::sleep(secs(24 * 3_600)).await;
        assert!(!shown("/?range=24h").await.contains("/s succeeded"));
        assert_eq!(ask(&dashboard, get("/?range=1y")).await.status, 400);
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn jobs_are_listed_by_state_page_by_page() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let mut waiting = Vec::new();
        for _ in 0..5 {
            waiting.push(delayed(&pool).await.to_string());
        }
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/works?state=pending&limit=2&cursor={cursor}");
            let page = ask(&dashboard, get(&path)).await.json();
            let works = page["works"].as_array().unwrap();
            assert!(works.len() <= 2);
            seen.extend(works.iter().map(|work| work["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, waiting);

        let failed = pool.enqueue(FAIL.call("no luck".into())).await.unwrap();
        failed.join().await.unwrap_err();
        let page = ask(&dashboard, get("/api/works?outcome=failed&function=fail&pool=p")).await;
        let work = &page.json()["works"][0];
        assert_eq!(work["id"], failed.id().to_string());
        assert_eq!((&work["state"], &work["outcome"]), (&json!("finished"), &json!("failed")));
        assert_eq!(work["error"]["message"], "no luck");
        let page = ask(&dashboard, get("/api/works?state=finished&function=echo")).await.json();
        assert_eq!(page["works"], json!([]));
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_job_is_shown_with_its_reason_and_its_end() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let detail =
            async |id: WorkId| ask(&dashboard, get(&format!("/api/works/{id}"))).await.json();

        let waits = detail(delayed(&pool).await).await;
        assert_eq!(
            (&waits["state"], &waits["explain"]["why"]),
            (&json!("pending"), &json!("not_due"))
        );
        assert!(waits["explain"]["sentence"].as_str().unwrap().contains("waits for its time"));
        assert!(waits["due"].is_string() && waits["explain"]["expected"]["start"].is_string());

        let huge = json!({ "huge": u64::MAX });
        let done = pool.enqueue(ECHO.call(huge.clone())).await.unwrap();
        done.join().await.unwrap();
        let done = detail(done.id()).await;
        assert_eq!((&done["outcome"], &done["attempts"]), (&json!("success"), &json!(1)));
        assert_eq!(done["output"]["json"], huge.to_string());

        let retries = RetryBehavior::default().initial_backoff(HOUR);
        let retried = pool.enqueue(FAIL.call("later".into())).retry(retries).await.unwrap();
        let mut shown = detail(retried.id()).await;
        while shown["explain"]["why"] != "retry_backoff" {
            tokio::time::sleep(Duration::from_millis(1)).await;
            shown = detail(retried.id()).await;
        }
        assert_eq!(shown["explain"]["details"], json!({ "retry": 1, "max_retries": 4 }));
        assert_eq!(shown["error"]["message"], "later");

        let unknown = ask(&dashboard, get("/api/works/00000000-0000-0000-0000-000000000000")).await;
        assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "unknown_work"));
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

/// Waits until the job is running and has said how far it is.
pub async fn hanging(pool: &Workpool, note: &str) -> WorkId {
    use actix_workpool::WorkStatus;
    let work = pool.enqueue(HANG.call(note.into())).await.unwrap();
    while !matches!(work.status().await, Ok(WorkStatus::Running { progress: Some(_), .. })) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    work.id()
}

#[test]
fn jobs_are_canceled_aborted_and_run() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let id = delayed(&pool).await;
        let answer = ask(&dashboard, post(&format!("/api/works/{id}/cancel"))).await.json();
        assert_eq!(answer, json!({ "answer": "requested" }));
        let canceled = pool.work::<Value>(id).join().await;
        assert_eq!(canceled, Err(JoinError::Canceled));

        let id = delayed(&pool).await;
        let answer = ask(&dashboard, post(&format!("/api/works/{id}/run"))).await.json();
        assert_eq!(answer, json!({ "answer": "moved" }));
        assert_eq!(pool.work::<Value>(id).join().await, Ok(json!(1)));

        let id = hanging(&pool, "at it").await;
        let answer = ask(&dashboard, post(&format!("/api/works/{id}/abort?grace_ms=0"))).await;
        assert_eq!(answer.json(), json!({ "answer": "requested" }));
        assert_eq!(pool.work::<()>(id).join().await, Err(JoinError::Canceled));

        for control in ["cancel", "abort", "run", "retry"] {
            let unknown = format!("/api/works/00000000-0000-0000-0000-000000000000/{control}");
            assert_eq!(ask(&dashboard, post(&unknown)).await.code(), "unknown_work");
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_failed_job_shows_its_attempts_and_is_retried() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let twice = RetryBehavior::default().max_attempts(2).initial_backoff(Duration::ZERO);
        let failed = pool.enqueue(FAIL.call("<b>no</b>".into())).retry(twice).await.unwrap();
        failed.join().await.unwrap_err();
        let path = format!("/api/works/{}", failed.id());
        let shown = ask(&dashboard, get(&path)).await.json();
        let timeline = shown["timeline"].as_array().unwrap();
        assert_eq!(timeline.len(), 2, "{shown}");
        for (number, attempt) in (1..).zip(timeline) {
            assert_eq!(
                (&attempt["attempt"], &attempt["outcome"]),
                (&json!(number), &json!("failed"))
            );
            assert_eq!(attempt["message"], "<b>no</b>");
            assert!(attempt["started"].is_string() && attempt["ended"].is_string(), "{attempt}");
        }
        assert_eq!((&shown["retryable"], &shown["on_complete"]), (&json!(true), &Value::Null));
        assert_eq!(shown["args"], json!({ "json": "\"<b>no</b>\"", "bytes": "11" }));
        let page = ask(&dashboard, get(&format!("/works/{}", failed.id()))).await.text;
        assert!(page.contains("&lt;b&gt;no") && !page.contains("<b>"), "{page}");
        assert!(page.contains("/retry\""), "{page}");

        let again = ask(&dashboard, post(&format!("{path}/retry"))).await.json();
        assert_eq!(again["answer"], "enqueued");
        let id = again["work_id"].as_str().unwrap().to_owned();
        let twice = ask(&dashboard, post(&format!("{path}/retry"))).await.json();
        assert_eq!(twice, json!({ "answer": "already_enqueued", "work_id": id }));
        pool.work::<Value>(id.parse().unwrap()).join().await.unwrap_err();

        let done = pool.enqueue(ECHO.call(json!(1))).await.unwrap();
        done.join().await.unwrap();
        let path = format!("/api/works/{}", done.id());
        let shown = ask(&dashboard, get(&path)).await.json();
        assert_eq!((&shown["retryable"], &shown["args"]), (&json!(false), &Value::Null));
        let [only] = &shown["timeline"].as_array().unwrap()[..] else { panic!("{shown}") };
        assert_eq!((&only["attempt"], &only["outcome"]), (&json!(1), &json!("success")));
        let answer = ask(&dashboard, post(&format!("{path}/retry"))).await.json();
        assert_eq!(answer, json!({ "answer": "not_failed" }));
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn many_failed_jobs_are_retried_once() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        for _ in 0..5 {
            pool.enqueue(FAIL.call("no".into())).await.unwrap().join().await.unwrap_err();
        }
        let retry = async |limit: u32| {
            let path = format!("/api/works/retry?pool=p&function=fail&limit={limit}");
            ask(&dashboard, post(&path)).await.json()
        };
        assert_eq!(retry(3).await, json!({ "done": 3, "more": true, "next": null }));
        while pool.pending() > 0 {
            tokio::task::yield_now().await;
        }
        // Two that were not yet, and three that have failed again.
        assert_eq!(retry(100).await, json!({ "done": 5, "more": false, "next": null }));
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn an_abort_goes_on_when_nobody_waits_for_it() {
    const STUBBORN: ActionKey<(), ()> = ActionKey::new("stubborn");
    run_in_turn(async {
        let builder = builder().action_fn(STUBBORN, |(), _| std::future::pending());
        let (runtime, pool) = start(builder, PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
        let app = init_service(App::new().service(dashboard.scope(PREFIX))).await;
        let app = std::rc::Rc::new(app);
        let mut begun = 0;
        for phase in PHASES {
            let work = pool.enqueue(STUBBORN.call(())).await.unwrap();
            settle().await;
            let abort = format!("/api/works/{}/abort?grace_ms=0", work.id());
            let asking = actix_web::rt::spawn({
                let (app, abort) = (app.clone(), post(&abort).to_request());
                async move { call_service(&*app, abort).await }
            });
            steps(phase).await;
            asking.abort();
            settle().await;
            match work.explain().await.unwrap().why {
                Why::Running { .. } => {
                    pool.abort(work.id(), Duration::ZERO).await.unwrap();
                }
                _ => begun += 1,
            }
            assert_eq!(soon(work.join()).await, Err(JoinError::Canceled), "{phase}");
        }
        assert!((1..PHASES.len()).contains(&begun), "{begun}");
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_pool_is_changed_and_shown_as_it_is_then() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        ask(&dashboard, get("/api/overview")).await;
        let change = json!({ "max_parallelism": 3, "paused": true });
        let shown = ask(&dashboard, patch("/api/pools/p", &change)).await.json();
        assert_eq!((&shown["max_parallelism"], &shown["paused"]), (&json!(3), &json!(true)));
        assert!(pool.settings().paused);
        let overview = ask(&dashboard, get("/api/overview")).await.json();
        assert_eq!(overview["pools"][0]["paused"], true, "an old overview is not kept");
        ask(&dashboard, patch("/api/pools/p", &json!({ "paused": false }))).await;
        let settings = pool.settings();
        assert_eq!((settings.paused, settings.max_parallelism), (false, 3));
        for wrong in [
            json!({ "max_parallelism": 65_537 }),
            json!({ "max_parallelism": -1 }),
            json!({ "max_pending": 1 }),
            json!({ "paused": "yes" }),
            json!([]),
            json!([3, true]),
        ] {
            let answer = ask(&dashboard, patch("/api/pools/p", &wrong)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_value"));
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_pool_is_found_by_any_name() {
    run_real(async {
        let (runtime, _, dashboard) = open(PoolConfig::default()).await;
        for (name, encoded) in [("a/b", "a%2Fb"), ("50 %", "50%20%25"), ("ö<b>", "%C3%B6%3Cb%3E")]
        {
            runtime.create_pool(name, PoolConfig::default()).await.unwrap();
            let shown = ask(&dashboard, get(&format!("/api/pools/{encoded}"))).await.json();
            assert_eq!(shown["name"], name);
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn what_cannot_be_is_refused_with_a_code() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let id = delayed(&pool).await;
        let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
        let body = |body: String, kind: &str| {
            let request = TestRequest::patch().uri(&format!("{PREFIX}/api/pools/p"));
            request.insert_header(("content-type", kind.to_owned())).set_payload(body)
        };
        let json = "application/json; charset=utf-8";
        let cases = [
            (get("/api/works?limit=0"), 400, "invalid_value"),
            (get("/api/works?limit=201"), 400, "invalid_value"),
            (get("/api/works?limit=x"), 400, "invalid_value"),
            (get("/api/works?state=lost"), 400, "invalid_value"),
            (get("/api/works?state=running&outcome=failed"), 400, "invalid_value"),
            (get("/api/works?cursor=f.1"), 400, "invalid_value"),
            (get("/api/works?cursor=%00"), 400, "invalid_value"),
            (get("/api/works?nothing=1"), 400, "invalid_value"),
            (get("/api/works?pool=a&pool=b"), 400, "invalid_value"),
            (get("/api/works/1"), 400, "invalid_value"),
            (get("/api/works/%ff"), 400, "invalid_value"),
            (get(&format!("/api/works?function={}", "x".repeat(5_000))), 414, "uri_too_long"),
            (post(&format!("/api/works/{id}/abort?grace_ms=3600001")), 400, "invalid_value"),
            (post(&format!("/api/works/{id}/abort?grace_ms=-1")), 400, "invalid_value"),
            (post("/api/works/cancel"), 400, "no_filter"),
            (post("/api/works/run?pool=&function="), 400, "no_filter"),
            (post("/api/works/cancel?pool=p&limit=0"), 400, "invalid_value"),
            (post("/api/works/cancel?pool=p&limit=1001"), 400, "invalid_value"),
            (post("/api/works/cancel?pool=p&state=running"), 400, "invalid_value"),
            (get("/api/works/cancel"), 405, "method_not_allowed"),
            (post("/api/overview"), 405, "method_not_allowed"),
            (get(&format!("/api/works/{id}/cancel")), 405, "method_not_allowed"),
            (get("/api/nothing"), 404, "not_found"),
            (body(format!("{{\"paused\":{deep}}}"), json), 400, "invalid_value"),
            (body("{".into(), json), 400, "invalid_value"),
            (body(" ".repeat(5_000), json), 413, "too_large"),
            (body("{\"paused\":true}".into(), "text/plain"), 415, "unsupported_media_type"),
        ];
        for (request, status, code) in cases {
            let answer = ask(&dashboard, request).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
            assert_is_guarded(&answer, code);
        }
        assert!(!pool.settings().paused);
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn what_is_redacted_is_nowhere_to_be_seen() {
    run_real(async {
        let (runtime, pool, open) = open(PoolConfig::default()).await;
        let redacting = workpool_dashboard(runtime.clone(), insecure_allow_all())
            .redact(|what: Sensitive, _, _| format!("({what:?})"));
        let once = RetryBehavior::default().initial_backoff(HOUR);
        let done = pool.enqueue(ECHO.call(json!("hunter2"))).await.unwrap();
        done.join().await.unwrap();
        let failed = pool.enqueue(FAIL.call("hunter2".into())).await.unwrap();
        failed.join().await.unwrap_err();
        let waits = pool.enqueue(FAIL.call("hunter2".into())).retry(once).await.unwrap();
        while waits.explain().await.unwrap().attempts == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let runs = hanging(&pool, "hunter2").await;
        let detail = |id: WorkId| format!("/api/works/{id}");
        let paths = [
            (detail(done.id()), "(Output)"),
            (detail(failed.id()), "(Error)"),
            (detail(waits.id()), "(Error)"),
            (detail(waits.id()), "(Args)"),
            (format!("/works/{}", waits.id()), "(Args)"),
            (detail(runs), "(Progress)"),
            ("/api/works?state=finished".into(), "(Error)"),
            ("/api/works?state=running".into(), "(Progress)"),
            ("/works?state=pending".into(), "(Args)"),
            ("/works?state=running".into(), "(Args)"),
            ("/works?state=running".into(), "(Progress)"),
            ("/works?outcome=failed".into(), "(Args)"),
            ("/works?outcome=failed".into(), "(Error)"),
            (format!("/works/{}", failed.id()), "(Error)"),
            (format!("/works/{}", done.id()), "(Output)"),
        ];
        for (path, instead) in paths {
            let shown = ask(&open, get(&path)).await.text;
            assert!(shown.contains("hunter2"), "{path}: {shown}");
            let hidden = ask(&redacting, get(&path)).await.text;
            assert!(!hidden.contains("hunter2") && hidden.contains(instead), "{path}: {hidden}");
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn long_texts_are_cut() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let long = "ü".repeat(100_000);
        let done = pool.enqueue(ECHO.call(json!(long))).await.unwrap();
        done.join().await.unwrap();
        let failed = pool.enqueue(FAIL.call(long)).await.unwrap();
        failed.join().await.unwrap_err();
        for id in [done.id(), failed.id()] {
            let answer = ask(&dashboard, get(&format!("/api/works/{id}"))).await;
            assert!(answer.text.len() < 80_000, "{}", answer.text.len());
        }
        let page = ask(&dashboard, get("/api/works?state=finished")).await;
        assert!(page.text.len() < 4_000, "{}", page.text.len());
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_dashboard_outlives_its_runtime() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let id = delayed(&pool).await;
        assert_eq!(ask(&dashboard, get("/healthz")).await.json(), json!({ "status": "ok" }));
        soon(runtime.shutdown(Duration::ZERO)).await;
        let health = ask(&dashboard, get("/healthz")).await;
        assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
        for request in [
            get("/api/overview"),
            get("/api/works"),
            get(&format!("/api/works/{id}")),
            post(&format!("/api/works/{id}/cancel")),
            patch("/api/pools/p", &json!({ "paused": true })),
        ] {
            let answer = ask(&dashboard, request).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "shut_down"));
        }
    });
}

#[test]
fn events_tell_what_the_pools_do_and_have_few_places() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let first = ask(&dashboard, get("/api/events")).await;
        let data = first.text.strip_prefix("event: overview\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
        assert_eq!(data["pools"][0]["waiting"], "0");

        let app = init_service(App::new().service(dashboard.scope(PREFIX))).await;
        let listen = async || call_service(&app, get("/api/events").to_request()).await;
        let mut listening = Vec::new();
        let refused = loop {
            let answer = listen().await;
            match answer.status().as_u16() {
                200 => listening.push(answer),
                _ => break answer,
            }
            assert!(listening.len() <= 32);
        };
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(String::from_utf8_lossy(&read_body(refused).await).contains("too_many_clients"));

        // One that listens hears what changes.
        let mut body = std::pin::pin!(listening.pop().unwrap().into_body());
        delayed(&pool).await;
        loop {
            let event = soon(std::future::poll_fn(|cx| body.as_mut().poll_next(cx))).await;
            let event = event.expect("it goes on").expect("no error");
            if String::from_utf8_lossy(&event).contains("\"waiting\":\"1\"") {
                break;
            }
        }
        // Who goes leaves a place.
        drop(listening);
        while listen().await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
        let end = async {
            while std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await.is_some() {}
        };
        soon(end).await;
    });
}

/// What would run, or break out of its place, if it were not escaped.
const CORPUS: [&str; 9] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "</title></textarea></pre><script>alert(1)</script>",
    "javascript:alert(1)",
    "\" onmouseover=\"alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
    "<!--<script>",
    "&lt;script&gt;<b>",
];

/// Nothing of the text stands in the page as it is, if it could mean something there.
fn assert_escaped(page: &str, text: &str) {
    if text.contains(['<', '>', '"']) {
        assert!(!page.contains(text), "{text} in {page}");
    }
    let lower = page.to_lowercase();
    for place in ["href", "src", "action"] {
        assert!(!lower.contains(&format!("{place}=\"javascript")), "{text} in {page}");
    }
    let scripts = lower.matches("<script").count();
    assert_eq!((scripts, lower.matches("<script src=\"").count()), (1, 1), "{text} in {page}");
}

#[test]
fn nothing_that_comes_from_outside_becomes_a_part_of_a_page() {
    run_real(async {
        for text in CORPUS {
            let name: &'static str = text;
            let evil = ActionKey::<Value, Value>::new(name);
            let builder = builder().action_fn(evil, |value, _| async move { Ok(value) });
            let pools = builder.pool(name, PoolConfig::default());
            let (runtime, pool) = start(pools, PoolConfig::default()).await;
            let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
            let named = runtime.pool(name).unwrap();
            let waits =
                named.enqueue(evil.call(json!({ text: text }))).run_after(HOUR).await.unwrap();
            let done = named.enqueue(evil.call(json!({ text: text }))).await.unwrap();
            done.join().await.unwrap();
            let failed = pool.enqueue(FAIL.call(text.into())).await.unwrap();
            failed.join().await.unwrap_err();
            let runs = hanging(&pool, text).await;
            let url: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let mut paths = vec!["/".to_owned(), "/works".into(), "/works?state=finished".into()];
            paths.push("/works?state=running".into());
            paths.extend(
                [waits.id(), done.id(), failed.id(), runs].map(|id| format!("/works/{id}")),
            );
            paths.push(format!("/works/{}?said={url}", done.id()));
            paths.push(format!("/works?pool={url}&function={url}&limit=1"));
            for field in ["state", "outcome", "cursor", "limit", "other"] {
                paths.push(format!("/works?{field}={url}"));
            }
            paths.extend([
                "/config".into(),
                format!("/pools/{url}"),
                format!("/?range={url}"),
                format!("/works?did={url}&done=1"),
                format!("/works/cancel?pool={url}"),
                format!("/works/run?function={url}"),
                format!("/works/run?pool={url}&done={url}"),
                format!("/{url}"),
                format!("/works/{url}"),
                format!("/find?id={url}"),
                format!("/works?{url}=1"),
            ]);
            for path in paths {
                let page = ask(&dashboard, get(&path)).await;
                assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{path}");
                assert_escaped(&page.text, text);
            }
            // The pool's controls find it whatever its name.
            let control = post(&format!("/pools/{url}")).insert_header(("content-type", FORM));
            let answer = ask(&dashboard, control.set_payload("paused=true")).await;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "../"));
            assert!(named.settings().paused);
            soon(runtime.shutdown(Duration::ZERO)).await;
        }
    });
}

#[test]
fn forms_do_what_they_say_and_lead_back() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let id = delayed(&pool).await;
        let page = ask(&dashboard, get(&format!("/works/{id}"))).await.text;
        assert!(page.contains(&format!("action=\"{id}/cancel\"")), "{page}");
        assert!(page.contains("Waits for its time"), "{page}");
        let answer = ask(&dashboard, post(&format!("/works/{id}/cancel"))).await;
        let back = format!("../{id}?said=requested");
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, back.as_str()));
        pool.work::<Value>(id).join().await.unwrap_err();
        let page = ask(&dashboard, get(&format!("/works/{id}?said=requested"))).await.text;
        assert!(page.contains("It is being canceled.") && !page.contains("/cancel\""), "{page}");

        let form = |body: &'static str| {
            post("/pools/p").insert_header(("content-type", FORM)).set_payload(body)
        };
        for wrong in ["max_parallelism=x", "max_parallelism=65537", "other=1", "paused=1"] {
            assert_eq!(ask(&dashboard, form(wrong)).await.status, 400, "{wrong}");
        }
        assert_eq!(ask(&dashboard, form("max_parallelism=7")).await.header("location"), "../");
        assert_eq!(pool.settings().max_parallelism, 7);
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn many_jobs_are_canceled_or_run_by_pool_and_function() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default().paused(true)).await;
        let other = runtime.create_pool("other", PoolConfig::default()).await.unwrap();
        let batch = async |pool: &Workpool, count: usize, after: Duration| {
            let works = (0..count).map(|n| ECHO.call(json!(n)));
            pool.enqueue_batch(works).run_after(after).await.unwrap();
        };
        batch(&pool, 1_203, HOUR).await;
        batch(&other, 3, HOUR).await;
        let hanging = pool.enqueue(HANG.call("later".into())).run_after(HOUR).await.unwrap();
        let act = async |path: &str| ask(&dashboard, post(path)).await.json();

        let page = ask(&dashboard, get("/works/cancel?pool=p&function=echo")).await.text;
        assert!(page.contains("1,000 or more") && page.contains("Yes, cancel them"), "{page}");
        let done = act("/api/works/cancel?pool=p&function=echo&limit=3").await;
        assert_eq!(done, json!({ "done": 3, "more": true, "next": null }));
        let done = act("/api/works/cancel?pool=p&function=echo").await;
        assert_eq!((&done["done"], &done["more"]), (&json!(1000), &json!(true)));
        let on = format!("limit=1&cursor={}", done["next"].as_str().expect("a cursor"));
        let done = act(&format!("/api/works/cancel?pool=p&function=echo&{on}")).await;
        assert_eq!((&done["done"], &done["more"]), (&json!(1), &json!(true)));
        let refused = ask(&dashboard, post("/api/works/cancel?pool=p&cursor=x")).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "invalid_value"));
        let form = |path: &str, body: &'static str| {
            post(path).insert_header(("content-type", FORM)).set_payload(body)
        };
        let answer = ask(&dashboard, form("/works/cancel", "pool=p&function=echo")).await;
        let back = "cancel?pool=p&function=echo&done=199";
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, back));
        let page = ask(&dashboard, get(&format!("/works/{back}"))).await.text;
        assert!(page.contains("199 were canceled.") && !page.contains("method=\"post\""), "{page}");
        assert_eq!(act("/api/works/cancel?pool=p&function=echo").await["done"], 0);
        assert!(!hanging.status().await.unwrap().is_final(), "it is of another function");
        assert_eq!(other.pending(), 3, "they are of another pool");

        // What is due already neither counts nor stands in the way of what is not.
        batch(&pool, 1_100, Duration::ZERO).await;
        batch(&pool, 4, HOUR).await;
        let done = act("/api/works/run?function=echo").await;
        assert_eq!(done, json!({ "done": 7, "more": false, "next": null }));
        other.idle().await.unwrap();
        assert_eq!(
            act("/api/works/run?pool=p&limit=1").await,
            json!({ "done": 1, "more": false, "next": null })
        );
        let page = ask(&dashboard, get("/works/run?pool=p")).await.text;
        assert!(page.contains("There is nothing to do."), "{page}");
        let page = ask(&dashboard, get("/works?state=pending&pool=p")).await.text;
        assert!(page.contains("works/cancel?pool=p&amp;function="), "{page}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn what_is_set_is_shown() {
    run_real(async {
        let config = PoolConfig::default()
            .max_parallelism(3)
            .default_retry(RetryBehavior::default())
            .attempt_timeout(secs(90))
            .max_pending(77);
        let (runtime, _, dashboard) = open(config).await;
        let shown = ask(&dashboard, get("/api/config")).await.json();
        let pool = &shown["pools"][0];
        assert_eq!((&pool["name"], &pool["max_parallelism"]), (&json!("p"), &json!(3)));
        assert_eq!(pool["default_retry"]["max_attempts"], 5);
        assert_eq!(
            (&pool["attempt_timeout_ms"], &pool["max_pending"], &pool["log_level"]),
            (&json!("90000"), &json!("77"), &json!("report"))
        );
        let of_all = &shown["runtime"];
        assert_eq!((&of_all["store"], &of_all["max_batch"]), (&json!("Tables"), &json!(1000)));
        assert_eq!(of_all["retention"]["max_count"], "100000");
        let names: Vec<_> = of_all["functions"].as_array().unwrap().iter().collect();
        assert_eq!((names.len(), &names[0]["name"]), (3, &json!("echo")));
        let page = ask(&dashboard, get("/config")).await.text;
        for shown in ["1 min 30 s", "5 attempts", "Tables", "echo", "pools/p?back=config"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        let change = post("/pools/p?back=config").insert_header(("content-type", FORM));
        let answer = ask(&dashboard, change.set_payload("max_parallelism=4")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "../config"));
        let change = post("/pools/p?back=//evil").insert_header(("content-type", FORM));
        assert_eq!(ask(&dashboard, change.set_payload("max_parallelism=5")).await.status, 400);
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn each_path_says_what_it_takes_and_takes_head_for_get() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        for (method, path, _) in routes() {
            let path = path.replace("{id}", &delayed(&pool).await.to_string());
            let at =
                |method: Method| TestRequest::with_uri(&format!("{PREFIX}{path}")).method(method);
            let refused = ask(&dashboard, at(Method::DELETE)).await;
            assert_eq!(refused.status, 405, "{path}");
            assert!(refused.header("allow").contains(method.as_str()), "{path}");
            let is_page = !path.starts_with("/api") && path != "/healthz";
            let kind = if is_page { "text/html; charset=utf-8" } else { "application/json" };
            assert_eq!(refused.header("content-type"), kind, "{path}");
            if method == Method::GET {
                let (head, get) = (at(Method::HEAD), at(Method::GET));
                let (head, get) = (ask(&dashboard, head).await, ask(&dashboard, get).await);
                assert_eq!(head.status, get.status, "{path}");
                assert_eq!(head.headers.get("content-type"), get.headers.get("content-type"));
            }
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn a_browser_is_told_in_pages_and_a_program_in_json() {
    run_real(async {
        let (runtime, _) = start(builder(), PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), by_header);
        let viewer = |request: TestRequest| request.insert_header(("x-user", "viewer"));
        for (request, status, base) in [
            (get("/"), 401, ""),
            (get(""), 401, "workpool/"),
            (viewer(get("/nothing")), 404, ""),
            (viewer(get("/nothing/at/all")), 404, "../../"),
            (viewer(post("/pools/p")), 403, "../"),
            (
                post("/works/1/cancel").insert_header(("sec-fetch-site", "cross-site")),
                403,
                "../../",
            ),
            (viewer(get(&format!("/works?pool={}", "x".repeat(5_000)))), 414, ""),
        ] {
            let answer = ask(&dashboard, request).await;
            assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
            assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
            let style = format!("href=\"{base}assets/workpool.css\"");
            assert!(answer.text.contains(&style), "{style} in {}", answer.text);
            assert_is_guarded(&answer, base);
            if status == 401 {
                assert_eq!(answer.header("www-authenticate"), "Basic realm=\"workpool\"");
            }
        }
        for request in [get("/api/overview"), get("/api/nothing"), get("/api")] {
            assert_eq!(ask(&dashboard, request).await.code(), "unauthorized");
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn only_known_hosts_are_answered_if_there_are_any() {
    run_real(async {
        let (runtime, _, open) = open(PoolConfig::default()).await;
        let strict = open.clone().hosts(["ops.example", "127.0.0.1"]);
        for (host, status) in [("ops.example:8080", 200), ("127.0.0.1", 200), ("evil.example", 421)]
        {
            for path in ["/", "/api/overview", "/assets/workpool.js"] {
                let request = || get(path).insert_header(("host", host));
                assert_eq!(ask(&strict, request()).await.status.as_u16(), status, "{host} {path}");
                assert_eq!(ask(&open, request()).await.status, 200);
            }
            let health = get("/healthz").insert_header(("host", host));
            assert_eq!(ask(&strict, health).await.status, 200);
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn who_may_only_look_sees_no_controls() {
    run_real(async {
        let (runtime, pool) = start(builder(), PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), by_header);
        let id = delayed(&pool).await;
        for (user, controls) in [("viewer", 0), ("canceler", 1), ("admin", 5)] {
            let mut seen = 0;
            for path in ["/".to_owned(), format!("/works/{id}")] {
                let page = ask(&dashboard, get(&path).insert_header(("x-user", user))).await.text;
                seen += page.matches("method=\"post\"").count();
            }
            assert_eq!(seen, controls, "{user}");
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn links_hold_under_any_prefix() {
    run_real(async {
        let (runtime, _, dashboard) = open(PoolConfig::default()).await;
        let answer = ask(&dashboard, get("")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (308, "./workpool/"));
        for prefix in ["", "/", "/a", "/a/b/"] {
            let app = init_service(App::new().service(dashboard.scope(prefix))).await;
            let at = prefix.trim_end_matches('/');
            for path in ["/", "/works", "/assets/workpool.js", "/healthz"] {
                let request = TestRequest::with_uri(&format!("{at}{path}")).to_request();
                let answer = call_service(&app, request).await;
                assert_eq!(answer.status(), 200, "{prefix} {path}");
                let text = String::from_utf8(read_body(answer).await.to_vec()).unwrap();
                for absolute in ["href=\"/", "src=\"/", "action=\"/"] {
                    assert!(!text.contains(absolute), "{absolute} in {text}");
                }
            }
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

struct P;

impl PoolName for P {
    const NAME: &'static str = "p";
}

struct Missing;

impl PoolName for Missing {
    const NAME: &'static str = "missing";
}

#[test]
fn handlers_take_the_runtime_and_its_pools_and_their_errors_are_answers() {
    async fn named(pool: Pool<P>, body: web::Bytes) -> actix_web::Result<HttpResponse> {
        let text = String::from_utf8_lossy(&body).into_owned();
        let work = pool.enqueue(ECHO.call(json!(text))).await?;
        Ok(HttpResponse::Ok().json(work.join().await?))
    }
    async fn from_runtime(runtime: Runtime) -> actix_web::Result<HttpResponse> {
        Ok(HttpResponse::Ok().body(runtime.pool("p")?.name().as_str()))
    }
    async fn fails(pool: Workpool) -> actix_web::Result<HttpResponse> {
        pool.enqueue(FAIL.call("hunter2".into())).await?.join().await?;
        Ok(HttpResponse::Ok().finish())
    }
    async fn missing(_: Pool<Missing>) -> HttpResponse {
        HttpResponse::Ok().finish()
    }
    async fn not_configured(_: web::Path<u8>, _: Workpool) -> HttpResponse {
        HttpResponse::Ok().finish()
    }
    run_real(async {
        let (runtime, pool) = start(builder(), PoolConfig::default().max_payload_bytes(64)).await;
        let with_all = web::scope("/with")
            .app_data(web::Data::new(pool))
            .route("/fails", web::post().to(fails));
        let app = App::new()
            .app_data(web::Data::new(runtime.clone()))
            .route("/named", web::post().to(named))
            .route("/runtime", web::post().to(from_runtime))
            .route("/missing", web::post().to(missing))
            .route("/none/{n}", web::post().to(not_configured))
            .service(with_all);
        let app = init_service(app).await;
        let ask = async |path: &str, body: String| {
            let request = TestRequest::post().uri(path).set_payload(body).to_request();
            let answer = call_service(&app, request).await;
            let status = answer.status().as_u16();
            (status, String::from_utf8(read_body(answer).await.to_vec()).unwrap())
        };
        let error = |code: &str, text: &str| {
            assert!(text.contains(&format!("\"code\":\"{code}\"")), "{code}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        };
        assert_eq!(ask("/named", "hello".into()).await, (200, "\"hello\"".into()));
        assert_eq!(ask("/runtime", String::new()).await, (200, "p".into()));
        for (path, body, status, code) in [
            ("/named", "x".repeat(100), 413, "too_large"),
            ("/missing", String::new(), 404, "unknown_pool"),
            ("/none/1", String::new(), 500, "not_configured"),
            ("/with/fails", String::new(), 500, "work_failed"),
        ] {
            let (answered, text) = ask(path, body).await;
            assert_eq!(answered, status, "{path}: {text}");
            error(code, &text);
        }
        soon(runtime.shutdown(secs(1))).await;
        let (status, text) = ask("/named", String::new()).await;
        assert_eq!(status, 503);
        error("shut_down", &text);
    });
}

/// A runtime whose storage has a thread of its own, with a job that waits.
async fn open_on_a_thread() -> (Faulty, Runtime, Workpool, Dashboard, WorkId) {
    let storage = Faulty::new().on_a_thread();
    let builder = builder().storage(storage.clone());
    let (runtime, pool) = start(builder, PoolConfig::default()).await;
    let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
    let id = delayed(&pool).await;
    (storage, runtime, pool, dashboard, id)
}

/// Asks all of it at once, and says of each how long it took.
async fn ask_all(dashboard: &Dashboard, requests: Vec<TestRequest>) -> Vec<(Answer, Duration)> {
    let begun = tokio::time::Instant::now();
    let asked = requests.into_iter().map(|request| {
        let dashboard = dashboard.clone();
        actix_web::rt::spawn(async move { (ask(&dashboard, request).await, begun.elapsed()) })
    });
    let asked: Vec<_> = asked.collect();
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.unwrap());
    }
    answers
}

/// Asks until the answer has that status.
async fn until_healthy(dashboard: &Dashboard, status: u16) {
    soon(async {
        while ask(dashboard, get("/healthz")).await.status != status {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
}

#[test]
fn a_store_that_stands_still_is_no_reason_to_wait_for_it() {
    run_real(async {
        let (storage, runtime, pool, dashboard, id) = open_on_a_thread().await;
        let app = init_service(App::new().service(dashboard.scope(PREFIX))).await;
        let listening = call_service(&app, get("/api/events").to_request()).await;
        let mut body = std::pin::pin!(listening.into_body());
        let mut event = async || {
            let event = soon(std::future::poll_fn(|cx| body.as_mut().poll_next(cx))).await;
            String::from_utf8(event.expect("it goes on").expect("no error").to_vec()).unwrap()
        };
        assert!(event().await.starts_with("event: overview\n"));
        assert_eq!(ask(&dashboard, get("/healthz")).await.status, 200);

        let (still, go_on) = storage.stand_still();
        let stuck = pool.do_enqueue(ECHO.call(json!(2))).unwrap();
        still.entered(1).await;
        until_healthy(&dashboard, 503).await;
        // What is known without the store is there at once, and that it stands still is why a job waits.
        for (path, status, has) in [
            ("/healthz", 503, "{\"status\":\"unavailable\"}"),
            ("/config", 200, "max_parallelism"),
            ("/api/config", 200, "max_parallelism"),
            ("/assets/workpool.js", 200, ""),
            (&format!("/works/{id}"), 200, "has not answered"),
            (&format!("/works/{}", stuck.id()), 200, "has not answered"),
            (&format!("/api/works/{id}"), 200, "\"why\":\"store_stalled\""),
        ] {
            let begun = tokio::time::Instant::now();
            let answer = ask(&dashboard, get(path)).await;
            assert!(begun.elapsed() < secs(1), "{path} takes {:?}", begun.elapsed());
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
            assert!(answer.text.contains(has), "{path}: {}", answer.text);
        }
        // What asks the store is told in time that it does not answer, and nothing more.
        let waits = [
            "/api/overview",
            "/api/works",
            "/api/works?state=running",
            "/api/works?state=finished",
            "/api/pools/p",
            "/api/pools/p/keys",
            "/",
            "/pools/p",
            "/pools/p/keys",
            "/works",
            "/works?state=finished&pool=p",
            "/works/cancel?pool=p",
            "/works/run?function=echo",
            "/works/retry?pool=p",
        ];
        let mut requests: Vec<_> = waits.into_iter().map(get).collect();
        // What is done to a single job waits in vain as well, and is not lost.
        requests.push(post(&format!("/api/works/{id}/cancel")));
        for (answer, took) in ask_all(&dashboard, requests).await {
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(took < secs(8), "{took:?}: {}", answer.text);
            match answer.header("content-type") {
                "application/json" => assert_eq!(answer.code(), "timed_out"),
                _ => assert!(answer.text.contains("has not answered in time"), "{}", answer.text),
            }
        }
        // Whoever listens has been told.
        while !event().await.starts_with("event: unavailable\ndata: {\"status\":503}\n") {}

        drop(go_on);
        assert_eq!(soon(stuck.join()).await, Ok(json!(2)));
        until_healthy(&dashboard, 200).await;
        while !event().await.starts_with("event: overview\n") {}
        for path in waits {
            assert_eq!(ask(&dashboard, get(path)).await.status, 200, "{path}");
        }
        let detail = ask(&dashboard, get(&format!("/api/works/{id}"))).await.json();
        assert_eq!(detail["explain"]["why"], "finished", "{detail}");
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn questions_do_not_pile_up_on_a_store_that_stands_still() {
    run_real(async {
        let (storage, runtime, pool, dashboard, id) = open_on_a_thread().await;
        let before = ["pending_starts", "counts", "facts"].map(|question| storage.asked(question));
        let (still, go_on) = storage.stand_still();
        let stuck = pool.do_enqueue(ECHO.call(json!(2))).unwrap();
        still.entered(1).await;
        until_healthy(&dashboard, 503).await;
        for _ in 0..2 {
            let mut requests = Vec::new();
            for _ in 0..50 {
                requests.push(get("/api/works"));
                requests.push(get("/works/cancel?pool=p"));
                requests.push(get("/api/overview"));
                requests.push(get("/api/pools/p"));
            }
            for (answer, took) in ask_all(&dashboard, requests).await {
                assert_eq!(answer.status, 503, "{}", answer.text);
                assert!(took < secs(8), "{took:?}");
            }
        }
        // The store gets these, and need not look anything up for them: nobody waits any more.
        let requests = (0..100).map(|_| get(&format!("/api/works/{id}"))).collect();
        for (answer, took) in ask_all(&dashboard, requests).await {
            assert_eq!(answer.json()["explain"]["why"], "store_stalled");
            assert!(took < secs(4), "{took:?}");
        }
        drop(go_on);
        assert_eq!(soon(stuck.join()).await, Ok(json!(2)));
        pool.diagnostics().await.unwrap();
        let after = ["pending_starts", "counts", "facts"].map(|question| storage.asked(question));
        let [rows, counts, facts] = std::array::from_fn(|number| after[number] - before[number]);
        // Of 200 pages the one that was under way, which reads twice; of 200 looks at the pools two, and one of this
        // test; and what the pool itself has asked of its work.
        let asked = format!("asked {rows} times for rows, {counts} for counts, {facts} for jobs");
        assert!(rows <= 2 && counts <= 3 && facts <= 20, "{asked}");

        // Those who ask at the same time are all answered, one after the other.
        let requests = (0..50).map(|_| get("/api/works")).collect();
        for (answer, _) in ask_all(&dashboard, requests).await {
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

/// Found while the dashboard was used by many: each control explained its job first, and waited its turn for that.
#[test]
fn controls_do_not_wait_behind_explanations() {
    run_paused(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let (id, other) = (delayed(&pool).await, delayed(&pool).await);
        let explained = |_| {
            let dashboard = dashboard.clone();
            actix::spawn(async move { ask(&dashboard, get(&format!("/api/works/{id}"))).await })
        };
        let asked: Vec<_> = (0..100).map(explained).collect();
        steps(10).await;
        let before = tokio::time::Instant::now();
        for control in ["run", "cancel", "abort"] {
            let answer = ask(&dashboard, post(&format!("/api/works/{other}/{control}"))).await;
            assert_eq!(answer.status, StatusCode::OK, "{control}: {}", answer.text);
        }
        assert!(before.elapsed() < ms(20), "{:?}", before.elapsed());
        for asked in asked {
            assert_eq!(asked.await.unwrap().status, StatusCode::OK);
        }
        assert!(before.elapsed() > ms(300), "the explanations had pauses between them");
        for control in ["run", "cancel", "abort"] {
            let unknown = WorkId::from_uuid(uuid::Uuid::from_u128(1));
            let answer = ask(&dashboard, post(&format!("/api/works/{unknown}/{control}"))).await;
            assert_eq!((answer.status, &*answer.code()), (StatusCode::NOT_FOUND, "unknown_work"));
        }
        runtime.shutdown(secs(0)).await;
    });
}

/// Found while many failed jobs were retried: for each page of them their retries were looked for one by one.
#[test]
fn failed_jobs_to_retry_are_found_by_their_own_rows() {
    run_paused(async {
        let storage = Faulty::new();
        let (runtime, pool) =
            start(builder().storage(storage.clone()), PoolConfig::default()).await;
        let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
        for _ in 0..20 {
            let failed = pool.enqueue(FAIL.call("no".into())).await.unwrap();
            assert!(failed.join().await.is_err());
        }
        let retry = post("/api/works/retry?pool=p&limit=5");
        assert_eq!(ask(&dashboard, retry).await.json()["done"], 5);
        pool.idle().await.unwrap();
        let asked = storage.asked("facts");
        let page = ask(&dashboard, get("/works/retry?pool=p")).await;
        // Five were retried, and those have failed as well.
        assert!(page.text.contains("20"), "{}", page.text);
        assert_eq!(storage.asked("facts"), asked, "nothing was asked but the list itself");
        runtime.shutdown(secs(0)).await;
    });
}
