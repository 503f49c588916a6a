#!/usr/bin/env python3
"""Builds the programs in `examples` and holds each of their losses against `ansatz train`: `check_examples.py [PROFILE]`.

Needs cc and NumPy (`pip install numpy==2.3.5`). PROFILE is `debug` (the default) or `release`; the compiler, the library and the Rust
example of that profile must be built: `cargo build --locked --bin ansatz && cargo build --locked -p ansatz-c --lib --example train_digits`,
each with `--release` for `release`.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROFILE = (sys.argv[1:] or ["debug"])[0]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / PROFILE
ANSATZ = str(TARGET / "ansatz")
EXAMPLES, TABLE = ROOT / "examples", str(ROOT / "models/data/digits.csv")
MODEL = [str(EXAMPLES / "digits.ansatz"), "--set", f"data.folder={ROOT / 'models/data'}"]


def run(folder, *command):
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}")
    return done.stdout


def hold_built():
    missing = [name for name in ["ansatz", "libansatz_c.a", "libansatz_c.so", "examples/train_digits"] if not (TARGET / name).exists()]
    if missing:
        option = " --release" if PROFILE == "release" else ""
        build = f"cargo build --locked{option} --bin ansatz && cargo build --locked{option} -p ansatz-c --lib --example train_digits"
        sys.exit(f"{TARGET} lacks {', '.join(missing)}; build them: {build}\n(`check_examples.py release` takes those of a release build)")
    if importlib.util.find_spec("numpy") is None:
        sys.exit("NumPy is missing: pip install numpy==2.3.5")


def main():
    hold_built()
    with tempfile.TemporaryDirectory() as folder:
        run(folder, ANSATZ, "train", *MODEL, "--no-shuffle", "--drop-last", "--log", "log")
        log = [json.loads(line) for line in (pathlib.Path(folder) / "log").read_text().splitlines()]
        expected = [step["loss"] for step in log]
        assert len(expected) == 168 and expected[-1] < expected[0] / 3, expected
        run(folder, ANSATZ, "build", *MODEL, "-o", "trainer")
        run(folder, ANSATZ, "build", *MODEL, "--emit", "obj", "-o", "digits")
        source, library = str(EXAMPLES / "c/train.c"), str(TARGET / "libansatz_c.a")
        warnings = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I."]
        run(folder, "cc", *warnings, source, "digits.o", library, "-o", "train", "-lm", "-lpthread", "-ldl")
        programs = {
            "C": ["./train", TABLE],
            "Rust": [str(TARGET / "examples/train_digits"), "trainer", TABLE],
            "Python": [sys.executable, str(EXAMPLES / "python/train.py"), str(TARGET / "libansatz_c.so"), "trainer", TABLE],
        }
        for name, command in programs.items():
            lines = run(folder, *command).splitlines()
            losses = [float(line.split()[1]) for line in lines]
            if losses != expected:
                differs = next((step for step, pair in enumerate(zip(losses, expected)) if pair[0] != pair[1]), None)
                sys.exit(f"{name}: {len(losses)} losses, {len(expected)} expected; the first that differs: {differs}")
            run(folder, ANSATZ, "eval", *MODEL, "--weights", "digits.safetensors")
            os.remove(pathlib.Path(folder) / "digits.safetensors")
        print(f"{len(programs)} programs, {len(expected)} losses each: equal to the bit to those of `ansatz train`")


if __name__ == "__main__":
    main()
