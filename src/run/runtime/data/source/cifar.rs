//! `cifar_binary("cifar-10-batches-bin")`, `cifar_binary("cifar-100-binary", labels = fine)`: the CIFAR binary format.
//!
//! A record of CIFAR-10 is a label byte and 3 × 32 × 32 bytes, red plane first; one of CIFAR-100 has a coarse and a fine
//! label byte before them. Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.
//! A folder gives `data_batch_1.bin`, `data_batch_2.bin`, … (or `train.bin`) to train on and `test_batch.bin`
//! (or `test.bin`) for the test; a file, or a list of files, gives the records of those files.

use std::path::Path;

use super::super::arguments::{self, Arguments};
use super::super::error::{FileError, ReadError};
use super::super::field::Field;
use super::super::files::{self, Budget};
use super::super::table::{Column, Part, Values};
use super::{Context, Loaded, Roles, Source, refuse_values};
use crate::runtime::files::Place;
use crate::settings::LiteralKind;

/// Bytes of an image.
const IMAGE: usize = 3 * 32 * 32;

struct Cifar {
    paths: Vec<String>,
    labels: Labels,
    roles: Roles,
}

/// Which label bytes a record has, and which of them counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// CIFAR-10: one.
    One,
    /// CIFAR-100: the second of two.
    Fine,
    /// CIFAR-100: the first of two.
    Coarse,
}

impl Labels {
    fn bytes(self) -> usize {
        match self {
            Labels::One => 1,
            Labels::Fine | Labels::Coarse => 2,
        }
    }
}

/// Reads the arguments.
pub(super) fn parse(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let value = call.take("path", Some(0));
    let value = call.require(value, "path", "cifar_binary(\"cifar-10-batches-bin\")")?;
    let paths: Vec<String> = match &value.kind {
        LiteralKind::List(items) => {
            let texts = items.iter().map(|item| arguments::text(item, call.problems).map(str::to_string));
            texts.collect::<Option<_>>()?
        }
        _ => vec![arguments::text(value, call.problems)?.to_string()],
    };
    if paths.is_empty() {
        call.fail("the list of files is empty", "name at least one file");
    }
    let labels = match call.choice("labels", None, &["fine", "coarse"]) {
        Some("fine") => Labels::Fine,
        Some(_) => Labels::Coarse,
        None => Labels::One,
    };
    refuse_values(call, fields);
    let roles = Roles::of(call, fields)?;
    Some(Box::new(Cifar { paths, labels, roles }))
}

impl Source for Cifar {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let places = self.paths.iter().map(|path| context.place(path)).collect::<Result<Vec<Place>, FileError>>()?;
        let (train, test) = match places.as_slice() {
            [folder] if folder.is_folder() => self.folder(folder)?,
            _ => (places, None),
        };
        let main = self.part(&train, context.budget)?;
        let test = test.map(|place| self.part(&[place], context.budget)).transpose()?;
        Ok(Loaded { main, test })
    }
}

impl Cifar {
    /// Training files and the test file of a folder.
    fn folder(&self, folder: &Place) -> Result<(Vec<Place>, Option<Place>), FileError> {
        let (train, test) = match self.labels {
            Labels::One => {
                let numbered = (1..).map(|number| folder.join(format!("data_batch_{number}.bin")));
                (numbered.take_while(Place::exists).collect::<Vec<_>>(), folder.join("test_batch.bin"))
            }
            Labels::Fine | Labels::Coarse => (vec![folder.join("train.bin")], folder.join("test.bin")),
        };
        let gap = folder.join(format!("data_batch_{}.bin", train.len() + 2));
        if self.labels == Labels::One && gap.exists() {
            return Err(FileError::new(gap.path(), format!("is there, but data_batch_{}.bin is not", train.len() + 1)));
        }
        if train.is_empty() {
            let error = FileError::new(folder.path(), "holds no data_batch_1.bin");
            return Err(match folder.join("train.bin").exists() {
                true => error.hint("this looks like CIFAR-100: say `labels = fine` or `labels = coarse`"),
                false => error.hint("unpack cifar-10-binary.tar.gz and name its folder"),
            });
        }
        let test = test.exists().then_some(test);
        Ok((train, test))
    }

    fn part(&self, places: &[Place], budget: &Budget) -> Result<Part, FileError> {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let record = self.labels.bytes() + IMAGE;
        for place in places {
            let path = place.path();
            let bytes = files::read_all(place, budget)?;
            if bytes.len() % record != 0 {
                let message = format!("ends after {} of {record} bytes", bytes.len() % record);
                let error = FileError::new(path, message).at(format!("record {}", bytes.len() / record + 1));
                return Err(error.hint(match self.labels {
                    Labels::One if bytes.len().is_multiple_of(2 + IMAGE) => {
                        "this looks like CIFAR-100: say `labels = fine` or `labels = coarse`"
                    }
                    _ => "the file is truncated or of another format; fetch it again",
                }));
            }
            for (index, bytes) in bytes.chunks_exact(record).enumerate() {
                let (label, limit) = match self.labels {
                    Labels::One => (bytes[0], 10),
                    Labels::Coarse => (bytes[0], 20),
                    Labels::Fine => (bytes[1], 100),
                };
                if label >= limit {
                    let error =
                        FileError::new(path, format!("the label is {label}, but this format has labels below {limit}"));
                    let error = error.at(format!("record {}", index + 1));
                    return Err(error.hint("the file is damaged or of another format; CIFAR-100 needs `labels = fine`"));
                }
                labels.push(label);
                images.extend_from_slice(&bytes[self.labels.bytes()..]);
            }
        }
        let records = labels.len();
        let path = places.first().map_or(Path::new(""), Place::path);
        let column = |sizes: Vec<usize>, values| Column::new(sizes, Values::U8(values), path);
        let (images, labels) = (column(vec![3, 32, 32], images), column(Vec::new(), labels));
        Ok(self.roles.part(records, images, labels))
    }
}
