"""Writes small hostile model files with the real libraries, for the tests of the
scanners. None of them does harm: what they would run or read is harmless here.

usage: hostile.py DIRECTORY. Runs in the environment of set l of corpus.sh. Files
go to DIRECTORY, the testdata of a scanner.
"""
import os
import sys

os.environ["KERAS_BACKEND"] = "numpy"
import h5py
import keras
import numpy as np
from keras import layers

out = sys.argv[1]
os.makedirs(out, exist_ok=True)


def path(name):
    return os.path.join(out, name)


def with_keras():
    lam = keras.Sequential([layers.Input((2,)), layers.Lambda(lambda x: x * 2)])
    lam.save(path("lambda.keras"))
    lam.save(path("lambda.h5"))
    long = keras.Sequential([layers.Input((1,))] + [layers.Activation("relu", name="a" * 900 + str(i)) for i in range(80)] + [layers.Lambda(lambda x: x)])
    with h5py.File(path("lambda-long.h5"), "w") as f:
        f.attrs["model_config"] = long.to_json()  # too long for a header: it goes to a heap
    with h5py.File(path("lambda-dense.h5"), "w", libver="latest") as f:
        for i in range(30):
            f.attrs[f"other{i}"] = i
        f.attrs["model_config"] = lam.to_json()
    with h5py.File(path("lambda-deep.h5"), "w", libver="latest", track_order=True) as f:
        for i in range(60):
            f.create_group(f"g{i}/h", track_order=True)
        f["g40/h"].attrs["model_config"] = np.bytes_(lam.to_json())


def with_h5py():
    with h5py.File(path("external-link.h5"), "w") as f:
        f["w"] = h5py.ExternalLink("other.h5", "/secret")
    with h5py.File(path("soft-link.h5"), "w") as f:
        f["w"] = h5py.SoftLink("/x")
    with h5py.File(path("external-data.h5"), "w") as f:
        f.create_dataset("w", (4,), "u1", external=[("secret", 0, 4)])
    for name, ver in (("virtual.h5", "earliest"), ("virtual-latest.h5", "latest")):
        with h5py.File(path(name), "w", libver=ver) as f:
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
            f.create_virtual_dataset("w", layout)
    with h5py.File(path("user-block.h5"), "w", userblock_size=512) as f:
        f["w"] = 1
    with h5py.File(path("many-links.h5"), "w", libver="latest") as f:
        for i in range(600):
            f[f"group-{i:05}"] = h5py.SoftLink("/x") if i == 580 else h5py.ExternalLink("a", "b") if i == 599 else f["/"]


with_keras()
with_h5py()
for name in os.listdir(out):
    print(name, os.path.getsize(path(name)))
