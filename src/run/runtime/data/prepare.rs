//! Preparation of one field's values: `prepare.image = scale(1 / 255) -> normalize(per_channel)`.
//!
//! Input: the stages as written. Output: [`Stage`]s, and the field's type and sizes after them.
//! Invariant: a stage is admitted only where it fits the type that reaches it, so `fitted` need not check again.

use super::arguments::{self, Arguments};
use super::field::Field;
use crate::diagnostics::Diagnostic;
use crate::graph::DType;
use crate::settings::{FieldInfo, Literal, LiteralKind};

/// The names of all stages.
pub(super) const NAMES: [&str; 9] =
    ["fill", "clip", "scale", "shift", "log1p", "normalize", "min_max", "one_hot", "cast"];

const GROUPS: [&str; 3] = ["whole", "per_channel", "per_feature"];

/// Which values share a measured number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// All values of the field.
    Whole,
    /// Those with the same first index.
    PerChannel,
    /// Each element by itself.
    PerFeature,
}

/// A number per group: given, or measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Figure {
    /// One number, or one per channel.
    Given(Vec<f64>),
    /// Measured on the training records.
    Measured(Group),
}

/// What replaces a missing value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    /// This number.
    Constant(f64),
    /// The feature's mean over the training records.
    Mean,
    /// The feature's median over the training records.
    Median,
}

/// A stage as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// `fill(mean)`, `fill(median)`, `fill(0)`.
    Fill(Fill),
    /// `clip(0, 100)`.
    Clip(f64, f64),
    /// `clip(std = 3)`: to mean ± 3 deviations, per feature or as the second argument says.
    ClipDeviations(f64, Group),
    /// `scale(1 / 255)`.
    Scale(f64),
    /// `shift(-1)`.
    Shift(f64),
    /// `log1p`: ln(1 + x).
    Log1p,
    /// `normalize(mean = …, std = …)`: (x − mean) / std.
    Normalize(Figure, Figure),
    /// `min_max(per_feature)`: to 0 … 1 over the training records.
    MinMax(Group),
    /// `one_hot`: a class becomes n floats.
    OneHot,
    /// `cast(f32)`, `cast(i32)`.
    Cast(DType),
}

impl Stage {
    /// Whether it needs the training records to know its numbers.
    pub(super) fn is_measured(&self) -> bool {
        match self {
            Stage::Fill(Fill::Mean | Fill::Median) | Stage::ClipDeviations(..) | Stage::MinMax(_) => true,
            Stage::Normalize(mean, std) => [mean, std].iter().any(|figure| matches!(figure, Figure::Measured(_))),
            _ => false,
        }
    }
}

/// Reads the stages of a field and brings its `info` to what they give.
pub(super) fn parse(
    stages: &[Literal],
    field: &Field,
    info: &mut FieldInfo,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Stage> {
    let mut parsed = Vec::new();
    for (place, literal) in stages.iter().enumerate() {
        let Some(mut call) = Arguments::of(literal, "a stage of a preparation", problems) else { continue };
        let stage = match parse_stage(&mut call, field) {
            Some(stage) => stage,
            None => continue,
        };
        call.finish();
        let last = place + 1 == stages.len();
        if let Err(message) = admit(&stage, field, info, last) {
            problems.push(Diagnostic::error("data-stage", literal.span, message));
        }
        parsed.push(stage);
    }
    parsed
}

fn parse_stage(call: &mut Arguments<'_, '_>, field: &Field) -> Option<Stage> {
    match call.name {
        "fill" => fill(call),
        "clip" => clip(call),
        "scale" => {
            let factor = call.number("factor", Some(0));
            call.require(factor, "factor", "scale(1 / 255)").map(Stage::Scale)
        }
        "shift" => {
            let offset = call.number("offset", Some(0));
            call.require(offset, "offset", "shift(-1)").map(Stage::Shift)
        }
        "log1p" => Some(Stage::Log1p),
        "normalize" => normalize(call, field),
        "min_max" => Some(Stage::MinMax(group(call).unwrap_or(Group::PerFeature))),
        "one_hot" => Some(Stage::OneHot),
        "cast" => match call.choice("type", Some(0), &["f32", "i32"])? {
            "i32" => Some(Stage::Cast(DType::I32)),
            _ => Some(Stage::Cast(DType::F32)),
        },
        other => {
            let diagnostic = Diagnostic::error("data-stage", call.span, format!("there is no preparation `{other}`"));
            let diagnostic = match other {
                "drop_missing" => diagnostic.hint("it drops whole records: write `prepare = drop_missing`"),
                _ => arguments::suggest(diagnostic, other, &NAMES),
            };
            call.problems.push(diagnostic);
            None
        }
    }
}

fn fill(call: &mut Arguments<'_, '_>) -> Option<Stage> {
    let value = call.take("value", Some(0));
    let value = call.require(value, "value", "fill(mean)")?;
    if let LiteralKind::Number(_) = value.kind {
        return arguments::number(value, call.problems).map(|number| Stage::Fill(Fill::Constant(number)));
    }
    match arguments::choice(value, &["mean", "median"], call.problems)? {
        "mean" => Some(Stage::Fill(Fill::Mean)),
        _ => Some(Stage::Fill(Fill::Median)),
    }
}

fn clip(call: &mut Arguments<'_, '_>) -> Option<Stage> {
    if let Some(factor) = call.number("std", None) {
        let group = group(call).unwrap_or(Group::PerFeature);
        if factor <= 0.0 {
            return call.refuse("a clip at no deviation leaves nothing", "write `clip(std = 3)`");
        }
        return Some(Stage::ClipDeviations(factor, group));
    }
    let low = call.number("low", Some(0));
    let high = call.number("high", Some(1));
    let low = call.require(low, "low", "clip(0, 100)` or `clip(std = 3)")?;
    let high = call.require(high, "high", "clip(0, 100)")?;
    if low > high {
        return call.refuse(format!("the lower bound {low} lies above the upper bound {high}"), "swap them");
    }
    Some(Stage::Clip(low, high))
}

fn normalize(call: &mut Arguments<'_, '_>, field: &Field) -> Option<Stage> {
    let both = group(call);
    let mean = figure(call, "mean", field);
    let std = figure(call, "std", field);
    if let (Some(group), None, None) = (both, &mean, &std) {
        return Some(Stage::Normalize(Figure::Measured(group), Figure::Measured(group)));
    }
    let example = "normalize(per_channel)` or `normalize(mean = 0.13, std = 0.31)";
    let mean = call.require(mean, "mean", example);
    let std = call.require(std, "std", example);
    if let Some(Figure::Given(values)) = &std
        && values.iter().any(|value| *value <= 0.0)
    {
        call.fail("a standard deviation is not above 0", "give positive deviations");
    }
    Some(Stage::Normalize(mean?, std?))
}

fn group(call: &mut Arguments<'_, '_>) -> Option<Group> {
    call.choice("over", Some(0), &GROUPS).map(group_of)
}

fn group_of(name: &str) -> Group {
    match name {
        "whole" => Group::Whole,
        "per_channel" => Group::PerChannel,
        _ => Group::PerFeature,
    }
}

fn figure(call: &mut Arguments<'_, '_>, name: &'static str, field: &Field) -> Option<Figure> {
    let literal = call.take(name, None)?;
    if let LiteralKind::Name(_) = literal.kind {
        return arguments::choice(literal, &GROUPS, call.problems).map(|name| Figure::Measured(group_of(name)));
    }
    let values = arguments::numbers(literal, call.problems)?;
    let channels = field.sizes.first().copied().unwrap_or(1);
    if values.len() != 1 && values.len() != channels && values.len() != field.elements() {
        let message = format!("`{name}` has {} numbers for {channels} channels", values.len());
        call.problems
            .push(Diagnostic::error("data-value", literal.span, message).hint("give one number, or one per channel"));
        return None;
    }
    Some(Figure::Given(values))
}

/// Checks a stage against the type that reaches it, and moves the type on.
fn admit(stage: &Stage, field: &Field, info: &mut FieldInfo, last: bool) -> Result<(), String> {
    match stage {
        Stage::OneHot => match info.classes {
            Some(_) if !last => Err("`one_hot` must be the last stage".to_string()),
            Some(classes) => {
                *info = FieldInfo { name: info.name.clone(), sizes: vec![classes], dtype: DType::F32, classes: None };
                Ok(())
            }
            None => Err(format!("`one_hot` needs a class field, but `{}` is none", field.name)),
        },
        Stage::Cast(DType::I32) if !last => Err("`cast(i32)` must be the last stage".to_string()),
        Stage::Cast(dtype) => {
            info.dtype = *dtype;
            if *dtype == DType::F32 {
                info.classes = None;
            }
            Ok(())
        }
        Stage::Fill(Fill::Constant(value)) if info.dtype == DType::I32 => {
            let bound = info.classes.map_or(f64::from(i32::MAX), |classes| classes as f64 - 1.0);
            let low = if info.classes.is_some() { 0.0 } else { -f64::from(i32::MAX) };
            match value.fract() == 0.0 && (low..=bound).contains(value) {
                true => Ok(()),
                false => {
                    Err(format!("{value} cannot fill `{}`: it takes whole numbers from {low} to {bound}", field.name))
                }
            }
        }
        _ => match info.dtype {
            DType::F32 => Ok(()),
            DType::I32 | DType::Bool => {
                Err(format!("`{}` holds whole numbers; this stage needs floats: put `cast(f32)` before it", field.name))
            }
        },
    }
}
