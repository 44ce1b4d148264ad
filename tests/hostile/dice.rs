//! Random kernels that are a function of a seed and a case number, and damage to bytes that knows no format.

use tokenformer::rng::{Rng, Stream};

/// The random kernels of one case.
pub struct Dice(Rng);

impl Dice {
    /// Those of case `number` under `seed`.
    pub fn new(seed: u64, number: u64) -> Self {
        Self(Rng::new(seed, Stream::Test, number))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in 0..n; n is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the kernels.
    pub fn pick<'a, T: ?Sized>(&mut self, kernels: &[&'a T]) -> &'a T {
        kernels[self.below(kernels.len())]
    }

    /// 0 half of the time, 1 a quarter of it, and so on up to `most`: few changes leave a file that gets far.
    pub fn few(&mut self, most: usize) -> usize {
        (self.bits().trailing_ones() as usize).min(most)
    }

    /// A whole number that breaks things: around a power of two, around zero, or anything.
    pub fn extreme(&mut self) -> i128 {
        let near = self.below(5) as i128 - 2;
        match self.below(4) {
            0 => near,
            1 => i128::from(self.bits() as i64),
            _ => (1_i128 << self.below(66)) * [1, -1][self.below(4) / 3] + near,
        }
    }

    /// A range inside 0..len, mostly short.
    pub fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let most = if self.one_in(4) { len - start } else { (len - start).min(8) };
        start..start + self.below(most + 1)
    }

    /// One piece of damage; `other` is a second file, to splice with.
    pub fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let range = self.range(bytes.len());
        match self.below(8) {
            0 | 1 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = bytes.get_mut(range.start) {
                    *byte ^= bit;
                }
            }
            2 => {
                let byte = self.bits() as u8;
                bytes[range].fill(byte);
            }
            3 => drop(bytes.drain(range)),
            4 => {
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, copy);
            }
            5 => bytes.truncate(range.start),
            6 => {
                let piece = other[self.range(other.len())].to_vec();
                bytes.splice(range, piece);
            }
            _ => {
                bytes.truncate(range.start);
                bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
        }
    }

    /// Damages a list of pieces as [`Self::damage`] does bytes: one removed, repeated, moved or taken from `other`.
    pub fn shuffle<T: Clone>(&mut self, pieces: &mut Vec<T>, other: &[T]) {
        if pieces.is_empty() {
            return pieces.extend_from_slice(other);
        }
        let (at, to) = (self.below(pieces.len()), self.below(pieces.len()));
        match self.below(5) {
            0 => drop(pieces.remove(at)),
            1 => pieces.insert(to, pieces[at].clone()),
            2 => pieces.swap(at, to),
            3 if !other.is_empty() => pieces.insert(at, other[self.below(other.len())].clone()),
            _ => {
                pieces.truncate(at);
                pieces.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
        }
    }
}
