//! The tensors of a trainer, out to a checkpoint and in from one.
//!
//! Input: named tensors. Output: parameters and states in the device's memory. Invariant: tensors are taken only where names, shapes
//! and types are the model's.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Trainer, TrainerError};
use crate::artifact::checksum;
use crate::diagnostics::suggest;
use crate::graph::{DType, StateKind};
use crate::kernel::Role;
use crate::runtime::checkpoint::{self, Note, Position, Tensor};
use crate::runtime::places::checkpoint_name;

impl Trainer {
    /// A hash of the parameters and buffers.
    ///
    /// # Errors
    /// The device has failed.
    pub fn content(&self) -> Result<String, TrainerError> {
        let tensors = self.tensors(true)?;
        Ok(checksum(tensors.values().map(|tensor| tensor.bytes.as_ref())))
    }

    /// All parameters and states by checkpoint name; with `weights_only`, parameters and buffers.
    ///
    /// # Errors
    /// The device has failed.
    pub fn tensors(&self, weights_only: bool) -> Result<BTreeMap<String, Tensor<'_>>, TrainerError> {
        let mut tensors = BTreeMap::new();
        for param in &self.artifact.params {
            tensors.insert(param.name.clone(), self.read(&Role::Param(param.name.clone()))?);
        }
        for state in &self.artifact.states {
            if weights_only && state.kind != StateKind::Buffer {
                continue;
            }
            let name = checkpoint_name(&state.kind, &state.name);
            tensors.insert(name, self.read(&Role::State(state.name.clone()))?);
        }
        Ok(tensors)
    }

    /// Sets the parameter or state of this checkpoint name to elements of four bytes, row-major.
    ///
    /// # Errors
    /// No such tensor, another length, or values that are not finite where the model's own begin finite.
    pub fn set_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), TrainerError> {
        let params = self.artifact.params.iter().map(|p| (p.name.clone(), Role::Param(p.name.clone()), true));
        let states = self.artifact.states.iter().map(|state| {
            let finite = state.init.is_finite();
            (checkpoint_name(&state.kind, &state.name), Role::State(state.name.clone()), finite)
        });
        let all: Vec<(String, Role, bool)> = params.chain(states).collect();
        let Some((_, role, finite)) = all.iter().find(|(known, _, _)| known == name) else {
            let near = suggest::nearest(name, all.iter().map(|(name, _, _)| name.as_str()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(TrainerError(format!("the model has no `{name}`{hint}")));
        };
        let buffer = &self.places[role];
        if bytes.len() != buffer.bytes() {
            let (given, wanted) = (bytes.len(), buffer.bytes());
            return Err(TrainerError(format!("`{name}` {:?} is {wanted} bytes, not {given}", buffer.sizes)));
        }
        let elements = bytes.as_chunks::<4>().0.iter().map(|element| f32::from_le_bytes(*element));
        if buffer.dtype == DType::F32 && *finite && !elements.fold(true, |all, value| all & value.is_finite()) {
            return Err(TrainerError(format!("`{name}` would hold values that are not finite")));
        }
        self.device.write_bytes(buffer, bytes)
    }

    fn read(&self, role: &Role) -> Result<Tensor<'_>, TrainerError> {
        let buffer = &self.places[role];
        let integer = buffer.dtype != DType::F32;
        Ok(Tensor { sizes: buffer.sizes.clone(), integer, bytes: self.device.read_bytes(buffer)? })
    }

    /// How the tensors of a checkpoint differ from the model's in names and shapes.
    ///
    /// # Errors
    /// The device has failed.
    pub fn changes_of_shape(&self, tensors: &BTreeMap<String, Tensor<'_>>) -> Result<Vec<String>, TrainerError> {
        let own = self.tensors(false)?;
        let mut changes = Vec::new();
        for (name, tensor) in &own {
            match tensors.get(name) {
                Some(before) if before.sizes == tensor.sizes => {}
                Some(before) => changes.push(format!("`{name}` is {:?}, was {:?}", tensor.sizes, before.sizes)),
                None => changes.push(format!("`{name}` {:?} is new", tensor.sizes)),
            }
        }
        changes.extend(tensors.keys().filter(|name| !own.contains_key(*name)).map(|name| format!("`{name}` is gone")));
        // Weights say it; the memory of the optimizer follows them.
        let is_weight = |change: &String| !change.starts_with("`optimizer:") && !change.starts_with("`metric:");
        changes.retain(is_weight);
        Ok(changes)
    }

    /// Goes on from a checkpoint of this very run, which the caller has made sure of.
    ///
    /// # Errors
    /// A tensor that is missing, too many, or of another shape.
    pub fn restore(
        &mut self,
        path: &Path,
        tensors: BTreeMap<String, Tensor<'_>>,
        position: Position,
    ) -> Result<(), TrainerError> {
        self.load(path, tensors, false)?;
        self.position = position;
        Ok(())
    }

    /// Takes parameters and buffers from a safetensors file; states of optimizers and metrics in it are ignored. Returns
    /// what the file says of itself.
    ///
    /// # Errors
    /// A parameter that is missing or of another shape; a tensor that the model does not have.
    pub fn load_weights(&mut self, path: &Path) -> Result<Note, TrainerError> {
        let (tensors, note) = checkpoint::load(path)?;
        self.take_weights(path, tensors)?;
        Ok(note)
    }

    /// As [`Trainer::load_weights`], of a file that has been read.
    ///
    /// # Errors
    /// As [`Trainer::load_weights`].
    pub fn take_weights(&mut self, path: &Path, tensors: BTreeMap<String, Tensor<'_>>) -> Result<(), TrainerError> {
        let foreign = |name: &String| {
            name.starts_with("optimizer:") || name.starts_with("metric:") || name.ends_with("num_batches_tracked")
        };
        self.load(path, tensors.into_iter().filter(|(name, _)| !foreign(name)).collect(), true)?;
        match self.not_finite()? {
            Some(tensor) => {
                let words = format!("{}: {tensor} holds values that are not finite", path.display());
                Err(TrainerError(words))
            }
            None => Ok(()),
        }
    }

    fn load(
        &mut self,
        path: &Path,
        mut tensors: BTreeMap<String, Tensor<'_>>,
        weights_only: bool,
    ) -> Result<(), TrainerError> {
        let params = self.artifact.params.iter().map(|p| (p.name.clone(), Role::Param(p.name.clone())));
        let states = self.artifact.states.iter().filter(|state| !weights_only || state.kind == StateKind::Buffer);
        let states = states.map(|state| (checkpoint_name(&state.kind, &state.name), Role::State(state.name.clone())));
        let wanted: Vec<(String, Role)> = params.chain(states).collect();
        let mut problems = Vec::new();
        for (name, buffer) in &wanted {
            let buffer = &self.places[buffer];
            let Some(tensor) = tensors.remove(name) else {
                problems.push(format!("`{name}` {:?} is missing", buffer.sizes));
                continue;
            };
            if tensor.sizes != buffer.sizes {
                problems.push(format!("`{name}` is {:?}, the model wants {:?}", tensor.sizes, buffer.sizes));
            } else if tensor.integer != (buffer.dtype != DType::F32) {
                problems.push(format!("`{name}` has another element type than the model"));
            } else {
                self.device.write_bytes(buffer, &tensor.bytes)?;
            }
        }
        for name in tensors.keys() {
            let near = suggest::nearest(name, wanted.iter().map(|(name, _)| name.as_str()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            problems.push(format!("the model has no `{name}`{hint}"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let shown = problems.len().min(8);
        let more =
            if problems.len() > shown { format!("\n  … and {} more", problems.len() - shown) } else { String::new() };
        let list = problems[..shown].join("\n  ");
        Err(TrainerError(format!("{} does not fit the model:\n  {list}{more}", path.display())))
    }
}
