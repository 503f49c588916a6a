//! Uniform random strips: Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! Input: a seed, a step, a stream and the number of the strip's first element. Output: U[0, 1) numbers.
//! Invariant: an element's number depends on (seed, step, stream, element) alone:
//! it is [`philox::uniform`](ansatz_program::graph::philox::uniform).

use crate::machine::lanes::Lanes;
use crate::machine::{Level, at_level, detect};

/// Fills `out[0..n]` with the uniform numbers of the elements `first_element..first_element + n`.
///
/// # Safety
/// `out` is valid for `n` writes, and the level that gave the function is available.
pub type UniformFn =
    unsafe extern "C" fn(out: *mut f32, n: usize, seed: u64, step: u64, stream: u32, first_element: u64);

/// The strip function of a level. All levels give the same bits.
pub fn uniform(level: Level) -> UniformFn {
    at_level!(level, extern "C" fn(out: *mut f32, n: usize, seed: u64, step: u64, stream: u32, first: u64), V => {
        const WIDTH: usize = 2 * V::COUNT;
        // SAFETY: the caller's promise.
        fill::<WIDTH>(unsafe { std::slice::from_raw_parts_mut(out, n) }, seed, step, stream, first);
    })
}

/// As the function of [`uniform`], with the highest level of this machine below or at `level`.
pub fn fill_uniform(level: Level, out: &mut [f32], seed: u64, step: u64, stream: u32, first_element: u64) {
    let level = level.min(detect());
    // SAFETY: a slice is valid for its length, and the machine has the level.
    unsafe { uniform(level)(out.as_mut_ptr(), out.len(), seed, step, stream, first_element) }
}

/// How many elements [`words`] computes.
pub const WORDS: usize = 32;

/// All four words of the elements `first_element..first_element + WORDS`, word by word.
pub fn words(level: Level, seed: u64, step: u64, stream: u32, first_element: u64) -> [[u32; WORDS]; 4] {
    let words = at_level!(
        level.min(detect()),
        fn(seed: u64, step: u64, stream: u32, first: u64) -> [[u32; WORDS]; 4],
        _V => rounds(seed, step, stream, first)
    );
    // SAFETY: the machine has the level.
    unsafe { words(seed, step, stream, first_element) }
}

/// The work, in blocks of `WIDTH` elements whose loops the compiler turns into vectors.
#[inline(always)]
fn fill<const WIDTH: usize>(out: &mut [f32], seed: u64, step: u64, stream: u32, first: u64) {
    let mut element = first;
    let mut chunks = out.chunks_exact_mut(WIDTH);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&block::<WIDTH>(seed, step, stream, element));
        element = element.wrapping_add(WIDTH as u64);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let last = block::<WIDTH>(seed, step, stream, element);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[inline(always)]
fn block<const WIDTH: usize>(seed: u64, step: u64, stream: u32, element: u64) -> [f32; WIDTH] {
    let [words, _, _, _] = rounds::<WIDTH>(seed, step, stream, element);
    std::array::from_fn(|i| (words[i] >> 8) as f32 * (1.0 / 16_777_216.0))
}

/// The four words of `WIDTH` elements.
#[inline(always)]
fn rounds<const WIDTH: usize>(seed: u64, step: u64, stream: u32, element: u64) -> [[u32; WIDTH]; 4] {
    /// The round constants of the paper.
    const M0: u64 = 0xD251_1F53;
    const M1: u64 = 0xCD9E_8D57;
    const W0: u32 = 0x9E37_79B9;
    const W1: u32 = 0xBB67_AE85;
    let mut c0: [u64; WIDTH] = std::array::from_fn(|i| element.wrapping_add(i as u64) & 0xFFFF_FFFF);
    let mut c1: [u64; WIDTH] = std::array::from_fn(|i| element.wrapping_add(i as u64) >> 32);
    let mut c2 = [step & 0xFFFF_FFFF; WIDTH];
    let mut c3 = [u64::from(stream); WIDTH];
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        for i in 0..WIDTH {
            let (p0, p1) = (M0 * c0[i], M1 * c2[i]);
            (c0[i], c1[i], c2[i], c3[i]) = (
                (p1 >> 32) ^ c1[i] ^ u64::from(k0),
                p1 & 0xFFFF_FFFF,
                (p0 >> 32) ^ c3[i] ^ u64::from(k1),
                p0 & 0xFFFF_FFFF,
            );
        }
        (k0, k1) = (k0.wrapping_add(W0), k1.wrapping_add(W1));
    }
    [c0, c1, c2, c3].map(|words| words.map(|word| word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ansatz_program::graph::philox;

    #[test]
    fn words_are_the_published_known_answers_at_every_level() {
        let (seed, element) = (0x299f_31d0_a409_3822, 0x85a3_08d3_243f_6a88);
        for level in Level::available() {
            let words = words(level, seed, 0x1319_8a2e, 0x0370_7344, element - 3);
            assert_eq!(words.map(|words| words[3]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1], "{level}");
        }
    }

    #[test]
    fn strips_equal_single_elements_at_every_level_and_split() {
        let expected: Vec<f32> = (0..100).map(|i| philox::uniform(7, 3, 2, 0xFFFF_FFF0 + i)).collect();
        for level in Level::available() {
            for n in [0, 1, 31, 32, 33, 100] {
                let mut out = vec![9.0; n + 1];
                // SAFETY: `out` holds n elements and the level is available.
                unsafe { uniform(level)(out.as_mut_ptr(), n, 7, 3, 2, 0xFFFF_FFF0) };
                assert_eq!(out[..n], expected[..n], "{level}");
                assert_eq!(out[n], 9.0, "wrote past the strip");
            }
        }
    }
}
