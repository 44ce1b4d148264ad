//! Optimizer state that is shared out among ranks (ZeRO stage 1, Rajbhandari et al., 2020): each rank has the moments of the
//! gradients that it adds up, updates the parameters that belong to them, and gives these to the others.
//!
//! The gradient norm is made of blocks, and a rank has whole ones: it sends the others its blocks, and all finish the norm
//! alike. So the bits are those of ranks that update everything.

use super::layout::Layout;
use crate::array::HostTensor;
use crate::error::{Error, Result};
use crate::gpu::download::DownloadBuffer;
use crate::gpu::engine::{Block, Engine, Program};
use crate::graph::moment_names;
use crate::model::graphs::NORM_PARTS;
use crate::model::init::Tensors;
use crate::model::update::Shard;
use crate::runtime::distributed::World;
use crate::runtime::memory::Memory;
use std::ops::Range;
use std::time::Duration;

/// The tag of updated parameters.
const PARAMETERS: u32 = 4 << 12;
/// How long to rest while the device updates.
const REST: Duration = Duration::from_micros(50);

/// What each rank updates.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    pub(crate) ranks: Vec<Shard>,
    layout: Layout,
}

impl Shards {
    /// Of ranks that each own a chunk of every bucket.
    pub(crate) fn of(layout: &Layout, buckets: &[Range<usize>], ranks: usize) -> Self {
        let chunks: Vec<_> = buckets.iter().map(|bucket| layout.chunks(bucket, ranks)).collect();
        let of_rank =
            |rank: usize| chunks.iter().map(move |chunks| chunks[rank].clone()).filter(|chunk| !chunk.is_empty());
        Self { ranks: (0..ranks).map(|rank| Shard(of_rank(rank).collect())).collect(), layout: layout.clone() }
    }

    /// The blocks of the norm that a rank has, by number.
    fn blocks(&self, rank: usize) -> impl Iterator<Item = usize> {
        let ranges = self.ranks.get(rank).map_or(&[][..], |shard| &shard.0);
        let is_own = |start: usize| ranges.iter().any(|range| range.contains(&start));
        let pairs = self.layout.blocks.windows(2).enumerate();
        pairs.filter(move |(_, pair)| pair[0] < pair[1] && is_own(pair[0])).map(|(block, _)| block)
    }

    /// What of tensors by the names of parameters belongs to a rank, range by range: of each those of its last rows that train.
    pub(crate) fn cut(&self, tensors: &Tensors, rank: usize) -> Vec<Vec<f32>> {
        let mut line = vec![0.0; self.layout.elements()];
        for (of, first, place) in self.layout.places() {
            let Some(tensor) = tensors.get(of) else { continue };
            let all = self.layout.trained_elements(of);
            let trained = tensor.data.get(tensor.data.len().saturating_sub(all)..).unwrap_or_default();
            let part = trained.get(first..(first + place.len()).min(trained.len())).unwrap_or_default();
            line[place.start..place.start + part.len()].copy_from_slice(part);
        }
        self.ranks[rank].0.iter().map(|range| line[range.clone()].to_vec()).collect()
    }

    /// The tensors of all that trains, of what every rank has of them, one range after the other.
    ///
    /// # Errors
    /// A rank that has more or less than its share.
    fn joined(&self, parts: &[Vec<f32>], trained: &[(String, Vec<usize>)]) -> Result<Tensors> {
        let mut line = vec![0.0; self.layout.elements()];
        for (rank, (Shard(ranges), part)) in self.ranks.iter().zip(parts).enumerate() {
            let mut rest = part.as_slice();
            for range in ranges {
                let wrong = || Error::rank(format!("rank {rank} sent moments of another size"));
                let (own, later) = rest.split_at_checked(range.len()).ok_or_else(wrong)?;
                line[range.clone()].copy_from_slice(own);
                rest = later;
            }
        }
        let empty = |(name, shape): &(String, Vec<usize>)| {
            (name.clone(), HostTensor { shape: shape.clone(), data: vec![0.0; shape.iter().product()] })
        };
        let mut tensors: Tensors = trained.iter().map(empty).collect();
        for (of, first, place) in self.layout.places() {
            let Some(tensor) = tensors.get_mut(of) else { continue };
            let n = place.len().min(tensor.data.len().saturating_sub(first));
            tensor.data[first..first + n].copy_from_slice(&line[place.start..place.start + n]);
        }
        Ok(tensors)
    }

    /// One of the two moments, by what `device_name` makes of the name of a range, from all ranks.
    ///
    /// # Errors
    /// Those of the device, and of ranks that ended.
    pub(crate) fn gather(
        &self,
        world: &World,
        engine: &Engine,
        memory: &Memory,
        trained: &[(String, Vec<usize>)],
        device_name: impl Fn(&str) -> String,
    ) -> Result<Tensors> {
        let mut own: Vec<f32> = Vec::new();
        for i in 0..self.ranks[world.rank()].0.len() {
            own.extend(memory.read(engine, &device_name(&Shard::name(i)))?);
        }
        let all = world.all_gather(bytemuck::cast_slice(&own).to_vec())?;
        let values: Vec<Vec<f32>> = all.iter().map(|bytes| floats(bytes)).collect();
        self.joined(&values, trained)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

/// This rank's part in an update that all ranks share.
pub(crate) struct Sharded {
    pub(crate) shards: Shards,
    /// Makes the blocks of the norm.
    norm: Program,
    parts: Block,
    /// What each rank updates.
    parameters: Vec<Vec<Block>>,
    buffer: DownloadBuffer,
}

impl Sharded {
    /// `updated` says for each rank where the parameters lie that it updates.
    ///
    /// # Errors
    /// Memory of other plans, which is a defect; out of memory.
    pub(crate) fn new(
        engine: &Engine,
        memory: &Memory,
        shards: Shards,
        rank: usize,
        updated: &[Vec<(String, Range<usize>)>],
        norm: Program,
    ) -> Result<Self> {
        let size = size_of::<f32>() as u64;
        let block = |(name, range): &(String, Range<usize>)| -> Result<Block> {
            Ok(memory.named(name)?.part(range.start as u64 * size, range.len() as u64 * size))
        };
        let blocks = |of_rank: &Vec<_>| of_rank.iter().map(block).collect::<Result<Vec<_>>>();
        let parameters = updated.iter().map(blocks).collect::<Result<Vec<_>>>()?;
        let bytes = parameters[rank].iter().map(Block::bytes).sum();
        let (parts, buffer) = (memory.named(NORM_PARTS)?.clone(), engine.download_buffer(bytes)?);
        Ok(Self { shards, norm, parts, parameters, buffer })
    }

    /// Brings together the blocks of the norm, where the sums of the own gradients are on the device.
    ///
    /// # Errors
    /// Those of the device, and of ranks that ended.
    pub(crate) fn gather_norm(&self, world: &World, engine: &Engine) -> Result<()> {
        engine.run(&self.norm)?;
        let mut parts: Vec<f32> = engine.read(&self.parts)?;
        let own: Vec<f32> = self.shards.blocks(world.rank()).flat_map(|i| [parts[2 * i], parts[2 * i + 1]]).collect();
        for (rank, bytes) in world.all_gather(bytemuck::cast_slice(&own).to_vec())?.iter().enumerate() {
            let of_rank = floats(bytes);
            for (block, part) in self.shards.blocks(rank).zip(of_rank.chunks_exact(2)) {
                parts[2 * block..2 * block + 2].copy_from_slice(part);
            }
        }
        engine.write_all(&self.parts, &parts)
    }

    /// Gives the others what this rank updated, and takes from them what they did.
    ///
    /// # Errors
    /// Those of the device, and of ranks that ended.
    pub(crate) fn share(&self, world: &World, engine: &Engine) -> Result<()> {
        let (rank, ranks) = (world.rank(), world.size());
        let own = engine.run_and_download([], &self.parameters[rank], &self.buffer)?;
        while !own.is_there(&engine.gpu)? {
            world.check()?;
            std::thread::sleep(REST);
            engine.poll()?;
        }
        let bytes: Vec<u8> = own.take(|values| bytemuck::cast_slice(values).to_vec())?;
        for to in (0..ranks).filter(|to| *to != rank) {
            world.send(to, PARAMETERS, bytes.clone())?;
        }
        for from in (0..ranks).filter(|from| *from != rank) {
            let values = floats(&world.receive(from, PARAMETERS)?);
            let mut rest = values.as_slice();
            for block in &self.parameters[from] {
                let wrong = || Error::rank(format!("{} sent parameters of another size", world.host(from)));
                let (part, later) = rest.split_at_checked((block.bytes() / 4) as usize).ok_or_else(wrong)?;
                engine.write_all(block, part)?;
                rest = later;
            }
        }
        Ok(())
    }

    /// Puts what belongs to this rank of both moments on the device.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn load_moments(
        &self,
        rank: usize,
        engine: &Engine,
        memory: &Memory,
        [first, second]: [&Tensors; 2],
    ) -> Result<()> {
        for (moment, device_name) in [
            (first, (|name| moment_names(name).0) as fn(&str) -> String),
            (second, (|name| moment_names(name).1) as fn(&str) -> String),
        ] {
            for (i, values) in self.shards.cut(moment, rank).iter().enumerate() {
                memory.write(engine, &device_name(&Shard::name(i)), values)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelTable, Target};

    /// Also where only the last rows of a parameter train.
    #[test]
    fn moments_that_are_cut_and_joined_are_the_same() {
        let trained = vec![
            ("a".to_owned(), vec![700, 31]),
            ("layers.0.b".to_owned(), vec![90_000, 5]),
            ("c".to_owned(), vec![3]),
        ];
        let layout = Layout::of(&trained, &KernelTable::defaults(Target::WEBGPU)).unwrap();
        let tensor = |(name, shape): &(String, Vec<usize>)| {
            let frozen = if name == "a" { 62 } else { 0 };
            let n = shape.iter().product::<usize>();
            let data = (0..frozen + n).map(|i| if i < frozen { 9.0 } else { i as f32 }).collect();
            (name.clone(), HostTensor { shape: vec![frozen + n], data })
        };
        let tensors: Tensors = trained.iter().map(tensor).collect();
        for ranks in [1, 2, 3, 5] {
            let shards = Shards::of(&layout, &layout.buckets(), ranks);
            let parts: Vec<Vec<f32>> = (0..ranks).map(|rank| shards.cut(&tensors, rank).concat()).collect();
            assert!(parts.iter().all(|part| !part.is_empty()));
            for (name, tensor) in shards.joined(&parts, &trained).unwrap() {
                let whole = &tensors[&name].data;
                assert_eq!(tensor.data, whole[whole.len() - tensor.data.len()..], "{name} on {ranks}");
            }
            let mut blocks: Vec<usize> = (0..ranks).flat_map(|rank| shards.blocks(rank).collect::<Vec<_>>()).collect();
            blocks.sort_unstable();
            let filled = layout.blocks.windows(2).filter(|pair| pair[0] < pair[1]).count();
            assert_eq!(blocks.len(), filled);
            blocks.dedup();
            assert_eq!(blocks.len(), filled);
        }
    }
}
