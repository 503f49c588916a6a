//! Where parameters and states lie in the device's memory, and what they are called in a checkpoint.
//!
//! Input: an artifact. Output: a buffer for each parameter and state. Invariant: every step of a run finds them at the same places.

use std::collections::BTreeMap;

use crate::artifact::Artifact;
use crate::device::{Device, DeviceError};
use crate::dim::bound;
use crate::graph::{DType, StateKind};
use crate::kernel::{Buffer, Role};
use crate::source::Span;

/// Weights and buffers stand under their own names, other states under a prefix.
pub(super) fn checkpoint_name(kind: &StateKind, name: &str) -> String {
    match kind {
        StateKind::Buffer => name.to_string(),
        StateKind::Optimizer(_) => format!("optimizer:{name}"),
        StateKind::Metric => format!("metric:{name}"),
    }
}

/// The place of each parameter and state of the training step.
pub(super) fn places(artifact: &Artifact) -> BTreeMap<Role, Buffer> {
    let params = artifact.params.iter().map(|p| (Role::Param(p.name.clone()), DType::F32, bound(&p.shape)));
    let states = artifact.states.iter().map(|s| (Role::State(s.name.clone()), s.dtype, bound(&s.shape)));
    let place = |(role, dtype, sizes): (Role, DType, Vec<usize>)| {
        let offset = artifact.persistent.offset(&role).expect("the artifact's own parameters and states have places");
        (role.clone(), Buffer { role, dtype, sizes, offset })
    };
    params.chain(states).map(place).collect()
}

/// The first parameter, buffer or optimizer state that holds a value that is not finite, and where it is declared.
/// States that begin infinite may stay so.
///
/// # Errors
/// The device has failed.
pub(super) fn not_finite(
    artifact: &Artifact,
    places: &BTreeMap<Role, Buffer>,
    device: &dyn Device,
) -> Result<Option<(String, Span)>, DeviceError> {
    let is_broken = |place: Role| Ok(!all_finite(&device.read_f32(&places[&place])?));
    for param in &artifact.params {
        if is_broken(Role::Param(param.name.clone()))? {
            return Ok(Some((param.name.clone(), param.span)));
        }
    }
    let held = |kind: &StateKind| matches!(kind, StateKind::Buffer | StateKind::Optimizer(_));
    let states = artifact.states.iter().filter(|s| s.dtype == DType::F32 && held(&s.kind) && s.init.is_finite());
    for state in states {
        if is_broken(Role::State(state.name.clone()))? {
            return Ok(Some((checkpoint_name(&state.kind, &state.name), state.span)));
        }
    }
    Ok(None)
}

/// Whether no value is infinite or not a number.
pub(super) fn all_finite(values: &[f32]) -> bool {
    // Both have all bits of the exponent. Without branches, so that it runs in vectors.
    const EXPONENT: u32 = f32::INFINITY.to_bits();
    values.iter().fold(true, |finite, value| finite & (value.to_bits() & EXPONENT != EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_and_nan_are_not_finite() {
        for place in 0..40 {
            let mut values = vec![-1.0f32; 40];
            values[place] = f32::MIN;
            assert!(all_finite(&values));
            for broken in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                values[place] = broken;
                assert!(!all_finite(&values));
            }
        }
        assert!(all_finite(&[]) && all_finite(&[-0.0, f32::MAX, 1e-45]));
    }
}
