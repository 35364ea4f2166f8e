use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use peers_harness::{Job, PARALLELISM, Peer, handle};
use riverqueue::migrate::SqliteMigrator;
use riverqueue::{
    BoxError, Client, JobArgs, QueueConfig, RunHandle, WorkContext, WorkOutcome, Workers,
};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

use super::sqlite;

/// One client on SQLite.
pub struct Riverqueue {
    client: Client,
    pool: SqlitePool,
    /// Stops the client when it is dropped.
    _run: RunHandle,
}

#[derive(Clone, Deserialize, JobArgs, Serialize)]
#[river(kind = "noop")]
struct Noop {
    #[serde(flatten)]
    job: Job,
}

async fn run(_: WorkContext, job: riverqueue::Job<Noop>) -> Result<WorkOutcome, BoxError> {
    handle(job.args.job);
    Ok(WorkOutcome::Complete)
}

impl Peer for Riverqueue {
    async fn start(folder: &Path) -> Riverqueue {
        // As its README has it. The file is synced at each commit: SQLite's default.
        let options = SqliteConnectOptions::new()
            .filename(folder.join("jobs.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(5)
            .connect_with(options)
            .await
            .expect("the file opens");
        SqliteMigrator::new(pool.clone()).migrate_up().await.expect("tables are made");
        let mut workers = Workers::new();
        workers.add_fn(run).expect("the worker is registered");
        // The shortest pauses that it allows: they bound the throughput, and how soon a job is seen.
        let pause = riverqueue::FETCH_COOLDOWN_MIN;
        let queue = QueueConfig::new(PARALLELISM).with_fetch_poll_interval(pause);
        let client = Client::builder(pool.clone())
            .workers(workers)
            .queue("default", queue)
            .fetch_cooldown(pause)
            .build()
            .expect("a client");
        let run = client.start().expect("the client starts");
        Riverqueue { client, pool, _run: run }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        let jobs = numbers.map(|number| Noop { job: Job::new(number) });
        self.client.insert_many::<Noop, _>(jobs).await.expect("enqueued");
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.client.insert(Noop { job: Job::new(number) }).await.expect("enqueued");
    }

    async fn settle(&mut self, jobs: u64) {
        let done = "SELECT count(*) FROM river_job WHERE state = 'completed'";
        sqlite::settle(&self.pool, done, jobs).await;
    }

    async fn durability(&mut self) -> String {
        sqlite::durability(&self.pool).await
    }
}
