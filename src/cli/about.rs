//! What only the compiler knows of a run, as plain data for its report: the texts of its files and the picture of its model.
//!
//! Input: a checked `train` item and the fields of its data. Output: [`About`]. Invariant: each block stands behind those that
//! it takes something from; a model that cannot be drawn has no blocks, and its run goes on all the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::dim::Dim;
use crate::graph::print::shape_text;
use crate::graph::{Op, ValueId};
use crate::model::{Expanded, LayerCall, Resolved};
use crate::runtime::about::{About, Block, texts};
use crate::settings::FieldInfo;
use crate::source::{SourceMap, Span};

/// Characters of an equation that stand for it.
const LONGEST_LINE: usize = 60;

/// The compiler's part of what a run is about.
pub(super) fn about(training: &Resolved, fields: &[FieldInfo]) -> About {
    let project = &training.project;
    let (sources, hash) = texts(&project.sources, |file| project.is_written(file));
    let blocks = training.expanded(fields).map(|expanded| blocks(&expanded, &project.sources)).unwrap_or_default();
    About { version: env!("CARGO_PKG_VERSION").to_string(), sources, hash, blocks, ..About::of(&training.settings) }
}

/// A model's inputs, stages, equations between them and outputs, in order.
fn blocks(expanded: &Expanded, sources: &SourceMap) -> Vec<Block> {
    let mut drawing = Drawing { expanded, sources, blocks: Vec::new(), from: BTreeMap::new() };
    let mut calls = expanded.layers.iter().filter(|call| call.depth == 0).peekable();
    let mut next = 0;
    let length = expanded.graph.len() as u32;
    while next < length || calls.peek().is_some() {
        if let Some(call) = calls.next_if(|call| call.values.start <= next) {
            drawing.stage(call);
            next = next.max(call.values.end);
            continue;
        }
        let end = calls.peek().map_or(length, |call| call.values.start);
        next = drawing.equation(next, end);
    }
    for output in &expanded.graph.outputs {
        let shape = shape_text(expanded.graph.shape(output.value));
        let from = drawing.sources_of(&[output.value]);
        let name = output.name.to_string();
        let name = if name == "output" { String::new() } else { name };
        drawing.add(Block { name, kind: "output".into(), shape, parameters: 0, from }, None);
    }
    drawing.blocks
}

/// A picture that is being made.
struct Drawing<'e> {
    expanded: &'e Expanded,
    sources: &'e SourceMap,
    blocks: Vec<Block>,
    /// The blocks that a value comes out of; none for values that depend on no input.
    from: BTreeMap<ValueId, BTreeSet<usize>>,
}

impl Drawing<'_> {
    fn add(&mut self, block: Block, value: Option<ValueId>) {
        self.blocks.push(block);
        value.into_iter().for_each(|value| drop(self.from.insert(value, [self.blocks.len() - 1].into())));
    }

    fn sources_of(&self, values: &[ValueId]) -> Vec<usize> {
        let found: BTreeSet<usize> =
            values.iter().filter_map(|value| self.from.get(value)).flatten().copied().collect();
        found.into_iter().collect()
    }

    /// A use of a layer or function.
    fn stage(&mut self, call: &LayerCall) {
        let graph = &self.expanded.graph;
        let inside: Vec<ValueId> = call.values.clone().map(ValueId).collect();
        let taken: Vec<ValueId> = inside.iter().flat_map(|id| graph.value(*id).args.clone()).collect();
        // A stage that makes nothing gives what flows in.
        let from = if inside.is_empty() { self.sources_of(&[call.output]) } else { self.sources_of(&taken) };
        // What has no weights is called as what it is.
        let name = if call.path.eq_ignore_ascii_case(&call.layer) { String::new() } else { call.path.clone() };
        let kind = call.layer.clone();
        let shape = shape_text(graph.shape(call.output));
        let parameters = inside.iter().map(|id| self.parameters(*id)).sum();
        self.add(Block { name, kind, shape, parameters, from }, Some(call.output));
        let place = self.blocks.len() - 1;
        // What else a stage makes may be used too, where it is written in the model itself.
        inside.into_iter().for_each(|id| drop(self.from.insert(id, [place].into())));
    }

    /// The values of one line that are in no stage, from `start` on; gives the first that is not among them.
    fn equation(&mut self, start: u32, end: u32) -> u32 {
        let graph = &self.expanded.graph;
        let first = graph.value(ValueId(start));
        if let Op::Input(id) = first.op {
            let (name, shape) = (graph.inputs[id.0 as usize].name.clone(), shape_text(&first.shape));
            let block = Block { name, kind: "input".into(), shape, ..Block::default() };
            self.add(block, Some(ValueId(start)));
            return start + 1;
        }
        let line = |span: Span| self.sources.get(span.file).map(|_| (span.file, self.sources.position(span).0));
        let is_same = |id: &u32| {
            let value = graph.value(ValueId(*id));
            line(value.span) == line(first.span) && !matches!(value.op, Op::Input(_))
        };
        let ids: Vec<u32> = (start..end).take_while(is_same).collect();
        let last = ids[ids.len() - 1];
        self.line(&ids);
        last + 1
    }

    /// The values of one line as a block, if it joins or computes anything.
    fn line(&mut self, ids: &[u32]) {
        let graph = &self.expanded.graph;
        let values: Vec<ValueId> = ids.iter().map(|id| ValueId(*id)).collect();
        let taken: Vec<ValueId> = values.iter().flat_map(|id| graph.value(*id).args.clone()).collect();
        let from = self.sources_of(&taken);
        let computes = |id: &&ValueId| {
            let value = graph.value(**id);
            !value.args.is_empty() && !matches!(value.op, Op::Reshape | Op::Detach | Op::Cast)
        };
        let computing: Vec<&ValueId> = values.iter().filter(computes).collect();
        let Some(last) = computing.last().filter(|_| !from.is_empty()) else {
            // Another shape of the same, or a number.
            for id in values {
                let sources = self.sources_of(&graph.value(id).args).into_iter().collect();
                self.from.insert(id, sources);
            }
            return;
        };
        let kind = match (&computing[..], &graph.value(**last).op) {
            ([_], Op::Binary(operation)) => format!("{operation:?}").to_lowercase(),
            _ => self.text(graph.value(**last).span),
        };
        let parameters = taken.iter().collect::<BTreeSet<_>>().into_iter().map(|id| self.parameters(*id)).sum();
        let shape = shape_text(graph.shape(**last));
        self.add(Block { name: String::new(), kind, shape, parameters, from }, None);
        let place = self.blocks.len() - 1;
        values.into_iter().for_each(|id| drop(self.from.insert(id, [place].into())));
    }

    /// The line that a place is in, without its comment.
    fn text(&self, span: Span) -> String {
        let Some(file) = self.sources.get(span.file) else { return "equation".to_string() };
        let line = file.text.lines().nth(self.sources.position(span).0 - 1).unwrap_or_default();
        crate::source::shortened(line.split('#').next().unwrap_or_default().trim(), LONGEST_LINE)
    }

    /// Trained numbers of a value.
    fn parameters(&self, id: ValueId) -> u64 {
        match self.expanded.graph.value(id).op {
            Op::Param(param) => {
                let shape = &self.expanded.graph.params[param.0 as usize].shape;
                Dim::product(shape).as_const().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::open;

    /// Names or kinds with what each block takes from.
    fn drawn(model: &str) -> Vec<(String, Vec<usize>, String, u64)> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("net.ansatz");
        let rest = "data d {\n source = random(samples = 8)\n x: f32[6]\n label: class[3]\n}\n\
                    train Net on d {\n loss = cross_entropy(label)\n optimizer = sgd(lr = 0.1)\n batch = 4\n length = 1 epochs\n}\n";
        std::fs::write(&path, format!("{model}\n{rest}")).expect("written");
        let (project, file) = open::project(&path).expect("a project");
        let training = crate::model::training(&project, file, &[]).expect("a train item");
        let fields = crate::runtime::data::fields(&training.settings.data).expect("fields");
        let about = about(&training, &fields);
        assert_eq!(about.sources.len(), 1, "the library is not the user's");
        let cell = |block: Block| {
            (if block.name.is_empty() { block.kind } else { block.name }, block.from, block.shape, block.parameters)
        };
        about.blocks.into_iter().map(cell).collect()
    }

    #[test]
    fn stages_stand_between_inputs_and_outputs() {
        let model =
            "model Net {\n  input x: [N, 6]\n  return x -> a: Linear(8) -> relu -> Dropout(0.5) -> b: Linear(3)\n}";
        let expected = [
            ("x", vec![], "[N, 6]", 0),
            ("a", vec![0], "[N, 8]", 56),
            ("relu", vec![1], "[N, 8]", 0),
            ("Dropout", vec![2], "[N, 8]", 0),
            ("b", vec![3], "[N, 3]", 27),
            ("output", vec![4], "[N, 3]", 0),
        ];
        let expected = expected.map(|(name, from, shape, count)| (name.to_string(), from, shape.to_string(), count));
        assert_eq!(drawn(model), expected);
    }

    #[test]
    fn a_way_past_a_stage_joins_again() {
        let model =
            "model Net {\n  input x: [N, 6]\n  y = x -> a: Linear(6) -> relu\n  return x + y -> b: Linear(3)\n}";
        let names: Vec<(String, Vec<usize>)> = drawn(model).into_iter().map(|(name, from, ..)| (name, from)).collect();
        let expected = [
            ("x", vec![]),
            ("a", vec![0]),
            ("relu", vec![1]),
            ("add", vec![0, 2]),
            ("b", vec![3]),
            ("output", vec![4]),
        ];
        assert_eq!(names, expected.map(|(name, from)| (name.to_string(), from)));
    }

    #[test]
    fn an_equation_is_drawn_as_its_line_with_its_weights() {
        let model = "model Net {\n  input x: [N, 6]\n  param w: [3, 6] ~ kaiming\n  y[n, o] = sum[k] x[n, k] * w[o, k]  # heart\n  return y\n}";
        let drawn = drawn(model);
        assert_eq!(
            drawn[1],
            ("y[n, o] = sum[k] x[n, k] * w[o, k]".to_string(), vec![0], "[N, 3]".to_string(), 18),
            "{drawn:?}"
        );
    }
}
