//! The files of one compilation: the root file, what it imports, and the library.
//!
//! Input: a path and a reader (this module touches no file itself). Output: parsed files and the lookup of items.
//! Invariant: every file lies below the project root; the graph of imports has no cycle.

mod file;
mod library;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostics::Diagnostic;
use crate::diagnostics::suggest::nearest;
use crate::settings::{PathRefusal, below, normalise};
use crate::source::{FileId, SourceMap, Span};
use crate::syntax::ast;
pub(crate) use file::Definition;
use file::Loaded;

/// How many files a project may have.
const MAX_FILES: usize = 1000;
/// How long a model file may be, in bytes; readers give [`io::ErrorKind::FileTooLarge`] for a longer one.
pub const MAX_BYTES: u64 = 8 << 20;

/// What the text of a setting is called in findings.
const COMMAND_LINE: &str = "command line";

/// The files of one compilation.
#[derive(Clone, Debug)]
pub struct Project {
    /// The texts: the library's files first, then the root file, then its imports.
    pub sources: SourceMap,
    /// The folder that all paths in the project's files stay below.
    root: PathBuf,
    files: Vec<Arc<Loaded>>,
    library_len: usize,
}

impl Project {
    /// Loads the file at `path` and what it imports, through `read`. Imports must stay below `root`
    /// (the folder of `path` where none is given). The root file has an identifier even where it cannot be read.
    pub fn load(
        path: &Path,
        root: Option<&Path>,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> (Project, FileId, Vec<Diagnostic>) {
        let root = root.map_or_else(|| path.parent().unwrap_or(Path::new("")).to_owned(), Path::to_owned);
        let mut loader = Loader::new(root.clone(), read);
        let (base, target) = (normalise(&root), normalise(path));
        let relative = match (base, target) {
            (Some(base), Some(target)) => target.strip_prefix(&base).ok().map(Path::to_owned),
            (_, _) => path.strip_prefix(&root).ok().map(Path::to_owned),
        };
        let Some(relative) = relative else {
            let file = loader.empty(path);
            loader.diagnostics.push(Diagnostic::error(
                "outside-project",
                Span::new(file, 0, 0),
                format!("`{}` is not below the project root `{}`", path.display(), root.display()),
            ));
            return loader.finish(file);
        };
        let file = loader.file(&relative, path, None);
        loader.finish(file)
    }

    /// A project of one text without imports from disk.
    pub fn from_text(name: &str, text: &str) -> (Project, FileId, Vec<Diagnostic>) {
        let read = |path: &Path| {
            if path == Path::new(name) { Ok(text.as_bytes().to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        Self::load(Path::new(name), None, &read)
    }

    /// Adds the command line's settings as texts, so that findings about them point there.
    pub fn add_settings(&mut self, settings: &[(String, String)]) {
        for (key, value) in settings {
            let file = self.sources.add(COMMAND_LINE, format!("--set {key}={value}"));
            let (loaded, _) = Loaded::parse(file, PathBuf::from(COMMAND_LINE), "");
            self.files.push(Arc::new(loaded));
        }
    }

    /// Where the value of a setting stands, if it was added.
    pub(crate) fn setting_place(&self, key: &str, value: &str) -> Option<Span> {
        let text = format!("--set {key}={value}");
        let mut files = self.sources.files().filter(|(_, file)| file.name == COMMAND_LINE);
        let (file, _) = files.find(|(_, file)| file.text == text)?;
        Some(Span::new(file, text.len() - value.len(), text.len()))
    }

    /// The definition that `name` stands for in `file`: its own, an imported one, or the library's.
    pub(crate) fn find(&self, file: FileId, name: &str) -> Option<Definition> {
        let loaded = self.loaded(file);
        if let Some(definition) = loaded.definitions.get(name) {
            return Some(definition.clone());
        }
        if let Some(source) = loaded.imports.get(name) {
            return self.loaded(*source).definitions.get(name).cloned();
        }
        self.files[..self.library_len].iter().find_map(|library| library.definitions.get(name).cloned())
    }

    /// The `data` item that `name` stands for in `file`, and the file that holds it.
    pub fn find_data(&self, file: FileId, name: &str) -> Option<(FileId, &ast::Data)> {
        let home = match self.loaded(file).imports.get(name) {
            Some(source) => *source,
            None => file,
        };
        let loaded = self.loaded(home);
        let item = &loaded.tree.items[*loaded.data.get(name)?];
        if let ast::ItemKind::Data(data) = &item.kind { Some((home, data)) } else { None }
    }

    /// True where the import of `name` into `file` failed, which has been reported.
    pub fn is_broken(&self, file: FileId, name: &str) -> bool {
        self.loaded(file).broken.contains(name)
    }

    /// Every item name visible in `file`, in order, for suggestions.
    pub fn visible_names(&self, file: FileId) -> Vec<&str> {
        let loaded = self.loaded(file);
        let library = self.files[..self.library_len].iter().flat_map(|library| library.names());
        let mut names: Vec<&str> =
            loaded.names().chain(loaded.imports.keys().map(String::as_str)).chain(library).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The syntax tree of a file.
    pub fn tree(&self, file: FileId) -> &ast::File {
        &self.loaded(file).tree
    }

    /// Where a file was read.
    pub fn path(&self, file: FileId) -> &Path {
        &self.loaded(file).path
    }

    /// The folder that all paths in the project's files stay below.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a file, relative to the root; paths in the file start there.
    pub fn folder(&self, file: FileId) -> PathBuf {
        let folder = self.path(file).parent().unwrap_or(Path::new(""));
        let below = match (normalise(&self.root), normalise(folder)) {
            (Some(root), Some(folder)) => folder.strip_prefix(root).ok().map(Path::to_owned),
            (_, _) => folder.strip_prefix(&self.root).ok().map(Path::to_owned),
        };
        below.unwrap_or_default()
    }

    /// True for files that the user wrote: none of the standard library, and no setting of the command line.
    pub fn is_written(&self, file: FileId) -> bool {
        !self.is_library(file) && self.sources.get(file).is_some_and(|file| file.name != COMMAND_LINE)
    }

    /// True for files of the standard library.
    pub fn is_library(&self, file: FileId) -> bool {
        (file.0 as usize) < self.library_len
    }

    fn loaded(&self, file: FileId) -> &Loaded {
        &self.files[file.0 as usize]
    }
}

/// Whether a file's name is one of model files, whose text findings may show.
pub fn is_model_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "ansatz")
}

/// Why a file is not read, with its name. An error of the reader's own says what the file is, one of the system what
/// went wrong.
pub fn unread(path: &Path, error: &io::Error) -> String {
    match error.get_ref() {
        Some(own) => format!("`{}` {own}", path.display()),
        None if error.kind() == io::ErrorKind::NotFound => format!("there is no file `{}`", path.display()),
        None => format!("cannot read `{}`: {error}", path.display()),
    }
}

/// The state of one loading: a depth-first walk over imports.
struct Loader<'r> {
    root: PathBuf,
    read: &'r dyn Fn(&Path) -> io::Result<Vec<u8>>,
    sources: SourceMap,
    files: Vec<Option<Arc<Loaded>>>,
    /// By path relative to the root.
    known: HashMap<PathBuf, FileId>,
    unreadable: HashSet<FileId>,
    /// The files whose imports are being followed, outermost first.
    open: Vec<(PathBuf, FileId)>,
    diagnostics: Vec<Diagnostic>,
}

impl<'r> Loader<'r> {
    fn new(root: PathBuf, read: &'r dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Self {
        let mut sources = SourceMap::default();
        for (name, text) in library::TEXTS {
            sources.add(*name, *text);
        }
        let files = library::files().iter().cloned().map(Some).collect();
        Loader {
            root,
            read,
            sources,
            files,
            known: HashMap::new(),
            unreadable: HashSet::new(),
            open: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    fn finish(self, file: FileId) -> (Project, FileId, Vec<Diagnostic>) {
        let files = self.files.into_iter().map(|file| file.expect("every opened file is closed")).collect();
        let project = Project { sources: self.sources, root: self.root, files, library_len: library::TEXTS.len() };
        (project, file, self.diagnostics)
    }

    /// A file without text, for one that cannot be read.
    fn empty(&mut self, path: &Path) -> FileId {
        let file = self.sources.add(path.display().to_string(), "");
        let (loaded, _) = Loaded::parse(file, path.to_owned(), "");
        self.files.push(Some(Arc::new(loaded)));
        self.unreadable.insert(file);
        file
    }

    /// Reads, parses and follows one file. `import` is the place that asks for it.
    fn file(&mut self, relative: &Path, path: &Path, import: Option<Span>) -> FileId {
        let text = match (self.read)(path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|error| {
                let offset = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
                let place = format!("the byte at offset {offset}, in line {line}, is wrong");
                ("not-utf8", format!("`{}` is not UTF-8: {place}", path.display()))
            }),
            Err(error) => {
                let code = if error.kind() == io::ErrorKind::FileTooLarge { "too-large" } else { "cannot-read" };
                Err((code, unread(path, &error)))
            }
        };
        let text = match text {
            Ok(text) => text,
            Err((code, message)) => {
                let file = self.empty(path);
                let span = import.unwrap_or(Span::new(file, 0, 0));
                self.diagnostics.push(Diagnostic::error(code, span, message));
                self.known.insert(relative.to_owned(), file);
                return file;
            }
        };
        let file = self.sources.add(path.display().to_string(), text.as_str());
        self.files.push(None);
        self.known.insert(relative.to_owned(), file);
        let (mut loaded, found) = Loaded::parse(file, path.to_owned(), &text);
        self.diagnostics.extend(found);
        self.open.push((relative.to_owned(), file));
        self.imports(relative, &mut loaded);
        self.open.pop();
        self.files[file.0 as usize] = Some(Arc::new(loaded));
        file
    }

    fn imports(&mut self, relative: &Path, loaded: &mut Loaded) {
        let imports: Vec<ast::Use> = loaded
            .tree
            .items
            .iter()
            .filter_map(|item| match &item.kind {
                ast::ItemKind::Use(import) => Some(import.clone()),
                _ => None,
            })
            .collect();
        for import in imports {
            let target = self.target(relative, &import).and_then(|target| self.open_import(&target, &import));
            for name in &import.names {
                match target {
                    Some(file) if self.exports(file, &name.name) => {
                        loaded.imports.insert(name.name.clone(), file);
                    }
                    Some(file) => {
                        let missing = self.unknown(file, name, &import);
                        self.diagnostics.extend(missing);
                        loaded.broken.insert(name.name.clone());
                    }
                    None => {
                        loaded.broken.insert(name.name.clone());
                    }
                }
            }
        }
    }

    /// The imported file's path relative to the root, if it is an allowed one.
    fn target(&mut self, relative: &Path, import: &ast::Use) -> Option<PathBuf> {
        let refusal = match below(relative.parent().unwrap_or(Path::new("")), &import.path) {
            Ok(target) if is_model_file(&target) => return Some(target),
            Ok(_) => {
                let message = format!("`{}` is not a model file", import.path.escape_debug());
                let diagnostic = Diagnostic::error("bad-path", import.path_span, message);
                self.diagnostics.push(diagnostic.hint("the names of model files end in `.ansatz`"));
                return None;
            }
            Err(refusal) => refusal,
        };
        let message = format!("`{}` {}", import.path.escape_debug(), refusal.words());
        let diagnostic = Diagnostic::error("bad-path", import.path_span, message);
        self.diagnostics.push(match refusal {
            PathRefusal::Empty | PathRefusal::Nul | PathRefusal::Hidden => diagnostic,
            PathRefusal::NotPlain => diagnostic.hint("separate folders by `/`"),
            PathRefusal::Absolute => diagnostic.hint("write the path relative to this file"),
            PathRefusal::Leaves => {
                let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
                diagnostic.hint(format!("imports stay below `{}`", root.display()))
            }
        });
        None
    }

    /// The file of an import, loaded if it is new; `None` where that fails, which is reported once.
    fn open_import(&mut self, target: &Path, import: &ast::Use) -> Option<FileId> {
        if let Some(start) = self.open.iter().position(|(open, _)| open == target) {
            let chain: Vec<String> = self.open[start..]
                .iter()
                .map(|(open, _)| open.as_path())
                .chain([target])
                .map(|open| format!("`{}`", open.display()))
                .collect();
            self.diagnostics.push(Diagnostic::error(
                "use-cycle",
                import.path_span,
                format!("files import each other in a circle: {}", chain.join(" uses ")),
            ));
            return None;
        }
        let file = match self.known.get(target) {
            Some(file) => *file,
            None if self.files.len() >= MAX_FILES => {
                let message = format!("the project has more than {MAX_FILES} files");
                self.diagnostics.push(Diagnostic::error("too-large", import.path_span, message));
                return None;
            }
            None => {
                let path = self.root.join(target);
                self.file(target, &path, Some(import.path_span))
            }
        };
        (!self.unreadable.contains(&file)).then_some(file)
    }

    fn exports(&self, file: FileId, name: &str) -> bool {
        let loaded = self.files[file.0 as usize].as_ref();
        loaded.is_some_and(|loaded| loaded.definitions.contains_key(name) || loaded.data.contains_key(name))
    }

    fn unknown(&self, file: FileId, name: &ast::Ident, import: &ast::Use) -> Option<Diagnostic> {
        let loaded = self.files[file.0 as usize].as_ref()?;
        let message = format!("`{}` defines no `{}`", import.path, name.name);
        let diagnostic = Diagnostic::error("unknown-name", name.span, message);
        Some(match nearest(&name.name, loaded.names()) {
            Some(other) => diagnostic.hint(format!("did you mean `{other}`?")).fix(name.span, other),
            None => diagnostic,
        })
    }
}
