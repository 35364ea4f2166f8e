//! Counts what the handler runs. There is one tally in a process, for there is one peer in it.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use crate::job::Job;

static TALLY: OnceLock<Tally> = OnceLock::new();

/// How long a pool may need before its jobs count as lost.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Tally {
    /// One bit for each job.
    seen: Vec<AtomicU64>,
    ran: AtomicU64,
    wanted: AtomicU64,
    complete: Notify,
    /// Where the times of the starts go, if they are what is measured.
    starts: Option<mpsc::UnboundedSender<Instant>>,
}

impl Tally {
    /// For jobs with numbers below `jobs`.
    pub fn set_up(jobs: u64, starts: Option<mpsc::UnboundedSender<Instant>>) -> &'static Tally {
        let tally = Tally {
            seen: (0..jobs.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            ran: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            complete: Notify::new(),
            starts,
        };
        assert!(TALLY.set(tally).is_ok(), "a process measures one peer");
        TALLY.get().expect("it has just been set")
    }

    /// Announces that so many jobs are to have run, all in all.
    pub fn want(&self, jobs: u64) {
        self.wanted.store(jobs, Ordering::Release);
    }

    /// Waits until they have.
    pub async fn complete(&self) {
        let complete = tokio::time::timeout(PATIENCE, self.complete.notified()).await;
        assert!(complete.is_ok(), "{} jobs have run, and no more", self.ran());
    }

    pub fn ran(&self) -> u64 {
        self.ran.load(Ordering::Acquire)
    }

    fn count(&self, job: &Job) {
        if let Some(starts) = &self.starts {
            // The receiver is gone when the measurement has ended.
            let _ = starts.send(Instant::now());
        }
        let (word, bit) = (job.number / 64, 1 << (job.number % 64));
        let before = self.seen[word as usize].fetch_or(bit, Ordering::Relaxed);
        if before & bit != 0 {
            eprintln!("job {} has run twice", job.number);
            std::process::abort();
        }
        if self.ran.fetch_add(1, Ordering::AcqRel) + 1 == self.wanted.load(Ordering::Acquire) {
            self.complete.notify_one();
        }
    }
}

/// What every handler does.
pub fn handle(job: Job) {
    TALLY.get().expect("the tally is set up first").count(&job);
    black_box(job);
}

/// What a handler does that gets the bytes.
pub fn handle_encoded(job: &[u8]) {
    handle(serde_json::from_slice(job).expect("a job is decoded"));
}
