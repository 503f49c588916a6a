//! First values of parameters.
//!
//! Input: an [`Init`], a shape, the run's seed and the parameter's position. Output: its elements in row-major order.
//! Invariant: the values depend on nothing else, so every device and thread count starts from the same bits.

use std::sync::{Mutex, PoisonError};

use crate::graph::{Init, philox};
use crate::machine;
use crate::primitives::{normal, random};

/// Streams of the counter-based generator above this one belong to initialisation; dropout uses those below.
const FIRST_STREAM: u32 = 0x8000_0000;

/// Elements that a thread takes at a time.
const CHUNK: usize = 1 << 15;
/// Elements whose random numbers are drawn together.
const STRIP: usize = 256;

/// The first elements of parameter number `position`, of shape `sizes`, row-major; computed by so many threads.
///
/// Formulas: Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming), Saxe et al. 2014 (orthogonal); fans as in PyTorch.
///
/// # Panics
/// If `out` has not as many elements as the shape.
pub fn fill(init: &Init, sizes: &[usize], seed: u64, position: usize, threads: usize, out: &mut [f32]) {
    assert_eq!(out.len(), sizes.iter().product::<usize>(), "the values fill the parameter");
    let draws = Draws { seed, stream: FIRST_STREAM.wrapping_add(position as u32) };
    let (fan_in, fan_out) = fans(sizes);
    let distribution = match *init {
        Init::Constant(value) => return out.fill(value as f32),
        Init::Orthogonal { gain } => return out.copy_from_slice(&orthogonal(&draws, sizes, gain)),
        Init::Uniform { low, high } => Distribution::Uniform { low, high },
        Init::Normal { mean, std } => Distribution::Normal { mean, std, limit: f64::INFINITY },
        Init::TruncatedNormal { mean, std } => Distribution::Normal { mean, std, limit: 2.0 },
        Init::Xavier { gain, normal } => Distribution::scaled(gain * (2.0 / (fan_in + fan_out)).sqrt(), normal),
        Init::Kaiming { gain, normal } => Distribution::scaled(gain / fan_in.sqrt(), normal),
    };
    let few = out.len() <= CHUNK;
    let chunks = Mutex::new(out.chunks_mut(CHUNK).enumerate());
    let work = || {
        loop {
            let chunk = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, chunk)) = chunk else { break };
            for (strip, out) in chunk.chunks_mut(STRIP).enumerate() {
                draws.fill(&distribution, number * CHUNK + strip * STRIP, out);
            }
        }
    };
    if few || threads < 2 {
        return work();
    }
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

/// (fan-in, fan-out) of `[out, in, window…]`; of one dim both are its size, of none both are 1.
fn fans(sizes: &[usize]) -> (f64, f64) {
    match sizes {
        [] => (1.0, 1.0),
        [size] => (*size as f64, *size as f64),
        [output, input, window @ ..] => {
            let window = window.iter().product::<usize>() as f64;
            ((*input as f64 * window).max(1.0), (*output as f64 * window).max(1.0))
        }
    }
}

/// Where independent elements come from.
enum Distribution {
    /// U[low, high).
    Uniform { low: f64, high: f64 },
    /// N(mean, std²), redrawn outside `limit` standard deviations.
    Normal { mean: f64, std: f64, limit: f64 },
}

impl Distribution {
    /// Zero mean and the given standard deviation.
    fn scaled(std: f64, normal: bool) -> Self {
        if normal {
            return Self::Normal { mean: 0.0, std, limit: f64::INFINITY };
        }
        let bound = 3f64.sqrt() * std;
        Self::Uniform { low: -bound, high: bound }
    }
}

struct Draws {
    seed: u64,
    stream: u32,
}

impl Draws {
    /// U[0, 1) number `attempt` of an element.
    fn unit(&self, attempt: u64, element: usize) -> f64 {
        f64::from(philox::uniform(self.seed, attempt, self.stream, element as u64))
    }

    /// The same of up to [`STRIP`] elements from `first`.
    fn units(&self, attempt: u64, first: usize, count: usize) -> [f64; STRIP] {
        let mut units = [0f32; STRIP];
        let level = machine::detect();
        random::fill_uniform(level, &mut units[..count], self.seed, attempt, self.stream, first as u64);
        units.map(f64::from)
    }

    /// The elements from `first`, at most [`STRIP`].
    fn fill(&self, distribution: &Distribution, first: usize, out: &mut [f32]) {
        let count = out.len();
        let u = self.units(0, first, count);
        match *distribution {
            Distribution::Uniform { low, high } => {
                out.iter_mut().zip(u).for_each(|(x, u)| *x = (low + (high - low) * u) as f32);
            }
            Distribution::Normal { mean, std, limit } => {
                let v = self.units(1, first, count);
                let scale = normal::Scale { mean, deviation: std, limit };
                normal::fill(machine::detect(), &u[..count], &v[..count], scale, out, &|i| {
                    (mean + std * self.standard_normal(first + i, limit)) as f32
                });
            }
        }
    }

    /// Box and Muller 1958.
    fn standard_normal(&self, element: usize, limit: f64) -> f64 {
        let mut attempt = 0;
        loop {
            let radius = (-2.0 * (1.0 - self.unit(attempt, element)).ln()).sqrt();
            let value = radius * (std::f64::consts::TAU * self.unit(attempt + 1, element)).cos();
            if value.abs() <= limit {
                return value;
            }
            attempt += 2;
        }
    }
}

/// Gram-Schmidt on the shorter side of a random normal matrix `[sizes[0], rest]`.
fn orthogonal(draws: &Draws, sizes: &[usize], gain: f64) -> Vec<f32> {
    let rows = sizes.first().copied().unwrap_or(1);
    let columns = sizes.iter().skip(1).product::<usize>();
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    for vector in 0..count {
        let mut next: Vec<f64> =
            (0..length).map(|i| draws.standard_normal(vector * length + i, f64::INFINITY)).collect();
        // Twice is enough (Kahan; Giraud et al. 2005).
        for _ in 0..2 {
            for earlier in &basis {
                let dot: f64 = earlier.iter().zip(&next).map(|(a, b)| a * b).sum();
                next.iter_mut().zip(earlier).for_each(|(x, e)| *x -= dot * e);
            }
        }
        let norm = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        next.iter_mut().for_each(|x| *x /= norm);
        basis.push(next);
    }
    let element = |row: usize, column: usize| if rows <= columns { basis[row][column] } else { basis[column][row] };
    (0..rows * columns).map(|i| (gain * element(i / columns, i % columns)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(init: &Init, sizes: &[usize], seed: u64, position: usize) -> Vec<f32> {
        let mut out = vec![0.0; sizes.iter().product()];
        fill(init, sizes, seed, position, 1, &mut out);
        out
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    }

    #[test]
    fn kaiming_uniform_has_variance_gain_squared_over_fan_in() {
        let init = Init::Kaiming { gain: 2f64.sqrt(), normal: false };
        let (mean, variance) = moments(&values(&init, &[200, 100], 1, 0));
        assert!(mean.abs() < 5e-3, "{mean}");
        assert!((variance - 0.02).abs() < 1e-3, "{variance}");
    }

    #[test]
    fn xavier_normal_has_variance_two_over_the_sum_of_fans() {
        let (_, variance) = moments(&values(&Init::Xavier { gain: 1.0, normal: true }, &[50, 10, 3, 3], 1, 0));
        assert!((variance - 2.0 / (90.0 + 450.0)).abs() < 5e-4, "{variance}");
    }

    #[test]
    fn truncated_normal_stays_within_two_deviations() {
        let values = values(&Init::TruncatedNormal { mean: 1.0, std: 0.5 }, &[10_000], 3, 1);
        assert!(values.iter().all(|x| (0.0..=2.0).contains(x)));
        assert!(values.iter().any(|x| *x > 1.9) && values.iter().any(|x| *x < 0.1));
    }

    #[test]
    fn orthogonal_rows_are_orthonormal() {
        for sizes in [[5, 9], [9, 5]] {
            let matrix = values(&Init::Orthogonal { gain: 1.0 }, &sizes, 7, 0);
            let (rows, columns) = (sizes[0], sizes[1]);
            let at =
                |a: usize, i: usize| if rows <= columns { matrix[a * columns + i] } else { matrix[i * columns + a] };
            for a in 0..rows.min(columns) {
                for b in 0..rows.min(columns) {
                    let dot: f32 = (0..rows.max(columns)).map(|i| at(a, i) * at(b, i)).sum();
                    assert!((dot - f32::from(u8::from(a == b))).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn elements_are_those_of_the_formulas_for_any_number_of_threads() {
        let sizes = [3, CHUNK + 1];
        let draws = Draws { seed: 5, stream: FIRST_STREAM + 2 };
        let bound = 3f64.sqrt() * (1.0 / ((CHUNK + 1) as f64).sqrt());
        let uniform = |i| (-bound + 2.0 * bound * draws.unit(0, i)) as f32;
        let normal = |i| (0.1 + 0.02 * draws.standard_normal(i, f64::INFINITY)) as f32;
        let truncated = |i| (0.1 + 0.02 * draws.standard_normal(i, 2.0)) as f32;
        let cases: [(Init, &dyn Fn(usize) -> f32); 3] = [
            (Init::Kaiming { gain: 1.0, normal: false }, &uniform),
            (Init::Normal { mean: 0.1, std: 0.02 }, &normal),
            (Init::TruncatedNormal { mean: 0.1, std: 0.02 }, &truncated),
        ];
        for (init, formula) in cases {
            let expected: Vec<u32> = (0..3 * (CHUNK + 1)).map(|i| formula(i).to_bits()).collect();
            for threads in [1, 3] {
                let mut out = vec![0.0; expected.len()];
                fill(&init, &sizes, 5, 2, threads, &mut out);
                assert!(out.iter().map(|x| x.to_bits()).eq(expected.iter().copied()), "{init:?} on {threads} threads");
            }
        }
    }

    #[test]
    fn two_parameters_of_one_seed_differ() {
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        assert_ne!(values(&init, &[8], 0, 0), values(&init, &[8], 0, 1));
        assert_eq!(values(&init, &[8], 0, 1), values(&init, &[8], 0, 1));
    }
}
