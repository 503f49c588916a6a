//! Opening files, plain or gzipped.
//!
//! Input: a path. Output: a reader or bytes, or a [`FileError`] with a way out.
//! Invariant: what is read is bounded by what the file holds, never by what a header claims.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::error::FileError;

/// The first bytes of a gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Opens a file; decompresses on the fly where it begins like a gzip file.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, FileError> {
    let metadata = std::fs::metadata(path).map_err(|error| explain(path, &error))?;
    if metadata.is_dir() {
        return Err(FileError::new(path, "is a folder, not a file").hint("name a file inside it"));
    }
    let mut file = File::open(path).map_err(|error| explain(path, &error))?;
    let mut head = [0u8; 2];
    let length = read_up_to(&mut file, &mut head).map_err(|error| explain(path, &error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| explain(path, &error))?;
    let reader = BufReader::with_capacity(1 << 16, file);
    if length == 2 && head == GZIP_MAGIC {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}

/// The whole file, decompressed where it is gzipped.
pub(super) fn read_all(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| explain(path, &error))?;
    Ok(bytes)
}

/// Reads until the buffer is full or the data end; returns how much was read.
pub(super) fn read_up_to(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Words for an error of the operating system or of the decompressor.
pub(super) fn explain(path: &Path, error: &io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            FileError::new(path, "there is no such file").hint("relative paths start at the folder of the model file")
        }
        io::ErrorKind::PermissionDenied => FileError::new(path, "may not be read").hint("check its permissions"),
        io::ErrorKind::UnexpectedEof => {
            FileError::new(path, "the compressed data end too early").hint("the file is truncated; fetch it again")
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            FileError::new(path, format!("the data are damaged: {error}")).hint("fetch the file again")
        }
        _ => FileError::new(path, format!("cannot be read: {error}")),
    }
}
