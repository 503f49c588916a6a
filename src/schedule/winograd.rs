//! Which products are computed by minimal filtering.
//!
//! Input: kernels. Output: the same with [`KernelKind::Winograd`] in place of some products, each behind the transform of its
//! taps into a new buffer. Invariant: the choice follows from the product's loops and the largest tile allowed.

use crate::graph::DType;
use crate::kernel::winograd::{Geometry, Kind};
use crate::kernel::{Buffer, BufferId, Kernel, KernelKind, Product, Role, Winograd};

/// Replaces the products that tiles of at most `largest` make cheaper.
pub(super) fn choose(kernels: Vec<Kernel>, buffers: &mut Vec<Buffer>, largest: usize) -> Vec<Kernel> {
    let mut chosen = Vec::with_capacity(kernels.len());
    for kernel in kernels {
        let Some(winograd) = kernel.kind.product().and_then(|product| winograd(product, buffers, largest)) else {
            chosen.push(kernel);
            continue;
        };
        if winograd.filter.is_some() {
            let kind = KernelKind::Filter(winograd.clone());
            chosen.push(Kernel { kind, name: "winograd filter".into(), span: kernel.span });
        }
        let name = format!("winograd F({0}x{0}, 3x3)", winograd.tile);
        chosen.push(Kernel { kind: KernelKind::Winograd(winograd), name, span: kernel.span });
    }
    chosen
}

fn winograd(product: &Product, buffers: &mut Vec<Buffer>, largest: usize) -> Option<Winograd> {
    let geometry = Geometry::of(product)?;
    let tile = geometry.tile(largest)?;
    let filter = (geometry.kind == Kind::Taps).then(|| {
        let role = Role::Temporary(format!("filter{}", buffers.len()));
        buffers.push(Buffer { role, dtype: DType::F32, sizes: vec![geometry.filter_elements(tile)], offset: 0 });
        BufferId(buffers.len() as u32 - 1)
    });
    Some(Winograd { product: product.clone(), tile, filter })
}
