#!/usr/bin/env python3
"""Builds trainers and holds them against `ansatz train`: files, size, first step, an empty root, time of a step.

    cargo build --release
    sudo python3 scripts/check_trainers.py target/release/ansatz [--steps 30] [--rounds 5] [MODEL...]

Needs the right to change the root (`chroot`) for the empty root, which holds the trainer, the data and the libraries that
`ldd` names, all of the C library. Prints a line for each model and ends with 1 if one misses a bound.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["models/digits.ansatz", "models/mnist_cnn.ansatz", "benches/models/resnet18.ansatz",
          "benches/models/gpt-char.ansatz", "benches/models/bert-mini.ansatz"]
BUILD_SECONDS, BYTES, FIRST_STEP_SECONDS, RATIO = 2.0, 8_000_000, 0.050, 1.03
C_LIBRARY = re.compile(r"^(linux-vdso|libc\.so|libm\.so|/lib64/ld-linux|ld-linux)")


def run(command, **options):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{command}: {result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def libraries(program):
    """Files of shared libraries; an error where one is not of the C library."""
    found = []
    for line in run(["ldd", program]).splitlines():
        name = line.split()[0]
        if not C_LIBRARY.match(name):
            sys.exit(f"{program} needs {name}")
        found += re.findall(r"(/\S+)", line)
    return found


def step_times(log):
    """Milliseconds of all steps but the first two."""
    return [json.loads(line)["ms"] for line in open(log)][2:]


def tensors(file):
    """The numbers behind the header, which says where the data lay."""
    data = file.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little"):]


def in_empty_root(trainer, folder, steps):
    """Trains where there is nothing but the trainer, its data and the C library."""
    root = folder / "root"
    for file in libraries(trainer):
        (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / file[1:])
    shutil.copy(trainer, root / "trainer")
    shutil.copytree(ROOT / "models/data", root / "data")
    run(["chroot", root, "/trainer", "train", "--data", "/", "--steps", steps, "--run", "/run1", "--threads", 2])
    return tensors(root / "run1/last.safetensors")


def check(ansatz, model, steps, rounds):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        trainer = folder / "trainer"
        began = time.perf_counter()
        run([ansatz, "build", ROOT / model, "-o", trainer])
        build = time.perf_counter() - began
        size = trainer.stat().st_size
        foreign = [word for word in ("cranelift", "regalloc2", "pest-2", "pest_meta") if word.encode() in trainer.read_bytes()]
        times, firsts = {"ansatz": [], "trainer": []}, []
        commands = {"ansatz": [ansatz, "train", ROOT / model], "trainer": [trainer, "train"]}
        for round_ in range(rounds):
            for who, command in commands.items():
                out = folder / f"{who}{round_}"
                words = run(command + ["--steps", steps, "--run", out, "--log", f"{out}.jsonl", "--threads", 2])
                times[who].append(statistics.median(step_times(f"{out}.jsonl")))
                if who == "trainer":
                    # It is told at the step's end.
                    ended = float(re.search(r"first step after ([0-9.]+) s", words)[1])
                    firsts.append(ended - json.loads(open(f"{out}.jsonl").readline())["ms"] / 1e3)
        same = (folder / "ansatz0/last.safetensors").read_bytes() == (folder / "trainer0/last.safetensors").read_bytes()
        alone = in_empty_root(trainer, folder, steps)
        ratio = statistics.median(own / other for own, other in zip(times["trainer"], times["ansatz"]))
        same_alone = alone == tensors(folder / "trainer0/last.safetensors")
        print(f"{model}: built in {build:.2f} s, {size / 1e6:.2f} MB, first step begins after {min(firsts):.3f} s, "
              f"step {statistics.median(times['trainer']):.4f} ms, {ratio:.3f} of ansatz train's, "
              f"bits {'equal' if same else 'DIFFER'}, in an empty root {'equal' if same_alone else 'DIFFER'}, "
              f"compiler inside: {foreign or 'none'}", flush=True)
        met = [build < BUILD_SECONDS, size < BYTES, min(firsts) < FIRST_STEP_SECONDS, ratio < RATIO, same, same_alone]
        return all(met) and not foreign


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ansatz", type=pathlib.Path)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_intermixed_args()
    ansatz = options.ansatz.resolve()
    # Measured cuts of this machine would be those of both or of neither.
    os.environ["ANSATZ_CACHE"] = tempfile.mkdtemp()
    met = [check(ansatz, model, options.steps, options.rounds) for model in options.models]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
