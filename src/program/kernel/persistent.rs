//! Fixed places of parameters and states: what all programs of one training agree on.
//!
//! Input: the graph of the training step. Output: a byte offset for each.
//! Invariant: offsets are multiples of 64; all parameters come first, in declaration order.

use std::collections::BTreeMap;

use super::Role;
use super::interpret::element_bytes;
use crate::graph::{DType, Graph};

/// Bytes to which every buffer is aligned: as the widest vectors of any machine ask.
const ALIGNMENT: usize = 64;

/// Where parameters and states lie.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Persistent {
    places: BTreeMap<Role, usize>,
    /// Bytes of all parameters; they start at 0.
    pub param_bytes: usize,
    /// Bytes of parameters and states; what belongs to one program lies behind.
    pub bytes: usize,
}

impl Persistent {
    /// Places for the parameters and states of a graph with bound sizes.
    pub fn of(graph: &Graph) -> Self {
        let mut persistent = Self::default();
        persistent.extend(graph);
        persistent.param_bytes = graph.params.iter().map(|param| round_up(bytes(&param.shape, DType::F32))).sum();
        persistent
    }

    /// Adds places for what another graph has besides (a metric's state that only evaluation uses).
    pub fn extend(&mut self, graph: &Graph) {
        for param in &graph.params {
            self.add(Role::Param(param.name.clone()), bytes(&param.shape, DType::F32));
        }
        for state in &graph.states {
            self.add(Role::State(state.name.clone()), bytes(&state.shape, state.dtype));
        }
    }

    fn add(&mut self, role: Role, bytes: usize) {
        if !self.places.contains_key(&role) {
            self.places.insert(role, self.bytes);
            self.bytes += round_up(bytes);
        }
    }

    /// The byte offset of a parameter or state.
    pub fn offset(&self, role: &Role) -> Option<usize> {
        self.places.get(role).copied()
    }
}

/// The next multiple of [`ALIGNMENT`].
pub fn round_up(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

fn bytes(shape: &[crate::dim::Dim], dtype: DType) -> usize {
    crate::dim::bound(shape).iter().product::<usize>() * element_bytes(dtype)
}
