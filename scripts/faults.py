#!/usr/bin/env python3
"""Attacks runs of `ansatz` and counts what was lost and what went wrong without a word: docs/reliability.md has its figures.

    cargo build --release
    python3 scripts/faults.py target/release/ansatz             # all parts, about ten minutes
    python3 scripts/faults.py target/release/ansatz --kills 20 --parts kills,files

Parts: `kills` ends runs by SIGKILL, SIGTERM and SIGINT at random moments; `files` fails each write, fsync, rename, open
and so on of a run in turn, once with EIO and with ENOSPC from then on, those that change files also once with ENOSPC and
EDQUOT; `bytes` changes and cuts a checkpoint at every place. After each attack
the run is gone on with and compared to one that nothing happened to, to the bit.

Lost: it could not be gone on with, began before the newest whole checkpoint, or left rubbish behind. Silent: it ended
with 0, or went on without a word, and other numbers. Rude: an end by panic or abort, or an error that names no file.
Needs Linux, a C compiler and nothing but Python.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

MODEL = """
model Net {
  input x: [N, 6]
  return x -> a: Linear(8) -> bn: BatchNorm -> relu -> Dropout(0.2) -> b: Linear(3)
}

data noise {
  source = random(samples = 60)
  x: f32[6]
  label: class[3]
  split = random(valid = 0.2, test = 0.2)
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = adamw(lr = 0.01)
  batch     = 5
  length    = 4 epochs
  metrics   = accuracy
  keep      = best(valid.accuracy), last(2)
  save      = 3 steps
}
"""
SMALL = """
model Net {
  input x: [N, 1]
  return x -> a: Linear(1)
}

data noise {
  source = random(samples = 4)
  x: f32[1]
  y: f32[1]
}

train Net on noise {
  loss      = mse(y)
  optimizer = sgd(lr = 0.01)
  batch     = 4
  length    = 2 steps
}
"""

# Fails the call number FAULT_AT (from 1; 0 counts only) of the kind FAULT_CALL that touches something below FAULT_ROOT,
# with FAULT_STAY all later ones too, and adds a line for each such call to FAULT_TRACE.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int below(const char *path) {
  char full[4096];
  const char *root = getenv("FAULT_ROOT");
  if (!root || !path) return 0;
  if (path[0] != '/') {
    char here[2048];
    if (!getcwd(here, sizeof here)) return 0;
    snprintf(full, sizeof full, "%s/%s", here, path);
    path = full;
  }
  return strncmp(path, root, strlen(root)) == 0;
}

static int opened(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return path[0] == '/' && below(path);  // pipes have names too, without a folder
}

static int fails(const char *call) {
  static int calls;
  const char *wanted = getenv("FAULT_CALL"), *trace = getenv("FAULT_TRACE");
  if (!wanted || strcmp(wanted, call)) {
    if (!trace || wanted) return 0;
  }
  int number = __sync_add_and_fetch(&calls, 1);
  if (trace) {
    static int (*open_)(const char *, int, ...);
    static ssize_t (*write_)(int, const void *, size_t);
    if (!open_) open_ = dlsym(RTLD_NEXT, "open64");
    if (!write_) write_ = dlsym(RTLD_NEXT, "write");
    int fd = open_(trace, O_WRONLY | O_CREAT | O_APPEND, 0644);
    char line[64];
    int length = snprintf(line, sizeof line, "%s\n", call);
    if (fd >= 0) { write_(fd, line, length); close(fd); }
  }
  int at = atoi(getenv("FAULT_AT") ? getenv("FAULT_AT") : "0");
  if (!wanted || at == 0 || number < at || (number > at && !getenv("FAULT_STAY"))) return 0;
  errno = atoi(getenv("FAULT_ERRNO"));
  return 1;
}

#define NEXT(name) static __typeof__(name) *next; if (!next) next = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
  NEXT(write);
  if (opened(fd) && fails("write")) { if (size > 1) next(fd, data, size / 2); return -1; }
  return next(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  NEXT(writev);
  return opened(fd) && fails("write") ? -1 : next(fd, parts, count);
}
ssize_t read(int fd, void *data, size_t size) {
  NEXT(read);
  return opened(fd) && fails("read") ? -1 : next(fd, data, size);
}
int fsync(int fd) { NEXT(fsync); return opened(fd) && fails("fsync") ? -1 : next(fd); }
int fdatasync(int fd) { NEXT(fdatasync); return opened(fd) && fails("fsync") ? -1 : next(fd); }
int ftruncate64(int fd, off64_t size) { NEXT(ftruncate64); return opened(fd) && fails("truncate") ? -1 : next(fd, size); }
int rename(const char *from, const char *to) { NEXT(rename); return below(to) && fails("rename") ? -1 : next(from, to); }
int link(const char *from, const char *to) { NEXT(link); return below(to) && fails("link") ? -1 : next(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
  NEXT(linkat);
  return below(to) && fails("link") ? -1 : next(a, from, b, to, flags);
}
int unlink(const char *path) { NEXT(unlink); return below(path) && fails("unlink") ? -1 : next(path); }
int mkdir(const char *path, mode_t mode) { NEXT(mkdir); return below(path) && fails("mkdir") ? -1 : next(path, mode); }
int flock(int fd, int how) { NEXT(flock); return opened(fd) && fails("lock") ? -1 : next(fd, how); }
int open64(const char *path, int flags, ...) {
  NEXT(open64);
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return below(path) && fails("open") ? -1 : next(path, flags, mode);
}
"""


class Counts:
    """What happened, by kind; each trouble with its words."""

    def __init__(self):
        self.attacks, self.troubles = 0, {"lost": [], "silent": [], "rude": []}

    def trouble(self, kind, words):
        self.troubles[kind].append(words)
        print(f"  {kind}: {words}", flush=True)


def call(binary, folder, *arguments, **options):
    return subprocess.run([binary, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, **options)


def workspace(parent, name, model=MODEL):
    folder = parent / name
    folder.mkdir()
    (folder / "net.ansatz").write_text(model)
    return folder


def position(path):
    """The step of a checkpoint that is whole as far as its sizes tell, else None."""
    try:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        note = json.loads(header["__metadata__"]["ansatz"])
        return note["position"]["step"] if 8 + length + end == len(data) else None
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def newest(run):
    steps = [position(path) for path in run.glob("last*.safetensors")]
    return max((step for step in steps if step is not None), default=0)


def figures(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def log(folder):
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "ms"} for line in lines]


# Of 32 steps; which checkpoint is the one before depends on where a run was interrupted.
FILES = ["best", "last", "last-32", "weights"]


def results(folder, with_log=True):
    """All that must not depend on what happened on the way."""
    run = folder / "run"
    files = {name: (run / f"{name}.safetensors").read_bytes() for name in FILES}
    return {"files": files, "figures": figures(run), "log": log(folder) if with_log else None}


TRAIN = ["train", "net.ansatz", "--run", "run", "--log", "steps.jsonl", "--threads", "1"]
RESUME = ["resume", "run", "--log", "steps.jsonl", "--threads", "1"]


def recover(binary, folder, reference, counts, what, with_log=True):
    """Goes on with a run until its end, and compares."""
    run = folder / "run"
    expected = newest(run) if run.exists() else 0
    done = call(binary, folder, *RESUME)
    if done.returncode == 2 and not (run / "run.json").exists():
        # It had not begun: nothing is there, and training may start.
        if expected:
            return counts.trouble("lost", f"{what}: a checkpoint without run.json")
        done, with_log = call(binary, folder, *TRAIN), True
    elif done.returncode == 0:
        going = re.search(r"going on after step (\d+)", done.stderr)
        if going and int(going.group(1)) != expected:
            counts.trouble("lost", f"{what}: went on after step {going.group(1)}, {expected} was saved")
    if done.returncode != 0:
        return counts.trouble("lost", f"{what}: {done.returncode} {done.stderr.strip()[-300:]}")
    try:
        now = results(folder, with_log)
    except (OSError, ValueError) as error:
        return counts.trouble("lost", f"{what}: {error}")
    for key in now:
        if now[key] != reference[key] and (key != "log" or with_log):
            counts.trouble("silent", f"{what}: other {key}")
    rubbish = [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    if rubbish:
        counts.trouble("lost", f"{what}: {rubbish} left behind")


def kills(binary, parent, counts, number, reference, seconds):
    """Each run is ended up to three times at random moments, start-up included."""
    for attempt in range(number):
        name, code = [("KILL", None), ("TERM", 143), ("INT", 130)][attempt % 3]
        folder = workspace(parent, f"kill{attempt}")
        moments = []
        for round in range(random.randint(1, 3)):
            began = folder.joinpath("run", "run.json").exists()
            child = subprocess.Popen(
                [binary, *(RESUME if began else TRAIN)],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            moments.append(round_moment := random.uniform(0, seconds))
            time.sleep(round_moment)
            child.send_signal(getattr(signal, f"SIG{name}"))
            out, err = child.communicate(timeout=120)
            counts.attacks += 1
            what = f"SIG{name} after {', '.join(f'{moment:.4f}' for moment in moments)} s"
            # 0: it had ended; a negative code: the signal came before the process could say how it takes it.
            if child.returncode not in (0, code, -getattr(signal, f"SIG{name}")):
                counts.trouble("rude", f"{what}: {child.returncode} {err.strip()[-200:]}")
            said = re.search(r"stopped after step (\d+); everything is saved", out)
            if said and newest(folder / "run") != int(said.group(1)):
                counts.trouble("lost", f"{what}: step {said.group(1)} is not on disk")
        recover(binary, folder, reference, counts, what)
        shutil.rmtree(folder)


# Calls by which a run changes its files.
CHANGES = ("write", "fsync", "rename", "open")
# Once or from then on; EIO, ENOSPC, EDQUOT.
ERRORS = ((None, 5), (1, 28), (None, 28), (None, 122))


def faults(binary, parent, counts, reference):
    """Each call of a run that touches its files fails in turn."""
    source, shim = parent / "shim.c", parent / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", shim, source, "-ldl"], check=True)

    def attack(folder, arguments, **settings):
        values = {f"FAULT_{key.upper()}": str(value) for key, value in settings.items() if value is not None}
        environment = dict(os.environ, LD_PRELOAD=str(shim), FAULT_ROOT=str(folder), **values)
        return call(binary, folder, *arguments, env=environment)

    for stopped in (False, True):
        # A run from its beginning, and one that is gone on with.
        def prepare(name):
            folder = workspace(parent, name)
            if stopped:
                done = call(binary, folder, *TRAIN, "--stop-after", "13")
                assert done.returncode == 0, done.stderr
            return folder, RESUME if stopped else TRAIN

        folder, arguments = prepare(f"count{stopped}")
        trace = parent / f"trace{stopped}"
        assert attack(folder, arguments, trace=trace, at=0).returncode == 0
        calls = trace.read_text().split()
        kinds = {kind: calls.count(kind) for kind in sorted(set(calls))}
        print(f"  {'resume' if stopped else 'train'}: {kinds}", flush=True)
        for kind, total in kinds.items():
            for at in range(1, total + 1):
                for stay, error in ERRORS if kind in CHANGES else ERRORS[:2]:
                    folder, arguments = prepare("fault")
                    what = f"{' '.join(arguments[:1])}: {kind} {at} of {total} {'and later ' if stay else ''}(errno {error})"
                    done = attack(folder, arguments, call=kind, at=at, stay=stay, errno=error)
                    counts.attacks += 1
                    told = "the log of steps" in done.stderr
                    if done.returncode not in (0, 1, 2) or "panicked" in done.stderr:
                        counts.trouble("rude", f"{what}: {done.returncode} {done.stderr.strip()[-300:]}")
                    elif done.returncode and not re.search(r"[\w-]+\.\w+|\.lock|\brun\b", done.stderr.split("error: ")[-1]):
                        counts.trouble("rude", f"{what}: names no file: {done.stderr.strip()[-200:]}")
                    if done.returncode == 0:
                        now = results(folder, not told)
                        if any(now[key] != reference[key] for key in now if key != "log" or not told):
                            counts.trouble("silent", f"{what}: ended with 0 and other results")
                    recover(binary, folder, reference, counts, what, with_log=not told)
                    shutil.rmtree(folder)


def bytes_(binary, parent, counts):
    """Each byte of a checkpoint is changed, and it is cut at each place."""
    folder = workspace(parent, "bytes", SMALL)
    assert call(binary, folder, "train", "net.ansatz", "--run", "run", "--stop-after", "1").returncode == 0
    path = folder / "run" / "last.safetensors"
    whole = path.read_bytes()
    print(f"  {len(whole)} bytes", flush=True)
    for at in range(len(whole)):
        mask = random.randrange(1, 256)
        changed = whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]
        for what, content in ((f"byte {at} changed by {mask:#04x}", changed), (f"cut at {at}", whole[:at])):
            path.write_bytes(content)
            done = call(binary, folder, "resume", "run", "--threads", "1")
            counts.attacks += 1
            if done.returncode == 0:
                counts.trouble("silent", what)
            elif done.returncode != 2 or "last.safetensors" not in done.stderr:
                counts.trouble("rude", f"{what}: {done.returncode} {done.stderr.strip()[-200:]}")
    path.write_bytes(whole)
    assert call(binary, folder, "resume", "run").returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--parts", default="kills,files,bytes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    binary, failed = str(options.binary.resolve()), False
    with tempfile.TemporaryDirectory() as parent:
        parent = pathlib.Path(parent).resolve()
        folder = workspace(parent, "reference")
        began = time.monotonic()
        done = call(binary, folder, *TRAIN)
        seconds = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        reference = results(folder)
        parts = {
            "kills": lambda counts: kills(binary, parent, counts, options.kills, reference, seconds),
            "files": lambda counts: faults(binary, parent, counts, reference),
            "bytes": lambda counts: bytes_(binary, parent, counts),
        }
        for name in options.parts.split(","):
            counts = Counts()
            print(f"{name}:", flush=True)
            parts[name](counts)
            totals = ", ".join(f"{len(troubles)} {kind}" for kind, troubles in counts.troubles.items())
            print(f"  {counts.attacks} attacks: {totals}", flush=True)
            failed |= any(counts.troubles.values())
    sys.exit(failed)


if __name__ == "__main__":
    main()
