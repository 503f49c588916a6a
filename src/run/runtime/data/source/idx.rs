//! `idx(images = "…", labels = "…")`: the format of MNIST, plain or gzipped; without a class field, images alone.
//!
//! Layout: two zero bytes, the element type, the number of dims, each size as a big-endian u32, then the elements.
//! Source: <http://yann.lecun.com/exdb/mnist/>. The first dim counts the records.

use super::super::arguments::Arguments;
use super::super::error::{FileError, ReadError};
use super::super::field::Field;
use super::super::files::{self, Budget};
use super::super::table::{Column, Part, Values, sizes_text};
use super::{Context, Loaded, Roles, Source, refuse_values};
use crate::runtime::files::Place;

struct Idx {
    images: String,
    /// None where no field takes labels.
    labels: Option<String>,
    roles: Roles,
}

/// Reads the arguments.
pub(super) fn parse(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let example = "idx(images = \"train-images-idx3-ubyte.gz\", labels = \"train-labels-idx1-ubyte.gz\")";
    let images = call.text("images", None).map(str::to_string);
    let images = call.require(images, "images", example);
    let roles = Roles::of(call, fields);
    let mut labels = None;
    if roles.is_none_or(|roles| roles.label.is_some()) {
        labels = call.text("labels", None).map(str::to_string);
        labels = Some(call.require(labels, "labels", example)?);
    }
    refuse_values(call, fields);
    Some(Box::new(Idx { images: images?, labels, roles: roles? }))
}

impl Source for Idx {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let images_place = context.place(&self.images)?;
        let (image_count, images) = read(&images_place, context.budget)?;
        let Some(labels) = &self.labels else {
            return Ok(Part::new(vec![images], image_count).into());
        };
        let labels_place = context.place(labels)?;
        let (label_count, labels) = read(&labels_place, context.budget)?;
        if image_count != label_count {
            let message =
                format!("holds {label_count} labels for the {image_count} images of {}", images_place.path().display());
            return Err(FileError::new(labels_place.path(), message)
                .hint("name two files that belong together")
                .into());
        }
        Ok(self.roles.part(image_count, images, labels).into())
    }
}

/// The element types of the format.
#[derive(Clone, Copy)]
enum Kind {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        match code {
            0x08 => Some(Kind::U8),
            0x09 => Some(Kind::I8),
            0x0b => Some(Kind::I16),
            0x0c => Some(Kind::I32),
            0x0d => Some(Kind::F32),
            0x0e => Some(Kind::F64),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 => 1,
            Kind::I16 => 2,
            Kind::I32 | Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }

    fn values(self, bytes: Vec<u8>) -> Values {
        match self {
            Kind::U8 => Values::U8(bytes),
            Kind::I8 => Values::I32(bytes.iter().map(|&byte| i32::from(byte as i8)).collect()),
            Kind::I16 => {
                let pairs = bytes.as_chunks::<2>().0.iter();
                Values::I32(pairs.map(|pair| i32::from(i16::from_be_bytes(*pair))).collect())
            }
            Kind::I32 => Values::I32(bytes.as_chunks::<4>().0.iter().map(|word| i32::from_be_bytes(*word)).collect()),
            Kind::F32 => Values::F32(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_be_bytes(*word)).collect()),
            Kind::F64 => {
                Values::F32(bytes.as_chunks::<8>().0.iter().map(|word| f64::from_be_bytes(*word) as f32).collect())
            }
        }
    }
}

/// One file: how many records, and their values.
fn read(place: &Place, budget: &Budget) -> Result<(usize, Column), FileError> {
    let path = place.path();
    let mut reader = files::open(place)?;
    let mut magic = [0u8; 4];
    let got = files::read_up_to(&mut reader, &mut magic).map_err(|error| files::explain(path, &error))?;
    let kind = Kind::of(magic[2]).filter(|_| got == 4 && magic[0] == 0 && magic[1] == 0 && magic[3] > 0);
    let Some(kind) = kind else {
        let message = format!("is not an IDX file: it begins with {:02x?}", &magic[..got]);
        return Err(
            FileError::new(path, message).hint("an IDX file begins with 00 00, a type code and the number of dims")
        );
    };
    let mut sizes = Vec::new();
    for _ in 0..magic[3] {
        let mut size = [0u8; 4];
        let got = files::read_up_to(&mut reader, &mut size).map_err(|error| files::explain(path, &error))?;
        if got < 4 {
            return Err(FileError::new(path, "the header ends too early").hint("the file is truncated; fetch it again"));
        }
        sizes.push(u32::from_be_bytes(size) as usize);
    }
    let records = sizes.remove(0);
    let shown = sizes_text(&sizes);
    let elements = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let record_bytes = elements.and_then(|elements| elements.checked_mul(kind.bytes()));
    let total = record_bytes.and_then(|bytes| bytes.checked_mul(records));
    let (Some(record_bytes), Some(total)) = (record_bytes, total) else {
        let message = format!("the header claims {records} records of {shown}, more than can be addressed");
        return Err(FileError::new(path, message).hint("the header is damaged; fetch the file again"));
    };
    if record_bytes == 0 && records > 0 {
        let message = format!("the header claims {records} records of {shown}, which hold nothing");
        return Err(FileError::new(path, message).hint("the header is damaged; fetch the file again"));
    }
    // Grows with what is there; a header that claims too much costs nothing.
    let mut bytes = Vec::new();
    if let Err(error) = budget.read(&mut reader, total as u64, &mut bytes) {
        let place = format!("after {} of {records} records", bytes.len().checked_div(record_bytes).unwrap_or(0));
        return Err(files::explain(path, &error).at(place));
    }
    if bytes.len() < total {
        let complete = bytes.len().checked_div(record_bytes).unwrap_or(0);
        let message = format!("ends early: the header claims {records} records of {shown}");
        let error = FileError::new(path, message).at(format!("record {}", complete + 1));
        return Err(error.hint("the file is truncated; fetch it again"));
    }
    let surplus = files::read_up_to(&mut reader, &mut [0u8; 1]).map_err(|error| files::explain(path, &error))?;
    if surplus > 0 {
        return Err(FileError::new(path, format!("holds more than the {records} records of {shown} of its header")));
    }
    Ok((records, Column::new(sizes, kind.values(bytes), path)))
}
