use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteStorage};
use futures::StreamExt;
use peers_harness::{BATCH, Job, PARALLELISM, Peer, handle};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::sqlite;

/// One worker on SQLite.
pub struct ApalisSqlite {
    pool: SqlitePool,
    storage: SqliteStorage<Job>,
    analyzed: bool,
}

async fn run(job: Job) -> Result<(), BoxDynError> {
    handle(job);
    Ok(())
}

impl Peer for ApalisSqlite {
    async fn start(folder: &Path) -> ApalisSqlite {
        let url = format!("sqlite://{}", folder.join("jobs.sqlite").display());
        let options = SqliteConnectOptions::from_str(&url)
            .expect("a path is an address")
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        // `setup` turns the syncs of its connection off: a connection of its own, that nobody else uses.
        let setup = SqlitePool::connect_with(options.clone()).await.expect("the file opens");
        SqliteStorage::setup(&setup).await.expect("tables are made");
        setup.close().await;

        // A listener on the hook of SQLite, and a poll: what is enqueued here starts at once, and what has run is
        // recorded soon.
        let (pool, listener) = SqliteStorage::connect_with_callback(&url).expect("an address");
        pool.set_connect_options(
            options
                .synchronous(SqliteSynchronous::Full)
                .pragma("cache_size", "64000")
                .pragma("temp_store", "MEMORY"),
        );
        // Faster than with the default of 10, and than with 64; with 1,000 it is no faster. There is one worker: it need
        // not lock again what it has fetched.
        const FETCHED: usize = 256;
        let config = Config::default().queue("peers").batch_size(FETCHED).lock_tasks(false);
        let storage = SqliteStorage::new(&pool).with_config(config);
        let strategy = Strategy::new()
            .stream(listener.ready_chunks(FETCHED))
            .interval(Duration::from_millis(10));
        let backend = storage.clone().poll_with_strategy(strategy);
        let worker = WorkerBuilder::new("peers").backend(backend).concurrency(PARALLELISM);
        tokio::spawn(worker.build(run).run());
        ApalisSqlite { pool, storage, analyzed: false }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        let jobs = numbers.map(Job::new).collect();
        self.storage.push_bulk(jobs).await.expect("enqueued");
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.storage.push(Job::new(number)).await.expect("enqueued");
    }

    async fn settle(&mut self, jobs: u64) {
        let done = "SELECT count(*) FROM Jobs WHERE status = 'Done'";
        sqlite::settle(&self.pool, done, jobs).await;
        // Without the statistics of a table that is in use, SQLite looks for a job among all that the worker has ever
        // run: the more have run, the slower it is.
        if !self.analyzed && jobs >= BATCH {
            self.analyzed = true;
            sqlx::query("ANALYZE").execute(&self.pool).await.expect("analyzed");
        }
    }

    async fn durability(&mut self) -> String {
        sqlite::durability(&self.pool).await
    }
}
