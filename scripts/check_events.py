"""The events of a run as TensorBoard itself reads them, against its metrics.jsonl.

    python3 -m venv tb && tb/bin/pip install tensorboard
    target/release/ansatz train models/digits.ansatz --run digits --log steps.jsonl
    tb/bin/python scripts/check_events.py digits steps.jsonl

Ends with 1 where a figure is missing, doubled, or another number than the file's. The log of steps may be left out.
"""
import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
accumulator.Reload()
single = lambda value: struct.unpack("<f", struct.pack("<f", value))[0]

expected = {}
for line in (run / "metrics.jsonl").read_text().splitlines():
    epoch = json.loads(line)
    expected.setdefault("lr", []).append((epoch["step"], single(epoch["lr"])))
    for key, value in epoch.items():
        split, _, figure = key.partition(".")
        if figure and figure != "samples" and isinstance(value, float):
            expected.setdefault(f"{figure}/{split}", []).append((epoch["step"], single(value)))
if len(sys.argv) > 2:
    lines = [json.loads(line) for line in pathlib.Path(sys.argv[2]).read_text().splitlines()]
    stride = max(1, -(-lines[-1]["step"] // 1000))
    expected["loss/step"] = [(line["step"], single(line["loss"])) for line in lines if line["step"] % stride == 0]

tags = set(accumulator.Tags()["scalars"])
unknown = tags - set(expected) - {"loss/step"}
wrong = [f"{tag} is in no line of metrics.jsonl" for tag in sorted(unknown)]
for tag, points in expected.items():
    read = [(event.step, event.value) for event in accumulator.Scalars(tag)] if tag in tags else []
    if read != points:
        wrong.append(f"{tag}: TensorBoard reads {read[:5]}… ({len(read)}), the run wrote {points[:5]}… ({len(points)})")
print("\n".join(wrong) or f"{sum(map(len, expected.values()))} points of {len(expected)} scalars agree")
sys.exit(bool(wrong))
