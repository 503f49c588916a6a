//! Reading the files of an item, plain or gzipped.
//!
//! Input: a place. Output: a reader or bytes, or a [`FileError`] with a way out.
//! Invariant: what is kept is bounded by what the files hold and by the item's [`Budget`], never by what a header claims.

use std::cell::Cell;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::error::{FileError, RELATIVE};
use crate::runtime::files::Place;
use crate::runtime::memory;
use crate::source::bytes_text;

/// The first bytes of a gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The bytes that the sources of one item may keep in memory, all together.
pub(super) struct Budget {
    whole: u64,
    left: Cell<u64>,
}

impl Budget {
    /// As much as the machine has room for.
    pub(super) fn of_memory() -> Self {
        Self::new(memory::for_contents())
    }

    pub(super) fn new(bytes: u64) -> Self {
        Self { whole: bytes, left: Cell::new(bytes) }
    }

    /// Counts bytes that are kept.
    ///
    /// # Errors
    /// Where they are more than are left.
    pub(super) fn keep(&self, bytes: u64) -> io::Result<()> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                let most = bytes_text(self.whole);
                let words =
                    format!("holds more than fits: the data of an item may take {most}, a third of the free memory");
                Err(io::Error::new(io::ErrorKind::FileTooLarge, words))
            }
        }
    }

    /// Appends at most `length` bytes of a reader, and keeps them.
    ///
    /// # Errors
    /// What reading gives, and more bytes than are left.
    pub(super) fn read(&self, reader: &mut dyn Read, length: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let before = bytes.len();
        let end = reader.take(length.min(self.left.get().saturating_add(1))).read_to_end(bytes);
        self.keep((bytes.len() - before) as u64)?;
        end.map(|_| ())
    }
}

/// Opens a file; decompresses on the fly where it begins like a gzip file.
pub(super) fn open(place: &Place) -> Result<Box<dyn Read>, FileError> {
    let explain = |error: io::Error| explain(place.path(), &error);
    let mut file = place.open().map_err(explain)?;
    let mut head = [0u8; 2];
    let length = read_up_to(&mut file, &mut head).map_err(explain)?;
    file.seek(SeekFrom::Start(0)).map_err(explain)?;
    let reader = BufReader::with_capacity(1 << 16, file);
    if length == 2 && head == GZIP_MAGIC {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}

/// What another program writes into this one.
pub(super) fn standard_input() -> Box<dyn Read> {
    Box::new(BufReader::with_capacity(1 << 16, io::stdin()))
}

/// The whole file, decompressed where it is gzipped.
pub(super) fn read_all(place: &Place, budget: &Budget) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let end = budget.read(&mut open(place)?, u64::MAX, &mut bytes);
    end.map_err(|error| explain(place.path(), &error))?;
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

/// A reader that gives at most so many bytes until it is told to go on.
pub(super) struct Portions<R> {
    inner: R,
    left: u64,
    portion: u64,
}

impl<R: Read> Portions<R> {
    pub(super) fn new(inner: R, portion: u64) -> Self {
        Self { inner, left: portion, portion }
    }

    /// Starts the next portion.
    pub(super) fn go_on(&mut self) {
        self.left = self.portion;
    }
}

impl<R: Read> Read for Portions<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let words = format!("a record is longer than {}, the most that is read of one", bytes_text(self.portion));
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Words for an error of the operating system or of the decompressor.
pub(super) fn explain(path: &Path, error: &io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound => FileError::new(path, "there is no such file").hint(RELATIVE),
        io::ErrorKind::IsADirectory => FileError::new(path, "is a folder, not a file").hint("name a file inside it"),
        io::ErrorKind::CrossesDevices => FileError::new(path, error.to_string()).hint(ELSEWHERE),
        io::ErrorKind::FileTooLarge
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::OutOfMemory
        | io::ErrorKind::Unsupported => FileError::new(path, error.to_string()),
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

/// The way out for data that lie outside of the project.
pub(super) const ELSEWHERE: &str =
    "data elsewhere are read with `--set data.folder=FOLDER`; paths then start at FOLDER";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_its_size_is_told() {
        let budget = Budget::new(10 << 20);
        let mut bytes = Vec::new();
        budget.read(&mut io::repeat(7), 6 << 20, &mut bytes).expect("fits");
        assert_eq!(bytes.len(), 6 << 20);
        let error = budget.read(&mut io::repeat(7), u64::MAX, &mut bytes).expect_err("endless");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("10.0 MiB"), "{error}");
        assert!(bytes.len() <= (10 << 20) + 1, "no more is read than tells that it is too much");
        budget.keep(4 << 20).expect("what was refused is not counted");
        budget.keep(1).expect_err("nothing is left");
    }

    #[test]
    fn a_portion_ends_until_the_next_is_asked_for() {
        let mut reader = Portions::new(io::repeat(7), 5);
        let mut buffer = [0; 8];
        assert_eq!(
            read_up_to(&mut reader, &mut buffer).map_err(|error| error.kind()),
            Err(io::ErrorKind::FileTooLarge)
        );
        reader.go_on();
        assert_eq!(reader.read(&mut buffer).expect("the next portion"), 5);
    }
}
