//! The `data` item, and the fields that it gives.
//!
//! Input: made by `model`. Output: read by `runtime`, which gives it its meaning. Invariant: constants only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::graph::DType;
use crate::source::Span;

/// The bytes of files by their path from a root.
pub type PackedFiles = BTreeMap<PathBuf, Vec<u8>>;

/// A `data` item as plain values; its meaning belongs to `runtime::data`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataSpec {
    /// The item's name.
    pub name: String,
    /// The declared fields.
    pub fields: Vec<FieldSpec>,
    /// Keys and pipelines in order: `source`, `test`, `split`, `prepare`, `prepare.image`, `augment.image`, …
    pub entries: Vec<DataEntry>,
    /// The folder that the item's paths stay below.
    pub root: PathBuf,
    /// The folder, relative to the root, that the item's paths start at.
    pub folder: PathBuf,
    /// What the root holds, where its files are carried along and not read from a folder.
    #[serde(skip)]
    pub packed: Option<Arc<PackedFiles>>,
    /// The item.
    pub span: Span,
}

impl DataSpec {
    /// The fields as declared, before preparation.
    pub fn declared(&self) -> Vec<FieldInfo> {
        let field = |field: &FieldSpec| {
            let class = field.element == "class";
            FieldInfo {
                name: field.name.clone(),
                sizes: if class { Vec::new() } else { field.sizes.clone() },
                dtype: if class || field.element == "i32" { DType::I32 } else { DType::F32 },
                classes: if class { field.sizes.first().copied() } else { None },
            }
        };
        self.fields.iter().map(field).collect()
    }
}

/// `image: u8[3, 32, 32]`, optionally `= columns(0, 63)`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FieldSpec {
    /// The field.
    pub name: String,
    /// `f32`, `u8`, `i32`, `class`, `text`, as written.
    pub element: String,
    /// Its dims, without the batch; for `class[10]` the number of classes.
    pub sizes: Vec<usize>,
    /// Where it comes from, if said.
    pub value: Option<Literal>,
    /// Where it is declared.
    pub span: Span,
}

/// One `key = value` of a data item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataEntry {
    /// `["prepare", "image"]`.
    pub key: Vec<String>,
    /// The value.
    pub value: Literal,
    /// Where it stands.
    pub span: Span,
}

/// A constant with its place; expressions over numbers are already evaluated, `deg` is in radians.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Literal {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: LiteralKind,
}

/// The kinds of constants of a data item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LiteralKind {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// `true`, `false`.
    Bool(bool),
    /// A bare name (`horizontal`, `per_channel`).
    Name(String),
    /// `[a, b]`.
    List(#[serde(deserialize_with = "crate::graph::nested::nested")] Vec<Literal>),
    /// `random_crop(32, pad = 4)`.
    Call {
        /// The name.
        name: String,
        /// The arguments.
        #[serde(deserialize_with = "crate::graph::nested::nested")]
        arguments: Vec<(Option<String>, Literal)>,
    },
    /// `scale(1 / 255) -> normalize(…)`.
    Pipeline(#[serde(deserialize_with = "crate::graph::nested::nested")] Vec<Literal>),
}

/// A field as the model sees it, after preparation and augmentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldInfo {
    /// The field.
    pub name: String,
    /// Sizes per sample; the batch comes before them.
    pub sizes: Vec<usize>,
    /// F32 or I32.
    pub dtype: DType,
    /// For labels: the number of classes.
    pub classes: Option<usize>,
}

impl FieldInfo {
    /// Values per sample.
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }
}

/// What a read at the values of a field asks of the data: whole numbers from `low` to `high`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldRange {
    /// The field.
    pub field: String,
    /// The least value.
    pub low: i64,
    /// The largest value.
    pub high: i64,
    /// Further values that the model sorts out by a condition.
    pub except: Vec<i64>,
    /// Where the read stands.
    pub span: Span,
}

impl FieldRange {
    /// True for a value that the read stands.
    pub fn admits(&self, value: i64) -> bool {
        (self.low..=self.high).contains(&value) || self.except.contains(&value)
    }
}
