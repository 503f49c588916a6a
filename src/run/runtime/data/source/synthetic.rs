//! Samples made up on the spot: `spirals(…)`, `regression(…)`, `random_images(…)`, `random(…)`.
//!
//! Invariant: the samples depend on the seed (the source's own, else the run's) and on the split that they are for;
//! a `test` of the same source has other samples of the same distribution.

use super::super::arguments::Arguments;
use super::super::error::ReadError;
use super::super::field::{Element, Field};
use super::super::random::{Purpose, Stream, normals};
use super::super::table::{Column, Part, Values};
use super::{Context, Loaded, Role, Roles, Source, refuse_values};

/// At most this many numbers are made up for one field (4 GiB of floats).
const LIMIT: usize = 1 << 30;

/// Interleaved arms in the plane, a class an arm; after CS231n's "Minimal neural network case study".
struct Spirals {
    classes: usize,
    points: usize,
    noise: f64,
    seed: Option<u64>,
    roles: Roles,
}

/// y = x · w + b + noise with x and w standard normal.
struct Regression {
    samples: usize,
    noise: f64,
    seed: Option<u64>,
}

/// Fields that have nothing to do with each other: standard normal floats, uniform bytes, classes and integers.
struct Random {
    samples: usize,
    seed: Option<u64>,
    /// Integers are 0 to `below - 1`.
    below: u32,
}

/// Pictures of a random shade per class under random pixels.
struct RandomImages {
    samples: usize,
    seed: Option<u64>,
    roles: Roles,
}

/// Reads the arguments of `spirals`: points per arm, noise as the deviation of the angle in radians.
pub(super) fn parse_spirals(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let classes = call.count("classes", Some(0));
    let classes = call.require(classes, "classes", "spirals(classes = 3, points = 300, noise = 0.1)")?;
    let points = call.count("points", Some(1)).unwrap_or(100);
    let noise = call.number("noise", Some(2)).unwrap_or(0.2);
    let seed = call.count("seed", None).map(|seed| seed as u64);
    refuse_values(call, fields);
    let roles = Roles::of(call, fields)?;
    if fields[roles.sample].sizes != [2] {
        call.fail(
            format!("`{}` must be f32[2]: a point of the plane", fields[roles.sample].name),
            "declare it `f32[2]`",
        );
    }
    if let Some(label) = roles.label
        && fields[label].element != Element::Class(classes)
    {
        call.fail(format!("`{}` must be class[{classes}]", fields[label].name), "declare as many classes as arms");
    }
    bounded(call, classes, points)?;
    Some(Box::new(Spirals { classes, points, noise, seed, roles }))
}

/// Reads the arguments of `regression`; the features are the first field's elements, the second field is the target.
pub(super) fn parse_regression(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let samples = call.count("samples", Some(0));
    let samples = call.require(samples, "samples", "regression(samples = 1000, noise = 0.1)")?;
    let features = call.count("features", None);
    let noise = call.number("noise", None).unwrap_or(0.1);
    let seed = call.count("seed", None).map(|seed| seed as u64);
    refuse_values(call, fields);
    let [inputs, target] = fields else {
        return call
            .refuse("`regression` gives two fields: features and targets", "declare `x: f32[8]` and `y: f32[1]`");
    };
    if inputs.element != Element::F32 || target.element != Element::F32 {
        call.fail("`regression` gives floats", "declare both fields f32");
    }
    if features.is_some_and(|features| features != inputs.elements()) {
        call.fail(
            format!("`{}` has {} features", inputs.name, inputs.elements()),
            "let `features` agree, or leave it out",
        );
    }
    bounded(call, samples, inputs.elements().max(target.elements()))?;
    Some(Box::new(Regression { samples, noise, seed }))
}

/// Reads the arguments of `random_images`; sizes and classes are those of the fields.
pub(super) fn parse_random_images(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let samples = call.count("samples", Some(0));
    let samples = call.require(samples, "samples", "random_images(samples = 1000)")?;
    let seed = call.count("seed", None).map(|seed| seed as u64);
    refuse_values(call, fields);
    let roles = Roles::of(call, fields)?;
    bounded(call, samples, fields[roles.sample].elements())?;
    Some(Box::new(RandomImages { samples, seed, roles }))
}

/// Reads the arguments of `random`: any fields, for measuring speed.
pub(super) fn parse_random(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let samples = call.count("samples", Some(0));
    let samples = call.require(samples, "samples", "random(samples = 1000)")?;
    let seed = call.count("seed", None).map(|seed| seed as u64);
    let below = call.count("below", None).unwrap_or(2);
    let Some(below) = u32::try_from(below).ok().filter(|below| (1..=i32::MAX as u32).contains(below)) else {
        return call.refuse("`below` is the number of different integers", "give a number from 1 to 2147483647");
    };
    refuse_values(call, fields);
    for field in fields {
        bounded(call, samples, field.elements())?;
    }
    Some(Box::new(Random { samples, seed, below }))
}

fn bounded(call: &mut Arguments<'_, '_>, records: usize, elements: usize) -> Option<()> {
    if records == 0 {
        return call.refuse(format!("`{}` would make no sample", call.name), "ask for at least one");
    }
    if records.checked_mul(elements).is_none_or(|numbers| numbers > LIMIT) {
        return call.refuse(
            format!("{records} × {elements} made-up numbers are too many"),
            format!("ask for at most {LIMIT}"),
        );
    }
    Some(())
}

fn role(context: &Context<'_>) -> u32 {
    match context.role {
        Role::Train => 0,
        Role::Valid => 1,
        Role::Test => 2,
        Role::Input => unreachable!("no path stands for made-up samples"),
    }
}

fn column(sizes: Vec<usize>, values: Values) -> Column {
    Column::new(sizes, values, "(made up)".as_ref())
}

impl Source for Spirals {
    fn made_up(&self) -> usize {
        self.classes * self.points
    }

    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let seed = self.seed.unwrap_or(context.seed);
        let (mut points, mut labels) = (Vec::new(), Vec::new());
        for arm in 0..self.classes {
            let mut stream = Stream::new(seed, Purpose::Sample, arm as u32, role(context));
            for place in 0..self.points {
                let radius = (place as f64 + 0.5) / self.points as f64;
                // Four radians of winding, the arms evenly apart.
                let start = std::f64::consts::TAU * arm as f64 / self.classes as f64;
                let angle = start + 4.0 * radius + self.noise * stream.normal();
                points.push((radius * libm::sin(angle)) as f32);
                points.push((radius * libm::cos(angle)) as f32);
                labels.push(arm as i32);
            }
        }
        let (points, records) = (column(vec![2], Values::F32(points)), labels.len());
        Ok(self.roles.part(records, points, column(Vec::new(), Values::I32(labels))).into())
    }
}

impl Source for Regression {
    fn made_up(&self) -> usize {
        self.samples
    }

    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let seed = self.seed.unwrap_or(context.seed);
        let (inputs, target) = (&context.fields[0], &context.fields[1]);
        let (features, targets) = (inputs.elements(), target.elements());
        let mut truth = Stream::new(seed, Purpose::Truth, 0, 0);
        let weights: Vec<f64> = (0..features * targets).map(|_| truth.normal()).collect();
        let biases: Vec<f64> = (0..targets).map(|_| truth.normal()).collect();
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for sample in 0..self.samples {
            let mut stream = Stream::new(seed, Purpose::Sample, sample as u32, role(context));
            let row: Vec<f32> = (0..features).map(|_| stream.normal() as f32).collect();
            for (bias, weights) in biases.iter().zip(weights.chunks_exact(features)) {
                let product: f64 = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * w).sum();
                y.push((product + bias + self.noise * stream.normal()) as f32);
            }
            x.extend_from_slice(&row);
        }
        let columns = vec![column(inputs.sizes.clone(), Values::F32(x)), column(target.sizes.clone(), Values::F32(y))];
        Ok(Part::new(columns, self.samples).into())
    }
}

impl Source for RandomImages {
    fn made_up(&self) -> usize {
        self.samples
    }

    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let seed = self.seed.unwrap_or(context.seed);
        let field = &context.fields[self.roles.sample];
        let classes = match self.roles.label.map(|label| context.fields[label].element) {
            Some(Element::Class(classes)) => classes,
            Some(Element::F32 | Element::U8 | Element::I32) | None => 1,
        };
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for sample in 0..self.samples {
            let mut stream = Stream::new(seed, Purpose::Sample, sample as u32, role(context));
            let label = stream.below(classes as u32);
            let shade = 255 * label / classes.max(2) as u32;
            pixels.extend((0..field.elements()).map(|_| ((stream.below(256) + shade) / 2) as u8));
            labels.push(label as i32);
        }
        let images = column(field.sizes.clone(), Values::U8(pixels));
        Ok(self.roles.part(self.samples, images, column(Vec::new(), Values::I32(labels))).into())
    }
}

impl Source for Random {
    fn made_up(&self) -> usize {
        self.samples
    }

    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let seed = self.seed.unwrap_or(context.seed);
        let mut columns = Vec::new();
        for (index, field) in context.fields.iter().enumerate() {
            // A stream per field and split, so that fields are independent.
            let mut stream = Stream::new(seed, Purpose::Sample, index as u32, role(context));
            let count = self.samples * field.elements();
            let values = match field.element {
                Element::U8 => Values::U8((0..count).map(|_| stream.below(256) as u8).collect()),
                Element::I32 => Values::I32((0..count).map(|_| stream.below(self.below) as i32).collect()),
                Element::Class(classes) => {
                    Values::I32((0..count).map(|_| stream.below(classes as u32) as i32).collect())
                }
                Element::F32 => Values::F32(normals(seed, Purpose::Sample, index as u32, role(context), count)),
            };
            columns.push(column(field.sizes.clone(), values));
        }
        Ok(Part::new(columns, self.samples).into())
    }
}
