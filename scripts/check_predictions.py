"""A NumPy forward pass of models/breast_cancer.ansatz from its file of weights alone, against `ansatz predict --raw`.

ansatz train models/breast_cancer.ansatz --run tumours
ansatz predict models/breast_cancer.ansatz --weights tumours/weights.safetensors --raw > raw.jsonl
python3 scripts/check_predictions.py tumours/weights.safetensors models/data/breast_cancer.csv raw.jsonl

Everything that the run fitted (columns, medians, means, deviations) is read from the file's metadata. tests/predict.rs does
the same in f64 in Rust.
"""
import csv
import json
import struct
import sys

import numpy as np

weights, table, predictions = sys.argv[1:]
with open(weights, "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    data = file.read()
note = json.loads(header.pop("__metadata__")["ansatz"])
tensors = {
    name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"]).astype(np.float64)
    for name, entry in header.items()
}
(field,) = (field for field in note["preparation"]["fields"] if field["name"] == "measures")
with open(table, newline="") as file:
    rows = list(csv.DictReader(file))
x = np.array([[float(row[name] or "nan") for name in field["columns"]["named"]] for row in rows])
for stage in field["stages"]:
    if "fill" in stage:
        x = np.where(np.isnan(x), stage["fill"], x)
    elif "affine" in stage:
        x = (x - stage["affine"][0]) * stage["affine"][1]
    elif "clip" in stage:
        x = np.clip(x, stage["clip"][0], stage["clip"][1])
    else:
        raise SystemExit(f"a stage that the model file does not have: {stage}")
hidden = np.maximum(x @ tensors["fc1.weight"].T + tensors["fc1.bias"], 0)
logits = hidden @ tensors["fc2.weight"].T + tensors["fc2.bias"]
lines = [json.loads(line) for line in open(predictions)]
errors = [np.abs(logits[line["row"] - 1] - line["output"]) / np.maximum(1, np.abs(line["output"])) for line in lines]
print(f"{len(lines)} rows, largest error {np.max(errors):.2e}")
sys.exit(not np.max(errors) <= 1e-5)
