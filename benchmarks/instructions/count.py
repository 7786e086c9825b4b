"""Runs inside the emulated board: one inference after another, a mark for the plugin before the first and after each.

usage: count.py WORKER.pyz RUNTIME MODEL INPUTS.npy LAYOUT CALLS

The worker is the one that times files, so that the same calls are counted that are timed elsewhere. Its last line is
the largest absolute value of the first output, which shows that the network was really computed.
"""

import ctypes
import sys

sys.path.insert(0, sys.argv[1])

import numpy as np

from edgeprune.worker.runtimes import RUNTIMES

runtime, path, inputs, layout, calls = sys.argv[2:]
mark = ctypes.CDLL(None).getpriority
FIRST_MARK = 777000  # as in armcount.c

image = np.load(inputs)[:1]
model = RUNTIMES[runtime].load(path, 1)
feed = model.prepare(image.transpose(0, 2, 3, 1) if layout == "NHWC" else image)
model.run(feed)  # what a runtime prepares in its first call is not counted
mark(0, FIRST_MARK)
for number in range(1, int(calls) + 1):
    output = model.run(feed)
    mark(0, FIRST_MARK + number)
print(float(np.abs(output).max()))
