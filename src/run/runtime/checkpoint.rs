//! Checkpoints: safetensors files with weights, buffers, optimizer memory and the place in the run.
//!
//! Input: named tensors and a [`Note`]. Output: one file, written to a temporary name, synced and renamed,
//! so that a reader sees the old file or the new one, whole. Invariant: [`load`] returns a file of ours only if the
//! checksum over all of its bytes holds.
//!
//! Weights and buffers stand under their own names, as PyTorch and Hugging Face files have them; other states under
//! `optimizer:…` and `metric:…`. The safetensors metadata holds, as JSON under `ansatz`, a CRC-32 and the note. The
//! checksum is of the whole file with zeros for its own eight digits, and these stand at a fixed place: see [`PREFIX`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

use super::data::Preparation;
pub use super::exact::Exact;
use super::files::{self, half_to_f32, named};
use super::memory;
use super::recipe::Recipe;
pub use super::spikes::Recent;
use crate::artifact::checksum;
use crate::diagnostics::Refusal;
use crate::source::shortened;

/// What a file says of itself beside its tensors. A file that we did not write has the default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// What the run was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// What the run measured and settled on its training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
    /// Where the run stands; absent in a file of weights alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// Where a run stands; together with the recipe it fixes everything that follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// Sum of losses times samples in the running epoch.
    pub loss_sum: Exact,
    /// Sums of stateless metrics times samples in the running epoch, by name.
    pub metric_sums: BTreeMap<String, Exact>,
    /// Samples seen in the running epoch.
    pub samples: u64,
    /// The best value of the kept metric so far.
    pub best: Option<Exact>,
    /// The last losses.
    #[serde(default, skip_serializing_if = "Recent::is_empty")]
    pub recent: Recent,
    /// What went wrong with steps so far.
    #[serde(default, skip_serializing_if = "Mishaps::is_none")]
    pub mishaps: Mishaps,
}

/// Steps that were not finite and steps whose losses leapt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mishaps {
    /// Steps up to the last one that were skipped without one between them that was not.
    pub in_a_row: u64,
    /// Skipped steps of the running epoch.
    pub skipped: u64,
    /// Losses of the running epoch that leapt.
    pub leaps: u64,
    /// The step that the run would go back to.
    pub place: u64,
    /// How often the run went back.
    pub returns: u64,
    /// Batches that it has left behind by that: step `n` takes batch `n - 1 + passed`, counted from 0.
    pub passed: u64,
}

impl Mishaps {
    /// Whether nothing went wrong.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The layout of [`Note`] that this version reads and writes.
const VERSION: u32 = 2;

/// How the JSON under `ansatz` is laid out.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// CRC-32 in eight digits; first, so that its place is known.
    crc32: String,
    version: u32,
    #[serde(flatten)]
    note: Note,
}

/// What precedes the digits of the checksum, behind the eight bytes of the header's length.
const PREFIX: &[u8] = br#"{"__metadata__":{"ansatz":"{\"crc32\":\""#;

/// Parts of [`PREFIX`]. A file with either is one of ours, so that no single byte can make it a stranger's, which has no
/// checksum to hold.
const MARKS: [&[u8]; 2] = [br#"{"ansatz":"#, br#"{\"crc32\":"#];

/// The digits of the checksum.
const DIGITS: std::ops::Range<usize> = 8 + PREFIX.len()..16 + PREFIX.len();

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

impl Tensor<'_> {
    /// The same without a copy of its elements.
    pub fn lent(&self) -> Tensor<'_> {
        Tensor { sizes: self.sizes.clone(), integer: self.integer, bytes: Cow::Borrowed(&self.bytes) }
    }
}

/// Writes tensors and what is to be known of them.
///
/// # Errors
/// Any failure to write; an older file of this name is then intact.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor<'_>>, note: &Note) -> Result<(), Refusal> {
    // Four-byte floats before integers, names in order: as the safetensors library lays a file out.
    let (integers, floats): (Vec<_>, Vec<_>) = tensors.iter().partition(|(_, tensor)| tensor.integer);
    let ordered: Vec<(&String, &Tensor<'_>)> = floats.into_iter().chain(integers).collect();
    let mut header = header(&ordered, note).map_err(|problem| named(path, &problem))?;
    let parts = ordered.iter().map(|(_, tensor)| tensor.bytes.as_ref());
    let digits = checksum(std::iter::once(header.as_slice()).chain(parts));
    header[DIGITS].copy_from_slice(digits.as_bytes());
    let written = write_all_atomically(path, |file| {
        file.write_all(&header)?;
        ordered.iter().try_for_each(|(_, tensor)| file.write_all(&tensor.bytes))
    });
    written.map_err(|problem| named(path, &problem))
}

/// What precedes the tensors, with zeros for the checksum: the length of the description in eight bytes, and the
/// description.
fn header(ordered: &[(&String, &Tensor<'_>)], note: &Note) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let entry = Entry { crc32: ZEROS.to_string(), version: VERSION, note: note.clone() };
    // One entry: the writer's order of several would differ from run to run.
    let text = serde_json::to_string(&entry).expect("a note is plain data");
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
    assert!(text.as_bytes().starts_with(PREFIX), "the metadata comes first, and in it the checksum");
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

/// As [`write_atomically`] for a file that exists: it keeps its permissions and its owner, and a link stays one.
///
/// # Errors
/// As [`write_atomically`].
pub fn rewrite(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let target = std::fs::canonicalize(path)?;
    let found = std::fs::metadata(&target)?;
    write_all_atomically(&target, |file| {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            // Only the system's administrator may give files away, and only they need to.
            let _ = std::os::unix::fs::fchown(file.get_ref(), Some(found.uid()), Some(found.gid()));
        }
        file.get_ref().set_permissions(found.permissions())?;
        file.write_all(bytes)
    })
}

/// As [`write_atomically`], with what `content` writes.
fn write_all_atomically(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    replace(path, |temporary| {
        let mut file = BufWriter::new(File::create(temporary)?);
        content(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    })
}

/// Makes `path` another name of `original`, in the place of an older file of this name.
///
/// # Errors
/// As [`write_atomically`]; file systems without hard links.
pub fn link_atomically(original: &Path, path: &Path) -> std::io::Result<()> {
    replace(path, |temporary| std::fs::hard_link(original, temporary))
}

/// Lets `make` make a file of a temporary name, and gives it the name `path` for good.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = Temporary::of(folder, &path.file_name().unwrap_or_default().to_string_lossy());
    let made = make(&temporary.0).and_then(|()| {
        std::fs::rename(&temporary.0, path)?;
        File::open(folder)?.sync_all()
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&temporary.0);
    }
    made
}

/// The temporary files that threads of this process write.
static WRITTEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file that one thread alone writes: `.NAME.PID.tmp`, or `.NAME.PID-2.tmp` where another thread is at that one.
struct Temporary(PathBuf);

impl Temporary {
    fn of(folder: &Path, name: &str) -> Self {
        // Threads may write one folder in several ways.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let process = std::process::id();
        let first = format!(".{name}.{process}.tmp");
        let others = (2u64..).map(|number| format!(".{name}.{process}-{number}.tmp"));
        let mut paths = std::iter::once(first).chain(others).map(|name| folder.join(name));
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        Self(paths.find(|path| written.insert(path.clone())).expect("there are more numbers than threads"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        WRITTEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// The `NAME` of a file that some process of ours would have renamed to it.
pub fn intended_name(temporary: &str) -> Option<&str> {
    let (name, writer) = temporary.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (process, number) = writer.split_once('-').unwrap_or((writer, "1"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(process) && is_number(number)).then_some(name)
}

/// Reads a file: its tensors and its note.
///
/// # Errors
/// A missing or damaged file, one of another version; element types other than f32, f16, bf16, f64, i32 and i64.
pub fn load(path: &Path) -> Result<(BTreeMap<String, Tensor<'static>>, Note), Refusal> {
    let bytes = files::open(path).and_then(|file| files::read_all(file, memory::for_contents()));
    let bytes = bytes.map_err(|problem| named(path, &problem))?;
    read(&bytes).map_err(|problem| named(path, &problem))
}

/// The tensors and the note of a file's bytes, or what is wrong with them.
fn read(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor<'static>>, Note), String> {
    let unreadable = |problem: &dyn std::fmt::Display| format!("not a readable safetensors file: {problem}");
    let ours = is_ours(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|problem| unreadable(&problem))?;
    let file = SafeTensors::deserialize(bytes).map_err(|problem| unreadable(&problem))?;
    if let Some(name) = repeated_name(bytes) {
        return Err(unreadable(&format!("it describes `{}` twice", shortened(&name, NAME_SHOWN))));
    }
    let entry = header.metadata().as_ref().and_then(|metadata| metadata.get("ansatz")).filter(|_| ours);
    let note = match entry.map(|text| serde_json::from_str::<Entry>(text)).transpose() {
        Ok(Some(entry)) if entry.version != VERSION => {
            return Err(format!("written by another version of ansatz (layout {}, not {VERSION})", entry.version));
        }
        Ok(entry) => entry.map(|entry| entry.note).unwrap_or_default(),
        Err(problem) => return Err(unreadable(&problem)),
    };
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let tensor = convert(&view).map_err(|problem| format!("`{name}`: {problem}"))?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, note))
}

/// How many characters of a tensor's name a message shows.
const NAME_SHOWN: usize = 80;

/// A name that stands twice in a readable description; readers would differ in which of the two they take.
fn repeated_name(bytes: &[u8]) -> Option<String> {
    /// The names, in order.
    struct Names(Vec<String>);

    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_map(Names(Vec::new()))
        }
    }

    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = Names;

        fn expecting(&self, words: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            words.write_str("tensors by name")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(mut self, mut map: A) -> Result<Names, A::Error> {
            while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                self.0.push(name);
            }
            Ok(self)
        }
    }

    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let text = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let Names(mut names) = serde_json::from_slice(text).ok()?;
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}

/// Whether we wrote these bytes and they are as they were written; false for those of another program.
fn is_ours(bytes: &[u8]) -> Result<bool, String> {
    // Damage to the length moves the header's end, so the place of the marks is not taken from it.
    let front = &bytes[..bytes.len().min(DIGITS.end)];
    if !MARKS.iter().any(|mark| front.windows(mark.len()).any(|window| window == *mark)) {
        return Ok(false);
    }
    let Some(digits) = bytes.get(DIGITS).filter(|_| front[8..].starts_with(PREFIX)) else {
        let (shorter, number) = front[8..].split_at((PREFIX.len() - 2).min(front.len() - 8));
        if PREFIX.starts_with(shorter) && number.first().is_some_and(u8::is_ascii_digit) {
            return Err("written by an earlier version of ansatz, which kept no checksum of the whole file".into());
        }
        return Err("damaged: something else stands where its checksum belongs".into());
    };
    let actual = checksum([&bytes[..DIGITS.start], ZEROS.as_bytes(), &bytes[DIGITS.end..]].into_iter());
    if digits == actual.as_bytes() {
        return Ok(true);
    }
    Err(format!("damaged: its checksum is {actual}, not {}", digits.escape_ascii()))
}

/// What stands for the digits of the checksum while it is computed.
const ZEROS: &str = "00000000";

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
        Dtype::I64 => {
            let wide = data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
            let narrow = |value| i32::try_from(value).map_err(|_| format!("{value} does not fit 32 bits"));
            let values = wide.map(narrow).collect::<Result<Vec<i32>, String>>()?;
            (true, values.into_iter().flat_map(i32::to_le_bytes).collect())
        }
        other => return Err(format!("elements of type {other:?} are not supported")),
    };
    Ok(Tensor { sizes: view.shape().to_vec(), integer, bytes: bytes.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (BTreeMap<String, Tensor<'static>>, Note) {
        let bytes = [1.5f32, -2.0, 3.25].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensors = BTreeMap::from([("fc.weight".into(), Tensor { sizes: vec![3], integer: false, bytes })]);
        let position = Position {
            step: 7,
            loss_sum: Exact(0.1),
            metric_sums: BTreeMap::from([("accuracy".into(), Exact(1.0))]),
            samples: 64,
            best: Some(Exact(0.25)),
            ..Position::default()
        };
        let settings = vec![("train.batch".into(), "\"64\"".into())];
        let recipe = Recipe { model: "0badcafe".into(), seed: u64::MAX, settings, ..Recipe::default() };
        (tensors, Note { position: Some(position), recipe: Some(recipe), preparation: None })
    }

    /// The bytes of the sample, and a place for files.
    fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("last.safetensors");
        let (tensors, note) = sample();
        save(&path, &tensors, &note).expect("saved");
        let bytes = std::fs::read(&path).expect("read");
        (folder, path, bytes)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (folder, path, _) = written();
        assert_eq!(load(&path).expect("loaded"), sample());
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "no temporary file is left");
    }

    #[test]
    fn threads_that_write_one_file_each_write_it_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("sub")).expect("made");
        let contents = [vec![1; 100_000], vec![2; 200_000], vec![3; 300_000], vec![4; 400_000]];
        let paths = ["a", "sub/../a"].map(|path| folder.path().join(path));
        std::thread::scope(|scope| {
            for (content, path) in contents.iter().zip(paths.iter().cycle()) {
                scope.spawn(move || {
                    (0..20).for_each(|_| write_atomically(path, content).expect("written"));
                });
            }
        });
        assert!(contents.contains(&std::fs::read(&paths[0]).expect("read")));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2, "no temporary file is left");
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
        save(&path, &tensors, &sample().1).expect("saved");
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
    fn every_flipped_byte_and_every_cut_is_found() {
        let (_folder, _, whole) = written();
        let accepted = |bytes: &[u8]| read(bytes).is_ok();
        for cut in 0..whole.len() {
            assert!(!accepted(&whole[..cut]), "a file cut at {cut} was accepted");
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= flip;
                assert!(!accepted(&broken), "byte {at} changed by {flip:#x} was accepted");
            }
        }
        assert!(!accepted(&[whole.as_slice(), b" "].concat()), "a byte too many was accepted");
        assert!(accepted(&whole));
    }

    #[test]
    fn sums_come_back_to_the_bit() {
        let mut numbers = vec![0.1 + 0.2, f64::MIN_POSITIVE / 3.0, -0.0, f64::MAX];
        numbers.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            numbers.push(f64::from_bits(state));
        }
        for number in numbers {
            let text = serde_json::to_string(&Exact(number)).expect("written");
            let Exact(back) = serde_json::from_str(&text).expect("read");
            assert!(back.to_bits() == number.to_bits() || (back.is_nan() && number.is_nan()), "{number:e} as {text}");
        }
        assert!(serde_json::from_str::<Exact>("\"12 apples\"").is_err());
    }

    #[test]
    fn files_of_other_programs_have_no_note_and_those_of_earlier_versions_say_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("weights.safetensors");
        let data = 1.0f32.to_le_bytes();
        let write = |metadata: Option<(&str, &str)>| {
            let view = TensorView::new(Dtype::F32, vec![1], &data).expect("a view");
            let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_string(), value.to_string())]));
            let bytes = safetensors::serialize([("a", view)], metadata).expect("serialised");
            std::fs::write(&path, bytes).expect("written");
        };
        for metadata in [None, Some(("format", "pt"))] {
            write(metadata);
            let (tensors, note) = load(&path).expect("loaded");
            assert_eq!((tensors["a"].bytes.as_ref(), note), (data.as_slice(), Note::default()));
        }
        write(Some(("ansatz", r#"{"crc32":2899235905,"position":null}"#)));
        let problem = load(&path).expect_err("an old file").to_string();
        assert!(problem.contains("earlier version of ansatz"), "{problem}");
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8)] {
            assert_eq!(half_to_f32(bits), value);
        }
        assert!(half_to_f32(0x7e00).is_nan() && half_to_f32(0x7c00).is_infinite());
    }
}
