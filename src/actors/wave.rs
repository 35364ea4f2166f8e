//! Waves: attempts that were started together, and report together if they are short.
//!
//! The threads of a wave's workers end within microseconds of each other. If the first reports went into a group of
//! their own, the others would miss it; the next wave would be smaller, and each sync would serve the slots of one
//! thread. So reports wait a moment for the rest of their wave, as long as that pays.

use std::time::{Duration, Instant};

use crate::model::Change;
use crate::protocol::{Advance, Command, Request};

/// The time that reports wait at most. About as long as a sync.
const MOMENT: Duration = Duration::from_micros(100);

/// The maximum number of waves that are not waited for after one that took too long.
const MOST_SKIPPED: u32 = 64;

/// The attempts that were started together.
#[derive(Default)]
pub(super) struct Wave {
    /// The number of starts that are being committed: the next wave.
    starting: usize,
    /// The number of attempts that have not reported.
    out: usize,
    /// `true` if reports wait.
    has_reports: bool,
    /// The time since when they wait for others.
    since: Option<Instant>,
    /// The number of waves that are not waited for, and how many of them are still to come.
    skipped: u32,
    to_skip: u32,
}

impl Wave {
    /// Notes the starts and reports of a request.
    pub fn note(&mut self, request: &Request) {
        match request {
            Request::Command(Command::Advance(Advance { changes, .. })) => {
                let is_start = |change: &&Change| matches!(change, Change::StartWork { .. });
                self.starting += changes.iter().filter(is_start).count();
            }
            Request::Command(Command::AttemptsFinished(reports)) => {
                self.out = self.out.saturating_sub(reports.len());
                self.has_reports = true;
            }
            _ => {}
        }
    }

    /// Begins the next wave, because its starts are committed.
    pub fn begin(&mut self) {
        if self.starting > 0 {
            self.out = std::mem::take(&mut self.starting);
        }
    }

    /// Returns `true` if the reports that have come should wait for others.
    pub fn is_coming(&mut self, now: Instant) -> bool {
        if self.out == 0 || !self.has_reports {
            return false;
        }
        if self.since.is_none() && self.to_skip > 0 {
            self.to_skip -= 1;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.duration_since(since) < MOMENT
    }

    /// Takes the reports that have come.
    pub fn take(&mut self) {
        self.has_reports = false;
        if self.since.take().is_some() {
            self.skipped = match self.out {
                0 => 0,
                _ => (2 * self.skipped + 1).min(MOST_SKIPPED),
            };
            self.to_skip = self.skipped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::arrivals::AttemptReport;
    use crate::model::{RunResult, WorkId};

    fn reports(count: usize) -> Request {
        let report =
            |_| AttemptReport { work_id: WorkId::random(), run: 1, result: RunResult::Returned };
        Command::AttemptsFinished((0..count).map(report).collect()).into()
    }

    #[test]
    fn reports_wait_for_the_rest_of_their_wave() {
        let now = Instant::now();
        let mut wave = Wave { starting: 4, ..Wave::default() };
        wave.begin();
        assert!(!wave.is_coming(now), "nothing waits");
        wave.note(&reports(2));
        assert!(wave.is_coming(now) && wave.is_coming(now + MOMENT / 2));
        wave.note(&reports(2));
        assert!(!wave.is_coming(now + MOMENT / 2), "all have come");
        wave.take();
        assert_eq!((wave.skipped, wave.to_skip), (0, 0), "it has paid");
    }

    #[test]
    fn waves_of_long_attempts_are_seldom_waited_for() {
        let mut now = Instant::now();
        let mut wave = Wave::default();
        let mut waited = 0;
        for _ in 0..1_000 {
            wave.starting = 4;
            wave.begin();
            wave.note(&reports(1));
            if wave.is_coming(now) {
                waited += 1;
                now += MOMENT;
                assert!(!wave.is_coming(now), "it takes too long");
            }
            wave.take();
        }
        assert!(waited < 25, "{waited} of 1000");
    }
}
