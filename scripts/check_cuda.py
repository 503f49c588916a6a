#!/usr/bin/env python3
"""Holds the CUDA back end against NVIDIA's compiler and against the CPU, on a machine without a GPU.

    cargo build
    python3 scripts/check_cuda.py target/debug/ansatz                                  # what CI runs
    python3 scripts/check_cuda.py target/release/ansatz --all                          # every model, three GPUs
    python3 scripts/check_cuda.py target/release/ansatz --parts parity --steps 20      # minutes to an hour
    python3 scripts/check_cuda.py target/release/ansatz --parts parity --gpu           # on a GPU, if there is one

`texts`: every kernel of the models compiles under NVRTC (from PyPI, into target/nvrtc); none spills registers to memory.
With `--all`, also for the A100 and the B200, and inference; and random graphs.
`parity`: the losses of so many steps, kernels compiled by g++ and run by the shim of tests/cuda, beside those of the CPU.
Races are looked for where there are at most five steps; it takes ten times as long. With `--gpu` the same on a real one.
With `--smooth`, models with `gelu` for `relu` and `avg_pool` for `max_pool`: how far a model's losses go apart that has no point
at which a rounding decides between two gradients.
`suite`: `scripts/gpu_suite.py --quick` on the shim.

Exit code 1 where a kernel does not compile or spills, or a loss differs by more than 1e-4 of it (`--precision bf16`: 0.02).
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NVRTC = "nvidia-cuda-nvrtc==13.0.88"
# Kernels that may spill, as "model: kernel name at place", each with its reason.
SPILLS = {
    # 8 bytes, on one architecture each: the assembler stays at 64 registers, with which four such blocks share a multiprocessor.
    "own-attention: product at benches/models/own-attention.ansatz:19:40",
    "own-conv1d: product at benches/models/own-conv1d.ansatz:7:12",
    "own-conv1d: product at benches/models/own-conv1d.ansatz:8:12",
}
# How far a loss may be off, relative. Factors of f32 err by 2^-24, of TF32 by 2^-12, of bfloat16 by 2^-9; a loss goes through some ten
# of them in turn, and steps add up.
TOLERANCES = {"strict": 1e-4, "tf32": 5e-3, "bf16": 2e-2}
# The smaller ones, for a look in CI; the others take minutes on the shim.
SMALL = ["spirals", "linear_regression", "breast_cancer", "mlp-tiny"]
# Of which a step is too large for a CPU.
HUGE = ["gpt2-124m"]


def nvrtc():
    """The folder of NVRTC, installed if need be."""
    place = ROOT / "target" / "nvrtc"
    if not place.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", NVRTC], check=True)
    found = list(place.glob("lib/python*/site-packages/nvidia/cu13"))
    assert found, f"{NVRTC} is not in {place}"
    return found[0]


def shim():
    """The folder of the libraries that stand for NVIDIA's."""
    place = ROOT / "target" / "shim"
    place.mkdir(parents=True, exist_ok=True)
    sources = ROOT / "tests" / "cuda" / "shim"
    (place / "kernel.h").write_bytes((sources / "kernel.h").read_bytes())
    for source, name in [("driver.cpp", "libcuda.so.1"), ("compiler.cpp", "libnvrtc.so.13")]:
        call = ["g++", "-std=c++17", "-O2", "-fPIC", "-shared", f"-Wl,-soname,{name}", f'-DSHIM_FOLDER="{place}"']
        subprocess.run([*call, "-o", place / name, sources / source, "-ldl"], check=True)
    return place


def models(wanted):
    files = sorted((ROOT / "models").glob("*.ansatz")) + sorted((ROOT / "benches" / "models").glob("*.ansatz"))
    return [file for file in files if not wanted or file.stem in wanted]


def check_texts(ansatz, files, gpus, purposes):
    """The number of kernels that do not compile, or spill."""
    wrong = 0
    environment = dict(os.environ, CUDA_PATH=str(nvrtc()))
    print(f"{'model':<20} {'GPU':<6} {'kernels':>8} {'functions':>10} {'registers':>10} {'spilling':>9} {'s':>6}")
    for file in files:
        for gpu in gpus:
            for purpose in purposes:
                began = time.time()
                call = [ansatz, "plan", file.relative_to(ROOT), "--device", "cuda", "--gpu", gpu, "--json", *purpose]
                done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
                plan = json.loads(done.stdout) if done.returncode == 0 else {}
                launches = [launch for launch in plan.get("launches", []) if launch["function"] is not None]
                if not launches or any(launch["usage"] is None for launch in launches):
                    print(f"{file.stem} for {gpu}: {done.stderr}")
                    wrong += 1
                    continue
                names = [f"{file.stem}: {kernel['name']} at {kernel['place']}" for kernel in plan["kernels"]]
                pairs = [(name, launch) for name, launch in zip(names, plan["launches"]) if launch["function"] is not None]
                spilling = {name for name, launch in pairs if launch["usage"]["spilled_bytes"]}
                for name in sorted(spilling - SPILLS):
                    print(f"spills: {name}")
                    wrong += 1
                functions = len({launch["function"] for launch in launches})
                registers = max(launch["usage"]["registers"] for launch in launches)
                label = file.stem + (" (inference)" if purpose else "")
                print(f"{label:<20} {gpu:<6} {len(plan['launches']):>8} {functions:>10} {registers:>10} "
                      f"{len(spilling):>9} {time.time() - began:>6.1f}", flush=True)
    return wrong


def losses(ansatz, file, device, steps, environment, folder, precision="strict"):
    log = pathlib.Path(folder) / f"{device}.jsonl"
    call = [ansatz, "train", file, "--device", device, "--steps", str(steps), "--no-shuffle", "--log", log]
    call += ["--set", f"train.precision={precision}"]
    began = time.time()
    done = subprocess.run([*call, "--run", pathlib.Path(folder) / device], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()], time.time() - began


def on_shim(races):
    """The environment in which the shim is found."""
    cache = ROOT / "target" / "shim" / f"cache-{int(races)}"
    return dict(os.environ, LD_LIBRARY_PATH=str(shim()), SHIM_RACES=str(int(races)), ANSATZ_CACHE=str(cache))


def smoothed(file, folder):
    """A model without kinks, beside its data."""
    text = file.read_text().replace("relu", "gelu").replace("max_pool", "avg_pool")
    made = pathlib.Path(folder) / file.name
    made.write_text(text)
    if (file.parent / "data").exists():
        shutil.copytree(file.parent / "data", made.parent / "data")
    return made


def check_suite(ansatz):
    """Whether the suite for GPUs is wrong on the shim."""
    call = ["cargo", "test", "--locked", "--test", "main", "--no-run", "--message-format=json"]
    lines = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    made = [json.loads(line) for line in lines]
    tests = next(each["executable"] for each in made if each.get("target", {}).get("name") == "main" and each.get("executable"))
    call = [sys.executable, ROOT / "scripts" / "gpu_suite.py", ansatz, tests, "--quick"]
    return subprocess.run(call, env=on_shim(False)).returncode


def check_parity(ansatz, files, steps, on_gpu, precision, smooth):
    """The number of models whose losses differ."""
    wrong = 0
    environment = dict(os.environ) if on_gpu else on_shim(steps <= 5)
    print(f"{'model':<20} {'steps':>6} {'largest difference':>19} {'last loss':>12} {'s':>8}")
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = smoothed(file, folder) if smooth else file
                cpu, _ = losses(ansatz, file, "cpu", steps, environment, folder)
                gpu, seconds = losses(ansatz, file, "cuda", steps, environment, folder, precision)
            except RuntimeError as error:
                print(f"{file.stem}: {error}")
                wrong += 1
                continue
        assert len(cpu) == len(gpu) == steps, f"{file.stem}: {len(cpu)} and {len(gpu)} losses"
        largest = max(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(cpu, gpu))
        wrong += largest > TOLERANCES[precision]
        print(f"{file.stem:<20} {steps:>6} {largest:>19.2e} {gpu[-1]:>12.6f} {seconds:>8.1f}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ansatz", type=pathlib.Path)
    parser.add_argument("--parts", default="texts,parity,suite")
    parser.add_argument("--models", default="", help="names of model files, with commas between")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", choices=TOLERANCES, default="strict")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--smooth", action="store_true")
    arguments = parser.parse_args()
    ansatz = arguments.ansatz.resolve()
    wanted = [name for name in arguments.models.split(",") if name]
    parts, wrong = arguments.parts.split(","), 0
    if "texts" in parts:
        everything = arguments.all
        gpus = ["a100", "h100", "b200"] if everything else ["h100"]
        wrong += check_texts(ansatz, models(wanted), gpus, [[], ["--inference"]] if everything else [[]])
        call = ["cargo", "test", "--locked", "--test", "main", "--", "--ignored", "cuda::nvrtc"]
        wrong += subprocess.run(call, cwd=ROOT, env=dict(os.environ, CUDA_PATH=str(nvrtc()))).returncode != 0
    if "parity" in parts:
        everything = wanted or (None if arguments.all or arguments.gpu or arguments.steps > 5 else SMALL)
        files = [file for file in models(everything) if file.stem not in HUGE]
        wrong += check_parity(ansatz, files, arguments.steps, arguments.gpu, arguments.precision, arguments.smooth)
    if "suite" in parts:
        wrong += check_suite(ansatz)
    print(f"{wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
