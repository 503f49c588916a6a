//! A readable text form of a graph, for `ansatz dump`, tests and messages.
//!
//! Input: a graph and the sources it stems from. Output: one line per entry and value.
//! Invariant: equal graphs print equally; nothing here feeds back into the compiler.

use std::fmt::Write;

use super::{Access, Affine, Contract, DType, Graph, Indirect, IndirectIndex, Op, ValueId, Variable};
use crate::dim::Dim;
use crate::source::SourceMap;

/// The whole graph as text. Values without a source (an unknown file) carry no place.
pub fn print(graph: &Graph, sources: &SourceMap) -> String {
    let mut text = String::new();
    for input in &graph.inputs {
        line(&mut text, format!("input {}: {}", input.name, type_text(input.dtype, &input.shape)));
    }
    for param in &graph.params {
        line(&mut text, format!("param {}: {} ~ {:?}", param.name, type_text(DType::F32, &param.shape), param.init));
    }
    for state in &graph.states {
        line(&mut text, format!("state {}: {} = {}", state.name, type_text(state.dtype, &state.shape), state.init));
    }
    for scalar in &graph.scalars {
        line(&mut text, format!("scalar {} = {}", scalar.name, scalar.expr));
    }
    for (id, value) in graph.values() {
        let known = sources.files().any(|(file, _)| file == value.span.file);
        let place = if known { format!("  # {}", sources.location(value.span)) } else { String::new() };
        let head = format!("%{}: {}", id.0, type_text(value.dtype, &value.shape));
        line(&mut text, format!("{head} = {}{place}", op_text(graph, id)));
    }
    for output in &graph.outputs {
        line(&mut text, format!("output {} = %{}", output.name, output.value.0));
    }
    for update in &graph.updates {
        line(&mut text, format!("update {} <- %{}", target_name(graph, update.target), update.value.0));
    }
    text
}

fn line(text: &mut String, content: String) {
    writeln!(text, "{content}").expect("writing to a string succeeds");
}

/// The name of what an update overwrites.
pub fn target_name(graph: &Graph, target: Variable) -> &str {
    match target {
        Variable::Param(id) => &graph.params[id.0 as usize].name,
        Variable::State(id) => &graph.states[id.0 as usize].name,
    }
}

/// `f32[N, 10]`.
pub fn type_text(dtype: DType, shape: &[Dim]) -> String {
    format!("{}{}", dtype.name(), shape_text(shape))
}

/// `[N, 10]`.
pub fn shape_text(shape: &[Dim]) -> String {
    format!("[{}]", shape.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "))
}

/// The right side of a value's line.
pub fn op_text(graph: &Graph, id: ValueId) -> String {
    let value = graph.value(id);
    let args = value.args.iter().map(|arg| format!("%{}", arg.0)).collect::<Vec<_>>();
    let list = args.join(", ");
    match &value.op {
        Op::Input(id) => format!("input {}", graph.inputs[id.0 as usize].name),
        Op::Param(id) => format!("param {}", graph.params[id.0 as usize].name),
        Op::State(id) => format!("state {}", graph.states[id.0 as usize].name),
        Op::Scalar(id) => format!("scalar {}", graph.scalars[id.0 as usize].name),
        Op::Const(number) => format!("const {number}"),
        Op::Size(dim) => format!("size {dim}"),
        Op::Index { axis } => format!("index axis {axis}"),
        Op::Random { stream } => format!("random stream {stream}"),
        Op::Unary(op) => format!("{} {list}", format!("{op:?}").to_lowercase()),
        Op::Binary(op) => format!("{} {list}", format!("{op:?}").to_lowercase()),
        Op::Compare(op) => format!("{} {list}", format!("{op:?}").to_lowercase()),
        Op::Select => format!("select {list}"),
        Op::Cast => format!("cast {list}"),
        Op::Detach => format!("detach {list}"),
        Op::Reshape => format!("reshape {list}"),
        Op::Contract(contract) => contract_text(contract, &format!("%{}", id.0), &args),
        Op::ReduceMax { axes } => format!("max {list} over {axes:?}"),
        Op::ArgMax { axes } => format!("argmax {list} over {axes:?}"),
        Op::Gather(indirect) => {
            let names = index_names(indirect.domain.len());
            format!("gather {}{}", indirect_text(indirect, &args, &names, &args[0]), ranges(&indirect.domain, &names))
        }
        Op::Scatter(indirect) => {
            let names = index_names(indirect.domain.len());
            let target = indirect_text(indirect, &args, &names, &format!("%{}", id.0));
            format!("scatter {target} += {}[{}]{}", args[0], names.join(", "), ranges(&indirect.domain, &names))
        }
    }
}

/// `contract %4[i, j] += %1[i, k] * %2[j, k] for i < 3, j < 4, k < 5`.
fn contract_text(contract: &Contract, output: &str, args: &[String]) -> String {
    let names = index_names(contract.domain.len());
    let reads = contract.operands.iter().zip(args).map(|(access, arg)| format!("{arg}{}", access_text(access, &names)));
    let product = reads.collect::<Vec<_>>().join(" * ");
    let target = access_text(&contract.output, &names);
    format!("contract {output}{target} += {product}{}", ranges(&contract.domain, &names))
}

fn ranges(domain: &[Dim], names: &[String]) -> String {
    let ranges = domain.iter().zip(names).map(|(dim, name)| format!("{name} < {dim}"));
    let list = ranges.collect::<Vec<_>>().join(", ");
    if list.is_empty() { list } else { format!(" for {list}") }
}

fn indirect_text(indirect: &Indirect, args: &[String], names: &[String], base: &str) -> String {
    let index = indirect.index.iter().map(|index| match index {
        IndirectIndex::Affine(affine) => affine_text(affine, names),
        IndirectIndex::Tensor { arg, access } => format!("{}{}", args[*arg], access_text(access, names)),
    });
    format!("{base}[{}]", index.collect::<Vec<_>>().join(", "))
}

/// Index letters `i, j, k, …`, then `i1, j1, …`.
pub fn index_names(count: usize) -> Vec<String> {
    const LETTERS: &[u8] = b"ijklmnopqrstuvwxyz";
    let name = |index: usize| {
        let letter = LETTERS[index % LETTERS.len()] as char;
        match index / LETTERS.len() {
            0 => letter.to_string(),
            round => format!("{letter}{round}"),
        }
    };
    (0..count).map(name).collect()
}

/// `[2*i + k - 1, j]`; nothing for a scalar.
pub fn access_text(access: &Access, names: &[String]) -> String {
    if access.is_empty() {
        return String::new();
    }
    format!("[{}]", access.iter().map(|affine| affine_text(affine, names)).collect::<Vec<_>>().join(", "))
}

/// `2*i + k - 1`.
pub fn affine_text(affine: &Affine, names: &[String]) -> String {
    let mut text = String::new();
    for &(index, coefficient) in &affine.terms {
        let sign = match (text.is_empty(), coefficient < 0) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        };
        let factor = match coefficient.unsigned_abs() {
            1 => String::new(),
            size => format!("{size}*"),
        };
        text += &format!("{sign}{factor}{}", names[index]);
    }
    let offset = affine.offset.to_string();
    match (text.is_empty(), offset.as_str()) {
        (true, _) => offset,
        (false, "0") => text,
        (false, _) => match offset.strip_prefix('-') {
            Some(size) if !size.contains(['+', '-', ' ']) => format!("{text} - {size}"),
            Some(_) | None => format!("{text} + {offset}"),
        },
    }
}
