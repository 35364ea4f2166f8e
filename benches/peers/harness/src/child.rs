//! The process that measures one figure of one peer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::tally::Tally;
use crate::{BATCH, Peer, disk};

/// How a process is asked for a measurement.
#[derive(Subcommand)]
pub enum Command {
    /// Measures one figure of one peer, in this process.
    #[command(hide = true)]
    Child(Child),
}

#[derive(Args)]
pub struct Child {
    /// The peer to measure.
    pub peer: String,
    #[arg(long)]
    pub measure: Measure,
    /// How many jobs.
    #[arg(long)]
    pub jobs: u64,
    /// An empty folder for files.
    #[arg(long)]
    pub folder: PathBuf,
}

impl Child {
    /// The arguments that ask for it.
    #[must_use]
    pub fn args(&self) -> Vec<OsString> {
        let measure = self.measure.to_possible_value().expect("every measure has a name");
        let mut args: Vec<OsString> = vec!["child".into(), self.peer.clone().into()];
        args.extend(["--measure".into(), measure.get_name().into()]);
        args.extend(["--jobs".into(), self.jobs.to_string().into()]);
        args.extend(["--folder".into(), self.folder.clone().into()]);
        args
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Jobs per second over their whole life, and the memory afterwards.
    Rate,
    /// The time from the enqueue until the handler starts, when the pool was idle.
    PickUp,
    /// An append of 4 KiB and its fsync, without any peer.
    Fsync,
}

/// What the process prints, as one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    Rate { per_second: f64, resident_bytes: u64, durability: String },
    Micros { p50: f64, p99: f64 },
}

/// Measures, and prints the report.
pub fn run_child<P: Peer>(child: &Child) {
    let report = match child.measure {
        Measure::Rate => run(rate::<P>(child)),
        Measure::PickUp => run(pick_up::<P>(child)),
        Measure::Fsync => percentiles(disk::fsyncs(&child.folder, child.jobs)),
    };
    println!("{}", serde_json::to_string(&report).expect("a report is encoded"));
}

/// On a thread that is not one of the workers; there is one worker for each core.
fn run<T>(measurement: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let result = runtime.block_on(measurement);
    runtime.shutdown_background();
    result
}

async fn rate<P: Peer>(child: &Child) -> Report {
    let warm_up = child.jobs / 4;
    let all = warm_up + child.jobs;
    let tally = Tally::set_up(all, None);
    let mut peer = P::start(&child.folder).await;
    whole_life(&mut peer, tally, 0, warm_up).await;
    let begun = Instant::now();
    whole_life(&mut peer, tally, warm_up, all).await;
    let per_second = child.jobs as f64 / begun.elapsed().as_secs_f64();
    let resident_bytes = resident_bytes();
    let durability = peer.durability().await;
    peer.stop().await;
    assert_eq!(tally.ran(), all, "every job has run once");
    Report::Rate { per_second, resident_bytes, durability }
}

/// Enqueues the jobs of these numbers and waits until they are done.
async fn whole_life<P: Peer>(peer: &mut P, tally: &Tally, from: u64, to: u64) {
    tally.want(to);
    let mut number = from;
    while number < to {
        let next = to.min(number + BATCH);
        peer.enqueue(number..next).await;
        number = next;
    }
    tally.complete().await;
    peer.settle(to).await;
}

async fn pick_up<P: Peer>(child: &Child) -> Report {
    /// Enough for a slow peer.
    const LONG_ENOUGH: Duration = Duration::from_secs(12);
    let warm_up = child.jobs / 10;
    let (starts, mut started) = mpsc::unbounded_channel();
    let tally = Tally::set_up(warm_up + child.jobs, Some(starts));
    let mut peer = P::start(&child.folder).await;
    let mut micros = Vec::new();
    let since = Instant::now();
    for number in 0..warm_up + child.jobs {
        if since.elapsed() > LONG_ENOUGH && micros.len() >= 100 {
            break;
        }
        // Long enough for every thread to go to sleep.
        std::thread::sleep(Duration::from_millis(2));
        tally.want(number + 1);
        let begun = Instant::now();
        peer.enqueue_one(number).await;
        let at = started.recv().await.expect("the tally sends");
        if number >= warm_up {
            micros.push(at.saturating_duration_since(begun).as_secs_f64() * 1e6);
        }
        tally.complete().await;
        peer.settle(number + 1).await;
    }
    peer.stop().await;
    percentiles(micros)
}

fn percentiles(mut micros: Vec<f64>) -> Report {
    micros.sort_by(f64::total_cmp);
    let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize];
    Report::Micros { p50: at(0.5), p99: at(0.99) }
}

/// The memory that the process occupies.
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm can be read");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * PAGE
}
