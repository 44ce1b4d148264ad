//! Matrix units: which fragments an adapter multiplies, and what a product made of them keeps in workgroup memory.

use super::dtype::Dtype;
use super::product::Layout;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A square matrix that a subgroup holds in its registers; two of them are multiplied and added to a third of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fragment {
    /// Rows, and columns.
    pub side: u32,
    /// Type of both operands.
    pub operand: Dtype,
}

impl Fragment {
    /// Those that kernels are made for, the preferred first.
    pub const ALL: [Self; 4] = [
        Self { side: 16, operand: Dtype::F16 },
        Self { side: 8, operand: Dtype::F16 },
        Self { side: 16, operand: Dtype::F32 },
        Self { side: 8, operand: Dtype::F32 },
    ];

    /// The inverse of its `Display`.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fragment| fragment.to_string() == text)
    }
}

/// "16" where the operands are f16, "8f32" where they are f32.
impl fmt::Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operand = if self.operand == Dtype::F32 { "f32" } else { "" };
        write!(f, "{}{operand}", self.side)
    }
}

/// A set of them; in files, a list of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Fragments([bool; 4]);

impl From<Fragments> for Vec<String> {
    fn from(fragments: Fragments) -> Self {
        fragments.iter().map(|fragment| fragment.to_string()).collect()
    }
}

impl TryFrom<Vec<String>> for Fragments {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let known = |name: &String| {
            Fragment::named(name).ok_or_else(|| format!("\"{name}\" names no matrix unit: 16, 8, 16f32 and 8f32 do"))
        };
        let listed: Vec<_> = names.iter().map(known).collect::<Result<_, _>>()?;
        Ok(Self::of(|fragment| listed.contains(&fragment)))
    }
}

impl Fragments {
    /// No matrix units.
    pub const NONE: Self = Self([false; 4]);

    /// Those of [`Fragment::ALL`] that `has` says are there.
    pub fn of(has: impl Fn(Fragment) -> bool) -> Self {
        Self(Fragment::ALL.map(has))
    }

    /// All that are there, the preferred first.
    pub fn iter(self) -> impl Iterator<Item = Fragment> {
        Fragment::ALL.into_iter().zip(self.0).filter(|(_, there)| *there).map(|(fragment, _)| fragment)
    }

    /// Whether one is there.
    pub fn has(self, fragment: Fragment) -> bool {
        self.iter().any(|there| there == fragment)
    }

    /// The preferred one for operands of a type.
    pub fn best(self, operand: Dtype) -> Option<Fragment> {
        self.iter().find(|fragment| fragment.operand == operand)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

/// Bytes that pad a row of a staged tile against bank conflicts. Half or twice as many cost 12 to 45 % on an H200.
const PAD_BYTES: u32 = 16;

/// Most workgroup memory with which two workgroups share a multiprocessor of an H200: at 27 KB the rate is half.
const SHARED_BYTES: u32 = 23 * 1024;

/// A tile of an operand in workgroup memory, as it lies in storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Rows.
    pub rows: u32,
    /// Elements of a row.
    pub columns: u32,
    /// Elements from row to row.
    pub pitch: u32,
}

/// What a workgroup keeps in workgroup memory for one block of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Staging {
    /// Of A.
    pub a: Tile,
    /// Of B.
    pub b: Tile,
    /// Fragments of C.
    pub slots: u32,
    /// How often a fragment of each subgroup is written there until all have been: 1, or 2 where half of the
    /// subgroups fit. Then the last slot takes what is written in the other turn.
    pub turns: u32,
    fragment: Fragment,
}

impl Staging {
    /// Of blocks of `block` rows and columns of C and `depth` terms, computed by `subgroups` subgroups.
    pub(crate) fn new(layout: Layout, fragment: Fragment, block: [u32; 2], depth: u32, subgroups: u32) -> Self {
        let pad = PAD_BYTES / fragment.operand.bytes() as u32;
        let tile = |rows, columns| Tile { rows, columns, pitch: columns + pad };
        let [rows, columns] = block;
        let a = if layout == Layout::TN { tile(depth, rows) } else { tile(rows, depth) };
        let b = if layout == Layout::NT { tile(columns, depth) } else { tile(depth, columns) };
        let whole = Self { a, b, slots: subgroups, turns: 1, fragment };
        let halved = Self { slots: subgroups.div_ceil(2) + 1, turns: 2, ..whole };
        if halved.bytes() <= SHARED_BYTES && whole.bytes() > SHARED_BYTES { halved } else { whole }
    }

    /// Bytes of workgroup memory.
    pub(crate) fn bytes(&self) -> u32 {
        let elements = self.a.rows * self.a.pitch + self.b.rows * self.b.pitch;
        elements * self.fragment.operand.bytes() as u32 + 4 * self.slots * self.fragment.side.pow(2)
    }
}
