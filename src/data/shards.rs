//! Token shards one after the other as one sequence of tokens: found at once, mapped when they are needed, few at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::shard::{SAMPLED, Shard, ShardFile, ShardView, sampled};
use crate::error::{Error, Result};

/// Most shards of a set that are mapped at a time: a process may have 65,530 mappings on Linux, and has other ones.
const MAPPED: usize = 256;
/// Tokens that are compared at a time.
const BLOCK: usize = 1 << 16;

/// An open set of token shards, at least one.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<ShardFile>,
    /// Tokens up to the end of each.
    ends: Vec<usize>,
    vocab: usize,
    /// The largest token of the sample.
    largest: u32,
    mapped: Mutex<Mapped>,
}

#[derive(Debug, Default)]
struct Mapped {
    shards: BTreeMap<usize, Arc<Shard>>,
    /// Those mapped, the oldest first.
    order: VecDeque<usize>,
    /// Which were mapped before.
    known: Vec<bool>,
}

impl Shards {
    /// Opens `files`, whose tokens are to be below `vocab`: a sample is looked at, so that a wrong vocabulary is not first
    /// noticed in the middle of a run.
    ///
    /// # Errors
    /// What a shard is refused for, and tokens outside the vocabulary.
    pub(super) fn open(files: Vec<ShardFile>, vocab: usize) -> Result<Self> {
        let mut total = 0_usize;
        let mut add = |file: &ShardFile| {
            total = total.checked_add(file.len())?;
            Some(total)
        };
        let ends: Option<Vec<usize>> = files.iter().map(&mut add).collect();
        let ends = ends.ok_or_else(|| Error::input("the token shards have more tokens than this machine can count"))?;
        let known = vec![false; files.len()];
        let mapped = Mutex::new(Mapped { known, ..Mapped::default() });
        let mut shards = Self { files, ends, vocab, largest: 0, mapped };
        let mut largest = 0;
        for (start, len) in sampled(total) {
            shards.each(start, len, |view, start, len| {
                largest = view.largest(start, len)?.max(largest);
                Ok(())
            })?;
        }
        shards.largest = largest;
        Ok(shards)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The largest token of the sample.
    pub(super) fn largest(&self) -> u32 {
        self.largest
    }

    /// What the files were taken for, for people.
    pub(super) fn describe(&self) -> String {
        let count = match self.files.len() {
            1 => String::new(),
            count => format!("{count} shards, "),
        };
        let mut formats: Vec<&str> = self.files.iter().map(ShardFile::format).collect();
        formats.dedup();
        formats.sort_unstable();
        formats.dedup();
        let sample = if self.len() > SAMPLED { " in a sample" } else { "" };
        format!("{count}{}, {} tokens, largest id {}{sample}", formats.join(" and "), self.len(), self.largest)
    }

    /// The token that all of them are, if it is only one.
    pub(super) fn only(&self) -> Result<Option<u32>> {
        for start in (0..self.len()).step_by(BLOCK) {
            if self.window(start, BLOCK.min(self.len() - start))?.iter().any(|&token| token != self.largest) {
                return Ok(None);
            }
        }
        Ok(Some(self.largest))
    }

    /// Tokens `start..start + len`.
    ///
    /// # Errors
    /// A range outside the set, a shard that is refused, or a token outside the vocabulary.
    pub(super) fn window(&self, start: usize, len: usize) -> Result<Vec<u32>> {
        if start.checked_add(len).is_none_or(|end| end > self.len()) {
            let total = self.len();
            return Err(Error::input(format!("the shards have {total} tokens, {start}..{start}+{len} were asked for")));
        }
        let mut tokens = Vec::with_capacity(len);
        self.each(start, len, |view, start, len| {
            tokens.extend(view.window(start, len)?);
            Ok(())
        })?;
        Ok(tokens)
    }

    /// The shards of tokens `start..start + len`, each with where they begin in it and how many they are.
    fn each(
        &self,
        start: usize,
        len: usize,
        mut each: impl FnMut(ShardView, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let (mut at, end) = (start, start + len);
        let first = self.ends.partition_point(|&end| end <= start);
        for index in first..self.files.len() {
            let (Some(file), Some(&last)) = (self.files.get(index), self.ends.get(index)) else { break };
            if at >= end {
                break;
            }
            let until = end.min(last);
            each(self.shard(index, file)?.view(), at - (last - file.len()), until - at)?;
            at = until;
        }
        Ok(())
    }

    fn shard(&self, index: usize, file: &ShardFile) -> Result<Arc<Shard>> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shard) = mapped.shards.get(&index) {
            return Ok(Arc::clone(shard));
        }
        let known = mapped.known.get(index).copied().unwrap_or_default();
        let shard = Arc::new(file.map(self.vocab, !known)?);
        if mapped.order.len() >= MAPPED {
            let oldest = mapped.order.pop_front();
            oldest.map(|oldest| mapped.shards.remove(&oldest));
        }
        mapped.shards.insert(index, Arc::clone(&shard));
        mapped.order.push_back(index);
        mapped.known.get_mut(index).into_iter().for_each(|known| *known = true);
        Ok(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards of these tokens, each file of its own.
    fn shards(dir: &tempfile::TempDir, parts: &[Vec<u16>], vocab: usize) -> Result<Shards> {
        let file = |(at, tokens): (usize, &Vec<u16>)| {
            let path = dir.path().join(format!("{at:06}.bin"));
            std::fs::write(&path, tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
            ShardFile::find(&path)
        };
        Shards::open(parts.iter().enumerate().map(file).collect::<Result<_>>()?, vocab)
    }

    #[test]
    fn windows_cross_shards_wherever_they_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u16> = (0..2000).map(|at| at * 7 % 1999).collect();
        let wide: Vec<u32> = all.iter().map(|&token| u32::from(token)).collect();
        for cut in [1, 3, 700, 1999, 2000] {
            let set = shards(&dir, &all.chunks(cut).map(<[u16]>::to_vec).collect::<Vec<_>>(), 2000).unwrap();
            assert_eq!((set.len(), set.largest(), set.only().unwrap()), (2000, 1998, None));
            for (start, len) in [(0, 2000), (1999, 1), (0, 0), (2000, 0), (697, 5), (1, 1500), (699, 1)] {
                assert_eq!(set.window(start, len).unwrap(), wide[start..start + len], "{cut}: {start}, {len}");
            }
            assert!(set.window(1999, 2).is_err() && set.window(usize::MAX, 2).is_err());
            let mapped = set.mapped.lock().unwrap();
            assert!(mapped.shards.len() <= MAPPED && mapped.order.len() == mapped.shards.len());
        }
    }

    #[test]
    fn what_is_wrong_names_the_shard() {
        let dir = tempfile::tempdir().unwrap();
        let said = shards(&dir, &[vec![1, 2], vec![3, 99], vec![4]], 50).unwrap_err().to_string();
        assert!(said.contains("000001.bin has token 99 at position 1, but vocab_size is 50"), "{said}");
        assert_eq!(shards(&dir, &[vec![7, 7], vec![7]], 50).unwrap().only().unwrap(), Some(7));
        let set = shards(&dir, &[vec![1, 2], vec![3, 5]], 50).unwrap();
        assert_eq!(set.describe(), "2 shards, u16 without a header, 4 tokens, largest id 5");
        // Mapped before, so only what was not is read again.
        set.mapped.lock().unwrap().shards.clear();
        std::fs::remove_file(dir.path().join("000001.bin")).unwrap();
        let said = set.window(1, 3).unwrap_err().to_string();
        assert!(said.contains("000001.bin") && said.starts_with("cannot open"), "{said}");
    }
}
