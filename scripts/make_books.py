#!/usr/bin/env python3
"""Makes models/data/books.npz: ten parts of the King James Bible as bags of words.

    python3 scripts/make_books.py bible.txt models/data

The text (public domain, one verse a line, from Genesis on, as Debian's `bible-kjv` prints it) is cut at the first verses
in PARTS. Each part is cut into sections of 50 verses; every fifth section is for the test. A sample is a window of 8
verses inside a section, every 2 verses, so that no verse is in both splits. Its features count the 1,000 words most
frequent in the training sections. Needs numpy; gives the same bytes every time.
"""
import collections
import pathlib
import re
import sys
import zipfile
import io

import numpy as np

PARTS = [
    ("Genesis 1-25: creation to Abraham", "In the beginning God created the heaven"),
    ("Genesis 25-50: Isaac to Joseph", "And these are the generations of Isaac"),
    ("Exodus 1-24: out of Egypt", "Now these are the names of the children of Israel, which came into Egypt"),
    ("Exodus 25-40: the tabernacle", "Speak unto the children of Israel, that they bring me an offering"),
    ("Leviticus", "And the LORD called unto Moses, and spake unto him out of the tabernacle"),
    ("Numbers", "And the LORD spake unto Moses in the wilderness of Sinai, in the tabernacle"),
    ("Deuteronomy", "These be the words which Moses spake unto all Israel"),
    ("Joshua", "Now after the death of Moses the servant of the LORD"),
    ("Judges and Ruth", "Now after the death of Joshua"),
    ("Samuel", "Now there was a certain man of Ramathaimzophim"),
]
SECTION, WINDOW, STRIDE, FEATURES = 50, 8, 2, 1000


def words_of(verses):
    return re.findall(r"[a-z]+", " ".join(verses).lower())


def cut(verses):
    """The verses of each part."""
    starts, after = [], 0
    for name, first in PARTS:
        after = next(i for i in range(after, len(verses)) if verses[i].startswith(first))
        starts.append(after)
    return [verses[a:b] for a, b in zip(starts, starts[1:] + [len(verses)])]


def main(source, folder):
    verses = [line.strip() for line in open(source, encoding="utf-8") if line.strip()]
    sections = {"train": [], "test": []}
    for label, part in enumerate(cut(verses)):
        print(f"{label} {PARTS[label][0]}: {len(part)} verses")
        for number, start in enumerate(range(0, len(part), SECTION)):
            split = "test" if number % 5 == 2 else "train"
            sections[split].append((label, part[start : start + SECTION]))
    counts = collections.Counter()
    for _, section in sections["train"]:
        counts.update(words_of(section))
    vocabulary = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:FEATURES]]
    place = {word: index for index, word in enumerate(vocabulary)}

    folder = pathlib.Path(folder)
    (folder / "books-words.txt").write_text("\n".join(vocabulary) + "\n")
    with zipfile.ZipFile(folder / "books.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for split, content in sections.items():
            rows, labels = [], []
            for label, section in content:
                for start in range(0, max(len(section) - WINDOW, 0) + 1, STRIDE):
                    row = np.zeros(FEATURES, np.uint8)
                    for word in words_of(section[start : start + WINDOW]):
                        if word in place:
                            row[place[word]] = min(int(row[place[word]]) + 1, 255)
                    rows.append(row)
                    labels.append(label)
            for name, array in (("words", np.stack(rows)), ("label", np.array(labels, np.uint8))):
                buffer = io.BytesIO()
                np.save(buffer, array)
                entry = zipfile.ZipInfo(f"{name}_{split}.npy", (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, buffer.getvalue(), compresslevel=9)
            print(split, len(rows), np.bincount(labels))


main(*sys.argv[1:3])
