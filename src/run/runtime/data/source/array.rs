//! `npy(image = "x.npy", label = "y.npy")` and `npz("data.npz", image = "x_train", label = "y_train")`: NumPy arrays.
//!
//! The first dim counts the records. The arguments' names are the fields'; in an archive a field takes the array of its
//! own name where nothing else is said.
//! Format: NumPy enhancement proposal 1. The header is read here by hand, since its sizes must be checked against the
//! length of the data before anything is allocated or multiplied.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchiveEntryWayfinder, ZipSliceArchive};

use super::super::arguments::Arguments;
use super::super::error::{FileError, ReadError};
use super::super::field::Field;
use super::super::files::{self, Budget};
use super::super::table::{Column, MISSING, Part, Values, sizes_text};
use super::{Context, Loaded, Source, refuse_values};
use crate::diagnostics::suggest::nearest;
use crate::runtime::files::half_to_f32;
use crate::source::shortened;

/// One file per field.
struct Npy {
    paths: Vec<String>,
}

/// One archive, one array per field.
struct Npz {
    path: String,
    arrays: Vec<String>,
}

/// Reads the arguments of `npy`.
pub(super) fn parse_npy(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    refuse_values(call, fields);
    let mut paths = Vec::new();
    for field in fields {
        let path = call.text_of_field(&field.name);
        paths.push(call.require(path, &field.name, &format!("npy({} = \"{}.npy\")", field.name, field.name))?);
    }
    Some(Box::new(Npy { paths }))
}

/// Reads the arguments of `npz`.
pub(super) fn parse_npz(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    refuse_values(call, fields);
    let path = call.text("path", Some(0)).map(str::to_string);
    let path = call.require(path, "path", "npz(\"data.npz\")")?;
    let arrays = fields.iter().map(|field| call.text_of_field(&field.name).unwrap_or_else(|| field.name.clone()));
    Some(Box::new(Npz { path, arrays: arrays.collect() }))
}

impl Source for Npy {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let mut arrays = Vec::new();
        for path in &self.paths {
            let place = context.place(path)?;
            arrays.push(read_array(&mut files::open(&place)?, place.path(), context.budget)?);
        }
        together(arrays, context.fields)
    }
}

impl Source for Npz {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let place = context.place(&self.path)?;
        let path = place.path();
        let damaged = |error: &dyn std::fmt::Display| {
            FileError::new(path, format!("is not a NumPy archive: {error}")).hint("write it with `numpy.savez`")
        };
        let bytes = files::read_all(&place, context.budget)?;
        let archive = Archive::of(&bytes).map_err(|error| damaged(&error))?;
        let mut arrays = Vec::new();
        for name in &self.arrays {
            let Some(found) = archive.arrays.get(name) else {
                let hint = match nearest(name, archive.arrays.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{}\"?", shortened(near, NAME_SHOWN)),
                    None => {
                        let names = archive.arrays.keys().take(12).map(|name| shortened(name, NAME_SHOWN));
                        let more = if archive.arrays.len() > 12 { ", …" } else { "" };
                        format!("its arrays are: {}{more}", names.collect::<Vec<_>>().join(", "))
                    }
                };
                return Err(FileError::new(path, format!("holds no array \"{name}\"")).hint(hint).into());
            };
            let mut reader = archive.open(*found).map_err(|error| damaged(&error))?;
            let array = read_array(&mut reader, path, context.budget);
            arrays.push(array.map_err(|error| error.at(format!("array \"{name}\"")))?);
        }
        together(arrays, context.fields)
    }
}

/// A ZIP archive of arrays, as `numpy.savez` and `numpy.savez_compressed` write it.
struct Archive<'b> {
    file: ZipSliceArchive<&'b [u8]>,
    /// Where each array lies and how it is compressed.
    arrays: BTreeMap<String, (CompressionMethod, ZipArchiveEntryWayfinder)>,
}

impl<'b> Archive<'b> {
    fn of(bytes: &'b [u8]) -> Result<Self, String> {
        let file = rawzip::ZipArchive::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut arrays = BTreeMap::new();
        let mut entries = file.entries();
        while let Some(entry) = entries.next_entry().map_err(|error| error.to_string())? {
            let name =
                std::str::from_utf8(entry.file_path().as_bytes()).ok().and_then(|name| name.strip_suffix(".npy"));
            if let Some(name) = name {
                let before = arrays.insert(name.to_string(), (entry.compression_method(), entry.wayfinder()));
                if before.is_some() {
                    return Err(format!("it holds two arrays \"{}\"", shortened(name, NAME_SHOWN)));
                }
            }
        }
        Ok(Self { file, arrays })
    }

    /// The bytes of an array, decompressed as they are read; the last read compares their checksum.
    fn open(
        &self,
        (method, place): (CompressionMethod, ZipArchiveEntryWayfinder),
    ) -> Result<Box<dyn Read + '_>, String> {
        let entry = self.file.get_entry(place).map_err(|error| error.to_string())?;
        match method {
            CompressionMethod::STORE => Ok(Box::new(entry.verifying_reader(entry.data()))),
            CompressionMethod::DEFLATE => Ok(Box::new(entry.verifying_reader(DeflateDecoder::new(entry.data())))),
            other => Err(format!("its arrays are compressed by method {other:?}, which is not NumPy's")),
        }
    }
}

/// Arrays of the same number of records.
fn together(arrays: Vec<(usize, Column)>, fields: &[Field]) -> Result<Loaded, ReadError> {
    let records = arrays.first().map_or(0, |(records, _)| *records);
    for ((count, column), field) in arrays.iter().zip(fields) {
        if *count != records {
            let message = format!("`{}` has {count} records, but `{}` has {records}", field.name, fields[0].name);
            return Err(FileError::new(&column.path, message).hint("the first dim counts the records").into());
        }
    }
    Ok(Part::new(arrays.into_iter().map(|(_, column)| column).collect(), records).into())
}

/// How many characters of an array's name, type or shape a message shows.
const NAME_SHOWN: usize = 80;

/// Headers of NumPy are at most a few hundred bytes long.
const HEADER_LIMIT: usize = 1 << 16;

fn read_array(reader: &mut dyn Read, path: &Path, budget: &Budget) -> Result<(usize, Column), FileError> {
    let damaged = |what: &str| FileError::new(path, what.to_string()).hint("write it with `numpy.save`");
    let mut fetch = |length: usize| {
        // Grows with what is there; a header that claims too much costs nothing.
        let mut bytes = Vec::new();
        budget.read(reader, length as u64, &mut bytes).map_err(|error| files::explain(path, &error))?;
        Ok(bytes)
    };
    let head = fetch(8)?;
    if head.len() < 8 || &head[..6] != b"\x93NUMPY" {
        return Err(damaged("is not a NumPy array: it does not begin with \\x93NUMPY"));
    }
    if !(1..=3).contains(&head[6]) {
        return Err(damaged(&format!("is of version {} of NumPy's format, not 1 to 3", head[6])));
    }
    let length = match (head[6], fetch(if head[6] == 1 { 2 } else { 4 })?.as_slice()) {
        (1, &[a, b]) => usize::from(u16::from_le_bytes([a, b])),
        (_, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => return Err(damaged("the header ends too early")),
    };
    let text = fetch(length.min(HEADER_LIMIT))?;
    if text.len() < length {
        return Err(damaged("the header ends too early or is too long"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| damaged("the header is not text"))?;
    let header = Header::parse(text).map_err(|what| damaged(&what))?;
    let Some((&records, sizes)) = header.shape.split_first() else {
        return Err(damaged("holds a single number; the first dim must count the records"));
    };
    let shown = sizes_text(&header.shape);
    let elements = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let needed = elements.and_then(|elements| elements.checked_mul(records)?.checked_mul(header.kind.bytes()));
    let (Some(elements), Some(needed)) = (elements, needed) else {
        return Err(damaged(&format!("claims a shape of {shown}, more than can be addressed")));
    };
    if elements == 0 && records > 0 {
        return Err(damaged(&format!("claims a shape of {shown}, whose records hold nothing")));
    }
    let data = fetch(needed.saturating_add(1))?;
    if data.len() != needed {
        let found = if data.len() > needed { "more".to_string() } else { data.len().to_string() };
        let message = format!("holds {found} bytes of data, but its shape {shown} needs {needed}");
        let complete = (data.len() / header.kind.bytes()).checked_div(elements).unwrap_or(0);
        return Err(damaged(&message).at(format!("record {}", complete.min(records) + 1)));
    }
    let values = header.kind.values(&data, header.big_endian).map_err(|(place, value)| {
        let record = place.checked_div(elements).unwrap_or(0) + 1;
        FileError::new(path, format!("{value} does not fit 32 bits")).at(format!("record {record}"))
    })?;
    Ok((records, Column::new(sizes.to_vec(), values, path)))
}

/// Element types.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Signed(usize),
    Unsigned(usize),
    Float(usize),
}

struct Header {
    kind: Kind,
    big_endian: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Self, String> {
        let after = |key: &str| {
            let start = text.find(&format!("'{key}':")).map(|start| start + key.len() + 3);
            start.map(|start| text[start..].trim_start()).ok_or_else(|| format!("the header says no `{key}`"))
        };
        let descr = after("descr")?;
        let descr = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
        let descr = descr.ok_or("holds records of several types; save one array per field")?;
        let named = shortened(descr, NAME_SHOWN);
        let mut code = descr.chars();
        let (order, code) = (code.next(), code.as_str());
        if !matches!(order, Some('<' | '>' | '|' | '=')) {
            return Err(format!("has elements of type `{named}`, which says no order of bytes"));
        }
        let kind = match code {
            "b1" => Kind::Bool,
            "i1" => Kind::Signed(1),
            "i2" => Kind::Signed(2),
            "i4" => Kind::Signed(4),
            "i8" => Kind::Signed(8),
            "u1" => Kind::Unsigned(1),
            "u2" => Kind::Unsigned(2),
            "u4" => Kind::Unsigned(4),
            "u8" => Kind::Unsigned(8),
            "f2" => Kind::Float(2),
            "f4" => Kind::Float(4),
            "f8" => Kind::Float(8),
            _ => return Err(format!("has elements of type `{named}`; save them as u1, i4, i8, f4 or f8")),
        };
        let shape = after("shape")?.strip_prefix('(').and_then(|rest| rest.split(')').next());
        let shape = shape.ok_or("the header has no shape in parentheses")?;
        let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
        let dims: Result<Vec<usize>, _> = dims.map(|dim| dim.trim_end_matches('L').parse()).collect();
        let shape =
            dims.map_err(|_| format!("the shape ({}) is not a list of whole numbers", shortened(shape, NAME_SHOWN)))?;
        let by_columns = after("fortran_order")?;
        if !by_columns.starts_with("True") && !by_columns.starts_with("False") {
            return Err("the header's `fortran_order` is neither True nor False".to_string());
        }
        if by_columns.starts_with("True") && shape.iter().filter(|size| **size > 1).count() > 1 {
            return Err("is stored column by column; save it with `numpy.ascontiguousarray`".to_string());
        }
        Ok(Self { kind, big_endian: order == Some('>'), shape })
    }
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Kind::Bool => 1,
            Kind::Signed(bytes) | Kind::Unsigned(bytes) | Kind::Float(bytes) => bytes,
        }
    }

    /// The elements in 32 bits; the error is the place and value of an integer that does not fit.
    fn values(self, data: &[u8], big_endian: bool) -> Result<Values, (usize, i128)> {
        let width = self.bytes();
        let words = data.chunks_exact(width).map(|bytes| {
            let mut word = [0u8; 8];
            word[..width].copy_from_slice(bytes);
            if big_endian {
                word[..width].reverse();
            }
            u64::from_le_bytes(word)
        });
        let fitting = |(place, value): (usize, i128)| match i32::try_from(value) {
            Ok(value) if value != MISSING => Ok(value),
            _ => Err((place, value)),
        };
        match self {
            Kind::Bool | Kind::Unsigned(1) => Ok(Values::U8(data.to_vec())),
            Kind::Unsigned(_) => {
                words.map(i128::from).enumerate().map(fitting).collect::<Result<_, _>>().map(Values::I32)
            }
            Kind::Signed(_) => {
                // Shifting the sign bit to the top and back extends it.
                let spare = 64 - 8 * width as u32;
                let signed = words.map(|word| i128::from(((word << spare) as i64) >> spare));
                signed.enumerate().map(fitting).collect::<Result<_, _>>().map(Values::I32)
            }
            Kind::Float(2) => Ok(Values::F32(words.map(|word| half_to_f32(word as u16)).collect())),
            Kind::Float(4) => Ok(Values::F32(words.map(|word| f32::from_bits(word as u32)).collect())),
            Kind::Float(_) => Ok(Values::F32(words.map(|word| f64::from_bits(word) as f32).collect())),
        }
    }
}
