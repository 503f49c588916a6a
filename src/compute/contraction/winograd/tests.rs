//! Minimal filtering against a plain f64 sum: every remainder of tiles, both kinds, levels and tiles, any partition.

use super::*;
use crate::kernel::winograd::Geometry;
use crate::kernel::{BufferId, Winograd};

fn lp(extent: usize, a: i64, b: i64, c: i64) -> ProductLoop {
    ProductLoop { extent, a, b, c }
}

/// Sizes of a convolution of three taps: images, channels in and out, rows and columns out.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    images: usize,
    channels: usize,
    out: usize,
    height: usize,
    width: usize,
}

/// Which product of the convolution.
#[derive(Clone, Copy, Debug)]
enum Which {
    Forward,
    /// The input gradient, whose taps run backwards over padded gradients.
    Flipped,
    /// The weight gradient, in two leaves of images.
    Weights,
}

/// The loops of a product, and the elements of its three tensors.
fn product(which: Which, s: Sizes) -> (Product, [usize; 3]) {
    let Sizes { images, channels, out, height, width } = s;
    let (h, w, c, o) = (height as i64, width as i64, channels as i64, out as i64);
    let (row, plane, out_plane) = (w + 2, (h + 2) * (w + 2), h * w);
    let sizes = [out * channels * 9, images * channels * (plane as usize), images * out * (out_plane as usize)];
    let start = |buffer| (BufferId(buffer), 0);
    let empty = Product {
        batch: Vec::new(),
        m: Vec::new(),
        n: Vec::new(),
        k: Vec::new(),
        a: start(0),
        b: start(1),
        c: start(2),
        accumulate: false,
        bands: Vec::new(),
    };
    match which {
        Which::Forward | Which::Flipped => {
            let (sign, first) = if matches!(which, Which::Forward) { (1, 0) } else { (-1, 2 * row + 2) };
            let product = Product {
                m: vec![lp(out, c * 9, 0, out_plane)],
                n: vec![lp(images, 0, c * plane, o * out_plane), lp(height, 0, row, w), lp(width, 0, 1, 1)],
                k: vec![lp(channels, 9, plane, 0), lp(3, 3, sign * row, 0), lp(3, 1, sign, 0)],
                b: (BufferId(1), first),
                ..empty
            };
            (product, sizes)
        }
        Which::Weights => {
            let leaf = images as i64 / 2;
            let product = Product {
                batch: vec![lp(2, leaf * o * out_plane, leaf * c * plane, o * c * 9)],
                m: vec![lp(out, out_plane, 0, c * 9)],
                n: vec![lp(channels, 0, plane, 9), lp(3, 0, row, 3), lp(3, 0, 1, 1)],
                k: vec![lp(leaf as usize, o * out_plane, c * plane, 0), lp(height, w, row, 0), lp(width, 1, 1, 0)],
                ..empty
            };
            (product, [sizes[2], sizes[1], 2 * sizes[0]])
        }
    }
}

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// C by the definition.
fn direct(product: &Product, a: &[f32], b: &[f32], c: usize) -> Vec<f64> {
    let offsets = |loops: &[ProductLoop]| {
        loops.iter().fold(vec![[0i64; 3]], |points, l| {
            let next = |p: [i64; 3], i: i64| [p[0] + i * l.a, p[1] + i * l.b, p[2] + i * l.c];
            points.into_iter().flat_map(|p| (0..l.extent as i64).map(move |i| next(p, i))).collect()
        })
    };
    let mut out = vec![0.0; c];
    let [batch, m, n, k] = [&product.batch, &product.m, &product.n, &product.k].map(|loops| offsets(loops));
    for z in &batch {
        for i in &m {
            for j in &n {
                let place = |t: usize| z[t] + i[t] + j[t];
                let term = |l: &[i64; 3]| {
                    let (x, y) = (product.a.1 + place(0) + l[0], product.b.1 + place(1) + l[1]);
                    f64::from(a[x as usize]) * f64::from(b[y as usize])
                };
                out[(product.c.1 + place(2)) as usize] = k.iter().map(term).sum();
            }
        }
    }
    out
}

/// A, B, C and the filter behind each other, with gaps of NaN.
struct Case {
    winograd: Winograd,
    arena: Vec<f32>,
    starts: [usize; 4],
    expected: Vec<f64>,
}

impl Case {
    fn new(which: Which, sizes: Sizes, tile: usize) -> Case {
        let (product, [a, b, c]) = product(which, sizes);
        let geometry = Geometry::of(&product).unwrap_or_else(|| panic!("{which:?} {sizes:?} is a correlation"));
        let filter = geometry.filter_elements(tile);
        let (left, right) = (noise(a, 1), noise(b, 2));
        let expected = direct(&product, &left, &right, c);
        let mut arena = Vec::new();
        let starts = [left, right, vec![f32::NAN; c], vec![f32::NAN; filter]].map(|part| {
            let start = arena.len();
            arena.extend(part);
            arena.extend([f32::NAN; 16]);
            start
        });
        Case { winograd: Winograd { product, tile, filter: Some(BufferId(3)) }, arena, starts, expected }
    }

    /// The arena after the parts have run as `divide` says.
    fn run(&self, level: Level, divide: impl Fn(usize) -> Vec<std::ops::Range<usize>>) -> Vec<f32> {
        let mut arena = self.arena.clone();
        let [a, b, c, filter] = self.starts.map(|start| start * 4);
        let filter_plan = FilterPlan::new(&self.winograd, [a, b, c], filter, level);
        let plan = WinogradPlan::new(&self.winograd, [a, b, c], filter, level);
        let mut scratch = vec![f32::NAN; plan.scratch_bytes() / 4 + 16];
        let aligned = scratch.as_ptr().align_offset(64);
        let base: *mut u8 = arena.as_mut_ptr().cast();
        // SAFETY: the arena holds every element that the loops name, the scratch is aligned and large enough.
        unsafe {
            if matches!(plan, WinogradPlan::Windows(_)) {
                filter_plan.run(base, 0..filter_plan.parts());
            }
            for range in divide(plan.parts()) {
                scratch.fill(f32::NAN);
                plan.run(base, scratch.as_mut_ptr().add(aligned).cast(), range);
            }
        }
        arena
    }

    fn check(&self, tolerance: f64, what: &dyn std::fmt::Debug) {
        let depth: usize = self.winograd.product.k.iter().map(|l| l.extent).product();
        let tolerance = tolerance * (depth as f64).sqrt();
        for level in Level::available() {
            let got = self.run(level, |parts| std::iter::once(0..parts).collect());
            let c = self.starts[2];
            for (i, expected) in self.expected.iter().enumerate() {
                let error = (f64::from(got[c + i]) - expected).abs();
                assert!(error <= tolerance, "{level} {what:?}: element {i} is {}, not {expected}", got[c + i]);
            }
            assert!(got[c + self.expected.len()..self.starts[3]].iter().all(|x| x.is_nan()), "{level} {what:?}");
            assert!(got[..c].iter().zip(&self.arena).all(|(x, y)| x.to_bits() == y.to_bits()), "{level} {what:?}");
        }
    }
}

/// Errors per root of the summed elements, of terms below 1: a few roundings, or what tiles of four add.
fn tolerance(tile: usize) -> f64 {
    if tile == 2 { 2e-6 } else { 2e-5 }
}

const WHICH: [Which; 3] = [Which::Forward, Which::Flipped, Which::Weights];

#[test]
fn every_remainder_of_tiles_and_channels_is_right() {
    for which in WHICH {
        for (height, width) in [(3, 5), (4, 8), (5, 7), (6, 32), (2, 33), (9, 2), (2, 40), (8, 70)] {
            for (channels, out) in [(1, 1), (3, 5), (17, 8), (16, 33)] {
                let sizes = Sizes { images: 4, channels, out, height, width };
                for tile in [2, 4] {
                    Case::new(which, sizes, tile).check(tolerance(tile), &(which, sizes, tile));
                }
            }
        }
    }
}

#[test]
fn many_channels_cross_all_blocks() {
    for which in WHICH {
        let sizes = Sizes { images: 6, channels: 130, out: 260, height: 4, width: 6 };
        for tile in [2, 4] {
            Case::new(which, sizes, tile).check(tolerance(tile), &(which, sizes, tile));
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_partition_and_order() {
    for which in WHICH {
        let sizes = Sizes { images: 6, channels: 20, out: 260, height: 9, width: 11 };
        for level in Level::available() {
            let case = Case::new(which, sizes, 2);
            let bits = |arena: Vec<f32>| arena.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let whole = bits(case.run(level, |parts| std::iter::once(0..parts).collect()));
            let reversed = bits(case.run(level, |parts| (0..parts).rev().map(|i| i..i + 1).collect()));
            assert!(whole == reversed, "{level} {which:?}");
        }
    }
}

#[test]
fn tiles_of_two_are_nearly_as_exact_as_a_direct_sum() {
    let sizes = Sizes { images: 2, channels: 64, out: 16, height: 16, width: 16 };
    let level = crate::machine::detect();
    let error = |tile: usize| {
        let case = Case::new(Which::Forward, sizes, tile);
        let got = case.run(level, |parts| std::iter::once(0..parts).collect());
        let got = &got[case.starts[2]..];
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let wrong = squares(&mut case.expected.iter().zip(got).map(|(x, y)| x - f64::from(*y)));
        (wrong / squares(&mut case.expected.iter().copied())).sqrt()
    };
    assert!(error(2) < 1e-6, "{}", error(2));
    assert!(error(4) < 1e-5, "{}", error(4));
}
