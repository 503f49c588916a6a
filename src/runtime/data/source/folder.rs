//! `image_folder("pictures", size = [64, 64])`: PNG and JPEG files, a subfolder a class.
//!
//! Classes are the subfolders in sorted order; the names of a `test` folder's subfolders must be among the same classes.
//! With `size` pictures are resized (bilinearly), without it they must have the declared size.
//! Pictures become grey or red, green and blue by the declared number of channels.

use std::path::{Path, PathBuf};

use super::super::arguments::{self, Arguments};
use super::super::error::{FileError, ReadError};
use super::super::files::explain;
use super::super::settings::Field;
use super::super::table::{Column, Values};
use super::{Context, Loaded, Roles, Source, refuse_values};

struct Folder {
    path: String,
    /// Resize to the declared size.
    resize: bool,
    roles: Roles,
    channels: usize,
    height: usize,
    width: usize,
}

/// Reads the arguments.
pub(super) fn parse(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let path = call.text("path", Some(0)).map(str::to_string);
    let path = call.require(path, "path", "image_folder(\"pictures\", size = [64, 64])")?;
    let size = match call.take("size", None) {
        Some(literal) => Some((literal, arguments::numbers(literal, call.problems)?)),
        None => None,
    };
    refuse_values(call, fields);
    let roles = Roles::of(call, fields)?;
    let sample = roles.sample;
    let (channels, height, width) = match fields[sample].sizes[..] {
        [channels @ (1 | 3), height, width] => (channels, height, width),
        [height, width] => (1, height, width),
        _ => {
            let message =
                format!("`{}` cannot hold pictures: its sizes are {:?}", fields[sample].name, fields[sample].sizes);
            call.fail(message, "declare it `u8[3, height, width]` or `u8[1, height, width]`");
            return None;
        }
    };
    if let Some((literal, size)) = &size {
        let agrees = match size[..] {
            [side] => side == height as f64 && side == width as f64,
            [given_height, given_width] => given_height == height as f64 && given_width == width as f64,
            _ => false,
        };
        if !agrees {
            let wanted = format!("the declared size, [{height}, {width}]");
            call.problems.push(arguments::wrong(literal, &wanted));
            return None;
        }
    }
    Some(Box::new(Folder { path, resize: size.is_some(), roles, channels, height, width }))
}

impl Source for Folder {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let root = context.path(&self.path);
        let mut classes: Vec<PathBuf> = entries(&root)?.into_iter().filter(|path| path.is_dir()).collect();
        classes.sort_unstable();
        if classes.is_empty() {
            return Err(FileError::new(&root, "holds no subfolder")
                .hint("put the pictures of each class in a subfolder")
                .into());
        }
        let (mut pixels, mut words) = (Vec::new(), Vec::new());
        for class in &classes {
            let name = class.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
            let mut pictures: Vec<PathBuf> = entries(class)?.into_iter().filter(|path| is_picture(path)).collect();
            pictures.sort_unstable();
            if pictures.is_empty() {
                return Err(FileError::new(class, "holds no PNG or JPEG file")
                    .hint("remove the subfolder or fill it")
                    .into());
            }
            for path in pictures {
                self.picture(&path, &mut pixels)?;
                words.push(Some(name.clone()));
            }
        }
        let records = words.len();
        let elements = self.channels * self.height * self.width;
        let sizes = Some(vec![self.channels, self.height, self.width]);
        let images = Column { sizes, elements, values: Values::U8(pixels), missing_place: None, path: root.clone() };
        let values = Values::from_words(&words);
        let labels = Column { sizes: Some(Vec::new()), elements: 1, values, missing_place: None, path: root };
        Ok(self.roles.part(records, images, labels).into())
    }
}

impl Folder {
    /// Appends the bytes of a picture, plane by plane.
    fn picture(&self, path: &Path, pixels: &mut Vec<u8>) -> Result<(), FileError> {
        let damaged = |error: &dyn std::fmt::Display| {
            FileError::new(path, format!("cannot be decoded: {error}")).hint("replace or remove the file")
        };
        let reader = image::ImageReader::open(path).map_err(|error| explain(path, &error))?;
        let reader = reader.with_guessed_format().map_err(|error| explain(path, &error))?;
        // The decoder's own limits bound what a header can claim.
        let picture = reader.decode().map_err(|error| damaged(&error))?;
        let (width, height) = (self.width as u32, self.height as u32);
        let picture = match (picture.width(), picture.height()) == (width, height) {
            true => picture,
            false if self.resize => picture.resize_exact(width, height, image::imageops::FilterType::Triangle),
            false => {
                let message =
                    format!("is {} × {}, but {height} × {width} is declared", picture.height(), picture.width());
                return Err(FileError::new(path, message).hint(format!("say `size = [{height}, {width}]` to resize")));
            }
        };
        match self.channels {
            1 => pixels.extend_from_slice(picture.into_luma8().as_raw()),
            channels => {
                let interleaved = picture.into_rgb8().into_raw();
                for channel in 0..channels {
                    pixels.extend(interleaved.iter().skip(channel).step_by(channels));
                }
            }
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| explain_folder(folder, &error))? {
        paths.push(entry.map_err(|error| explain(folder, &error))?.path());
    }
    Ok(paths)
}

fn explain_folder(folder: &Path, error: &std::io::Error) -> FileError {
    match error.kind() {
        std::io::ErrorKind::NotADirectory => FileError::new(folder, "is a file, not a folder"),
        std::io::ErrorKind::NotFound => FileError::new(folder, "there is no such folder")
            .hint("relative paths start at the folder of the model file"),
        _ => explain(folder, error),
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
}
