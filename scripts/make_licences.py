#!/usr/bin/env python3
"""Writes src/trainer/licences.txt: what is linked into a trainer, and under which licences.

Run it after a change of dependencies: `python3 scripts/make_licences.py`. A test holds the file against Cargo.lock.
"""

import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"


def linked(metadata):
    """The packages that ansatz-trainer links, by name."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    is_macro = lambda package: any("proc-macro" in target["kind"] for target in package["targets"])
    todo = [key for key, package in packages.items() if package["name"] == "ansatz-trainer"]
    found = set()
    while todo:
        key = todo.pop()
        if key in found or is_macro(packages[key]):
            continue
        found.add(key)
        for dependency in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])
    return sorted((packages[key] for key in found), key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The licence files beside a package's manifest."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [file for file in folder.iterdir() if re.match(r"(?i)(licen[cs]e|copying|copyright|unlicense)", file.name)]
    return [file.read_text(errors="replace") for file in sorted(files) if file.is_file()]


def copyrights(package):
    """Lines such as `Copyright (c) 2016 The Authors`, each once."""
    lines = [line.strip(" \t*#/") for text in texts(package) for line in text.splitlines()]
    found = [line for line in lines if re.match(r"(?i)copyright (\(c\)|©|\d{4})", line) and "yyyy" not in line]
    return list(dict.fromkeys(found))


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    packages = linked(json.loads(subprocess.check_output(command, cwd=ROOT)))
    foreign = [package for package in packages if not package["name"].startswith("ansatz")]
    out = ["A trainer holds Ansatz (MIT OR Apache-2.0), the Rust standard library (MIT OR Apache-2.0), what unwinds of",
           "GCC's runtime library (GPL-3.0 with the GCC Runtime Library Exception), and these crates:", ""]
    for package in foreign:
        out.append(f"{package['name']} {package['version']}: {package['license']}")
        out.extend(f"    {line}" for line in copyrights(package))
    other = [package for package in foreign if not re.search(r"\bMIT\b|Apache-2\.0", package["license"])]
    for package in other:
        for text in texts(package):
            out += ["", f"---- {package['name']} ----", "", text.strip()]
    for name in ["LICENSE-MIT", "LICENSE-APACHE"]:
        out += ["", f"---- {name} ----", "", (ROOT / name).read_text().strip()]
    (ROOT / "src/trainer/licences.txt").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
