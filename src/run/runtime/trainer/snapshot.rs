//! A copy of all that a later step depends on: taken, written by somebody else, or put back.
//!
//! Input: a trainer between two steps. Output: its parameters, states and position. Invariant: a trainer that a copy is put back into
//! goes on to the bits of the one that it was taken from. The memory of a copy is used again for the next one.

use std::collections::BTreeMap;

use super::{Trainer, TrainerError};
use crate::graph::DType;
use crate::kernel::{Buffer, Role};
use crate::runtime::checkpoint::{Position, Tensor};
use crate::runtime::places::checkpoint_name;

/// See the module's text; empty before it is first taken.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Tensors with their names in a checkpoint, in the order of the trainer's places.
    tensors: Vec<(String, Tensor<'static>)>,
    position: Position,
}

impl Snapshot {
    /// The tensors by checkpoint name.
    pub fn tensors(&self) -> BTreeMap<String, Tensor<'_>> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.lent())).collect()
    }

    /// Where the run stood.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Whether it holds no memory yet.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

impl Trainer {
    /// Bytes of a snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        self.places.values().map(|buffer| buffer.bytes() as u64).sum()
    }

    /// Takes a copy of what the run stands on.
    ///
    /// # Errors
    /// The device has failed; the copy is of no use.
    pub fn take(&self, snapshot: &mut Snapshot) -> Result<(), TrainerError> {
        if snapshot.tensors.is_empty() {
            snapshot.tensors = self.places.values().map(|buffer| (self.name_of(buffer), empty(buffer))).collect();
        }
        for ((_, tensor), buffer) in snapshot.tensors.iter_mut().zip(self.places.values()) {
            tensor.bytes.to_mut().copy_from_slice(&self.device.read_bytes(buffer)?);
        }
        snapshot.position.clone_from(&self.position);
        Ok(())
    }

    /// Brings the run back to where a copy of it was taken.
    ///
    /// # Errors
    /// The device has failed.
    pub fn put_back(&mut self, snapshot: &Snapshot) -> Result<(), TrainerError> {
        for ((_, tensor), buffer) in snapshot.tensors.iter().zip(self.places.values()) {
            self.device.write_bytes(buffer, &tensor.bytes)?;
        }
        self.position.clone_from(&snapshot.position);
        Ok(())
    }

    /// What a checkpoint calls a parameter or a state.
    fn name_of(&self, buffer: &Buffer) -> String {
        match &buffer.role {
            Role::Param(name) => name.clone(),
            role => {
                let state = self.artifact.states.iter().find(|state| Role::State(state.name.clone()) == *role);
                let state = state.expect("places are of the artifact's own parameters and states");
                checkpoint_name(&state.kind, &state.name)
            }
        }
    }
}

fn empty(buffer: &Buffer) -> Tensor<'static> {
    let bytes = vec![0; buffer.bytes()].into();
    Tensor { sizes: buffer.sizes.clone(), integer: buffer.dtype != DType::F32, bytes }
}
