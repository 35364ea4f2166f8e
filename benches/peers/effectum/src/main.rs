//! Effectum, in a program of its own: see `benches/peers/README.md`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use effectum::{JobRunner, Queue, RunningJob, Worker};
use peers_harness::{Command, Job, PARALLELISM, Peer, handle, run_child, sqlite_durability};
use rusqlite::Connection;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

fn main() {
    let Command::Child(child) = Options::parse().command;
    match child.peer.as_str() {
        "effectum" => run_child::<Effectum<true>>(&child),
        "effectum-shipped" => run_child::<Effectum<false>>(&child),
        other => panic!("{other} is not measured here"),
    }
}

/// With a journal in WAL mode, or as it ships.
///
/// It sets `PRAGMA journal = wal`, which SQLite does not know, and so keeps a rollback journal. The mode is kept in the
/// file: set before it opens the file, it stays.
struct Effectum<const WAL: bool> {
    queue: Queue,
    path: PathBuf,
    /// Stops when it is dropped.
    _worker: Worker,
}

async fn run(job: RunningJob, (): ()) -> Result<(), effectum::Error> {
    handle(job.json_payload()?);
    Ok(())
}

fn job(number: u64) -> effectum::Job {
    let job = effectum::Job::builder("noop").json_payload(&Job::new(number));
    job.expect("a job is encoded").build()
}

impl<const WAL: bool> Peer for Effectum<WAL> {
    async fn start(folder: &Path) -> Effectum<WAL> {
        let path = folder.join("jobs.sqlite");
        if WAL {
            let file = Connection::open(&path).expect("the file opens");
            let mode: String = file
                .query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))
                .expect("the mode is set");
            assert_eq!(mode, "wal");
        }
        let queue = Queue::new(&path).await.expect("the queue opens");
        // It fetches when a job ends, the default: with a `min_concurrency` below 64 it is no faster.
        let worker = Worker::builder(&queue, ())
            .max_concurrency(PARALLELISM as u16)
            .jobs([JobRunner::builder("noop", run).build()])
            .build()
            .await
            .expect("the worker starts");
        Effectum { queue, path, _worker: worker }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        self.queue.add_jobs(numbers.map(job).collect()).await.expect("enqueued");
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.queue.add_job(job(number)).await.expect("enqueued");
    }

    async fn settle(&mut self, _: u64) {
        loop {
            let active = self.queue.num_active_jobs().await.expect("it answers");
            if active.pending + active.running == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn durability(&mut self) -> String {
        /// It sets it on its own connection, which cannot be asked.
        const NORMAL: i64 = 1;
        let file = Connection::open(&self.path).expect("the file opens");
        let journal: String =
            file.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("it answers");
        sqlite_durability(&journal, NORMAL)
    }

    async fn stop(self) {
        self.queue.close(Duration::from_secs(5)).await.expect("the queue closes");
    }
}
