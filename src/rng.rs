//! Random numbers that are a pure function of (seed, stream, position).
//!
//! Nothing random in a run has hidden state: a batch, an initial weight or a sampled token is found
//! again from the seed and the step number alone, which is what makes a resumed run the same run.
//! The generator is SplitMix64 (Steele, Lea and Flood, 2014). Not for cryptography.

/// Independent uses of one seed; two streams of the same seed never meet in practice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Initial parameters.
    Init = 1,
    /// Which windows of the data a step reads.
    Batch = 2,
    /// Tokens drawn from the model.
    Sample = 3,
    /// What is random in a growth.
    Growth = 4,
    /// The built-in corpus.
    Corpus = 5,
    /// Inputs of tests and benchmarks.
    Test = 6,
    /// Windows of the validation split.
    Validation = 7,
    /// Parameter tokens that stay where they are picked at random.
    Prune = 8,
    /// Masks of dropout.
    Dropout = 9,
}

/// A sequence of random numbers; clone it to replay it.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The sequence at `position` of `stream` of `seed` (for a batch: the index of the row drawn).
    pub fn new(seed: u64, stream: Stream, position: u64) -> Self {
        let start = mix(seed.wrapping_add(GOLDEN)) ^ mix((stream as u64).wrapping_mul(GOLDEN) ^ 0x5eed);
        Self { state: mix(start.wrapping_add(mix(position.wrapping_mul(GOLDEN).wrapping_add(1)))) }
    }

    /// The sequence that belongs to a name, such as a parameter's.
    pub fn named(seed: u64, stream: Stream, name: &str) -> Self {
        // FNV-1a: spreads short names well enough for mix() to finish.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self::new(seed, stream, hash)
    }

    /// Next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..n (n of 0 counts as 1).
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n.max(1))) >> 64) as u64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// `n` normal values of standard deviation `std`, rounded to f32.
    pub fn normals(&mut self, n: usize, std: f64) -> Vec<f32> {
        (0..n).map(|_| (self.normal() * std) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_positions_differ_and_repeat() {
        let draw = |seed, stream, at| Rng::new(seed, stream, at).next_u64();
        assert_eq!(draw(1, Stream::Batch, 7), draw(1, Stream::Batch, 7));
        assert_ne!(draw(1, Stream::Batch, 7), draw(1, Stream::Batch, 8));
        assert_ne!(draw(1, Stream::Batch, 7), draw(2, Stream::Batch, 7));
        assert_ne!(draw(1, Stream::Batch, 7), draw(1, Stream::Init, 7));
    }

    #[test]
    fn moments_of_the_normal_are_right() {
        let mut rng = Rng::new(3, Stream::Test, 0);
        let n = 200_000;
        let xs: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = xs.iter().sum::<f64>() / f64::from(n);
        let var = xs.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.01, "mean {mean}, variance {var}");
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut rng = Rng::new(3, Stream::Test, 1);
        let mut seen = [0_u32; 7];
        for _ in 0..70_000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (9_500..10_500).contains(&n)), "{seen:?}");
    }
}
