//! Sums on the host, and how gradients travel.

use super::tree::{Fold, Node};
use crate::config::Precision;
use crate::error::{Error, Result};
use half::f16;

/// What is too small for some devices is zero for all, and zero has no sign: see `shaders/leaves.wgsl`.
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// `left` + `right`, to the bits of `shaders/leaves.wgsl`.
pub(super) fn add(mut left: Vec<f32>, right: Vec<f32>) -> Vec<f32> {
    left.iter_mut().zip(&right).for_each(|(x, y)| *x = flushed(flushed(*x) + flushed(*y)));
    left
}

/// The sum over all nodes, which come in order; `None` of nothing.
pub(super) fn sum(nodes: impl IntoIterator<Item = (Node, Vec<f32>)>) -> Option<Vec<f32>> {
    let mut fold = Fold::new();
    nodes.into_iter().for_each(|(node, values)| fold.push(node, values, add));
    fold.finish(add)
}

/// One below the largest exponent of a finite f16, as a number may be rounded up to the next one.
const MAX_EXPONENT: i32 = 14;

/// Bytes that so many values take as they travel.
pub(super) fn encoded(count: usize, precision: Precision) -> usize {
    if precision == Precision::F32 { 4 * count } else { 4 + 2 * count }
}

/// Appends `values` as they travel: as they are, or as f16 after a power of two that brings the largest to 2^14, so that what is
/// 2^38 times smaller is not lost.
pub(super) fn encode(values: &[f32], precision: Precision, bytes: &mut Vec<u8>) {
    if precision == Precision::F32 {
        return bytes.extend_from_slice(bytemuck::cast_slice(values));
    }
    let largest = values.iter().filter(|x| x.is_finite()).fold(0.0_f32, |most, x| most.max(x.abs()));
    let exponent = if largest > 0.0 { MAX_EXPONENT - largest.log2().floor() as i32 } else { 0 };
    // Both factors are within what f32 holds, whatever the exponent.
    let exponent = exponent.clamp(-120, 120);
    let factor = 2.0_f32.powi(exponent);
    bytes.extend(exponent.to_le_bytes());
    bytes.extend(values.iter().flat_map(|x| f16::from_f32(x * factor).to_le_bytes()));
}

/// `count` values of [`encode`].
///
/// # Errors
/// Another number of bytes, which is a defect.
pub(super) fn decode(bytes: &[u8], count: usize, precision: Precision) -> Result<Vec<f32>> {
    if bytes.len() != encoded(count, precision) {
        return Err(Error::defect(format!("{count} gradients came in {} bytes", bytes.len())));
    }
    if precision == Precision::F32 {
        return Ok(bytemuck::pod_collect_to_vec(bytes));
    }
    let (exponent, halves) = bytes.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let factor = 2.0_f32.powi(-i32::from_le_bytes(*exponent));
    Ok(halves.chunks_exact(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32() * factor).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::graph::Graph;
    use crate::graph::plan::Plan;
    use crate::ops::leaves::add_leaf;
    use crate::rng::{Rng, Stream};
    use crate::runtime::device::Device;
    use crate::runtime::memory::Memory;

    /// Also of numbers that devices may take for zero, of zeros with a sign, and of what is not finite.
    #[test]
    fn the_host_makes_the_bits_of_the_device() {
        let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default()).unwrap();
        let mut rng = Rng::named(3, Stream::Test, "leaves");
        let special = [0.0, -0.0, 1e-38, -1e-38, 1e-45, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, f32::MAX, f32::INFINITY];
        let special = special.into_iter().chain([-1.5 * f32::MIN_POSITIVE, 3.0 * f32::MIN_POSITIVE]);
        let values: Vec<f32> = special.chain((0..60).map(|_| f32::from_bits(rng.next_u64() as u32))).collect();
        let pairs: Vec<[f32; 2]> = values.iter().flat_map(|&x| values.iter().map(move |&y| [x, y])).collect();
        let [left, right] = [0, 1].map(|side| pairs.iter().map(|pair| pair[side]).collect::<Vec<f32>>());
        let mut g = Graph::forward_only(&kernels);
        let [x, y] = ["x", "y"].map(|name| g.state(name, &[pairs.len()]));
        add_leaf(&mut g, x, y, 0..pairs.len()).unwrap();
        let (memory, programs) = Memory::allocate(&engine, &[&Plan::new(&g).unwrap()]).unwrap();
        memory.write(&engine, "x", &left).unwrap();
        memory.write(&engine, "y", &right).unwrap();
        engine.run(&programs[0]).unwrap();
        let bits = |x: &f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
        let device = memory.read(&engine, "y").unwrap();
        let host = add(left, right);
        assert_eq!(device.iter().map(bits).collect::<Vec<_>>(), host.iter().map(bits).collect::<Vec<_>>());
    }

    #[test]
    fn gradients_arrive_as_they_were_sent_or_within_f16() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 1e-9).collect();
        let sent = |values: &[f32], precision| {
            let mut bytes = Vec::new();
            encode(values, precision, &mut bytes);
            bytes
        };
        let arrived = |precision| decode(&sent(&values, precision), values.len(), precision).unwrap();
        assert_eq!(arrived(Precision::F32), values);
        assert!(values.iter().zip(arrived(Precision::F16)).all(|(x, y)| (x - y).abs() <= x.abs() / 2048.0));
        for odd in [vec![], vec![0.0; 3], vec![1e-45, -1e-40], vec![1e38, 1.0], vec![f32::NAN, 2.0, f32::INFINITY]] {
            let arrived = decode(&sent(&odd, Precision::F16), odd.len(), Precision::F16).unwrap();
            let alike = |(x, y): (&f32, &f32)| x.is_nan() == y.is_nan() && (x.is_finite() == y.is_finite());
            assert!(arrived.len() == odd.len() && odd.iter().zip(&arrived).all(alike), "{odd:?} {arrived:?}");
        }
        assert!(decode(&[0; 7], 2, Precision::F32).is_err() && decode(&[0; 7], 2, Precision::F16).is_err());
    }
}
