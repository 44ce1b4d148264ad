//! How sums leave the registers of a subgroup: there is no access to single elements of a fragment.

use super::{Code, Text, plus};
use crate::kernel::Staging;

/// Most rounds of stores that are written out.
const UNROLLED: u32 = 4;

impl Text {
    /// Stores the accumulators to C: where they may, straight; where C is f16, added to or cut off by an edge, through
    /// workgroup memory, where all invocations convert and store.
    pub(super) fn results(&self, code: &mut Code) {
        if self.plain {
            code.push("if (whole && dims.accumulate == 0u) {");
            self.store_plain(code);
            code.push("} else {");
        }
        for turn in 0..self.staging.turns {
            for (y, x) in self.pairs() {
                self.store_by_elements(code, turn, [y, x]);
            }
        }
        if self.plain {
            code.push("}");
        }
    }

    /// Spare subgroups store the last warp tile again, with equal bits.
    fn store_plain(&self, code: &mut Code) {
        let (unit, at) = if self.bound.c { (" / 4u", "start / 4u") } else { ("", "start") };
        let c_stride = self.form.c_stride();
        code.push(format!("let pitch = {c_stride}{unit};"));
        for (y, x) in self.pairs() {
            let (row, column) =
                (plus("row0 + sub_row", y * self.side()), plus("column0 + sub_column", x * self.side()));
            code.push(format!(
                "{{
                let start = dims.c_offset + shift + ({row}) * {c_stride} + {column};
                let at = {at};
                coopStoreT(acc{y}_{x}, &c[at], pitch);
                }}"
            ));
        }
    }

    /// One fragment of every warp tile of this pass, those of one turn.
    fn store_by_elements(&self, code: &mut Code, turn: u32, place: [u32; 2]) {
        let (side, Staging { slots, turns, .. }) = (self.side(), self.staging);
        let [y, x] = place;
        let slot = match turns {
            1 => "own".to_owned(),
            _ => format!("select({}u, own / {turns}u, own % {turns}u == {turn}u)", slots - 1),
        };
        code.push(format!(
            "{{
            let at = {slot} * {}u;
            let pitch = {}u;
            workgroupBarrier();
            coopStoreT(acc{y}_{x}, &sh_c[at], pitch);
            workgroupBarrier();",
            side * side / self.unit,
            side / self.unit,
        ));
        let warp_tiles = (self.numbers.warp_tiles() - turn).div_ceil(turns);
        let (quads, invocations) = (warp_tiles * side * side / 4, self.numbers.invocations());
        let store = self.store_element_quad(turn, place);
        if quads > UNROLLED * invocations {
            code.push(format!("for (var quad = lane; quad < {quads}u; quad += {invocations}u) {{\n{store}\n}}"));
        } else {
            for first in (0..quads).step_by(invocations as usize) {
                let quad = plus("lane", first);
                let all = first + invocations <= quads;
                let open = if all { "{".to_owned() } else { format!("if ({quad} < {quads}u) {{") };
                code.push(format!("{open}\nlet quad = {quad};\n{store}\n}}"));
            }
        }
        code.push("}");
    }

    /// Four neighbours in a row of the fragments in `sh_c`, where their warp tile is of this pass.
    fn store_element_quad(&self, turn: u32, [y, x]: [u32; 2]) -> String {
        let (side, [high, wide], [_, across]) = (self.side(), self.fragments, self.numbers.subgroups);
        let (quads, turns) = (side * side / 4, self.staging.turns);
        let warp_tile = match turns {
            1 => format!("quad / {quads}u"),
            _ => plus(&format!("quad / {quads}u * {turns}u"), turn),
        };
        let value = match self.unit {
            1 => "vec4<f32>(sh_c[quad * 4u], sh_c[quad * 4u + 1u], sh_c[quad * 4u + 2u], sh_c[quad * 4u + 3u])",
            _ => "sh_c[quad]",
        };
        // Below `pass_first` the difference wraps around to a large one.
        format!(
            "let warp_tile = {warp_tile};
            if (warp_tile - pass_first < present) {{
            let row = row0 + warp_tile / {across}u * {}u + {};
            let column = column0 + warp_tile % {across}u * {}u + {};
            store_quad(row, column, shift, {value});
            }}",
            high * side,
            plus(&format!("quad % {quads}u / {}u", side / 4), y * side),
            wide * side,
            plus(&format!("quad % {}u * 4u", side / 4), x * side),
        )
    }
}
