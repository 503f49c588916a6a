//! What all products as CUDA functions share: a tile of the result a block, operands read in place by panels.
//!
//! Input: a [`Product`], the sides of a tile. Output: lines that say where the block's tile lies, where operands and results are,
//! and which part of k it needs.

use super::Names;
use super::linear::{sum_text, unravel};
use super::writer::Writer;
use crate::kernel::{Linear, Product, ProductLoop};

/// What a loop moves in an operand or the result.
type Stride = fn(&ProductLoop) -> i64;

/// Blocks that keep a GPU busy: multiprocessors of the larger ones.
const BUSY_BLOCKS: usize = 132;

/// The tile with which all results take the least time, by its sides and its speed: multiplications of a block in the same time,
/// relative to the largest tile; smaller ones load more for each.
pub(super) fn fastest<T: Copy>(tiles: &[T], extents: Extents, of: impl Fn(&T) -> (Sides, f64)) -> T {
    let time = |tile: &T| {
        let (sides, speed) = of(tile);
        (sides.blocks(extents).div_ceil(BUSY_BLOCKS) * sides.m * sides.n) as f64 / speed
    };
    *tiles.iter().min_by(|a, b| time(a).total_cmp(&time(b))).expect("there are tiles")
}

/// A function over a thread's elements of a panel: `fetch_a`, `put_a`. `place` declares where an element lies.
pub(super) fn each_element(out: &mut Writer, function: &str, each: usize, place: &str, body: &str) {
    out.open(format!("auto {function}"));
    out.line("#pragma unroll");
    out.open(format!("for (int number = 0; number < {each}; ++number)"));
    out.line(place);
    out.line(body);
    out.close();
    out.close_statement();
}

/// The points of a product's loops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Extents {
    pub fn of(product: &Product) -> Extents {
        let points = |loops: &[ProductLoop]| loops.iter().map(|each| each.extent).product();
        let Product { batch, m, n, k, .. } = product;
        Extents { batch: points(batch), m: points(m), n: points(n), k: points(k) }
    }
}

/// The sides of a block's tile, and the depth of a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Sides {
    /// Blocks for all results.
    pub fn blocks(self, extents: Extents) -> usize {
        extents.batch * extents.m.div_ceil(self.m) * extents.n.div_ceil(self.n)
    }
}

/// An operand as a panel: `side` (rows of A or columns of B) by k.
pub(super) struct Panel<'a> {
    /// `a` or `b`.
    pub name: char,
    side: &'a [ProductLoop],
    /// Rows or columns of the tile.
    pub tile_side: usize,
    /// Those of the whole result.
    whole_side: usize,
    stride: Stride,
    start: i64,
}

/// The two operands of a product.
pub(super) fn panels(product: &Product, sides: Sides) -> [Panel<'_>; 2] {
    let Extents { m, n, .. } = Extents::of(product);
    let (a, b): (Stride, Stride) = (|each| each.a, |each| each.b);
    [
        Panel { name: 'a', side: &product.m, tile_side: sides.m, whole_side: m, stride: a, start: product.a.1 },
        Panel { name: 'b', side: &product.n, tile_side: sides.n, whole_side: n, stride: b, start: product.b.1 },
    ]
}

impl Panel<'_> {
    /// Whether neighbouring threads read neighbours along k.
    pub fn along_k(&self, k: &[ProductLoop]) -> bool {
        let contiguous = |loops: &[ProductLoop]| loops.last().is_some_and(|last| (self.stride)(last) == 1);
        contiguous(k) || !contiguous(self.side) && k.last().is_some_and(|last| (self.stride)(last) != 0)
    }

    /// The element of the operand at `side` of the tile and `deep` behind `start`, 0 where there is none.
    pub fn element(&self, product: &Product, sides: Sides, deep: &str) -> String {
        let Panel { name, tile_side, whole_side, .. } = *self;
        let first = if name == 'a' { "first_m" } else { "first_n" };
        let mut conditions = Vec::new();
        if !whole_side.is_multiple_of(tile_side) {
            conditions.push(format!("{first} + side < {whole_side}"));
        }
        if !Extents::of(product).k.is_multiple_of(sides.k) || !product.bands.is_empty() {
            conditions.push(format!("start + {deep} < end"));
        }
        let value = format!("load(from_{name} + side_{name}({first} + side) + deep_{name}(start + {deep}))");
        if conditions.is_empty() { value } else { format!("{} ? {value} : 0.0f", conditions.join(" && ")) }
    }
}

/// Where the block's tile lies, and where operands and results are.
pub(super) fn head(out: &mut Writer, product: &Product, names: &Names<'_>, sides: Sides, panels: &[Panel<'_>; 2]) {
    let extents = Extents::of(product);
    let (tiles_m, tiles_n) = (extents.m.div_ceil(sides.m), extents.n.div_ceil(sides.n));
    let [a, b, c] = [product.a.0, product.b.0, product.c.0].map(|id| names.buffer(id));
    out.line("const int thread = threadIdx.x, block = blockIdx.x;");
    out.line(format!("const int first_m = block / {tiles_n} % {tiles_m} * {};", sides.m));
    out.line(format!("const int first_n = block % {tiles_n} * {};", sides.n));
    let indices: Vec<String> = (0..product.batch.len()).map(|number| format!("b{number}_")).collect();
    let batch: Vec<usize> = product.batch.iter().map(|each| each.extent).collect();
    unravel(out, &format!("(block / {})", tiles_m * tiles_n), "int", &indices, &batch);
    let start = |stride: Stride, start: i64| {
        let terms = product.batch.iter().map(stride).enumerate().filter(|(_, stride)| *stride != 0);
        let linear = Linear { terms: terms.collect(), offset: start };
        sum_text(&linear, false, &|number| format!("b{number}_"))
    };
    for (panel, buffer) in panels.iter().zip([&a, &b]) {
        let start = start(panel.stride, panel.start);
        out.line(format!("const float* const from_{} = {buffer} + ({start});", panel.name));
    }
    out.line(format!("float* const to = {c} + ({});", start(|each| each.c, product.c.1)));
    for panel in panels {
        place_function(out, &format!("side_{}", panel.name), panel.side, panel.stride);
        place_function(out, &format!("deep_{}", panel.name), &product.k, panel.stride);
    }
    place_function(out, "row", &product.m, |each| each.c);
    place_function(out, "column", &product.n, |each| each.c);
    bounds(out, product, extents, sides);
}

/// Stores one result, `value`, at `at_m` and `at_n` of the whole.
pub(super) fn store(out: &mut Writer, product: &Product, names: &Names<'_>, sides: Sides, value: &str) {
    let Extents { m, n, .. } = Extents::of(product);
    let guards = [("at_m", m, sides.m), ("at_n", n, sides.n)].into_iter();
    let guards: Vec<String> = guards
        .filter(|(_, whole, side)| !whole.is_multiple_of(*side))
        .map(|(name, whole, _)| format!("{name} < {whole}"))
        .collect();
    let guard = if guards.is_empty() { String::new() } else { format!("if ({}) ", guards.join(" && ")) };
    let element = "to + (row(at_m) + column(at_n))";
    let value = if product.accumulate { format!("load({element}) + {value}") } else { value.to_string() };
    out.line(guard + &names.store(product.c.0, element, &value));
}

/// A function from the number of a point of loops to the place that they add.
fn place_function(out: &mut Writer, name: &str, loops: &[ProductLoop], stride: Stride) {
    out.open(format!("auto {name} = [](int at) -> long long"));
    let names: Vec<String> = (0..loops.len()).map(|number| format!("p{number}")).collect();
    let extents: Vec<usize> = loops.iter().map(|each| each.extent).collect();
    unravel(out, "at", "int", &names, &extents);
    let terms = loops.iter().map(stride).enumerate().filter(|(_, stride)| *stride != 0);
    let linear = Linear { terms: terms.collect(), offset: 0 };
    let reach: i128 = loops.iter().map(|each| i128::from(stride(each)).abs() * each.extent as i128).sum();
    let short = reach <= i128::from(i32::MAX);
    out.line(format!("return {};", sum_text(&linear, short, &|number| format!("p{number}"))));
    out.close_statement();
}

/// `begin` and `end` of k: what the bands leave of it for the tile at hand.
fn bounds(out: &mut Writer, product: &Product, extents: Extents, tile: Sides) {
    let Extents { m, n, k, .. } = extents;
    out.line(format!("int begin = 0, end = {k};"));
    let single = [&product.m, &product.n, &product.k].map(|loops| loops.len() <= 1);
    if single != [true; 3] {
        return;
    }
    // The loops of bands are numbered m, n, k; those of one iteration are left out.
    let mut numbers = [None; 3];
    let mut next = 0;
    for (number, loops) in numbers.iter_mut().zip([&product.m, &product.n, &product.k]) {
        if !loops.is_empty() {
            (*number, next) = (Some(next), next + 1);
        }
    }
    let coefficient = |band: &Linear, side: usize| numbers[side].map_or(0, |number| band.coefficient(number));
    for band in &product.bands {
        let [of_m, of_n, of_k] = [0, 1, 2].map(|side| coefficient(band, side));
        let most = |coefficient: i64, first: &str, tile: usize, whole: usize| match coefficient {
            0 => String::new(),
            1.. => format!(" + {coefficient}LL * min({first} + {}, {})", tile - 1, whole - 1),
            _ => format!(" - {}LL * {first}", -coefficient),
        };
        let (rows, columns) = (most(of_m, "first_m", tile.m, m), most(of_n, "first_n", tile.n, n));
        out.open("");
        out.line(format!("const long long most = {}LL{rows}{columns};", band.offset));
        match of_k {
            0 => out.line("if (most < 0) end = 0;"),
            // Multiplied where most + of_k * k >= 0.
            1.. => out.line(format!(
                "if (most < 0) begin = max(begin, (int)((-most + {}) / {of_k}) / {} * {});",
                of_k - 1,
                tile.k,
                tile.k
            )),
            _ => out.line(format!("end = most < 0 ? 0 : (int)min((long long)end, most / {} + 1);", -of_k)),
        }
        out.close();
    }
}

/// Panels of so much of k in turns, in the two halves of shared memory: while one is multiplied the next is fetched.
pub(super) fn turns(out: &mut Writer, depth: usize, multiply: impl FnOnce(&mut Writer)) {
    out.open("if (begin < end)");
    out.line("fetch_a(begin), fetch_b(begin);");
    out.line("put_a(0), put_b(0);");
    out.line("barrier();");
    out.open(format!("for (int start = begin, half = 0; start < end; start += {depth}, half ^= 1)"));
    out.line(format!("const bool more = start + {depth} < end;"));
    out.line(format!("if (more) fetch_a(start + {depth}), fetch_b(start + {depth});"));
    multiply(out);
    out.line("if (more) put_a(half ^ 1), put_b(half ^ 1);");
    out.line("barrier();");
    out.close_all(2);
}
