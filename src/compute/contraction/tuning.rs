//! Cuts of products found by measurement, to be used in place of the cost model's.
//!
//! Input: a product and a level; for [`measure`], threads and a moment of the machine. Output: a [`Cut`].
//! Invariant: every cut of a product gives the same bits, so tuning changes times alone.
#![allow(unsafe_op_in_unsafe_fn)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use super::place::Place;
use super::product::ProductPlan;
use super::shape::{Cut, Orientation, choose, cuts};
use super::thin::ThinPlan;
use crate::kernel::{Product, ProductLoop};
use crate::machine::Level;
use crate::machine::float_mode::Guard;
use crate::machine::pool::Pool;

/// Elements of a cache line: operands and scratch start at multiples of it.
const LINE: usize = 16;
/// Cuts that are estimated to take so much longer than the cheapest are not tried.
const MOST_SLOWDOWN: f64 = 1.4;
/// Most cuts tried.
const MOST_CUTS: usize = 32;
/// Rounds over all cuts.
const ROUNDS: usize = 4;
/// Runs of the winner and of the estimate's choice in turn, which decide between them.
const DUELS: usize = 15;
/// Seconds that a cut gets in a round, at least.
const BUDGET: f64 = 1e-3;
/// A winner must be so much faster than the estimate's choice.
const LEAST_GAIN: f64 = 1.02;

/// The cuts of products by their loops.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Tuning {
    cuts: BTreeMap<String, Cut>,
}

impl Tuning {
    /// The cut for a product whose first `kept` batch loops stay outermost: the measured one, else the cost model's.
    pub fn choose(&self, product: &Product, kept: usize, level: Level) -> Cut {
        self.cut(product, kept, level).unwrap_or_else(|| choose(product, kept, level))
    }

    /// The measured cut of a product; none if nothing fitting is known.
    pub fn cut(&self, product: &Product, kept: usize, level: Level) -> Option<Cut> {
        if self.cuts.is_empty() || !is_tunable(product) {
            return None;
        }
        self.cuts.get(&key(product, kept, level)).copied().filter(|cut| cut.is_of(product, kept, level))
    }

    /// Whether a product has been measured.
    pub fn knows(&self, product: &Product, kept: usize, level: Level) -> bool {
        self.cuts.contains_key(&key(product, kept, level))
    }

    /// Notes a product's cut.
    pub fn insert(&mut self, product: &Product, kept: usize, level: Level, cut: Cut) {
        self.cuts.insert(key(product, kept, level), cut);
    }

    /// Number of products.
    pub fn len(&self) -> usize {
        self.cuts.len()
    }

    /// Whether it knows no product.
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }
}

/// Where a product has bands, its cut decides which zeros meet infinities and NaN, so it is not for tuning to choose.
fn is_tunable(product: &Product) -> bool {
    product.bands.is_empty()
}

/// All that a product's time depends on, as text.
fn key(product: &Product, kept: usize, level: Level) -> String {
    let mut text = format!("{level} {kept}{}", if product.accumulate { " +" } else { "" });
    for (role, loops) in [('b', &product.batch), ('m', &product.m), ('n', &product.n), ('k', &product.k)] {
        for ProductLoop { extent, a, b, c } in loops {
            let _ = write!(text, " {role}{extent}:{a},{b},{c}");
        }
    }
    text
}

/// What measuring a product gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The cut to use.
    pub cut: Cut,
    /// Seconds with the cost model's cut.
    pub estimated: f64,
    /// Seconds with `cut`; the same if nothing was clearly faster.
    pub tuned: f64,
}

/// The fastest cut of a product on the threads of a pool, or none if the product has but one way to run. Takes about half
/// a second, more for products of more than 10 ms. None too for products with bands.
pub fn measure(product: &Product, kept: usize, level: Level, pool: &Pool) -> Option<Measured> {
    assert!(level.is_available(), "the machine has the level");
    let cuts = candidates(product, kept, level);
    let is_thin = || ThinPlan::new(product, [Place::in_arena(0); 3], kept, level).is_some();
    if cuts.len() < 2 || !is_tunable(product) || is_thin() {
        return None;
    }
    let mut field = Field::new(product);
    let plans: Vec<ProductPlan> = cuts.iter().map(|&cut| field.plan(kept, level, cut)).collect();
    field.make_room(&plans, pool.threads());
    let once = field.seconds(&plans[0], pool, 3);
    let times = (BUDGET / once).ceil().clamp(2.0, 50.0) as usize;
    let mut least = vec![f64::INFINITY; plans.len()];
    for _ in 0..ROUNDS {
        for (plan, least) in plans.iter().zip(&mut least) {
            *least = least.min(field.seconds(plan, pool, times));
        }
    }
    let winner = (0..plans.len()).min_by(|&i, &j| least[i].total_cmp(&least[j])).expect("two cuts at least");
    // The winner of many is lucky too: it must win again.
    let mut duels = [vec![], vec![]];
    for _ in 0..DUELS {
        for (times_of, plan) in duels.iter_mut().zip([0, winner]) {
            times_of.push(field.seconds(&plans[plan], pool, times));
        }
    }
    let [estimated, tuned] = duels.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    });
    let gains = estimated > tuned * LEAST_GAIN;
    Some(Measured {
        cut: if gains { cuts[winner] } else { cuts[0] },
        estimated,
        tuned: if gains { tuned } else { estimated },
    })
}

/// The cuts worth measuring, the cost model's first.
fn candidates(product: &Product, kept: usize, level: Level) -> Vec<Cut> {
    let cuts = cuts(product, kept, level);
    let least = cuts.first().map_or(0.0, |(cycles, _)| *cycles);
    let near = cuts.iter().take_while(|(cycles, _)| *cycles <= least * MOST_SLOWDOWN).count();
    cuts.iter().take(near).step_by(near.div_ceil(MOST_CUTS).max(1)).map(|(_, cut)| *cut).collect()
}

/// Memory on which a product runs.
struct Field {
    product: Product,
    arena: Vec<f32>,
    places: [Place; 3],
    scratch: Vec<Vec<f32>>,
}

/// A pointer that threads share.
#[derive(Clone, Copy)]
struct Shared(*mut u8);
// SAFETY: the threads write disjoint elements, each its parts of C and its own scratch.
unsafe impl Sync for Shared {}

impl Shared {
    /// The address at the next multiple of a line; the area has a line to spare.
    fn of(area: &mut [f32]) -> Shared {
        let skip = area.as_ptr().align_offset(LINE * size_of::<f32>());
        Shared(area[skip..].as_mut_ptr().cast())
    }

    fn get(&self) -> *mut u8 {
        self.0
    }
}

impl Field {
    fn new(product: &Product) -> Field {
        let mut elements = 0;
        let starts = [(|l| l.a) as fn(&ProductLoop) -> i64, |l| l.b, |l| l.c].map(|stride| {
            let reach = |l: &ProductLoop| stride(l) * (l.extent.max(1) as i64 - 1);
            let before: i64 = product.loops().map(|l| -reach(l).min(0)).sum();
            let behind: i64 = product.loops().map(|l| reach(l).max(0)).sum();
            let start = elements + before as usize;
            elements = (start + behind as usize + 1).next_multiple_of(LINE);
            start
        });
        // Small numbers of many sizes: neither infinities nor denormals slow the measurement.
        let arena = (0..elements + LINE).map(|i| (i % 1009) as f32 * 1e-3 - 0.5).collect();
        let places = starts.map(|start| Place::in_arena(start * size_of::<f32>()));
        let [a, b, c] = [product.a, product.b, product.c].map(|(buffer, _)| (buffer, 0));
        Field { product: Product { a, b, c, ..product.clone() }, arena, places, scratch: Vec::new() }
    }

    fn plan(&self, kept: usize, level: Level, cut: Cut) -> ProductPlan {
        ProductPlan::cut(&self.product, self.places, kept, level, cut)
    }

    fn make_room(&mut self, plans: &[ProductPlan], threads: usize) {
        let bytes = plans.iter().map(ProductPlan::scratch_bytes).max().unwrap_or(0);
        self.scratch = (0..threads).map(|_| vec![0.0; bytes / size_of::<f32>() + 2 * LINE]).collect();
    }

    /// The least seconds of some runs.
    fn seconds(&mut self, plan: &ProductPlan, pool: &Pool, times: usize) -> f64 {
        let (parts, threads) = (plan.parts(), pool.threads());
        let base = Shared::of(&mut self.arena);
        let scratch: Vec<Shared> = self.scratch.iter_mut().map(|area| Shared::of(area)).collect();
        let run = || {
            let begin = Instant::now();
            pool.run(&|thread| {
                let _guard = Guard::new();
                let share = parts * thread / threads..parts * (thread + 1) / threads;
                // SAFETY: `new` and `make_room` made room for all elements and for the scratch of every plan, both
                // borrowed mutably here; `measure` asserts the level; shares are disjoint.
                unsafe { plan.run(base.get(), scratch[thread].get(), share) }
            });
            begin.elapsed().as_secs_f64()
        };
        (0..times).map(|_| run()).fold(f64::INFINITY, f64::min)
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let turned = if self.orientation == Orientation::Swapped { ", turned" } else { "" };
        write!(f, "{} × {}{turned}", self.row_blocks, self.column_blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{BufferId, Linear};

    fn product() -> Product {
        let of = |extent, a, b, c| vec![ProductLoop { extent, a, b, c }];
        let start = |buffer| (BufferId(buffer), 0);
        let (a, b, c) = (start(0), start(1), start(2));
        let (m, n, k) = (of(67, 129, 0, 131), of(131, 0, 1, 1), of(129, 1, 131, 0));
        Product { batch: vec![], m, n, k, a, b, c, accumulate: false, bands: vec![] }
    }

    #[test]
    fn a_measured_cut_is_found_again_and_only_for_its_product() {
        let (product, level) = (product(), Level::Portable);
        let cut = candidates(&product, 0, level)[1];
        let mut tuning = Tuning::default();
        assert_eq!(tuning.cut(&product, 0, level), None);
        tuning.insert(&product, 0, level, cut);
        assert_eq!(tuning.cut(&product, 0, level), Some(cut));
        let mut other = product.clone();
        other.k[0].extent -= 1;
        assert_eq!(tuning.cut(&other, 0, level), None);
        let banded = Product { bands: vec![Linear::index(0)], ..product.clone() };
        assert_eq!(tuning.cut(&banded, 0, level), None);
        assert_eq!(measure(&banded, 0, level, &Pool::new(1)), None);
        assert!(!tuning.knows(&product, 0, Level::Avx2));
        let text = serde_json::to_string(&tuning).expect("plain data");
        assert_eq!(serde_json::from_str::<Tuning>(&text).expect("what was written"), tuning);
    }

    #[test]
    fn a_cut_that_does_not_fit_its_product_is_not_used() {
        let (product, level) = (product(), Level::Portable);
        let mut tuning = Tuning::default();
        for (row_blocks, column_blocks) in [(0, 1), (1, 0), (1000, 1), (1, 1000)] {
            let cut = Cut { orientation: Orientation::Given, row_blocks, column_blocks };
            tuning.insert(&product, 0, level, cut);
            assert_eq!(tuning.cut(&product, 0, level), None, "{cut}");
        }
    }

    #[test]
    fn measuring_gives_a_cut_of_the_product() {
        for level in Level::available() {
            let measured = measure(&product(), 0, level, &Pool::new(2)).expect("many cuts");
            assert!(measured.cut.is_of(&product(), 0, level));
            assert!(measured.tuned > 0.0 && measured.tuned <= measured.estimated, "{measured:?}");
        }
    }
}
