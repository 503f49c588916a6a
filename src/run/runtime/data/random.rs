//! Counter-based random numbers for everything that data needs: splits, shuffling, augmentation, synthetic samples.
//!
//! Input: a seed, a purpose and two coordinates (such as epoch and sample). Output: a stream of numbers.
//! Invariant: a stream depends on nothing but these four, so results do not depend on threads, order or resumption.
//! Generator: Philox-4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

use std::sync::{Mutex, PoisonError};

use crate::graph::philox::philox;
use crate::machine::{self, Level};
use crate::primitives::{normal, random};

/// What a stream is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Purpose {
    /// Which sample goes to which split.
    Split = 0x5350_4c54,
    /// The order of samples in an epoch.
    Shuffle = 0x5348_5546,
    /// Augmentation of one sample in one epoch.
    Augment = 0x4155_474d,
    /// Samples of a synthetic source.
    Sample = 0x5341_4d50,
    /// The hidden coefficients of a synthetic source.
    Truth = 0x5452_5554,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of `purpose` at `(major, minor)`; for augmentation: epoch and sample.
    pub(super) fn new(seed: u64, purpose: Purpose, major: u32, minor: u32) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        Self { key, counter: [0, purpose as u32, major, minor], block: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub(super) fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// U[0, 1) with 53 random bits.
    pub(super) fn unit(&mut self) -> f64 {
        let (high, low) = (self.bits(), self.bits());
        unit(high, low)
    }

    /// U[low, high).
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// U{0, …, bound − 1} without bias (Lemire 2019); 0 where `bound` is 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.bits()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// N(0, 1), by Box and Muller; `libm` makes it alike on every machine.
    pub(super) fn normal(&mut self) -> f64 {
        let (u, v) = (self.unit(), self.unit());
        box_muller(u, v)
    }

    /// The numbers `first..` of [`Stream::normal`] in a new stream, at most [`random::WORDS`]: each takes a block.
    fn normals_from(&self, first: u32, level: Level, out: &mut [f32]) {
        let [_, purpose, major, minor] = self.counter;
        let seed = u64::from(self.key[0]) | u64::from(self.key[1]) << 32;
        let element = u64::from(first) | u64::from(purpose) << 32;
        let words = random::words(level, seed, u64::from(major), minor, element);
        let units = |high: &[u32; random::WORDS], low: &[u32; random::WORDS]| -> [f64; random::WORDS] {
            std::array::from_fn(|i| unit(high[i], low[i]))
        };
        let (u, v) = (units(&words[0], &words[1]), units(&words[2], &words[3]));
        let scale = normal::Scale { mean: 0.0, deviation: 1.0, limit: f64::INFINITY };
        let count = out.len();
        normal::fill(level, &u[..count], &v[..count], scale, out, &|i| box_muller(u[i], v[i]) as f32);
    }
}

/// U[0, 1) of two words.
fn unit(high: u32, low: u32) -> f64 {
    (u64::from(high >> 5) * (1 << 26) + u64::from(low >> 6)) as f64 / (1u64 << 53) as f64
}

fn box_muller(u: f64, v: f64) -> f64 {
    libm::sqrt(-2.0 * libm::log(1.0 - u)) * libm::cos(std::f64::consts::TAU * v)
}

/// Normal numbers that [`normals`] hands to a thread at a time; a multiple of [`random::WORDS`].
const CHUNK: usize = 1 << 16;

/// The first numbers that [`Stream::normal`] of a new stream gives, rounded to f32; computed by all cores.
pub(super) fn normals(seed: u64, purpose: Purpose, major: u32, minor: u32, count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    let level = machine::detect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count.div_ceil(CHUNK)).max(1);
    let chunks = Mutex::new(numbers.chunks_mut(CHUNK).enumerate());
    let work = || {
        loop {
            let chunk = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, chunk)) = chunk else { break };
            let stream = Stream::new(seed, purpose, major, minor);
            for (position, strip) in chunk.chunks_mut(random::WORDS).enumerate() {
                stream.normals_from((number * CHUNK + position * random::WORDS) as u32, level, strip);
            }
        }
    };
    std::thread::scope(|scope| {
        // Without a further thread, this one does all the work.
        (1..threads).for_each(|_| drop(std::thread::Builder::new().spawn_scoped(scope, work)));
        work();
    });
    numbers
}

/// Shuffles in place (Fisher and Yates).
pub(super) fn shuffle(items: &mut [u32], stream: &mut Stream) {
    for last in (1..items.len()).rev() {
        let chosen = stream.below(last as u32 + 1) as usize;
        items.swap(last, chosen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_is_a_permutation_and_depends_on_its_coordinates() {
        let order = |seed, epoch| {
            let mut items: Vec<u32> = (0..100).collect();
            shuffle(&mut items, &mut Stream::new(seed, Purpose::Shuffle, epoch, 0));
            items
        };
        let mut sorted = order(1, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }

    #[test]
    fn normals_of_all_cores_are_those_of_one_stream() {
        for count in [0, 1, 31, 33, CHUNK, 2 * CHUNK + 7] {
            let mut stream = Stream::new(9, Purpose::Sample, 3, 2);
            let expected: Vec<u32> = (0..count).map(|_| (stream.normal() as f32).to_bits()).collect();
            let actual: Vec<u32> = normals(9, Purpose::Sample, 3, 2, count).iter().map(|x| x.to_bits()).collect();
            assert!(actual == expected, "{count} numbers");
        }
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut stream = Stream::new(7, Purpose::Sample, 0, 0);
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        // Four standard errors of each estimate at 20,000 draws.
        assert!(mean.abs() < 4.0 / 20_000f64.sqrt(), "{mean}");
        assert!((variance - 1.0).abs() < 4.0 * (2.0 / 20_000f64).sqrt(), "{variance}");
    }
}
