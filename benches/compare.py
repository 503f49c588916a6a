"""Times one training step of the reference workloads in Ansatz, PyTorch and JAX, in turn, and prints the ratios.

usage: python benches/compare.py [--threads 2] [--rounds 3] [--seconds 3] [--only NAME,…] [--no-compile] [--precision P]
       [--tune]
       python benches/compare.py --device cuda [--precision strict|tf32|bf16]   # on a GPU; JAX stays out, gpt2-124m comes in

Needs `cargo build --release`. What `ansatz tune` has measured on this machine before does not count; with `--tune` it is
run first, on each workload. A peer whose packages are not installed, or that fails on a workload, is left out, and said so. Each round runs every
program once in a process of its own; the table holds the median over rounds of each program's median step, the ratio
of the fastest peer to Ansatz (above 1: Ansatz is faster) with its lowest and highest round, and peak resident memory.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
# Too large for a CPU.
FOR_GPUS = ["gpt2-124m"]
WORKLOADS = ["mlp-tiny", "mlp-text", "mlp-wide", "seed-cnn", "resnet18", "gpt-char", "gpt-tiny", "bert-mini",
             "own-mlp", "own-conv1d", "own-separable", "own-attention", "own-conv3d"]


def run(command, env=None):
    """Standard output, peak resident memory in MiB."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        if status != 0:
            raise Failed(" ".join(map(str, command)))
        return out.read(), usage.ru_maxrss / 1024


class Failed(Exception):
    """A program did not exit with success."""


def ours(name, threads, seconds, mode):
    """Median milliseconds of the step, warm-up left out."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "steps.jsonl"
        steps = ours.steps.get(name, 30)
        command = [ours.binary, "train", HERE / f"models/{name}.ansatz", "--steps", steps, "--threads", threads,
                   "--log", log, "--run", pathlib.Path(folder) / "run"] + mode
        _, memory = run([str(part) for part in command], ours.environment)
        times = [json.loads(line)["ms"] for line in log.read_text().splitlines()]
    times = times[3:]
    ours.steps[name] = max(30, min(20000, int(seconds * 1000 / statistics.median(times))))
    return statistics.median(times), memory


ours.steps = {}
ours.environment = None
ours.binary = ROOT / "target/release/ansatz"


def tune(name, threads, mode):
    command = [ours.binary, "tune", HERE / f"models/{name}.ansatz", "--threads", threads] + mode
    run([str(part) for part in command], ours.environment)


def peer(script):
    def measure(name, threads, seconds, mode):
        command = [sys.executable, HERE / f"peers/{script}.py", "--only", name, "--seconds", seconds]
        if script == "torch_steps":
            command += ["--threads", threads] + mode
        else:
            command = ["taskset", "-c", ",".join(map(str, range(threads)))] + command
        text, memory = run([str(part) for part in command])
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return (lines[0]["ms"], memory) if lines else None
    return measure


def programs(options):
    precision = options.precision
    found = [("ansatz", ours, ["--device", options.device, "--set", f"train.precision={precision}"])]
    torch = [("torch", [])] + [("torch compiled", ["--compile"])] * options.compile
    peers = [(["torch"], "torch_steps", torch)]
    if options.device == "cuda":
        shared = ["--device", "cuda"] + [f"--{precision}"] * (precision in ["tf32", "bf16"])
        torch.append(("torch, recorded", ["--graph"]))
        peers = [(["torch"], "torch_steps", [(name, mode + shared) for name, mode in torch])]
    else:
        peers.append((["jax", "optax"], "jax_steps", [("jax", [])]))
    for packages, script, modes in peers:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            names = ", ".join(name for name, _ in modes)
            print(f"{', '.join(missing)} is not installed: {names} left out", file=sys.stderr)
            continue
        found += [(name, peer(script), mode) for name, mode in modes]
    return found


def measured(name, measure, *arguments):
    """What a program measures; nothing, and a word, where a peer fails. Ansatz may not."""
    try:
        return measure(*arguments)
    except Failed as failure:
        if name == "ansatz":
            raise SystemExit(f"failed: {failure}")
        print(f"{name} left out: failed: {failure}", file=sys.stderr)
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--ansatz", type=pathlib.Path, default=ours.binary)
    parser.add_argument("--only", help="workloads, with commas between")
    parser.add_argument("--no-compile", dest="compile", action="store_false",
                        help="leave torch.compile out (it is slow to start)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", default="strict", help="of Ansatz's; of the peers too on a GPU")
    parser.add_argument("--tune", action="store_true", help="measure Ansatz's products first")
    options = parser.parse_args()
    ours.binary = options.ansatz.resolve()
    options.only = options.only or ",".join(WORKLOADS + FOR_GPUS * (options.device == "cuda"))
    with tempfile.TemporaryDirectory() as cache:
        ours.environment = os.environ | {"ANSATZ_CACHE": cache}
        compare(options)


def compare(options):
    candidates = programs(options)
    print("| workload | " + " | ".join(f"{name} ms (MiB)" for name, _, _ in candidates) + " | faster than the best peer |")
    print("|---|" + "---|" * (len(candidates) + 1))
    for workload in options.only.split(","):
        if options.tune:
            tune(workload, options.threads, candidates[0][2])
        rounds = []
        for _ in range(options.rounds):
            rounds.append({name: measured(name, measure, workload, options.threads, options.seconds, mode)
                           for name, measure, mode in candidates})
        cells = []
        for name, _, _ in candidates:
            values = [r[name] for r in rounds if r[name]]
            cells.append(f"{statistics.median(v[0] for v in values):.3f} ({max(v[1] for v in values):.0f})"
                         if values else "–")
        ratios = [min(v[0] for name, v in r.items() if v and name != "ansatz") / r["ansatz"][0]
                  for r in rounds if len([v for v in r.values() if v]) > 1]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "–"
        print(f"| {workload} | " + " | ".join(cells) + f" | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
