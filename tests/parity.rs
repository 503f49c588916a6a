//! Parity with PyTorch: twenty optimizer steps from the same weights and batches.
//!
//! Input: `tests/parity/*.json`, made by `tests/parity/make.py`. Weights and batches come from the integer hash that
//! the script uses too. Tolerances: each loss within 1e-5 relative, each final weight within 1e-4 of its tensor's
//! largest element.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ansatz::graph::Graph;
use ansatz::model::{Mode, Project, expand};
use ansatz::runtime::checkpoint::{self, Note, Tensor};
use ansatz::syntax::ast::ItemKind;
use serde_json::Value;

const STEPS: usize = 20;

/// U[0, 1) from MurmurHash3's finaliser on (stream, position), as in `make.py`.
fn uniform(stream: u64, count: usize) -> impl Iterator<Item = f32> {
    (0..count as u64).map(move |position| {
        let mut h = (position * 0x9E37_79B1 + stream * 0x85EB_CA77 + 1) & 0xFFFF_FFFF;
        h ^= h >> 16;
        h = (h * 0x85EB_CA6B) & 0xFFFF_FFFF;
        h ^= h >> 13;
        h = (h * 0xC2B2_AE35) & 0xFFFF_FFFF;
        h ^= h >> 16;
        (h as f64 / 4_294_967_296.0) as f32
    })
}

/// The initial weights, by the same rules and in the same name order as `make.py`.
fn weights(shapes: &BTreeMap<String, Vec<usize>>) -> BTreeMap<String, Tensor<'static>> {
    let mut tensors = BTreeMap::new();
    for (stream, (name, sizes)) in shapes.iter().enumerate() {
        let count: usize = sizes.iter().product();
        let fan_in: usize = sizes[1..].iter().product();
        let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
        let value = |u: f32| match sizes.len() {
            1 if name.ends_with("weight") => 0.5 + u,
            1 => (2.0 * u - 1.0) * 0.1,
            _ => (2.0 * u - 1.0) * bound,
        };
        let bytes: Vec<u8> = uniform(stream as u64, count).flat_map(|u| value(u).to_le_bytes()).collect();
        tensors.insert(name.clone(), Tensor { sizes: sizes.clone(), integer: false, bytes: bytes.into() });
    }
    tensors
}

fn npy(path: &Path, descr: &str, shape: &str, data: impl Iterator<Item = [u8; 4]>) {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    data.for_each(|element| bytes.extend(element));
    std::fs::write(path, bytes).expect("written");
}

/// A model file of `tests/parity`, and what it is fed.
struct Case {
    name: &'static str,
    batch: usize,
    classes: usize,
}

/// The graph of the file's training step.
fn graph(path: &Path, name: &str) -> Graph {
    let (project, file, found) = Project::load(path, None, &|path| std::fs::read(path));
    assert!(found.is_empty(), "{name}: {found:#?}");
    let model = project.tree(file).items.iter().find_map(|item| match &item.kind {
        ItemKind::Train(train) => train.model.as_name().map(str::to_owned),
        _ => None,
    });
    let model = model.expect("a `train` item names its model");
    let expanded = expand(&project, file, &model, &[], Mode::Train, &BTreeMap::from([("N".into(), 8)]));
    expanded.unwrap_or_else(|found| panic!("{name}: {found:#?}")).0.graph
}

fn check(case: &Case) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/parity/{}.ansatz", case.name));
    let graph = graph(&source, case.name);
    let sample = ansatz::dim::bound(&graph.inputs[0].shape)[1..].to_vec();
    let count = STEPS * case.batch;
    let elements = count * sample.iter().product::<usize>();
    let shape: Vec<String> = std::iter::once(&count).chain(&sample).map(usize::to_string).collect();
    npy(&at("x.npy"), "<f4", &shape.join(", "), uniform(1000, elements).map(|u| (2.0 * u - 1.0).to_le_bytes()));
    let labels = uniform(1001, count).map(|u| ((u * case.classes as f32) as i32).to_le_bytes());
    npy(&at("y.npy"), "<i4", &format!("{count},"), labels);
    let shapes = graph.params.iter().map(|param| (param.name.clone(), ansatz::dim::bound(&param.shape)));
    let mut tensors = weights(&shapes.collect());
    for state in &graph.states {
        let sizes = ansatz::dim::bound(&state.shape);
        let count = sizes.iter().product();
        let bytes: Vec<u8> = std::iter::repeat_n((state.init as f32).to_le_bytes(), count).flatten().collect();
        tensors.insert(state.name.clone(), Tensor { sizes, integer: false, bytes: bytes.into() });
    }
    checkpoint::save(&at("init.safetensors"), &tensors, &Note::default()).expect("saved");
    std::fs::copy(source, at("model.ansatz")).expect("copied");

    let run = Command::new(env!("CARGO_BIN_EXE_ansatz"))
        .args(["train", "model.ansatz", "--init", "init.safetensors", "--no-shuffle", "--steps", "20"])
        .args(["--log", "steps.jsonl", "--run", "run"])
        .current_dir(folder.path())
        .output()
        .expect("the binary runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    let reference =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/parity/{}.json", case.name)));
    let reference: Value = serde_json::from_str(&reference.expect("a reference file")).expect("JSON");
    let log = std::fs::read_to_string(at("steps.jsonl")).expect("a log");
    let losses: Vec<f64> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["loss"].as_f64().expect("a finite loss"))
        .collect();
    let expected: Vec<f64> =
        reference["losses"].as_array().expect("losses").iter().map(|x| x.as_f64().expect("a number")).collect();
    assert_eq!(losses.len(), expected.len());
    for (step, (ours, theirs)) in losses.iter().zip(&expected).enumerate() {
        assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "step {}: {ours} against {theirs}", step + 1);
    }
    compare_weights(&at("run/weights.safetensors"), &reference["final"]);
}

fn compare_weights(path: &Path, reference: &Value) {
    let (ours, _) = checkpoint::load(path).expect("weights");
    let reference = reference.as_object().expect("tensors");
    assert_eq!(ours.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
    for (name, tensor) in &ours {
        let values: Vec<f64> =
            tensor.bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("four")))).collect();
        let theirs = &reference[name];
        let scale = values.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let expected = theirs["norm"].as_f64().expect("a norm");
        assert!((norm - expected).abs() <= 1e-4 * expected, "{name}: norm {norm} against {expected}");
        let stride = theirs["stride"].as_u64().expect("a stride") as usize;
        for (i, element) in theirs["elements"].as_array().expect("elements").iter().enumerate() {
            let (a, b) = (values[i * stride], element.as_f64().expect("a number"));
            assert!((a - b).abs() <= 1e-4 * scale, "{name}[{}]: {a} against {b}", i * stride);
        }
    }
}

#[test]
fn text_mlp_with_sgd() {
    check(&Case { name: "text_mlp", batch: 64, classes: 10 });
}

#[test]
fn seed_cnn_with_adam() {
    check(&Case { name: "seed_cnn", batch: 16, classes: 10 });
}

#[test]
fn small_cnn_with_batch_norm_adamw_and_warmup_cosine() {
    check(&Case { name: "small_cnn", batch: 24, classes: 7 });
}

/// Of `tests/parity/systems`.
macro_rules! systems {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(&Case { name: concat!("systems/", stringify!($name)), batch: 8, classes: 5 });
        })*

        #[test]
        fn every_system_is_tried() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/systems");
            let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
            let names = files.filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".ansatz")?.to_owned()));
            let found: std::collections::BTreeSet<String> = names.collect();
            let tried = [$(stringify!($name)),*];
            assert_eq!(found, tried.into_iter().map(str::to_owned).collect());
        }
    };
}

systems! {
    adadelta adagrad adamax amsgrad convnext cross_attention densenet gradient_penalty graph_convolution mixer moe rmsprop rotary siamese squeeze_excite swin t5 transposed unet vae vit
}
