#!/usr/bin/env python3
"""Makes tests/data/cifar-like: synthetic pictures in the record format of CIFAR-10's binary version.

    python3 scripts/make_cifar_like.py tests/data/cifar-like

40 training and 20 test records of 3,073 bytes: a label, then 32 × 32 bytes red, green, blue. A class is a direction of
stripes and a colour, so that the classes can be told apart. Needs nothing but Python; gives the same bytes every time.
"""
import math
import pathlib
import sys

CLASSES, SIDE = 10, 32


def pixels(label, number):
    """Red, green and blue planes; `number` moves the stripes."""
    angle = math.pi * label / CLASSES
    planes = []
    for channel in range(3):
        shade = 0.5 + 0.4 * math.cos(2 * math.pi * (label / CLASSES + channel / 3))
        for y in range(SIDE):
            for x in range(SIDE):
                wave = math.sin((x * math.cos(angle) + y * math.sin(angle)) * 0.8 + number)
                noise = ((x * 73 + y * 151 + channel * 31 + number * 97 + label * 57) * 2654435761 >> 7) % 32
                planes.append(int(max(0, min(255, 255 * shade * (0.6 + 0.3 * wave) + noise))))
    return bytes(planes)


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in (("data_batch_1.bin", range(0, 4)), ("test_batch.bin", range(4, 6))):
        records = [bytes([label]) + pixels(label, number) for number in numbers for label in range(CLASSES)]
        (folder / name).write_bytes(b"".join(records))


main(sys.argv[1])
