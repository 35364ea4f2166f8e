//! Traffic of a shop, for something to look at: six pools with retries, progress, failures, delayed jobs, one job that
//! hangs, and a pool that is paused. It takes a few percent of a core.

use std::time::Duration;

use actix_workpool::{
    ActionContext, ActionKey, KeyRule, PoolConfig, Rate, RetryBehavior, Runtime, RuntimeBuilder,
    WorkError, Workpool,
};
use serde_json::{Value, json};

const EMAIL: ActionKey<Value, Value> = ActionKey::new("email.send");
const THUMBNAIL: ActionKey<Value, Value> = ActionKey::new("image.thumbnail");
const REPORT: ActionKey<Value, Value> = ActionKey::new("report.build");
const WEBHOOK: ActionKey<Value, Value> = ActionKey::new("webhook.deliver");
const IMPORT: ActionKey<Value, Value> = ActionKey::new("catalog.import");
const CHARGE: ActionKey<Value, Value> = ActionKey::new("invoice.charge");

/// The number of jobs that wait in a pool at most: what its functions do not get done is not enqueued.
const MOST_WAITING: u64 = 200;

/// Registers the functions and the pools.
pub fn register(builder: RuntimeBuilder) -> RuntimeBuilder {
    let retry = |attempts, seconds| {
        let backoff = Duration::from_secs(seconds);
        RetryBehavior::default().max_attempts(attempts).initial_backoff(backoff)
    };
    let pool = |parallelism| PoolConfig::default().max_parallelism(parallelism);
    builder
        .action_fn(EMAIL, send_email)
        .action_fn(THUMBNAIL, make_thumbnail)
        .action_fn(REPORT, build_report)
        .action_fn(WEBHOOK, deliver_webhook)
        .action_fn(IMPORT, import_catalog)
        .action_fn(CHARGE, charge)
        .pool("emails", pool(8).default_retry(retry(5, 2)))
        .pool("thumbnails", pool(4).default_retry(retry(3, 1)))
        .pool("reports", pool(2))
        // Each host gets no more than it can take.
        .pool(
            "webhooks",
            pool(10)
                .default_retry(retry(4, 3))
                .per_key(KeyRule::default().parallelism(2).rate(Rate::per_second(4).burst(8))),
        )
        .pool("imports", pool(3))
        // The invoices of a customer are charged in order.
        .pool("billing", pool(2).default_retry(retry(3, 60)).per_key(KeyRule::ordered()))
}

/// A number that looks random and is the same each time.
fn dice(n: u64, salt: u64, sides: u64) -> u64 {
    let mixed = (n ^ salt << 32).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33) % sides
}

async fn rest(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn number(args: &Value) -> u64 {
    args["id"].as_u64().unwrap_or_default()
}

async fn send_email(args: Value, cx: ActionContext) -> Result<Value, WorkError> {
    let n = number(&args);
    rest(60 + dice(n, 1, 240)).await;
    match dice(n, 2, 400) {
        0 => Err(WorkError::non_retryable(format!("550 no such mailbox: {}", args["to"]))),
        1..24 if cx.attempt() == 1 => {
            Err(WorkError::retryable("421 too many connections, try again later"))
        }
        _ => Ok(json!({ "message_id": format!("<{n}@mail.shop.example>") })),
    }
}

async fn make_thumbnail(args: Value, _: ActionContext) -> Result<Value, WorkError> {
    let n = number(&args);
    rest(200 + dice(n, 3, 900)).await;
    match dice(n, 4, 250) {
        0 => {
            Err(WorkError::non_retryable("not an image: unexpected end of file after 4,096 bytes"))
        }
        _ => Ok(json!({ "width": 320, "height": 240, "bytes": 9_000 + dice(n, 5, 9_000) })),
    }
}

async fn build_report(args: Value, cx: ActionContext) -> Result<Value, WorkError> {
    let pages = 30 + dice(number(&args), 6, 60);
    for page in 1..=pages {
        cx.progress_note(page, Some(pages), format!("page {page}"));
        rest(400).await;
        if cx.is_canceled() {
            return Err(WorkError::canceled());
        }
    }
    Ok(json!({ "pages": pages, "file": "sales.pdf" }))
}

async fn deliver_webhook(args: Value, cx: ActionContext) -> Result<Value, WorkError> {
    let n = number(&args);
    rest(30 + dice(n, 7, 120)).await;
    if args["url"].as_str().is_some_and(|url| url.contains("old")) {
        return Err(WorkError::retryable("connection refused: hooks.old.example:443"));
    }
    match dice(n, 8, 12) {
        0 if cx.attempt() == 1 => Err(WorkError::retryable("503 Service Unavailable")),
        _ => Ok(json!({ "status": 204 })),
    }
}

async fn import_catalog(args: Value, cx: ActionContext) -> Result<Value, WorkError> {
    let rows = 20_000 + 1_000 * dice(number(&args), 9, 60);
    for done in (0..=rows).step_by(500) {
        cx.progress_note(done, Some(rows), "rows");
        if args["file"] == "suppliers/stuck.csv" && done == 12_500 {
            // It ignores being canceled, too: an abort ends it.
            cx.progress_note(done, Some(rows), "waits for sftp.supplier.example");
            std::future::pending::<()>().await;
        }
        rest(150).await;
        if cx.is_canceled() {
            return Err(WorkError::canceled());
        }
    }
    Ok(json!({ "rows": rows, "skipped": rows / 900 }))
}

async fn charge(args: Value, _: ActionContext) -> Result<Value, WorkError> {
    rest(250).await;
    Ok(json!({ "charged": args["cents"] }))
}

/// Makes traffic until the runtime ends: more at some times, less at others.
pub async fn load(runtime: Runtime) {
    // It fails if the runtime ends.
    let _ = traffic(&runtime).await;
}

async fn traffic(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    let [emails, thumbnails, reports, webhooks, imports, billing] =
        ["emails", "thumbnails", "reports", "webhooks", "imports", "billing"]
            .map(|name| runtime.pool(name));
    let (emails, thumbnails, reports) = (emails?, thumbnails?, reports?);
    let (webhooks, imports, billing) = (webhooks?, imports?, billing?);
    let has_room = |pool: &Workpool| pool.pending() < MOST_WAITING;
    billing.pause().await?;
    imports.enqueue(IMPORT.call(json!({ "id": 0, "file": "suppliers/stuck.csv" }))).await?;
    for hour in 1..=12 {
        let digest =
            json!({ "id": hour, "to": format!("team-{hour}@shop.example"), "template": "digest" });
        emails.enqueue(EMAIL.call(digest)).run_after(Duration::from_secs(hour * 3_600)).await?;
    }
    for n in 1_u64.. {
        // Each turn is a tenth of a second. A wave lasts four minutes.
        let wave = ((n as f64 / 2_400.0 * std::f64::consts::TAU).sin() + 1.3) / 2.3;
        let wanted =
            |per_second: f64, salt| (dice(n, salt, 1_000) as f64) < per_second * wave * 100.0;
        if wanted(8.0, 10) && has_room(&emails) {
            let template = ["receipt", "shipped", "welcome"][dice(n, 11, 3) as usize];
            let to = format!("customer-{}@mail.example", dice(n, 12, 5_000));
            emails.enqueue(EMAIL.call(json!({ "id": n, "to": to, "template": template }))).await?;
        }
        if wanted(6.0, 13) && has_room(&thumbnails) {
            let image = format!("products/{:05}.jpg", dice(n, 14, 40_000));
            thumbnails
                .enqueue(THUMBNAIL.call(json!({ "id": n, "image": image, "width": 320 })))
                .await?;
        }
        if wanted(7.0, 15) && has_room(&webhooks) {
            let host = match dice(n, 16, 90) {
                0 => "hooks.old.example",
                1..50 => "hooks.partner.example",
                _ => "hooks.carrier.example",
            };
            let event = ["order.paid", "order.shipped"][dice(n, 17, 2) as usize];
            let call = json!({ "id": n, "url": format!("https://{host}/v1"), "event": event });
            webhooks.enqueue(WEBHOOK.call(call)).key(host).await?;
        }
        if n % 110 == 1 && has_room(&reports) {
            let month = 1 + dice(n, 18, 12);
            let report = json!({ "id": n, "report": "sales", "month": format!("2025-{month:02}") });
            reports.enqueue(REPORT.call(report)).await?;
        }
        if n % 150 == 1 && has_room(&imports) {
            let file = format!("suppliers/{:03}.csv", dice(n, 19, 400));
            imports.enqueue(IMPORT.call(json!({ "id": n, "file": file }))).await?;
        }
        if n % 40 == 1 && has_room(&billing) {
            let customer = dice(n, 20, 30);
            let invoice =
                json!({ "id": n, "customer": customer, "cents": 900 + dice(n, 21, 20_000) });
            billing.enqueue(CHARGE.call(invoice)).key(format!("customer-{customer}")).await?;
        }
        rest(100).await;
    }
    Ok(())
}
