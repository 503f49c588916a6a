//! Kernels that were made wrong are found: the shim is a proof only if it can fail.

#![allow(unsafe_code)]

use ansatz::cuda::compile::compile;
use ansatz::cuda::nvrtc::Nvrtc;
use ansatz::cuda::run::{Action, Arch, Gpu, Kind};
use ansatz::cuda::{Lowering, code};
use ansatz::device::{Device, StepInput};
use ansatz::kernel::{Persistent, Program, Role};
use ansatz::model::{Mode, Project, expand};
use ansatz::schedule::plan;
use std::collections::BTreeMap;

use super::shim;

/// A product of several tiles, a softmax of rows, a sum over columns, a sum over everything.
const MODEL: &str = "
model M {
  input x: [40, 70]
  param w: [300, 70] ~ normal(0, 1)
  y[n, o]   = sum[c] x[n, c] * w[o, c]
  p[n, o]   = softmax[o] y[n, o]
  column[o] = sum[n] p[n, o] * p[n, o]
  all       = sum[n, o] p[n, o] * y[n, o]
  return p, column, all
}
";

/// Places in the text where a change must be noticed, by the words there: the change, and why it is wrong.
const CHANGES: [(&str, &str, &str); 12] = [
    ("\n  barrier();\n  if (threadIdx.x % 32 == 0) put", "\n  if (threadIdx.x % 32 == 0) put", "slots are still read"),
    (
        "put(slots + threadIdx.x / 32, fold);\n  barrier();",
        "put(slots + threadIdx.x / 32, fold);",
        "slots are not yet written",
    ),
    ("put(slots + member * teams + row, fold);\n  barrier();", "put(slots + member * teams + row, fold);", "as above"),
    ("put_a(0), put_b(0);\n  barrier();", "put_a(0), put_b(0);", "the first panel is not yet there"),
    (
        "if (more) put_a(half ^ 1), put_b(half ^ 1);\n    barrier();",
        "if (more) put_a(half ^ 1), put_b(half ^ 1);",
        "nor is the next",
    ),
    (", half ^= 1)", ")", "one panel in the other's place"),
    ("if (at_m < 40 && at_n < 300) ", "", "results that do not exist"),
    ("start + deep < end", "true", "summands that do not exist"),
    ("for (int mask = members / 2; mask > 0", "for (int mask = members / 4; mask > 0", "half of a warp"),
    ("if (threadIdx.x % 32 == 0) put", "if (threadIdx.x % 64 == 0) put", "slots that nobody writes"),
    (
        "barrier();\n  fold = get(slots);",
        "if (threadIdx.x < 32) barrier();\n  fold = get(slots);",
        "a barrier that not all meet",
    ),
    ("const bool active = team < ", "const bool active = team <= ", "a row that does not exist"),
];

fn step() -> Program {
    let (project, file, found) = Project::from_text("mutated.ansatz", MODEL);
    assert!(found.is_empty(), "{found:#?}");
    let (expanded, _) = expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new()).expect("a model");
    let mut graph = expanded.graph;
    ansatz::passes::run(&mut graph);
    plan(&graph, &Persistent::of(&graph), &Lowering::default())
}

/// The results with a text that was changed and a share of the shared memory, or what the device says.
fn results(program: &Program, change: impl Fn(&str) -> String + 'static, shared: u32) -> Result<Vec<f32>, String> {
    let nvrtc = Nvrtc::open().expect("the shim's");
    let made = move |program: &Program, arch: Arch| {
        let mut code = compile(program, &[(arch, Kind::Cubin)], |text, arch, kind| {
            Ok(nvrtc.compile(&change(text), arch, kind)?.bytes)
        })?;
        for action in &mut code.actions {
            if let Action::Launch(launch) = action {
                launch.shared_bytes = launch.shared_bytes * shared / 100 / 4 * 4;
            }
        }
        Ok(code)
    };
    // SAFETY: code that touches what is not its own is stopped by the shim.
    let mut device = unsafe { Gpu::new(false, Box::new(made)) }.expect("the shim's");
    let loaded = device.load(program).map_err(|error| error.to_string())?;
    for (place, name) in [(Role::Input("x".into())), (Role::Param("w".into()))].into_iter().enumerate() {
        let buffer = program.find(&name).expect("declared");
        let value = |number: usize| ((number * 37 + place * 11) % 23) as f32 / 23.0 - 0.5;
        let values: Vec<f32> = (0..buffer.elements()).map(value).collect();
        device.write_f32(buffer, &values).map_err(|error| error.to_string())?;
    }
    device.run(loaded, StepInput::default()).map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for buffer in program.buffers.iter().filter(|buffer| buffer.role.output().is_some()) {
        results.extend_from_slice(&device.read_f32(buffer).map_err(|error| error.to_string())?);
    }
    Ok(results)
}

#[test]
fn every_wrong_kernel_is_noticed() {
    let _device = shim::open();
    let program = step();
    let source = code::text(&program, None).expect("a text").source;
    let right = results(&program, str::to_string, 100).expect("the text as it is");
    assert!(right.iter().all(|value| value.is_finite()));
    let mut missed = Vec::new();
    for (from, to, why) in CHANGES {
        assert!(source.contains(from), "nothing to change: {from}\n{source}");
        shim::forget();
        let found = results(&program, move |text| text.replace(from, to), 100);
        let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
        if found.is_ok_and(|found| found.iter().zip(&right).all(is_close)) {
            missed.push(format!("{why}: `{from}` -> `{to}`"));
        }
    }
    shim::forget();
    if results(&program, str::to_string, 90).is_ok() {
        missed.push("shared memory that is too little".into());
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
