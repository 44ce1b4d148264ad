//! A disk in memory that fails, or loses power, at any operation.
//!
//! It keeps what programs see apart from what would survive: a write survives once its file was synced, a name once its
//! directory was. At a loss of power, whatever was not synced survives or not, whole or in part, in any order. Every
//! call is an operation with a number, reads included.

use crate::plan::{Kind, Plan, PlantedFault};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokenformer::checkpoint::{Sink, Source, Storage};
use tokenformer::rng::Rng;

const SECTOR: usize = 512;

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    CreateDir(PathBuf),
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        let inside = |path: &Path| path.parent() == Some(dir);
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::CreateDir(path) => inside(path),
            Self::Rename(_, to, _) => inside(to),
        }
    }
}

/// Names: files by their content's number, and directories.
#[derive(Debug, Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link(path, content) => drop(self.files.insert(path.clone(), *content)),
            Change::Unlink(path) => drop(self.files.remove(path)),
            Change::Rename(from, to, content) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *content);
            }
            Change::CreateDir(path) => drop(self.dirs.insert(path.clone())),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Where and what was written since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.resize(bytes.len().max(at + new.len()), 0);
    bytes[at..at + new.len()].copy_from_slice(new);
}

#[derive(Debug)]
struct State {
    plan: Plan,
    operations: usize,
    seen: Names,
    durable: Names,
    pending: Vec<Change>,
    contents: Vec<Content>,
}

/// What an operation shall do.
enum Turn {
    Work,
    Fail(PlantedFault),
    /// Take effect, as far as it goes without a sync, and report failure.
    Die,
}

impl State {
    fn turn(&mut self, kind: Kind) -> io::Result<Turn> {
        let now = self.operations;
        self.operations += 1;
        let fault = match self.plan {
            Plan::Once(at, fault) if at == now => fault,
            Plan::ForEver(at, fault) if at <= now => fault,
            Plan::PowerLoss(at) if at == now => return Ok(Turn::Die),
            Plan::PowerLoss(at) if at < now => return Err(dead()),
            _ => return Ok(Turn::Work),
        };
        Ok(if fault.concerns(kind) { Turn::Fail(fault) } else { Turn::Work })
    }

    /// An operation on names: it changes nothing where it fails.
    fn on_names(&mut self, kind: Kind, change: impl FnOnce(&mut Self) -> io::Result<Option<Change>>) -> io::Result<()> {
        let turn = self.turn(kind)?;
        if let Turn::Fail(fault) = turn {
            return Err(fault.error());
        }
        if let Some(change) = change(self)? {
            self.seen.apply(&change);
            self.pending.push(change);
        }
        if matches!(turn, Turn::Die) { Err(dead()) } else { Ok(()) }
    }
}

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// The disk; clones share it.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// An empty disk with one directory that survives.
    pub fn new(dir: &Path) -> Self {
        let names = Names { files: BTreeMap::new(), dirs: BTreeSet::from([dir.to_path_buf()]) };
        Self(Arc::new(Mutex::new(State {
            plan: Plan::Never,
            operations: 0,
            seen: names.clone(),
            durable: names,
            pending: Vec::new(),
            contents: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts operations from here, and goes by `plan`.
    pub fn begin(&self, plan: Plan) {
        let mut state = self.state();
        (state.plan, state.operations) = (plan, 0);
    }

    /// Operations since [`Disk::begin`].
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// A disk of its own that holds and will lose the same.
    pub fn copy(&self) -> Self {
        let s = self.state();
        Self(Arc::new(Mutex::new(State {
            plan: Plan::Never,
            operations: 0,
            seen: s.seen.clone(),
            durable: s.durable.clone(),
            pending: s.pending.clone(),
            contents: s.contents.clone(),
        })))
    }

    /// The bytes of a file as programs see them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.seen.files.get(path).map(|&content| state.contents[content].seen.clone())
    }

    /// The names in a directory as programs see them.
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.state().seen.files.keys().filter(|path| path.parent() == Some(dir)).map(name).collect()
    }

    /// What is found when the power is back: what was synced, and of the rest whatever chance leaves.
    pub fn after_power_loss(&self, rng: &mut Rng) -> Self {
        let s = self.state();
        let mut names = s.durable.clone();
        // None, all, a prefix as of a journal, or any of them.
        let (how, cut) = (rng.below(4), rng.below(s.pending.len() as u64 + 1) as usize);
        for (index, change) in s.pending.iter().enumerate() {
            let survives = match how {
                0 => false,
                1 => true,
                2 => index < cut,
                _ => rng.below(2) == 0,
            };
            match change {
                // A rename across two blocks of a directory, of which one was written.
                Change::Rename(_, to, content) if how == 3 && rng.below(4) == 0 => {
                    names.apply(&Change::Link(to.clone(), *content));
                }
                change if survives => names.apply(change),
                _ => {}
            }
        }
        let dirs = names.dirs.clone();
        let reachable =
            |path: &Path| path.ancestors().skip(1).all(|dir| dirs.contains(dir) || !s.seen.dirs.contains(dir));
        names.files.retain(|path, _| reachable(path));
        names.dirs.retain(|path| reachable(path));
        let contents = s.contents.iter().map(|content| survivor(content, rng)).collect();
        Self(Arc::new(Mutex::new(State {
            plan: Plan::Never,
            operations: 0,
            seen: names.clone(),
            durable: names,
            pending: Vec::new(),
            contents,
        })))
    }
}

/// A file after a loss of power. What was synced is there; sectors written since are old, new, zeros or garbage, and
/// the file may have its old length, its new one or any between.
fn survivor(content: &Content, rng: &mut Rng) -> Content {
    let mut bytes = content.durable.clone();
    let how = rng.below(4);
    if how > 0 {
        for (at, new) in &content.pending {
            if how == 1 {
                put(&mut bytes, *at, new);
                continue;
            }
            let mut start = 0;
            while start < new.len() {
                // Sectors are those of the disk, not of the write.
                let end = new.len().min(start + SECTOR - (at + start) % SECTOR);
                let garbage: Vec<u8> = (start..end).map(|_| rng.below(256) as u8).collect();
                match rng.below(6) {
                    0 => {}
                    1 => put(&mut bytes, at + start, &vec![0; end - start]),
                    2 => put(&mut bytes, at + start, &garbage),
                    _ => put(&mut bytes, at + start, &new[start..end]),
                }
                start = end;
            }
        }
        if how == 3 {
            let torn = content.durable.len() as u64 + rng.below((bytes.len() - content.durable.len()) as u64 + 1);
            bytes.truncate(torn as usize);
        }
    }
    Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() }
}

struct Handle {
    disk: Disk,
    content: usize,
    at: usize,
}

impl Read for Handle {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let mut most = out.len();
        match state.turn(Kind::Read)? {
            Turn::Fail(PlantedFault::Short) => most = most.div_ceil(2),
            Turn::Fail(fault) => return Err(fault.error()),
            Turn::Die => return Err(dead()),
            Turn::Work => {}
        }
        let left = &state.contents[self.content].seen[self.at..];
        let n = left.len().min(most);
        out[..n].copy_from_slice(&left[..n]);
        self.at += n;
        Ok(n)
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let mut bytes = bytes.to_vec();
        let mut result = Ok(bytes.len());
        match state.turn(Kind::Write)? {
            Turn::Fail(fault @ (PlantedFault::Short | PlantedFault::NoSpace)) => {
                bytes.truncate(bytes.len().div_ceil(2));
                result = if fault == PlantedFault::Short { Ok(bytes.len()) } else { Err(fault.error()) };
            }
            Turn::Fail(PlantedFault::Lie) => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            Turn::Fail(fault) => return Err(fault.error()),
            Turn::Die => result = Err(dead()),
            Turn::Work => {}
        }
        let content = &mut state.contents[self.content];
        put(&mut content.seen, self.at, &bytes);
        content.pending.push((self.at, bytes.clone()));
        self.at += bytes.len();
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Handle {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let turn = state.turn(Kind::Sync)?;
        let content = &mut state.contents[self.content];
        match turn {
            Turn::Work => {
                for (at, bytes) in std::mem::take(&mut content.pending) {
                    put(&mut content.durable, at, &bytes);
                }
                Ok(())
            }
            Turn::Fail(fault) => {
                content.pending.clear();
                Err(fault.error())
            }
            Turn::Die => Err(dead()),
        }
    }
}

impl Storage for Disk {
    fn open(&self, path: &Path) -> io::Result<Source> {
        let mut found = None;
        self.state().on_names(Kind::Open, |state| {
            let content = *state.seen.files.get(path).ok_or_else(not_found)?;
            found = Some((content, state.contents[content].seen.len() as u64));
            Ok(None)
        })?;
        let (content, len) = found.unwrap();
        Ok(Source { len, bytes: Box::new(Handle { disk: self.clone(), content, at: 0 }) })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        let mut state = self.state();
        let content = state.contents.len();
        state.on_names(Kind::Create, |state| {
            if state.seen.files.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if !state.seen.dirs.contains(path.parent().unwrap()) {
                return Err(not_found());
            }
            state.contents.push(Content::default());
            Ok(Some(Change::Link(path.to_path_buf(), content)))
        })?;
        Ok(Box::new(Handle { disk: self.clone(), content, at: 0 }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        let mut found = None;
        self.state().on_names(Kind::Append, |state| {
            let content = *state.seen.files.get(path).ok_or_else(not_found)?;
            found = Some((content, state.contents[content].seen.len()));
            Ok(None)
        })?;
        let (content, at) = found.unwrap();
        Ok(Box::new(Handle { disk: self.clone(), content, at }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().on_names(Kind::Rename, |state| {
            let content = *state.seen.files.get(from).ok_or_else(not_found)?;
            Ok(Some(Change::Rename(from.to_path_buf(), to.to_path_buf(), content)))
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().on_names(Kind::Remove, |state| {
            state.seen.files.get(path).ok_or_else(not_found)?;
            Ok(Some(Change::Unlink(path.to_path_buf())))
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        self.state().on_names(Kind::List, |state| {
            if !state.seen.dirs.contains(dir) {
                return Err(not_found());
            }
            let inside = state.seen.files.keys().chain(&state.seen.dirs).filter(|path| path.parent() == Some(dir));
            found = inside.cloned().collect();
            Ok(None)
        })?;
        Ok(found)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        let mut created = true;
        self.state().on_names(Kind::CreateDir, |state| {
            created = !state.seen.dirs.contains(dir);
            if created && !state.seen.dirs.contains(dir.parent().unwrap()) {
                return Err(not_found());
            }
            Ok(created.then(|| Change::CreateDir(dir.to_path_buf())))
        })?;
        Ok(created)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let turn = state.turn(Kind::SyncDir)?;
        if matches!(turn, Turn::Die) {
            return Err(dead());
        }
        // What could not be synced may be synced by another call: names are in a journal.
        if let Turn::Fail(fault) = turn {
            return Err(fault.error());
        }
        let (ours, others): (Vec<_>, _) =
            std::mem::take(&mut state.pending).into_iter().partition(|change| change.touches(dir));
        state.pending = others;
        ours.iter().for_each(|change| state.durable.apply(change));
        Ok(())
    }
}
