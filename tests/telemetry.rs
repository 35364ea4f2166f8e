//! What is logged, under which names and with which fields, and what never is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

mod common;

use actix_workpool::{
    ActionKey, Completion, LogLevel, Mutation, OnComplete, PoolConfig, RetryBehavior, Runtime,
    RuntimeBuilder, Transaction, WorkError, Workpool,
};
use common::*;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Instrument, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

const TASK: ActionKey<u64, u64> = ActionKey::new("task");

/// An event or a span.
#[derive(Clone, Debug)]
struct Seen {
    /// The message of an event, the name of a span.
    name: String,
    level: Level,
    fields: BTreeMap<String, String>,
    /// The innermost span it was in.
    within: Option<String>,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or_else(|| panic!("{self:?} has no {name}"), String::as_str)
    }

    fn number(&self, name: &str) -> f64 {
        self.field(name).parse().unwrap()
    }
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

/// Keeps everything that is logged on this thread.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    events: Vec<Seen>,
    spans: BTreeMap<u64, Seen>,
    /// Pairs of spans: the first follows from the second.
    follows: Vec<(u64, u64)>,
}

impl Capture {
    fn begin() -> (Capture, DefaultGuard) {
        let capture = Capture::default();
        let subscriber = Registry::default().with(capture.clone());
        (capture, tracing::subscriber::set_default(subscriber))
    }

    /// The events of that name in the pool `p`.
    fn events(&self, name: &str) -> Vec<Seen> {
        let log = self.0.lock().unwrap();
        let ours = |seen: &&Seen| {
            seen.name == name && seen.fields.get("pool").is_none_or(|pool| pool == "p")
        };
        log.events.iter().filter(ours).cloned().collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().events.iter().map(|seen| seen.name.clone()).collect()
    }

    /// Everything, as text.
    fn everything(&self) -> String {
        let log = self.0.lock().unwrap();
        format!("{:?} {:?}", log.events, log.spans)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let metadata = attributes.metadata();
        let seen = Seen {
            name: metadata.name().to_owned(),
            level: *metadata.level(),
            fields,
            within: None,
        };
        self.0.lock().unwrap().spans.insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            values.record(&mut Fields(&mut span.fields));
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        self.0.lock().unwrap().follows.push((id.into_u64(), follows.into_u64()));
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let name = fields.remove("message").unwrap_or_default();
        let within = cx.event_span(event).map(|span| span.name().to_owned());
        let seen = Seen { name, level: *event.metadata().level(), fields, within };
        self.0.lock().unwrap().events.push(seen);
    }
}

/// `TASK` fails as often as its argument says, and then succeeds; 100 never ends.
fn functions(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder.echo().action_fn(TASK, |n, cx| async move {
        match n {
            100 => std::future::pending().await,
            n if u64::from(cx.attempt()) <= n => Err(WorkError::retryable("s3cret failure")),
            n => Ok(n),
        }
    })
}

async fn pool(level: LogLevel) -> (Runtime, Workpool) {
    let config = PoolConfig::default().log_level(level);
    start(functions(builder()), config).await
}

fn retries(attempts: u32) -> RetryBehavior {
    RetryBehavior::default().max_attempts(attempts).initial_backoff(ms(100))
}

#[test]
fn a_job_is_enqueued_started_and_completed() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let (runtime, pool) = pool(LogLevel::Info).await;
        let work = pool.enqueue(ECHO.call(1)).run_after(secs(7)).await.unwrap();
        work.join().await.unwrap();
        runtime.shutdown(secs(1)).await;

        let [enqueued] = &capture.events("enqueued")[..] else { panic!("not one `enqueued`") };
        assert_eq!(enqueued.level, Level::INFO);
        assert_eq!(enqueued.field("pool"), "p");
        assert_eq!(enqueued.field("work_id"), work.id().to_string());
        assert_eq!(enqueued.field("function"), "echo");
        assert!((7_000.0..7_010.0).contains(&enqueued.number("delay_ms")), "{enqueued:?}");

        let [started] = &capture.events("started")[..] else { panic!("not one `started`") };
        assert_eq!(started.field("work_id"), work.id().to_string());
        assert_eq!((started.field("function"), started.field("attempt")), ("echo", "1"));
        assert!(started.number("start_lag_ms") < 5.0, "{started:?}");

        let [completed] = &capture.events("completed")[..] else { panic!("not one `completed`") };
        assert_eq!(completed.field("work_id"), work.id().to_string());
        assert_eq!((completed.field("function"), completed.field("status")), ("echo", "success"));
        assert_eq!(completed.field("attempts"), "1");
    });
}

#[test]
fn the_start_lag_is_the_time_since_a_job_was_due() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let (runtime, pool) = pool(LogLevel::Info).await;
        pool.pause().await.unwrap();
        let work = pool.enqueue(ECHO.call(1)).run_after(secs(10)).await.unwrap();
        tokio::time::sleep(secs(13)).await;
        pool.resume().await.unwrap();
        work.join().await.unwrap();
        let lag = capture.events("started")[0].number("start_lag_ms");
        assert!((2_990.0..3_010.0).contains(&lag), "{lag}");
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_completion_says_how_the_attempt_ended() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let (runtime, pool) = pool(LogLevel::Info).await;
        let retried = pool.enqueue(TASK.call(2)).retry(retries(3)).await.unwrap();
        retried.join().await.unwrap();
        let failed = pool.enqueue(TASK.call(2)).retry(retries(2)).await.unwrap();
        failed.join().await.unwrap_err();
        let canceled = pool.enqueue(ECHO.call(1)).run_after(secs(9)).await.unwrap();
        canceled.cancel().await.unwrap();
        canceled.join().await.unwrap_err();

        let completions = capture.events("completed");
        let of = |id: actix_workpool::WorkId| {
            let ours = completions.iter().filter(|seen| seen.field("work_id") == id.to_string());
            ours.map(|seen| format!("{} {}", seen.field("status"), seen.field("attempts")))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(retried.id()), ["retrying 1", "retrying 2", "success 3"]);
        assert_eq!(of(failed.id()), ["retrying 1"]);
        assert_eq!(of(canceled.id()), ["canceled 0"]);
        let [failure] = &capture.events("job failed")[..] else { panic!("one has failed") };
        assert_eq!((failure.level, failure.field("kind")), (Level::WARN, "Error"));
        assert_eq!(failure.field("work_id"), failed.id().to_string());
        assert_eq!((failure.field("function"), failure.field("attempts")), ("task", "2"));
        assert!(!failure.fields.contains_key("error"), "unless the pool says so: {failure:?}");
        for completed in &completions {
            assert!(["task", "echo"].contains(&completed.field("function")), "{completed:?}");
        }
        let starts: Vec<_> = capture.events("started");
        assert_eq!(starts.len(), 3 + 2);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn each_minute_there_is_a_report() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let config = PoolConfig::default().max_parallelism(2);
        let (runtime, pool) = start(functions(builder()), config).await;
        for n in 0..3 {
            pool.enqueue(ECHO.call(n)).await.unwrap().join().await.unwrap();
        }
        let retried = pool.enqueue(TASK.call(2)).retry(retries(3)).await.unwrap();
        retried.join().await.unwrap();
        pool.enqueue(TASK.call(1)).await.unwrap().join().await.unwrap_err();
        let canceled = pool.enqueue(ECHO.call(1)).run_after(secs(9)).await.unwrap();
        canceled.cancel().await.unwrap();
        canceled.join().await.unwrap_err();
        // Two that run and three that wait.
        let busy = pool.enqueue_batch((0..5).map(|_| TASK.call(100))).await.unwrap();
        tokio::time::sleep(secs(59)).await;
        assert!(capture.events("report").is_empty(), "a minute has not passed");
        tokio::time::sleep(secs(10)).await;

        let [report] = &capture.events("report")[..] else {
            panic!("not one report: {:?}", capture.names())
        };
        assert_eq!(report.level, Level::INFO);
        for (field, expected) in [
            ("completed", 7.0),
            ("succeeded", 4.0),
            ("failed", 1.0),
            ("retries", 2.0),
            ("canceled", 1.0),
            ("running", 2.0),
            ("backlog", 3.0),
            ("failure_rate", 3.0 / 7.0),
            ("permanent_failure_rate", 1.0 / 5.0),
        ] {
            let value = report.number(field);
            assert!((value - expected).abs() < 1e-9, "{field} is {value}, not {expected}");
        }
        tokio::time::sleep(secs(240)).await;
        assert_eq!(capture.events("report").len(), 5, "one each minute");
        busy.cancel().await.unwrap();
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn the_log_level_of_a_pool_filters_its_events() {
    run_paused(async {
        for (level, expected) in [
            (LogLevel::Trace, "DEBUG INFO INFO WARN INFO"),
            (LogLevel::Debug, "DEBUG INFO INFO WARN INFO"),
            (LogLevel::Info, "TRACE INFO INFO WARN INFO"),
            (LogLevel::Report, "TRACE DEBUG DEBUG WARN INFO"),
            (LogLevel::Warn, "TRACE - - WARN -"),
            (LogLevel::Error, "TRACE - - - -"),
        ] {
            let (capture, _guard) = Capture::begin();
            let (runtime, pool) = pool(level).await;
            settle().await;
            pool.enqueue(TASK.call(0)).await.unwrap().join().await.unwrap();
            pool.enqueue(TASK.call(1)).await.unwrap().join().await.unwrap_err();
            let busy = pool.enqueue(TASK.call(100)).await.unwrap();
            tokio::time::sleep(secs(65)).await;
            let at = |name| capture.events(name).first().map_or("-", |seen| seen.level.as_str());
            let logged = ["kicked", "enqueued", "completed", "job failed", "report"].map(at);
            assert_eq!(logged.join(" "), expected, "{level:?}");
            assert_eq!(at("started"), at("enqueued"), "{level:?}");
            busy.cancel().await.unwrap();
            runtime.shutdown(secs(0)).await;
        }
    });
}

#[test]
fn the_log_level_can_be_changed_while_the_pool_runs() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let (runtime, pool) = pool(LogLevel::Warn).await;
        let quiet = pool.enqueue(ECHO.call(1)).await.unwrap();
        quiet.join().await.unwrap();
        assert!(capture.events("completed").is_empty());
        pool.update(PoolConfig::default().log_level(LogLevel::Info)).await.unwrap();
        pool.enqueue(ECHO.call(1)).await.unwrap().join().await.unwrap();
        for name in ["enqueued", "started", "completed"] {
            assert_eq!(capture.events(name).len(), 1, "{name}");
        }
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn the_span_of_an_attempt_follows_from_the_span_of_its_enqueue() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let speaks = ActionKey::<(), ()>::new("speaks");
        let builder = builder().action_fn(speaks, |(), cx| async move {
            tracing::info!("spoken");
            tokio::time::sleep(ms(1)).await;
            tracing::info!("spoken");
            if cx.attempt() == 1 { Err(WorkError::retryable("no")) } else { Ok(()) }
        });
        let (runtime, pool) = start(builder, PoolConfig::default()).await;
        let request = tracing::info_span!("request");
        let request_id = request.id().unwrap().into_u64();
        let enqueue = async { pool.enqueue(speaks.call(())).retry(retries(2)).await.unwrap() };
        let work = enqueue.instrument(request).await;
        work.join().await.unwrap();
        runtime.shutdown(secs(1)).await;

        let log = capture.0.lock().unwrap();
        let attempts: Vec<_> =
            log.spans.iter().filter(|(_, span)| span.name == "attempt").collect();
        // Ids may be used again once a span is closed: the last of a number is what is here.
        assert!(!attempts.is_empty());
        for (id, span) in &attempts {
            assert!(log.follows.contains(&(**id, request_id)), "{span:?}");
            assert_eq!(span.field("work_id"), work.id().to_string());
            assert_eq!(span.field("function"), "speaks");
        }
        assert_eq!(log.follows.iter().filter(|(_, from)| *from == request_id).count(), 2);
        let spoken: Vec<_> = log.events.iter().filter(|seen| seen.name == "spoken").collect();
        assert_eq!(spoken.len(), 4);
        assert!(spoken.iter().all(|seen| seen.within.as_deref() == Some("attempt")));
    });
}

#[derive(Serialize, Deserialize)]
struct Hide(String);

impl Mutation for Hide {
    const NAME: &'static str = "hide";
    type Output = String;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<String, WorkError> {
        tx.put("t", "k", &self.0)?;
        if self.0.ends_with('!') {
            return Err(WorkError::retryable(format!("failed on {}", self.0)));
        }
        Ok(self.0)
    }
}

struct Hidden;

impl OnComplete for Hidden {
    const NAME: &'static str = "hidden";
    type Context = String;
    type Output = String;

    fn apply(_: &mut Transaction<'_>, done: Completion<String, String>) -> Result<(), WorkError> {
        Err(WorkError::retryable(format!("failed on {}", done.context)))
    }
}

#[test]
fn arguments_results_contexts_and_messages_are_never_logged() {
    run_paused(async {
        const REVEAL: ActionKey<String, String> = ActionKey::new("reveal");
        let (capture, _guard) = Capture::begin();
        let builder = builder().mutation::<Hide>().on_complete::<Hidden>().action_fn(
            REVEAL,
            |text: String, cx| async move {
                cx.progress_note(1, None, text.clone());
                match text.as_str() {
                    "s3cret panic" => panic!("{text}"),
                    "s3cret late" => std::future::pending().await,
                    "s3cret retry" => Err(WorkError::retryable(text)),
                    _ => Ok(text),
                }
            },
        );
        let config = PoolConfig::default().log_level(LogLevel::Trace);
        let (runtime, pool) = start(builder, config).await;
        let span = tracing::info_span!("request");
        async {
            for text in ["s3cret", "s3cret panic", "s3cret retry", "s3cret late"] {
                let work = pool
                    .enqueue(REVEAL.call(text.into()))
                    .on_complete::<Hidden>("s3cret context".into())
                    .retry(retries(2))
                    .timeout(secs(1))
                    .await
                    .unwrap();
                let _ = work.join().await;
            }
            for text in ["s3cret", "s3cret!"] {
                let work = pool.enqueue(Hide(text.into())).await.unwrap();
                let _ = work.join().await;
            }
        }
        .instrument(span)
        .await;
        tokio::time::sleep(secs(120)).await;
        runtime.shutdown(secs(1)).await;
        assert!(!capture.events("on_complete failed").is_empty());
        assert!(capture.events("completed").len() >= 8);
        let everything = capture.everything();
        assert!(!everything.contains("s3cret"), "{everything}");
    });
}

#[test]
fn what_a_storage_fails_on_is_not_logged() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let storage = Faulty::new();
        let config = PoolConfig::default().log_level(LogLevel::Trace);
        let builder = builder().mutation::<Hide>().storage(storage.clone());
        let (runtime, pool) = start(builder, config).await;
        // Refused when it is enqueued, when it starts and when it completes.
        storage.fail_commit(storage.commits() + 1, Fault::Refused);
        pool.enqueue(Hide("s3cret".into())).await.unwrap_err();
        for at in 2..4 {
            storage.fail_commit(storage.commits() + at, Fault::Refused);
            let work = pool.enqueue(Hide("s3cret".into())).await.unwrap();
            assert_eq!(soon(work.join()).await.unwrap(), "s3cret");
        }
        assert_eq!(storage.hits(), 3);
        runtime.shutdown(secs(1)).await;
        assert!(!capture.events("storage failed").is_empty());
        assert!(!capture.events("turn failed").is_empty());
        let everything = capture.everything();
        assert!(!everything.contains("s3cret"), "{everything}");
    });
}

/// Neither for those who look, nor for those who are not let in, nor for a handler that says what has become of a job.
#[cfg(feature = "actix-web")]
#[test]
fn what_a_dashboard_shows_is_not_logged() {
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::{App, HttpResponse, web};
    use actix_workpool::web::{insecure_allow_all, workpool_dashboard};

    const REVEAL: ActionKey<String, String> = ActionKey::new("reveal");

    async fn joined(pool: Workpool) -> actix_web::Result<HttpResponse> {
        let work = pool.enqueue(REVEAL.call("s3cret error".into())).await?;
        Ok(HttpResponse::Ok().body(work.join().await?))
    }

    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let builder = builder().action_fn(REVEAL, |text: String, _| async move {
            match text.as_str() {
                "s3cret error" => Err(WorkError::non_retryable(text)),
                _ => Ok(text),
            }
        });
        let config = PoolConfig::default().log_level(LogLevel::Trace);
        let (runtime, pool) = start(builder, config).await;
        let done = pool.enqueue(REVEAL.call("s3cret".into())).await.unwrap();
        done.join().await.unwrap();
        let failed = pool.enqueue(REVEAL.call("s3cret error".into())).await.unwrap();
        failed.join().await.unwrap_err();
        let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
        let app = App::new()
            .app_data(web::Data::new(pool))
            .route("/joined", web::get().to(joined))
            .service(dashboard.scope("/w"));
        let app = init_service(app).await;
        let ask = async |request: TestRequest| {
            let answer = call_service(&app, request.to_request()).await;
            String::from_utf8(read_body(answer).await.to_vec()).unwrap()
        };
        let get = |path: &str| TestRequest::get().uri(path);
        for path in [
            format!("/w/works/{}", done.id()),
            format!("/w/api/works/{}", failed.id()),
            "/w/works?outcome=failed".into(),
        ] {
            assert!(ask(get(&path)).await.contains("s3cret"), "{path}");
        }
        for path in ["/w/works?pool=s3cret", "/w/works/s3cret", "/w/s3cret", "/w/find?id=s3cret"] {
            ask(get(path)).await;
        }
        ask(TestRequest::post().uri(&format!("/w/works/{}/retry", failed.id()))).await;
        let change = TestRequest::patch().uri("/w/api/pools/p");
        ask(change.set_json(serde_json::json!({ "s3cret": "s3cret" }))).await;
        assert!(!ask(get("/joined")).await.contains("s3cret"));
        runtime.shutdown(secs(1)).await;
        assert!(!capture.events("dashboard open to everybody").is_empty());
        let everything = capture.everything();
        assert!(!everything.contains("s3cret"), "{everything}");
    });
}

#[test]
fn a_recovery_is_logged_as_a_warning() {
    run_paused(async {
        let tables = actix_workpool::storage::Memory::new();
        let builder =
            || functions(builder().storage(tables.clone())).pool("p", PoolConfig::default());
        let runtime = builder().start().await.unwrap();
        let pool = runtime.pool("p").unwrap();
        pool.enqueue_batch([TASK.call(100), TASK.call(100)]).await.unwrap();
        while pool.running().await.unwrap().len() < 2 {
            settle().await;
        }
        drop(runtime);
        let (capture, _guard) = Capture::begin();
        let runtime = start_again(builder).await;
        let [recovered] = &capture.events("recovered")[..] else { panic!("not one `recovered`") };
        assert_eq!((recovered.level, recovered.field("attempts")), (Level::WARN, "2"));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn the_message_of_a_failed_job_is_logged_where_the_pool_or_the_runtime_says_so() {
    for of_pool in [true, false] {
        run_paused(async move { message_is_logged(of_pool).await });
    }
}

async fn message_is_logged(of_pool: bool) {
    let (capture, _guard) = Capture::begin();
    let config = PoolConfig::default().log_error_messages(of_pool);
    let builder = functions(builder()).log_error_messages(!of_pool);
    let (runtime, pool) = start(builder, config).await;
    pool.enqueue(TASK.call(1)).await.unwrap().join().await.unwrap_err();
    let [failure] = &capture.events("job failed")[..] else { panic!("one has failed") };
    assert!(!failure.field("error").is_empty());
    runtime.shutdown(secs(1)).await;
}

#[test]
fn a_start_and_a_shutdown_are_logged() {
    run_paused(async {
        let (capture, _guard) = Capture::begin();
        let builder = functions(builder()).pool("q", PoolConfig::default().paused(true));
        let (runtime, pool) = start(builder, PoolConfig::default().max_parallelism(3)).await;
        pool.enqueue(ECHO.call(1)).run_after(secs(9)).await.unwrap();
        let [started] = &capture.events("runtime started")[..] else { panic!("it has started") };
        assert_eq!((started.level, started.field("store")), (Level::INFO, "Tables"));
        assert_eq!(started.field("pools"), "p (3), q (10, paused)");
        assert_eq!(started.field("functions"), "echo, task");
        assert_eq!(started.field("version"), env!("CARGO_PKG_VERSION"));
        runtime.shutdown(secs(1)).await;
        let [ended] = &capture.events("runtime shut down")[..] else { panic!("it has ended") };
        let counts = ["finished", "returned", "waiting"].map(|field| ended.field(field));
        assert_eq!((ended.level, counts), (Level::INFO, ["0", "0", "1"]));

        // What is in memory only is gone.
        let builder = functions(Runtime::builder().worker_arbiters(0));
        let (runtime, pool) = start(builder, PoolConfig::default()).await;
        pool.enqueue(ECHO.call(1)).run_after(secs(9)).await.unwrap();
        runtime.shutdown(secs(1)).await;
        let ended = capture.events("runtime shut down").pop().unwrap();
        assert_eq!((ended.field("gone"), ended.fields.get("waiting")), ("1", None));
    });
}
