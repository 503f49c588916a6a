//! A graph as model text: the equations of the language, one for each value worth a name.
//!
//! Input: a graph, usually a model with its loss and gradients as outputs `grad.NAME`, after `passes::for_reading`.
//! Output: a `model` whose inputs are the graph's inputs, parameters, states and scalars, and whose results are the
//! graph's outputs (`grad.fc1.weight` is `d_fc1_weight`) and updates (`new_NAME`).
//! Invariant: the text parses and expands to a graph of the same values, but for fresh random draws.
//!
//! Elementwise ops, repetitions and transpositions are written where they are read; what sums, what is read at guarded
//! places or more than once gets a line.

mod term;

use std::collections::{HashMap, HashSet};

use crate::dim::Dim;
use crate::graph::print::{index_names, shape_text, type_text};
use crate::graph::{Access, Affine, Contract, DType, Graph, IndirectIndex, Op, Output, Value, ValueId, Variable};
use crate::source::SourceMap;

/// How many ops a line holds before a part of it gets a line of its own.
const LONGEST: usize = 12;

/// The graph as a model of the language.
pub fn equations(graph: &Graph, sources: &SourceMap) -> String {
    let graph = &with_updates(graph);
    let mut printer = Printer {
        graph,
        names: HashMap::new(),
        taken: HashSet::new(),
        letters: Vec::new(),
        lines: Vec::new(),
        ranges: HashMap::new(),
    };
    printer.declare();
    printer.declare_ranges();
    let results = printer.results();
    let lines = printer.choose_lines();
    for (id, value) in graph.values() {
        if lines.contains(&id) {
            let known = sources.files().any(|(file, _)| file == value.span.file);
            let place = if known { format!("  # {}", sources.location(value.span)) } else { String::new() };
            printer.define(id, &place);
        }
    }
    for (name, id) in &results {
        if printer.names.get(id) != Some(name) {
            printer.alias(name, *id);
        }
    }
    let names: Vec<&str> = results.iter().map(|(name, _)| name.as_str()).collect();
    printer.lines.push(format!("return {}", names.join(", ")));
    format!("model Equations {{\n  {}\n}}\n", printer.lines.join("\n  "))
}

/// The graph whose updates are outputs `new.NAME`.
fn with_updates(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    for update in std::mem::take(&mut graph.updates) {
        let name = match update.target {
            Variable::Param(id) => &graph.params[id.0 as usize].name,
            Variable::State(id) => &graph.states[id.0 as usize].name,
        };
        let output = Output { name: format!("new.{name}").into(), value: update.value };
        graph.outputs.push(output);
    }
    graph
}

struct Printer<'g> {
    graph: &'g Graph,
    /// Values that can be read by name.
    names: HashMap<ValueId, String>,
    /// Names of tensors.
    taken: HashSet<String>,
    /// Names for indices, none of them a tensor's.
    letters: Vec<String>,
    lines: Vec<String>,
    /// Tensors `0, 1, …` by extent, which give a range to an index that is read at shifted places only.
    ranges: HashMap<String, String>,
}

impl Printer<'_> {
    fn fresh(&mut self, wanted: &str) -> String {
        let mut name: String = wanted.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        while name.starts_with(|c: char| c.is_ascii_digit()) || !self.taken.insert(name.clone()) {
            name.insert(0, 'v');
        }
        name
    }

    /// Declares each entry that is read, under a name of its own.
    fn declare(&mut self) {
        let graph = self.graph;
        let mut known: HashMap<String, String> = HashMap::new();
        for (id, value) in graph.values() {
            let wanted = match &value.op {
                Op::Input(entry) => &graph.inputs[entry.0 as usize].name,
                Op::Param(entry) => &graph.params[entry.0 as usize].name,
                Op::State(entry) => &graph.states[entry.0 as usize].name,
                Op::Scalar(entry) => &graph.scalars[entry.0 as usize].name,
                Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Random { .. } | Op::Unary(_) => continue,
                Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast | Op::Detach | Op::Reshape => continue,
                Op::Contract(_) | Op::ReduceMax { .. } | Op::ArgMax { .. } | Op::Gather(_) | Op::Scatter(_) => continue,
            };
            let key = format!("{:?}", value.op);
            if let Some(name) = known.get(&key) {
                self.names.insert(id, name.clone());
                continue;
            }
            let name = self.fresh(wanted);
            // A bare `[]` would stand for any shape.
            let plain = value.dtype == DType::F32 && !value.shape.is_empty();
            let ty = if plain { shape_text(&value.shape) } else { type_text(value.dtype, &value.shape) };
            self.lines.push(format!("input {name}: {ty}"));
            known.insert(key, name.clone());
            self.names.insert(id, name);
        }
    }

    /// The outputs under valid names; an output's name becomes its value's where that has none.
    fn results(&mut self) -> Vec<(String, ValueId)> {
        let outputs = self.graph.outputs.clone();
        let results: Vec<(String, ValueId)> =
            outputs.iter().map(|output| (self.fresh(&output.name.to_string()), output.value)).collect();
        for (name, id) in &results {
            self.names.entry(*id).or_insert_with(|| name.clone());
        }
        results
    }

    /// The values that get a line; those without a name get one.
    fn choose_lines(&mut self) -> HashSet<ValueId> {
        let graph = self.graph;
        let mut uses = vec![0usize; graph.len()];
        let mut needed: HashSet<ValueId> = graph.outputs.iter().map(|output| output.value).collect();
        for (id, value) in graph.values() {
            value.args.iter().for_each(|arg| uses[arg.0 as usize] += 1);
            if stands_alone(graph, id) {
                needed.insert(id);
            }
            needed.extend(term::read_by_name(graph, id));
        }
        let mut weight = vec![0usize; graph.len()];
        let mut lines = HashSet::new();
        let mut number = 0;
        for (id, value) in graph.values() {
            let inlined = value.args.iter().filter(|arg| !self.names.contains_key(arg));
            let total: usize = 1 + inlined.map(|arg| weight[arg.0 as usize]).sum::<usize>();
            weight[id.0 as usize] = total;
            if is_leaf(&value.op) && (is_entry(&value.op) || !needed.contains(&id)) {
                continue;
            }
            let heavy = value.dtype != DType::Bool && (total > LONGEST || (uses[id.0 as usize] > 1 && total > 1));
            let shared = value.dtype != DType::Bool && uses[id.0 as usize] > 1 && !is_move(graph, id);
            if needed.contains(&id) || heavy || shared {
                lines.insert(id);
                if !self.names.contains_key(&id) {
                    number += 1;
                    let name = self.fresh(&format!("t{number}"));
                    self.names.insert(id, name);
                }
            }
        }
        self.letters = index_names(200).into_iter().filter(|letter| !self.taken.contains(letter)).collect();
        lines
    }

    /// The line of a value.
    fn define(&mut self, id: ValueId, place: &str) {
        let value = self.graph.value(id).clone();
        let name = self.names[&id].clone();
        if matches!(value.op, Op::Reshape | Op::Detach) {
            let arg = &self.names[&value.args[0]];
            let text = match value.op {
                Op::Detach => format!("{name} = stop_gradient({arg})"),
                _ => format!("{name} = reshape({arg}, {})", shape_text(&value.shape)),
            };
            self.lines.push(format!("{text}{place}"));
            return;
        }
        let indices = self.letters[..value.shape.len()].to_vec();
        let body = self.body(id, &indices);
        self.equation(&name, &indices, &body, &shape_text(&value.shape), place);
    }

    fn equation(&mut self, name: &str, indices: &[String], body: &str, shape: &str, place: &str) {
        if indices.is_empty() {
            // An equation needs indices on the left; a scalar is bound as the expression that it is.
            self.lines.push(format!("{name}[] = {body}{place}"));
        } else {
            self.lines.push(format!("{name}[{}] = {body} : {shape}{place}", indices.join(", ")));
        }
    }

    /// A further name for a value.
    fn alias(&mut self, name: &str, id: ValueId) {
        let shape = self.graph.shape(id);
        let indices = self.letters[..shape.len()].to_vec();
        let read = self.read(id, &indices);
        self.equation(name, &indices, &read, &shape_text(shape), "");
    }

    fn read(&self, id: ValueId, indices: &[String]) -> String {
        match self.names.get(&id) {
            Some(name) if indices.is_empty() => name.clone(),
            Some(name) => format!("{name}[{}]", indices.join(", ")),
            None => term::term(self, id, &indices.iter().map(|i| term::Place::index(i)).collect::<Vec<_>>()).text,
        }
    }

    /// The right side of a value's line.
    fn body(&mut self, id: ValueId, indices: &[String]) -> String {
        let value = self.graph.value(id).clone();
        match &value.op {
            Op::Contract(contract) if !is_move(self.graph, id) => self.contraction(contract, &value, indices),
            Op::ReduceMax { axes } => self.extremum("max", axes, value.args[0], indices),
            Op::ArgMax { axes } => self.extremum("argmax", axes, value.args[0], indices),
            Op::Scatter(indirect) => {
                let inner = self.letters[indices.len()..indices.len() + indirect.domain.len()].to_vec();
                let places: Vec<term::Place> = inner.iter().map(|i| term::Place::index(i)).collect();
                let source = term::term(self, value.args[0], &places);
                let conditions: Vec<String> = indirect
                    .index
                    .iter()
                    .zip(indices)
                    .map(|(index, target)| match index {
                        IndirectIndex::Affine(affine) => format!("{} == {target}", term::affine(affine, &places).text),
                        IndirectIndex::Tensor { arg, access } => {
                            let read = term::read(self, value.args[*arg], access, &indirect.domain, &places);
                            format!("{} == {target}", read.above(term::SUM))
                        }
                    })
                    .collect();
                format!("sum[{}] ({} if {} else 0)", inner.join(", "), source.above(term::OR), conditions.join(" and "))
            }
            _ => {
                let places: Vec<term::Place> = indices.iter().map(|i| term::Place::index(i)).collect();
                term::expanded(self, id, &places).text
            }
        }
    }

    fn extremum(&self, name: &str, axes: &[usize], arg: ValueId, indices: &[String]) -> String {
        let rank = self.graph.shape(arg).len();
        let inner = &self.letters[indices.len()..indices.len() + axes.len()];
        let (mut kept, mut reduced) = (indices.iter(), inner.iter());
        let mut place = |axis| if axes.contains(&axis) { reduced.next() } else { kept.next() };
        let places: Vec<term::Place> =
            (0..rank).map(|axis| term::Place::index(place(axis).expect("axes are kept or reduced"))).collect();
        let term = term::term(self, arg, &places);
        if axes.is_empty() {
            return if name == "max" { term.text } else { "0".to_string() };
        }
        format!("{name}[{}] {}", inner.join(", "), term.above(term::PRODUCT))
    }

    /// `sum[k] a * b`, with conditions for what the output's access says beyond plain indices.
    fn contraction(&self, contract: &Contract, value: &Value, indices: &[String]) -> String {
        let Contract { domain, operands, output } = contract;
        let (args, shape) = (&value.args, &value.shape);
        let mut names: Vec<Option<String>> = vec![None; domain.len()];
        let mut conditions = Vec::new();
        for ((affine, letter), extent) in output.iter().zip(indices).zip(shape) {
            match affine.as_index() {
                Some(index) if names[index].is_none() && domain[index] == *extent => {
                    names[index] = Some(letter.clone());
                }
                Some(_) | None => conditions.push((affine.clone(), letter.clone())),
            }
        }
        let mut spare = self.letters[indices.len()..].iter().cloned();
        let mut summed = Vec::new();
        let places: Vec<term::Place> = names
            .into_iter()
            .map(|name| {
                term::Place::index(&name.unwrap_or_else(|| {
                    let letter = spare.next().expect("there are letters enough");
                    summed.push(letter.clone());
                    letter
                }))
            })
            .collect();
        let factors = operands
            .iter()
            .zip(args)
            .map(|(access, arg)| term::read(self, *arg, access, domain, &places).above(term::PRODUCT));
        let mut body = factors.collect::<Vec<_>>().join(" * ");
        let mut tests: Vec<String> = conditions
            .iter()
            .filter(|(affine, _)| !(affine.terms.is_empty() && affine.offset.as_const() == Some(0)))
            .map(|(affine, letter)| format!("{} == {letter}", term::affine(affine, &places).text))
            .collect();
        for index in indices_without_range(self.graph, value, contract) {
            tests.push(format!("{}[{}] >= 0", self.ranges[&domain[index].to_string()], places[index].text));
        }
        if !tests.is_empty() {
            body = format!("({body} if {} else 0)", tests.join(" and "));
        }
        if summed.is_empty() { body } else { format!("sum[{}] {body}", summed.join(", ")) }
    }

    /// Declares a tensor `0, 1, …` for each extent that needs one.
    fn declare_ranges(&mut self) {
        let graph = self.graph;
        for (_, value) in graph.values() {
            let Op::Contract(contract) = &value.op else { continue };
            let mut needed = indices_without_range(graph, value, contract);
            for (access, arg) in contract.operands.iter().zip(&value.args) {
                needed.extend(access.iter().zip(graph.shape(*arg)).filter_map(|(affine, extent)| {
                    affine.as_index().filter(|&index| contract.domain[index] != *extent)
                }));
            }
            for index in needed {
                let extent = contract.domain[index].to_string();
                if !self.ranges.contains_key(&extent) {
                    let name = self.fresh(&format!("range_{extent}"));
                    self.lines.push(format!("{name} = range({extent})"));
                    self.ranges.insert(extent, name);
                }
            }
        }
    }
}

/// The indices of a contraction to which no plain read of a whole dim and no place on the left gives a range.
fn indices_without_range(graph: &Graph, value: &Value, contract: &Contract) -> Vec<usize> {
    let Contract { domain, operands, output } = contract;
    let whole = |access: &Access, shape: &[Dim], index: usize| {
        let plain = |(affine, extent): (&Affine, &Dim)| affine.as_index() == Some(index) && *extent == domain[index];
        access.iter().zip(shape).any(plain)
    };
    let ranged = |&index: &usize| {
        let mut reads = operands.iter().zip(&value.args);
        whole(output, &value.shape, index) || reads.any(|(access, arg)| whole(access, graph.shape(*arg), index))
    };
    (0..domain.len()).filter(|index| !ranged(index)).collect()
}

/// True for a read of what the model declares as an input.
fn is_entry(op: &Op) -> bool {
    matches!(op, Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_))
}

/// True for what is written wherever it is read.
fn is_leaf(op: &Op) -> bool {
    match op {
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => true,
        Op::Const(_) | Op::Size(_) | Op::Index { .. } => true,
        Op::Random { .. } | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => false,
        Op::Detach | Op::Reshape | Op::Contract(_) | Op::ReduceMax { .. } | Op::ArgMax { .. } => false,
        Op::Gather(_) | Op::Scatter(_) => false,
    }
}

/// True for a contraction of one operand that sums nothing: it is read through.
fn is_move(graph: &Graph, id: ValueId) -> bool {
    let value = graph.value(id);
    let Op::Contract(contract) = &value.op else { return false };
    let mut seen = vec![false; contract.domain.len()];
    let plain = contract.output.iter().zip(&value.shape).all(|(affine, extent)| {
        let Some(index) = affine.as_index() else { return false };
        !std::mem::replace(&mut seen[index], true) && contract.domain[index] == *extent
    });
    contract.operands.len() == 1 && plain && seen.iter().all(|seen| *seen)
}

/// True for what cannot be a part of a larger expression.
fn stands_alone(graph: &Graph, id: ValueId) -> bool {
    match &graph.value(id).op {
        Op::Contract(_) => !is_move(graph, id),
        Op::Random { .. } | Op::Detach | Op::Reshape => true,
        Op::ReduceMax { .. } | Op::ArgMax { .. } | Op::Scatter(_) => true,
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => false,
        Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Gather(_) => false,
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => false,
    }
}
