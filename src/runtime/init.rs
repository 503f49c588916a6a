//! First values of parameters.
//!
//! Input: an [`Init`], a shape, the run's seed and the parameter's position. Output: its elements in row-major order.
//! Invariant: the values depend on nothing else, so every device and thread count starts from the same bits.

use crate::graph::{Init, philox};

/// Streams of the counter-based generator above this one belong to initialisation; dropout uses those below.
const FIRST_STREAM: u32 = 0x8000_0000;

/// The first elements of parameter number `position`, of shape `sizes`, row-major.
///
/// Formulas: Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming), Saxe et al. 2014 (orthogonal); fans as in PyTorch.
pub fn values(init: &Init, sizes: &[usize], seed: u64, position: usize) -> Vec<f32> {
    let count: usize = sizes.iter().product();
    let draws = Draws { seed, stream: FIRST_STREAM.wrapping_add(position as u32) };
    let (fan_in, fan_out) = fans(sizes);
    match *init {
        Init::Constant(value) => vec![value as f32; count],
        Init::Uniform { low, high } => draws.uniform(count, low, high),
        Init::Normal { mean, std } => draws.normal(count, mean, std, f64::INFINITY),
        Init::TruncatedNormal { mean, std } => draws.normal(count, mean, std, 2.0),
        Init::Xavier { gain, normal } => draws.scaled(count, gain * (2.0 / (fan_in + fan_out)).sqrt(), normal),
        Init::Kaiming { gain, normal } => draws.scaled(count, gain / fan_in.sqrt(), normal),
        Init::Orthogonal { gain } => orthogonal(&draws, sizes, gain),
    }
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

struct Draws {
    seed: u64,
    stream: u32,
}

impl Draws {
    /// U[0, 1) number `attempt` of an element.
    fn unit(&self, attempt: u64, element: usize) -> f64 {
        f64::from(philox::uniform(self.seed, attempt, self.stream, element as u64))
    }

    fn uniform(&self, count: usize, low: f64, high: f64) -> Vec<f32> {
        (0..count).map(|element| (low + (high - low) * self.unit(0, element)) as f32).collect()
    }

    /// N(mean, std²), redrawn outside `limit` standard deviations.
    fn normal(&self, count: usize, mean: f64, std: f64, limit: f64) -> Vec<f32> {
        (0..count).map(|element| (mean + std * self.standard_normal(element, limit)) as f32).collect()
    }

    /// Zero mean and the given standard deviation, normal or uniform.
    fn scaled(&self, count: usize, std: f64, normal: bool) -> Vec<f32> {
        if normal {
            return self.normal(count, 0.0, std, f64::INFINITY);
        }
        let bound = 3f64.sqrt() * std;
        self.uniform(count, -bound, bound)
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
    fn two_parameters_of_one_seed_differ() {
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        assert_ne!(values(&init, &[8], 0, 0), values(&init, &[8], 0, 1));
        assert_eq!(values(&init, &[8], 0, 1), values(&init, &[8], 0, 1));
    }
}
