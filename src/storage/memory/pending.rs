//! A pending table of one pool.

use std::collections::{BTreeMap, VecDeque, btree_map, vec_deque};
use std::iter::Peekable;
use std::ops::Bound;

use super::super::is_oversized;
use crate::model::{Key, Segment};

/// Rows in the order of their keys.
///
/// Most rows are due when they arrive, come in order, and leave from the front: they are appended to a run, which costs
/// a fraction of a tree. Rows that are due later, or arrive out of order, are in a tree.
pub(super) struct Pending<V> {
    /// Rows in order. A row that was removed from the middle leaves its key.
    run: VecDeque<(Key, Option<V>)>,
    /// The number of rows in the run that were not removed.
    live: usize,
    tree: BTreeMap<Key, V>,
}

impl<V> Default for Pending<V> {
    fn default() -> Self {
        Pending { run: VecDeque::new(), live: 0, tree: BTreeMap::new() }
    }
}

impl<V> Pending<V> {
    pub fn len(&self) -> usize {
        self.live + self.tree.len()
    }

    /// Inserts a row. Its key is new, or that of a row that was removed.
    pub fn insert(&mut self, key: Key, value: V, now: Segment) {
        let is_behind = self.run.back().is_none_or(|(last, _)| *last < key);
        if is_behind && key.segment <= now {
            self.run.push_back((key, Some(value)));
            self.live += 1;
        } else if !is_behind && let Some(place) = self.place(key) {
            self.run[place].1 = Some(value);
            self.live += 1;
        } else {
            self.tree.insert(key, value);
        }
    }

    pub fn remove(&mut self, key: Key) -> Option<V> {
        // A key that was in the run may have come back into the tree.
        let Some(place) = self.place(key).filter(|place| self.run[*place].1.is_some()) else {
            return self.tree.remove(&key);
        };
        let value = self.run[place].1.take()?;
        self.live -= 1;
        while self.run.front().is_some_and(|(_, value)| value.is_none()) {
            self.run.pop_front();
        }
        self.shrink();
        Some(value)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        match self.place(key).filter(|place| self.run[*place].1.is_some()) {
            Some(place) => self.run[place].1.as_mut(),
            None => self.tree.get_mut(&key),
        }
    }

    /// Returns the place of a key in the run.
    fn place(&self, key: Key) -> Option<usize> {
        match self.run.front() {
            Some((first, _)) if *first == key => Some(0),
            Some((first, _)) if *first < key => {
                self.run.binary_search_by_key(&key, |(key, _)| *key).ok()
            }
            _ => None,
        }
    }

    /// Frees memory after a peak.
    fn shrink(&mut self) {
        if is_oversized(self.run.len(), self.live) {
            self.run.retain(|(_, value)| value.is_some());
        }
        if is_oversized(self.run.capacity(), self.run.len()) {
            self.run.shrink_to(2 * self.run.len());
        }
    }

    /// Returns the first key.
    pub fn first(&self) -> Option<Key> {
        let run = self.run.front().map(|(key, _)| *key);
        let tree = self.tree.first_key_value().map(|(key, _)| *key);
        run.into_iter().chain(tree).min()
    }

    /// Returns the rows from a key on, in order.
    pub fn from(&self, from: Bound<Key>) -> Rows<'_, V> {
        let before = |key: &Key| match from {
            Bound::Included(from) => *key < from,
            Bound::Excluded(from) => *key <= from,
            Bound::Unbounded => false,
        };
        let place = match self.run.front() {
            Some((first, _)) if before(first) => self.run.partition_point(|(key, _)| before(key)),
            _ => 0,
        };
        Rows {
            run: self.run.range(place..).peekable(),
            tree: self.tree.range((from, Bound::Unbounded)).peekable(),
        }
    }
}

/// Rows in the order of their keys, from the run and from the tree.
pub(super) struct Rows<'a, V> {
    run: Peekable<vec_deque::Iter<'a, (Key, Option<V>)>>,
    tree: Peekable<btree_map::Range<'a, Key, V>>,
}

impl<V> Clone for Rows<'_, V> {
    fn clone(&self) -> Self {
        Rows { run: self.run.clone(), tree: self.tree.clone() }
    }
}

impl<'a, V> Iterator for Rows<'a, V> {
    type Item = (Key, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let in_tree = self.tree.peek().map(|(key, _)| **key);
            match self.run.peek() {
                Some((key, _)) if in_tree.is_none_or(|tree| *key < tree) => {
                    if let Some((key, Some(value))) = self.run.next() {
                        return Some((*key, value));
                    }
                }
                _ => return self.tree.next().map(|(key, value)| (*key, value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same random operations on a pending table and on a tree.
    #[test]
    fn a_pending_table_is_a_map_in_order() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..300 {
            let (mut table, mut model) = (Pending::default(), BTreeMap::new());
            let (mut now, mut removed) = (0, Vec::new());
            for seq in 0..400 {
                now += rng.u64(..2);
                let known: Vec<Key> = model.keys().copied().collect();
                let any = rng.choice(&known).copied().unwrap_or_default();
                match rng.u8(..10) {
                    0..6 => {
                        let segment = Segment((now + rng.u64(..8)).saturating_sub(4));
                        let key = Key { segment, seq };
                        table.insert(key, seq, Segment(now));
                        model.insert(key, seq);
                    }
                    6 => {
                        assert_eq!(table.remove(any), model.remove(&any));
                        removed.push(any);
                        // A row may come back under its key.
                        let back = rng.choice(&removed).copied().unwrap_or_default();
                        if rng.bool() && !model.contains_key(&back) {
                            table.insert(back, seq, Segment(now));
                            model.insert(back, seq);
                        }
                    }
                    7 => {
                        let first = model.keys().next().copied();
                        assert_eq!(table.first(), first);
                        if let Some(first) = first {
                            assert_eq!(table.remove(first), model.remove(&first));
                        }
                    }
                    8 => assert_eq!(table.get_mut(any), model.get_mut(&any)),
                    _ => {
                        let bounds = [Bound::Included(any), Bound::Excluded(any), Bound::Unbounded];
                        for from in bounds {
                            let rows: Vec<_> = table.from(from).map(|(key, v)| (key, *v)).collect();
                            let range = model.range((from, Bound::Unbounded));
                            assert_eq!(rows, range.map(|(key, v)| (*key, *v)).collect::<Vec<_>>());
                        }
                    }
                }
                assert_eq!(table.len(), model.len());
            }
        }
    }

    /// Regression: a row whose key had been used before was not found.
    #[test]
    fn a_key_that_was_used_before_is_used_again() {
        let mut table = Pending::default();
        let key = |seq| Key { segment: Segment(1), seq };
        for seq in 0..3 {
            table.insert(key(seq), seq, Segment(1));
        }
        assert_eq!(table.remove(key(1)), Some(1));
        table.insert(key(1), 7, Segment(1));
        assert_eq!(table.get_mut(key(1)), Some(&mut 7));
        assert_eq!(table.from(Bound::Unbounded).count(), 3);
        assert_eq!((table.remove(key(1)), table.remove(key(1))), (Some(7), None));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_flood_of_rows_that_are_removed_from_the_middle_leaves_little() {
        let mut table = Pending::default();
        let key = |seq| Key { segment: Segment(1), seq };
        for seq in 0..200_000 {
            table.insert(key(seq), (), Segment(1));
        }
        for seq in 1..200_000 {
            table.remove(key(seq));
        }
        assert_eq!(table.len(), 1);
        assert!(table.run.capacity() < 70_000, "{}", table.run.capacity());
    }
}
