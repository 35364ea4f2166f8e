//! Wake-ups: when a loop that rests is told to look again.
//!
//! A loop whose batch is empty rests; the store notes what the loop would like to see, in the same group that found
//! nothing ([`Parked`]). The group that has news for it reads the batch and sends it along: a wake-up is never lost.

use super::Store;
use crate::engine::rest::KickSource;
use crate::model::{Batch, Demand, PendingTable, PoolId, Segment};
use crate::protocol::AdvanceError;

#[derive(Clone, Copy)]
pub(super) struct Parked {
    /// The demand of the loop.
    pub demand: Demand,
    pub saturated: bool,
    next_due: Option<Segment>,
}

#[derive(Clone, Copy, Default)]
struct News {
    completion: bool,
    cancelation: bool,
    start: Option<Segment>,
}

/// The state of a loop that may rest, and its news.
#[derive(Default)]
pub(super) struct Wakeup {
    /// Set while the loop rests.
    parked: Option<Parked>,
    /// The sources that have news since the loop last read, and the earliest new start.
    news: News,
}

impl Wakeup {
    /// The loop has read. It rests if there was nothing for it.
    pub fn has_read(&mut self, parked: Option<Parked>) {
        *self = Wakeup { parked, news: News::default() };
    }

    /// Notes that a table has a new row. Says whether this is the first news since the loop read.
    pub fn note(&mut self, table: PendingTable, segment: Segment) -> bool {
        let quiet = !self.news.completion && !self.news.cancelation && self.news.start.is_none();
        match table {
            PendingTable::Completion => self.news.completion = true,
            PendingTable::Cancelation => self.news.cancelation = true,
            PendingTable::Start => {
                let earliest = self.news.start.map_or(segment, |start| start.min(segment));
                self.news.start = Some(earliest);
            }
        }
        quiet
    }

    /// Returns the reason why a resting loop should look again, if it should. It is told once and then runs.
    pub fn wake(&mut self) -> Option<(KickSource, Parked)> {
        let news = std::mem::take(&mut self.news);
        let parked = self.parked?;
        let sooner = |start| parked.next_due.is_none_or(|due| start < due);
        let source = match news {
            News { completion: true, .. } => KickSource::Completion,
            News { cancelation: true, .. } => KickSource::Cancelation,
            News { start: Some(start), .. }
                if sooner(start)
                    && KickSource::Enqueue.wakes(parked.saturated)
                    && !planted!(KickSuppressed) =>
            {
                KickSource::Enqueue
            }
            _ => return None,
        };
        self.parked = None;
        Some((source, parked))
    }

    /// Forgets the news: it did not happen.
    pub fn forget_news(&mut self) {
        self.news = News::default();
    }

    /// The loop is told nothing until it has claimed its pool.
    pub fn stay_quiet(&mut self) {
        self.parked = None;
    }
}

impl Store {
    /// Reads a batch for a loop. An empty one lets the loop rest.
    pub(super) fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        saturated: bool,
    ) -> Result<Batch, AdvanceError> {
        let batch =
            self.storage.read_batch(pool, demand, self.clock).map_err(AdvanceError::Unread)?;
        let entry = &mut self.pools[pool.0 as usize];
        self.has_read = true;
        entry.read_until = self.clock;
        let parked = Parked { demand, saturated, next_due: batch.next_due };
        entry.wakeup.has_read(batch.is_empty().then_some(parked));
        Ok(batch)
    }
}
