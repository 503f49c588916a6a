//! Which products are correlations over two dims that Winograd's minimal filtering computes with fewer multiplications.
//!
//! Input: the loops of a [`Product`]. Output: its [`Geometry`]. Invariant: everything follows from extents and
//! strides; a product without geometry is computed directly.
//!
//! F(m, r) gives m outputs of r taps with m + r - 1 multiplications (Winograd 1980; Lavin and Gray 2016). A summed index
//! and an output index that one operand (the data) sees only as their sum, and of which the other (the taps) sees the
//! summed one alone, make a window. A forward convolution and its input gradient have three taps and a long output; a
//! weight gradient has three outputs and long taps, which are cut into tiles of 2 or 4.

use super::{BufferId, Product, ProductLoop};

/// Taps, or outputs, of a window's short side.
pub const SHORT: usize = 3;
/// A product computed by minimal filtering in two dims.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Winograd {
    /// What is computed.
    pub product: Product,
    /// Outputs (for weight gradients: taps) of a tile along each dim: 2 or 4.
    pub tile: usize,
    /// The transformed taps `[point][row][summed]`, where the short side is that of the taps.
    pub filter: Option<BufferId>,
}

impl Winograd {
    /// The product as a correlation.
    ///
    /// # Panics
    /// If it is none: a bug of `schedule`.
    pub fn geometry(&self) -> Geometry {
        Geometry::of(&self.product).expect("only correlations are computed by minimal filtering")
    }

    /// The buffer of the taps.
    ///
    /// # Panics
    /// As [`Winograd::geometry`].
    pub fn taps(&self) -> BufferId {
        if self.geometry().data_is_a { self.product.b.0 } else { self.product.a.0 }
    }
}

/// Which side of the windows is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three taps: a convolution or its input gradient.
    Taps,
    /// Three outputs: a weight gradient.
    Outputs,
}

/// One dim of the correlation: `out[i] += data[i + j] · taps[j]`, all strides such that i and j grow together in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extent of i.
    pub outputs: usize,
    /// Extent of j.
    pub taps: usize,
    /// Stride of both in the data, above 0.
    pub data: i64,
    /// Stride of j in the taps.
    pub tap: i64,
    /// Stride of i in the output.
    pub output: i64,
}

/// A loop with its strides in data, taps and output; those that do not see it have 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim {
    /// Trip count.
    pub extent: usize,
    /// In the data.
    pub data: i64,
    /// In the taps.
    pub tap: i64,
    /// In the output.
    pub output: i64,
}

/// A product as a correlation over two dims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Which side is short.
    pub kind: Kind,
    /// The data are operand A, the taps operand B; else the other way round.
    pub data_is_a: bool,
    /// The outer window, then the inner one, whose elements are neighbours in the data.
    pub windows: [Window; 2],
    /// Element offsets of the first elements of data, taps and output.
    pub starts: [i64; 3],
    /// Loops of independent correlations.
    pub batch: Vec<Dim>,
    /// Output loops that only the data see: images, or channels of a weight gradient.
    pub columns: Vec<Dim>,
    /// Output loops that only the taps see: channels.
    pub rows: Vec<Dim>,
    /// Summed loops: channels, or images of a weight gradient.
    pub summed: Vec<Dim>,
}

/// Iterations of all these loops.
pub fn count(dims: &[Dim]) -> usize {
    dims.iter().map(|dim| dim.extent).product()
}

impl Geometry {
    /// The product's geometry, if its loops are two windows with unit steps and plain loops.
    pub fn of(product: &Product) -> Option<Geometry> {
        [true, false].into_iter().find_map(|data_is_a| Geometry::with(product, data_is_a))
    }

    fn with(product: &Product, data_is_a: bool) -> Option<Geometry> {
        let dim = |l: &ProductLoop| {
            let (data, tap) = if data_is_a { (l.a, l.b) } else { (l.b, l.a) };
            Dim { extent: l.extent, data, tap, output: l.c }
        };
        let mut dims: Vec<Dim> = product.loops().filter(|l| l.extent > 1).map(dim).collect();
        let mut starts = if data_is_a { [product.a.1, product.b.1] } else { [product.b.1, product.a.1] };
        let mut output_start = product.c.1;
        let mut windows = Vec::new();
        while let Some((i, j)) = pair(&dims) {
            let (output, tap) = (dims[i], dims[j]);
            windows.push(window(output, tap, &mut starts, &mut output_start)?);
            dims.retain(|dim| *dim != output && *dim != tap);
        }
        windows.sort_by_key(|window| std::cmp::Reverse(window.data));
        let windows: [Window; 2] = windows.try_into().ok()?;
        let kind = match windows.map(|window| (window.outputs, window.taps)) {
            [(_, SHORT), (_, SHORT)] => Kind::Taps,
            [(SHORT, _), (SHORT, _)] => Kind::Outputs,
            _ => return None,
        };
        let neighbours = match kind {
            Kind::Taps => windows[1].output,
            Kind::Outputs => windows[1].tap,
        };
        if windows[1].data != 1 || neighbours != 1 {
            return None;
        }
        let [mut batch, mut columns, mut rows, mut summed] = [const { Vec::new() }; 4];
        for dim in dims {
            match (dim.data != 0, dim.tap != 0, dim.output != 0) {
                (true, true, true) => batch.push(dim),
                (true, false, true) => columns.push(dim),
                (false, true, true) => rows.push(dim),
                (true, true, false) => summed.push(dim),
                (false, false, _) | (true, false, false) | (false, true, false) => return None,
            }
        }
        let starts = [starts[0], starts[1], output_start];
        Some(Geometry { kind, data_is_a, windows, starts, batch, columns, rows, summed })
    }

    /// The long extent of a window, which is cut into tiles.
    pub fn long(&self, window: usize) -> usize {
        match self.kind {
            Kind::Taps => self.windows[window].outputs,
            Kind::Outputs => self.windows[window].taps,
        }
    }

    /// Elements of the transformed taps.
    pub fn filter_elements(&self, tile: usize) -> usize {
        (tile + SHORT - 1).pow(2) * count(&self.rows) * count(&self.summed)
    }
}

/// Positions of an output loop and a summed loop that the data see as a sum or a difference.
fn pair(dims: &[Dim]) -> Option<(usize, usize)> {
    let is_output = |dim: &Dim| dim.output != 0 && dim.data != 0 && dim.tap == 0;
    let is_tap = |dim: &Dim| dim.output == 0 && dim.data != 0 && dim.tap != 0;
    (0..dims.len()).filter(|&i| is_output(&dims[i])).find_map(|i| {
        let fits = |j: &usize| is_tap(&dims[*j]) && dims[*j].data.abs() == dims[i].data.abs();
        let j = (0..dims.len()).find(fits)?;
        Some((i, j))
    })
}

/// The window of such a pair; a difference becomes a sum by counting the short side backwards.
fn window(output: Dim, tap: Dim, starts: &mut [i64; 2], output_start: &mut i64) -> Option<Window> {
    let mut window =
        Window { outputs: output.extent, taps: tap.extent, data: output.data, tap: tap.tap, output: output.output };
    if output.data != tap.data {
        if tap.extent == SHORT {
            let last = tap.extent as i64 - 1;
            starts[0] += last * tap.data;
            starts[1] += last * tap.tap;
            window.tap = -tap.tap;
        } else {
            let last = output.extent as i64 - 1;
            starts[0] += last * output.data;
            *output_start += last * output.output;
            (window.output, window.data) = (-output.output, tap.data);
        }
    }
    (window.data > 0).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lp(extent: usize, a: i64, b: i64, c: i64) -> ProductLoop {
        ProductLoop { extent, a, b, c }
    }

    fn product(m: &[ProductLoop], n: &[ProductLoop], k: &[ProductLoop]) -> Product {
        let start = |buffer| (BufferId(buffer), 0);
        let (m, n, k) = (m.to_vec(), n.to_vec(), k.to_vec());
        Product {
            batch: Vec::new(),
            m,
            n,
            k,
            a: start(0),
            b: start(1),
            c: start(2),
            accumulate: false,
            bands: Vec::new(),
        }
    }

    /// 20 images of 16 channels of 10 × 12 (with the padding), 32 output channels; taps × data.
    fn forward(stride: i64, taps: usize) -> Product {
        let t = taps as i64;
        product(
            &[lp(32, 16 * t * t, 0, 80)],
            &[lp(20, 0, 16 * 120, 32 * 80), lp(8, 0, 12 * stride, 10), lp(10, 0, stride, 1)],
            &[lp(16, t * t, 120, 0), lp(taps, t, 12, 0), lp(taps, 1, 1, 0)],
        )
    }

    #[test]
    fn a_convolution_of_three_taps_is_two_windows() {
        let geometry = Geometry::of(&forward(1, 3)).expect("a correlation");
        assert_eq!((geometry.kind, geometry.data_is_a), (Kind::Taps, false));
        assert_eq!(geometry.windows[0], Window { outputs: 8, taps: 3, data: 12, tap: 3, output: 10 });
        assert_eq!(geometry.windows[1], Window { outputs: 10, taps: 3, data: 1, tap: 1, output: 1 });
        assert_eq!([&geometry.columns, &geometry.rows, &geometry.summed].map(|dims| count(dims)), [20, 32, 16]);
        assert_eq!(geometry.filter_elements(4), 36 * 32 * 16);
    }

    #[test]
    fn taps_that_run_against_the_data_are_counted_backwards() {
        let mut flipped = forward(1, 3);
        flipped.k[1].b = -12;
        flipped.k[2].b = -1;
        flipped.b.1 = 26;
        let geometry = Geometry::of(&flipped).expect("a correlation");
        assert_eq!(geometry.windows.map(|window| (window.data, window.tap)), [(12, -3), (1, -1)]);
        assert_eq!(geometry.starts, [0, 8, 0]);
    }

    #[test]
    fn a_weight_gradient_is_two_windows_of_three_outputs() {
        let gradient = product(
            &[lp(32, 80, 0, 16 * 9)],
            &[lp(16, 0, 120, 9), lp(3, 0, 12, 3), lp(3, 0, 1, 1)],
            &[lp(20, 32 * 80, 16 * 120, 0), lp(8, 10, 12, 0), lp(10, 1, 1, 0)],
        );
        let geometry = Geometry::of(&gradient).expect("a correlation");
        assert_eq!((geometry.kind, geometry.long(0), geometry.long(1)), (Kind::Outputs, 8, 10));
    }

    #[test]
    fn strides_other_windows_and_plain_products_stay_direct() {
        assert_eq!(Geometry::of(&forward(2, 3)), None);
        assert_eq!(Geometry::of(&forward(1, 5)), None);
        assert_eq!(Geometry::of(&product(&[lp(64, 64, 0, 64)], &[lp(64, 0, 1, 1)], &[lp(64, 1, 64, 0)])), None);
    }
}
