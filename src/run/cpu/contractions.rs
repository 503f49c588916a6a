//! The kernels of a program that are primitives, with their places in memory.
//!
//! Input: a program, a level and the cuts of products. Output: plans in the order of kernels. Invariant: both halves see
//! the same plans for the same cuts, so part counts in code are those that run.

use crate::contraction::Contraction;
use crate::contraction::product::{Cut, Place, ProductPlan};
use crate::kernel::{BufferId, KernelKind, Product, Program};
use crate::machine::Level;

/// The contractions of a program; `cut` gives that of a product whose first so many batch loops stay outermost.
pub fn contractions(program: &Program, level: Level, mut cut: impl FnMut(&Product, usize) -> Cut) -> Vec<Contraction> {
    let offset = |id: BufferId| program.buffer(id).offset;
    let plan = |(position, kernel): (usize, &crate::kernel::Kernel)| match &kernel.kind {
        KernelKind::Product(product) => {
            let kept = kept_loops(program, position, product);
            let places = [product.a, product.b, product.c].map(|(buffer, _)| place(program, buffer));
            let plan = ProductPlan::sliced(product, places, kept, level, cut(product, kept));
            Some(Contraction::Product(Box::new(plan)))
        }
        // Only nests and products are in groups and touch the threads' own memory.
        KernelKind::Winograd(winograd) => Some(Contraction::winograd(winograd, &offset, level)),
        KernelKind::Filter(winograd) => Some(Contraction::filter(winograd, &offset, level)),
        KernelKind::Nest(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => None,
    };
    program.kernels.iter().enumerate().filter_map(plan).collect()
}

fn place(program: &Program, id: BufferId) -> Place {
    match (program.is_local(id), program.buffer(id).offset) {
        // A thread's own memory ends where its scratch begins.
        (true, offset) => Place { byte: offset as isize - program.local_bytes as isize, from_scratch: true },
        (false, offset) => Place::in_arena(offset),
    }
}

/// How many batch loops of a product must stay outermost: those that number the slices of its group.
fn kept_loops(program: &Program, position: usize, product: &Product) -> usize {
    program.group_of(position).map_or(0, |group| {
        product.slice_loops(group.slices).expect("the leading batch loops of a grouped product number the slices")
    })
}

/// The products of a program that are run as such, with their kernels and the number of batch loops that stay outermost:
/// what [`crate::contraction::tuning::measure`] asks for.
pub fn products(program: &Program) -> impl Iterator<Item = (usize, &Product, usize)> {
    program.kernels.iter().enumerate().filter_map(|(position, kernel)| {
        let product = kernel.kind.product()?;
        Some((position, product, kept_loops(program, position, product)))
    })
}
