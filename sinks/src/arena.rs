//! The memory that batches hold their events in, used again and again: each fresh page of it would cost a page fault.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock;

/// Unused arenas that are kept. A worker that keeps up with its source needs about as many as there are batches on their way.
const KEPT: usize = 4;

/// Where arenas come back to. By default none is kept.
#[derive(Debug, Default)]
pub(crate) struct Arenas {
    /// Larger ones, in bytes, are given back: they held an unusually large event.
    largest: usize,
    unused: Mutex<Vec<Vec<u8>>>,
}

impl Arenas {
    /// For batches of about so many bytes: while they are filled, their memory doubles.
    pub(crate) fn of(batch_bytes: usize) -> Arenas {
        Arenas {
            largest: batch_bytes.saturating_mul(2),
            unused: Mutex::default(),
        }
    }

    /// An empty arena.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.unused().pop().unwrap_or_default()
    }

    fn put_back(&self, mut arena: Vec<u8>) {
        arena.clear();
        let mut unused = self.unused();
        if unused.len() < KEPT && (1..=self.largest).contains(&arena.capacity()) {
            unused.push(arena);
        }
    }

    fn unused(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        lock(&self.unused)
    }
}

/// A filled arena, shared by the parts of a batch. With the last of them it goes back.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    home: Arc<Arenas>,
}

impl Arena {
    pub(crate) fn new(bytes: Vec<u8>, home: Arc<Arenas>) -> Arena {
        Arena { bytes, home }
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.home.put_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_used_again_once_its_last_part_is_gone() {
        let arenas = Arc::new(Arenas::of(100));
        let part = Arc::new(Arena::new(vec![1, 2, 3], arenas.clone()));
        let other = part.clone();
        drop(part);
        assert_eq!(arenas.take().capacity(), 0);
        drop(other);
        let again = arenas.take();
        assert!(again.is_empty() && again.capacity() >= 3);
    }

    #[test]
    fn few_are_kept_and_none_that_grew_large() {
        let arenas = Arc::new(Arenas::of(100));
        drop(Arena::new(Vec::with_capacity(201), arenas.clone()));
        drop(Arena::new(Vec::new(), arenas.clone()));
        assert!(arenas.unused().is_empty());
        for _ in 0..2 * KEPT {
            arenas.put_back(vec![0]);
        }
        assert_eq!(arenas.unused().len(), KEPT);
    }
}
