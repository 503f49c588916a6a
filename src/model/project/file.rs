//! One file of a project: its tree, and its items by name.
//!
//! Input: a text. Output: [`Loaded`], and findings. Invariant: a name stands for the first item that defines it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostics::Diagnostic;
use crate::source::{FileId, Span};
use crate::syntax::ast;

/// A definition and the file whose names it sees.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub ast: Arc<ast::Definition>,
    pub file: FileId,
}

/// One parsed file.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Where it was read; the display name for the library.
    pub path: PathBuf,
    pub tree: ast::File,
    pub definitions: HashMap<String, Definition>,
    pub data: HashMap<String, usize>,
    pub imports: HashMap<String, FileId>,
    /// Names whose import failed.
    pub broken: HashSet<String>,
}

impl Loaded {
    /// Parses one text and indexes its items.
    pub(crate) fn parse(file: FileId, path: PathBuf, text: &str) -> (Self, Vec<Diagnostic>) {
        let (tree, mut diagnostics) = crate::syntax::parse(file, text);
        let mut loaded = Loaded {
            path,
            tree: ast::File::default(),
            definitions: HashMap::new(),
            data: HashMap::new(),
            imports: HashMap::new(),
            broken: HashSet::new(),
        };
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for (index, item) in tree.items.iter().enumerate() {
            let names: Vec<&ast::Ident> = match &item.kind {
                ast::ItemKind::Use(import) => import.names.iter().collect(),
                ast::ItemKind::Definition(definition) => vec![&definition.name],
                ast::ItemKind::Data(data) => vec![&data.name],
                ast::ItemKind::Train(_) | ast::ItemKind::Assert(_) => Vec::new(),
            };
            for name in names {
                if let Some(first) = seen.get(name.name.as_str()) {
                    diagnostics.push(duplicate(name, *first));
                    continue;
                }
                seen.insert(&name.name, name.span);
                match &item.kind {
                    ast::ItemKind::Definition(definition) => {
                        diagnostics.extend(duplicate_parameters(definition));
                        diagnostics.extend(misplaced_direction(definition));
                        let ast = Arc::new(definition.clone());
                        loaded.definitions.insert(name.name.clone(), Definition { ast, file });
                    }
                    ast::ItemKind::Data(_) => {
                        loaded.data.insert(name.name.clone(), index);
                    }
                    ast::ItemKind::Use(_) | ast::ItemKind::Train(_) | ast::ItemKind::Assert(_) => {}
                }
            }
        }
        loaded.tree = tree;
        (loaded, diagnostics)
    }

    /// The names of the items that the file itself defines.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().chain(self.data.keys()).map(String::as_str)
    }
}

fn duplicate_parameters(definition: &ast::Definition) -> Vec<Diagnostic> {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    let names = definition.parameters.iter().map(|parameter| &parameter.name);
    names.filter_map(|name| seen.insert(&name.name, name.span).map(|first| duplicate(name, first))).collect()
}

fn misplaced_direction(definition: &ast::Definition) -> Option<Diagnostic> {
    let better = definition.better.filter(|_| definition.kind != ast::DefinitionKind::Metric)?;
    let message = "only a metric says which figures are better";
    Some(Diagnostic::error("misplaced-direction", better.span, message).hint("a loss is better when it is lower"))
}

fn duplicate(name: &ast::Ident, first: Span) -> Diagnostic {
    Diagnostic::error("duplicate-name", name.span, format!("`{}` is defined twice", name.name))
        .at("second definition")
        .label(first, "first definition")
}
