//! A checkpoint that cannot be read is no reason to take an older one: whatever the disk says of it, nothing is lost.

use crate::checkpoint;
use crate::disk::Disk;
use crate::plan::{Plan, PlantedFault};
use crate::run::{ROOT, RUN, store, train};
use std::path::Path;
use tokenformer::checkpoint::Keep;

#[test]
fn what_the_disk_does_not_give_is_not_passed_over() {
    let start = Disk::new(Path::new(ROOT));
    train(&start, 0, &mut None).unwrap();
    store(&start).save(&checkpoint(12), Keep { last: 2, every: 0 }).unwrap();
    let folder = Path::new(RUN).join("checkpoints");
    let whole = start.copy();
    whole.begin(Plan::Never);
    assert_eq!(store(&whole).latest().unwrap().found.unwrap().1, checkpoint(12));
    for fault in [PlantedFault::Io, PlantedFault::Denied] {
        for at in 0..whole.operations() {
            let disk = start.copy();
            disk.begin(Plan::Once(at, fault));
            let latest = store(&disk).latest();
            disk.begin(Plan::Never);
            match latest {
                Ok(latest) => assert_eq!(latest.found.unwrap().1, checkpoint(12), "{fault:?} at {at}"),
                Err(error) => assert!(error.to_string().starts_with("cannot read "), "{fault:?} at {at}: {error}"),
            }
            assert_eq!(disk.names(&folder), start.names(&folder));
            assert_eq!(store(&disk).latest().unwrap().found.unwrap().1, checkpoint(12));
        }
    }
}
