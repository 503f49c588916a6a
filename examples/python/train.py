"""Trains the digits of ../digits.ansatz from Python: train.py LIBRARY TRAINER digits.csv

LIBRARY is libansatz_c.so (cargo build --release -p ansatz-c), TRAINER was written by
`ansatz build examples/digits.ansatz --set data.folder=models/data -o TRAINER`. Arrays are passed without copies.
"""

import ctypes
import sys

import numpy as np

EPOCHS = 3


class Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_size_t),
        ("level", ctypes.c_char_p),
        ("seed", ctypes.POINTER(ctypes.c_uint64)),
        ("total_steps", ctypes.c_uint64),
        ("steps_per_epoch", ctypes.c_uint64),
    ]


class Array(ctypes.Structure):
    """ansatz_input and ansatz_output."""

    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class Run:
    """A run in training; each call raises what `ansatz_error` says."""

    def __init__(self, library, contents, steps_per_epoch):
        self.library, self.run = ctypes.CDLL(library), ctypes.c_void_p()
        self.library.ansatz_error.restype = ctypes.c_char_p
        self.library.ansatz_batch.restype = ctypes.c_size_t
        options = Options(size=ctypes.sizeof(Options), steps_per_epoch=steps_per_epoch)
        made = ctypes.byref(self.run)
        self.hold(self.library.ansatz_create(contents, ctypes.c_size_t(len(contents)), ctypes.byref(options), made))
        self.batch = self.library.ansatz_batch(self.run)

    def __del__(self):
        # Without its library a run was never made.
        if hasattr(self, "library"):
            self.library.ansatz_destroy(self.run)

    def hold(self, status):
        if status != 0:
            raise RuntimeError(self.library.ansatz_error(self.run).decode())

    @staticmethod
    def arrays(arrays):
        """C's view of arrays that are row-major and have elements of four bytes."""
        assert all(array.flags.c_contiguous and array.itemsize == 4 for array in arrays)
        return (Array * len(arrays))(*[Array(array.ctypes.data, array.nbytes) for array in arrays])

    def step(self, *fields):
        loss, rate = ctypes.c_double(), ctypes.c_double()
        sizes = ctypes.c_size_t(len(fields)), ctypes.c_size_t(len(fields[0]))
        numbers = ctypes.byref(loss), ctypes.byref(rate)
        self.hold(self.library.ansatz_step(self.run, self.arrays(fields), *sizes, *numbers))
        return loss.value

    def evaluate(self, *fields):
        """Loss and the one metric over all samples."""
        self.hold(self.library.ansatz_evaluate_begin(self.run))
        for first in range(0, len(fields[0]), self.batch):
            part = [field[first : first + self.batch] for field in fields]
            sizes = ctypes.c_size_t(len(part)), ctypes.c_size_t(len(part[0]))
            self.hold(self.library.ansatz_evaluate_add(self.run, self.arrays(part), *sizes))
        loss, metric, samples = ctypes.c_double(), ctypes.c_double(), ctypes.c_uint64()
        numbers = [ctypes.byref(number) for number in (loss, metric, samples)]
        self.hold(self.library.ansatz_evaluate_finish(self.run, *numbers[:2], ctypes.c_size_t(1), numbers[2]))
        return loss.value, metric.value

    def save(self, path):
        self.hold(self.library.ansatz_save(self.run, path.encode(), 0))


def main(library, trainer, table):
    rows = np.loadtxt(table, delimiter=",", skiprows=1, dtype=np.float32)
    images, labels = np.ascontiguousarray(rows[:, :64] / np.float32(16)), rows[:, 64].astype(np.int32)
    with open(trainer, "rb") as file:
        run = Run(library, file.read(), steps_per_epoch=len(rows) // 32)
    steps = len(rows) // run.batch
    for step in range(EPOCHS * steps):
        first = step % steps * run.batch
        loss = run.step(images[first : first + run.batch], labels[first : first + run.batch])
        print(step + 1, repr(loss))
    loss, accuracy = run.evaluate(images, labels)
    print(f"Python: loss {loss:.4f}, accuracy {accuracy:.4f}", file=sys.stderr)
    run.save("digits.safetensors")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: train.py LIBRARY TRAINER digits.csv")
    main(*sys.argv[1:])
