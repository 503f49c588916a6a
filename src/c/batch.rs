//! A batch from the caller's memory.
//!
//! Input: a slice of bytes for each field. Output: a [`Batch`]. Invariant: lengths are those of so many samples, and every
//! integer lies where the model reads.

use ansatz_program::artifact::{Artifact, Purpose};
use ansatz_program::diagnostics::Refusal;
use ansatz_program::graph::DType;
use ansatz_program::settings::FieldInfo;
use ansatz_run::runtime::data::{Batch, Rows};

/// Bytes of an element: all are of four.
pub(crate) const ELEMENT: usize = 4;

/// The samples of each field, in the order of the data item; none for a field that the step does not read.
pub(crate) type Inputs<'i> = &'i [Option<&'i [u8]>];

/// Puts samples into a batch, whose memory is used again. The batch is worth nothing after an error.
///
/// # Errors
/// A field that is missing though the step reads it, of another length, or with an integer where the model has no place.
pub(crate) fn fill(
    artifact: &Artifact,
    purpose: Purpose,
    rows: usize,
    inputs: Inputs<'_>,
    batch: &mut Batch,
) -> Result<(), Refusal> {
    let fields = &artifact.fields;
    if inputs.len() != fields.len() {
        return Err(Refusal(format!("the data have {} fields, and {} were given", fields.len(), inputs.len())));
    }
    let step = artifact.steps.iter().find(|((known, _), _)| *known == purpose).map(|(_, step)| step);
    let reads = |field: &FieldInfo| step.is_some_and(|step| step.inputs.iter().any(|(name, _)| *name == field.name));
    let empty = |dtype| if dtype == DType::F32 { Rows::F32(Vec::new()) } else { Rows::I32(Vec::new()) };
    batch.fields.truncate(fields.len());
    let missing = fields[batch.fields.len()..].iter().map(|field| empty(field.dtype));
    batch.fields.extend(missing);
    (batch.rows, batch.is_finite) = (rows, true);
    for ((field, input), values) in fields.iter().zip(inputs).zip(&mut batch.fields) {
        let elements = rows.checked_mul(field.elements());
        let elements = elements.ok_or_else(|| Refusal(format!("{rows} samples are more than memory has")))?;
        let Some(bytes) = input else {
            if reads(field) {
                return Err(Refusal(format!("the field `{}` is NULL, and this step reads it", field.name)));
            }
            match values {
                Rows::F32(values) => reset(values, elements),
                Rows::I32(values) => reset(values, elements),
            }
            continue;
        };
        if Some(bytes.len()) != elements.checked_mul(ELEMENT) {
            let (given, name) = (bytes.len(), &field.name);
            let wanted = elements.saturating_mul(ELEMENT);
            return Err(Refusal(format!("the field `{name}` has {given} bytes, and {rows} samples have {wanted}")));
        }
        let elements = bytes.as_chunks::<ELEMENT>().0.iter();
        match values {
            Rows::F32(values) => {
                values.clear();
                values.extend(elements.map(|element| f32::from_le_bytes(*element)));
                batch.is_finite &= values.iter().fold(true, |all, value| all & value.is_finite());
            }
            Rows::I32(values) => {
                values.clear();
                values.extend(elements.map(|element| i32::from_le_bytes(*element)));
                hold(artifact, field, values)?;
            }
        }
    }
    Ok(())
}

fn reset<T: Default + Clone>(values: &mut Vec<T>, elements: usize) {
    values.clear();
    values.resize(elements, T::default());
}

/// Holds integers to the classes that the field has and to what the model's reads ask.
fn hold(artifact: &Artifact, field: &FieldInfo, values: &[i32]) -> Result<(), Refusal> {
    let width = field.elements().max(1);
    let refuse = |at: usize, words: String| {
        Err(Refusal(format!("the field `{}` is {} in sample {}, {words}", field.name, values[at], at / width)))
    };
    if let Some(classes) = field.classes
        && let Some(at) = values.iter().position(|value| usize::try_from(*value).map_or(true, |value| value >= classes))
    {
        return refuse(at, format!("but there are {classes} classes, from 0 on"));
    }
    for range in artifact.ranges.iter().filter(|range| range.field == field.name) {
        if let Some(at) = values.iter().position(|value| !range.admits(i64::from(*value))) {
            let place = artifact.sources.location(range.span);
            return refuse(at, format!("but the model reads at {} to {} ({place})", range.low, range.high));
        }
    }
    Ok(())
}
