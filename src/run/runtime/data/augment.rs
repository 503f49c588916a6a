//! Random changes of training samples: `augment.image = random_crop(32, pad = 4) -> random_flip(horizontal)`.
//!
//! Input: a prepared sample of sizes `[…, height, width]`. Output: a changed one.
//! Invariant: what happens to a sample depends on the run's seed, the epoch and the sample's number alone.
//! Held-out and test samples are only brought to the same size (a crop of the middle). Empty places are 0,
//! the mean of normalised data.

use super::arguments::{self, Arguments};
use super::random::Stream;
use crate::diagnostics::Diagnostic;
use crate::graph::DType;
use crate::settings::{FieldInfo, Literal, LiteralKind};

const NAMES: [&str; 6] = ["random_crop", "random_flip", "rotate", "zoom", "erase", "noise"];

/// Which way to mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mirror {
    /// Left and right change places.
    Horizontal,
    /// Top and bottom change places.
    Vertical,
}

/// A stage with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    /// `random_crop(32, pad = 4)`.
    Crop { height: usize, width: usize, pad: usize },
    /// `random_flip(horizontal, p = 0.5)`.
    Flip { mirror: Mirror, chance: f64 },
    /// `rotate(-10 deg, 10 deg)` about the middle, in radians, bilinear.
    Rotate { low: f64, high: f64 },
    /// `zoom(0.9, 1.1)` about the middle, bilinear; above 1 things grow.
    Zoom { low: f64, high: f64 },
    /// `erase(p = 0.5, area = 0.2)`: a rectangle of up to this part of the picture becomes 0 (Zhong et al. 2017).
    Erase { chance: f64, area: f64 },
    /// `noise(0.1)`: adds N(0, 0.1²) to every value.
    Noise { deviation: f64 },
}

/// Reads the stages of a field and brings its `info` to the size they give.
pub(super) fn parse(stages: &[Literal], info: &mut FieldInfo, problems: &mut Vec<Diagnostic>) -> Vec<Stage> {
    let mut parsed = Vec::new();
    for literal in stages {
        let Some(mut call) = Arguments::of(literal, "a stage of an augmentation", problems) else { continue };
        if let Some(stage) = parse_stage(&mut call, info) {
            call.finish();
            parsed.push(stage);
        }
    }
    parsed
}

fn parse_stage(call: &mut Arguments<'_, '_>, info: &mut FieldInfo) -> Option<Stage> {
    if !NAMES.contains(&call.name) {
        let diagnostic =
            Diagnostic::error("data-stage", call.span, format!("there is no augmentation `{}`", call.name));
        let diagnostic = arguments::suggest(diagnostic, call.name, &NAMES);
        call.problems.push(diagnostic);
        return None;
    }
    if info.dtype != DType::F32 {
        return call.refuse(
            format!("`{}` holds whole numbers, which cannot be augmented", info.name),
            "augment a field of floats",
        );
    }
    if call.name == "noise" {
        let deviation = call.number("std", Some(0));
        return call.require(deviation, "std", "noise(0.1)").map(|deviation| Stage::Noise { deviation });
    }
    let [.., height, width] = info.sizes[..] else {
        return call.refuse(
            format!("`{}` is no picture: its sizes are {:?}", info.name, info.sizes),
            "declare it [channels, height, width]",
        );
    };
    match call.name {
        "random_crop" => crop(call, info, height, width),
        "random_flip" => {
            let way = call.choice("way", Some(0), &["horizontal", "vertical"]);
            let way = call.require(way, "way", "random_flip(horizontal)")?;
            let chance = probability(call, 0.5)?;
            let mirror = if way == "horizontal" { Mirror::Horizontal } else { Mirror::Vertical };
            Some(Stage::Flip { mirror, chance })
        }
        "rotate" => {
            let (low, high) = range(call, "rotate(-10 deg, 10 deg)")?;
            if low.abs().max(high.abs()) > std::f64::consts::TAU {
                return call.refuse(
                    format!("{low} … {high} radians are more than a full turn"),
                    "write `rotate(-10 deg, 10 deg)`",
                );
            }
            Some(Stage::Rotate { low, high })
        }
        "zoom" => {
            let (low, high) = range(call, "zoom(0.9, 1.1)")?;
            if low <= 0.0 {
                return call.refuse(format!("a zoom by {low} leaves nothing"), "write `zoom(0.9, 1.1)`");
            }
            Some(Stage::Zoom { low, high })
        }
        _ => {
            let chance = probability(call, 0.5)?;
            let area = call.number("area", None).unwrap_or(0.2);
            if !(area > 0.0 && area <= 1.0) {
                return call.refuse(
                    format!("an area of {area} is not a part of the picture"),
                    "write `erase(p = 0.5, area = 0.2)`",
                );
            }
            Some(Stage::Erase { chance, area })
        }
    }
}

fn crop(call: &mut Arguments<'_, '_>, info: &mut FieldInfo, height: usize, width: usize) -> Option<Stage> {
    let size = call.take("size", Some(0));
    let size = call.require(size, "size", "random_crop(32, pad = 4)")?;
    let wanted: Vec<usize> = match &size.kind {
        LiteralKind::List(items) => {
            items.iter().map(|item| arguments::count(item, call.problems)).collect::<Option<_>>()?
        }
        _ => vec![arguments::count(size, call.problems)?; 2],
    };
    let pad = call.count("pad", None).unwrap_or(0);
    let [new_height, new_width] = wanted[..] else {
        return arguments::refused(size, "one size, or [height, width]", call.problems);
    };
    let fits = |new: usize, old: usize| new > 0 && new <= old.saturating_add(pad.saturating_mul(2));
    if !fits(new_height, height) || !fits(new_width, width) || pad > height.max(width) {
        let message =
            format!("a crop of {new_height} × {new_width} does not fit {height} × {width} with {pad} around it");
        call.problems.push(Diagnostic::error("data-value", size.span, message));
        return None;
    }
    let rank = info.sizes.len();
    info.sizes[rank - 2] = new_height;
    info.sizes[rank - 1] = new_width;
    Some(Stage::Crop { height: new_height, width: new_width, pad })
}

fn probability(call: &mut Arguments<'_, '_>, default: f64) -> Option<f64> {
    let chance = call.number("p", None).unwrap_or(default);
    if !(0.0..=1.0).contains(&chance) {
        return call.refuse(format!("{chance} is no probability"), "give `p` between 0 and 1");
    }
    Some(chance)
}

fn range(call: &mut Arguments<'_, '_>, example: &str) -> Option<(f64, f64)> {
    let low = call.number("low", Some(0));
    let high = call.number("high", Some(1));
    let low = call.require(low, "low", example)?;
    let high = call.require(high, "high", example)?;
    if low > high {
        return call.refuse(format!("the range {low} … {high} is empty"), "swap its ends");
    }
    Some((low, high))
}

/// A sample and a spare buffer of the same kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// The values, planes of `height × width`.
    pub values: Vec<f32>,
    /// Rows of a plane.
    pub height: usize,
    /// Columns of a plane.
    pub width: usize,
    spare: Vec<f32>,
}

/// Changes a training sample.
pub(super) fn augment(picture: &mut Picture, stages: &[Stage], stream: &mut Stream) {
    for stage in stages {
        match *stage {
            Stage::Crop { height, width, pad } => {
                let top = stream.below((picture.height + 2 * pad - height) as u32 + 1) as isize - pad as isize;
                let left = stream.below((picture.width + 2 * pad - width) as u32 + 1) as isize - pad as isize;
                picture.crop(height, width, top, left);
            }
            Stage::Flip { mirror, chance } => {
                if stream.unit() < chance {
                    picture.flip(mirror);
                }
            }
            Stage::Rotate { low, high } => {
                let angle = stream.uniform(low, high);
                picture.resample(libm::cos(angle), libm::sin(angle));
            }
            Stage::Zoom { low, high } => picture.resample(1.0 / stream.uniform(low, high), 0.0),
            Stage::Erase { chance, area } => {
                let (draw, part, aspect) =
                    (stream.unit(), stream.uniform(0.02f64.min(area), area), stream.uniform(-1.2, 1.2));
                let (down, right) = (stream.unit(), stream.unit());
                if draw < chance {
                    picture.erase(part, libm::exp(aspect), down, right);
                }
            }
            Stage::Noise { deviation } => {
                picture.values.iter_mut().for_each(|value| *value += (deviation * stream.normal()) as f32);
            }
        }
    }
}

/// Brings a sample that is not augmented to the size of those that are.
pub(super) fn fit_size(picture: &mut Picture, stages: &[Stage]) {
    for stage in stages {
        if let Stage::Crop { height, width, .. } = *stage {
            let top = (picture.height as isize - height as isize).div_euclid(2);
            let left = (picture.width as isize - width as isize).div_euclid(2);
            picture.crop(height, width, top, left);
        }
    }
}

impl Picture {
    fn swap(&mut self) {
        std::mem::swap(&mut self.values, &mut self.spare);
    }

    /// A window whose upper left corner is at (`top`, `left`); 0 outside the picture.
    fn crop(&mut self, height: usize, width: usize, top: isize, left: isize) {
        if (height, width, top, left) == (self.height, self.width, 0, 0) {
            return;
        }
        let planes = self.values.len() / (self.height * self.width);
        self.spare.clear();
        self.spare.resize(planes * height * width, 0.0);
        // Columns of the window that lie inside the picture.
        let first = (-left).clamp(0, width as isize) as usize;
        let last = (self.width as isize - left).clamp(0, width as isize) as usize;
        for plane in 0..planes {
            for row in 0..height {
                let from = row as isize + top;
                if from < 0 || from >= self.height as isize || first >= last {
                    continue;
                }
                let source = (plane * self.height + from as usize) * self.width;
                let source = (source as isize + left + first as isize) as usize;
                let target = (plane * height + row) * width;
                self.spare[target + first..target + last].copy_from_slice(&self.values[source..source + last - first]);
            }
        }
        (self.height, self.width) = (height, width);
        self.swap();
    }

    fn flip(&mut self, mirror: Mirror) {
        match mirror {
            Mirror::Horizontal => self.values.chunks_exact_mut(self.width).for_each(<[f32]>::reverse),
            Mirror::Vertical => {
                for plane in self.values.chunks_exact_mut(self.height * self.width) {
                    for row in 0..self.height / 2 {
                        let (upper, lower) = plane.split_at_mut((self.height - 1 - row) * self.width);
                        upper[row * self.width..][..self.width].swap_with_slice(&mut lower[..self.width]);
                    }
                }
            }
        }
    }

    /// Reads every place at `[[cosine, sine], [-sine, cosine]]` times its offset from the middle, bilinearly.
    fn resample(&mut self, cosine: f64, sine: f64) {
        let (middle_y, middle_x) = ((self.height - 1) as f64 / 2.0, (self.width - 1) as f64 / 2.0);
        self.spare.clear();
        self.spare.resize(self.values.len(), 0.0);
        let plane_size = self.height * self.width;
        for row in 0..self.height {
            let dy = row as f64 - middle_y;
            for column in 0..self.width {
                let dx = column as f64 - middle_x;
                let corners = self.corners(middle_y + cosine * dy + sine * dx, middle_x + cosine * dx - sine * dy);
                let planes = self.values.chunks_exact(plane_size).zip(self.spare.chunks_exact_mut(plane_size));
                for (from, to) in planes {
                    to[row * self.width + column] = corners.iter().map(|(place, weight)| weight * from[*place]).sum();
                }
            }
        }
        self.swap();
    }

    /// The four places around a point, and their weights; a place outside the picture weighs nothing.
    fn corners(&self, y: f64, x: f64) -> [(usize, f32); 4] {
        let floor = |value: f64| value as isize - isize::from(value < (value as isize) as f64);
        let (top, left) = (floor(y), floor(x));
        let (down, right) = ((y - top as f64) as f32, (x - left as f64) as f32);
        let corner = |row: isize, column: isize, weight: f32| {
            let inside = row >= 0 && row < self.height as isize && column >= 0 && column < self.width as isize;
            if inside { (row as usize * self.width + column as usize, weight) } else { (0, 0.0) }
        };
        [
            corner(top, left, (1.0 - down) * (1.0 - right)),
            corner(top, left + 1, (1.0 - down) * right),
            corner(top + 1, left, down * (1.0 - right)),
            corner(top + 1, left + 1, down * right),
        ]
    }

    /// Zeros a rectangle of `part` of the area and the given height over width; `down` and `right` place it.
    fn erase(&mut self, part: f64, aspect: f64, down: f64, right: f64) {
        let pixels = part * (self.height * self.width) as f64;
        let height = (libm::sqrt(pixels * aspect).round() as usize).clamp(1, self.height);
        let width = (libm::sqrt(pixels / aspect).round() as usize).clamp(1, self.width);
        let top = (down * (self.height - height + 1) as f64) as usize;
        let left = (right * (self.width - width + 1) as f64) as usize;
        for plane in self.values.chunks_exact_mut(self.height * self.width) {
            for row in top..top + height {
                plane[row * self.width + left..][..width].fill(0.0);
            }
        }
    }
}
