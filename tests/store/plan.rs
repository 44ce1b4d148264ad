//! What goes wrong with a disk, and when.

use std::io;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedFault {
    /// Any operation: an input/output error. What a failed sync should have saved is lost for good, as on Linux.
    Io,
    /// Operations that need space: the disk is full; half of a write is written.
    NoSpace,
    /// Operations on names: permission denied.
    Denied,
    /// Reads and writes: half of the bytes, without an error, as the system may.
    Short,
    /// Syncs only: an error, and what they should have saved is lost for good.
    Sync,
    /// Writes: reported done, with one bit wrong.
    Lie,
}

pub const FAULTS: [PlantedFault; 6] = [
    PlantedFault::Io,
    PlantedFault::NoSpace,
    PlantedFault::Denied,
    PlantedFault::Short,
    PlantedFault::Sync,
    PlantedFault::Lie,
];

/// When something goes wrong: at operation `at`, and after it.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    Never,
    Once(usize, PlantedFault),
    ForEver(usize, PlantedFault),
    /// The power goes while this operation is under way: from then on nothing works.
    PowerLoss(usize),
}

/// An operation of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open,
    Create,
    Append,
    Rename,
    Remove,
    List,
    CreateDir,
    SyncDir,
    Read,
    Write,
    Sync,
}

impl PlantedFault {
    /// Whether it can happen to an operation.
    pub fn concerns(self, kind: Kind) -> bool {
        use Kind::*;
        match self {
            Self::Io => true,
            Self::NoSpace => matches!(kind, Create | Rename | CreateDir | Write | Sync | SyncDir),
            Self::Denied => matches!(kind, Open | Create | Append | Rename | Remove | List | CreateDir | SyncDir),
            Self::Short => matches!(kind, Read | Write),
            Self::Sync => matches!(kind, Sync | SyncDir),
            Self::Lie => kind == Write,
        }
    }

    /// What the operation then says.
    pub fn error(self) -> io::Error {
        match self {
            Self::NoSpace => io::ErrorKind::StorageFull.into(),
            Self::Denied => io::ErrorKind::PermissionDenied.into(),
            _ => io::Error::other("input/output error"),
        }
    }
}
