//! How subgroups and lanes share the rows of a workgroup, whether a driver makes subgroups of one size or chooses.

use super::super::source::{Pass, item_loop};
use super::{Cooperative, STRIPS};
use crate::kernel::Target;
use crate::ops::matmul::source::Code;

/// Fewest floats that lanes share where sizes vary: one tells how many subgroups there are.
const LEAST_SHARED: u32 = 4;

/// The subgroups that a workgroup is laid out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subgroups {
    pub count: u32,
    /// Lanes of each.
    pub lanes: u32,
    /// Whether a driver may make fewer or more of them, of another size.
    pub vary: bool,
}

/// What the lanes of a row make of a number of each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Joined {
    Largest,
    Sum,
}

impl Joined {
    fn of(self, x: &str, y: &str) -> String {
        match self {
            Self::Largest => format!("max({x}, {y})"),
            Self::Sum => format!("({x} + {y})"),
        }
    }
}

impl Subgroups {
    /// For fragments of a side: 1, 2 or 4 lanes to a row.
    pub(super) fn new(side: u32, target: &Target) -> Option<Self> {
        let of = |lanes, count| Self { count, lanes, vary: target.subgroup_size().is_none() };
        let fits = |subgroups: &Self| {
            let Self { lanes, vary, .. } = *subgroups;
            // Matrix operations need whole subgroups, whatever their size.
            let whole = !vary || subgroups.invocations().is_multiple_of(target.subgroup_sizes[1].max(1));
            let laid_out = lanes.is_multiple_of(side) && [1, 2, 4].contains(&(lanes / side));
            laid_out && whole && subgroups.invocations() <= target.invocations
        };
        match target.subgroup_size() {
            Some(lanes) => Some(of(lanes, STRIPS)).filter(fits),
            None => target.lanes().into_iter().flat_map(|n| [STRIPS, 2, 1].map(|count| of(n, count))).find(fits),
        }
    }

    pub(super) fn invocations(self) -> u32 {
        self.count * self.lanes
    }

    /// Part of a kernel's name.
    pub(super) fn suffix(self) -> String {
        match self {
            Self { lanes, vary: false, .. } => format!("s{lanes}"),
            Self { lanes, count: STRIPS, .. } => format!("w{lanes}"),
            Self { lanes, count, .. } => format!("{count}w{lanes}"),
        }
    }
}

impl Cooperative {
    /// Floats in workgroup memory that the lanes share where sizes vary.
    pub(super) fn shared_floats(&self) -> u32 {
        let exchange = self.per_row() > 1 && self.pass != Pass::BackwardKeysValues;
        match (self.subgroups.vary, exchange) {
            (false, _) => 0,
            (true, false) => LEAST_SHARED,
            (true, true) => self.invocations().max(LEAST_SHARED),
        }
    }

    /// Opens the loop over tiles, and where sizes vary that over passes inside of it: `strip` is the first row of this
    /// subgroup in the tile, `own` the row of this lane, `part` which of the lanes of that row it is.
    pub(super) fn begin_tiles(&self, code: &mut Code) {
        let (side, rows, per_row, last_first) =
            (self.side, self.rows(), self.per_row(), self.pass != Pass::BackwardKeysValues);
        if !self.subgroups.vary {
            let declare = format!(
                "let part = inner % {per_row}u;
                let strip = subgroup * {side}u;
                let own = strip + inner / {per_row}u;"
            );
            code.push(item_loop(&self.form, rows, &declare, last_first));
            code.push("let row = first + own;");
            return;
        }
        // The number of subgroups bounds a loop with barriers, so all must be seen to agree on it.
        let declare = format!(
            "if (lane == 0u) {{
            sh_lanes[0] = f32(subgroups);
            }}
            let present = clamp(u32(workgroupUniformLoad(&sh_lanes[0])), 1u, {}u);
            let part = lane % {per_row}u;",
            self.subgroups.count
        );
        code.push(item_loop(&self.form, rows, &declare, last_first));
        // Lanes know nothing of the sizes: the first of the workgroup take the rows of this pass, the others rows of
        // which nothing is used.
        code.push(format!(
            "for (var pass_first = 0u; pass_first < {STRIPS}u; pass_first += present) {{
            let strip = min(pass_first + min(subgroup, present - 1u), {}u) * {side}u;
            let own = (pass_first * {side}u + lane / {per_row}u) % {rows}u;
            let row = first + own;
            let stores = lane / {per_row}u < min(present, {STRIPS}u - pass_first) * {side}u && row < dims.q_rows;",
            STRIPS - 1,
        ));
    }

    /// Closes what [`Self::begin_tiles`] opens.
    pub(super) fn end_tiles(&self, code: &mut Code) {
        code.push(if self.subgroups.vary { "}\n}" } else { "}" });
    }

    /// Whether this lane stores its row.
    pub(super) fn stores(&self) -> &'static str {
        if self.subgroups.vary { "stores" } else { "row < dims.q_rows" }
    }

    /// The lanes of a row see what subgroups, and subgroups what lanes have put into workgroup memory.
    pub(super) fn meet(&self, code: &mut Code) {
        let alone = self.subgroup_barrier && !self.subgroups.vary;
        code.push(if alone { "subgroupBarrier();" } else { "workgroupBarrier();" });
    }

    /// Joins a number over the lanes of a row; every lane gets the same bits, whatever the size of subgroups.
    pub(super) fn over_lanes(&self, code: &mut Code, name: &str, joined: Joined) {
        let per_row = self.per_row();
        if per_row == 1 {
            return;
        }
        if self.subgroups.vary {
            // In pairs, as by shuffles.
            let mut terms: Vec<String> = (0..per_row).map(|i| format!("sh_lanes[lane - part + {i}u]")).collect();
            while let [_, _, ..] = terms[..] {
                terms = terms.chunks(2).map(|pair| joined.of(&pair[0], &pair[pair.len() - 1])).collect();
            }
            code.push(format!("sh_lanes[lane] = {name};\nworkgroupBarrier();\n{name} = {};", terms.concat()));
            return;
        }
        let mut apart = 1;
        while apart < per_row {
            let other = format!("subgroupShuffleXor({name}, {apart}u)");
            code.push(match joined {
                Joined::Largest => format!("{name} = max({name}, {other});"),
                Joined::Sum => format!("{name} += {other};"),
            });
            apart *= 2;
        }
    }
}
