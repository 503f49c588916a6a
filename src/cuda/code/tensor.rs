//! A product on tensor cores: factors rounded to bfloat16 or TF32, sums in f32.
//!
//! Input: a [`Product`]. Output: the body of a function, and how many blocks of how many threads run it; none where the product is
//! too thin for tensor cores. Invariant: each element is summed in the order of k, a step of the instruction at a time.
//!
//! A warp has 64, 32 or 16 × 32 results. Panels lie in shared memory side by side along k, in words: two bfloat16 or one
//! TF32. Fragments are those of `mma.sync` `m16n8k16` and `m16n8k8` (PTX ISA): of both, a lane's words lie at row (or column)
//! lane / 4 and word lane % 4, and again 8 rows and 4 words further, so one text serves both.

use super::panel::{Extents, Panel, Sides, each_element, fastest, head, panels, store, turns};
use super::writer::Writer;
use super::{Function, Names};
use crate::graph::Precision;
use crate::kernel::Product;

/// Words of a panel along k.
const DEPTH: usize = 16;
/// Words between the rows of a panel beyond their number: the eight rows of a fragment meet no bank twice.
const GAP: usize = 4;
/// Results and summands from which tensor cores are worth their rounding.
const LEAST: [usize; 3] = [16, 8, 16];

/// How factors are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// Two in a word.
    Bf16,
    /// One in a word.
    Tf32,
}

impl Factors {
    /// What a precision allows; none where it asks for f32.
    pub fn of(precision: Precision) -> Option<Factors> {
        match precision {
            Precision::Strict | Precision::Fast => None,
            Precision::Tf32 => Some(Factors::Tf32),
            Precision::Bf16 => Some(Factors::Bf16),
        }
    }

    /// Factors of a word.
    fn each(self) -> usize {
        match self {
            Factors::Bf16 => 2,
            Factors::Tf32 => 1,
        }
    }
}

/// The tile of a block, and of each of its warps.
#[derive(Clone, Copy, Debug)]
struct Tile {
    m: usize,
    n: usize,
    warp_m: usize,
    warp_n: usize,
    /// As [`fastest`] wants it.
    speed: f64,
}

const TILES: [Tile; 3] = [
    Tile { m: 128, n: 128, warp_m: 64, warp_n: 32, speed: 1.0 },
    Tile { m: 64, n: 64, warp_m: 32, warp_n: 32, speed: 0.6 },
    Tile { m: 32, n: 64, warp_m: 16, warp_n: 32, speed: 0.4 },
];

impl Tile {
    fn sides(&self, factors: Factors) -> Sides {
        Sides { m: self.m, n: self.n, k: DEPTH * factors.each() }
    }

    fn threads(&self) -> usize {
        32 * (self.m / self.warp_m) * (self.n / self.warp_n)
    }
}

/// The function of a product.
pub(super) fn product(product: &Product, names: &Names<'_>, factors: Factors) -> Option<Function> {
    let extents = Extents::of(product);
    if [extents.m, extents.n, extents.k].iter().zip(LEAST).any(|(extent, least)| *extent < least) {
        return None;
    }
    let tile = fastest(&TILES, extents, |tile| (tile.sides(factors), tile.speed));
    let sides = tile.sides(factors);
    let panels = panels(product, sides);
    let mut out = Writer::default();
    head(&mut out, product, names, sides, &panels);
    let mut shared = 0;
    for panel in &panels {
        out.line(format!("u32* const shared_{} = (u32*)shared + {shared};", panel.name));
        shared += 2 * panel.tile_side * (DEPTH + GAP);
    }
    for panel in &panels {
        load_panel(&mut out, panel, product, sides, tile.threads(), factors);
    }
    multiply(&mut out, &panels, tile, sides, factors);
    store_tile(&mut out, product, names, tile, sides);
    Some(Function::new(out, sides.blocks(extents), tile.threads(), 4 * shared))
}

/// As in f32, but words are packed on their way to shared memory.
fn load_panel(out: &mut Writer, panel: &Panel<'_>, product: &Product, sides: Sides, threads: usize, factors: Factors) {
    let (name, tile_side) = (panel.name, panel.tile_side);
    let each = tile_side * DEPTH / threads;
    let (side, word) = match panel.along_k(&product.k) {
        true => (format!("place / {DEPTH}"), format!("place % {DEPTH}")),
        false => (format!("place % {tile_side}"), format!("place / {tile_side}")),
    };
    let element = |deep: &str| panel.element(product, sides, deep);
    let word = match factors {
        Factors::Bf16 => (word, format!("pack_bf16({}, {})", element("2 * word"), element("2 * word + 1"))),
        Factors::Tf32 => (word, format!("round_tf32({})", element("word"))),
    };
    let place = format!("const int place = thread + number * {threads}, side = {side}, word = {};", word.0);
    let row = DEPTH + GAP;
    let bodies = [
        (format!("fetch_{name} = [&](int start)"), format!("next_{name}[number] = {};", word.1)),
        (
            format!("put_{name} = [&](int half)"),
            format!("put(shared_{name} + (half * {tile_side} + side) * {row} + word, next_{name}[number]);"),
        ),
    ];
    out.line(format!("u32 next_{name}[{each}];"));
    for (function, body) in bodies {
        each_element(out, &function, each, &place, &body);
    }
}

/// Fragments from shared memory, and the instruction on them.
fn multiply(out: &mut Writer, panels: &[Panel<'_>; 2], tile: Tile, sides: Sides, factors: Factors) {
    let Tile { warp_m, warp_n, n, .. } = tile;
    let (across, rows, columns) = (n / warp_n, warp_m / 16, warp_n / 8);
    let [a, b] = panels;
    let row = DEPTH + GAP;
    out.line("const int lane = thread % 32, warp = thread / 32;");
    out.line(format!("const int warp_m = warp / {across} * {warp_m}, warp_n = warp % {across} * {warp_n};"));
    out.line(format!("float all[{rows}][{columns}][4] = {{}};"));
    turns(out, sides.k, |out| {
        out.line("#pragma unroll");
        out.open(format!("for (int word = lane % 4; word < {DEPTH}; word += 8)"));
        out.line(format!("u32 of_a[{rows}][4], of_b[{columns}][2];"));
        out.line("#pragma unroll");
        out.open(format!("for (int i = 0; i < {rows}; ++i)"));
        let from = format!("shared_a + (half * {} + warp_m + i * 16 + lane / 4) * {row} + word", a.tile_side);
        out.line(format!("const u32* const from = {from};"));
        out.line(format!("of_a[i][0] = get(from), of_a[i][1] = get(from + {});", 8 * row));
        out.line(format!("of_a[i][2] = get(from + 4), of_a[i][3] = get(from + {});", 8 * row + 4));
        out.close();
        out.line("#pragma unroll");
        out.open(format!("for (int j = 0; j < {columns}; ++j)"));
        let from = format!("shared_b + (half * {} + warp_n + j * 8 + lane / 4) * {row} + word", b.tile_side);
        out.line(format!("const u32* const from = {from};"));
        out.line("of_b[j][0] = get(from), of_b[j][1] = get(from + 4);");
        out.close();
        let instruction = if factors == Factors::Bf16 { "mma_bf16" } else { "mma_tf32" };
        out.line("#pragma unroll");
        out.line(format!("for (int i = 0; i < {rows}; ++i)"));
        out.line("#pragma unroll");
        out.line(format!("for (int j = 0; j < {columns}; ++j) {instruction}(all[i][j], of_a[i], of_b[j]);"));
        out.close();
    });
}

/// A lane has two neighbours of a row, and of the row 8 below it.
fn store_tile(out: &mut Writer, product: &Product, names: &Names<'_>, tile: Tile, sides: Sides) {
    out.line("#pragma unroll");
    out.open(format!("for (int i = 0; i < {}; ++i)", tile.warp_m / 16));
    out.line("#pragma unroll");
    out.open(format!("for (int j = 0; j < {}; ++j)", tile.warp_n / 8));
    out.line("#pragma unroll");
    out.open("for (int part = 0; part < 4; ++part)");
    out.line("const int at_m = first_m + warp_m + i * 16 + lane / 4 + part / 2 * 8;");
    out.line("const int at_n = first_n + warp_n + j * 8 + lane % 4 * 2 + part % 2;");
    store(out, product, names, sides, "all[i][j][part]");
    out.close_all(3);
}
