#!/usr/bin/env python3
"""Wears `ansatz` down: kills while it saves, signals at every stage, kills on a clock, and hours of saving.

    cargo build --release
    python3 scripts/endurance.py target/release/ansatz --parts saves,signals            # about ten minutes
    python3 scripts/endurance.py target/release/ansatz --parts goodput --seconds 3600 --period 60
    python3 scripts/endurance.py target/release/ansatz --parts soak --seconds 3600

`saves`: SIGKILLs that hit a save under way, until there are so many (`--kills`). After each, the newest whole checkpoint is
at most one interval of saving behind the save that was hit; `resume` goes on from exactly that one; at the end the run has
the bits of one that nobody killed.
`signals`: SIGTERM at random moments from start to exit. The code is 143 (0 where the run had ended), what is saved is the
step that it says, and the run is gone on with to the same bits.
`goodput`: a run that is killed every `--period` seconds and gone on with, against one that is left alone and has the same time, in
turns: the share of its steps that are on disk at the end. At least 95 % at a period of 60 s.
`soak`: one run that saves and evaluates all the time; memory and descriptors, after a fifth of the time, stay within a bound.

Exit code 1 where one of these does not hold. Needs Linux and nothing but Python.
"""
import argparse
import json
import pathlib
import random
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import faults

# 12.6 MB a checkpoint: writing one takes longer than the two steps before it.
LARGE = """
model Net {
  input x: [N, 64]
  return x -> a: Linear(1024) -> relu -> b: Linear(960) -> relu -> c: Linear(3)
}

data noise {
  source = random(samples = 64)
  x: f32[64]
  label: class[3]
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = adamw(lr = 0.0001)
  batch     = 8
  length    = 1000000 steps
  save      = INTERVAL steps
}
"""
INTERVAL = 2

# Evaluates and saves many times a second.
STEADY = faults.MODEL.replace("samples = 60", "samples = 6000").replace("4 epochs", "1000000 epochs").replace(
    "save      = 3 steps", "save      = 0.02 minutes, 1 epochs"
)


def start(binary, folder, arguments):
    return subprocess.Popen(
        [binary, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def begun(path):
    """The step that a file being written is of; None where its description is not there yet."""
    try:
        data = path.read_bytes()[: 1 << 20]
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        return json.loads(header["__metadata__"]["ansatz"])["position"]["step"]
    except (OSError, ValueError, KeyError, struct.error):
        return None


def saves(binary, parent, counts, options):
    """Kills a run again and again; those count that left a save behind unfinished."""
    folder = faults.workspace(parent, "saves", LARGE.replace("INTERVAL", str(INTERVAL)))
    run, hit, starts, furthest = folder / "run", 0, 0, 0
    while hit < options.kills:
        arguments = ["resume", "run"] if (run / "run.json").exists() else ["train", "net.ansatz", "--run", "run"]
        before = faults.newest(run)
        child = start(binary, folder, [*arguments, "--threads", "1"])
        time.sleep(random.uniform(0.02, 0.4))
        child.kill()
        _, err = child.communicate(timeout=120)
        starts += 1
        going = re.search(r"going on after step (\d+)", err)
        if going and int(going.group(1)) != before:
            counts.trouble("lost", f"start {starts}: went on after step {going.group(1)}, {before} was saved")
        if "warning" in err or "error" in err:
            counts.trouble("lost", f"start {starts}: {err.strip()[-300:]}")
        newest = faults.newest(run) if run.exists() else 0
        if newest < before:
            counts.trouble("lost", f"start {starts}: {before} was saved, and {newest} is there")
        unfinished = [path for path in run.glob(".*.tmp") if "safetensors" in path.name] if run.exists() else []
        if not unfinished:
            continue
        hit += 1
        counts.attacks += 1
        for step in filter(None, map(begun, unfinished)):
            furthest = max(furthest, step - newest)
            if step - newest > INTERVAL:
                counts.trouble("lost", f"start {starts}: the save of step {step} was hit, {newest} is there")
    print(f"  {starts} starts, {hit} kills in a save, at most {furthest} steps behind it (interval {INTERVAL})", flush=True)
    last = faults.newest(run) + INTERVAL
    end = ["--threads", "1", "--stop-after", str(last)]
    done = start(binary, folder, ["resume", "run", *end])
    _, err = done.communicate()
    # Saving as often would take minutes, and changes no step.
    rarely = ["--set", f"train.save={2 * last} steps"]
    whole = start(binary, folder, ["train", "net.ansatz", "--run", "whole", *end, *rarely])
    _, words = whole.communicate()
    assert whole.returncode == 0, words
    if done.returncode:
        return counts.trouble("lost", f"cannot be gone on with: {err.strip()[-300:]}")
    if tensors(run) != tensors(folder / "whole"):
        counts.trouble("silent", f"other bits after {last} steps")


def tensors(run):
    """Names, shapes and bytes of the newest checkpoint, without what it says of the run."""
    data = (run / "last.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    described = json.loads(data[8 : 8 + length])
    described.pop("__metadata__")
    return described, data[8 + length :]


def signals(binary, parent, counts, options, reference, seconds):
    """SIGTERM once in a run, from its first moment to beyond its end."""
    slowest, stages = 0, {"before the run": 0, "in the run": 0, "after it": 0}
    for attempt in range(options.signals):
        folder = faults.workspace(parent, f"term{attempt}")
        child = start(binary, folder, faults.TRAIN)
        moment = random.uniform(0, seconds * 1.1)
        time.sleep(moment)
        stage = "in the run" if (folder / "run" / "run.json").exists() else "before the run"
        stage = "after it" if (folder / "run" / "weights.safetensors").exists() else stage
        stages[stage] += 1
        sent = time.monotonic()
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=120)
        slowest = max(slowest, time.monotonic() - sent)
        counts.attacks += 1
        what = f"SIGTERM after {moment:.4f} s, {stage}"
        # The signal itself: it came before the process could say how it takes it.
        allowed = {"before the run": (143, -signal.SIGTERM), "in the run": (143,), "after it": (0, 143)}[stage]
        # The run may have begun, or ended, between the look and the signal.
        if child.returncode not in allowed + ((143,) if stage == "before the run" else (0,)):
            counts.trouble("rude", f"{what}: {child.returncode} {err.strip()[-200:]}")
        said = re.search(r"stopped after step (\d+); everything is saved", out)
        if said and faults.newest(folder / "run") != int(said.group(1)):
            counts.trouble("lost", f"{what}: step {said.group(1)} is not on disk")
        if child.returncode == 143 and stage == "in the run" and not said:
            counts.trouble("lost", f"{what}: it does not say that it saved")
        faults.recover(binary, folder, reference, counts, what)
        shutil.rmtree(folder)
    print(f"  {stages}, at most {slowest:.3f} s from the signal to the end", flush=True)


def quiet(binary, folder, arguments):
    """A run whose words go into a file: a pipe that nobody empties would stop it."""
    with open(folder / "words", "a") as words:
        return subprocess.Popen([binary, *arguments], cwd=folder, stdout=words, stderr=words)


def wait(child, folder, seconds):
    """Lets a run run for so long."""
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return
    raise SystemExit(f"the run ended by itself: {(folder / 'words').read_text()[-300:]}")


def goodput(binary, parent, counts, options):
    """Both runs get the same time, in turns, so that what else the machine does takes from both alike: one is stopped and
    continued, the other killed and gone on with. What is on disk at the end counts, so that work done twice does not."""
    model = LARGE.replace("INTERVAL steps", "0.02 minutes")
    alone, killed = (faults.workspace(parent, name, model) for name in ("alone", "killed"))
    turns = max(2, round(options.seconds / options.period))
    train = ["train", "net.ansatz", "--run", "run"]
    steady = quiet(binary, alone, train)
    for turn in range(turns):
        steady.send_signal(signal.SIGCONT)
        wait(steady, alone, options.period)
        steady.send_signal(signal.SIGSTOP)
        child = quiet(binary, killed, train if turn == 0 else ["resume", "run"])
        wait(child, killed, options.period)
        child.send_signal(signal.SIGTERM if turn + 1 == turns else signal.SIGKILL)
        child.wait(timeout=120)
    steady.send_signal(signal.SIGTERM)
    steady.send_signal(signal.SIGCONT)
    steady.wait(timeout=120)
    done, whole = faults.newest(killed / "run"), faults.newest(alone / "run")
    counts.attacks += turns - 1
    share = done / whole
    print(f"  {turns} x {options.period} s each: {whole} steps alone, {done} with {turns - 1} kills: {share:.1%}", flush=True)
    # A start costs the same however seldom it comes: 5 % of 60 s is 3 s.
    least = max(0.5, 1 - 3 / options.period)
    if share < least:
        counts.trouble("lost", f"{share:.1%} of the steps; at a period of {options.period} s at least {least:.1%}")
    if share > 1.05:
        counts.trouble("lost", "more steps with kills than without: the machine was not even enough to tell")


def sample(process):
    """Resident KiB and open descriptors of a process."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
    return resident, len(list(pathlib.Path(f"/proc/{process}/fd").iterdir()))


def soak(binary, parent, counts, options):
    """Memory and descriptors of a long run."""
    folder = faults.workspace(parent, "soak", STEADY)
    child = quiet(binary, folder, ["train", "net.ansatz", "--run", "run", "--log", "steps.jsonl"])
    end, samples = time.monotonic() + options.seconds, []
    while time.monotonic() < end:
        time.sleep(1)
        samples.append(sample(child.pid))
    child.send_signal(signal.SIGTERM)
    code = child.wait(timeout=120)
    counts.attacks += 1
    warm = samples[len(samples) // 5 :]
    quarter = max(1, len(warm) // 4)
    first, last = (statistics.mean(kib for kib, _ in part) for part in (warm[:quarter], warm[-quarter:]))
    descriptors = [number for _, number in warm]
    lines = len((folder / "run" / "metrics.jsonl").read_text().splitlines())
    print(
        f"  {options.seconds} s, step {faults.newest(folder / 'run')}, {lines} evaluations: {first / 1024:.2f} MiB, "
        f"then {last / 1024:.2f} MiB; descriptors {min(descriptors)} to {max(descriptors)}",
        flush=True,
    )
    # The curve keeps a point an epoch: 64 bytes; allocators round up.
    allowed = 1024 + first / 100 + lines * 64 / 1024
    if last - first > allowed:
        counts.trouble("lost", f"memory grows by {last - first:.0f} KiB, more than {allowed:.0f}")
    # A file that is being written and its folder are open for a moment.
    if max(descriptors[-quarter:]) > max(descriptors[:quarter]) + 2:
        counts.trouble("lost", f"descriptors grow to {max(descriptors)}")
    if code != 143:
        counts.trouble("rude", f"it ends with {code}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--parts", default="saves,signals")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600, help="of each run of goodput and soak")
    parser.add_argument("--period", type=float, default=60, help="seconds from kill to kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    binary, failed = str(options.binary.resolve()), False
    with tempfile.TemporaryDirectory() as parent:
        parent = pathlib.Path(parent).resolve()

        def terms(counts):
            folder = faults.workspace(parent, "reference")
            began = time.monotonic()
            done = faults.call(binary, folder, *faults.TRAIN)
            assert done.returncode == 0, done.stderr
            signals(binary, parent, counts, options, faults.results(folder), time.monotonic() - began)

        parts = {
            "saves": lambda counts: saves(binary, parent, counts, options),
            "signals": terms,
            "goodput": lambda counts: goodput(binary, parent, counts, options),
            "soak": lambda counts: soak(binary, parent, counts, options),
        }
        for name in options.parts.split(","):
            counts = faults.Counts()
            print(f"{name}:", flush=True)
            parts[name](counts)
            totals = ", ".join(f"{len(troubles)} {kind}" for kind, troubles in counts.troubles.items())
            print(f"  {counts.attacks} attacks: {totals}", flush=True)
            failed |= any(counts.troubles.values())
    sys.exit(failed)


if __name__ == "__main__":
    main()
