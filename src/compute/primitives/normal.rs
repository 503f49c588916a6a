//! Normal numbers from pairs of uniform ones, many at a time (Box and Muller 1958).
//!
//! Input: uniform numbers u, v in [0, 1). Output: `(mean + deviation · z) as f32` with z = √(−2 ln(1 − u)) cos 2πv.
//! Invariant: the bits are those of the caller's exact formula at every level, position and length. They are computed
//! in f64 by own polynomials; where an error of [`ERROR`] could change the rounding to f32, the caller's formula decides
//! (Ziv, "Fast evaluation of elementary mathematical functions with correctly rounded last bit", 1991).
//!
//! The logarithm and the cosine follow fdlibm's `e_log.c`, `k_sin.c` and `k_cos.c` (Sun Microsystems 1993), whose
//! errors stay below one unit in the last place.

use crate::machine::{Level, at_level, detect};

/// Relative distance that z may have from the caller's: both logarithms and cosines within 2⁻⁵² of the truth, halved by
/// the root, and four roundings make less than 2⁻⁴⁹.
const ERROR: f64 = 1.0 / (1u64 << 48) as f64;

/// Elements computed together: some vectors of each level.
const BLOCK: usize = 32;

/// What becomes of a standard normal number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Added last.
    pub mean: f64,
    /// The factor.
    pub deviation: f64,
    /// Where |z| exceeds it, the caller's formula decides; infinity for never.
    pub limit: f64,
}

/// Fills `out` from as many pairs; `exact(i)` is the formula itself for element `i`, called rarely.
///
/// # Panics
/// If the lengths differ.
pub fn fill(level: Level, u: &[f64], v: &[f64], scale: Scale, out: &mut [f32], exact: &dyn Fn(usize) -> f32) {
    assert!(u.len() == out.len() && v.len() == out.len(), "a pair for each element");
    let block =
        at_level!(level.min(detect()), fn(u: &Block, v: &Block, scale: Scale) -> Certain, _V => normals(u, v, scale));
    for start in (0..out.len()).step_by(BLOCK) {
        let length = BLOCK.min(out.len() - start);
        let (mut a, mut b) = ([0.0; BLOCK], [0.0; BLOCK]);
        a[..length].copy_from_slice(&u[start..start + length]);
        b[..length].copy_from_slice(&v[start..start + length]);
        // SAFETY: the level is at most that of this machine.
        let (numbers, certain) = unsafe { block(&a, &b, scale) };
        out[start..start + length].copy_from_slice(&numbers[..length]);
        for i in (0..length).filter(|&i| certain[i] == 0) {
            out[start + i] = exact(start + i);
        }
    }
}

type Block = [f64; BLOCK];

/// Numbers, and 1 where they are certain.
type Certain = ([f32; BLOCK], [u32; BLOCK]);

#[inline(always)]
fn normals(u: &Block, v: &Block, scale: Scale) -> Certain {
    let (mut out, mut certain) = ([0.0; BLOCK], [0; BLOCK]);
    for i in 0..BLOCK {
        let z = (-2.0 * logarithm(1.0 - u[i])).sqrt() * cosine(std::f64::consts::TAU * v[i]);
        let rounded = |factor: f64| (scale.mean + scale.deviation * (z * factor)) as f32;
        let (low, high) = (rounded(1.0 - ERROR), rounded(1.0 + ERROR));
        let inside = z.abs() * (1.0 + ERROR) <= scale.limit;
        out[i] = low;
        certain[i] = u32::from((low.to_bits() == high.to_bits()) & inside);
    }
    (out, certain)
}

/// ln x for normal x in (0, 1].
#[inline(always)]
fn logarithm(x: f64) -> f64 {
    /// The leading bits of ln 2, and the rest.
    const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    /// Coefficients of (ln(1 + f) − 2s) / s in s² with s = f / (2 + f).
    const C: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    /// Bits of 1 less those of √½: moves the exponent's step to √½.
    const SHIFT: u64 = 0x3ff0_0000_0000_0000 - 0x3fe6_a09e_0000_0000;
    let exponent = (x.to_bits().wrapping_add(SHIFT) >> 52).wrapping_sub(0x3ff);
    let f = f64::from_bits(x.to_bits().wrapping_sub(exponent << 52)) - 1.0;
    let k = small_integer(exponent);
    let half = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (C[1] + w * (C[3] + w * C[5]));
    let odd = z * (C[0] + w * (C[2] + w * (C[4] + w * C[6])));
    s * (half + odd + even) + k * LN2[1] - half + f + k * LN2[0]
}

/// The number of a two's complement integer of small magnitude.
#[inline(always)]
fn small_integer(bits: u64) -> f64 {
    /// 1.5 · 2⁵², whose last place is 1.
    const ANCHOR: f64 = 6_755_399_441_055_744.0;
    f64::from_bits(ANCHOR.to_bits().wrapping_add(bits)) - ANCHOR
}

/// cos x for x in [0, 2π].
#[inline(always)]
fn cosine(x: f64) -> f64 {
    /// π/2 in three parts; a multiple of the first or the second by up to 4 is exact.
    const HALF_PI: [f64; 3] = [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_795_950_6e-21];
    const S: [f64; 6] = [
        -1.666_666_666_666_663_2e-1,
        8.333_333_333_322_49e-3,
        -1.984_126_982_985_795e-4,
        2.755_731_370_707_006_8e-6,
        -2.505_076_025_340_686_3e-8,
        1.589_690_995_211_55e-10,
    ];
    const C: [f64; 6] = [
        4.166_666_666_666_66e-2,
        -1.388_888_888_887_411e-3,
        2.480_158_728_947_673e-5,
        -2.755_731_435_139_066_3e-7,
        2.087_572_321_298_175e-9,
        -1.135_964_755_778_819_5e-11,
    ];
    /// Adding and subtracting it rounds to an integer.
    const ANCHOR: f64 = 6_755_399_441_055_744.0;
    let k = (x * std::f64::consts::FRAC_2_PI + ANCHOR) - ANCHOR;
    let r = ((x - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2];
    let z = r * r;
    let sine = r + r * z * (S[0] + z * (S[1] + z * (S[2] + z * (S[3] + z * (S[4] + z * S[5])))));
    let half = 0.5 * z;
    let w = 1.0 - half;
    let tail = z * z * (C[0] + z * (C[1] + z * (C[2] + z * (C[3] + z * (C[4] + z * C[5])))));
    let cosine = w + (((1.0 - w) - half) + tail);
    let magnitude = if (k == 1.0) | (k == 3.0) { sine } else { cosine };
    if (k == 1.0) | (k == 2.0) { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs that cover both ends of the interval, multiples of 1/8, and many between.
    fn pairs() -> (Vec<f64>, Vec<f64>) {
        let ends = [0.0, f64::EPSILON / 2.0, 1.0 / 16_777_216.0, 0.125, 0.25, 0.5, 0.75, 1.0 - f64::EPSILON / 2.0];
        let step = |bits: u64, by: u64| (bits.wrapping_mul(by) >> 11) as f64 / (1u64 << 53) as f64;
        let many = (0..200_000u64).map(|i| (step(i, 0x9E37_79B9_7F4A_7C15), step(i, 0xD1B5_4A32_D192_ED03)));
        let grid = ends.iter().flat_map(|u| ends.iter().map(|v| (*u, *v)));
        grid.chain(many).unzip()
    }

    fn formula(u: f64, v: f64) -> f64 {
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    #[test]
    fn numbers_have_the_bits_of_the_formula_at_every_level() {
        let (u, v) = pairs();
        let scale = Scale { mean: 0.3, deviation: 0.02, limit: 2.0 };
        let exact = |i: usize| {
            let z: f64 = formula(u[i], v[i]);
            if z.abs() <= scale.limit { (scale.mean + scale.deviation * z) as f32 } else { f32::NAN }
        };
        for level in Level::available() {
            let mut out = vec![0.0; u.len()];
            fill(level, &u, &v, scale, &mut out, &exact);
            for (i, x) in out.iter().enumerate() {
                assert_eq!(x.to_bits(), exact(i).to_bits(), "{level}: {} {}", u[i], v[i]);
            }
        }
    }

    #[test]
    fn the_formula_is_asked_rarely() {
        let (u, v) = pairs();
        let scale = Scale { mean: 0.0, deviation: 1.0, limit: f64::INFINITY };
        for level in Level::available() {
            let (mut out, calls) = (vec![0.0; u.len()], std::cell::Cell::new(0));
            fill(level, &u, &v, scale, &mut out, &|_| {
                calls.set(calls.get() + 1);
                0.0
            });
            assert!(calls.get() < 100, "{level}: {} of {}", calls.get(), u.len());
        }
    }

    #[test]
    fn own_functions_stay_within_the_promised_error() {
        let (u, v) = pairs();
        for (u, v) in u.into_iter().zip(v) {
            let (ours, theirs) = (logarithm(1.0 - u), (1.0 - u).ln());
            assert!((ours - theirs).abs() <= 2.0 * f64::EPSILON * theirs.abs(), "ln {}", 1.0 - u);
            let x = std::f64::consts::TAU * v;
            let (ours, theirs) = (cosine(x), x.cos());
            assert!((ours - theirs).abs() <= 2.0 * f64::EPSILON * theirs.abs(), "cos {x}");
        }
    }
}
