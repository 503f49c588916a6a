//! Checkpoints: safetensors files with weights, buffers, optimizer memory and the place in the run.
//!
//! Input: named tensors and a [`Position`]. Output: one file, written to a temporary name, synced and renamed,
//! so that a reader sees the old file or the new one, whole. Invariant: [`load`] returns tensors only from a file
//! whose checksum holds.
//!
//! Weights and buffers stand under their own names, as PyTorch and Hugging Face files have them; other states under
//! `optimizer:…` and `metric:…`. The safetensors metadata holds, as JSON under `ansatz`, the position and a CRC-32.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

/// Where a run stands; together with the seed it fixes everything that follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// The seed of the run.
    pub seed: u64,
    /// FNV-1a hash of the model file's text.
    pub source: u64,
    /// Sum of losses times samples in the running epoch.
    pub loss_sum: f64,
    /// Sums of stateless metrics times samples in the running epoch, by name.
    pub metric_sums: BTreeMap<String, f64>,
    /// Samples seen in the running epoch.
    pub samples: u64,
    /// The best value of the kept metric so far.
    pub best: Option<f64>,
}

/// What a file says of itself, as JSON under `ansatz`.
#[derive(Serialize, Deserialize)]
struct Note {
    /// CRC-32 of all tensor bytes in name order.
    crc32: u32,
    /// Absent in a file of weights alone.
    position: Option<Position>,
}

/// A tensor as a file holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// Its dims.
    pub sizes: Vec<usize>,
    /// `f32`, or `i32` bits.
    pub integer: bool,
    /// Little-endian elements of four bytes; borrowed where they are written from the place where they lie.
    pub bytes: Cow<'a, [u8]>,
}

/// What can go wrong, with the file's name.
#[derive(Debug)]
pub struct CheckpointError {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    pub problem: String,
}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for CheckpointError {}

fn error(path: &Path, problem: impl std::fmt::Display) -> CheckpointError {
    CheckpointError { path: path.to_path_buf(), problem: problem.to_string() }
}

/// Writes tensors, and the position unless the file is for weights alone.
///
/// # Errors
/// Any failure to write; an older file of this name is then intact.
pub fn save(
    path: &Path,
    tensors: &BTreeMap<String, Tensor<'_>>,
    position: Option<&Position>,
) -> Result<(), CheckpointError> {
    let note = Note { crc32: checksum(tensors.values().map(|t| t.bytes.as_ref())), position: position.cloned() };
    // Four-byte floats before integers, names in order: as the safetensors library lays a file out.
    let (integers, floats): (Vec<_>, Vec<_>) = tensors.iter().partition(|(_, tensor)| tensor.integer);
    let ordered: Vec<(&String, &Tensor<'_>)> = floats.into_iter().chain(integers).collect();
    let header = header(&ordered, &note).map_err(|problem| error(path, problem))?;
    let written = write_all_atomically(path, |file| {
        file.write_all(&header)?;
        ordered.iter().try_for_each(|(_, tensor)| file.write_all(&tensor.bytes))
    });
    written.map_err(|problem| error(path, problem))
}

/// What precedes the tensors: the length of the description in eight bytes, and the description.
fn header(ordered: &[(&String, &Tensor<'_>)], note: &Note) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    // One entry: the writer's order of several would differ from run to run.
    let text = serde_json::to_string(note).expect("a note is plain data");
    let metadata = HashMap::from([("ansatz".to_string(), text)]);
    let mut end = 0;
    let infos = ordered.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.bytes.len();
        let dtype = if tensor.integer { Dtype::I32 } else { Dtype::F32 };
        let info = TensorInfo { dtype, shape: tensor.sizes.clone(), data_offsets: (start, end) };
        ((*name).clone(), info)
    });
    let metadata = Metadata::new(Some(metadata), infos.collect())?;
    let mut text = serde_json::to_string(&metadata).expect("a description is plain data");
    // Tensors start at a multiple of eight bytes.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    Ok([(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat())
}

/// Writes `bytes` under a temporary name in the same folder, syncs, renames, and syncs the folder.
///
/// # Errors
/// Any failure of the file system; the temporary file is removed and an older file of this name is intact.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_all_atomically(path, |file| file.write_all(bytes))
}

/// As [`write_atomically`], with what `content` writes.
fn write_all_atomically(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = BufWriter::new(File::create(&temporary)?);
        content(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Reads a file: its tensors, and its position if it is a checkpoint of a run.
///
/// # Errors
/// A missing, damaged or foreign file; element types other than f32, f16, bf16, f64, i32 and i64.
pub fn load(path: &Path) -> Result<(BTreeMap<String, Tensor<'static>>, Option<Position>), CheckpointError> {
    let bytes = std::fs::read(path).map_err(|problem| error(path, problem))?;
    let damaged = |problem: &dyn std::fmt::Display| error(path, format!("not a readable safetensors file: {problem}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|problem| damaged(&problem))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|problem| damaged(&problem))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut raw: Vec<(String, TensorView<'_>)> = file.tensors();
    raw.sort_by(|a, b| a.0.cmp(&b.0));
    let note: Option<Note> = match metadata.get("ansatz") {
        Some(text) => Some(serde_json::from_str(text).map_err(|problem| damaged(&problem))?),
        None => None,
    };
    if let Some(note) = &note {
        let (expected, actual) = (note.crc32, checksum(raw.iter().map(|(_, view)| view.data())));
        if expected != actual {
            return Err(error(path, format!("damaged: its checksum is {actual:08x}, not {expected:08x}")));
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in raw {
        let tensor = convert(&view).map_err(|problem| error(path, format!("`{name}`: {problem}")))?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, note.and_then(|note| note.position)))
}

fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut crc = flate2::Crc::new();
    parts.for_each(|part| crc.update(part));
    crc.sum()
}

/// Elements as f32 or i32, whatever the file holds.
fn convert(view: &TensorView<'_>) -> Result<Tensor<'static>, String> {
    fn widen<const N: usize>(data: &[u8], element: impl Fn([u8; N]) -> [u8; 4]) -> Vec<u8> {
        data.chunks_exact(N).flat_map(|c| element(c.try_into().expect("chunks of N bytes"))).collect()
    }
    let data = view.data();
    let (integer, bytes) = match view.dtype() {
        Dtype::F32 => (false, data.to_vec()),
        Dtype::F64 => (false, widen(data, |b| (f64::from_le_bytes(b) as f32).to_le_bytes())),
        Dtype::BF16 => (false, widen(data, |b: [u8; 2]| [0, 0, b[0], b[1]])),
        Dtype::F16 => (false, widen(data, |b| half_to_f32(u16::from_le_bytes(b)).to_le_bytes())),
        Dtype::I32 => (true, data.to_vec()),
        Dtype::I64 => (true, widen(data, |b| (i64::from_le_bytes(b) as i32).to_le_bytes())),
        other => return Err(format!("elements of type {other:?} are not supported")),
    };
    Ok(Tensor { sizes: view.shape().to_vec(), integer, bytes: bytes.into() })
}

/// IEEE 754 binary16 to binary32.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 31);
    let mantissa = f32::from(bits & 1023);
    match (exponent, mantissa) {
        (31, 0.0) => sign * f32::INFINITY,
        (31, _) => f32::NAN,
        (0, _) => sign * mantissa * 2f32.powi(-24),
        _ => sign * (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (BTreeMap<String, Tensor<'static>>, Position) {
        let bytes = [1.5f32, -2.0, 3.25].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensors = BTreeMap::from([("fc.weight".into(), Tensor { sizes: vec![3], integer: false, bytes })]);
        let position = Position {
            step: 7,
            seed: 3,
            source: 99,
            loss_sum: 0.1,
            metric_sums: BTreeMap::from([("accuracy".into(), 1.0)]),
            samples: 64,
            best: Some(0.25),
        };
        (tensors, position)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("last.safetensors");
        let (tensors, position) = sample();
        save(&path, &tensors, Some(&position)).expect("saved");
        assert_eq!(load(&path).expect("loaded"), (tensors, Some(position)));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "no temporary file is left");
    }

    #[test]
    fn files_are_laid_out_as_the_safetensors_library_does() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("weights.safetensors");
        let tensor =
            |integer, value: u32| Tensor { sizes: vec![1], integer, bytes: value.to_le_bytes().to_vec().into() };
        let tensors =
            [("b", tensor(false, 1)), ("a", tensor(true, 2)), ("c", tensor(true, 3)), ("d", tensor(false, 4))];
        let tensors: BTreeMap<String, Tensor<'_>> = tensors.map(|(name, tensor)| (name.to_string(), tensor)).into();
        save(&path, &tensors, None).expect("saved");
        let views = tensors.iter().map(|(name, tensor)| {
            let dtype = if tensor.integer { Dtype::I32 } else { Dtype::F32 };
            (name, TensorView::new(dtype, tensor.sizes.clone(), &tensor.bytes).expect("a view"))
        });
        let ours = std::fs::read(&path).expect("read");
        let (_, metadata) = SafeTensors::read_metadata(&ours).expect("a description");
        let theirs = safetensors::serialize(views, metadata.metadata().clone()).expect("serialised");
        assert_eq!(ours, theirs);
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_detected() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("last.safetensors");
        let (tensors, position) = sample();
        save(&path, &tensors, Some(&position)).expect("saved");
        let whole = std::fs::read(&path).expect("read");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            assert!(load(&path).is_err(), "a file cut at {cut} was accepted");
        }
        let data = whole.len() - 12;
        for at in data..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x10;
            std::fs::write(&path, &broken).expect("written");
            assert!(load(&path).is_err(), "a flip at {at} was accepted");
        }
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8)] {
            assert_eq!(half_to_f32(bits), value);
        }
        assert!(half_to_f32(0x7e00).is_nan() && half_to_f32(0x7c00).is_infinite());
    }
}
