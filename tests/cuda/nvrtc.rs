//! The text under NVIDIA's own compiler, where `CUDA_PATH` names it: `scripts/check_cuda.py` runs these.

use ansatz::cuda::code::text;
use ansatz::cuda::nvrtc::Nvrtc;
use ansatz::cuda::run::{Arch, Kind};
use ansatz::cuda::{Lowering, usage};
use ansatz::kernel::Persistent;
use ansatz::schedule::plan;

use crate::random_graphs::with_gradients;

/// Each compiles for one of the architectures.
const GRAPHS: u64 = 24;

#[test]
#[ignore = "needs NVRTC: scripts/check_cuda.py"]
fn random_graphs_compile_for_every_architecture_without_spills() {
    let root = std::env::var_os("CUDA_PATH").expect("CUDA_PATH names an installation");
    let nvrtc = Nvrtc::open().expect("NVRTC");
    let architectures = ["sm_80", "sm_90", "sm_100"].map(|name| Arch::parse(name).expect("an architecture"));
    for seed in 0..GRAPHS {
        let mut graph = with_gradients(seed).graph;
        ansatz::passes::run(&mut graph);
        let program = plan(&graph, &Persistent::of(&graph), &Lowering::default());
        let text = text(&program, None).expect("a text");
        let arch = architectures[seed as usize % architectures.len()];
        let compiled = nvrtc.compile(&text.source, arch, Kind::Cubin);
        let compiled = compiled.unwrap_or_else(|error| panic!("graph {seed}: {error}\n{}", text.source));
        assert_eq!(&compiled.bytes[..4], b"\x7fELF", "{root:?} holds no compiler of NVIDIA's");
        let usage = usage::usage(&compiled.log, text.functions).unwrap_or_else(|| panic!("{}", compiled.log));
        let spilled = usage.iter().position(|usage| usage.spilled_bytes > 0);
        assert_eq!(spilled, None, "graph {seed} for {arch}\n{}", text.source);
    }
}

#[test]
#[ignore = "needs NVRTC: scripts/check_cuda.py"]
fn ptx_is_made_too() {
    let mut graph = with_gradients(1).graph;
    ansatz::passes::run(&mut graph);
    let program = plan(&graph, &Persistent::of(&graph), &Lowering::default());
    let text = text(&program, None).expect("a text");
    let nvrtc = Nvrtc::open().expect("NVRTC");
    let compiled = nvrtc.compile(&text.source, Arch::parse("sm_80").expect("an architecture"), Kind::Ptx);
    let ptx = String::from_utf8(compiled.expect("PTX").bytes).expect("text");
    assert!(ptx.contains(".target sm_80") && ptx.contains(".entry k0("), "{ptx}");
}
