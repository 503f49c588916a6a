//! `image_folder("pictures", size = [64, 64])`: PNG and JPEG files, a subfolder a class.
//!
//! Classes are the subfolders in sorted order; the names of a `test` folder's subfolders must be among the same classes.
//! Of new data the label is not read, so loose pictures, class folders and a single picture are all welcome.
//! With `size` pictures are resized (bilinearly), without it they must have the declared size.
//! Pictures become grey or red, green and blue by the declared number of channels.

use std::io::ErrorKind;

use super::super::arguments::{self, Arguments};
use super::super::error::{FileError, RELATIVE, ReadError};
use super::super::field::Field;
use super::super::files::explain;
use super::super::table::{Column, Places, Values};
use super::picture::{MOST_PIXELS, Picture, Trouble};
use super::{Context, Loaded, Role, Roles, Source, refuse_values};
use crate::runtime::files::{self, Place};
use crate::runtime::memory;
use crate::source::bytes_text;

/// Bytes of a picture's file.
const LARGEST_FILE: u64 = 256 << 20;

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
            return call.refuse(message, "declare it `u8[3, height, width]` or `u8[1, height, width]`");
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
            return arguments::refused(literal, &wanted, call.problems);
        }
    }
    Some(Box::new(Folder { path, resize: size.is_some(), roles, channels, height, width }))
}

impl Source for Folder {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let root = context.place(&self.path)?;
        let found = match context.role {
            Role::Input => any_pictures(root.clone())?,
            Role::Train | Role::Valid | Role::Test => class_folders(&root)?,
        };
        let mut pixels = Vec::new();
        let elements = self.channels * self.height * self.width;
        let most = memory::for_contents();
        for (picture, _) in &found.pictures {
            context.budget.keep(elements as u64).map_err(|error| explain(picture.path(), &error))?;
            self.picture(picture, most, &mut pixels)?;
        }
        let sizes = vec![self.channels, self.height, self.width];
        let images = Column::new(sizes, Values::U8(pixels), root.path());
        let words: Vec<Option<String>> = found.pictures.iter().map(|(_, class)| class.clone()).collect();
        let labels = Column::new(Vec::new(), Values::from_words(&words), root.path());
        let mut part = self.roles.part(found.pictures.len(), images, labels);
        let names = found.pictures.iter().map(|(picture, _)| picture.path().display().to_string());
        part.places = Places::files(names.collect());
        part.unused = found.others;
        Ok(part.into())
    }
}

/// The pictures of a folder with the names of their classes, and the other files in it.
struct Found {
    pictures: Vec<(Place, Option<String>)>,
    others: Vec<String>,
}

/// Every picture in a class folder, by class and name.
fn class_folders(root: &Place) -> Result<Found, FileError> {
    let (classes, loose): (Vec<Place>, Vec<Place>) = entries(root)?.into_iter().partition(Place::is_folder);
    if classes.is_empty() {
        let error = FileError::new(root.path(), "holds no subfolder");
        return Err(error.hint("put the pictures of each class in a subfolder"));
    }
    if let Some(picture) = loose.iter().find(|place| is_picture(place)) {
        let error = FileError::new(picture.path(), "lies in no class folder");
        return Err(error.hint("move it into the folder of its class"));
    }
    let mut pictures = Vec::new();
    for class in classes {
        let before = pictures.len();
        let Some(name) = class.path().file_name().and_then(std::ffi::OsStr::to_str) else {
            let error =
                FileError::new(class.path(), "has a name that is not UTF-8 text, and classes go by their names");
            return Err(error.hint("rename the subfolder"));
        };
        let own = entries(&class)?.into_iter().filter(is_picture);
        pictures.extend(own.map(|picture| (picture, Some(name.to_string()))));
        if pictures.len() == before {
            let error = FileError::new(class.path(), "holds no PNG or JPEG file");
            return Err(error.hint("remove the subfolder or fill it"));
        }
    }
    Ok(Found { pictures, others: Vec::new() })
}

/// The picture of this name; or all pictures of a folder, then those of each subfolder.
fn any_pictures(root: Place) -> Result<Found, FileError> {
    if !root.is_folder() {
        return Ok(Found { pictures: vec![(root, None)], others: Vec::new() });
    }
    let mut found = Found { pictures: Vec::new(), others: Vec::new() };
    let (folders, mut files): (Vec<Place>, Vec<Place>) = entries(&root)?.into_iter().partition(Place::is_folder);
    for folder in folders {
        files.extend(entries(&folder)?);
    }
    for place in files {
        match is_picture(&place) {
            true => found.pictures.push((place, None)),
            false => {
                let below = place.path().strip_prefix(root.path()).unwrap_or(place.path());
                found.others.push(below.display().to_string());
            }
        }
    }
    match found.pictures.is_empty() {
        true => Err(FileError::new(root.path(), "holds no PNG or JPEG file, and no folder with one")),
        false => Ok(found),
    }
}

impl Folder {
    /// Appends the bytes of a picture, plane by plane; decoding it may take `most` bytes.
    fn picture(&self, place: &Place, most: u64, pixels: &mut Vec<u8>) -> Result<(), FileError> {
        let path = place.path();
        let bytes = place.open().and_then(|file| files::read_all(file, LARGEST_FILE));
        let picture =
            Picture::decode(&bytes.map_err(|error| explain(path, &error))?, most).map_err(|trouble| match trouble {
                Trouble::TooLarge(height, width) => {
                    let message = format!("is {height} × {width}, more than the {MOST_PIXELS} pixels that are decoded");
                    FileError::new(path, message).hint("make the picture smaller")
                }
                Trouble::NoRoom(bytes) => {
                    let (bytes, most) = (bytes_text(bytes), bytes_text(most));
                    let message = format!("takes {bytes} to decode, and a third of the free memory is {most}");
                    FileError::new(path, message).hint("make the picture smaller")
                }
                Trouble::Damaged(words) => {
                    FileError::new(path, format!("cannot be decoded: {words}")).hint("replace or remove the file")
                }
            })?;
        let (height, width) = (self.height, self.width);
        if !self.resize && (picture.height, picture.width) != (height, width) {
            let message = format!("is {} × {}, but {height} × {width} is declared", picture.height, picture.width);
            return Err(FileError::new(path, message).hint(format!("say `size = [{height}, {width}]` to resize")));
        }
        picture.append_planes(self.channels, height, width, pixels);
        Ok(())
    }
}

/// What a folder holds, in the order of the names.
fn entries(folder: &Place) -> Result<Vec<Place>, FileError> {
    folder.entries().map_err(|error| match error.kind() {
        ErrorKind::NotFound => FileError::new(folder.path(), "there is no such folder").hint(RELATIVE),
        _ => explain(folder.path(), &error),
    })
}

fn is_picture(place: &Place) -> bool {
    let extension = place.path().extension().map(|extension| extension.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
}
