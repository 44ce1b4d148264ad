//! How tiles of A and B come to workgroup memory.

use super::{Code, Text, plus};
use crate::kernel::{Dtype, Layout, Tile};

/// Most quads of an operand that an invocation loads before it stores them.
const UNROLLED: u32 = 16;

/// One operand of a block.
struct Operand {
    name: char,
    /// What is bound, and for B of a pair what is bound for the second half of the batch.
    array: &'static str,
    second: Option<&'static str>,
    tile: Tile,
    /// Whether its rows, as stored, are terms of the sum.
    terms_down: bool,
    /// The first row of A, or column of B.
    origin: &'static str,
    /// Whether it is bound as vectors, and its type.
    vectors: bool,
    dtype: Dtype,
}

impl Operand {
    /// Four neighbours of a row.
    fn quads(&self) -> u32 {
        self.tile.rows * self.tile.columns / 4
    }

    /// Row and first column of quad `lane + first` of the tile. Where rows go evenly into `first`, the column is that of
    /// the lane, and rows are at constant distances.
    fn place(&self, lane: &str, first: u32) -> [String; 2] {
        let across = self.tile.columns / 4;
        if first.is_multiple_of(across) {
            return [plus(&format!("{lane} / {across}u"), first / across), format!("{lane} % {across}u")];
        }
        [format!("({lane} + {first}u) / {across}u"), format!("({lane} + {first}u) % {across}u")]
    }

    /// A quad that may lie outside.
    fn masked(&self, [y, x]: &[String; 2]) -> String {
        let (name, origin, y, x) = (self.name, self.origin, y.clone(), format!("{x} * 4u"));
        let (output, term) = if self.terms_down { (x, y) } else { (y, x) };
        // `a_quad` takes row and term, `b_quad` term and column.
        let [first, second] = match name {
            'a' => [format!("{origin} + {output}"), format!("i0 + {term}")],
            _ => [format!("i0 + {term}"), format!("{origin} + {output}")],
        };
        format!("{}_quad({name}_base, {first}, {second}, end)", self.array)
    }

    /// A quad that lies inside.
    fn inside(&self, [y, x]: &[String; 2]) -> String {
        let Self { name, array, .. } = self;
        if self.vectors {
            return format!("{array}[{name}_tile + ({y}) * {name}_pitch + {x}]");
        }
        let elements = [0, 1, 2, 3]
            .map(|i| format!("{array}[{}]", plus(&format!("{name}_tile + ({y}) * {name}_pitch + {x} * 4u"), i)));
        format!("vec4<{}>({})", self.dtype.name(), elements.join(", "))
    }

    /// Declares names, each with the quad at its place. Of a pair, one branch leads to all loads, so that they are under way
    /// together.
    fn load(&self, code: &mut Code, loads: &[(String, [String; 2])], load: fn(&Self, &[String; 2]) -> String) {
        let Some(second) = self.second else {
            loads.iter().for_each(|(name, place)| code.push(format!("let {name} = {};", load(self, place))));
            return;
        };
        let assign = |code: &mut Code, of: &Self| {
            loads.iter().for_each(|(name, place)| code.push(format!("{name} = {};", load(of, place))));
        };
        let of_second = Self { array: second, ..*self };
        for (name, _) in loads {
            code.push(format!("var {name} = vec4<{}>();", self.dtype.name()));
        }
        code.push("if (second) {");
        assign(code, &of_second);
        code.push("} else {");
        assign(code, self);
        code.push("}");
    }
}

impl Text {
    /// Fills `sh_a` and `sh_b` with the tiles from term `i0` on; zeros outside of the operands.
    pub(super) fn stage(&self, code: &mut Code) {
        let operands = self.operands();
        if self.direct {
            return self.stage_with(code, &operands, Operand::masked);
        }
        code.push(format!("if (whole && i0 + {}u <= end) {{", self.numbers.depth));
        for Operand { name, terms_down, origin, vectors, .. } in &operands {
            let (row, column) = if *terms_down { ("i0", *origin) } else { (*origin, "i0") };
            let tile = format!("{name}_base + {row} * dims.{name}_stride + {column}");
            code.push(if *vectors {
                format!("let {name}_tile = ({tile}) / 4u;\nlet {name}_pitch = dims.{name}_stride / 4u;")
            } else {
                format!("let {name}_tile = {tile};\nlet {name}_pitch = dims.{name}_stride;")
            });
        }
        self.stage_with(code, &operands, Operand::inside);
        code.push("} else {");
        self.stage_with(code, &operands, Operand::masked);
        code.push("}");
    }

    fn stage_with(&self, code: &mut Code, operands: &[Operand; 2], load: fn(&Operand, &[String; 2]) -> String) {
        let invocations = self.numbers.invocations();
        let turns = |operand: &Operand| operand.quads().div_ceil(invocations);
        if operands.iter().map(turns).sum::<u32>() > 2 * UNROLLED {
            for operand in operands {
                self.stage_in_turns(code, operand, load);
            }
            return;
        }
        // All loads come before the first store, so that they are under way together.
        for operand in operands {
            let mut loads = Vec::new();
            for turn in 0..turns(operand) {
                let first = turn * invocations;
                // A tile smaller than the workgroup: the others load its last quad, which they do not store.
                let place = match operand.quads().checked_sub(first + invocations) {
                    Some(_) => operand.place("lane", first),
                    None => operand.place(&format!("min({}, {}u)", plus("lane", first), operand.quads() - 1), 0),
                };
                loads.push((format!("next_{}{turn}", operand.name), place));
            }
            operand.load(code, &loads, load);
        }
        for operand in operands {
            for turn in 0..turns(operand) {
                let first = turn * invocations;
                let put = self.put(operand, &operand.place("lane", first), &format!("next_{}{turn}", operand.name));
                code.push(if first + invocations > operand.quads() {
                    format!("if ({} < {}u) {{\n{put}\n}}", plus("lane", first), operand.quads())
                } else {
                    put
                });
            }
        }
    }

    /// For small workgroups: a loop keeps the text short.
    fn stage_in_turns(&self, code: &mut Code, operand: &Operand, load: fn(&Operand, &[String; 2]) -> String) {
        let place = operand.place("quad", 0);
        let (quads, invocations) = (operand.quads(), self.numbers.invocations());
        code.push(format!("for (var quad = lane; quad < {quads}u; quad += {invocations}u) {{"));
        operand.load(code, &[("next".to_owned(), place.clone())], load);
        code.push(self.put(operand, &place, "next"));
        code.push("}");
    }

    /// Stores a quad into the tile.
    fn put(&self, operand: &Operand, [y, x]: &[String; 2], value: &str) -> String {
        let (name, pitch, target) = (operand.name, operand.tile.pitch, self.numbers.fragment.operand);
        let value =
            if operand.dtype == target { value.to_owned() } else { format!("vec4<{}>({value})", target.name()) };
        if self.unit == 4 {
            return format!("sh_{name}[({y}) * {}u + {x}] = {value};", pitch / 4);
        }
        let at = |i| plus(&format!("({y}) * {pitch}u + {x} * 4u"), i);
        let stores = ["x", "y", "z", "w"].iter().zip(0..);
        let stores: Vec<_> = stores.map(|(part, i)| format!("sh_{name}[{}] = {value}.{part};", at(i))).collect();
        stores.join("\n")
    }

    fn operands(&self) -> [Operand; 2] {
        [
            Operand {
                name: 'a',
                array: "a",
                second: None,
                tile: self.staging.a,
                terms_down: self.layout == Layout::TN,
                origin: "row0",
                vectors: self.bound.a,
                dtype: self.types.a,
            },
            Operand {
                name: 'b',
                array: "b",
                second: self.pair.then_some("b2"),
                tile: self.staging.b,
                terms_down: self.layout != Layout::NT,
                origin: "column0",
                vectors: self.bound.b,
                dtype: self.types.b,
            },
        ]
    }
}
