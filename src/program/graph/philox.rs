//! Philox-4x32-10, the counter-based generator behind every random number.
//!
//! Input: a key and a counter. Output: four words that depend on nothing else, so a training resumes exactly at any
//! step and every device draws the same numbers. Source: Salmon, Moraes, Dror, Shaw: "Parallel random numbers:
//! as easy as 1, 2, 3", SC 2011; constants as in Random123.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The four words of one counter.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        let (high0, low0) = ((first >> 32) as u32, first as u32);
        let (high1, low1) = ((second >> 32) as u32, second as u32);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The word behind [`uniform`]: counter = (element low, element high, step low, stream), key = (seed low, seed high),
/// word 0 of the four.
pub fn word(seed: u64, step: u64, stream: u32, element: u64) -> u32 {
    let counter = [element as u32, (element >> 32) as u32, step as u32, stream];
    philox(counter, [seed as u32, (seed >> 32) as u32])[0]
}

/// U[0, 1): the upper 24 bits of [`word`] times 2⁻²⁴, exact in f32.
pub fn uniform(seed: u64, step: u64, stream: u32, element: u64) -> f32 {
    (word(seed, step, stream, element) >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers shipped with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_known_answers() {
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn uniform_is_the_upper_bits_of_word_zero() {
        assert_eq!(uniform(0, 0, 0, 0), (0x0066_27e8 as f32) / 16_777_216.0);
        let draws: Vec<f32> = (0..4096).map(|element| uniform(7, 3, 1, element)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f32>() / 4096.0;
        // Standard error of the mean is 1/sqrt(12 * 4096) = 0.0045; five of them.
        assert!((mean - 0.5).abs() < 0.023, "mean {mean}");
    }

    #[test]
    fn every_part_of_the_counter_and_key_matters() {
        let base = word(1, 1, 1, 1);
        let others = [word(2, 1, 1, 1), word(1 << 32, 1, 1, 1), word(1, 2, 1, 1), word(1, 1, 2, 1), word(1, 1, 1, 2)];
        assert!(others.iter().all(|&other| other != base));
        assert_ne!(word(1, 1, 1, 1 << 32), word(1, 1, 1, 0));
    }
}
