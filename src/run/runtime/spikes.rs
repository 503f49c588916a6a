//! Losses that leap: a rule that ordinary noise does not meet.
//!
//! Input: the losses of a run, step by step. Output: whether one lies far above those before it. Invariants: the answer follows from the
//! losses in the position alone, so a resumed run gives the same ones; losses that are not finite are no part of it.
//!
//! A loss is told when at least [`LEAST`] of the last [`WINDOW`] are known and it rises over their median by more than ten
//! deviations, by more than four times what any of them did, and by more than a twentieth of the median. The deviation is the
//! median absolute one times 1.4826, which is the standard deviation of normal numbers and is not moved by a few outliers;
//! the second condition is for losses with long tails, such as those of small batches late in a run.

use serde::{Deserialize, Serialize};

use super::exact::Exact;

/// Losses that are looked back at.
const WINDOW: usize = 64;

/// Losses below which nothing is said.
const LEAST: usize = 32;

/// Deviations from the median.
const DEVIATIONS: f64 = 10.0;

/// From the median absolute deviation of normal numbers to their standard deviation.
const NORMAL: f64 = 1.4826;

/// Times the largest rise within the window.
const RISES: f64 = 4.0;

/// Part of the median itself, for losses that hardly move.
const PART: f64 = 0.05;

/// The last losses of a run, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recent(Vec<Exact>);

impl Recent {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a loss; the median of those before it, if it leaps.
    pub fn add(&mut self, loss: f64) -> Option<f64> {
        if !loss.is_finite() {
            return None;
        }
        let leap = self.leap(loss);
        if self.0.len() == WINDOW {
            self.0.remove(0);
        }
        self.0.push(Exact(loss));
        leap
    }

    fn leap(&self, loss: f64) -> Option<f64> {
        let highest = self.0.iter().map(|loss| loss.0).fold(f64::NEG_INFINITY, f64::max);
        // What leaps is above all; most losses need no median.
        if self.0.len() < LEAST || loss <= highest {
            return None;
        }
        let mut losses: Vec<f64> = self.0.iter().map(|loss| loss.0).collect();
        let middle = median(&mut losses);
        losses.iter_mut().for_each(|loss| *loss = (*loss - middle).abs());
        let deviation = NORMAL * median(&mut losses);
        let least = (DEVIATIONS * deviation).max(RISES * (highest - middle)).max(PART * middle.abs());
        (loss - middle > least).then_some(middle)
    }
}

/// The upper median.
fn median(numbers: &mut [f64]) -> f64 {
    let middle = numbers.len() / 2;
    *numbers.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between 0 and 1, evenly spread.
    fn noise(count: usize) -> Vec<f64> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..count).map(|_| next()).collect()
    }

    fn told(losses: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let mut recent = Recent::default();
        let leaps = losses.into_iter().enumerate().filter_map(|(step, loss)| recent.add(loss).map(|_| step));
        leaps.collect()
    }

    #[test]
    fn a_planted_leap_is_told_and_the_noise_around_it_is_not() {
        let falling = |step: usize| 0.3 + 2.0 / (1.0 + step as f64 / 40.0);
        let mut losses: Vec<f64> = noise(3000).iter().enumerate().map(|(k, x)| falling(k) + 0.2 * x).collect();
        assert!(told(losses.clone()).is_empty());
        (losses[20], losses[900], losses[901], losses[2000]) = (90.0, 4.0, 4.1, 4.0);
        assert_eq!(told(losses), [900, 2000], "too early to say, and once for neighbours");
    }

    #[test]
    fn long_tails_are_no_leaps() {
        // Exponentially distributed, as losses of small batches late in a run.
        let tailed = noise(20_000).into_iter().map(|x| -0.01 * (1.0 - x).ln());
        assert!(told(tailed).is_empty());
    }

    #[test]
    fn losses_that_hardly_move_leap_by_a_twentieth_of_themselves() {
        let flat = |last: f64| told((0..40).map(|_| 2.0).chain([last]));
        assert_eq!((flat(2.09), flat(2.11)), (vec![], vec![40]));
        assert!(flat(f64::NAN).is_empty());
    }

    #[test]
    fn what_was_seen_survives_a_checkpoint() {
        let mut recent = Recent::default();
        assert!(noise(70).into_iter().all(|loss| recent.add(loss).is_none()) && recent.0.len() == WINDOW);
        let text = serde_json::to_string(&recent).expect("written");
        assert_eq!(serde_json::from_str::<Recent>(&text).expect("read"), recent);
    }
}
