#!/usr/bin/env python3
"""Everything that only a GPU can show, in one call, on a machine with a driver and NVRTC: no network, no Rust.

    cargo build --release && cargo test --release --no-run        # where Rust is; the test binary's name is printed
    python3 scripts/gpu_suite.py target/release/ansatz target/release/deps/main-…    # where the GPU is, in this folder

Parts (`--parts`, in this order):
    devices    what `ansatz devices` finds
    tests      random graphs, and every layer, loss, metric and optimizer of the library with gradients, on the GPU against the
               reference evaluator
    parity     losses of 20 steps of the models against the CPU's: strict, then tf32 and bf16 (scripts/check_cuda.py)
    bits       two runs of each small model have the same losses and the same weights, to the bit
    sanitizer  memcheck, racecheck and initcheck of compute-sanitizer over three steps of the small models
    start      seconds from the command to the end of a first step, with an empty cache of kernels and with a filled one
    speed      the table beside PyTorch: eager, compiled, recorded (benches/compare.py); GPT-2 in bf16 with its share of the peak

A tool that is not there (compute-sanitizer, PyTorch) is said to be left out. Exit code 1 where something is wrong.
`--quick` is a look at each part: how tests/cuda/shim's driver carries the suite where there is no GPU.
"""
import argparse
import filecmp
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ["devices", "tests", "parity", "bits", "sanitizer", "start", "speed"]
SMALL = ["models/spirals", "models/breast_cancer", "benches/models/mlp-tiny", "models/digits", "benches/models/gpt-tiny"]
# Arithmetic of a training step of GPT-2 124M: 6 a parameter and token, and 12 a layer, channel and pair of tokens (PaLM, appendix B).
GPT2_FLOPS = 16 * 1024 * (6 * 124_475_904 + 12 * 12 * 768 * 1024)


class Suite:
    def __init__(self, options):
        self.ansatz, self.tests = options.ansatz.resolve(), options.tests and options.tests.resolve()
        self.quick, self.wrong, self.left_out = options.quick, [], []
        self.peak = options.peak

    def judge(self, is_right, what):
        print(f"{'ok' if is_right else 'WRONG'}: {what}", flush=True)
        if not is_right:
            self.wrong.append(what)

    def leave_out(self, what):
        print(f"left out: {what}", flush=True)
        self.left_out.append(what)

    def call(self, command, **environment):
        began = time.time()
        command = [str(part) for part in command]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        return done.returncode, done.stdout, time.time() - began

    def train(self, model, folder, steps, *more, before=(), **environment):
        """Exit code, what was said, seconds."""
        command = [*before, self.ansatz, "train", f"{model}.ansatz", "--device", "cuda", "--steps", steps]
        command += ["--run", folder, "--log", f"{folder}.jsonl", *more]
        return self.call(command, **environment)

    def devices(self):
        code, said, _ = self.call([self.ansatz, "devices"])
        print(said)
        self.judge(code == 0 and "cuda" in said, "a GPU is found")

    def run_tests(self):
        if self.tests is None:
            return self.leave_out("tests: no test binary was named")
        filters = ["cuda::graphs"] if self.quick else ["cuda::graphs", "cuda::layers"]
        code, said, seconds = self.call([self.tests, "--test-threads", 1, *filters], ANSATZ_TEST_GPU="1")
        print(said)
        self.judge(code == 0 and " 0 passed" not in said, f"tests on the GPU, {seconds:.0f} s")

    def parity(self):
        for precision in ["strict"] if self.quick else ["strict", "tf32", "bf16"]:
            command = [sys.executable, ROOT / "scripts/check_cuda.py", self.ansatz, "--parts", "parity", "--gpu"]
            command += ["--precision", precision, "--steps", 3 if self.quick else 20]
            command += ["--models", "spirals,mlp-tiny"] if self.quick else []
            code, said, _ = self.call(command)
            print(said)
            self.judge(code == 0, f"losses against the CPU's, {precision}")

    def bits(self):
        for model in SMALL[:1] if self.quick else SMALL:
            with tempfile.TemporaryDirectory() as folder:
                runs = [pathlib.Path(folder) / name for name in ["a", "b"]]
                codes = [self.train(model, run, 3 if self.quick else 50)[0] for run in runs]
                logs = [[json.loads(line)["loss"] for line in open(f"{run}.jsonl")] for run in runs if codes == [0, 0]]
                weights = [run / "weights.safetensors" for run in runs]
                same = codes == [0, 0] and logs[0] == logs[1] and filecmp.cmp(*weights, shallow=False)
            self.judge(same, f"two runs of {model} have the same bits")

    def sanitizer(self):
        tool = shutil.which("compute-sanitizer")
        if tool is None:
            return self.leave_out("compute-sanitizer is not on the PATH")
        for check in ["memcheck", "racecheck", "initcheck"]:
            for model in SMALL:
                with tempfile.TemporaryDirectory() as folder:
                    before = [tool, "--tool", check, "--error-exitcode", 9]
                    code, said, seconds = self.train(model, pathlib.Path(folder) / "run", 3, before=before)
                if code:
                    print(said)
                self.judge(code == 0, f"{check} over {model}, {seconds:.0f} s")

    def start(self):
        for model in SMALL[:1] if self.quick else ["benches/models/gpt-tiny", "benches/models/bert-mini", "benches/models/resnet18"]:
            with tempfile.TemporaryDirectory() as folder:
                cache = str(pathlib.Path(folder) / "cache")
                runs = [self.train(model, pathlib.Path(folder) / name, 1, ANSATZ_CACHE=cache) for name in ["cold", "warm"]]
            if any(code for code, _, _ in runs):
                print(runs[0][1])
            self.judge(all(code == 0 for code, _, _ in runs),
                       f"{model}: one step and its end in {runs[0][2]:.2f} s cold, {runs[1][2]:.2f} s warm")

    def speed(self):
        found = []
        compare = [sys.executable, ROOT / "benches/compare.py", "--device", "cuda", "--ansatz", self.ansatz]
        quick = ["--only", "mlp-tiny", "--rounds", 1, "--seconds", 0.1]
        calls = [["--precision", "strict"], ["--precision", "bf16", "--only", "mlp-wide,resnet18,bert-mini,gpt2-124m"]]
        for more in [quick] if self.quick else calls:
            code, said, _ = self.call([*compare, *more])
            print(said)
            self.judge(code == 0, f"the table, {' '.join(map(str, more))}")
            found += [line for line in said.splitlines() if line.startswith("| gpt2-124m")]
        for line in found[-1:]:
            milliseconds = float(line.split("|")[2].split()[0])
            share = GPT2_FLOPS / (milliseconds * 1e-3) / (self.peak * 1e12)
            print(f"GPT-2 124M, 16 x 1024 tokens, bf16: {share:.1%} of {self.peak:.0f} Tflop/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ansatz", type=pathlib.Path)
    parser.add_argument("tests", type=pathlib.Path, nargs="?", help="the integration tests' binary")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--peak", type=float, default=989, help="Tflop/s of bf16 by the data sheet (H100 SXM: 989)")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    suite = Suite(options)
    parts = {name: getattr(suite, "run_tests" if name == "tests" else name) for name in PARTS}
    for part in options.parts.split(","):
        print(f"== {part}", flush=True)
        parts[part]()
    print(f"== {len(suite.wrong)} wrong, {len(suite.left_out)} left out")
    for what in suite.wrong:
        print(f"WRONG: {what}")
    sys.exit(bool(suite.wrong))


if __name__ == "__main__":
    main()
