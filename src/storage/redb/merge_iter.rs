//! Merges the rows of several layers.

use std::iter::Peekable;

use crate::storage::StorageError;

/// Rows of one layer, in the order of their keys; `None` means that the row is deleted in the layers below.
type Rows<'r, K, V> = Box<dyn Iterator<Item = Result<(K, Option<V>), StorageError>> + 'r>;

/// Merges the rows of several layers, the newest first, in the order of their keys.
pub(super) struct MergeIter<'r, K, V>(Vec<Peekable<Rows<'r, K, V>>>);

impl<'r, K: Ord, V> MergeIter<'r, K, V> {
    pub fn new() -> Self {
        MergeIter(Vec::with_capacity(3))
    }

    /// Makes a merged view of no rows.
    pub fn empty() -> Self {
        MergeIter(Vec::new())
    }

    /// Adds another layer at the bottom.
    pub fn over(&mut self, rows: impl Iterator<Item = Result<(K, Option<V>), StorageError>> + 'r) {
        let rows: Rows<'r, K, V> = Box::new(rows);
        self.0.push(rows.peekable());
    }

    /// Returns the row with the lowest key, from the newest layer that has it, and skips the older rows of that key.
    fn lowest(&mut self) -> Option<Result<(K, Option<V>), StorageError>> {
        let mut lowest: Option<usize> = None;
        for layer in 0..self.0.len() {
            let (above, below) = self.0.split_at_mut(layer);
            match (below[0].peek(), lowest) {
                (None, _) => {}
                (Some(Err(_)), _) => return below[0].next(),
                (Some(Ok(_)), None) => lowest = Some(layer),
                (Some(Ok((key, _))), Some(other)) => match above[other].peek() {
                    Some(Ok((lower, _))) if lower == key => drop(below[0].next()),
                    Some(Ok((lower, _))) if lower < key => {}
                    _ => lowest = Some(layer),
                },
            }
        }
        self.0[lowest?].next()
    }
}

impl<K: Ord, V> Iterator for MergeIter<'_, K, V> {
    type Item = Result<(K, V), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lowest()? {
                Ok((key, Some(value))) => return Some(Ok((key, value))),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_rows_hide_lower_ones_and_gone_rows_are_passed() {
        let mut merged = MergeIter::new();
        merged.over([(2, Some('a')), (4, None), (9, Some('b'))].map(Ok).into_iter());
        merged.over([(1, Some('c')), (2, None), (4, Some('d'))].map(Ok).into_iter());
        merged.over(
            [(1, Some('x')), (2, Some('y')), (4, Some('z')), (5, Some('e'))].map(Ok).into_iter(),
        );
        let rows: Result<Vec<_>, _> = merged.collect();
        assert_eq!(rows, Ok(vec![(1, 'c'), (2, 'a'), (5, 'e'), (9, 'b')]));
    }
}
