//! What a run has: fields, outputs, tensors, metrics.
//!
//! Input: an artifact. Output: tables whose names are also C strings. Invariant: a table keeps its order and its place in
//! memory as long as the run lives.

use std::ffi::CString;

use ansatz_program::artifact::{Artifact, OutputInfo};
use ansatz_program::dim::bound;
use ansatz_program::graph::{DType, StateKind};
use ansatz_program::settings::MetricSpec;

/// One field, output, tensor or metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, that of tensors as checkpoints have it; ends at a zero byte, which no model file can write.
    pub name: CString,
    /// Its sizes: of fields and of outputs with a value for each sample those of one sample.
    pub sizes: Vec<usize>,
    /// Whether elements are I32; they are F32 otherwise, and F64 for metrics.
    pub integer: bool,
    /// Of an output 1 where it has one value for all samples; of a tensor 0 for a parameter, 1 for a buffer, 2 for memory of
    /// the optimizer, 3 for a sum of a metric.
    pub role: i32,
    /// Of a label the number of classes, else 0.
    pub classes: usize,
}

impl Entry {
    fn new(name: &str, sizes: Vec<usize>, integer: bool) -> Self {
        let name = name.split('\0').next().unwrap_or_default();
        let name = CString::new(name).expect("what precedes the first zero has none");
        Self { name, sizes, integer, role: 0, classes: 0 }
    }

    /// The product of the sizes.
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The fields of the data, in the order of the item.
    pub fields: Vec<Entry>,
    /// What a prediction gives.
    pub outputs: Vec<Entry>,
    /// Parameters and states; those of metrics come last.
    pub tensors: Vec<Entry>,
    /// The metrics, in the order of the `train` item.
    pub metrics: Vec<Entry>,
}

impl Tables {
    pub(crate) fn of(artifact: &Artifact) -> Self {
        let fields = artifact.fields.iter().map(|field| {
            let entry = Entry::new(&field.name, field.sizes.clone(), field.dtype != DType::F32);
            Entry { classes: field.classes.unwrap_or(0), ..entry }
        });
        let metrics = artifact.training.metrics.iter();
        let metrics = metrics.map(|metric| Entry::new(&metric.name, sizes_of(metric), false));
        let output = |output: OutputInfo| {
            let entry = Entry::new(&output.name, output.sizes, false);
            Entry { role: i32::from(!output.per_sample), ..entry }
        };
        let outputs = artifact.outputs().into_iter().map(output).collect();
        Self { fields: fields.collect(), outputs, tensors: tensors(artifact), metrics: metrics.collect() }
    }
}

fn sizes_of(metric: &MetricSpec) -> Vec<usize> {
    let output = metric.finish.as_ref().and_then(|graph| Some(bound(&graph.value(graph.outputs.first()?.value).shape)));
    output.unwrap_or_default()
}

fn tensors(artifact: &Artifact) -> Vec<Entry> {
    let params = artifact.params.iter().map(|param| Entry::new(&param.name, bound(&param.shape), false));
    let states = artifact.states.iter().map(|state| {
        let (role, name) = match state.kind {
            StateKind::Buffer => (1, state.name.clone()),
            StateKind::Optimizer(_) => (2, format!("optimizer:{}", state.name)),
            StateKind::Metric => (3, format!("metric:{}", state.name)),
        };
        Entry { role, ..Entry::new(&name, bound(&state.shape), state.dtype != DType::F32) }
    });
    let mut all: Vec<Entry> = params.chain(states).collect();
    all.sort_by_key(|entry| entry.role);
    all
}
