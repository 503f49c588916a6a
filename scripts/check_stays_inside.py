#!/usr/bin/env python3
"""Runs `ansatz check` on a hostile project under strace; fails if it opens anything outside of the project.

Usage: python3 scripts/check_stays_inside.py [BINARY]        (by default target/release/ansatz, else target/debug/ansatz)

The project names files outside of it in every way in which a model file can name one: by `use`, `loads` and data items,
by absolute paths, `..`, links, links in linked folders; beside them lie pipes, a NUL and hidden files. What a process
opens for itself (shared libraries, the system's tables) is learnt from a run on a harmless project; all else that is
opened has to lie below the project, and what is read there must be a model file or weights, and not hidden.

Exit codes: 0 it stays inside, 1 it does not, 2 this cannot be told (strace is missing, or sees nothing).
"""

import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

OPENED = re.compile(r"(?:open|openat|openat2|creat)(?:\(| resumed>).* = \d+<(.*)>$")
SECRET = "TOKEN=hunter2"
SECONDS = 20
MEMORY = 4 << 30


def files_opened(binary, arguments, folder):
    """The paths that a run opens, each with whether it is open for reading; and what it prints."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as log:
        trace = ["strace", "-f", "-y", "-s", "0", "-e", "trace=open,openat,openat2,creat", "-o", log.name]
        run = subprocess.Popen(trace + [binary, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, "SECRET": SECRET}, start_new_session=True, preexec_fn=bounded)
        try:
            shown = run.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            shown = run.communicate()[0]
        opened = set()
        started = {}
        for line in log:
            process = line.split(" ", 1)[0]
            if "<unfinished" in line:
                started[process] = line
            found = OPENED.search(line.rstrip())
            if found:
                whole = started.get(process, "") + line if "resumed>" in line else line
                path = re.sub(r"^/proc/\d+/", "/proc/self/", found.group(1))
                opened.add((path, "O_PATH" not in whole))
        return opened, shown.decode(errors="replace"), run.returncode


def bounded():
    """What reads without end shall not take this machine's memory with it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def hostile(project, outside):
    """A project whose files want to read `outside` and the system's files."""
    links = {"environ.ansatz": "/proc/self/environ", "passwd.ansatz": "/etc/passwd", "up.ansatz": "../outside/a.ansatz",
             "zero.ansatz": "/dev/zero", "config.ansatz": ".git/config", "away": str(outside), "root": "/",
             "magic": "/proc/self/root", "again": "away", "w.safetensors": "/proc/self/environ", "t.csv": "/etc/passwd"}
    for name, target in links.items():
        (project / name).symlink_to(target)
    (project / ".git").mkdir()
    (project / ".git/config").write_text(SECRET)
    os.mkfifo(project / "pipe.ansatz")
    uses = [*(name for name in links if name.endswith(".ansatz")), "away/a.ansatz", "again/a.ansatz", "root/etc/passwd",
            "root/etc/passwd.ansatz", "magic/etc/passwd", "../outside/a.ansatz", str(outside / "a.ansatz"),
            "/etc/passwd", ".git/config", "pipe.ansatz", "a\0b.ansatz", "away", "."]
    weights = ["w.safetensors", "away/w.safetensors", "../outside/w.safetensors", "/etc/passwd", ".git/config", "pipe.ansatz"]
    sources = ["t.csv", "away/t.csv", "../outside/t.csv", "/etc/passwd", ".git/config", "pipe.ansatz"]
    model = "model M {\n  input x: [N, 4]\n  return x -> Linear(3)\n}\n"
    for number, path in enumerate(uses):
        (project / f"use{number}.ansatz").write_text(f'use Thing from "{path}"\n{model}')
    for number, path in enumerate(weights):
        (project / f"loads{number}.ansatz").write_text(f'{model}assert M {{\n  loads("{path}")\n}}\n')
    for number, path in enumerate(sources):
        (project / f"data{number}.ansatz").write_text(
            f'{model}data d {{\n  source = csv("{path}")\n  x: f32[4]\n  y: f32[3]\n}}\n'
            "train M on d {\n  loss = mse(y)\n  optimizer = sgd(lr = 0.1)\n  length = 1 epochs\n}\n")
    return [path.name for path in sorted(project.glob("*.ansatz"))]


def main():
    if shutil.which("strace") is None:
        print("strace is missing; install it (for example `apt-get install strace`) and run this again")
        return 2
    root = pathlib.Path(__file__).resolve().parent.parent
    built = [root / "target" / profile / "ansatz" for profile in ("release", "debug")]
    binary = sys.argv[1] if len(sys.argv) > 1 else next((str(path) for path in built if path.exists()), None)
    if binary is None:
        print("no binary: build one with `cargo build --release`, or name one")
        return 2
    binary = os.path.abspath(binary)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch).resolve()
        project, outside, harmless = scratch / "project", scratch / "outside", scratch / "harmless"
        for folder in (project, outside, harmless):
            folder.mkdir()
        for name in ("a.ansatz", "w.safetensors", "t.csv"):
            (outside / name).write_text(SECRET)
        (harmless / "m.ansatz").write_text("fn f(x) = x\n")
        own, _, code = files_opened(binary, ["check", "m.ansatz"], harmless)
        if code != 0 or not any(path == str(harmless / "m.ansatz") for path, _ in own):
            print("the run on a harmless project was not seen to open its file: strace does not work here")
            return 2
        own = {path for path, _ in own if not path.startswith(str(harmless))}
        names = hostile(project, outside)
        problems, count = set(), 0
        # All together, as a folder, and each by its name, as a shell's pattern gives them.
        for arguments in [["."], *([name] for name in names if not (project / name).is_symlink())]:
            for style in ("human", "json", "github"):
                opened, shown, code = files_opened(binary, ["check", "--format", style, *arguments], project)
                count += 1
                where = f"`check --format {style} {' '.join(arguments)}`"
                if code not in (0, 1):
                    problems.add(f"{where} waits, or ends in another way than by findings: {code}")
                if "hunter2" in shown or "root:" in shown:
                    problems.add(f"{where} shows text of a file that is not the project's")
                for path, is_read in opened:
                    inside = path == str(project) or path.startswith(f"{project}/")
                    if not inside and path not in own:
                        problems.add(f"{where} opens {path}")
                    elif inside and is_read and os.path.isfile(path):
                        below = os.path.relpath(path, project)
                        if below.startswith(".") or not below.endswith((".ansatz", ".safetensors")):
                            problems.add(f"{where} reads {path}")
        for problem in sorted(problems):
            print(problem)
        print(f"{count} runs on {len(names)} files: {len(problems)} problems")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
