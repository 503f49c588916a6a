//! Which products are computed by minimal filtering, and with which tiles.
//!
//! Input: a program. Output: the same with [`KernelKind::Winograd`] in place of some products, each behind the transform of
//! its taps into a new buffer. Invariant: the choice follows from the product's loops and the largest tile allowed.

use crate::graph::DType;
use crate::kernel::winograd::{Geometry, Kind, SHORT, count};
use crate::kernel::{Buffer, BufferId, Kernel, KernelKind, Product, Program, Role, Winograd};

/// Fewest channels on each side that repay the transforms.
const FEWEST_CHANNELS: usize = 16;
/// Fewest tiles of a product.
const FEWEST_TILES: usize = 32;
/// Most tiles in a row.
const MOST_IN_A_ROW: usize = 256;
/// Least quotient of multiplications before and after.
const LEAST_GAIN: f64 = 1.5;

/// Replaces the products that tiles of at most `largest` make cheaper.
pub(super) fn choose(program: &mut Program, largest: usize) {
    for kernel in std::mem::take(&mut program.kernels) {
        let choice = kernel.kind.product().and_then(|product| winograd(product, &mut program.buffers, largest));
        let Some(winograd) = choice else {
            program.kernels.push(kernel);
            continue;
        };
        if winograd.filter.is_some() {
            let kind = KernelKind::Filter(winograd.clone());
            program.kernels.push(Kernel { kind, name: "winograd filter".into(), span: kernel.span });
        }
        let name = format!("winograd F({0}x{0}, 3x3)", winograd.tile);
        program.kernels.push(Kernel { kind: KernelKind::Winograd(winograd), name, span: kernel.span });
    }
}

fn winograd(product: &Product, buffers: &mut Vec<Buffer>, largest: usize) -> Option<Winograd> {
    let geometry = Geometry::of(product)?;
    let tile = tile(&geometry, largest)?;
    let filter = (geometry.kind == Kind::Taps).then(|| {
        let role = Role::Temporary(format!("filter{}", buffers.len()));
        buffers.push(Buffer { role, dtype: DType::F32, sizes: vec![geometry.filter_elements(tile)], offset: 0 });
        BufferId(buffers.len() as u32 - 1)
    });
    // A tile leaves no summand out.
    Some(Winograd { product: Product { bands: Vec::new(), ..product.clone() }, tile, filter })
}

/// The tile of most gain among those of at most `largest` that repay the transforms.
fn tile(geometry: &Geometry, largest: usize) -> Option<usize> {
    let worthwhile = [2, 4].into_iter().filter(|tile| *tile <= largest && pays(geometry, *tile));
    worthwhile.max_by(|a, b| gain(geometry, *a).total_cmp(&gain(geometry, *b)))
}

/// Multiplications of the direct sum divided by those with tiles of this size.
fn gain(geometry: &Geometry, tile: usize) -> f64 {
    let one = |window: usize| {
        let long = geometry.long(window);
        (long * SHORT) as f64 / (long.div_ceil(tile) * (tile + SHORT - 1)) as f64
    };
    one(0) * one(1)
}

fn pays(geometry: &Geometry, tile: usize) -> bool {
    let [rows, columns, summed] = [&geometry.rows, &geometry.columns, &geometry.summed].map(|dims| count(dims));
    let [outer, inner] = [0, 1].map(|window| geometry.long(window).div_ceil(tile));
    let (channels, tiles) = match geometry.kind {
        // The filter is transformed once, for one correlation.
        Kind::Taps if !geometry.batch.is_empty() => return false,
        Kind::Taps => (rows.min(summed), columns * outer * inner),
        Kind::Outputs => (rows.min(columns), summed * outer * inner),
    };
    let fits = inner <= MOST_IN_A_ROW;
    fits && channels >= FEWEST_CHANNELS && tiles >= FEWEST_TILES && gain(geometry, tile) >= LEAST_GAIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ProductLoop;

    #[test]
    fn a_tile_is_chosen_only_where_it_repays() {
        // 20 images of channels of 10 × 12 (with the padding), 32 output channels; taps × data.
        let lp = |extent, a, b, c| ProductLoop { extent, a, b, c };
        let mut product = Product {
            batch: Vec::new(),
            m: vec![lp(32, 16 * 9, 0, 80)],
            n: vec![lp(20, 0, 16 * 120, 32 * 80), lp(8, 0, 12, 10), lp(10, 0, 1, 1)],
            k: vec![lp(16, 9, 120, 0), lp(3, 3, 12, 0), lp(3, 1, 1, 0)],
            a: (BufferId(0), 0),
            b: (BufferId(1), 0),
            c: (BufferId(2), 0),
            accumulate: false,
            bands: Vec::new(),
        };
        let tile = |product: &Product, largest| tile(&Geometry::of(product).expect("a correlation"), largest);
        assert_eq!([2, 4].map(|largest| tile(&product, largest)), [Some(2), Some(4)]);
        product.k[0].extent = 3;
        assert_eq!(tile(&product, 4), None);
    }
}
