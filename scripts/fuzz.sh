#!/usr/bin/env bash
# Fuzzes every reader of files and settings: `scripts/fuzz.sh [SECONDS] [SEED]` (the date by default), so many seconds for each reader (by default
# an hour for all of them together), two at a time. Inputs that break a promise are in `target/fuzz`, each with the command that
# repeats it; exit code 1 if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --example fuzz
fuzz=target/debug/examples/fuzz
readers=$($fuzz --list | wc -l)
seconds=${1:-$((2 * 3600 / readers))}
$fuzz --list | xargs -P 2 -I READER "$fuzz" --seconds "$seconds" --seed "${2:-$(date +%Y%m%d)}" READER
