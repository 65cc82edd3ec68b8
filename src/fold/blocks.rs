//! Large buffers in blocks of one size.
//!
//! A vector that grows moves, doubles, and leaves holes behind that fit nothing else. Pending rows
//! grow and go all the time, and each projection has its own, so their memory comes in blocks that
//! are all alike: what one gives back fits the next, and no more than a block lies idle.

use std::ops::Range;

/// About how large a block is, in bytes: small enough that the allocator keeps and reuses it.
const BLOCK_BYTES: usize = 64 * 1024;

/// A vector in blocks. Elements are found by their number, which never changes.
#[derive(Debug)]
pub struct Blocks<T> {
    /// All but the last of those in use are full; behind them lie empty ones.
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

impl<T> Blocks<T> {
    /// Elements of a block: a power of two, so that finding one is a shift.
    const SIZE: usize = {
        let fit = BLOCK_BYTES / if size_of::<T>() == 0 { 1 } else { size_of::<T>() };
        if fit < 2 { 1 } else { 1 << fit.ilog2() }
    };

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element with this number.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.blocks.get(at / Self::SIZE)?.get(at % Self::SIZE)
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.blocks.get_mut(at / Self::SIZE)?.get_mut(at % Self::SIZE)
    }

    /// All elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.blocks.iter().flatten()
    }

    /// The last `count` elements, last first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &T> {
        (self.len.saturating_sub(count)..self.len).rev().filter_map(|at| self.get(at))
    }

    /// Adds an element at the end.
    pub fn push(&mut self, element: T) {
        let number = self.len / Self::SIZE;
        if self.blocks.len() <= number {
            // a few rows, when it is quiet, are not worth a whole block
            let room = if number == 0 { 0 } else { Self::SIZE };
            self.blocks.push(Vec::with_capacity(room));
        }
        if let Some(block) = self.blocks.get_mut(number) {
            block.push(element);
            self.len += 1;
        }
    }

    /// Adds copies of an element at the end.
    pub fn push_times(&mut self, element: T, times: usize)
    where
        T: Copy,
    {
        for _ in 0..times {
            self.push(element);
        }
    }

    /// Gives up the memory of elements before this one, as far as whole blocks go. They must not be
    /// asked for again.
    pub fn release(&mut self, before: usize) {
        let whole = before.min(self.len) / Self::SIZE;
        self.blocks.iter_mut().take(whole).for_each(|it| *it = Vec::new());
    }

    /// How many elements have memory.
    pub fn held(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// Forgets all elements and keeps the memory that they took, but no more.
    pub fn clear(&mut self) {
        self.blocks.truncate(self.len.div_ceil(Self::SIZE));
        self.blocks.retain(|it| it.capacity() != 0);
        self.blocks.iter_mut().for_each(Vec::clear);
        self.len = 0;
    }
}

/// Texts one after the other, in blocks. A text lies in one block; one that is larger than a block
/// has one of its own. So no text begins beyond what sixteen bits count.
#[derive(Debug, Default)]
pub struct TextBlocks {
    blocks: Vec<String>,
    /// How many of the blocks are in use.
    used: usize,
    bytes: usize,
}

impl TextBlocks {
    /// Takes a text; tells the block and where in it.
    pub fn push(&mut self, text: &str) -> (usize, Range<usize>) {
        let fits = |it: &String| it.is_empty() || it.len() + text.len() < BLOCK_BYTES;
        let last = self.used.checked_sub(1).and_then(|it| self.blocks.get(it));
        if !last.is_some_and(fits) {
            if self.blocks.len() <= self.used {
                let room = if self.used == 0 { 0 } else { BLOCK_BYTES.max(text.len()) };
                self.blocks.push(String::with_capacity(room));
            }
            self.used += 1;
        }
        let number = self.used.saturating_sub(1);
        let Some(block) = self.blocks.get_mut(number) else { return (number, 0..0) };
        let start = block.len();
        block.push_str(text);
        self.bytes += text.len();
        (number, start..block.len())
    }

    /// A text that was taken.
    #[inline]
    pub fn get(&self, block: usize, range: Range<usize>) -> &str {
        self.blocks.get(block).and_then(|it| it.get(range)).unwrap_or_default()
    }

    /// How many bytes the texts have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all texts and keeps the memory that they took, but no more.
    pub fn clear(&mut self) {
        self.blocks.truncate(self.used);
        self.blocks.retain(|it| it.capacity() <= 2 * BLOCK_BYTES);
        self.blocks.iter_mut().for_each(String::clear);
        self.used = 0;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_are_found_across_blocks_and_the_memory_is_given_back() {
        let mut numbers = Blocks::default();
        for turn in [100_000, 10, 100_000, 10] {
            for number in 0..turn {
                numbers.push(number);
            }
            assert_eq!(numbers.len(), turn);
            assert!(numbers.iter().copied().eq(0..turn));
            assert_eq!(numbers.get(turn - 1), Some(&(turn - 1)));
            assert_eq!(numbers.get(turn), None);
            assert!(numbers.last(2).copied().eq([turn - 1, turn - 2]));
            numbers.clear();
        }

        assert_eq!(numbers.blocks.len(), 1);
        assert!(numbers.is_empty());
    }

    #[test]
    fn what_is_released_is_gone_and_the_rest_stays() {
        let mut numbers = Blocks::default();
        (0..100_000_u64).for_each(|it| numbers.push(it));

        numbers.release(50_000);

        assert!(numbers.held() < 60_000);
        assert!((50_000..100_000).all(|it| numbers.get(it) == Some(&(it as u64))));
        numbers.clear();
        (0..100_000).for_each(|it| numbers.push(it));
        assert!(numbers.iter().copied().eq(0..100_000));
    }

    proptest! {
        #[test]
        fn every_text_is_given_back_as_it_came(
            rounds in prop::collection::vec(
                prop::collection::vec(prop_oneof!["[aü€😀]{0,40}", "x{0,3}".prop_map(|it| it.repeat(50_000))], 0..40),
                1..3,
            ),
        ) {
            let mut blocks = TextBlocks::default();
            for texts in rounds {
                let places: Vec<_> = texts.iter().map(|it| blocks.push(it)).collect();
                for (text, (block, range)) in texts.iter().zip(places) {
                    prop_assert_eq!(blocks.get(block, range), text);
                }
                prop_assert_eq!(blocks.bytes(), texts.iter().map(String::len).sum::<usize>());
                blocks.clear();
            }
        }
    }
}
