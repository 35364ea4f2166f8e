//! A service that counts the words of texts, with a dashboard at `/workpool` and metrics at `/metrics`.
//!
//! ```text
//! $ cargo run --release --features actix-web,metrics --example web -- --demo-load
//! dashboard: http://127.0.0.1:8080/workpool/ as admin:… (all) or viewer:… (read only)
//! $ text=$(curl -si --data-binary @README.md http://127.0.0.1:8080/texts | tr -d '\r' | sed -n 's/^location: //p')
//! $ curl http://127.0.0.1:8080$text                      # where it is, and the result
//! $ curl -N http://127.0.0.1:8080$text/events            # the same as it changes
//! $ curl -X DELETE http://127.0.0.1:8080$text            # cancels it
//! $ curl -d 'count me later' http://127.0.0.1:8080/texts?after_secs=60
//! $ curl -d 'count me in my turn' http://127.0.0.1:8080/texts?by=anna    # at most two texts of anna are counted at once
//! ```
//!
//! With `--store FILE` texts that were taken are counted even if the service is killed. Ctrl-C ends it: first no request
//! is taken any more, then what runs may finish, and what is left waits in the file.

mod demo;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use actix_web::error::ErrorNotFound;
use actix_web::http::header::{AUTHORIZATION, HeaderValue};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Result, web};
use actix_workpool::storage::Redb;
use actix_workpool::web::{Permissions, Pool, PoolName, Refusal, workpool_dashboard};
use actix_workpool::{
    Action, ActionContext, Completion, KeyRule, OnComplete, PoolConfig, RetryBehavior, Runtime,
    Transaction, WorkError, WorkId, Workpool,
};
use base64::prelude::{BASE64_STANDARD, Engine};
use clap::Parser;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval};
use tokio_stream::StreamExt;
use uuid::Uuid;

#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    bind: String,
    /// A file that keeps the jobs; without it they are gone with the process.
    #[arg(long)]
    store: Option<PathBuf>,
    /// Adds the pools of a shop with traffic, and counts slowly, so that there is something to look at.
    #[arg(long)]
    demo_load: bool,
    /// How long the service rests after each hundred words; a tenth of a second with --demo-load, else not at all.
    #[arg(long)]
    rest_ms: Option<u64>,
    /// The password of `admin`, who may do everything; a random one if left out.
    #[arg(long)]
    admin_password: Option<String>,
    /// The password of `viewer`, who may look; a random one if left out.
    #[arg(long)]
    viewer_password: Option<String>,
}

/// How long the service rests after each part of a text.
struct Pace(Duration);

const LONGEST_WORD: usize = 500;

/// Counts words, part by part, and says how far it is.
#[derive(Serialize, Deserialize)]
struct CountWords {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Counted {
    words: u64,
    most_frequent: Vec<(String, u64)>,
}

impl Action for CountWords {
    const NAME: &'static str = "text.count_words";
    type Output = Counted;

    async fn run(self, cx: ActionContext) -> std::result::Result<Counted, WorkError> {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        if words.is_empty() {
            return Err(WorkError::non_retryable("there are no words in it"));
        }
        let mut counts = BTreeMap::<String, u64>::new();
        for (part, some) in words.chunks(100).enumerate() {
            for word in some {
                if word.len() > LONGEST_WORD {
                    return Err(WorkError::non_retryable(format!("this is no word: {word}")));
                }
                *counts.entry(word.to_lowercase()).or_default() += 1;
            }
            let counted = part * 100 + some.len();
            cx.progress_note(counted as u64, Some(words.len() as u64), words[counted - 1]);
            tokio::time::sleep(cx.data::<Pace>().0).await;
            if cx.is_canceled() {
                return Err(WorkError::canceled());
            }
        }
        let mut most_frequent: Vec<_> = counts.into_iter().collect();
        most_frequent.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        most_frequent.truncate(10);
        Ok(Counted { words: words.len() as u64, most_frequent })
    }
}

/// Runs every night. However a night ends, canceled or failed as well, [`NextNight`] enqueues the next one.
#[derive(Serialize, Deserialize)]
struct Nightly {
    day: u64,
}

impl Action for Nightly {
    const NAME: &'static str = "nightly";
    type Output = u64;

    async fn run(self, cx: ActionContext) -> std::result::Result<u64, WorkError> {
        Ok(cx.pool("texts")?.diagnostics().await?.report.succeeded)
    }
}

/// Enqueues the next night in the commit that completes this one: there is always one, and never two.
struct NextNight;

impl OnComplete for NextNight {
    const NAME: &'static str = "nightly.next";
    /// The day that has ended.
    type Context = u64;
    type Output = u64;

    fn apply(
        tx: &mut Transaction<'_>,
        night: Completion<u64, u64>,
    ) -> std::result::Result<(), WorkError> {
        let next = Nightly { day: night.context + 1 };
        let (id, at, day) = (next.id(), next.at(), next.day);
        tx.pool("nightly")?
            .enqueue(next)
            .id(id)
            .run_at(at)
            .on_complete::<NextNight>(day)
            .submit()?;
        Ok(())
    }
}

impl Nightly {
    const DAY: u64 = 24 * 60 * 60;

    /// Each night has its id: however often it is enqueued, it runs once.
    fn id(&self) -> WorkId {
        WorkId::from_uuid(Uuid::from_u128(self.day.into()))
    }

    fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.day * Nightly::DAY)
    }
}

const KEEP_ALIVE: Duration = Duration::from_secs(10);
const LONGEST_STREAM: Duration = Duration::from_secs(5 * 60);

struct Texts;

impl PoolName for Texts {
    const NAME: &'static str = "texts";
}

#[derive(Deserialize)]
struct How {
    #[serde(default)]
    after_secs: u64,
    /// Whose text it is. A service with accounts would know it.
    by: Option<String>,
}

/// When this has answered, the text will be counted, whatever becomes of the client.
async fn upload(pool: Pool<Texts>, how: web::Query<How>, text: String) -> Result<HttpResponse> {
    let How { after_secs, by } = how.into_inner();
    let mut work = pool.enqueue(CountWords { text }).run_after(Duration::from_secs(after_secs));
    if let Some(by) = by {
        work = work.key(by);
    }
    let work = work.await?;
    let at = format!("/texts/{}", work.id());
    let answer = serde_json::json!({ "id": work.id() });
    Ok(HttpResponse::Accepted().insert_header(("location", at)).json(answer))
}

/// The id of a text. Ids are those of all pools, and what is in another one is nobody's business here.
async fn text_id(pool: &Workpool, id: Uuid) -> Result<WorkId> {
    let work_id = WorkId::from_uuid(id);
    match pool.explain(work_id).await?.pool {
        Some(name) if name.as_str() == Texts::NAME => Ok(work_id),
        _ => Err(ErrorNotFound("there is no such text")),
    }
}

async fn status(pool: Pool<Texts>, id: web::Path<Uuid>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(pool.status(text_id(&pool, *id).await?).await?))
}

/// Ends with the text, or after a while, when the client has to come again.
async fn events(pool: Pool<Texts>, id: web::Path<Uuid>) -> Result<HttpResponse> {
    let changes = pool.work::<Counted>(text_id(&pool, *id).await?).watch();
    let end = Instant::now() + LONGEST_STREAM;
    let events = changes
        .timeout_repeating(interval(KEEP_ALIVE))
        .take_while(move |_| Instant::now() < end)
        .map(|change| {
            // A comment, so that nothing on the way hangs up, and a client that has gone is noticed.
            let Ok(status) = change else { return Ok(web::Bytes::from_static(b":\n\n")) };
            let json = serde_json::to_string(&status)?;
            Ok::<_, serde_json::Error>(web::Bytes::from(format!("data: {json}\n\n")))
        });
    Ok(HttpResponse::Ok().content_type("text/event-stream").streaming(events))
}

async fn cancel(pool: Pool<Texts>, id: web::Path<Uuid>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(pool.cancel(text_id(&pool, *id).await?).await?))
}

/// Says where to go.
async fn home() -> &'static str {
    "POST a text to /texts; GET, DELETE or watch it at the location that the answer names (/events).\n\
     The dashboard is at /workpool/, metrics are at /metrics.\n"
}

async fn metrics(handle: web::Data<PrometheusHandle>) -> String {
    handle.run_upkeep();
    handle.render()
}

/// Knows `admin` and `viewer` by what their browsers send.
fn authorizer(
    admin: &str,
    viewer: &str,
) -> impl Fn(&HttpRequest) -> std::result::Result<Permissions, Refusal> + use<> {
    let sent = |user: &str, password: &str| {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        blake3::hash(format!("Basic {encoded}").as_bytes())
    };
    let (admin, viewer) = (sent("admin", admin), sent("viewer", viewer));
    move |request| {
        let given = request.headers().get(AUTHORIZATION);
        // Hashes of this kind are compared in constant time.
        match given.map(|given| blake3::hash(given.as_bytes())) {
            Some(given) if given == admin => Ok(Permissions::full()),
            Some(given) if given == viewer => Ok(Permissions::read_only()),
            _ => Err(Refusal::Unauthorized {
                challenge: Some(HeaderValue::from_static("Basic realm=\"workpool\"")),
            }),
        }
    }
}

#[actix_web::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        // What it prints is for whoever has started it.
        .with_writer(std::io::stderr)
        .init();
    // Before the runtime starts, which describes its metrics then.
    let metrics_handle = web::Data::new(PrometheusBuilder::new().install_recorder()?);

    let rest_ms = args.rest_ms.unwrap_or(if args.demo_load { 100 } else { 0 });
    let mut builder = Runtime::builder()
        .action::<CountWords>()
        .action::<Nightly>()
        .on_complete::<NextNight>()
        .data(Pace(Duration::from_millis(rest_ms)))
        .pool(
            "texts",
            PoolConfig::default()
                .max_parallelism(4)
                .default_retry(RetryBehavior::default())
                // Whoever sends many texts leaves room for those of others.
                .per_key(KeyRule::default().parallelism(2)),
        )
        .pool("nightly", PoolConfig::default().max_parallelism(1));
    if args.demo_load {
        builder = demo::register(builder);
    }
    if let Some(file) = &args.store {
        builder = builder.storage(Redb::open(file)?);
    }
    let runtime = builder.start().await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let tonight = Nightly { day: now / Nightly::DAY + 1 };
    let (id, at, day) = (tonight.id(), tonight.at(), tonight.day);
    let nightly = runtime.pool("nightly")?;
    nightly.enqueue(tonight).id(id).run_at(at).on_complete::<NextNight>(day).await?;

    let random = || Uuid::new_v4().simple().to_string();
    let admin = args.admin_password.clone().unwrap_or_else(random);
    let viewer = args.viewer_password.clone().unwrap_or_else(random);
    let dashboard = workpool_dashboard(runtime.clone(), authorizer(&admin, &viewer));
    let data = web::Data::new(runtime.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(metrics_handle.clone())
            .app_data(web::PayloadConfig::new(512 << 10))
            .route("/", web::get().to(home))
            .route("/texts", web::post().to(upload))
            .route("/texts/{id}", web::get().to(status))
            .route("/texts/{id}", web::delete().to(cancel))
            .route("/texts/{id}/events", web::get().to(events))
            .route("/metrics", web::get().to(metrics))
            .service(dashboard.scope("/workpool"))
    })
    // Who listens to events does not go by himself.
    .shutdown_timeout(2)
    .bind(&args.bind)?;
    for address in server.addrs() {
        println!(
            "dashboard: http://{address}/workpool/ as admin:{} (all) or viewer:{} (read only)",
            if args.admin_password.is_some() { "…" } else { &admin },
            if args.viewer_password.is_some() { "…" } else { &viewer },
        );
    }
    if args.demo_load {
        actix_web::rt::spawn(demo::load(runtime.clone()));
    }

    // First requests are answered, then the pools end.
    let left = runtime.serve(server.run(), Duration::from_secs(10)).await?;
    let fate = match args.store {
        Some(_) => "wait in the file for the next start",
        None => "are gone: they were in memory only (see --store)",
    };
    println!(
        "{} attempts finished, {} returned to the queue; {} jobs have no outcome and {fate}",
        left.finished, left.returned, left.pending
    );
    Ok(())
}
