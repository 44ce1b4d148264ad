//! A loss of power at any operation leaves the old checkpoint or the new one, and a run that goes on from it.

use crate::disk::Disk;
use crate::plan::Plan;
use crate::run::{ROOT, RUN, STEPS, check_complete, resume, store, train};
use crate::{checkpoint, damages};
use std::path::Path;
use tokenformer::checkpoint::{Keep, Storage};
use tokenformer::rng::{Rng, Stream};
use tokenformer::train::Checkpoint;

/// Runs `work` on copies of `start`, with a loss of power at each of its operations and after the last, and `check`s
/// what each of many draws of damage leaves. Returns the operations and the draws.
fn at_every_operation(
    start: &Disk,
    work: impl Fn(&Disk) -> Option<u64>,
    check: impl Fn(&Disk, Option<u64>),
) -> (usize, u64) {
    let whole = start.copy();
    whole.begin(Plan::Never);
    work(&whole);
    let operations = whole.operations();
    let mut draws = 0;
    for at in 0..=operations {
        let disk = start.copy();
        disk.begin(Plan::PowerLoss(at));
        let saved = work(&disk);
        for draw in 0..damages() {
            let mut rng = Rng::new(at as u64, Stream::Test, draw);
            check(&disk.after_power_loss(&mut rng), saved);
            draws += 1;
        }
    }
    (operations, draws)
}

#[test]
fn a_save_leaves_the_old_checkpoint_or_the_new_one() {
    let start = Disk::new(Path::new(ROOT));
    let keep = Keep { last: 1, every: 0 };
    train(&start, 0, &mut None).unwrap();
    let save = |disk: &Disk| store(disk).save(&checkpoint(12), keep).ok().map(|_| 12);
    let seen = std::cell::Cell::new([0; 2]);
    let (operations, draws) = at_every_operation(&start, save, |disk, saved| {
        let latest = store(disk).latest().unwrap();
        assert_eq!(latest.warnings, [""; 0]);
        let found = latest.found.expect("never neither").1;
        assert!(found == checkpoint(12) || saved.is_none() && found == checkpoint(STEPS));
        let [old, new] = seen.get();
        seen.set(if found.meta.step == 12 { [old, new + 1] } else { [old + 1, new] });
        // And the next save is as good as any.
        store(disk).save(&checkpoint(15), keep).unwrap();
        assert_eq!(store(disk).latest().unwrap().found.unwrap().1, checkpoint(15));
    });
    let [old, new] = seen.get();
    println!("{operations} operations, {draws} losses of power: {old} times the old checkpoint, {new} times the new");
    assert!(old > 0 && new > 0 && operations > 10);
}

/// A checkpoint whose lineage names a file from before a growth is never there without it.
#[test]
fn what_was_before_a_growth_is_storage_or_not_named_yet() {
    let start = Disk::new(Path::new(ROOT));
    train(&start, 0, &mut None).unwrap();
    let grow = |disk: &Disk| {
        store(disk).save_before_growth(&checkpoint(10)).ok()?;
        store(disk).save(&checkpoint(12), Keep { last: 1, every: 0 }).ok().map(|_| 12)
    };
    let path = Path::new(RUN).join("checkpoints/before-growth-00000010.safetensors");
    let seen = std::cell::Cell::new([0; 2]);
    let (operations, draws) = at_every_operation(&start, grow, |disk, saved| {
        let newest = store(disk).latest().unwrap().found.expect("never neither").1.meta.step;
        let before = disk.open(&path).ok().map(|source| Checkpoint::read_source(source, &path).unwrap());
        assert!(before.as_ref().is_none_or(|before| *before == checkpoint(10)));
        assert!(newest == 12 && before.is_some() || newest == STEPS && saved.is_none());
        let [without, with] = seen.get();
        seen.set(if before.is_some() { [without, with + 1] } else { [without + 1, with] });
        // What is left of a first attempt is no part of the second.
        store(disk).save_before_growth(&checkpoint(10)).unwrap();
        assert_eq!(Checkpoint::read_source(disk.open(&path).unwrap(), &path).unwrap(), checkpoint(10));
    });
    println!("{operations} operations, {draws} losses of power: {:?} without and with the file", seen.get());
    assert!(seen.get().iter().all(|times| *times > 0));
}

/// The best checkpoint is the one before or the new one, and the newest is as it was.
#[test]
fn a_best_checkpoint_replaces_the_one_before_at_once() {
    let start = Disk::new(Path::new(ROOT));
    train(&start, 0, &mut None).unwrap();
    store(&start).save_best(&checkpoint(3)).unwrap();
    let path = store(&start).best();
    let save = |disk: &Disk| store(disk).save_best(&checkpoint(8)).ok().map(|()| 8);
    at_every_operation(&start, save, |disk, saved| {
        let best = Checkpoint::read_source(disk.open(&path).unwrap(), &path).unwrap();
        assert!(best == checkpoint(8) || saved.is_none() && best == checkpoint(3));
        assert_eq!(store(disk).latest().unwrap().found.unwrap().1, checkpoint(STEPS));
        store(disk).save(&checkpoint(12), Keep { last: 1, every: 0 }).unwrap();
        assert!(disk.open(&path).is_ok(), "rotation leaves it");
    });
}

#[test]
fn a_run_goes_on_from_a_loss_of_power_anywhere() {
    let run = |disk: &Disk| {
        let mut saved = None;
        let _ = train(disk, 0, &mut saved);
        saved
    };
    let (operations, draws) = at_every_operation(&Disk::new(Path::new(ROOT)), run, resume);
    println!("{operations} operations, {draws} losses of power");
}

#[test]
fn a_resumed_run_goes_on_from_a_loss_of_power_anywhere() {
    // Cut short in its second interval, at the third operation after the first checkpoint.
    let cut = |at: usize| {
        let disk = Disk::new(Path::new(ROOT));
        disk.begin(Plan::PowerLoss(at));
        let mut saved = None;
        let _ = train(&disk, 0, &mut saved);
        (disk, saved)
    };
    let first = (0..).find(|&at| cut(at).1 == Some(3)).unwrap();
    let (start, saved) = cut(first + 3);
    assert_eq!(saved, Some(3));
    let start = start.after_power_loss(&mut Rng::new(0, Stream::Test, 0));
    let go_on = |disk: &Disk| {
        let mut saved = Some(3);
        let _ = train(disk, 3, &mut saved);
        saved
    };
    at_every_operation(&start, go_on, resume);
}

/// Where a run replaces another (`--overwrite`), nothing of the old one comes back once the new one has started.
#[test]
fn a_replaced_run_stays_replaced() {
    let start = Disk::new(Path::new(ROOT));
    train(&start, 0, &mut None).unwrap();
    store(&start).save(&checkpoint(100), Keep { last: 1, every: 0 }).unwrap();
    let replace = |disk: &Disk| {
        let mut saved = None;
        let _ = train(disk, 0, &mut saved);
        saved
    };
    at_every_operation(&start, replace, |disk, saved| {
        let latest = store(disk).latest().unwrap();
        assert_eq!(latest.warnings, [""; 0]);
        let found = latest.found.map(|(_, found)| found);
        assert!(found.as_ref().is_none_or(|found| *found == checkpoint(found.meta.step)));
        if saved.is_some() {
            let step = found.map(|found| found.meta.step);
            assert!(step <= Some(STEPS), "the old run is back, at step {step:?}");
            resume(disk, saved);
        }
    });
}

/// The disk of these tests can do what it is meant to: without any sync, everything may be lost or damaged.
#[test]
fn the_disk_loses_what_was_not_synced() {
    let path = Path::new("/disk/file");
    let (mut gone, mut whole, mut damaged) = (0, 0, 0);
    for draw in 0..400 {
        let disk = Disk::new(Path::new(ROOT));
        disk.create(path).unwrap().write_all(&[7; 2000]).unwrap();
        match disk.after_power_loss(&mut Rng::new(0, Stream::Test, draw)).bytes(path) {
            None => gone += 1,
            Some(bytes) if bytes == [7; 2000] => whole += 1,
            Some(_) => damaged += 1,
        }
    }
    assert!(gone > 50 && whole > 20 && damaged > 50, "{gone} {whole} {damaged}");
    let disk = Disk::new(Path::new(ROOT));
    let mut file = disk.create(path).unwrap();
    file.write_all(&[7; 2000]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(ROOT)).unwrap();
    for draw in 0..100 {
        let after = disk.after_power_loss(&mut Rng::new(0, Stream::Test, draw));
        assert_eq!(after.bytes(path).unwrap(), [7; 2000]);
    }
    train(&disk, 0, &mut None).unwrap();
    check_complete(&disk);
}
