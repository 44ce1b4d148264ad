//! What a file looks like that is not what its name promises.

/// Bytes that are looked at.
pub(super) const LOOKED_AT: usize = 1 << 17;

/// What a file looks like, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Likeness {
    /// As in "looks like".
    pub what: &'static str,
    /// As after "; ".
    pub remedy: &'static str,
}

pub(super) const fn of(what: &'static str, remedy: &'static str) -> Likeness {
    Likeness { what, remedy }
}
