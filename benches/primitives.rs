//! Speed of the tensor primitives: products as a share of the machine's measured multiply-add peak, vector functions in
//! nanoseconds an element. `cargo bench --bench primitives [-- FILTER]`; tenth percentile of repetitions, one thread by its own
//! clock, two threads by the wall clock.
//! `ANSATZ_CPU` chooses a lower level.
#![allow(unsafe_code)]

use ansatz::contraction::product::ProductPlan;
use ansatz::kernel::{BufferId, Product, ProductLoop};
use ansatz::machine::float_mode::Guard;
use ansatz::machine::pool::Pool;
use ansatz::machine::{Level, detect};
use ansatz::primitives::random;
use ansatz::primitives::vector::{self, VectorFunction};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let level = std::env::var("ANSATZ_CPU").ok().and_then(|name| Level::parse(&name)).unwrap_or_else(detect);
    assert!(level.is_available(), "this machine cannot run {level}");
    let _guard = Guard::new();
    let peak = peak(level);
    println!("{level}: {peak:.1} GF/s peak multiply-add, one thread");
    products(level, peak, &filter);
    functions(level, &filter);
}

/// The time of `body` on the calling thread's clock, in seconds: the tenth percentile of repetitions that fill `budget`
/// seconds. That clock stands still while other programs have the core.
fn least(budget: f64, body: impl FnMut()) -> f64 {
    least_by(thread_seconds, budget, body)
}

/// The same on a wall clock.
fn least_wall(budget: f64, body: impl FnMut()) -> f64 {
    let start = Instant::now();
    least_by(|| start.elapsed().as_secs_f64(), budget, body)
}

fn least_by(clock: impl Fn() -> f64, budget: f64, mut body: impl FnMut()) -> f64 {
    body();
    // Short bodies are repeated inside one reading, for a reading costs up to a microsecond.
    let begin = clock();
    body();
    let repeats = (20e-6 / (clock() - begin).max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed().as_secs_f64() < budget || times.len() < 3 {
        let begin = clock();
        for _ in 0..repeats {
            body();
        }
        times.push((clock() - begin) / repeats as f64);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

#[cfg(target_os = "linux")]
fn thread_seconds() -> f64 {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0i64; 2];
    // SAFETY: on 64-bit Linux a timespec is two 64-bit integers.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time[0] as f64 + time[1] as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn thread_seconds() -> f64 {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// GF/s of independent multiply-add chains in registers.
fn peak(level: Level) -> f64 {
    const ROUNDS: usize = 100_000;
    // SAFETY: the level is available.
    let (lanes, seconds) = match level {
        Level::Portable => (8, least(0.3, || portable_chains(ROUNDS))),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (8, least(0.3, || unsafe { x86::chains_avx2(ROUNDS) })),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => (16, least(0.3, || unsafe { x86::chains_avx512(ROUNDS) })),
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 => (8, least(0.3, || portable_chains(ROUNDS))),
    };
    (ROUNDS * 12 * lanes * 2) as f64 / seconds / 1e9
}

fn portable_chains(rounds: usize) {
    let mut sums = [[0.5f32; 4]; 12];
    let (x, y) = (black_box([0.999f32; 4]), black_box([0.001f32; 4]));
    for _ in 0..2 * rounds {
        for sum in &mut sums {
            for i in 0..4 {
                sum[i] = sum[i] * x[i] + y[i];
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn chains_avx2(rounds: usize) {
        let mut sums = [_mm256_set1_ps(0.5); 12];
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn chains_avx512(rounds: usize) {
        let mut sums = [_mm512_set1_ps(0.5); 12];
        let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }
}

/// A named product.
struct Case {
    name: String,
    product: Product,
    sizes: [usize; 3],
}

fn case(name: String, batch: &[ProductLoop], m: &[ProductLoop], n: &[ProductLoop], k: &[ProductLoop]) -> Case {
    let all: Vec<ProductLoop> = [batch, m, n, k].concat();
    let size = |stride: fn(&ProductLoop) -> i64| {
        1 + all.iter().map(|l| (l.extent as i64 - 1) * stride(l)).sum::<i64>() as usize
    };
    let sizes = [size(|l| l.a), size(|l| l.b), size(|l| l.c)];
    let product = Product {
        batch: batch.to_vec(),
        m: m.to_vec(),
        n: n.to_vec(),
        k: k.to_vec(),
        a: (BufferId(0), 0),
        b: (BufferId(1), 0),
        c: (BufferId(2), 0),
        accumulate: false,
        bands: Vec::new(),
    };
    Case { name, product, sizes }
}

fn lp(extent: usize, a: i64, b: i64, c: i64) -> ProductLoop {
    ProductLoop { extent, a, b, c }
}

/// `kind`: NN, NT or TN.
fn matrices(kind: &str, m: usize, k: usize, n: usize) -> Case {
    let (mi, ki, ni) = (m as i64, k as i64, n as i64);
    let (am, ak) = if kind.starts_with('T') { (1, mi) } else { (ki, 1) };
    let (bk, bn) = if kind.ends_with('T') { (1, ki) } else { (ni, 1) };
    case(format!("{kind} {m}x{k}x{n}"), &[], &[lp(m, am, 0, ni)], &[lp(n, 0, bn, 1)], &[lp(k, ak, bk, 0)])
}

/// The forward product and the two gradients of an NCHW convolution without padding. The gradient of the images is given
/// as one product over the whole taps of an image whose edge is padded beforehand.
fn convolution(images: usize, c: usize, side: usize, o: usize, kernel: usize) -> [Case; 3] {
    let out = side - kernel + 1;
    let (s, q, w, ci, oi) = (side as i64, out as i64, kernel as i64, c as i64, o as i64);
    let name = |what: &str| format!("conv {what} {images}x{c}x{side} k{kernel} -> {o}");
    let forward = case(
        name("fwd"),
        &[],
        &[lp(o, ci * w * w, 0, q * q)],
        &[lp(images, 0, ci * s * s, oi * q * q), lp(out, 0, s, q), lp(out, 0, 1, 1)],
        &[lp(c, w * w, s * s, 0), lp(kernel, w, s, 0), lp(kernel, 1, 1, 0)],
    );
    let weights = case(
        name("dw"),
        &[],
        &[lp(o, q * q, 0, ci * w * w)],
        &[lp(c, 0, s * s, w * w), lp(kernel, 0, s, w), lp(kernel, 0, 1, 1)],
        &[lp(images, oi * q * q, ci * s * s, 0), lp(out, q, s, 0), lp(out, 1, 1, 0)],
    );
    let padded = q + 2 * (w - 1);
    let input = case(
        name("dx"),
        &[],
        &[lp(c, w * w, 0, s * s)],
        &[lp(images, 0, oi * padded * padded, ci * s * s), lp(side, 0, padded, s), lp(side, 0, 1, 1)],
        &[lp(o, ci * w * w, padded * padded, 0), lp(kernel, w, padded, 0), lp(kernel, 1, 1, 0)],
    );
    [forward, weights, input]
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for size in [16, 64, 256, 512, 1024] {
        cases.push(matrices("NN", size, size, size));
    }
    for (m, k, n) in
        [(512, 512, 512), (1024, 1024, 1024), (100, 1000, 500), (100, 1600, 1024), (32, 1000, 500), (32, 250, 10)]
    {
        for kind in ["NN", "NT", "TN"] {
            if m < 512 || kind != "NN" {
                cases.push(matrices(kind, m, k, n));
            }
        }
    }
    cases.push(matrices("TN", 1000, 100, 500));
    cases.push(matrices("TN", 1024, 32, 1024));
    cases.extend(convolution(100, 3, 32, 32, 5));
    cases.extend(convolution(100, 32, 14, 64, 5));
    cases.extend(convolution(32, 64, 34, 64, 3));
    cases.extend(convolution(32, 512, 6, 512, 3));
    let (heads, t, d) = (12, 128, 64);
    let wide = (heads * d) as i64;
    cases.push(case(
        "attention scores".into(),
        &[lp(8, t as i64 * wide, t as i64 * wide, (heads * t * t) as i64), lp(heads, 64, 64, (t * t) as i64)],
        &[lp(t, wide, 0, t as i64)],
        &[lp(t, 0, wide, 1)],
        &[lp(d, 1, 1, 0)],
    ));
    cases.push(case(
        "attention values".into(),
        &[lp(8, (heads * t * t) as i64, t as i64 * wide, t as i64 * wide), lp(heads, (t * t) as i64, 64, 64)],
        &[lp(t, t as i64, 0, wide)],
        &[lp(d, 0, 1, 1)],
        &[lp(t, 1, wide, 0)],
    ));
    cases.push(matrices("NT", 1024, 768, 3072));
    for (m, k, n) in [(256, 2048, 2048), (2048, 192, 768)] {
        // A linear layer's three products: its output, the gradient of its input, that of its weights.
        cases.push(matrices("NT", m, k, n));
        cases.push(matrices("NN", m, n, k));
        cases.push(matrices("TN", n, m, k));
    }
    cases
}

fn products(level: Level, peak: f64, filter: &str) {
    let pool = Pool::new(2);
    println!("{:34} {:>6} {:>9} {:>6} {:>9} {:>6}", "product", "parts", "GF/s", "share", "2 threads", "us");
    for case in cases().into_iter().filter(|case| case.name.contains(filter)) {
        let starts = [0, case.sizes[0].next_multiple_of(16), (case.sizes[0] + case.sizes[1]).next_multiple_of(16) + 16];
        let mut arena = vec![0.25f32; starts[2] + case.sizes[2] + 16];
        for (i, x) in arena.iter_mut().enumerate() {
            *x = (i % 1009) as f32 * 1e-3 - 0.5;
        }
        let start = arena.as_ptr().align_offset(64);
        // SAFETY: the offset lies within the 16 spare elements.
        let base = Shared(unsafe { arena.as_mut_ptr().add(start) }.cast());
        let plan = ProductPlan::new(&case.product, starts[0] * 4, starts[1] * 4, starts[2] * 4, level);
        let mut scratch: Vec<Vec<f32>> = (0..2).map(|_| vec![0.0; plan.scratch_bytes() / 4 + 16]).collect();
        let scratch: Vec<Shared> = scratch
            .iter_mut()
            // SAFETY: as for the arena.
            .map(|area| Shared(unsafe { area.as_mut_ptr().add(area.as_ptr().align_offset(64)) }.cast()))
            .collect();
        let flops = 2.0 * plan.multiply_adds() as f64;
        let parts = plan.parts();
        // SAFETY: the arena holds all elements, the scratch is large enough, the level is available.
        let one = least(0.25, || unsafe { plan.run(base.get(), scratch[0].get(), 0..parts) });
        let two = least_wall(0.25, || {
            pool.run(&|thread| {
                let _guard = Guard::new();
                let range = parts * thread / 2..parts * (thread + 1) / 2;
                // SAFETY: as above; the parts are disjoint.
                unsafe { plan.run(base.get(), scratch[thread].get(), range) }
            })
        });
        println!(
            "{:34} {:6} {:9.1} {:5.0}% {:9.1} {:8.2}",
            case.name,
            parts,
            flops / one / 1e9,
            flops / one / 1e7 / peak,
            flops / two / 1e9,
            one * 1e6
        );
    }
}

/// A pointer that threads share.
#[derive(Clone, Copy)]
struct Shared(*mut u8);
// SAFETY: the threads write disjoint elements.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *mut u8 {
        self.0
    }
}

fn functions(level: Level, filter: &str) {
    const N: usize = 4096;
    let mut x = vec![0.0f32; N];
    let y = vec![1.7f32; N];
    let reset = |x: &mut [f32]| x.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 800) as f32 * 0.01 + 0.01);
    let mut line = |name: &str, run: &mut dyn FnMut(&mut [f32])| {
        if !name.to_lowercase().contains(&filter.to_lowercase()) {
            return;
        }
        let filled = least(0.05, || reset(black_box(&mut x)));
        let both = least(0.1, || {
            reset(black_box(&mut x));
            run(&mut x);
        });
        println!("{name:34} {:.3} ns an element", (both - filled) * 1e9 / N as f64);
    };
    for function in VectorFunction::ALL {
        // SAFETY: the level is available; the pointer covers the slice.
        line(&format!("{function:?}"), &mut |x| unsafe { vector::function(level, function)(x.as_mut_ptr(), x.len()) });
    }
    // SAFETY: as above; `y` is as long.
    line("Pow", &mut |x| unsafe { vector::pow(level)(x.as_mut_ptr(), y.as_ptr(), x.len()) });
    // SAFETY: as above.
    line("Philox", &mut |x| unsafe { random::uniform(level)(x.as_mut_ptr(), x.len(), 1, 2, 3, 4) });
}
