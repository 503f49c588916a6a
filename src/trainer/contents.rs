//! What a trainer carries, and how it lies in the file behind the program.
//!
//! Input: a run and its machine code. Output: sections behind the bytes of a program, and back. Invariant: a section is
//! taken only if its checksum holds; lengths are held against the file before anything is read.
//!
//! Behind the sections, which are deflated, lies a directory of them behind the [`LAYOUT`] that they have, and in the last bytes
//! of the file its length, its checksum and [`MAGIC`]. All numbers are little-endian.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, Reading, Watched};
use crate::console::Platform;
use crate::cpu::Code;
use crate::cuda;
use crate::runtime::about::About;
use crate::runtime::files::{self, named};
use crate::settings::PackedFiles;
use ansatz_compute::machine::Level;
use ansatz_program::diagnostics::Refusal;
use ansatz_run::LAYOUT;

/// The last bytes of a file that carries a run; the very last is the version of what surrounds the sections.
pub const MAGIC: &[u8; 16] = b"ansatz trainer \x02";

/// What is wrong with a file of another layout.
const OTHER: &str = "carries a run of another version of ansatz";

/// Bytes behind the directory: its length, its CRC-32, [`MAGIC`].
const TAIL: u64 = 8 + 4 + 16;

/// The most sections that a file may have, so that a directory is never large.
const MAX_DIRECTORY: u64 = 1 << 20;

/// A run and how its outputs are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// All of its steps.
    pub artifact: Artifact,
    /// How its outputs are read.
    pub reading: Reading,
    /// The way from the trainer's folder to the root of its data, as they lay when it was built.
    pub data_root: PathBuf,
    /// How many of the artifact's first texts are the library's.
    pub library: usize,
    /// CRC-32 of the other texts.
    pub source: String,
    /// What the compiler tells people of it.
    pub about: About,
}

/// Training steps opened up to see what is not finite, by number of samples. They are read only where that happens.
pub type WatchedSteps = Vec<(usize, Watched)>;

/// The code of one level.
#[derive(Clone, Debug)]
pub struct Codes {
    /// The level.
    pub level: Level,
    /// Of all steps.
    pub steps: Vec<Code>,
    /// Of the watched ones.
    pub watched: Vec<Code>,
}

/// The code for GPUs.
#[derive(Clone, Debug)]
pub struct GpuCodes {
    /// Of all steps.
    pub steps: Vec<cuda::Code>,
    /// Of the watched ones.
    pub watched: Vec<cuda::Code>,
}

/// The code of a run, for what it was built to run on.
#[derive(Clone, Debug)]
pub enum Coded {
    /// For some levels of a processor.
    Cpu(Vec<Codes>),
    /// For GPUs.
    Cuda(GpuCodes),
}

/// A section of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Section {
    name: String,
    /// From the beginning of the file.
    start: u64,
    length: u64,
    /// Bytes that it has when it is inflated.
    inflated: u64,
    /// Of the bytes in the file.
    crc32: u32,
}

/// The name of the section with the [`Contents`].
const RUN: &str = "run";

/// The name of the section with the [`WatchedSteps`].
const WATCHED: &str = "watched";

/// The name of the section with the files of the data.
const DATA: &str = "data";

/// The name of the section with the code for GPUs.
const CUDA: &str = "code cuda";

/// The name of the section with the code for GPUs of the watched steps.
const WATCHED_CUDA: &str = "watched code cuda";

/// The name of the section with the code of a level.
fn code_name(level: Level) -> String {
    format!("code {level}")
}

/// The name of the section with the code of a level for the watched steps.
fn watched_code_name(level: Level) -> String {
    format!("watched code {level}")
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A program with a run behind it: the bytes of a trainer.
///
/// # Errors
/// Where a size of the run is not bound: a bug of whoever made it.
pub fn trainer(
    program: &[u8],
    contents: &Contents,
    watched: &WatchedSteps,
    coded: &Coded,
    data: Option<&PackedFiles>,
) -> Result<Vec<u8>, Refusal> {
    let plain = |error: postcard::Error| Refusal(error.to_string());
    let mut sections = vec![(RUN.to_string(), postcard::to_stdvec(contents).map_err(plain)?)];
    sections.push((WATCHED.to_string(), postcard::to_stdvec(watched).map_err(plain)?));
    match coded {
        Coded::Cpu(codes) => {
            for codes in codes {
                sections.push((code_name(codes.level), postcard::to_stdvec(&codes.steps).map_err(plain)?));
                sections.push((watched_code_name(codes.level), postcard::to_stdvec(&codes.watched).map_err(plain)?));
            }
        }
        Coded::Cuda(codes) => {
            sections.push((CUDA.to_string(), postcard::to_stdvec(&codes.steps).map_err(plain)?));
            sections.push((WATCHED_CUDA.to_string(), postcard::to_stdvec(&codes.watched).map_err(plain)?));
        }
    }
    if let Some(files) = data {
        sections.push((DATA.to_string(), postcard::to_stdvec(files).map_err(plain)?));
    }
    Ok(with_sections(program.to_vec(), &sections))
}

fn with_sections(mut bytes: Vec<u8>, sections: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut directory = Vec::new();
    for (name, section) in sections {
        let packed = deflated(section);
        let (start, length, inflated) = (bytes.len() as u64, packed.len() as u64, section.len() as u64);
        directory.push(Section { name: name.clone(), start, length, inflated, crc32: crc32(&packed) });
        bytes.extend_from_slice(&packed);
    }
    let directory = postcard::to_stdvec(&(LAYOUT, directory)).expect("plain data");
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(&(directory.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32(&directory).to_le_bytes());
    bytes.extend_from_slice(MAGIC);
    bytes
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("memory takes all bytes")
}

/// What carries a run, opened: a file, or bytes in memory.
#[derive(Debug)]
pub struct Carrier<'b> {
    place: Place<'b>,
    sections: Vec<Section>,
}

/// Where the bytes lie.
#[derive(Debug)]
enum Place<'b> {
    /// Open, so that another file of this name is never taken for it.
    File(PathBuf, File),
    /// The name is for messages.
    Memory(&'b str, &'b [u8]),
}

impl Place<'_> {
    fn name(&self) -> &Path {
        match self {
            Place::File(path, _) => path,
            Place::Memory(name, _) => Path::new(name),
        }
    }
}

/// The file's directory; none where the file carries nothing.
///
/// # Errors
/// A file that cannot be read, and a directory that is damaged or of another version.
pub fn open(path: &Path) -> Result<Option<Carrier<'static>>, Refusal> {
    let read = files::open(path).and_then(|mut file| Ok((directory(&mut file)?, file)));
    let (sections, file) = read.map_err(|error| named(path, &error))?;
    Ok(sections.map(|sections| Carrier { place: Place::File(path.to_path_buf(), file), sections }))
}

/// As [`open`], of bytes that lie in memory and are called `name` in messages.
///
/// # Errors
/// As [`open`].
pub fn of_bytes<'b>(name: &'b str, bytes: &'b [u8]) -> Result<Option<Carrier<'b>>, Refusal> {
    let sections = directory(&mut io::Cursor::new(bytes)).map_err(|error| named(Path::new(name), &error))?;
    Ok(sections.map(|sections| Carrier { place: Place::Memory(name, bytes), sections }))
}

/// The directory behind a program's bytes; none where they carry nothing.
fn directory(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<Section>>> {
    let length = file.seek(SeekFrom::End(0))?;
    if length < TAIL {
        return Ok(None);
    }
    let tail = bytes_at(file, length - TAIL, TAIL)?;
    let (numbers, magic) = tail.split_at(12);
    if magic[..15] != MAGIC[..15] {
        return Ok(None);
    }
    let damaged = |words: &str| Err(io::Error::new(io::ErrorKind::InvalidData, words));
    if magic != MAGIC {
        return damaged(OTHER);
    }
    let of_directory = u64::from_le_bytes(numbers[..8].try_into().expect("eight bytes"));
    if of_directory > MAX_DIRECTORY.min(length - TAIL) {
        return damaged("is damaged: its directory is longer than it can be");
    }
    let directory = bytes_at(file, length - TAIL - of_directory, of_directory)?;
    if crc32(&directory).to_le_bytes() != numbers[8..] {
        return damaged("is damaged: the checksum of its directory does not hold");
    }
    let Ok((layout, rest)) = postcard::take_from_bytes::<&str>(&directory) else {
        return damaged("is damaged: its directory cannot be read");
    };
    if layout != LAYOUT {
        return damaged(OTHER);
    }
    let Ok(sections) = postcard::from_bytes::<Vec<Section>>(rest) else {
        return damaged("is damaged: its directory cannot be read");
    };
    let end = length - TAIL - of_directory;
    let lies = |section: &Section| section.start.checked_add(section.length).is_some_and(|last| last <= end);
    if sections.iter().all(lies) { Ok(Some(sections)) } else { damaged("is damaged: a part lies behind its end") }
}

impl Carrier<'_> {
    /// The run.
    ///
    /// # Errors
    /// A section that is missing or damaged.
    pub fn contents(&self) -> Result<Contents, Refusal> {
        self.read(RUN)
    }

    /// The levels that there is code for.
    pub fn levels(&self) -> Vec<Level> {
        let has = |level: &Level| self.sections.iter().any(|section| section.name == code_name(*level));
        Level::ALL.into_iter().filter(has).collect()
    }

    /// What it was built to run on.
    pub fn platform(&self) -> Platform {
        if self.sections.iter().any(|section| section.name == CUDA) { Platform::Cuda } else { Platform::Cpu }
    }

    /// The code for GPUs.
    ///
    /// # Errors
    /// As [`Carrier::contents`].
    pub fn gpu_codes(&self) -> Result<Vec<cuda::Code>, Refusal> {
        self.read(CUDA)
    }

    /// The code for GPUs of the watched steps.
    ///
    /// # Errors
    /// As [`Carrier::contents`].
    pub fn watched_gpu_codes(&self) -> Result<Vec<cuda::Code>, Refusal> {
        self.read(WATCHED_CUDA)
    }

    /// The machine code of a level.
    ///
    /// # Errors
    /// As [`Carrier::contents`].
    pub fn codes(&self, level: Level) -> Result<Vec<Code>, Refusal> {
        self.read(&code_name(level))
    }

    /// The watched steps.
    ///
    /// # Errors
    /// As [`Carrier::contents`].
    pub fn watched(&self) -> Result<WatchedSteps, Refusal> {
        self.read(WATCHED)
    }

    /// The machine code of the watched steps for a level.
    ///
    /// # Errors
    /// As [`Carrier::contents`].
    pub fn watched_codes(&self, level: Level) -> Result<Vec<Code>, Refusal> {
        self.read(&watched_code_name(level))
    }

    /// The files of its data, if it carries any.
    ///
    /// # Errors
    /// As [`Carrier::contents`].
    pub fn data(&self) -> Result<Option<PackedFiles>, Refusal> {
        if self.sections.iter().any(|section| section.name == DATA) { self.read(DATA).map(Some) } else { Ok(None) }
    }

    /// Names and bytes of the sections.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sections.iter().map(|section| (section.name.as_str(), section.length))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        let problem = |words: &dyn std::fmt::Display| named(self.place.name(), words);
        let section = self.sections.iter().find(|section| section.name == name);
        let section = section.ok_or_else(|| problem(&format!("carries no {name}")))?;
        let (start, length) = (section.start, section.length);
        let bytes = match &self.place {
            Place::File(_, file) => bytes_at(&mut &*file, start, length),
            Place::Memory(_, bytes) => bytes_at(&mut io::Cursor::new(bytes), start, length),
        };
        let bytes = bytes.map_err(|error| problem(&error))?;
        if crc32(&bytes) != section.crc32 {
            return Err(problem(&format!("is damaged: the checksum of its {name} does not hold")));
        }
        let mut inflated = Vec::new();
        let most = section.inflated.saturating_add(1);
        let read = flate2::read::DeflateDecoder::new(&bytes[..]).take(most).read_to_end(&mut inflated);
        if !read.is_ok_and(|length| length as u64 == section.inflated) {
            return Err(problem(&format!("is damaged: its {name} is not as long as it says")));
        }
        postcard::from_bytes(&inflated).map_err(|error| problem(&format!("its {name} cannot be read: {error}")))
    }
}

/// So many bytes from a place on; the caller has held both against the length of the file.
fn bytes_at(file: &mut (impl Read + Seek), start: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file of these bytes gives, section by section, or what is wrong with it; none where it carries nothing.
    fn parts(path: &Path, bytes: &[u8]) -> Result<Option<[Vec<u32>; 2]>, Refusal> {
        std::fs::write(path, bytes).expect("written");
        let read = |carrier: Option<Carrier<'_>>| {
            carrier.map(|carrier| Ok([carrier.read("a")?, carrier.read("b")?])).transpose()
        };
        let of_file = open(path).and_then(read);
        let name = path.to_str().expect("UTF-8");
        assert_eq!(of_bytes(name, bytes).and_then(read), of_file, "bytes in memory are read as a file's are");
        of_file
    }

    #[test]
    fn every_changed_byte_and_every_cut_of_what_is_carried_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("t");
        let values = [vec![7, 300, 70_000], vec![1; 9]];
        let sections = ["a", "b"].map(String::from).into_iter().zip(&values);
        let sections = sections.map(|(name, part)| (name, postcard::to_stdvec(part).expect("plain data")));
        let program = b"a program of 21 bytes".to_vec();
        let whole = with_sections(program.clone(), &sections.collect::<Vec<_>>());
        assert_eq!(parts(&path, &whole), Ok(Some(values)));
        for place in program.len()..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                let is_magic = place >= whole.len() - 16;
                let found = parts(&path, &changed);
                assert!(found.is_err() || is_magic && found == Ok(None), "bit {bit} of byte {place}: {found:?}");
            }
        }
        std::fs::write(&path, &whole).expect("written");
        let carrier = open(&path).expect("read").expect("sections");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, &whole[1..]).expect("another file of this name");
        assert_eq!(carrier.read::<Vec<u32>>("b"), Ok(vec![1; 9]), "what was opened is read");
        // The last digit of the layout's hash: the sources of another commit.
        let mut other = whole.clone();
        let directory =
            whole.windows(LAYOUT.len()).rposition(|bytes| bytes == LAYOUT.as_bytes()).expect("a layout") - 1;
        other[directory + LAYOUT.len()] ^= 1;
        let tail = whole.len() - TAIL as usize;
        let sum = crc32(&other[directory..tail]).to_le_bytes();
        other[tail + 8..tail + 12].copy_from_slice(&sum);
        assert!(parts(&path, &other).expect_err("of another commit").0.contains("another version of ansatz"));
        for length in 0..whole.len() {
            assert_eq!(parts(&path, &whole[..length]), Ok(None), "cut to {length}");
        }
        assert_eq!(parts(&path, &program), Ok(None));
    }
}
