//! Products against a plain f64 loop: every tail, stride pattern and level, and independence of the partition.

use super::*;
use crate::kernel::{BufferId, Product, ProductLoop};

/// Numbers in [-1, 1) that look random.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

fn lp(extent: usize, a: i64, b: i64, c: i64) -> ProductLoop {
    ProductLoop { extent, a, b, c }
}

/// A product over three buffers that lie one behind the other.
#[derive(Clone)]
struct Case {
    product: Product,
    sizes: [usize; 3],
    /// Elements of the three that are other numbers than noise.
    changed: Vec<(usize, usize, f32)>,
}

impl Case {
    fn new(batch: &[ProductLoop], m: &[ProductLoop], n: &[ProductLoop], k: &[ProductLoop]) -> Case {
        let (batch, m, n, k) = (batch.to_vec(), m.to_vec(), n.to_vec(), k.to_vec());
        let all: Vec<ProductLoop> = batch.iter().chain(&m).chain(&n).chain(&k).copied().collect();
        let size = |stride: fn(&ProductLoop) -> i64| {
            1 + all.iter().map(|l| l.extent.saturating_sub(1) as i64 * stride(l)).sum::<i64>() as usize
        };
        let sizes = [size(|l| l.a), size(|l| l.b), size(|l| l.c)];
        let buffer = |i| (BufferId(i), 0);
        let product =
            Product { batch, m, n, k, a: buffer(0), b: buffer(1), c: buffer(2), accumulate: false, bands: Vec::new() };
        Case { product, sizes, changed: Vec::new() }
    }

    fn accumulating(mut self) -> Case {
        self.product.accumulate = true;
        self
    }

    /// The arena: A, B and C, each followed by a gap that stays NaN.
    fn arena(&self) -> (Vec<f32>, [usize; 3]) {
        let mut arena = Vec::new();
        let starts = [0, 1, 2].map(|i| {
            let start = arena.len();
            arena.extend(noise(self.sizes[i], i as u32 + 1));
            arena.extend([f32::NAN; 3]);
            start
        });
        self.changed.iter().for_each(|&(operand, at, number)| arena[starts[operand] + at] = number);
        (arena, starts)
    }

    fn expected(&self) -> Vec<f64> {
        let (arena, starts) = self.arena();
        let p = &self.product;
        let mut out: Vec<f64> = arena.iter().map(|&x| f64::from(x)).collect();
        let offsets = |loops: &[ProductLoop]| {
            loops.iter().fold(vec![[0i64; 3]], |points, l| {
                let next = |p: [i64; 3], i: i64| [p[0] + i * l.a, p[1] + i * l.b, p[2] + i * l.c];
                points.into_iter().flat_map(|p| (0..l.extent as i64).map(move |i| next(p, i))).collect()
            })
        };
        let (batch, m, n, k) = (offsets(&p.batch), offsets(&p.m), offsets(&p.n), offsets(&p.k));
        for z in &batch {
            for i in &m {
                for j in &n {
                    let mut sum = 0.0;
                    for l in &k {
                        let at = |t: usize| starts[t] + (z[t] + i[t] + j[t] + l[t]) as usize;
                        let summand = f64::from(arena[at(0)]) * f64::from(arena[at(1)]);
                        // Only what a band leaves out is NaN.
                        sum += if summand.is_nan() { 0.0 } else { summand };
                    }
                    let at = starts[2] + (z[2] + i[2] + j[2]) as usize;
                    out[at] = sum + if p.accumulate { out[at] } else { 0.0 };
                }
            }
        }
        out
    }

    fn plan(&self, level: Level) -> ProductPlan {
        let (_, starts) = self.arena();
        ProductPlan::new(&self.product, starts[0] * 4, starts[1] * 4, starts[2] * 4, level)
    }

    /// The arena after the ranges of parts have run in the given order.
    fn run(&self, level: Level, divide: impl Fn(usize) -> Vec<Range<usize>>) -> Vec<f32> {
        self.run_plan(&self.plan(level), divide)
    }

    fn run_plan(&self, plan: &ProductPlan, divide: impl Fn(usize) -> Vec<Range<usize>>) -> Vec<f32> {
        let (mut arena, _) = self.arena();
        let mut scratch = vec![f32::NAN; plan.scratch_bytes() / 4 + 16];
        let aligned = scratch.as_ptr().align_offset(64);
        for range in divide(plan.parts()) {
            scratch.fill(f32::NAN);
            // SAFETY: the arena holds every element the loops name, the scratch is aligned and large enough.
            unsafe { plan.run(arena.as_mut_ptr().cast(), scratch.as_mut_ptr().add(aligned).cast(), range) };
        }
        arena
    }

    /// Checks every level; C within rounding of the f64 sum, everything else untouched.
    fn check(&self) {
        let expected = self.expected();
        let depth: usize = self.product.k.iter().map(|l| l.extent).product();
        // Eight standard errors. Rounding a sum costs ε/√12 of its size; where a sum grows evenly to S, `depth` of them
        // cost ε·S·√depth/6, and sums that stay near zero are of terms below 1.
        let rounding = 8.0 * (depth as f64 + 1.0).sqrt() * f64::from(f32::EPSILON);
        for level in Level::available() {
            let got = self.run(level, |parts| std::iter::once(0..parts).collect());
            for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
                let tolerance = rounding * (expected.abs() / 6.0).max(1.0);
                let equal = (f64::from(got) - expected).abs() <= tolerance || (got.is_nan() && expected.is_nan());
                assert!(equal, "{level}: element {i} is {got}, not {expected}; {:?}", self.product);
            }
        }
    }
}

/// The three plain matrix products; leading dimensions padded.
fn matrices(m: usize, n: usize, k: usize, pad: i64) -> [Case; 4] {
    let (mi, ni, ki) = (m as i64 + pad, n as i64 + pad, k as i64 + pad);
    let plain = |am, ak, bk, bn| Case::new(&[], &[lp(m, am, 0, ni)], &[lp(n, 0, bn, 1)], &[lp(k, ak, bk, 0)]);
    [plain(ki, 1, ni, 1), plain(ki, 1, 1, ki), plain(1, mi, ni, 1), plain(1, mi, 1, ki)]
}

#[test]
fn every_tail_of_rows_columns_and_depth_is_exact() {
    for i in 1..=70usize {
        for (m, n, k) in [(i, 19, 5), (9, i, 6), (7, 21, i), (i, i, 3), (3, i, i)] {
            for case in matrices(m, n, k, (i % 3) as i64) {
                case.check();
            }
        }
    }
}

#[test]
fn large_products_cross_all_blocks() {
    for case in matrices(70, 1100, 400, 0).into_iter().chain(matrices(700, 90, 700, 5)) {
        case.check();
        case.accumulating().check();
    }
}

#[test]
fn accumulation_adds_to_what_was_there() {
    for case in matrices(13, 50, 30, 0).into_iter().chain(matrices(33, 7, 900, 1)) {
        case.accumulating().check();
    }
}

#[test]
fn transposed_results_are_written_in_place() {
    for (m, n, k) in [(5, 9, 11), (40, 33, 20), (64, 100, 350)] {
        let (mi, ki) = (m as i64, k as i64);
        let c_by_columns = |am, ak| Case::new(&[], &[lp(m, am, 0, 1)], &[lp(n, 0, ki, mi)], &[lp(k, ak, 1, 0)]);
        c_by_columns(ki, 1).check();
        c_by_columns(1, mi).check();
        // Neither direction of C is contiguous.
        let spread = Case::new(&[], &[lp(m, ki, 0, 2)], &[lp(n, 0, ki, 2 * mi)], &[lp(k, 1, 1, 0)]);
        spread.check();
        spread.accumulating().check();
    }
}

/// A convolution without padding of `images` NCHW images, with its two gradients.
#[allow(clippy::too_many_arguments)]
fn convolution(images: usize, c: usize, side: usize, o: usize, kernel: usize, stride: i64, dilation: i64) -> [Case; 3] {
    let span = (kernel as i64 - 1) * dilation + 1;
    let out = ((side as i64 - span) / stride + 1) as usize;
    let (s, q, w) = (side as i64, out as i64, kernel as i64);
    let (ci, oi) = (c as i64, o as i64);
    // x, w and y as A, B and C in the order of each product's operands.
    let image = |x: i64, y: i64| (images, x, y);
    let n = image(ci * s * s, oi * q * q);
    let forward = Case::new(
        &[],
        &[lp(o, ci * w * w, 0, q * q)],
        &[lp(n.0, 0, n.1, n.2), lp(out, 0, stride * s, q), lp(out, 0, stride, 1)],
        &[lp(c, w * w, s * s, 0), lp(kernel, w, dilation * s, 0), lp(kernel, 1, dilation, 0)],
    );
    let weights = Case::new(
        &[],
        &[lp(o, q * q, 0, ci * w * w)],
        &[lp(c, 0, s * s, w * w), lp(kernel, 0, dilation * s, w), lp(kernel, 0, dilation, 1)],
        &[lp(n.0, n.2, n.1, 0), lp(out, q, stride * s, 0), lp(out, 1, stride, 0)],
    );
    // Images as a batch that the weights do not see.
    let batched = Case::new(
        &[lp(n.0, 0, n.1, n.2)],
        &[lp(o, ci * w * w, 0, q * q)],
        &[lp(out, 0, stride * s, q), lp(out, 0, stride, 1)],
        &[lp(c, w * w, s * s, 0), lp(kernel, w, dilation * s, 0), lp(kernel, 1, dilation, 0)],
    );
    [forward, weights, batched]
}

#[test]
fn convolutions_with_stride_and_dilation_are_products() {
    for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        for case in convolution(3, 4, 17, 6, 3, stride, dilation) {
            case.check();
        }
        for case in convolution(2, 3, 32, 10, 5, stride, dilation) {
            case.check();
        }
    }
}

/// A grouped convolution without padding, channels `thin` in and out of each of `groups`, its weight gradient, and itself
/// with
/// its operands the other way round.
fn grouped(groups: usize, thin: usize, images: usize, side: usize, kernel: usize, stride: i64) -> [Case; 3] {
    let out = ((side - kernel) as i64 / stride + 1) as usize;
    let (s, q, w, t) = (side as i64, out as i64, kernel as i64, thin as i64);
    let (x, y, weights) = (s * s, q * q, w * w);
    let group = |a: i64, b: i64, c: i64| lp(groups, t * a, t * b, t * c);
    let image = groups as i64 * t;
    let forward = Case::new(
        &[group(x, t * weights, y)],
        &[lp(images, image * x, 0, image * y), lp(out, stride * s, 0, q), lp(out, stride, 0, 1)],
        &[lp(thin, 0, t * weights, y)],
        &[lp(thin, x, weights, 0), lp(kernel, s, w, 0), lp(kernel, 1, 1, 0)],
    );
    let weight_gradient = Case::new(
        &[group(x, y, t * weights)],
        &[lp(thin, x, 0, weights), lp(kernel, s, 0, w), lp(kernel, 1, 0, 1)],
        &[lp(thin, 0, y, t * weights)],
        &[lp(images, image * x, image * y, 0), lp(out, stride * s, q, 0), lp(out, stride, 1, 0)],
    );
    let swapped = Product {
        m: forward.product.n.iter().map(|l| lp(l.extent, l.b, l.a, l.c)).collect(),
        n: forward.product.m.iter().map(|l| lp(l.extent, l.b, l.a, l.c)).collect(),
        k: forward.product.k.iter().map(|l| lp(l.extent, l.b, l.a, l.c)).collect(),
        batch: forward.product.batch.iter().map(|l| lp(l.extent, l.b, l.a, l.c)).collect(),
        ..forward.product.clone()
    };
    let sizes = [forward.sizes[1], forward.sizes[0], forward.sizes[2]];
    [forward, weight_gradient, Case { product: swapped, sizes, changed: Vec::new() }]
}

#[test]
fn thin_groups_are_exact_at_every_stride_window_and_tail() {
    for stride in [1, 2, 3] {
        for (groups, thin, images, side, kernel) in
            [(1, 1, 1, 5, 1), (5, 1, 3, 9, 3), (3, 1, 1, 19, 2), (2, 1, 2, 37, 5), (4, 2, 1, 17, 3), (2, 3, 3, 8, 4)]
        {
            for case in grouped(groups, thin, images, side, kernel, stride) {
                case.check();
                case.accumulating().check();
            }
        }
    }
    for case in grouped(20, 4, 2, 21, 3, 1) {
        case.check();
    }
}

#[test]
fn thin_products_read_and_write_elements_any_step_apart() {
    for (m, k) in [(1, 40), (7, 33), (40, 9), (100, 25)] {
        let (mi, ki) = (m as i64, k as i64);
        for (step, column) in [(1, 1), (2, 1), (3, 1), (1, 4), (5, 3)] {
            // Neighbouring rows, then neighbouring summands.
            Case::new(&[], &[lp(m, step, 0, column)], &[], &[lp(k, mi * step, 1, 0)]).check();
            Case::new(&[], &[lp(m, ki * step, 0, column)], &[], &[lp(k, step, column, 0)]).check();
        }
    }
}

#[test]
fn batches_are_independent_products() {
    let heads = [lp(3, 1000, 1100, 2000), lp(2, 400, 500, 900)];
    let case = Case::new(&heads, &[lp(17, 20, 0, 30)], &[lp(23, 0, 1, 1)], &[lp(11, 1, 40, 0)]);
    case.check();
    case.accumulating().check();
    // Attention's layout: [n, t, h, d], a product for each n and h.
    let (t, h, d) = (20, 3, 8);
    let th = (t * h * d) as i64;
    let scores = Case::new(
        &[lp(2, th, th, (h * t * t) as i64), lp(h, d as i64, d as i64, (t * t) as i64)],
        &[lp(t, (h * d) as i64, 0, t as i64)],
        &[lp(t, 0, (h * d) as i64, 1)],
        &[lp(d, 1, 1, 0)],
    );
    scores.check();
    // A sum over a batch loop is not a batch; a batch loop seen by one operand alone is a row or a column.
    Case::new(&[lp(4, 300, 0, 600)], &[lp(9, 20, 0, 40)], &[lp(30, 0, 1, 1)], &[lp(15, 1, 30, 0)]).check();
}

#[test]
fn empty_dimensions_write_zeros_or_nothing() {
    let empty_sum = Case::new(&[], &[lp(3, 1, 0, 5)], &[lp(5, 0, 1, 1)], &[lp(0, 1, 1, 0)]);
    empty_sum.check();
    empty_sum.accumulating().check();
    for (m, n) in [(0, 4), (4, 0)] {
        let case = Case::new(&[], &[lp(m, 3, 0, 4)], &[lp(n, 0, 1, 1)], &[lp(3, 1, 4, 0)]);
        assert_eq!(case.plan(Level::Portable).parts(), 0);
    }
    Case::new(&[], &[], &[], &[lp(40, 1, 1, 0)]).check();
    Case::new(&[], &[], &[], &[]).check();
}

#[test]
fn results_are_the_same_bits_for_any_partition_and_order() {
    let mut cases: Vec<Case> = matrices(100, 500, 330, 0).into_iter().collect();
    cases.extend(convolution(12, 3, 32, 8, 5, 1, 1));
    cases.extend(convolution(30, 4, 14, 16, 3, 1, 1));
    cases.extend(grouped(30, 1, 7, 25, 3, 1));
    cases.extend(grouped(2, 3, 4, 40, 5, 2));
    cases.push(Case::new(&[lp(40, 400, 400, 400)], &[lp(20, 20, 0, 20)], &[lp(20, 0, 1, 1)], &[lp(20, 1, 20, 0)]));
    for case in cases {
        for level in Level::available() {
            let bits = |arena: Vec<f32>| arena.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let whole = bits(case.run(level, |parts| std::iter::once(0..parts).collect()));
            let reversed = bits(case.run(level, |parts| (0..parts).rev().map(|i| i..i + 1).collect()));
            let thirds = bits(
                case.run(level, |parts| [2, 0, 1].map(|i| parts * i / 3..parts * (i + 1) / 3).into_iter().collect()),
            );
            assert!(whole == reversed && whole == thirds, "{level} {:?}", case.product);
        }
    }
}

#[test]
fn every_cut_gives_the_same_bits() {
    let cases = matrices(70, 130, 600, 1).into_iter().chain(convolution(3, 8, 19, 10, 3, 1, 1));
    for case in cases.flat_map(|case| [case.clone(), case.accumulating()]) {
        for level in Level::available() {
            let (_, starts) = case.arena();
            let places = starts.map(|start| Place::in_arena(start * size_of::<f32>()));
            let bits = |cut: Cut| -> Vec<u32> {
                let plan = ProductPlan::cut(&case.product, places, 0, level, cut);
                case.run_plan(&plan, |parts| std::iter::once(0..parts).collect()).iter().map(|x| x.to_bits()).collect()
            };
            let all = super::super::shape::cuts(&case.product, 0, level);
            assert!(all.len() > 1, "{level}: {} cuts of {:?}", all.len(), case.product);
            let expected = bits(all[0].1);
            for (_, cut) in all.iter().step_by(all.len().div_ceil(20)) {
                assert!(bits(*cut) == expected, "{level}: {cut:?} of {:?}", case.product);
            }
        }
    }
}

#[test]
fn middling_products_divide_evenly_between_two_threads() {
    for case in matrices(100, 500, 1000, 0).into_iter().chain(matrices(32, 1000, 500, 0)) {
        let parts = case.plan(Level::Portable).parts();
        assert!(parts >= 2 && parts % 2 == 0, "{parts} parts");
    }
}

#[test]
fn summands_outside_a_band_are_left_out() {
    /// Farther from the band than any tile is wide, so no tile reads the NaN there; nearer, the operand is 0.
    const FAR: i64 = 64;
    let band = |side: i64, k: i64, offset: i64| kernel::Linear { terms: vec![(0, side), (1, k)], offset };
    for (m, n, k) in [(7, 5, 9), (37, 32, 37), (131, 19, 131), (150, 170, 150), (40, 90, 700), (300, 33, 90)] {
        let half = k as i64 / 2;
        for bands in [
            vec![band(1, -1, 0)],
            vec![band(-1, 1, 0)],
            vec![band(1, -1, 2), band(-1, 1, 3)],
            vec![band(1, -1, half), band(-1, 1, -half)],
        ] {
            for (mut case, side) in matrices(m, n, k, 1).into_iter().flat_map(|case| [(case.clone(), 0), (case, 1)]) {
                let (rows, summed) = ([case.product.m[0], case.product.n[0]][side], case.product.k[0]);
                for point in (0..rows.extent).flat_map(|row| (0..k).map(move |place| [row, place])) {
                    let distance = bands.iter().map(|band| -band.at(&point)).max().expect("there is a band");
                    let strides = [[rows.a, rows.b][side], [summed.a, summed.b][side]];
                    let at = (point[0] as i64 * strides[0] + point[1] as i64 * strides[1]) as usize;
                    if distance > 0 {
                        case.changed.push((side, at, if distance > FAR { f32::NAN } else { 0.0 }));
                    }
                }
                case.product.bands =
                    bands.iter().map(|band| band.compose(|index| kernel::Linear::index([side, 2][index]))).collect();
                case.check();
                case.accumulating().check();
            }
        }
    }
}

#[test]
fn results_outside_a_band_are_zero_or_whole() {
    for (m, n) in [(40, 40), (131, 131), (37, 200)] {
        let case = matrices(m, n, 32, 0).into_iter().next().expect("there are four");
        let whole = case.run(Level::Portable, |parts| std::iter::once(0..parts).collect());
        let mut banded = case.clone();
        banded.product.bands = vec![kernel::Linear { terms: vec![(0, 1), (1, -1)], offset: 0 }];
        let got = banded.run(Level::Portable, |parts| std::iter::once(0..parts).collect());
        let (_, starts) = case.arena();
        let mut left_out = 0;
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let at = starts[2] + row * n + column;
            let is_zero = got[at] == 0.0 && row < column;
            left_out += usize::from(is_zero);
            assert!(is_zero || got[at].to_bits() == whole[at].to_bits(), "[{row}, {column}] is {}", got[at]);
        }
        // Tiles that touch the diagonal are computed.
        let outside: usize = (0..m).map(|row| n.saturating_sub(row + 1)).sum();
        assert!(2 * left_out > outside, "{left_out} of {outside}");
    }
}
