//! Parity with PyTorch: twenty optimizer steps from the same weights and batches.
//!
//! Input: `tests/parity/*.json`, made by `tests/parity/make.py`. Weights and batches come from the integer hash that
//! the script uses too. Tolerances: each loss within 1e-5 relative, each final weight within 1e-4 of its tensor's
//! largest element.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ansatz::runtime::checkpoint::{self, Note, Tensor};
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
fn weights(shapes: &[(&str, &[usize])]) -> BTreeMap<String, Tensor<'static>> {
    let mut tensors = BTreeMap::new();
    let mut sorted = shapes.to_vec();
    sorted.sort();
    for (stream, (name, sizes)) in sorted.into_iter().enumerate() {
        let count: usize = sizes.iter().product();
        let fan_in: usize = sizes[1..].iter().product();
        let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
        let value = |u: f32| match sizes.len() {
            1 if name.ends_with("weight") => 0.5 + u,
            1 => (2.0 * u - 1.0) * 0.1,
            _ => (2.0 * u - 1.0) * bound,
        };
        let bytes: Vec<u8> = uniform(stream as u64, count).flat_map(|u| value(u).to_le_bytes()).collect();
        tensors.insert(name.to_string(), Tensor { sizes: sizes.to_vec(), integer: false, bytes: bytes.into() });
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

struct Case {
    name: &'static str,
    sample: &'static [usize],
    batch: usize,
    classes: usize,
    shapes: &'static [(&'static str, &'static [usize])],
    /// Tensors that start as zeros or ones and are not in the weight file's hash order.
    buffers: &'static [(&'static str, usize, f32)],
}

fn check(case: &Case) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let count = STEPS * case.batch;
    let elements = count * case.sample.iter().product::<usize>();
    let shape: Vec<String> = std::iter::once(&count).chain(case.sample).map(usize::to_string).collect();
    npy(&at("x.npy"), "<f4", &shape.join(", "), uniform(1000, elements).map(|u| (2.0 * u - 1.0).to_le_bytes()));
    let labels = uniform(1001, count).map(|u| ((u * case.classes as f32) as i32).to_le_bytes());
    npy(&at("y.npy"), "<i4", &format!("{count},"), labels);
    let mut tensors = weights(case.shapes);
    for (name, size, value) in case.buffers {
        let bytes: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), *size).flatten().collect();
        tensors.insert(name.to_string(), Tensor { sizes: vec![*size], integer: false, bytes: bytes.into() });
    }
    checkpoint::save(&at("init.safetensors"), &tensors, &Note::default()).expect("saved");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/parity/{}.ansatz", case.name));
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
    check(&Case {
        name: "text_mlp",
        sample: &[1000],
        batch: 64,
        classes: 10,
        shapes: &[
            ("fc1.bias", &[500]),
            ("fc1.weight", &[500, 1000]),
            ("fc2.bias", &[250]),
            ("fc2.weight", &[250, 500]),
            ("fc3.bias", &[10]),
            ("fc3.weight", &[10, 250]),
        ],
        buffers: &[],
    });
}

#[test]
fn seed_cnn_with_adam() {
    check(&Case {
        name: "seed_cnn",
        sample: &[3, 32, 32],
        batch: 16,
        classes: 10,
        shapes: &[
            ("conv1.bias", &[32]),
            ("conv1.weight", &[32, 3, 5, 5]),
            ("conv2.bias", &[64]),
            ("conv2.weight", &[64, 32, 5, 5]),
            ("fc1.bias", &[1024]),
            ("fc1.weight", &[1024, 1600]),
            ("fc2.bias", &[10]),
            ("fc2.weight", &[10, 1024]),
        ],
        buffers: &[],
    });
}

#[test]
fn small_cnn_with_batch_norm_adamw_and_warmup_cosine() {
    check(&Case {
        name: "small_cnn",
        sample: &[3, 13, 11],
        batch: 24,
        classes: 7,
        shapes: &[
            ("bn1.bias", &[12]),
            ("bn1.weight", &[12]),
            ("bn2.bias", &[20]),
            ("bn2.weight", &[20]),
            ("conv1.weight", &[12, 3, 3, 3]),
            ("conv2.weight", &[20, 12, 3, 3]),
            ("fc.bias", &[7]),
            ("fc.weight", &[7, 20]),
        ],
        buffers: &[
            ("bn1.running_mean", 12, 0.0),
            ("bn1.running_var", 12, 1.0),
            ("bn2.running_mean", 20, 0.0),
            ("bn2.running_var", 20, 1.0),
        ],
    });
}
