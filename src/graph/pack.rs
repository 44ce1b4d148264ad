//! Packing: parameters, their gradients and their moments lie in a few storages, so that what is done to all of them (norm,
//! update, conversion, clearing) takes a few dispatches.
//!
//! How they lie depends on what a device can bind. Where a parameter is in parts, or would be on another device, what is
//! summed over all of them does not depend on it: see [`Packed::sums`]. And where one is, a layer lies in one storage, for on
//! GPUs the products of a layer are otherwise no batch, and are added up in another order.

use super::view::ALIGN;
use super::{Class, Graph, Tensor, table};
use crate::config::Role;
use crate::error::Result;

/// Tensors are packed up to this size in bytes, or the device's largest binding where that is smaller.
const PACKED: u64 = 256 << 20;
/// The same on GPUs: the parameters of a layer that lie in two storages are no batch, and take three times the dispatches.
const PACKED_ON_GPU: u64 = 1 << 30;

/// What [`Graph::pack`] made.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    /// The tensors that own the memory.
    pub storages: Vec<Tensor>,
    /// Each tensor by the name of its parameter, in order.
    pub tensors: Vec<(String, Tensor)>,
    /// What lies in the storages, in order: these tensors, or their parts.
    pub pieces: Vec<Piece>,
    /// All of it, as it is to be summed: each a range of elements that lie one after the other, in one storage or several.
    /// They are the storages where every device can bind every tensor, and else those of a device that binds all that
    /// is packed.
    pub sums: Vec<Vec<Stretch>>,
}

/// A tensor that lies in one storage.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The parameter that it belongs to.
    pub of: String,
    /// The name of that, or of its part.
    pub name: String,
    /// First element of it in that parameter.
    pub first: usize,
    /// The view.
    pub tensor: Tensor,
}

/// Neighbouring elements of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The storage.
    pub storage: Tensor,
    /// The first element.
    pub first: usize,
    /// How many.
    pub n: usize,
}

/// Where tensors lie that are put one after the other.
struct Layout {
    /// Storage and first element of each.
    places: Vec<(usize, usize)>,
    /// Elements of each storage.
    lengths: Vec<usize>,
}

impl Layout {
    /// Tensors of so many elements in storages of at most `most`; one that is too large for any gets its own, for the plan
    /// to refuse. Those of one slice lie in one storage, if they fit into any.
    fn of(together: &[&[usize]], most: usize) -> Self {
        let mut layout = Self { places: Vec::new(), lengths: Vec::new() };
        for &sizes in together {
            let all = sizes.iter().fold(0_usize, |sum, n| sum.saturating_add(*n));
            let has_room = |n| layout.lengths.last().is_some_and(|length| length.saturating_add(n) <= most);
            let mut begins = !has_room(all) && all <= most;
            for &n in sizes {
                let last = layout.lengths.len().wrapping_sub(1);
                match layout.lengths.last_mut() {
                    Some(length) if !begins && length.saturating_add(n) <= most => {
                        layout.places.push((last, *length));
                        *length += n;
                    }
                    _ => {
                        layout.places.push((layout.lengths.len(), 0));
                        layout.lengths.push(n);
                    }
                }
                begins = false;
            }
        }
        layout
    }
}

/// Elements that a tensor takes in a storage.
fn aligned(shape: &[usize]) -> usize {
    let elements = shape.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis));
    elements.and_then(|n| n.checked_next_multiple_of(ALIGN)).unwrap_or(usize::MAX / 2)
}

impl Graph {
    /// Tensors of one class, packed in order into as few storages as the device's bindings allow. `name` makes the names
    /// of tensors and storages from those of the parameters they belong to.
    pub(crate) fn pack(
        &mut self,
        shapes: &[(String, Vec<usize>)],
        class: Class,
        name: impl Fn(&str) -> String,
    ) -> Result<Packed> {
        let most = if self.on_gpu() { PACKED_ON_GPU } else { PACKED };
        let bound = self.kernels.target().max_tensor();
        let elements = |bytes: u64| bytes as usize / size_of::<f32>();
        // By parameter: the name, first row and shape of each of its pieces.
        let mut cut: Vec<(usize, String, usize, Vec<usize>)> = Vec::with_capacity(shapes.len());
        for (of, (name, shape)) in shapes.iter().enumerate() {
            let parts = table::cut(name, shape, bound);
            let whole = parts.len() == 1;
            cut.extend(parts.into_iter().map(|(first, rows)| {
                let mut shape = shape.clone();
                if let (false, Some(all)) = (whole, shape.first_mut()) {
                    *all = rows;
                }
                (of, if whole { name.clone() } else { table::part_name(name, first, rows) }, first, shape)
            }));
        }
        let in_parts = cut.len() > shapes.len();
        let sizes: Vec<usize> = cut.iter().map(|(.., shape)| aligned(shape)).collect();
        // Where nothing is in parts, parameters lie as they always did.
        let together: Vec<&[usize]> = if in_parts {
            let of_layer = |i: usize| Role::layer_of(&cut[i].1);
            let ends = (1..cut.len()).filter(|&i| of_layer(i).is_none() || of_layer(i) != of_layer(i - 1));
            let ends: Vec<usize> = [0].into_iter().chain(ends).chain([cut.len()]).collect();
            ends.windows(2).map(|ends| &sizes[ends[0]..ends[1]]).collect()
        } else {
            sizes.chunks(1).collect()
        };
        let layout = Layout::of(&together, elements(most.min(bound)));
        let mut storages = Vec::with_capacity(layout.lengths.len());
        for (i, &length) in layout.lengths.iter().enumerate() {
            storages.push(self.tensor(name(&format!("parameters {i}")), &[length], class));
        }
        let mut pieces = Vec::with_capacity(cut.len());
        for ((of, own, row, shape), &(storage, offset)) in cut.iter().zip(&layout.places) {
            let tensor = self.view(storages[storage], offset, name(own), shape)?;
            let first = row * shape.get(1..).unwrap_or_default().iter().product::<usize>();
            pieces.push(Piece { of: shapes[*of].0.clone(), name: own.clone(), first, tensor });
        }
        let mut tensors = Vec::with_capacity(shapes.len());
        for same in pieces.chunk_by(|a, b| a.of == b.of) {
            let parts: Vec<Tensor> = same.iter().map(|piece| piece.tensor).collect();
            let of = same[0].of.clone();
            let tensor = if let [one] = parts[..] { one } else { self.in_parts(name(&of), &parts)? };
            tensors.push((of, tensor));
        }

        let summed = if in_parts || shapes.iter().any(|(name, shape)| table::is_table(name) && table::is_large(shape)) {
            let sizes: Vec<usize> = shapes.iter().map(|(_, shape)| aligned(shape)).collect();
            &Layout::of(&sizes.chunks(1).collect::<Vec<_>>(), elements(most))
        } else {
            &layout
        };
        let mut sums: Vec<Vec<Stretch>> = vec![Vec::new(); summed.lengths.len()];
        for (((of, ..), &n), &(storage, first)) in cut.iter().zip(&sizes).zip(&layout.places) {
            let (sum, storage) = (&mut sums[summed.places[*of].0], storages[storage]);
            match sum.last_mut() {
                Some(last) if last.storage == storage && last.first + last.n == first => last.n += n,
                _ => sum.push(Stretch { storage, first, n }),
            }
        }
        Ok(Packed { storages, tensors, pieces, sums })
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::View;
    use super::*;
    use crate::config::EMBEDDING;
    use crate::kernel::{KernelTable, Target};

    fn shapes(count: usize, shape: &[usize]) -> Vec<(String, Vec<usize>)> {
        (0..count).map(|i| (format!("p{i}"), shape.to_vec())).collect()
    }

    fn graph(max_binding: u64) -> Graph {
        Graph::forward_only(&KernelTable::defaults(Target { max_binding, ..Target::WEBGPU }))
    }

    #[test]
    fn parameters_are_packed_up_to_the_largest_binding() {
        let mut g = graph(4096);
        let packed = g.pack(&shapes(5, &[3, 100]), Class::Parameter, str::to_owned).unwrap();
        // 300 elements take 384, and two of those fit into 1024.
        assert_eq!(packed.storages.iter().map(|&w| g.shape(w)[0]).collect::<Vec<_>>(), [768, 768, 384]);
        assert_eq!(
            g.tensors()[packed.tensors[3].1.index()].view,
            Some(View { storage: packed.storages[1], offset: 384 })
        );
        let whole = |storage: &Tensor| vec![Stretch { storage: *storage, first: 0, n: g.shape(*storage)[0] }];
        assert_eq!(packed.sums, packed.storages.iter().map(whole).collect::<Vec<_>>());
        let packed = g.pack(&shapes(2, &[5000]), Class::Parameter, str::to_owned).unwrap();
        assert_eq!(packed.storages.len(), 2, "each too large for any, and left to the plan");
    }

    /// A table of 2.2 MB where bindings hold 1 MiB: three parts, and what comes after them lies with the last.
    #[test]
    fn a_table_lies_in_parts_and_is_summed_as_if_it_did_not() {
        let shapes: Vec<_> = [("a".to_owned(), vec![5]), (EMBEDDING.to_owned(), vec![70_000, 8])]
            .into_iter()
            .chain(shapes(2, &[3, 100]))
            .collect();
        let mut g = graph(1 << 20);
        let packed = g.pack(&shapes, Class::Gradient, |name| format!("d {name}")).unwrap();
        let lengths: Vec<usize> = packed.storages.iter().map(|&storage| g.shape(storage)[0]).collect();
        let last = 4464 * 8 + 2 * 384;
        assert_eq!(lengths, [128, 32_768 * 8, 32_768 * 8, last]);
        let table = packed.tensors[1].1;
        assert_eq!((g.shape(table), g.parts(table).len()), (&[70_000, 8][..], 3));
        assert_eq!(g.tensors()[g.parts(table)[2].tensor.index()].name, "d word_embeddings.weight[65536..70000]");
        let firsts: Vec<usize> = packed.pieces.iter().map(|piece| piece.first).collect();
        assert_eq!(firsts, [0, 0, 32_768 * 8, 65_536 * 8, 0, 0]);
        let stretches = packed.storages.iter().zip(&lengths).map(|(&storage, &n)| Stretch { storage, first: 0, n });
        assert_eq!(packed.sums, [stretches.collect::<Vec<_>>()]);
        let whole = graph(128 << 20).pack(&shapes, Class::Gradient, str::to_owned).unwrap();
        assert_eq!((whole.storages.len(), whole.sums[0][0].n), (1, lengths.iter().sum()));
    }

    /// 4465 rows of 8 leave room for 226,424 elements of 262,144.
    #[test]
    fn beside_a_table_in_parts_a_layer_lies_in_one_storage() {
        let layer = |i: usize| ["a", "b"].map(|name| (format!("layers.{i}.{name}"), vec![90_000]));
        let of_layers = [0, 1].map(layer).concat();
        let shapes: Vec<_> = [(EMBEDDING.to_owned(), vec![70_001, 8])].into_iter().chain(of_layers.clone()).collect();
        let lengths = |shapes: &[_]| {
            let mut g = graph(1 << 20);
            let packed = g.pack(shapes, Class::Parameter, str::to_owned).unwrap();
            packed.storages.iter().map(|&storage| g.shape(storage)[0]).collect::<Vec<_>>()
        };
        let of_layer = 2 * 90_112;
        let last_rows = 4465_usize * 8;
        assert_eq!(lengths(&shapes), [262_144, 262_144, last_rows.next_multiple_of(128) + of_layer, of_layer]);
        assert_eq!(lengths(&of_layers), [of_layer, of_layer]);
        let odd: Vec<_> = [("c".to_owned(), vec![90_000])].into_iter().chain(of_layers).collect();
        assert_eq!(lengths(&odd), [2 * 90_112, 2 * 90_112, 90_112], "as ever where nothing is in parts");
    }
}
