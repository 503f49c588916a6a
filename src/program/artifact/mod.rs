//! A run as plain data: the steps of a `train` item for the sizes of its data, and all that executing them needs.
//!
//! Input: made by `pipeline`. Output: read by `runtime`, which needs no model file and no compiler beside it; written to
//! bytes and read back. Invariant: what is read back gives the same bits as what was written. It knows no machine.

pub mod wanted;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::diagnostics::Refusal as NoArtifact;
use crate::graph::{Graph, OutputName, Param, Scalar, ScalarExpr, State, ValueId};
use crate::kernel::{Buffer, Persistent, Program, Role};
use crate::settings::{FieldInfo, FieldRange, Training};
use crate::source::SourceMap;

/// The first bytes of a file that holds an artifact; the last is the version of its form.
const MAGIC: &[u8; 16] = b"ansatz artifact\x01";

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// A training step.
    Train,
    /// Loss and metrics.
    Evaluate,
    /// The model's outputs.
    Predict,
}

/// See the module's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// The texts that places in messages point into.
    pub sources: SourceMap,
    /// The settings of the item, its data among them.
    pub training: Training,
    /// The data's fields.
    pub fields: Vec<FieldInfo>,
    /// What the steps' reads ask of the integers of the data, for whoever reads the data to hold them to.
    pub ranges: Vec<FieldRange>,
    /// Trained tensors with their first values, in declaration order.
    pub params: Vec<Param>,
    /// The other tensors that live from step to step.
    pub states: Vec<State>,
    /// The host's numbers of the first step by name, such as the learning rate that figures tell.
    pub scalars: Vec<Scalar>,
    /// Where parameters and states lie in every step.
    pub persistent: Persistent,
    /// Steps by purpose and number of samples.
    pub steps: BTreeMap<(Purpose, usize), Step>,
    /// The model itself holds infinities, so that none need be made for one to reach a parameter.
    pub has_infinities: bool,
    /// A hash of what the first step computes, wherever and however the model file says it.
    pub meaning: String,
}

/// One step for one number of samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Buffers and kernels.
    pub program: Program,
    /// The fields of the data that the step reads: name and place.
    pub inputs: Vec<(String, Buffer)>,
    /// The host's numbers: place and formula.
    pub scalars: Vec<(Buffer, ScalarExpr)>,
}

/// A step that gives away, for each of its values, whether it is finite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watched {
    /// Without updates; output [`OutputName::Watch`](crate::graph::OutputName) of a value is finite if all of its elements are.
    pub step: Step,
    /// The values and what they are computed from.
    pub graph: Graph,
    /// The loss, then the values that updates write.
    pub roots: Vec<ValueId>,
}

/// How the outputs of a model are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The fields that the model takes.
    pub fields: Vec<String>,
    /// The model's output that flows into the loss.
    pub output: Option<OutputName>,
    /// The output of the step that holds what is predicted, where the loss says how to read the model's.
    pub predicted: Option<OutputName>,
    /// The first field that the loss names: what the model learned to predict.
    pub target: Option<String>,
}

/// One output of a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputInfo {
    /// Its name.
    pub name: String,
    /// Sizes per sample, or all of them where it has one value for all samples.
    pub sizes: Vec<usize>,
    /// Whether each sample has a value of its own.
    pub per_sample: bool,
}

impl Step {
    /// A planned graph.
    pub fn new(graph: &Graph, program: Program) -> Self {
        let place =
            |scalar: &Scalar| Some((program.find(&Role::Scalar(scalar.name.clone()))?.clone(), scalar.expr.clone()));
        let scalars = graph.scalars.iter().filter_map(place).collect();
        let input = |buffer: &Buffer| {
            let Role::Input(name) = &buffer.role else { return None };
            Some((name.clone(), buffer.clone()))
        };
        let inputs = program.buffers.iter().filter_map(input).collect();
        Self { program, inputs, scalars }
    }
}

impl Program {
    /// A hash of all that code is made from.
    ///
    /// # Panics
    /// Never: everything in a program can be written.
    pub fn fingerprint(&self) -> String {
        checksum([&postcard::to_stdvec(self).expect("plain data")[..]].into_iter())
    }
}

impl Artifact {
    /// What a prediction gives, in the order of its step; nothing where no step predicts.
    pub fn outputs(&self) -> Vec<OutputInfo> {
        let step = self.steps.iter().find(|((purpose, _), _)| *purpose == Purpose::Predict);
        let Some(((_, rows), step)) = step else { return Vec::new() };
        let output = |buffer: &Buffer| {
            let name = buffer.role.output()?.to_string();
            Some(match buffer.sizes.split_first() {
                Some((first, rest)) if first == rows => OutputInfo { name, sizes: rest.to_vec(), per_sample: true },
                _ => OutputInfo { name, sizes: buffer.sizes.clone(), per_sample: false },
            })
        };
        step.program.buffers.iter().filter_map(output).collect()
    }

    /// The artifact as bytes.
    ///
    /// # Errors
    /// Where a size is not bound: a bug of whoever made it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, NoArtifact> {
        let body = postcard::to_stdvec(self).map_err(|error| NoArtifact(error.to_string()))?;
        let sum = checksum([&body[..]].into_iter());
        Ok([&MAGIC[..], sum.as_bytes(), &body].concat())
    }

    /// What [`Artifact::to_bytes`] wrote.
    ///
    /// # Errors
    /// Anything else: other files, other versions, changed or missing bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoArtifact> {
        let no = |words: &str| NoArtifact(words.to_string());
        let rest = bytes.strip_prefix(&MAGIC[..]).ok_or_else(|| no("not an artifact of this version"))?;
        let (sum, body) = rest.split_at_checked(8).ok_or_else(|| no("cut off"))?;
        if sum != checksum([body].into_iter()).as_bytes() {
            return Err(no("changed or cut off: its checksum does not hold"));
        }
        postcard::from_bytes(body).map_err(|error| no(&error.to_string()))
    }
}

/// CRC-32 in eight digits.
pub fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut crc = flate2::Crc::new();
    parts.for_each(|part| crc.update(part));
    format!("{:08x}", crc.sum())
}
