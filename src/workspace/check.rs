//! `ansatz check`: all that can be said about a model file without its data.
//!
//! Input: a loaded project and a file of it. Output: diagnostics. Invariant: no file is opened but the weights that a
//! `loads` promise names, of which the description is read; those lie below the project's folder.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use safetensors::tensor::{Dtype, Metadata};

use crate::diagnostics::Diagnostic;
use crate::graph::StateKind;
use crate::kernel::Persistent;
use crate::model::check::{Hooks, without_duplicates};
use crate::model::{self, Expanded, ModelUse, Project, Resolved};
use crate::pipeline;
use crate::runtime::files::Place;
use crate::runtime::{data, keep};
use crate::schedule::{self, Backend};
use crate::source::{FileId, bytes_text, shortened};
use crate::syntax::ast::{Expr, ExprKind, ItemKind};

/// Bytes of the description of a safetensors file: more than a million tensors need.
const LONGEST_DESCRIPTION: u64 = 64 << 20;

/// How many characters of a tensor's name in a file a finding shows.
const NAME_SHOWN: usize = 80;

/// Checks all items of a file: models for all sizes, promises, and the training step for the data's sizes, planned for this
/// machine.
pub fn check(project: &Project, file: FileId, backend: &dyn Backend) -> Vec<Diagnostic> {
    let steps = Steps { backend, known: RefCell::default() };
    let train_memory = |project: &Project, used: &ModelUse<'_>, sizes: &BTreeMap<String, i64>| {
        train_memory(&steps, project, used, sizes)
    };
    let hooks = Hooks { train_memory: Some(&train_memory), loads: Some(&loads) };
    let mut found = model::check::check(project, file, &hooks);
    let trains = project.tree(file).items.iter().any(|item| matches!(item.kind, ItemKind::Train(_)));
    if trains && !found.iter().any(Diagnostic::is_error) {
        match steps.step(project, file, None) {
            Ok((training, _)) => {
                let fields = data::fields(&training.settings.data).unwrap_or_default();
                found.extend(keep::findings(&training.settings, None));
                found.extend(model::warnings(&training, &fields, None));
            }
            Err(findings) => found.extend(findings),
        }
    }
    without_duplicates(found)
}

/// The bytes of the training steps that have been compiled, or why one cannot be, for each file and batch: a promise
/// and the file itself mostly ask for the same step.
struct Steps<'a> {
    backend: &'a dyn Backend,
    known: RefCell<BTreeMap<(FileId, usize), StepBytes>>,
}

type StepBytes = Result<u64, Vec<Diagnostic>>;

impl Steps<'_> {
    /// The bytes of the training step of the file's `train` item, for `batch` samples or the item's own number.
    fn step(&self, project: &Project, file: FileId, batch: Option<usize>) -> Result<(Resolved, u64), Vec<Diagnostic>> {
        let mut training = model::training(project, file, &[])?;
        training.settings.batch = batch.unwrap_or(training.settings.batch);
        let mut known = self.known.borrow_mut();
        let bytes = known.entry((file, training.settings.batch)).or_insert_with(|| self.bytes(&training)).clone()?;
        Ok((training, bytes))
    }

    fn bytes(&self, training: &Resolved) -> StepBytes {
        let fields = data::fields(&training.settings.data)?;
        pipeline::data_ranges(training, &fields, &[])?;
        let graph = pipeline::training_graph(training, training.settings.batch, &fields, false)?;
        Ok(schedule::plan(&graph, &Persistent::of(&graph), self.backend).arena_bytes as u64)
    }
}

/// Bytes of all tensors of the training step: what `train_memory(N = 100)` means.
fn train_memory(
    steps: &Steps<'_>,
    project: &Project,
    used: &ModelUse<'_>,
    sizes: &BTreeMap<String, i64>,
) -> Result<u64, String> {
    let batch = match sizes.iter().next() {
        None => None,
        Some((_, size)) if sizes.len() == 1 => Some(usize::try_from(*size).map_err(|_| "the batch is negative")?),
        Some(_) => return Err("`train_memory` takes one size, the batch; the others come from the data".into()),
    };
    let words = |findings: Vec<Diagnostic>| findings.into_iter().map(|finding| finding.message).next();
    match steps.step(project, used.file, batch) {
        Ok((training, bytes)) if Some(training.settings.model.as_str()) == model_name(used.model) => Ok(bytes),
        Ok((training, _)) => Err(format!("the file trains `{}`, not this model", training.settings.model)),
        Err(findings) => Err(words(findings).unwrap_or_else(|| "the training step cannot be compiled".into())),
    }
}

fn model_name(expr: &Expr) -> Option<&str> {
    match &expr.kind {
        ExprKind::Name(name) => Some(name),
        ExprKind::Call { callee, .. } => model_name(callee),
        _ => None,
    }
}

/// Whether a safetensors file has exactly the model's parameters and buffers, shape by shape.
fn loads(project: &Project, used: &ModelUse<'_>, expanded: &Expanded, path: &str) -> Result<(), String> {
    let place = Place::new(project.root(), &project.folder(used.file), path);
    let place = place.map_err(|refusal| format!("`{path}` {}", refusal.words()))?;
    let file = place.open().map_err(|error| model::unread(place.path(), &error))?;
    let tensors = shapes(file).map_err(|problem| format!("`{path}` {problem}"))?;
    let graph = &expanded.graph;
    let params = graph.params.iter().map(|param| (&param.name, &param.shape));
    let buffers = graph.states.iter().filter(|state| state.kind == StateKind::Buffer);
    let wanted: BTreeMap<_, _> = params.chain(buffers.map(|state| (&state.name, &state.shape))).collect();
    for (name, shape) in &wanted {
        let sizes: Option<Vec<usize>> = shape.iter().map(|dim| dim.as_const().map(|size| size as usize)).collect();
        match (tensors.get(*name), sizes) {
            (None, _) => return Err(format!("`{path}` has no `{name}`")),
            (Some(found), Some(sizes)) if *found != sizes => {
                return Err(format!("`{name}` is {found:?} in `{path}`, the model wants {sizes:?}"));
            }
            (Some(_), Some(_)) => {}
            (Some(_), None) => return Err(format!("the shape of `{name}` depends on the inputs' sizes")),
        }
    }
    match tensors.keys().find(|name| !wanted.contains_key(name) && !name.ends_with("num_batches_tracked")) {
        Some(name) => Err(format!("the model has no `{}`, which `{path}` holds", shortened(name, NAME_SHOWN))),
        None => Ok(()),
    }
}

/// The shapes of the tensors of an open safetensors file, from its description alone. What is wrong is told without the
/// file's text, since it may be no safetensors file at all.
fn shapes(mut file: File) -> Result<BTreeMap<String, Vec<usize>>, String> {
    let damaged = || "is not a readable safetensors file".to_string();
    let total = file.metadata().map_err(|_| damaged())?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| damaged())?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_DESCRIPTION {
        return Err(format!("{}: its description is longer than {}", damaged(), bytes_text(LONGEST_DESCRIPTION)));
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(|_| damaged())?;
    let described: Metadata = serde_json::from_slice(&text).map_err(|_| damaged())?;
    if (described.data_len() as u64).checked_add(8 + length) != Some(total) {
        return Err(format!("{}: its length is not the one that it describes", damaged()));
    }
    let readable = [Dtype::F32, Dtype::F64, Dtype::BF16, Dtype::F16, Dtype::I32, Dtype::I64];
    match described.tensors().values().find(|info| !readable.contains(&info.dtype)) {
        Some(info) => Err(format!("holds elements of type {:?}, which are not supported", info.dtype)),
        None => Ok(described.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_promise_about_the_items_own_batch_takes_the_step_that_is_compiled_anyway() {
        let text = "model M {\n  input x: [N, 4]\n  return x -> Linear(3)\n}\n\
                    data d {\n  source = random(samples = 16)\n  x: f32[4]\n  label: class[3]\n}\n\
                    train M on d {\n  loss = cross_entropy(label)\n  batch = 8\n  length = 3 steps\n  optimizer = sgd(lr = 0.1)\n}\n";
        let (project, file, found) = Project::load(Path::new("m.ansatz"), None, &|_| Ok(text.as_bytes().to_vec()));
        assert!(found.is_empty(), "{found:#?}");
        let steps = Steps { backend: &crate::cpu::Lowering::default(), known: RefCell::default() };
        let bytes = |batch| steps.step(&project, file, batch).map(|(_, bytes)| bytes).expect("a step");
        assert_eq!(bytes(None), bytes(Some(8)));
        assert_eq!(steps.known.borrow().len(), 1);
        assert!(bytes(Some(800)) > bytes(None));
        assert_eq!(steps.known.borrow().len(), 2);
    }
}
