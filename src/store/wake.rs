//! Wake-ups: tell a resting loop to look again.
//!
//! A loop whose batch is empty rests, and the store records in the same group what the loop waits for ([`Parked`]). A
//! later group that writes such a row reads the batch and sends it along, so no wake-up is lost.

use super::Store;
use crate::engine::rest::KickSource;
use crate::model::{Batch, Demand, PendingTable, PoolId, Segment};
use crate::protocol::AdvanceError;

#[derive(Clone, Copy)]
pub(super) struct Parked {
    /// The demand of the loop.
    pub demand: Demand,
    pub saturated: bool,
    pub next_due: Option<Segment>,
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
    /// The tables with new rows since the loop last read, and the earliest new start.
    news: News,
}

impl Wakeup {
    /// Records that the loop has read. It rests if there was nothing for it.
    pub fn has_read(&mut self, parked: Option<Parked>) {
        *self = Wakeup { parked, news: News::default() };
    }

    /// Records that a table has a new row. Returns `true` for the first one since the loop read.
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

    /// Returns the reason to wake a resting loop, if there is one. The loop then counts as running.
    pub fn wake(&mut self) -> Option<(KickSource, Parked)> {
        let woken = self.would_wake();
        self.news = News::default();
        if woken.is_some() {
            self.parked = None;
        }
        woken
    }

    /// Returns what [`Wakeup::wake`] would.
    pub fn would_wake(&self) -> Option<(KickSource, Parked)> {
        let news = self.news;
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
        Some((source, parked))
    }

    /// Clears the news of a group that was not committed.
    pub fn forget_news(&mut self) {
        self.news = News::default();
    }

    /// Sends the loop nothing until it has claimed its pool.
    pub fn stay_quiet(&mut self) {
        self.parked = None;
    }
}

impl Store {
    /// Reads a batch for a loop. If it is empty, the loop rests.
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
