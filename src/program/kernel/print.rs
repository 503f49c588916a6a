//! A program as readable text, for `ansatz dump` and tests.
//!
//! Input: a [`Program`]. Output: its buffers and kernels, one line per buffer, node, reduction and store.

use std::fmt::Write;

use super::{
    BufferId, Kernel, KernelKind, Linear, Location, Nest, NodeOp, Phase, Product, ProductLoop, Program, ReductionKind,
};

/// The whole program.
pub fn print(program: &Program) -> String {
    let mut text = format!("arena {} bytes\n", program.arena_bytes);
    if program.local_bytes > 0 {
        let _ = writeln!(text, "each thread {} bytes", program.local_bytes);
    }
    for buffer in &program.buffers {
        let _ = writeln!(text, "  {:>10}  {} {:?}{:?}", buffer.offset, buffer.role, buffer.dtype, buffer.sizes);
    }
    for (number, kernel) in program.kernels.iter().enumerate() {
        if let Some(group) = program.groups.iter().find(|group| group.kernels.start == number) {
            let _ = writeln!(text, "kernels {number} to {} in {} slices:", group.kernels.end - 1, group.slices);
        }
        let _ = writeln!(text, "kernel {number} {}", kernel_text(program, kernel));
    }
    text
}

/// One kernel.
pub fn kernel_text(program: &Program, kernel: &Kernel) -> String {
    match &kernel.kind {
        KernelKind::Nest(nest) => format!("{}: {}", kernel.name, nest_text(program, nest)),
        KernelKind::Product(product) => format!("{}: {}", kernel.name, product_text(program, product)),
        KernelKind::Winograd(winograd) => {
            format!("{}: tiles of {}, {}", kernel.name, winograd.tile, product_text(program, &winograd.product))
        }
        KernelKind::Filter(winograd) => {
            let name = |id: BufferId| &program.buffer(id).role;
            let to = winograd.filter.map_or("nowhere".to_string(), |filter| name(filter).to_string());
            format!("{}: tiles of {}, {} to {to}", kernel.name, winograd.tile, name(winograd.taps()))
        }
        KernelKind::Zero(buffer) => format!("zero {}", program.buffer(*buffer).role),
        KernelKind::Copy { from, to } => format!("copy {} to {}", program.buffer(*from).role, program.buffer(*to).role),
    }
}

fn nest_text(program: &Program, nest: &Nest) -> String {
    let mut text = format!("for {:?}, {} parallel, lanes {:?}", nest.outer, nest.parallel, nest.lanes);
    for (number, phase) in nest.phases.iter().enumerate() {
        let _ = write!(text, "\n  phase {number} for {:?}", phase.inner);
        phase_text(program, phase, &mut text);
    }
    text
}

fn phase_text(program: &Program, phase: &Phase, text: &mut String) {
    for (number, node) in phase.nodes.iter().enumerate() {
        let _ = write!(text, "\n    %{number} = {}", node_text(program, &node.op));
    }
    for (number, reduction) in phase.reductions.iter().enumerate() {
        let kind = match reduction.kind {
            ReductionKind::Sum => "sum",
            ReductionKind::Max => "max",
            ReductionKind::ArgMax => "argmax",
        };
        let _ = write!(text, "\n    reduction {number} = {kind} %{}", reduction.node.0);
    }
    for store in &phase.stores {
        let sign = if store.accumulate { "+=" } else { "=" };
        let _ = write!(text, "\n    {} {sign} %{}", location_text(program, &store.location), store.value.0);
    }
}

fn node_text(program: &Program, op: &NodeOp) -> String {
    let name = |op: &dyn std::fmt::Debug| format!("{op:?}").to_lowercase();
    let operands = || op.operands().iter().map(|node| format!("%{}", node.0)).collect::<Vec<_>>().join(", ");
    match op {
        NodeOp::Const(number) => format!("{number}"),
        NodeOp::Index(linear) => format!("index {}", linear_text(linear)),
        NodeOp::Load(location) => format!("load {}", location_text(program, location)),
        NodeOp::Random { stream, element } => format!("random {stream} at {}", linear_text(element)),
        NodeOp::Reduced { phase, index } => format!("reduced {phase}.{index}"),
        NodeOp::Unary(op, _) => format!("{} {}", name(op), operands()),
        NodeOp::Binary(op, ..) => format!("{} {}", name(op), operands()),
        NodeOp::Compare(op, ..) => format!("{} {}", name(op), operands()),
        NodeOp::Select(..) => format!("select {}", operands()),
        NodeOp::Cast(_) => format!("cast {}", operands()),
    }
}

/// `2*i0 + i1 - 3`.
pub fn linear_text(linear: &Linear) -> String {
    named_text(linear, |index| format!("i{index}"))
}

fn named_text(linear: &Linear, name: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for &(index, coefficient) in &linear.terms {
        let sign = if coefficient < 0 { "-" } else { "+" };
        let factor = if coefficient.abs() == 1 { String::new() } else { format!("{}*", coefficient.abs()) };
        if text.is_empty() && coefficient > 0 {
            let _ = write!(text, "{factor}{}", name(index));
        } else {
            let _ = write!(text, " {sign} {factor}{}", name(index));
        }
    }
    match (text.is_empty(), linear.offset) {
        (true, offset) => offset.to_string(),
        (false, 0) => text,
        (false, offset) if offset < 0 => format!("{text} - {}", -offset),
        (false, offset) => format!("{text} + {offset}"),
    }
}

fn location_text(program: &Program, location: &Location) -> String {
    let mut text = format!("{}[{}", program.buffer(location.buffer).role, linear_text(&location.index));
    for term in &location.indirect {
        let _ = write!(text, " + {}*(%{} < {})", term.stride, term.node.0, term.extent);
    }
    text.push(']');
    for (guard, extent) in &location.guards {
        let _ = write!(text, " if 0 <= {} < {extent}", linear_text(guard));
    }
    text
}

fn product_text(program: &Program, product: &Product) -> String {
    let operand = |name: &str, (buffer, offset): (super::BufferId, i64)| {
        format!("{name} = {}+{offset}", program.buffer(buffer).role)
    };
    let sign = if product.accumulate { "+=" } else { "=" };
    let mut text = format!(
        "c {sign} a * b, {}, {}, {}",
        operand("a", product.a),
        operand("b", product.b),
        operand("c", product.c)
    );
    for (name, loops) in [("batch", &product.batch), ("m", &product.m), ("n", &product.n), ("k", &product.k)] {
        for ProductLoop { extent, a, b, c } in loops {
            let _ = write!(text, "\n  {name} {extent} strides a {a}, b {b}, c {c}");
        }
    }
    for band in bands_text(product) {
        let _ = write!(text, "\n  only where {band}");
    }
    text
}

/// `m - k >= 0` for each band of a product; loops of one kind are numbered where there are several.
pub fn bands_text(product: &Product) -> Vec<String> {
    let kinds = [("m", &product.m), ("n", &product.n), ("k", &product.k)];
    let name = |(kind, loops): (&str, &Vec<ProductLoop>), place: usize| match loops.len() {
        1 => kind.to_string(),
        _ => format!("{kind}{place}"),
    };
    let names: Vec<String> =
        kinds.iter().flat_map(|&(kind, loops)| (0..loops.len()).map(move |place| name((kind, loops), place))).collect();
    product.bands.iter().map(|band| format!("{} >= 0", named_text(band, |index| names[index].clone()))).collect()
}
