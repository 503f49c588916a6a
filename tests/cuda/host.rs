//! `--device cuda` as a user meets it: without a driver, with one that fails, and on a device that works.

use std::path::Path;
use std::process::{Command, Output};

use super::shim;

/// Three layers and two classes of made-up data.
const MODEL: &str = "
model Net {
  input x: [N, 24]
  return x -> a: Linear(40) -> relu -> drop: Dropout(0.1) -> b: Linear(3)
}

data noise {
  source = random(samples = 200)
  x: f32[24]
  label: class[3]
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = adamw(lr = 0.01)
  batch     = 16
  length    = 3 epochs
  metrics   = accuracy
  save      = 5 steps
}
";

fn ansatz(folder: &Path, arguments: &[&str], libraries: Option<&Path>, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
    command.args(arguments).current_dir(folder).env("ANSATZ_CACHE", folder.join("cache")).env_remove("LD_LIBRARY_PATH");
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.envs(settings.iter().copied()).output().expect("it runs")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
    folder
}

fn losses(path: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(path).expect("a log");
    let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["loss"].as_f64();
    text.lines().map(|line| loss(line).expect("a loss")).collect()
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let (folder, shim) = (folder(), shim::folder());
    let here = folder.path();
    // The driver alone, and a compiler alone.
    let (driver, compiler) = (here.join("driver"), here.join("compiler"));
    for (to, name) in [(&driver, "libcuda.so.1"), (&compiler, "libnvrtc.so.13")] {
        std::fs::create_dir(to).expect("made");
        std::fs::copy(shim.join(name), to.join(name)).expect("copied");
    }
    type Case<'c> = (Option<&'c Path>, &'c [(&'c str, &'c str)], &'c [&'c str]);
    let cases: [Case<'_>; 9] = [
        (None, &[], &["no CUDA driver (libcuda.so.1)", "--device cpu"]),
        (Some(&compiler), &[], &["no CUDA driver (libcuda.so.1)"]),
        (Some(&driver), &[], &["no NVRTC", "pip install nvidia-cuda-nvrtc", "LD_LIBRARY_PATH"]),
        (Some(shim), &[("SHIM_DEVICES", "0")], &["the CUDA driver finds no GPU"]),
        (Some(shim), &[("SHIM_DRIVER", "11040")], &["too old", "CUDA 11.4", "12.0 or later"]),
        (
            Some(shim),
            &[("SHIM_MEMORY", "4000")],
            &["of the GPU's memory, of which 3.9 KiB are free", "a smaller model"],
        ),
        (Some(shim), &[("SHIM_MEMORY", "26000")], &["of the GPU's memory", "samples fit: `--set train.batch="]),
        // A driver for CUDA 12 takes no image of NVRTC 13.
        (Some(shim), &[("SHIM_DRIVER", "12020")], &["libnvrtc.so.12, for this driver", "nvidia-cuda-nvrtc-cu12"]),
        (Some(shim), &[("SHIM_ARCH", "70")], &["compiles for no GPU as old as sm_70"]),
    ];
    for (libraries, settings, wanted) in cases {
        let arguments = ["train", "net.ansatz", "--device", "cuda", "--run", "r"];
        let output = ansatz(here, &arguments, libraries, settings);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{settings:?}: {words}");
        assert!(wanted.iter().all(|wanted| words.contains(wanted)), "{settings:?}: {words}");
        assert!(!words.contains("panicked") && !here.join("r").exists(), "{words}");
    }
}

#[test]
fn devices_says_what_is_there_and_why_not_the_rest() {
    let folder = folder();
    let output = ansatz(folder.path(), &["devices"], None, &[]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && words.contains("cpu: ") && words.contains("no CUDA driver"), "{words}");
    let output = ansatz(folder.path(), &["devices"], Some(shim::folder()), &[]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.contains("cuda: shim, sm_90, 8.0 GiB, 132 multiprocessors"), "{words}");
    assert!(words.contains("NVRTC 13.0, compiles for sm_80, sm_90, sm_100"), "{words}");
}

#[test]
fn a_run_has_the_losses_of_the_cpu_and_checkpoints_go_both_ways() {
    let (folder, shim) = (folder(), Some(shim::folder()));
    let here = folder.path();
    let done = |arguments: &[&str]| {
        let output = ansatz(here, arguments, shim, &[]);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    done(&["train", "net.ansatz", "--run", "on_cpu", "--log", "cpu.jsonl"]);
    done(&["train", "net.ansatz", "--device", "cuda", "--run", "on_gpu", "--log", "gpu.jsonl"]);
    let (cpu, gpu) = (losses(&here.join("cpu.jsonl")), losses(&here.join("gpu.jsonl")));
    // 200 samples: 12 batches of 16 and one of 8, three times.
    assert!(cpu.len() == 39 && gpu.len() == 39, "{} and {}", cpu.len(), gpu.len());
    for (step, (a, b)) in cpu.iter().zip(&gpu).enumerate() {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "step {step}: {a} and {b}");
    }
    // The same bits again, from a run that was stopped, in code that was kept.
    done(&["train", "net.ansatz", "--device", "cuda", "--run", "again", "--stop-after", "11"]);
    done(&["resume", "again"]);
    let weights = |run: &str| std::fs::read(here.join(run).join("last.safetensors")).expect("weights");
    let tensors = |run: &str| {
        let bytes = weights(run);
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut all: Vec<(String, Vec<u8>)> =
            file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect();
        all.sort();
        all
    };
    assert!(tensors("again") == tensors("on_gpu"), "a run that was stopped has other bits");
    // Begun here, ended there, and the other way round.
    for (begun, ended) in [("cuda", "cpu"), ("cpu", "cuda")] {
        let log = format!("{begun}-{ended}.jsonl");
        done(&["train", "net.ansatz", "--device", begun, "--run", begun, "--stop-after", "11", "--log", &log]);
        done(&["resume", begun, "--device", ended, "--log", &log]);
        let mixed = losses(&here.join(log));
        assert_eq!(mixed.len(), 39);
        assert!(cpu.iter().zip(&mixed).all(|(a, b)| (a - b).abs() <= 1e-4 * a.abs()), "{begun} then {ended}");
    }
    let words = |arguments: &[&str]| {
        let output = ansatz(here, arguments, shim, &[]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let figures =
        |device| words(&["eval", "net.ansatz", "--weights", "on_gpu/weights.safetensors", "--device", device]);
    let accuracy = |text: &str| text.lines().find(|line| line.contains("accuracy")).map(str::to_string);
    let (there, here) = (accuracy(&figures("cuda")), accuracy(&figures("cpu")));
    assert!(there.is_some() && there == here, "{there:?} and {here:?}");
}

#[test]
fn a_trainer_for_gpus_needs_their_driver_alone() {
    let (folder, shim) = (folder(), shim::folder());
    let here = folder.path();
    let driver = here.join("driver");
    std::fs::create_dir(&driver).expect("made");
    std::fs::copy(shim.join("libcuda.so.1"), driver.join("libcuda.so.1")).expect("copied");
    let ran = |program: &str, arguments: &[&str], libraries: Option<&Path>| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(here).env_remove("LD_LIBRARY_PATH").env("ANSATZ_CACHE", here.join("cache"));
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ansatz = env!("CARGO_BIN_EXE_ansatz");
    let built = ran(ansatz, &["build", "net.ansatz", "--device", "cuda", "-o", "trainer"], Some(shim));
    assert_eq!(built.0, Some(0), "{}", built.1);
    let train = ["train", "net.ansatz", "--device", "cuda", "--run", "a", "--log", "a.jsonl"];
    assert_eq!(ran(ansatz, &train, Some(shim)).0, Some(0));
    // On a GPU of each family, and on a later one.
    for (number, arch) in ["80", "86", "90", "100", "120"].into_iter().enumerate() {
        let (run, log) = (format!("r{number}"), format!("r{number}.jsonl"));
        let mut command = Command::new(here.join("trainer"));
        command.args(["train", "--run", &run, "--log", &log]).current_dir(here);
        let output = command.env("LD_LIBRARY_PATH", &driver).env("SHIM_ARCH", arch).output().expect("it runs");
        assert!(output.status.success(), "{arch}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(losses(&here.join(log)), losses(&here.join("a.jsonl")), "{arch}");
    }
    let trainer = here.join("trainer");
    let trainer = trainer.to_str().expect("UTF-8");
    // A run of the processor goes on on the GPU, and the other way round.
    let begun = ["train", "net.ansatz", "--run", "c", "--stop-after", "11", "--log", "c.jsonl"];
    assert_eq!(ran(ansatz, &begun, None).0, Some(0));
    let (code, words) = ran(trainer, &["resume", "c", "--log", "c.jsonl"], Some(&driver));
    assert_eq!((code, losses(&here.join("c.jsonl")).len()), (Some(0), 39), "{words}");
    let (code, words) = ran(trainer, &["train"], None);
    assert!(code == Some(2) && words.contains("no CUDA driver"), "{words}");
    let (code, words) = ran(trainer, &["train", "--device", "cpu"], Some(&driver));
    assert!(code == Some(2) && words.contains("GPUs alone"), "{words}");
    assert_eq!(ran(ansatz, &["build", "net.ansatz", "-o", "plain"], None).0, Some(0));
    let plain = here.join("plain");
    let plain = plain.to_str().expect("UTF-8");
    let (code, words) = ran(plain, &["train", "--device", "cuda"], Some(&driver));
    assert!(code == Some(2) && words.contains("the processor alone"), "{words}");
    let begun = ["train", "--run", "g", "--stop-after", "11", "--log", "g.jsonl"];
    assert_eq!(ran(trainer, &begun, Some(&driver)).0, Some(0));
    let (code, words) = ran(plain, &["resume", "g", "--log", "g.jsonl"], None);
    assert_eq!((code, losses(&here.join("g.jsonl")).len()), (Some(0), 39), "{words}");
}

#[test]
fn a_gpu_without_tensor_cores_is_told_apart() {
    let (folder, shim) = (folder(), Some(shim::folder()));
    for precision in ["tf32", "bf16"] {
        let set = format!("train.precision={precision}");
        let arguments = ["train", "net.ansatz", "--device", "cuda", "--set", &set, "--run", "r"];
        let output = ansatz(folder.path(), &arguments, shim, &[("SHIM_ARCH", "75")]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains("sm_75 has no tensor cores") && words.contains("use `strict`"), "{words}");
    }
}

#[test]
fn what_is_not_finite_is_told_with_its_operation() {
    let (folder, shim) = (folder(), Some(shim::folder()));
    let here = folder.path();
    let bad = "loss bad(y: [N, C], label: i32[N]) = mean[n] (log(mean[c] (y[n, c])) + 0.0 * y[n, label[n]])\n";
    let text = bad.to_string() + &MODEL.replace("cross_entropy(label)", "bad(label)");
    std::fs::write(here.join("net.ansatz"), text).expect("written");
    let output = ansatz(here, &["train", "net.ansatz", "--device", "cuda", "--run", "r"], shim, &[]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("a logarithm of zero or of a negative number at net.ansatz:1:"), "{words}");
}

#[test]
fn a_gpu_that_is_lost_in_a_run_leaves_the_checkpoint_whole() {
    let (folder, shim) = (folder(), Some(shim::folder()));
    let here = folder.path();
    let arguments = ["train", "net.ansatz", "--device", "cuda", "--run", "r", "--log", "log.jsonl"];
    let output = ansatz(here, &arguments, shim, &[("SHIM_LOST", "250")]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("the GPU") && words.contains("CUDA_ERROR_LAUNCH_FAILED"), "{words}");
    assert!(!words.contains("panicked"), "{words}");
    let whole = ansatz(here, &["resume", "r", "--log", "log.jsonl"], shim, &[]);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let uninterrupted = ["train", "net.ansatz", "--device", "cuda", "--run", "s", "--log", "whole.jsonl"];
    assert!(ansatz(here, &uninterrupted, shim, &[]).status.success());
    assert_eq!(losses(&here.join("log.jsonl")), losses(&here.join("whole.jsonl")));
}
