//! Transcendental functions over strips of f32, in place.
//!
//! Input: a strip. Output: the function of each element. Invariants: an element's result depends on its value and the
//! level alone, not on its position; a level's results stay within the errors of [`VectorFunction::max_error`]; where a
//! finite argument gives an infinity or NaN, the thread's [`float_mode`](crate::machine::float_mode) notices.
//! Denormal arguments and results may be taken for zero, as the calling thread's flush mode asks.
#![allow(unsafe_op_in_unsafe_fn)]

use crate::machine::float_mode::note_exception;
use crate::machine::lanes::Lanes;
use crate::machine::{Level, at_level};

/// `x[i] = f(x[i])` for `i < n`.
///
/// # Safety
/// `x` is valid for `n` reads and writes, and the level that gave the function is available.
pub type UnaryFn = unsafe extern "C" fn(x: *mut f32, n: usize);

/// `x[i] = x[i] ^ y[i]` for `i < n`.
///
/// # Safety
/// `x` is valid for `n` reads and writes, `y` for `n` reads; they do not overlap unless equal; the level is available.
pub type PowFn = unsafe extern "C" fn(x: *mut f32, y: *const f32, n: usize);

/// The functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorFunction {
    /// eˣ.
    Exp,
    /// ln x; −∞ at 0, NaN below.
    Log,
    /// tanh x.
    Tanh,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// The error function.
    Erf,
    /// sin x.
    Sin,
    /// cos x.
    Cos,
}

/// The largest error of [`pow`] in units in the last place.
pub const POW_MAX_ERROR: f64 = 4.0;

impl VectorFunction {
    /// All functions.
    pub const ALL: [VectorFunction; 7] = [
        VectorFunction::Exp,
        VectorFunction::Log,
        VectorFunction::Tanh,
        VectorFunction::Sigmoid,
        VectorFunction::Erf,
        VectorFunction::Sin,
        VectorFunction::Cos,
    ];

    /// The largest error in units in the last place of the exact result, at every level.
    pub fn max_error(self) -> f64 {
        match self {
            VectorFunction::Exp | VectorFunction::Log | VectorFunction::Sin | VectorFunction::Cos => 2.0,
            VectorFunction::Tanh | VectorFunction::Sigmoid | VectorFunction::Erf => 4.0,
        }
    }
}

/// A function of one argument, for use on lanes.
trait Function {
    unsafe fn apply<V: Lanes>(x: V) -> V;

    /// Bit i is set where lane i must be computed by [`Function::scalar`] instead.
    #[inline(always)]
    unsafe fn exceptions<V: Lanes>(_x: V) -> u32 {
        0
    }

    fn scalar(x: f32) -> f32 {
        x
    }
}

#[inline(always)]
unsafe fn map<V: Lanes, F: Function>(x: *mut f32, n: usize) {
    let mut i = 0;
    while i < n {
        let count = (n - i).min(V::COUNT);
        let strip = x.add(i);
        if count == V::COUNT {
            let value = V::load(strip);
            let mut exceptions = F::exceptions(value);
            F::apply(value).store(strip);
            if exceptions != 0 {
                let mut arguments = [0.0f32; 16];
                value.store(arguments.as_mut_ptr());
                while exceptions != 0 {
                    let lane = exceptions.trailing_zeros() as usize;
                    *strip.add(lane) = F::scalar(arguments[lane]);
                    exceptions &= exceptions - 1;
                }
            }
        } else {
            // The tail goes through the same code in a padded copy.
            let mut padded = [0.5f32; 16];
            std::ptr::copy_nonoverlapping(strip, padded.as_mut_ptr(), count);
            let value = V::load(padded.as_ptr());
            let exceptions = F::exceptions(value);
            F::apply(value).store_first(strip, count);
            for lane in (0..count).filter(|lane| exceptions >> lane & 1 != 0) {
                *strip.add(lane) = F::scalar(padded[lane]);
            }
        }
        i += count;
    }
}

/// A function as code without branches; `None` where some arguments need more.
///
/// # Safety
/// As [`Lanes`]: the implementor's instruction set.
pub unsafe fn straight<V: Lanes>(function: VectorFunction, x: V) -> Option<V> {
    match function {
        VectorFunction::Exp => Some(Exp::apply(x)),
        VectorFunction::Log => Some(Log::apply(x)),
        VectorFunction::Tanh => Some(Tanh::apply(x)),
        VectorFunction::Sigmoid => Some(Sigmoid::apply(x)),
        VectorFunction::Erf => Some(Erf::apply(x)),
        VectorFunction::Sin | VectorFunction::Cos => None,
    }
}

/// Horner's rule, highest coefficient first.
#[inline(always)]
unsafe fn polynomial<V: Lanes, const N: usize>(x: V, coefficients: [f32; N]) -> V {
    let mut sum = V::splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = sum.mul_add(x, V::splat(coefficient));
    }
    sum
}

#[inline(always)]
unsafe fn abs<V: Lanes>(x: V) -> V {
    x.and(V::bits(0x7FFF_FFFF))
}

/// `magnitude` with the sign bit of `sign`; `magnitude`'s sign bit is clear.
#[inline(always)]
unsafe fn with_sign<V: Lanes>(magnitude: V, sign: V) -> V {
    magnitude.or(sign.and(V::bits(0x8000_0000)))
}

/// eˣ after Cephes `expf`: x = n·ln 2 + r, polynomial in r, times 2ⁿ.
#[inline(always)]
unsafe fn exp<V: Lanes>(x: V) -> V {
    // Beyond these the result is 0 or infinite. A NaN passes, being the second operand.
    let x = V::splat(-104.0).max(V::splat(89.0).min(x));
    let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(V::splat(-0.693_359_4), x);
    let r = n.mul_add(V::splat(2.121_944_4e-4), r);
    let tail = polynomial(r, [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    tail.mul(r).mul_add(r, r).add(V::splat(1.0)).scale(n)
}

/// ln x after Cephes `logf`: x = 2ᵉ·m with m in [√½, √2).
#[inline(always)]
unsafe fn log<V: Lanes>(x: V) -> V {
    // The bits below are of the magnitude. Denormals are scaled to normals first.
    let magnitude = abs(x);
    let small = V::splat(f32::MIN_POSITIVE);
    let scaled = magnitude.select_less(small, magnitude.mul(V::splat(8_388_608.0)), magnitude);
    let shift = magnitude.select_less(small, V::splat(-23.0), V::splat(0.0));
    let above = scaled.int_sub(V::splat(std::f32::consts::FRAC_1_SQRT_2));
    let exponent = above.shift_right::<23>();
    let mantissa = scaled.int_sub(exponent.shift_left::<23>());
    let e = exponent.int_to_float().add(shift);
    let f = mantissa.sub(V::splat(1.0));
    let square = f.mul(f);
    let p = polynomial(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let tail = p.mul(f).mul(square);
    let tail = e.mul_add(V::splat(-2.121_944_4e-4), tail);
    let tail = square.mul_add(V::splat(-0.5), tail);
    let value = e.mul_add(V::splat(0.693_359_4), f.add(tail));
    // +∞ and NaN give themselves. 0 gives −∞ and what is below NaN, both by arithmetic, which leaves its flags.
    let value = x.select_less(V::splat(f32::INFINITY), value, x);
    let value = x.select_equal(V::splat(0.0), V::splat(f32::MAX), V::splat(1.0)).mul(value);
    let value = x.select_less(V::splat(0.0), V::splat(f32::INFINITY), V::splat(0.0)).add(value);
    x.select_less(V::splat(0.0), V::splat(f32::NEG_INFINITY), V::splat(0.0)).add(value)
}

/// tanh x after Cephes `tanhf`: an odd polynomial near 0, 1 − 2/(e²ˣ + 1) beyond.
#[inline(always)]
unsafe fn tanh<V: Lanes>(x: V) -> V {
    let magnitude = abs(x);
    let square = x.mul(x);
    let p = polynomial(square, [-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = p.mul(square).mul_add(magnitude, magnitude);
    let e = exp(magnitude.add(magnitude));
    let far = V::splat(1.0).sub(V::splat(2.0).div(e.add(V::splat(1.0))));
    // A NaN fails the comparison and comes back through `far`.
    with_sign(magnitude.select_less(V::splat(0.625), near, far), x)
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
unsafe fn sigmoid<V: Lanes>(x: V) -> V {
    let e = exp(x.xor(V::bits(0x8000_0000)));
    V::splat(1.0).div(e.add(V::splat(1.0)))
}

/// erf x after N. Juffa's `erff` (1 ulp with an exact exponential): an odd polynomial near 0,
/// 1 − exp(polynomial in |x|) beyond.
#[inline(always)]
unsafe fn erf<V: Lanes>(x: V) -> V {
    let t = abs(x);
    let s = x.mul(x);
    let r = V::splat(-1.728_534_7e-5).mul_add(t, V::splat(3.831_972_6e-4));
    let u = V::splat(-3.883_964_4e-3).mul_add(t, V::splat(2.425_462_2e-2));
    let r = r.mul_add(s, u);
    let r = r.mul_add(t, V::splat(-1.067_778_8e-1));
    let r = r.mul_add(t, V::splat(-6.348_467e-1));
    let r = r.mul_add(t, V::splat(-1.287_175_1e-1));
    let r = r.mul_add(t, t.xor(V::bits(0x8000_0000)));
    let far = with_sign(V::splat(1.0).sub(exp(r)), x);
    let near =
        polynomial(s, [-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 1.128_199_3e-1, -3.761_253_4e-1, 1.283_791_7e-1]);
    let near = near.mul_add(x, x);
    V::splat(0.927_734_4).select_less(t, far, near)
}

/// Up to this magnitude the three-part reduction of [`sine`] is exact enough; beyond it lanes go to `libm`.
const REDUCTION_BOUND: f32 = 65536.0;

/// sin(x + quarter·π/2) after Cephes `sinf`, `cosf`: x = q·π/2 + r in three parts of π/2.
#[inline(always)]
unsafe fn sine<V: Lanes>(x: V, quarter: u32) -> V {
    let q = x.mul(V::splat(std::f32::consts::FRAC_2_PI)).round();
    let r = q.mul_add(V::splat(-1.570_796_4), x);
    let r = q.mul_add(V::splat(4.371_139e-8), r);
    let r = q.mul_add(V::splat(1.715_124_9e-15), r);
    let quadrant = q.to_int().int_add(V::bits(quarter));
    let square = r.mul(r);
    let sin = polynomial(square, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]).mul(square).mul_add(r, r);
    let cos = polynomial(square, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]).mul(square);
    let cos = cos.mul_add(square, square.mul_add(V::splat(-0.5), V::splat(1.0)));
    let odd = quadrant.and(V::bits(1)).int_to_float();
    let value = odd.select_equal(V::splat(0.0), sin, cos);
    let sign = quadrant.and(V::bits(2)).shift_left::<30>();
    value.xor(sign)
}

struct Exp;
struct Log;
struct Tanh;
struct Sigmoid;
struct Erf;
struct Sin;
struct Cos;

macro_rules! plain_function {
    ($name:ident, $body:ident) => {
        impl Function for $name {
            #[inline(always)]
            unsafe fn apply<V: Lanes>(x: V) -> V {
                $body(x)
            }
        }
    };
}
plain_function!(Exp, exp);
plain_function!(Log, log);
plain_function!(Tanh, tanh);
plain_function!(Sigmoid, sigmoid);
plain_function!(Erf, erf);

impl Function for Sin {
    #[inline(always)]
    unsafe fn apply<V: Lanes>(x: V) -> V {
        // Keeps the sign of −0, which the reduction loses.
        x.select_equal(V::splat(0.0), x, sine(x, 0))
    }
    #[inline(always)]
    unsafe fn exceptions<V: Lanes>(x: V) -> u32 {
        abs(x).not_less_mask(V::splat(REDUCTION_BOUND))
    }
    fn scalar(x: f32) -> f32 {
        libm::sinf(x)
    }
}

impl Function for Cos {
    #[inline(always)]
    unsafe fn apply<V: Lanes>(x: V) -> V {
        sine(x, 1)
    }
    #[inline(always)]
    unsafe fn exceptions<V: Lanes>(x: V) -> u32 {
        abs(x).not_less_mask(V::splat(REDUCTION_BOUND))
    }
    fn scalar(x: f32) -> f32 {
        libm::cosf(x)
    }
}

/// xʸ for normal x > 0 as e^(y·ln x), with ln x as an unevaluated sum of two f32 (after N. Juffa's `powf`).
#[inline(always)]
unsafe fn positive_power<V: Lanes>(x: V, y: V) -> V {
    let above = x.int_sub(V::splat(std::f32::consts::FRAC_1_SQRT_2));
    let exponent = above.shift_right::<23>();
    let m = x.int_sub(exponent.shift_left::<23>());
    let i = exponent.int_to_float();
    // q = (m − 1)/(m + 1) as high and low; ln m = 2·atanh q.
    let negative = V::bits(0x8000_0000);
    let p = m.add(V::splat(1.0));
    let m = m.sub(V::splat(1.0));
    let r = V::splat(1.0).div(p);
    let high = r.mul(m);
    let low = high.mul_add(m.xor(negative), high.mul_add(V::splat(-2.0), m)).mul(r);
    let s = high.mul(high);
    let series = polynomial(s, [0.129_333_5, 0.141_992_8, 0.200_014_83, 0.333_333_25]);
    let t = high.mul_add(low.add(low), high.mul_add(high, s.xor(negative)));
    let p = s.mul(high);
    let t = s.mul_add(low, t.mul_add(high, s.mul_add(high, p.xor(negative))));
    let s = p.mul_add(series, t.mul_add(series, low));
    let r = high.add(high);
    let t = V::splat(std::f32::consts::LN_2).mul_add(i, r);
    let p = V::splat(-std::f32::consts::LN_2).mul_add(i, t);
    let s = V::splat(-1.904_654_2e-9).mul_add(i, V::splat(2.0).mul_add(s, r.sub(p)));
    let log_high = t.add(s);
    let log_low = t.sub(log_high).add(s);
    let power = log_high.mul(y);
    let rest = log_low.mul_add(y, log_high.mul_add(y, power.xor(negative)));
    let value = exp(power);
    value.mul_add(rest, value)
}

/// Bit i is set where lane i of the power needs the scalar function: x zero, negative, denormal, infinite or NaN;
/// y not finite; a result near the ends of the range.
#[inline(always)]
unsafe fn power_exceptions<V: Lanes>(x: V, y: V, power_bound: V) -> u32 {
    let top = V::splat(f32::MAX);
    // x below the least normal makes the first test true; NaN makes a test true.
    let small = V::splat(f32::MIN_POSITIVE).not_less_mask(x);
    small | x.not_less_mask(top) | abs(y).not_less_mask(top) | power_bound.not_less_mask(V::splat(80.0))
}

#[inline(always)]
unsafe fn power<V: Lanes>(x: *mut f32, y: *const f32, n: usize) {
    let mut i = 0;
    while i < n {
        let count = (n - i).min(V::COUNT);
        let mut bases = [1.0f32; 16];
        let mut exponents = [1.0f32; 16];
        std::ptr::copy_nonoverlapping(x.add(i), bases.as_mut_ptr(), count);
        std::ptr::copy_nonoverlapping(y.add(i), exponents.as_mut_ptr(), count);
        let (a, b) = (V::load(bases.as_ptr()), V::load(exponents.as_ptr()));
        // |y·ln x| to within one part in a hundred: the bits of x are a piecewise linear log2.
        let log2 = a.int_sub(V::bits(0x3F80_0000)).int_to_float().mul(V::splat(1.0 / 8_388_608.0));
        let mut exceptions = power_exceptions(a, b, abs(log2.mul(b)).mul(V::splat(0.7)));
        positive_power(a, b).store_first(x.add(i), count);
        exceptions &= ((1u64 << count) - 1) as u32;
        while exceptions != 0 {
            let lane = exceptions.trailing_zeros() as usize;
            *x.add(i + lane) = scalar_power(bases[lane], exponents[lane]);
            exceptions &= exceptions - 1;
        }
        i += count;
    }
}

/// The power where lanes cannot: common cases first, `libm` for the rest.
fn scalar_power(x: f32, y: f32) -> f32 {
    if y == 2.0 {
        return x * x;
    }
    if x == 0.0 && y > 0.0 && y.fract() != 0.0 {
        return 0.0;
    }
    let value = libm::powf(x, y);
    if !value.is_finite() {
        note_exception();
    }
    value
}

/// The strip function of a level.
pub fn function(level: Level, function: VectorFunction) -> UnaryFn {
    macro_rules! strip {
        ($function:ident) => {
            at_level!(level, extern "C" fn(x: *mut f32, n: usize), V => map::<V, $function>(x, n))
        };
    }
    match function {
        VectorFunction::Exp => strip!(Exp),
        VectorFunction::Log => strip!(Log),
        VectorFunction::Tanh => strip!(Tanh),
        VectorFunction::Sigmoid => strip!(Sigmoid),
        VectorFunction::Erf => strip!(Erf),
        VectorFunction::Sin => strip!(Sin),
        VectorFunction::Cos => strip!(Cos),
    }
}

/// The power of a level; error at most [`POW_MAX_ERROR`].
pub fn pow(level: Level) -> PowFn {
    at_level!(level, extern "C" fn(x: *mut f32, y: *const f32, n: usize), V => power::<V>(x, y, n))
}

#[cfg(test)]
#[path = "vector_tests.rs"]
mod tests;
