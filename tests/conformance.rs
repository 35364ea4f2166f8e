//! Every backend passes the conformance suite.
#![cfg(feature = "unstable-storage")]

use std::panic::AssertUnwindSafe;

use actix_workpool::WorkId;
use actix_workpool::model::{
    Batch, Change, Cursors, Demand, PoolId, Segment, Spec, StartKey, StartPlace, StateRow,
    WorkFact, WorkKey,
};
use actix_workpool::storage::{Fsync, Hook, Memory, Storage, StorageError};
use actix_workpool::testing::conformance;

#[test]
fn memory_conforms() {
    for seed in 0..20 {
        let tables = Memory::new();
        conformance::exercise(seed, 300, || tables.clone());
    }
}

#[cfg(feature = "redb")]
#[test]
fn redb_conforms() {
    use actix_workpool::storage::Redb;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    std::fs::create_dir_all(&folder).unwrap();
    for seed in 0..20 {
        let path = folder.join(format!("{seed}.redb"));
        let _ = std::fs::remove_file(&path);
        // A small log: everything goes through it many times, and some commits are too large for it.
        let length = [8 << 10, 16 << 10, 64 << 10, 256 << 10][seed as usize % 4];
        // With checkpoints beside the commits, and in their midst.
        match seed % 8 < 4 {
            true => {
                conformance::exercise(seed, 300, || Redb::open_with_log(&path, length).unwrap())
            }
            false => conformance::exercise(seed, 300, || {
                Redb::open_with_log(&path, length).unwrap().on_one_thread()
            }),
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    CursorsIgnored,
    ShownTooEarly,
    OrderedBySeq,
    BatchSizeIgnored,
    FreeSlotsIgnored,
    FreedSlotsIgnored,
    LaneShown,
    RunningUnordered,
    RunningOfOthers,
    CancelForgotten,
    AttemptsNotStored,
    PlacesNotStored,
    LanesMixed,
    FactsBehind,
    StateBehind,
}

/// Memory with a flaw.
struct Flawed {
    memory: Memory,
    flaw: Flaw,
    /// Whether it was opened before.
    again: bool,
    /// A state that the last commit has overtaken, told once.
    behind: Option<StateRow>,
    /// Whether no facts were asked for since a commit.
    committed: bool,
}

impl Hook for Flawed {
    fn may_block(&self) -> bool {
        false
    }

    fn call<T: 'static>(
        &mut self,
        _: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        call(&mut self.memory)
    }

    fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        let mut facts = self.memory.facts(work_ids)?;
        if self.flaw == Flaw::FactsBehind && std::mem::take(&mut self.committed) {
            facts.fill(None);
        }
        for fact in facts.iter_mut().flatten() {
            fact.canceled &= self.flaw != Flaw::CancelForgotten;
            if let Some(key) = &mut fact.pending_start
                && self.flaw == Flaw::PlacesNotStored
            {
                *key = key.in_place(StartPlace::Queue);
            }
            if self.flaw == Flaw::AttemptsNotStored && self.again {
                fact.attempts = 0;
            }
        }
        Ok(facts)
    }

    fn running_places(
        &mut self,
        pool: Option<PoolId>,
        after: Option<(Segment, WorkId)>,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError> {
        let pool = pool.filter(|_| self.flaw != Flaw::RunningOfOthers);
        let mut places = self.memory.running_places(pool, after, limit)?;
        if self.flaw == Flaw::RunningUnordered {
            places.sort_unstable_by_key(|(_, work_id)| *work_id);
        }
        Ok(places)
    }

    fn lane_jobs(
        &mut self,
        pool: PoolId,
        key: &WorkKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        let mut jobs = self.memory.lane_jobs(pool, key, limit)?;
        if self.flaw == Flaw::LanesMixed && jobs.len() < limit {
            let all = self.memory.pending_starts(pool, None, StartKey::END, usize::MAX)?;
            let ids: Vec<_> = all.into_iter().map(|(_, work_id)| work_id).collect();
            for fact in self.memory.facts(&ids)?.into_iter().flatten() {
                let begins = |of: &[u8]| of != key.as_bytes() && of.starts_with(key.as_bytes());
                if let Some(start) = fact.pending_start
                    && fact.spec.key().is_some_and(begins)
                {
                    jobs.push((start, fact.spec));
                }
            }
        }
        Ok(jobs)
    }

    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError> {
        match self.behind.take() {
            Some(behind) => Ok(behind),
            None => self.memory.state(pool),
        }
    }

    fn read_batch(
        &mut self,
        pool: PoolId,
        mut demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError> {
        let slots = usize::try_from(demand.free_slots).unwrap_or(0);
        let mut until = now;
        match self.flaw {
            Flaw::CursorsIgnored => demand.cursors = Cursors::default(),
            Flaw::ShownTooEarly => until = Segment(now.0 + 1),
            Flaw::BatchSizeIgnored => demand.batch_size += 1,
            Flaw::FreeSlotsIgnored => demand.free_slots = 100,
            _ => {}
        }
        let mut batch = self.memory.read_batch(pool, demand, until)?;
        batch.read_at = now;
        match self.flaw {
            Flaw::OrderedBySeq => batch.starts.sort_by_key(|row| row.key.seq),
            Flaw::FreedSlotsIgnored if batch.starts.len() > slots => {
                batch.next_due = Some(batch.starts[slots].key.segment);
                batch.starts.truncate(slots);
            }
            _ => {}
        }
        Ok(batch)
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        for change in changes.iter_mut() {
            match change {
                Change::MovePendingStart { to, .. }
                    if self.flaw == Flaw::LaneShown && to.segment == Segment::UNREGISTERED =>
                {
                    to.segment = now;
                }
                Change::PutState { pool, .. } if self.flaw == Flaw::StateBehind => {
                    self.behind = Some(self.memory.state(*pool)?);
                }
                _ => {}
            }
        }
        self.committed = true;
        self.memory.commit(changes, now, fsync)
    }
}

/// What the suite says of a backend with this flaw.
fn complaint(flaw: Flaw) -> String {
    let tables = Memory::new();
    let mut again = false;
    let mut open = move || {
        let again = std::mem::replace(&mut again, true);
        Flawed { memory: tables.clone(), flaw, again, behind: None, committed: false }
    };
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| match flaw {
        Flaw::FactsBehind | Flaw::StateBehind => conformance::lost_answers(open()),
        _ => conformance::exercise(1, 0, open),
    }));
    let panicked = panicked.expect_err("a flaw is found");
    panicked.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn a_backend_with_a_flaw_is_told_which_case_finds_it_and_what_was_expected() {
    for (flaw, case) in [
        (Flaw::CursorsIgnored, "`rows behind the cursor`"),
        (Flaw::ShownTooEarly, "`rows that are not due`"),
        (Flaw::OrderedBySeq, "`order by segment and seq`"),
        (Flaw::BatchSizeIgnored, "`batch size`"),
        (Flaw::FreeSlotsIgnored, "`free slots`"),
        (Flaw::FreedSlotsIgnored, "`slots freed by completions`"),
        (Flaw::LaneShown, "`unregistered lane`"),
        (Flaw::RunningUnordered, "`order of what runs`"),
        (Flaw::RunningOfOthers, "`order of what runs`"),
        (Flaw::CancelForgotten, "`state table`, S9 canceled, retry decided, as committed"),
        (Flaw::AttemptsNotStored, "`state table`, S3 completing, final, opened again"),
        (Flaw::PlacesNotStored, "`places of keys`, held"),
        (Flaw::LanesMixed, "`jobs in lanes`, all"),
        (Flaw::FactsBehind, "`lost answer of an enqueue`"),
        (Flaw::StateBehind, "`lost answer of a turn that starts`"),
    ] {
        let said = complaint(flaw);
        assert!(said.contains(case) && said.contains("expected"), "{flaw:?}: {said}");
    }
}
