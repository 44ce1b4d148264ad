//! A disk that fails at any operation, once or for ever: nothing that was safe is lost, and nothing is reported safe
//! that is not.

use crate::disk::Disk;
use crate::plan::{FAULTS, Plan, PlantedFault};
use crate::run::{ROOT, STEPS, check_complete, resume, store, train};
use crate::{checkpoint, damages};
use std::path::Path;
use tokenformer::checkpoint::Keep;
use tokenformer::error::Error;
use tokenformer::rng::{Rng, Stream};

/// Every operation, once and for ever, with every fault.
fn plans(operations: usize) -> impl Iterator<Item = (Plan, PlantedFault)> {
    let at = move |at| {
        FAULTS.into_iter().flat_map(move |fault| [(Plan::Once(at, fault), fault), (Plan::ForEver(at, fault), fault)])
    };
    (0..operations).flat_map(at)
}

/// How many faults ended in which way.
#[derive(Debug, Default)]
struct Tally {
    /// The work was reported done, and is.
    done: usize,
    /// The work was reported failed.
    failed: usize,
    /// A line of metrics may be wrong.
    unnoticed: usize,
}

/// An error is a sentence that names a path of the run, and the bytes where the disk was full.
fn check_sentence(error: &Error, fault: PlantedFault) {
    let text = error.to_string();
    assert!(text.contains("/disk/runs/mine"), "{text}");
    assert_eq!(error.exit_code(), 2);
    if fault == PlantedFault::NoSpace && text.contains("cannot write") && text.contains("step-") {
        assert!(text.contains(" bytes, earlier ones are intact"), "{text}");
    }
}

#[test]
fn a_save_that_fails_leaves_the_previous_checkpoint_and_says_so() {
    let keep = Keep { last: 1, every: 0 };
    let start = Disk::new(Path::new(ROOT));
    train(&start, 0, &mut None).unwrap();
    start.begin(Plan::Never);
    let whole = start.copy();
    store(&whole).save(&checkpoint(12), keep).unwrap();
    let mut tally = Tally::default();
    for (plan, fault) in plans(whole.operations()) {
        let disk = start.copy();
        disk.begin(plan);
        let result = store(&disk).save(&checkpoint(12), keep);
        disk.begin(Plan::Never);
        let latest = store(&disk).latest().unwrap();
        assert_eq!(latest.warnings, [""; 0], "{plan:?}");
        let found = latest.found.expect("never neither").1;
        match &result {
            Ok(_) => {
                assert_eq!(found, checkpoint(12), "{plan:?} was a silent failure");
                tally.done += 1;
            }
            Err(error) => {
                check_sentence(error, fault);
                let saved = error.to_string().starts_with("the checkpoint of step 12 is saved, but cannot remove ");
                assert!(found == checkpoint(12) || !saved && found == checkpoint(STEPS), "{plan:?}: {error}");
                tally.failed += 1;
            }
        }
        for draw in 0..damages().min(50) {
            let after = disk.after_power_loss(&mut Rng::new(1, Stream::Test, draw));
            let found = store(&after).latest().unwrap().found.expect("never neither").1;
            assert!(found == checkpoint(12) || result.is_err() && found == checkpoint(STEPS), "{plan:?}");
        }
        store(&disk).save(&checkpoint(15), keep).unwrap();
        assert_eq!(disk.names(Path::new("/disk/runs/mine/checkpoints")), ["step-00000015.safetensors"], "{plan:?}");
    }
    println!("{} operations: {tally:?}", whole.operations());
    assert!(tally.done > 20 && tally.failed > 50);
}

#[test]
fn a_run_that_fails_goes_on_where_it_was_safe() {
    let whole = Disk::new(Path::new(ROOT));
    train(&whole, 0, &mut None).unwrap();
    let mut tally = Tally::default();
    for (plan, fault) in plans(whole.operations()) {
        let disk = Disk::new(Path::new(ROOT));
        disk.begin(plan);
        let mut saved = None;
        let result = train(&disk, 0, &mut saved);
        disk.begin(Plan::Never);
        match result {
            // A lie about the metrics is not noticed: they have no checksums, and no run depends on them.
            Ok(()) if fault == PlantedFault::Lie => tally.unnoticed += 1,
            Ok(()) => {
                check_complete(&disk);
                tally.done += 1;
            }
            Err(error) => {
                check_sentence(&error, fault);
                tally.failed += 1;
                if fault != PlantedFault::Lie {
                    resume(&disk, saved);
                }
            }
        }
    }
    println!("{} operations: {tally:?}", whole.operations());
    assert!(tally.failed > 200);
}
