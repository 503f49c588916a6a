//! Errors of the vector functions against f64, special values, and independence of position.

use super::*;

fn exact(function: VectorFunction, x: f64) -> f64 {
    match function {
        VectorFunction::Exp => x.exp(),
        VectorFunction::Log => x.ln(),
        VectorFunction::Tanh => x.tanh(),
        VectorFunction::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        VectorFunction::Erf => libm::erf(x),
        VectorFunction::Sin => libm::sin(x),
        VectorFunction::Cos => libm::cos(x),
    }
}

fn apply(level: Level, function_: VectorFunction, x: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    // SAFETY: the level is available and the pointer covers the vector.
    unsafe { function(level, function_)(out.as_mut_ptr(), out.len()) };
    out
}

fn apply_pow(level: Level, x: &[f32], y: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    // SAFETY: as above, and `y` is as long.
    unsafe { pow(level)(out.as_mut_ptr(), y.as_ptr(), out.len()) };
    out
}

/// Error in ulp of the exact result; denormal results are measured in the least normal's ulp.
fn error_in_ulp(got: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if rounded.is_nan() || rounded.is_infinite() || got.is_nan() || got.is_infinite() {
        return if (rounded.is_nan() && got.is_nan()) || rounded == got { 0.0 } else { f64::INFINITY };
    }
    if exact.abs() < f64::from(f32::MIN_POSITIVE) && got.abs() <= f32::MIN_POSITIVE {
        return 0.0;
    }
    let exponent = (exact.abs().log2().floor() as i32).max(-126);
    (f64::from(got) - exact).abs() / 2f64.powi(exponent - 23)
}

/// Floats of both signs with evenly spread bit patterns up to `top`, and the special ones.
fn samples(top: f32, count: u32) -> Vec<f32> {
    let step = top.to_bits() / count;
    let mut x: Vec<f32> = (0..=count).map(|i| f32::from_bits(i * step)).collect();
    x.extend((0..20_000).map(|i| i as f32 * 0.001));
    x.extend([f32::MIN_POSITIVE, 1.0, 0.5, 88.7, 88.8, 87.3, 87.4, 103.9, 104.1, 1e30, f32::MAX, f32::INFINITY]);
    let negative: Vec<f32> = x.iter().map(|x| -x).collect();
    x.extend(negative);
    x.push(f32::NAN);
    x
}

#[test]
fn errors_stay_within_the_stated_bounds_at_every_level() {
    for level in Level::available() {
        for function in VectorFunction::ALL {
            let x = samples(f32::MAX, 200_000);
            let y = apply(level, function, &x);
            let (mut worst, mut at) = (0.0, 0.0);
            for (&x, &y) in x.iter().zip(&y) {
                let error = error_in_ulp(y, exact(function, f64::from(x)));
                if error > worst {
                    (worst, at) = (error, x);
                }
            }
            assert!(worst <= function.max_error(), "{function:?} {level}: {worst} ulp at {at:e}");
        }
    }
}

#[test]
fn special_values_are_exact() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let table = [
        (
            VectorFunction::Exp,
            vec![(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (1000.0, inf), (-1000.0, 0.0), (nan, nan)],
        ),
        (
            VectorFunction::Log,
            vec![(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (-1.0, nan), (-inf, nan), (inf, inf), (nan, nan)],
        ),
        (VectorFunction::Tanh, vec![(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)]),
        (VectorFunction::Sigmoid, vec![(0.0, 0.5), (inf, 1.0), (-inf, 0.0), (nan, nan)]),
        (VectorFunction::Erf, vec![(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)]),
        (VectorFunction::Sin, vec![(0.0, 0.0), (-0.0, -0.0), (inf, nan), (nan, nan)]),
        (VectorFunction::Cos, vec![(0.0, 1.0), (-0.0, 1.0), (-inf, nan), (nan, nan)]),
    ];
    for level in Level::available() {
        for (function, cases) in &table {
            for &(x, expected) in cases {
                let got = apply(level, *function, &[x])[0];
                let equal = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
                assert!(equal, "{function:?} {level} at {x}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_position_or_length() {
    let x: Vec<f32> = (0..67).map(|i| (i as f32 - 30.0) * 0.37 + if i % 9 == 0 { 1e6 } else { 0.0 }).collect();
    for level in Level::available() {
        for function in VectorFunction::ALL {
            let single: Vec<u32> = x.iter().map(|&x| apply(level, function, &[x])[0].to_bits()).collect();
            for start in 0..20 {
                for n in [0, 1, 7, 8, 15, 16, 17, 47] {
                    let mut all = x.clone();
                    // SAFETY: start + n is at most the length.
                    unsafe { super::function(level, function)(all[start..].as_mut_ptr(), n) };
                    for i in 0..x.len() {
                        let expected = if (start..start + n).contains(&i) { single[i] } else { x[i].to_bits() };
                        assert_eq!(all[i].to_bits(), expected, "{function:?} {level} element {i} of {start}+{n}");
                    }
                }
            }
        }
    }
}

#[test]
fn pow_errors_stay_within_the_stated_bound_at_every_level() {
    let bases = samples(f32::MAX, 300);
    let exponents =
        [0.0, 1.0, -1.0, 2.0, 3.0, 0.5, -0.5, 1.5, 0.999, 7.25, -13.0, 100.0, 1e-3, f32::INFINITY, f32::NAN];
    for level in Level::available() {
        for &y in &exponents {
            let got = apply_pow(level, &bases, &vec![y; bases.len()]);
            for (&x, &got) in bases.iter().zip(&got) {
                let error = error_in_ulp(got, libm::pow(f64::from(x), f64::from(y)));
                assert!(error <= POW_MAX_ERROR, "{level}: {x:e}^{y}: {got:e}, {error} ulp");
            }
        }
    }
}

#[test]
fn pow_results_do_not_depend_on_position_or_length() {
    let x: Vec<f32> = (0..41).map(|i| i as f32 * 0.3 - 1.0).collect();
    let y: Vec<f32> = (0..41).map(|i| (i % 7) as f32 * 0.5 - 1.0).collect();
    for level in Level::available() {
        let whole = apply_pow(level, &x, &y);
        for i in 0..x.len() {
            let single = apply_pow(level, &x[i..i + 1], &y[i..i + 1])[0];
            assert_eq!(single.to_bits(), whole[i].to_bits(), "{level} at {}^{}", x[i], y[i]);
        }
    }
}

#[test]
fn infinities_and_nan_out_of_numbers_are_noticed() {
    use crate::machine::float_mode::Guard;
    let noticed = |run: &mut dyn FnMut()| {
        let guard = Guard::new();
        run();
        guard.is_exceptional()
    };
    // Rows are whole vectors, and tails.
    for (level, count) in Level::available().flat_map(|level| [(level, 16), (level, 3)]) {
        let of = |f: VectorFunction, argument: f32| {
            let mut x = vec![1.5f32; count];
            x[count / 2] = argument;
            // SAFETY: the strip is `x`, the level is available.
            noticed(&mut || unsafe { function(level, f)(x.as_mut_ptr(), count) })
        };
        let power = |base: f32, exponent: f32| {
            let (mut x, mut y) = (vec![1.5f32; count], vec![1.5f32; count]);
            (x[count / 2], y[count / 2]) = (base, exponent);
            // SAFETY: as above.
            noticed(&mut || unsafe { pow(level)(x.as_mut_ptr(), y.as_ptr(), count) })
        };
        assert!(of(VectorFunction::Exp, 88.8) && of(VectorFunction::Exp, f32::MAX), "exp at {level}");
        for argument in [0.0, -0.0, -1.0, f32::MIN, -f32::MIN_POSITIVE] {
            assert!(of(VectorFunction::Log, argument), "log {argument} at {level}");
        }
        assert!(power(0.0, -1.0) && power(-1.0, 0.5) && power(1e20, 2.0) && power(1e20, 2.5), "pow at {level}");
        for f in VectorFunction::ALL {
            assert!(!of(f, 2.0) && !of(f, 1e-30), "{f:?} at {level}");
        }
        let small = [VectorFunction::Exp, VectorFunction::Log, VectorFunction::Tanh, VectorFunction::Erf];
        assert!(small.into_iter().all(|f| !of(f, 40.0)), "{level}");
        assert!(!of(VectorFunction::Exp, -1e30) && !of(VectorFunction::Sigmoid, -40.0), "{level}");
        assert!(!power(2.0, 2.0) && !power(1e-3, -1.5), "pow at {level}");
    }
}
