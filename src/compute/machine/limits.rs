//! What the machine can do at most: multiply-adds from registers and traffic with its caches and its memory.
//!
//! Input: a level and a number of threads. Output: rates, each the best of some repetitions in a twentieth of a second.
//! Invariant: nothing here feeds back into what is compiled; the figures are for reports alone.
#![allow(unsafe_op_in_unsafe_fn)]

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::lanes::Lanes;
use super::pool::Pool;
use super::{Level, at_level};

/// Seconds for one figure.
const BUDGET: f64 = 0.05;
/// Bytes that all threads together walk over, for one figure each: some of L2, of L3, of memory.
const FOOTPRINTS: [usize; 3] = [1 << 20, 12 << 20, 128 << 20];
/// Independent chains of multiply-adds: enough for two units of latency 4, few enough for 16 registers.
const CHAINS: usize = 12;

/// The greatest rates of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Operations a second, all threads together; a multiply-add is two.
    pub flops: f64,
    /// Bytes a second by the bytes that are walked over, least bytes first.
    pub bandwidths: Vec<(usize, f64)>,
}

/// Which rate a kernel cannot exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Multiply-adds.
    Arithmetic,
    /// Loads and stores.
    Memory,
}

impl Limits {
    /// Measures for about a quarter of a second.
    ///
    /// # Panics
    /// If the machine lacks the level.
    pub fn measure(level: Level, threads: usize) -> Limits {
        assert!(level.is_available(), "the machine has the level");
        let pool = Pool::new(threads);
        let rounds = 20_000;
        let seconds = best(|| pool.run(&|_| chains(level, rounds)));
        let flops = (threads * rounds * CHAINS * level.lanes() * 2) as f64 / seconds;
        let bandwidths = FOOTPRINTS.iter().map(|&bytes| (bytes, bandwidth(&pool, level, bytes))).collect();
        Limits { flops, bandwidths }
    }

    /// Bytes a second for a kernel that touches so many: that of the smallest footprint which holds them.
    pub fn bandwidth(&self, bytes: u64) -> f64 {
        let holds = |(footprint, _): &&(usize, f64)| *footprint as u64 >= bytes;
        self.bandwidths.iter().find(holds).or(self.bandwidths.last()).map_or(f64::INFINITY, |(_, rate)| *rate)
    }

    /// The least seconds of a kernel of so many operations over so many bytes, and what keeps it from less.
    pub fn least_seconds(&self, flops: u64, bytes: u64) -> (f64, Bound) {
        let (arithmetic, memory) = (flops as f64 / self.flops, bytes as f64 / self.bandwidth(bytes));
        if arithmetic >= memory { (arithmetic, Bound::Arithmetic) } else { (memory, Bound::Memory) }
    }
}

/// The least seconds of repetitions that fill the budget.
fn best(mut body: impl FnMut()) -> f64 {
    body();
    let start = Instant::now();
    let mut least = f64::INFINITY;
    while start.elapsed().as_secs_f64() < BUDGET {
        let begin = Instant::now();
        body();
        least = least.min(begin.elapsed().as_secs_f64());
    }
    least
}

/// `y = x · a + y` over so many bytes of x and y; what is read and written of them counts.
fn bandwidth(pool: &Pool, level: Level, bytes: usize) -> f64 {
    let count = (bytes / pool.threads() / 2 / size_of::<f32>()).next_multiple_of(64);
    let new = || Mutex::new((vec![1.0f32; count], vec![0.0f32; count]));
    let shares: Vec<_> = (0..pool.threads()).map(|_| new()).collect();
    // Small footprints are walked over often enough that starting the threads does not count.
    let repeats = ((4 << 20) / bytes).max(1);
    let seconds = best(|| {
        pool.run(&|thread| {
            let mut share = shares[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let (x, y) = &mut *share;
            (0..repeats).for_each(|_| walk(level, x, y));
        });
    });
    (pool.threads() * repeats * count * size_of::<f32>() * 3) as f64 / seconds
}

#[inline(always)]
unsafe fn chains_of<V: Lanes>(rounds: usize) {
    let (x, y) = (V::splat(black_box(0.999)), V::splat(black_box(0.001)));
    let mut sums = [V::splat(0.5); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.accumulate(x, y);
        }
    }
    // Only a copy leaves the registers, and only here.
    let mut kept = [0.0f32; 16];
    for sum in sums {
        sum.store(kept.as_mut_ptr());
        black_box(&kept);
    }
}

#[inline(always)]
unsafe fn walk_of<V: Lanes>(x: &[f32], y: &mut [f32]) {
    let factor = V::splat(black_box(0.5));
    let mut i = 0;
    while i + V::COUNT <= x.len().min(y.len()) {
        let to = y.as_mut_ptr().add(i);
        V::load(x.as_ptr().add(i)).accumulate(factor, V::load(to)).store(to);
        i += V::COUNT;
    }
}

fn chains(level: Level, rounds: usize) {
    // SAFETY: the level is available, as `measure` asserts; only registers and locals are touched.
    unsafe { at_level!(level, fn(rounds: usize), V => chains_of::<V>(rounds))(rounds) }
}

fn walk(level: Level, x: &[f32], y: &mut [f32]) {
    // SAFETY: the level is available, as `measure` asserts; whole vectors inside both slices are touched.
    unsafe { at_level!(level, fn(x: &[f32], y: &mut [f32]), V => walk_of::<V>(x, y))(x, y) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_time_is_that_of_the_tighter_limit() {
        let limits = Limits { flops: 100.0, bandwidths: vec![(10, 50.0), (1000, 5.0)] };
        assert_eq!(limits.least_seconds(200, 10), (2.0, Bound::Arithmetic));
        assert_eq!(limits.least_seconds(200, 20), (4.0, Bound::Memory));
        // More than the largest footprint counts as memory.
        assert_eq!(limits.least_seconds(0, 10_000), (2000.0, Bound::Memory));
    }

    #[test]
    fn measured_rates_are_positive_at_every_level() {
        for level in Level::available() {
            let limits = Limits::measure(level, 2);
            assert!(limits.flops > 1e8, "{level}: {limits:?}");
            assert!(limits.bandwidths.iter().all(|(_, rate)| *rate > 1e7), "{level}: {limits:?}");
        }
    }
}
