//! A `data` item in model text as the plain values that `runtime::data` takes.

use std::path::Path;

use ansatz::model::{Project, training};
use ansatz::settings::DataSpec;

/// The item `data d { body }`; relative paths start at `folder`.
pub fn spec(folder: &Path, body: &str) -> DataSpec {
    let text = format!(
        "data d {{\n{body}\n}}\nmodel M {{\n  input input: [N, 2]\n  return input\n}}\n\
         train M on d {{\n  loss = mse(input)\n  optimizer = sgd(lr = 1)\n  length = 1 epochs\n}}\n"
    );
    let (project, file, found) = Project::from_text("test.ansatz", &text);
    assert!(found.is_empty(), "{found:?}\n{body}");
    let training = training(&project, file, &[]).unwrap_or_else(|found| panic!("{found:?}\n{body}"));
    DataSpec { root: folder.to_path_buf(), ..training.settings.data }
}

/// The data item of a model file.
pub fn spec_of_file(path: &Path) -> DataSpec {
    let (project, file, found) = Project::load(path, None, &|path| std::fs::read(path));
    assert!(found.is_empty(), "{}: {found:?}", path.display());
    training(&project, file, &[]).unwrap_or_else(|found| panic!("{}: {found:?}", path.display())).settings.data
}
