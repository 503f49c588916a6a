//! What is fuzzed: every reader of files and settings of strangers.
//!
//! Output: [`READERS`], each with inputs to begin with, words of its format, a repair and what reads it. Invariant: reading
//! is what the commands do with such a file, up to where a run would begin; what it says of a file names the file.

use std::path::{Path, PathBuf};

use ansatz::artifact::Artifact;
use ansatz::cpu::Lowering;
use ansatz::diagnostics::{Diagnostic, render};
use ansatz::kernel::verify;
use ansatz::model::{self, Project};
use ansatz::runtime::data::{self, DataError, Plan};
use ansatz::runtime::folder::RunFolder;
use ansatz::runtime::record::{Record, StepLog};
use ansatz::runtime::{checkpoint, keep};
use ansatz::settings::DataSpec;
use ansatz::workspace;

use super::formats::{self, MODEL};
use super::random::Random;

/// Whether an input was taken; the error is a promise that was broken.
pub type Verdict = Result<bool, String>;

/// Reads one input after the other in a folder of its own.
pub type Read = Box<dyn Fn(&[u8]) -> Verdict>;

/// See the module's text.
pub struct Reader {
    pub name: &'static str,
    /// Valid inputs; they may be made in this folder.
    pub seeds: fn(&Path) -> Vec<Vec<u8>>,
    /// Words that its format knows.
    pub words: &'static [&'static str],
    /// Lets a changed input pass the checks that stand before the reader.
    pub repair: fn(&mut Vec<u8>, &mut Random),
    /// What reads, in this folder.
    pub read: fn(&Path) -> Read,
}

fn as_it_is(_: &mut Vec<u8>, _: &mut Random) {}

/// All readers.
pub const READERS: &[Reader] = &[
    Reader { name: "model", seeds: models, words: WORDS_OF_MODELS, repair: as_it_is, read: model_text },
    Reader { name: "set", seeds: |_| texts(SETTINGS), words: WORDS_OF_SETTINGS, repair: as_it_is, read: settings },
    Reader {
        name: "checkpoint",
        seeds: formats::checkpoints,
        words: &["\"F16\"", "\"BOOL\"", "\"shape\":[", "[0,0]", "\"ansatz\":", "null", "{\"a\":", "[["],
        repair: |bytes, random| formats::repair_checkpoint(bytes, random),
        read: weights,
    },
    Reader { name: "npy", seeds: npys, words: WORDS_OF_ARRAYS, repair: as_it_is, read: npy },
    Reader { name: "npz", seeds: npys, words: WORDS_OF_ARRAYS, repair: zipped, read: npz },
    Reader {
        name: "csv",
        seeds: |_| texts(TABLES),
        words: &[",", "\"", "\n", "\r", "inf", "x,", "\u{feff}", "\0"],
        repair: gzipped,
        read: csv,
    },
    Reader { name: "idx", seeds: |_| idxs(), words: &[], repair: gzipped, read: idx },
    Reader {
        name: "cifar",
        seeds: |_| vec![vec![3; 3073], vec![4; 2 * 3073]],
        words: &[],
        repair: gzipped,
        read: cifar,
    },
    Reader {
        name: "png",
        seeds: |_| formats::pngs(),
        words: WORDS_OF_PNG,
        repair: |bytes, random| formats::repair_png(bytes, random),
        read: picture,
    },
    Reader { name: "jpeg", seeds: |_| jpegs(), words: &[], repair: as_it_is, read: picture },
    Reader {
        name: "artifact",
        seeds: |_| vec![formats::artifact()],
        words: &[],
        repair: |bytes, random| formats::repair_artifact(bytes, random),
        read: artifact,
    },
    Reader { name: "run.json", seeds: |_| texts(COMMANDS), words: WORDS_OF_JSON, repair: as_it_is, read: command },
    Reader { name: "metrics", seeds: |_| texts(METRICS), words: WORDS_OF_JSON, repair: as_it_is, read: metrics },
    Reader { name: "steps", seeds: |_| texts(STEPS), words: WORDS_OF_JSON, repair: as_it_is, read: steps },
];

const WORDS_OF_MODELS: &[&str] = &[
    "->",
    "[N, 3]",
    "sum[k]",
    "max[i, j]",
    "(",
    "}",
    "{",
    "let ",
    "if ",
    "else ",
    "where ",
    "Linear(",
    "Conv(8, 3)",
    "flatten",
    "for ",
    "repeat ",
    "x[n, k]",
    "top(2)",
    "=",
    "..",
    "use A from \"a.ansatz\"\n",
    "assert M {\n",
    "# ",
    "state ",
    "param ",
    "% 2",
    "/ 0",
    "- 1",
    "* 1000000000",
    "\"",
    "class[3]",
    "f32",
    "1e308",
    "causal",
    "softmax",
    "reshape",
];
const WORDS_OF_SETTINGS: &[&str] = &[
    "train.",
    "batch=",
    "optimizer.",
    "lr=",
    "length=",
    "epochs",
    "steps",
    "data.",
    "model.",
    "=",
    "\n",
    "->",
    "(",
    "\"",
    "seed=",
    "schedule=",
    "keep=",
    "save=",
    "metrics=",
    "clip=",
    "loss=",
];
const WORDS_OF_ARRAYS: &[&str] = &[
    "'shape': (",
    "'descr': '<f8'",
    "'fortran_order': True",
    "(4, 0)",
    "()",
    "|b1",
    ">i8",
    "<f2",
    "-1",
    "L",
    "<U7",
    "|O",
];
const WORDS_OF_PNG: &[&str] =
    &["IHDR", "IDAT", "PLTE", "tRNS", "IEND", "fcTL", "acTL", "fdAT", "iCCP", "zTXt", "sRGB", "gAMA"];
const WORDS_OF_JSON: &[&str] =
    &["{", "}", "[", "]", ":", ",", "null", "1e999", "\"step\":", "\\ud800", "true", "\n", "\"", "[[[["];

const SETTINGS: &[&str] = &[
    "train.batch=64\ntrain.length=3 epochs\nseed=4",
    "optimizer.lr=0.01\ntrain.optimizer=sgd(lr = 0.1, momentum = 0.9)",
    "train.schedule=warmup(40 steps) -> cosine\ntrain.loss=cross_entropy(label, smoothing = 0.1)",
    "train.keep=best(valid.accuracy), last(2)\ntrain.save=3 steps\ntrain.metrics=accuracy, recall(macro)",
    "data.folder=/tmp\ntrain.item=Net\nclip=1.0\nprecision=fast",
];
const TABLES: &[&str] = &[
    "a,\"b\",y\n1,2.5,0\n-3,4e2,1\n5,,2\n\"6\",7,1\n",
    "y,b,a\r\nred,1,2\r\nblue,3,4\r\n\"red\",5,6\r\n",
    "\u{feff}a,b,y\n1e38,0x1,inf\n",
];
const COMMANDS: &[&str] = &[
    r#"{"model":"/a/net.ansatz","model_from_folder":"../net.ansatz","overrides":[["train.batch","64"]],"no_shuffle":false}"#,
    r#"{"model":"net.ansatz","model_from_folder":"","overrides":[],"no_shuffle":true,"init":{"path":"w","content":"00"}}"#,
];
const METRICS: &[&str] = &[
    "{\"epoch\":1.0,\"step\":8,\"lr\":0.1,\"seconds\":1.5,\"train.loss\":1.2,\"valid.loss\":0.9}\n{\"epoch\":2.0,\"step\":16,\"lr\":0.1,\"seconds\":1.5,\"train.loss\":0.2,\"valid.loss\":0.1}\n",
    "{\"epoch\":0.5,\"step\":4,\"train.loss\":null,\"test.loss\":1e-300}\n",
];
const STEPS: &[&str] = &[
    "{\"step\":1,\"loss\":0.5,\"lr\":0.1,\"ms\":1.0}\n{\"step\":2,\"loss\":0.25,\"lr\":0.1,\"ms\":1.0,\"grads\":{\"a\":1.0}}\n",
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The shipped models, those of the tests and the library itself.
fn models(_: &Path) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["models", "tests/corpus", "benches/models", "src/library", "tests/ui"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten());
    let mut paths: Vec<PathBuf> =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "ansatz")).collect();
    paths.sort();
    let read = paths.iter().filter_map(|path| std::fs::read(path).ok());
    read.filter(|text| text.len() < 8000).chain([MODEL.as_bytes().to_vec()]).collect()
}

fn npys(_: &Path) -> Vec<Vec<u8>> {
    let kinds = [("|u1", 1), ("|b1", 1), ("<i2", 2), (">i4", 4), ("<i8", 8), ("<f2", 2), ("<f4", 4), ("<f8", 8)];
    kinds.iter().map(|(descr, width)| formats::npy(descr, "(4, 2, 3)", &vec![1; 24 * width])).collect()
}

fn idxs() -> Vec<Vec<u8>> {
    let kinds = [(0x08, 1), (0x09, 1), (0x0b, 2), (0x0c, 4), (0x0d, 4), (0x0e, 8)];
    kinds.iter().map(|(kind, width)| formats::idx(*kind, &[4, 2, 3], &vec![1; 24 * width])).collect()
}

fn jpegs() -> Vec<Vec<u8>> {
    let all: [&[u8]; 2] = [include_bytes!("../data/pictures/colour.jpg"), include_bytes!("../data/pictures/grey.jpg")];
    all.iter().map(|bytes| bytes.to_vec()).collect()
}

/// Half of the inputs are compressed after the change.
fn gzipped(bytes: &mut Vec<u8>, random: &mut Random) {
    if random.once_in(2) {
        *bytes = formats::gzip(bytes);
    }
}

/// An archive around a changed array; half of the archives are changed too.
fn zipped(bytes: &mut Vec<u8>, random: &mut Random) {
    let name = ["x.npy", "x.npy", "../x.npy", "y.npy"][random.below(4)];
    let other = formats::npy("|u1", "(1,)", &[1]);
    *bytes = formats::archive(&[(name, bytes), ("z.npy", &other)], random.once_in(2));
    if random.once_in(2) {
        // The directory at the end is an archive's head.
        bytes.reverse();
        super::random::change(bytes, &[], &[], random);
        bytes.reverse();
    }
}

/// What a finding would print; it must name a place in a text that exists.
fn printed(found: &[Diagnostic], project: &Project) {
    for text in [render::human(found, &project.sources, false), render::json(found, &project.sources)] {
        std::hint::black_box(text);
    }
    std::hint::black_box(render::github(found, &project.sources));
}

fn model_text(_: &Path) -> Read {
    Box::new(|bytes| {
        let (project, file, mut found) = Project::load(Path::new("m.ansatz"), None, &|path| match path.to_str() {
            Some("m.ansatz") => Ok(bytes.to_vec()),
            Some(_) | None => Err(std::io::ErrorKind::NotFound.into()),
        });
        if !found.iter().any(Diagnostic::is_error) {
            found.extend(workspace::check::check(&project, file, &Lowering::default()));
        }
        printed(&found, &project);
        Ok(!found.iter().any(Diagnostic::is_error))
    })
}

fn settings(_: &Path) -> Read {
    Box::new(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let pairs: Vec<(String, String)> = pairs.map(|(key, value)| (key.trim().into(), value.trim().into())).collect();
        let (mut project, file, _) = Project::from_text("net.ansatz", MODEL);
        project.add_settings(&pairs);
        match model::training(&project, file, &pairs) {
            Ok(training) => {
                let fields = data::fields(&training.settings.data);
                let mut found = keep::findings(&training.settings, None);
                found.extend(model::warnings(&training, &fields.unwrap_or_default(), Some(48)));
                printed(&found, &project);
                Ok(true)
            }
            Err(found) if found.is_empty() => Err("refused without a word".into()),
            Err(found) => {
                printed(&found, &project);
                Ok(false)
            }
        }
    })
}

fn weights(folder: &Path) -> Read {
    let path = folder.join("w.safetensors");
    Box::new(move |bytes| {
        std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
        match checkpoint::load(&path) {
            Ok((tensors, _)) => {
                let whole = |tensor: &checkpoint::Tensor<'_>| {
                    let elements = tensor.sizes.iter().try_fold(4usize, |product, size| product.checked_mul(*size));
                    elements == Some(tensor.bytes.len())
                };
                match tensors.values().all(whole) {
                    true => Ok(true),
                    false => Err("a tensor has other bytes than its sizes say".into()),
                }
            }
            Err(error) if error.0.contains("w.safetensors: ") => Ok(false),
            Err(error) => Err(format!("names no file: {error}")),
        }
    })
}

/// The data item of these lines, with paths in a folder.
fn spec(folder: &Path, body: &str) -> DataSpec {
    let text = format!(
        "data d {{\n{body}\n}}\nmodel M {{\n  input input: [N, 2]\n  return input\n}}\n\
         train M on d {{\n  loss = mse(input)\n  optimizer = sgd(lr = 1)\n  length = 1 epochs\n}}\n"
    );
    let (project, file, found) = Project::from_text("test.ansatz", &text);
    assert!(found.is_empty(), "{found:?}");
    let training = model::training(&project, file, &[]).expect("the item is right");
    DataSpec { root: folder.to_path_buf(), ..training.settings.data }
}

/// Opens the items of these bodies on a file of this name, and makes every batch of what they hold.
fn data_of(folder: &Path, name: &'static str, bodies: &[&str]) -> Read {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("inside of a folder")).expect("a temporary folder");
    let specs: Vec<DataSpec> = bodies.iter().map(|body| spec(folder, body)).collect();
    Box::new(move |bytes| {
        std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
        let mut taken = false;
        for spec in &specs {
            match data::open(spec, 1) {
                Ok(dataset) => {
                    taken = true;
                    let plan = Plan::evaluation(64);
                    for step in 0..dataset.train.steps_per_epoch(64) {
                        std::hint::black_box(dataset.train.batch_at(&plan, step));
                    }
                }
                Err(DataError::Spec(found)) if found.is_empty() => return Err("refused without a word".into()),
                Err(DataError::Spec(_)) => {}
                Err(error) if error.to_string().contains(name) => {}
                Err(error) => return Err(format!("names no file: {error}")),
            }
        }
        Ok(taken)
    })
}

fn npy(folder: &Path) -> Read {
    data_of(
        folder,
        "x.npy",
        &[
            "source = npy(x = \"x.npy\")\n x: f32[2, 3]",
            "source = npy(x = \"x.npy\")\n x: u8[2, 3]\n prepare.x = scale(1/255)",
        ],
    )
}

fn npz(folder: &Path) -> Read {
    data_of(folder, "z.npz", &["source = npz(\"z.npz\")\n x: f32[2, 3]"])
}

fn csv(folder: &Path) -> Read {
    let bodies = [
        "source = csv(\"t.csv\")\n x: f32[2]\n y: class[3]\n prepare.x = fill(mean) -> standardize",
        "source = csv(\"t.csv\", missing = \"?\")\n a: i32\n y: class[3]\n prepare = drop_missing",
        "source = csv(\"t.csv\", header = false, delimiter = \";\")\n x: f32",
    ];
    data_of(folder, "t.csv", &bodies)
}

fn idx(folder: &Path) -> Read {
    std::fs::write(folder.join("l"), formats::idx(8, &[4], &[0, 1, 2, 0])).expect("a temporary folder");
    data_of(
        folder,
        "i",
        &[
            "source = idx(images = \"i\", labels = \"l\")\n x: f32[2, 3]\n label: class[3]",
            "source = idx(images = \"i\")\n x: u8[2, 3]",
        ],
    )
}

fn cifar(folder: &Path) -> Read {
    data_of(
        folder,
        "c.bin",
        &[
            "source = cifar_binary(\"c.bin\")\n image: u8[3, 32, 32]\n label: class[10]",
            "source = cifar_binary(\"c.bin\", labels = fine)\n image: u8[3, 32, 32]\n label: class[100]",
        ],
    )
}

fn picture(folder: &Path) -> Read {
    data_of(
        folder,
        "p/a/x.png",
        &[
            "source = image_folder(\"p\", size = [4, 4])\n image: u8[3, 4, 4]\n label: class[1]",
            "source = image_folder(\"p\", size = [9, 5])\n image: u8[1, 9, 5]\n label: class[1]",
        ],
    )
}

fn artifact(_: &Path) -> Read {
    Box::new(|bytes| {
        let Ok(artifact) = Artifact::from_bytes(bytes) else { return Ok(false) };
        let holds = artifact.steps.values().all(|step| verify::verify(&step.program).is_ok());
        artifact.steps.values().for_each(|step| drop(step.program.fingerprint()));
        Ok(holds)
    })
}

fn command(folder: &Path) -> Read {
    let folder = folder.to_path_buf();
    Box::new(move |bytes| {
        std::fs::write(folder.join("run.json"), bytes).map_err(|error| error.to_string())?;
        match Record::command(&folder) {
            Ok(command) => {
                command.find_model(&folder);
                Ok(true)
            }
            Err(error) if error.0.contains("run.json: ") => Ok(false),
            Err(error) => Err(format!("names no file: {error}")),
        }
    })
}

fn metrics(folder: &Path) -> Read {
    let folder = folder.to_path_buf();
    Box::new(move |bytes| {
        std::fs::write(folder.join("metrics.jsonl"), bytes).map_err(|error| error.to_string())?;
        let run = RunFolder::of_run(&folder).map_err(|error| error.0)?;
        match Record::open(run, 12).and_then(|mut record| record.draw("net")) {
            Ok(()) => Ok(true),
            Err(error) if error.0.contains("metrics.jsonl: ") => Ok(false),
            Err(error) => Err(format!("names no file: {error}")),
        }
    })
}

fn steps(folder: &Path) -> Read {
    let path = folder.join("steps.jsonl");
    Box::new(move |bytes| {
        std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
        match StepLog::go_on(&path, 1) {
            Ok(log) => {
                drop(log);
                let left = std::fs::read(&path).map_err(|error| error.to_string())?;
                match bytes.starts_with(&left) {
                    true => Ok(true),
                    false => Err("what is left is not the front of what was there".into()),
                }
            }
            Err(error) if error.0.contains("steps.jsonl: ") => Ok(false),
            Err(error) => Err(format!("names no file: {error}")),
        }
    })
}
