//! How ranks add up the gradients of an update: layer by layer, while the backward goes on.
//!
//! As soon as the gradients of a bucket are complete they are copied to the host, and each rank sends every other one the
//! chunk that this one owns. An owner that has a chunk of all ranks adds it up by the tree and sends the sum back, and
//! everyone writes the sums to its device. With sharded optimizer state the owner keeps its sum instead, and later sends the
//! parameters that it made of it.
//!
//! All of it is driven by one loop that never waits for one thing while another could go on.

use super::layout::{Layout, Stretch};
use super::leaves::{LeafPlans, Leaves};
use super::sums;
use super::told::{Heard, Parts, Told};
use super::tree::{Node, Schedule};
use crate::config::{Precision, TrainConfig};
use crate::error::{Error, Result};
use crate::gpu::download::{DownloadBuffer, Downloading};
use crate::gpu::engine::{Block, Engine};
use crate::ops::stats::STATS;
use crate::runtime::distributed::World;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What a message is about; the rest of its tag is the number of the bucket.
const LEAVES: u32 = 1 << 12;
const SUM: u32 = 2 << 12;
const HEADER: u32 = 3 << 12;

/// Bytes of sums that wait for a submission, at most.
const MOST_UNSUBMITTED: u64 = 64 << 20;

/// How long the loop rests where nothing goes on.
const REST: Duration = Duration::from_micros(50);

/// What travels at once.
struct Bucket {
    /// On the line of all gradients.
    range: Range<usize>,
    /// What each rank owns of it.
    chunks: Vec<Range<usize>>,
    /// For the sums of this rank, one after the other.
    buffer: DownloadBuffer,
}

/// The gradients of a bucket on their way to the host; the loss past all buckets.
pub(crate) type Sent = (usize, Downloading);

/// This rank's part in adding up.
pub(crate) struct Exchange {
    world: World,
    layout: Layout,
    buckets: Vec<Bucket>,
    losses: DownloadBuffer,
    /// The sums that each rank brings.
    nodes: Vec<Vec<Node>>,
    precision: Precision,
    /// Whether owners keep their sums.
    sharded: bool,
    /// In which order buckets become complete in the last micro-batch, and after how many of its dispatches.
    order: Vec<(usize, usize)>,
    after: Vec<usize>,
    began: std::cell::Cell<Option<Instant>>,
}

impl Exchange {
    /// `complete_after` says after how many dispatches of the last micro-batch a bucket is complete.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(
        engine: &Engine,
        world: &World,
        train: &TrainConfig,
        plans: &LeafPlans,
        leaves: &Leaves,
        complete_after: impl Fn(&Range<usize>) -> usize,
    ) -> Result<Self> {
        let (layout, ranks, own) = (&plans.layout, world.size(), leaves.nodes().len());
        let count = leaves.count();
        let nodes = (0..ranks).map(|rank| Schedule::of(rank * count, count, train.gradient_leaves).nodes).collect();
        let mut order: Vec<(usize, usize)> =
            plans.buckets.iter().enumerate().map(|(i, bucket)| (complete_after(bucket), i)).collect();
        order.sort_unstable();
        let bucket = |range: &Range<usize>| -> Result<Bucket> {
            let bytes = (own * range.len() * size_of::<f32>()) as u64;
            let (chunks, buffer) = (layout.chunks(range, ranks), engine.download_buffer(bytes)?);
            Ok(Bucket { range: range.clone(), chunks, buffer })
        };
        Ok(Self {
            world: world.clone(),
            buckets: plans.buckets.iter().map(bucket).collect::<Result<_>>()?,
            losses: engine.download_buffer((own * STATS * size_of::<f32>()) as u64)?,
            layout: layout.clone(),
            nodes,
            precision: train.transfer_precision,
            sharded: train.shard_optimizer,
            after: order.iter().map(|&(after, _)| after).collect(),
            order,
            began: std::cell::Cell::new(None),
        })
    }

    /// After how many dispatches of the last micro-batch something is complete: see [`Self::send`].
    pub(crate) fn breaks(&self) -> &[usize] {
        &self.after
    }

    /// An update begins.
    pub(crate) fn begin(&self) {
        self.began.set(Some(Instant::now()));
    }

    /// Brings what is complete at this break on its way to the host.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn send(&self, engine: &Engine, leaves: &Leaves, number: usize) -> Result<Sent> {
        let (_, i) = self.order.get(number).copied().unwrap_or_default();
        let bucket = self.buckets.get(i).ok_or_else(|| Error::defect(format!("there is no bucket {i}")))?;
        let stretches = self.layout.stretches(&bucket.range);
        let blocks: Vec<Block> = leaves.blocks().flat_map(|of| parts(of, &stretches)).collect();
        Ok((i, engine.run_and_download(leaves.sums_of(i), &blocks, &bucket.buffer)?))
    }

    /// The same of the loss, behind all buckets.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn send_loss(&self, engine: &Engine, leaves: &Leaves) -> Result<Sent> {
        let i = self.buckets.len();
        let blocks: Vec<Block> = leaves.blocks().filter_map(|of| of.last()).cloned().collect();
        Ok((i, engine.run_and_download(leaves.sums_of(i), &blocks, &self.losses)?))
    }

    /// Adds up with the other ranks what was sent, and writes the sums to `leaves`: of the own chunks only where optimizer
    /// state is sharded.
    ///
    /// # Errors
    /// Another rank that ended or is gone; a device that is lost.
    pub(crate) fn run(&self, engine: &Engine, leaves: &Leaves, sent: Vec<Sent>, told: Told) -> Result<Heard> {
        let mut state = State::new(self, told, sent);
        let mut rested = Instant::now();
        loop {
            let busy = state.advance(engine, leaves)?;
            if state.is_done() {
                break;
            }
            if !busy {
                std::thread::sleep(REST);
                state.parts.transfer += rested.elapsed().as_secs_f64();
            }
            rested = Instant::now();
        }
        state.heard()
    }
}

/// Ranges of blocks that are in the order of the layout's storages.
fn parts(blocks: &[Block], stretches: &[Stretch]) -> Vec<Block> {
    let size = size_of::<f32>() as u64;
    let part = |stretch: &Stretch| {
        let block = blocks.get(stretch.storage)?;
        Some(block.part(stretch.range.start as u64 * size, stretch.range.len() as u64 * size))
    };
    stretches.iter().filter_map(part).collect()
}

/// The sums of `nodes` over a chunk, of the bytes that they come in, one after the other.
fn decoded(bytes: &[u8], nodes: usize, chunk: usize, precision: Precision) -> Result<Vec<Vec<f32>>> {
    let each = sums::encoded(chunk, precision);
    if bytes.len() != nodes * each {
        return Err(Error::defect(format!("{nodes} sums of {chunk} gradients came in {} bytes", bytes.len())));
    }
    bytes.chunks(each.max(1)).map(|bytes| sums::decode(bytes, chunk, precision)).collect()
}

/// What has come of one bucket.
struct Progress {
    /// The own chunk's sums of each rank, in order.
    leaves: Vec<Option<Vec<Vec<f32>>>>,
    /// Whether the sum of each rank's chunk is on the device.
    summed: Vec<bool>,
}

/// An exchange in progress.
struct State<'x> {
    exchange: &'x Exchange,
    told: Told,
    sent: Vec<Sent>,
    progress: Vec<Progress>,
    headers: Vec<Option<(Told, Vec<f32>)>>,
    /// Bytes written since the last submission: until the next one they lie in host memory once more.
    unsubmitted: u64,
    parts: Parts,
}

impl<'x> State<'x> {
    fn new(exchange: &'x Exchange, told: Told, sent: Vec<Sent>) -> Self {
        let (rank, ranks) = (exchange.world.rank(), exchange.world.size());
        let progress = exchange.buckets.iter().map(|bucket| Progress {
            leaves: vec![None; ranks],
            // Nothing comes of empty chunks, and none of others where owners keep their sums.
            summed: (0..ranks).map(|of| bucket.chunks[of].is_empty() || (exchange.sharded && of != rank)).collect(),
        });
        let progress = progress.collect();
        Self { exchange, told, sent, progress, headers: vec![None; ranks], unsubmitted: 0, parts: Parts::default() }
    }

    fn is_done(&self) -> bool {
        let summed = self.progress.iter().all(|bucket| bucket.summed.iter().all(|summed| *summed));
        // Also what was sent must have left, or the next update would send from the same memory.
        summed && self.sent.is_empty() && self.headers.iter().all(Option::is_some)
    }

    /// Does all that can be done now, and says whether anything was.
    fn advance(&mut self, engine: &Engine, leaves: &Leaves) -> Result<bool> {
        engine.poll()?;
        let mut busy = self.pack(engine)?;
        for i in 0..self.progress.len() {
            busy |= self.receive_leaves(i)?;
            busy |= self.add_up(i, engine, leaves)?;
            busy |= self.receive_sums(i, engine, leaves)?;
        }
        busy |= self.receive_headers()?;
        self.exchange.world.check()?;
        Ok(busy)
    }

    /// Sends what has come from the device.
    fn pack(&mut self, engine: &Engine) -> Result<bool> {
        let mut there = Vec::new();
        for sent in std::mem::take(&mut self.sent) {
            if sent.1.is_there(&engine.gpu)? { there.push(sent) } else { self.sent.push(sent) }
        }
        let busy = !there.is_empty();
        for (i, numbers) in there {
            let began = Instant::now();
            if i < self.exchange.buckets.len() {
                self.pack_bucket(i, numbers)?
            } else {
                self.pack_header(numbers)?
            }
            self.parts.pack += began.elapsed().as_secs_f64();
        }
        Ok(busy)
    }

    fn pack_bucket(&mut self, i: usize, numbers: Downloading) -> Result<()> {
        let Exchange { world, buckets, precision, nodes, .. } = self.exchange;
        let (bucket, rank) = (&buckets[i], world.rank());
        let own = nodes[rank].len();
        // The own chunk goes the way of all others, so that all are rounded alike.
        let messages = numbers.take(|values| {
            let of_node = |node: usize, chunk: &Range<usize>| {
                let first = node * bucket.range.len();
                &values[first + chunk.start - bucket.range.start..first + chunk.end - bucket.range.start]
            };
            let of_rank = |chunk: &Range<usize>| {
                let mut bytes = Vec::with_capacity(own * sums::encoded(chunk.len(), *precision));
                (0..own).for_each(|node| sums::encode(of_node(node, chunk), *precision, &mut bytes));
                bytes
            };
            bucket.chunks.iter().map(of_rank).collect::<Vec<_>>()
        })?;
        for (to, message) in messages.into_iter().enumerate().filter(|(to, _)| !bucket.chunks[*to].is_empty()) {
            if to == rank {
                self.progress[i].leaves[rank] = Some(decoded(&message, own, bucket.chunks[rank].len(), *precision)?);
            } else {
                world.send(to, LEAVES + i as u32, message)?;
            }
        }
        Ok(())
    }

    fn pack_header(&mut self, numbers: Downloading) -> Result<()> {
        let Exchange { world, began, .. } = self.exchange;
        let losses: Vec<f32> = numbers.take(|words| words.chunks(STATS).map(|stats| stats[0]).collect())?;
        // The device has done all that it does before the update.
        self.told.seconds = began.get().map_or(0.0, |began| began.elapsed().as_secs_f64());
        let bytes = self.told.bytes(&losses);
        for to in (0..world.size()).filter(|to| *to != world.rank()) {
            world.send(to, HEADER, bytes.clone())?;
        }
        self.headers[world.rank()] = Some((self.told, losses));
        Ok(())
    }

    fn receive_leaves(&mut self, i: usize) -> Result<bool> {
        let Exchange { world, buckets, precision, nodes, .. } = self.exchange;
        let (rank, chunk) = (world.rank(), buckets[i].chunks[world.rank()].len());
        if chunk == 0 || self.progress[i].summed[rank] {
            return Ok(false);
        }
        let mut busy = false;
        for from in (0..world.size()).filter(|from| *from != rank) {
            if self.progress[i].leaves[from].is_some() {
                continue;
            }
            let Some(bytes) = world.try_receive(from, LEAVES + i as u32)? else { continue };
            let began = Instant::now();
            let wrong = |_| Error::rank(format!("{} sent gradients of another size", world.host(from)));
            let values = decoded(&bytes, nodes[from].len(), chunk, *precision).map_err(wrong)?;
            self.progress[i].leaves[from] = Some(values);
            self.parts.unpack += began.elapsed().as_secs_f64();
            busy = true;
        }
        Ok(busy)
    }

    /// Adds up the own chunk of a bucket, where all ranks brought theirs.
    fn add_up(&mut self, i: usize, engine: &Engine, leaves: &Leaves) -> Result<bool> {
        let Exchange { world, buckets, precision, nodes, sharded, .. } = self.exchange;
        let (rank, chunk) = (world.rank(), &buckets[i].chunks[world.rank()]);
        let Progress { leaves: came, summed } = &mut self.progress[i];
        if summed[rank] || !came.iter().all(Option::is_some) {
            return Ok(false);
        }
        let began = Instant::now();
        let values = std::mem::replace(came, vec![None; nodes.len()]);
        let in_order = nodes.iter().zip(values.into_iter().flatten());
        let sum = sums::sum(in_order.flat_map(|(nodes, values)| nodes.iter().copied().zip(values)));
        let mut sum = sum.ok_or_else(|| Error::defect("nothing to add up"))?;
        self.parts.sum += began.elapsed().as_secs_f64();
        if !sharded {
            let began = Instant::now();
            let mut message = Vec::with_capacity(sums::encoded(chunk.len(), *precision));
            sums::encode(&sum, *precision, &mut message);
            // All must have the same sum, rounded or not.
            if *precision != Precision::F32 {
                sum = sums::decode(&message, chunk.len(), *precision)?;
            }
            for to in (0..world.size()).filter(|to| *to != rank) {
                world.send(to, SUM + i as u32, message.clone())?;
            }
            self.parts.pack += began.elapsed().as_secs_f64();
        }
        self.write(i, rank, &sum, engine, leaves).map(|()| true)
    }

    fn receive_sums(&mut self, i: usize, engine: &Engine, leaves: &Leaves) -> Result<bool> {
        let Exchange { world, buckets, precision, .. } = self.exchange;
        let mut busy = false;
        for from in (0..world.size()).filter(|from| *from != world.rank()) {
            if self.progress[i].summed[from] {
                continue;
            }
            let Some(bytes) = world.try_receive(from, SUM + i as u32)? else { continue };
            let wrong = |_| Error::rank(format!("{} sent a sum of another size", world.host(from)));
            let sum = sums::decode(&bytes, buckets[i].chunks[from].len(), *precision).map_err(wrong)?;
            self.write(i, from, &sum, engine, leaves)?;
            busy = true;
        }
        Ok(busy)
    }

    /// Puts the sum of a rank's chunk where this rank's gradients were.
    fn write(&mut self, i: usize, of: usize, sum: &[f32], engine: &Engine, leaves: &Leaves) -> Result<()> {
        let began = Instant::now();
        let stretches = self.exchange.layout.stretches(&self.exchange.buckets[i].chunks[of]);
        let mut rest = sum;
        for block in parts(&leaves.computed, &stretches) {
            let (part, later) = rest.split_at(rest.len().min((block.bytes() / 4) as usize));
            engine.write(&block, part);
            rest = later;
        }
        self.unsubmitted += 4 * sum.len() as u64;
        if self.unsubmitted > MOST_UNSUBMITTED {
            engine.copy([])?;
            self.unsubmitted = 0;
        }
        self.progress[i].summed[of] = true;
        self.parts.unpack += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn receive_headers(&mut self) -> Result<bool> {
        let world = &self.exchange.world;
        let mut busy = false;
        for from in 0..world.size() {
            if self.headers[from].is_some() {
                continue;
            }
            let Some(bytes) = (if from == world.rank() { None } else { world.try_receive(from, HEADER)? }) else {
                continue;
            };
            let header = Told::read(&bytes, self.exchange.nodes[from].len());
            let header = header.filter(|(told, _)| told.step == self.told.step);
            self.headers[from] =
                Some(header.ok_or_else(|| {
                    Error::rank(format!("{} is not at step {}", world.host(from), self.told.step + 1))
                })?);
            busy = true;
        }
        Ok(busy)
    }

    fn heard(self) -> Result<Heard> {
        let (told, losses): (Vec<Told>, Vec<Vec<f32>>) = self.headers.into_iter().flatten().unzip();
        let nodes = self.exchange.nodes.iter().flatten().copied();
        Ok(Heard::new(told, nodes.zip(losses.concat()), self.parts))
    }
}
