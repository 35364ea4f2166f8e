//! A report each night at 2:30 in Berlin. With `--now` the clock begins at another time, and waits for nobody: to watch the night in which clocks
//! change, in no time.
//!
//! ```text
//! $ cargo run --example nightly -- --now 2027-03-27T00:00:00Z --days 3
//! 30 2 * * * Europe/Berlin, next: 2027-03-27T02:30:00+01:00[Europe/Berlin]
//! report of 2027-03-27T02:30:00+01:00[Europe/Berlin]
//! report of 2027-03-28T03:00:00+02:00[Europe/Berlin]
//! report of 2027-03-29T02:30:00+02:00[Europe/Berlin]
//! ```
//!
//! On 28 March 2027 there is no 2:30: clocks go from 2:00 to 3:00, and the report runs then.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_workpool::testing::{self, Clock};
use actix_workpool::{
    ActionKey, CatchUp, PoolConfig, Runtime, RuntimeBuilder, Schedule, ScheduleError,
};
use clap::Parser;
use jiff::{Timestamp, tz::TimeZone};
use tokio::time::Instant;

const REPORT: ActionKey<SystemTime, ()> = ActionKey::new("report");
const ZONE: &str = "Europe/Berlin";

#[derive(Parser)]
struct Options {
    /// The time at which the clock begins, such as 2027-03-27T00:00:00Z.
    #[arg(long)]
    now: Option<Timestamp>,
    /// Ends after so many days.
    #[arg(long, default_value_t = 3)]
    days: u32,
}

/// A wall clock that begins at another time, and stands still while somebody has something to do.
struct Fast {
    from: Duration,
    begun: Instant,
}

impl Clock for Fast {
    fn now(&self) -> Duration {
        self.from + self.begun.elapsed()
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.now()
    }
}

fn shown(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at =
        i64::try_from(since.as_millis()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match (at, TimeZone::get(ZONE)) {
        (Some(at), Ok(zone)) => at.to_zoned_datetime(zone).to_string(),
        _ => format!("{time:?}"),
    }
}

fn nightly() -> Result<Schedule, ScheduleError> {
    Ok(Schedule::cron("nightly", "30 2 * * *")?
        .zone(ZONE)?
        .catch_up(CatchUp::Once { within: Duration::from_secs(6 * 60 * 60) })
        .job_with("reports", "report", |night| REPORT.call(night)))
}

fn builder() -> Result<RuntimeBuilder, ScheduleError> {
    Ok(Runtime::builder()
        .action_fn(REPORT, |night, _| async move {
            println!("report of {}", shown(night));
            Ok(())
        })
        .pool("reports", PoolConfig::default())
        .schedule(nightly()?))
}

async fn run(builder: RuntimeBuilder, days: u32) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = builder.start().await?;
    for schedule in runtime.schedules().await? {
        println!("{}, next: {}", schedule.times, schedule.next.map_or("never".to_owned(), shown));
    }
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60) * days).await;
    runtime.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Options { now, days } = Options::parse();
    let Some(now) = now else {
        return actix::System::new().block_on(async { run(builder()?, days).await });
    };
    let from = Duration::from_millis(u64::try_from(now.as_millisecond())?);
    testing::run(async {
        let clock = Fast { from, begun: Instant::now() };
        run(builder()?.worker_arbiters(0).clock(clock), days).await
    })
}
