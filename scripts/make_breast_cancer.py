"""Writes models/data/breast_cancer.csv from scikit-learn's copy of the Wisconsin diagnostic breast cancer data.

python3 scripts/make_breast_cancer.py models/data/breast_cancer.csv

A row is a tumour: 30 measurements and the diagnosis in words. One cell in fifty is left out (so that filling has
something to do) and the columns stand in a shuffled order (so that names have); both are drawn from seed 0.
"""
import csv
import sys

import numpy as np
from sklearn.datasets import load_breast_cancer

data = load_breast_cancer()
random = np.random.default_rng(0)
names = [name.replace(" ", "_") for name in data.feature_names]
columns = [[f"{value:g}" for value in column] for column in data.data.T]
for column in columns:
    for row in np.flatnonzero(random.random(len(column)) < 0.02):
        column[row] = ""
words = [str(data.target_names[label]) for label in data.target]
table = dict(zip(names, columns)) | {"diagnosis": words}
order = random.permutation(list(table))
with open(sys.argv[1], "w", newline="") as file:
    out = csv.writer(file, lineterminator="\n")
    out.writerow(order)
    out.writerows(zip(*(table[name] for name in order)))
