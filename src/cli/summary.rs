//! `ansatz summary`: layers, shapes, parameters, MACs and FLOPs of a model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, open};
use crate::console::progress;
use crate::console::session;
use crate::dim::Dim;
use crate::graph::print::shape_text;
use crate::model::summary::{Summary, summarize};
use crate::model::{self, Mode, Project};
use crate::source::FileId;
use crate::syntax::ast::{DefinitionKind, ItemKind};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model file
    file: PathBuf,
    /// The model (by default the last one of the file)
    #[arg(long)]
    model: Option<String>,
    /// Bind sizes of the inputs, such as `N=1`
    #[arg(long = "size", value_name = "NAME=SIZE", value_parser = session::pair)]
    sizes: Vec<(String, String)>,
    /// Set arguments of the model, such as `classes=100`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = session::pair)]
    set: Vec<(String, String)>,
    /// Levels of nesting shown
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let (project, file) = open::project(&arguments.file)?;
    let name = match &arguments.model {
        Some(name) => name.clone(),
        None => last_model(&project, file)
            .ok_or_else(|| Failure::Problem(format!("{} has no model", arguments.file.display())))?,
    };
    let mut sizes = BTreeMap::new();
    for (name, value) in &arguments.sizes {
        let size = value.parse::<i64>().ok().filter(|size| *size > 0);
        let size = size.ok_or_else(|| Failure::Problem(format!("`{name}={value}`: a size is a positive integer")))?;
        sizes.insert(name.clone(), size);
    }
    let mut values = Vec::new();
    for (name, value) in &arguments.set {
        let number = value.parse::<f64>().map_err(|_| Failure::Problem(format!("`{name}={value}`: not a number")))?;
        values.push((name.clone(), number));
    }
    let expand = |sizes: &BTreeMap<String, i64>| model::expand(&project, file, &name, &values, Mode::Eval, sizes);
    let (expanded, warnings) = open::unwrap(expand(&sizes), &project.sources)?;
    if !sizes.is_empty()
        && let Ok((free, _)) = expand(&BTreeMap::new())
        && let Err((unknown, known)) = model::check::known_sizes(&free, &sizes)
    {
        return Err(Failure::Problem(format!("the inputs of {name} have no size `{unknown}`; they have {known}")));
    }
    open::report(&warnings, &project.sources)?;
    let summary = summarize(&expanded);
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{}", table(&name, &summary, arguments.depth));
    }
    Ok(())
}

fn last_model(project: &Project, file: FileId) -> Option<String> {
    project.tree(file).items.iter().rev().find_map(|item| match &item.kind {
        ItemKind::Definition(definition) if definition.kind == DefinitionKind::Model => {
            Some(definition.name.name.clone())
        }
        _ => None,
    })
}

fn table(name: &str, summary: &Summary, depth: usize) -> String {
    let mut rows = vec![["layer", "output", "params", "MACs"].map(String::from)];
    for row in summary.rows.iter().filter(|row| row.depth < depth) {
        let path = if row.path.is_empty() { row.layer.clone() } else { format!("{} ({})", row.path, row.layer) };
        let cell = |dim: &Dim| if dim.as_const() == Some(0) { String::new() } else { number(dim) };
        let label = format!("{}{path}", "  ".repeat(row.depth));
        rows.push([label, shape_text(&row.shape), cell(&row.params), cell(&row.macs)]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = format!("{name}\n");
    for [layer, output, params, macs] in &rows {
        let line = format!("  {layer:<0$}  {output:<1$}  {params:>2$}  {macs}", widths[0], widths[1], widths[2]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&format!(
        "parameters {}   buffers {}   MACs {}   FLOPs {} (forward, contractions only)\n",
        number(&summary.params),
        number(&summary.buffers),
        number(&summary.macs),
        number(&summary.flops())
    ));
    text
}

/// `11_689_512 (11.69 M)`, or a formula.
fn number(dim: &Dim) -> String {
    match dim.as_const() {
        Some(value) if value >= 10_000 => {
            format!("{} ({})", model::check::grouped(value), progress::count(value as f64))
        }
        Some(value) => value.to_string(),
        None => dim.to_string(),
    }
}
