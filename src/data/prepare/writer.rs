//! Writes the shards of a split, in the format of llm.c, and goes on with them.
//!
//! A shard is `train_000000.bin.part` until it is whole, on the disk, and renamed. What a killed process wrote after its last
//! note of progress is cut off again, also where it had renamed the shard by then.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::split::Split;
use crate::checkpoint::{FileDigest, Files, Storage};
use crate::data::manifest::ManifestShard;
use crate::data::shard::{self, HEADER_BYTES, header};
use crate::error::{Error, Result};

/// How the name of a shard ends that is not whole.
const PART: &str = ".part";
/// Most tokens of a shard: its header counts them in 31 bits.
pub(crate) const MOST_TOKENS: u64 = i32::MAX as u64;

/// The shards of a split.
pub(super) struct ShardWriter {
    dir: PathBuf,
    split: Split,
    width: usize,
    /// Tokens of a whole one.
    capacity: u64,
    /// Those that are whole.
    pub done: Vec<ManifestShard>,
    open: Option<Part>,
}

struct Part {
    file: BufWriter<File>,
    tokens: u64,
}

impl ShardWriter {
    /// Goes on behind the shards `done` and `tokens` of the next one; what is behind that in `dir` is removed.
    ///
    /// # Errors
    /// Shards that are gone or shorter than that.
    pub(super) fn resume(
        dir: &Path,
        split: Split,
        width: usize,
        capacity: u64,
        done: Vec<ManifestShard>,
        tokens: u64,
    ) -> Result<Self> {
        let mut shards = Self { dir: dir.to_owned(), split, width, capacity, done, open: None };
        for shard in &shards.done {
            let path = dir.join(&shard.file);
            let bytes = path.metadata().map(|stat| stat.len()).ok();
            if bytes != Some(shards.bytes_of(shard.tokens)) {
                return Err(lost(&path));
            }
        }
        let (name, part) = (shards.path(""), shards.path(PART));
        if tokens > 0 {
            if name.exists() && !part.exists() {
                std::fs::rename(&name, &part).map_err(|cause| Error::io("rename", &name, &cause))?;
            }
            let file = File::options().read(true).write(true).open(&part);
            let mut file = file.map_err(|cause| {
                if cause.kind() == io::ErrorKind::NotFound { lost(&part) } else { Error::io("open", &part, &cause) }
            })?;
            let end = shards.bytes_of(tokens);
            let io = |cause: io::Error| Error::io("write", &part, &cause);
            if file.metadata().map_err(io)?.len() < end {
                return Err(lost(&part));
            }
            file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(io)?;
            shards.open = Some(Part { file: BufWriter::with_capacity(1 << 18, file), tokens });
        }
        shards.remove_later()?;
        Ok(shards)
    }

    /// Appends tokens, in their bytes.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let path = self.path(PART);
            let io = |cause: io::Error| Error::io("write", &path, &cause);
            let mut part = match self.open.take() {
                Some(part) => part,
                None => {
                    let mut file = BufWriter::with_capacity(1 << 18, File::create(&path).map_err(io)?);
                    file.write_all(&[0; HEADER_BYTES]).map_err(io)?;
                    Part { file, tokens: 0 }
                }
            };
            let room = (self.capacity - part.tokens).saturating_mul(self.width as u64);
            let now = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (these, rest) = bytes.split_at(now);
            part.file.write_all(these).map_err(io)?;
            part.tokens += (now / self.width) as u64;
            bytes = rest;
            match part.tokens == self.capacity {
                true => self.finish(part)?,
                false => self.open = Some(part),
            }
        }
        Ok(())
    }

    /// Tokens of the shard that is not whole.
    pub(super) fn open_tokens(&self) -> u64 {
        self.open.as_ref().map_or(0, |part| part.tokens)
    }

    /// Makes what was written survive a loss of power.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn sync(&mut self) -> Result<()> {
        let path = self.path(PART);
        let Some(part) = &mut self.open else { return Ok(()) };
        part.file
            .flush()
            .and_then(|()| part.file.get_ref().sync_data())
            .map_err(|cause| Error::io("write", &path, &cause))
    }

    /// The last shard is whole.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn end(&mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |part| self.finish(part))
    }

    fn finish(&mut self, part: Part) -> Result<()> {
        let (path, unfinished) = (self.path(""), self.path(PART));
        let io = |cause: io::Error| Error::io("write", &unfinished, &cause);
        let head = header(self.width, part.tokens);
        let mut file = part.file.into_inner().map_err(|error| io(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&head)).and_then(|()| file.sync_all()).map_err(io)?;
        // Closed before it is renamed, which Windows wants.
        drop(file);
        let sha256 = FileDigest::read(&unfinished)?.sha256;
        std::fs::rename(&unfinished, &path)
            .and_then(|()| Files.sync_dir(&self.dir))
            .map_err(|cause| Error::io("rename", &unfinished, &cause))?;
        let file = self.name(self.done.len() as u64);
        self.done.push(ManifestShard { file, tokens: part.tokens, sha256 });
        Ok(())
    }

    fn bytes_of(&self, tokens: u64) -> u64 {
        shard::bytes_of(self.width, tokens)
    }

    fn name(&self, index: u64) -> String {
        format!("{}_{index:06}.bin", self.split.name())
    }

    /// The shard that is next.
    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(self.name(self.done.len() as u64) + ending)
    }

    /// Removes shards behind the one that is next.
    fn remove_later(&self) -> Result<()> {
        let first = self.done.len() as u64 + u64::from(self.open.is_some());
        for (path, index) in of_split(&self.dir, self.split)? {
            if index >= first {
                std::fs::remove_file(&path).map_err(|cause| Error::io("remove", &path, &cause))?;
            }
        }
        Ok(())
    }
}

/// The shards of a split in `dir`, whole or not, with their numbers.
pub(super) fn of_split(dir: &Path, split: Split) -> Result<Vec<(PathBuf, u64)>> {
    let io = |cause: io::Error| Error::io("read", dir, &cause);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.strip_suffix(PART).unwrap_or(&name).strip_suffix(".bin");
        let digits =
            stem.and_then(|stem| stem.strip_prefix(split.name())?.strip_prefix('_')).filter(|digits| digits.len() >= 6);
        if let Some(index) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((path, index));
        }
    }
    Ok(found)
}

fn lost(path: &Path) -> Error {
    Error::input(format!(
        "{} is gone or shorter than it was when this stopped: begin again with --overwrite",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(range: std::ops::Range<u16>) -> Vec<u8> {
        range.flat_map(u16::to_le_bytes).collect()
    }

    fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = of_split(dir, Split::Train).unwrap();
        all.sort();
        all.into_iter()
            .map(|(path, _)| (path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect()
    }

    #[test]
    fn shards_are_the_same_wherever_they_were_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let open = |done, tokens| ShardWriter::resume(dir.path(), Split::Train, 2, 10, done, tokens);
        let mut shards = open(vec![], 0).unwrap();
        shards.write(&bytes(0..37)).unwrap();
        shards.end().unwrap();
        let all = shards.done.clone();
        assert_eq!(all.iter().map(|shard| shard.tokens).collect::<Vec<_>>(), [10, 10, 10, 7]);
        assert_eq!(all[3].file, "train_000003.bin");
        let whole = content(dir.path());
        assert_eq!(whole[3].1[1024..], bytes(30..37));
        // Whatever was written after the note of progress, whole or not.
        for stopped in 0..37_u16 {
            let (count, tokens) = (usize::from(stopped / 10), u64::from(stopped % 10));
            let mut again = open(all[..count].to_vec(), tokens).unwrap();
            again.write(&bytes(stopped..37)).unwrap();
            if stopped % 2 == 0 {
                again.sync().unwrap();
                drop(again);
                again = open(all[..count].to_vec(), tokens).unwrap();
                again.write(&bytes(stopped..37)).unwrap();
            }
            again.end().unwrap();
            assert_eq!((&again.done, content(dir.path())), (&all, whole.clone()), "{stopped}");
        }
        std::fs::write(dir.path().join("train_000001.bin"), "short").unwrap();
        assert!(open(all[..2].to_vec(), 0).err().unwrap().to_string().contains("--overwrite"));
        assert!(open(all[..1].to_vec(), 5).err().unwrap().to_string().contains("--overwrite"));
    }
}
