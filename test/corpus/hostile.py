"""Writes small hostile model files with the real libraries, for the tests of the
scanners. None of them does harm: what they would run or read is harmless here.

usage: hostile.py SCANNER DIRECTORY. Runs in the environment of a set of corpus.sh: l
for keras, onnx and skops, m for tensorflow, u for repo. Files go to DIRECTORY, the
testdata of the scanner.
"""
import io
import os
import re
import sys
import zipfile

os.environ["KERAS_BACKEND"] = "numpy"
out = sys.argv[2]
os.makedirs(out, exist_ok=True)


def path(name):
    return os.path.join(out, name)


def with_keras():
    import h5py
    import keras
    import numpy as np
    from keras import layers
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
    with_h5py()


def with_h5py():
    import h5py
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


def with_onnx():
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y")]

    def model(nodes, initializer=(), opsets=(("", 17),)):
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], list(initializer))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets])

    def outside(**entries):
        t = numpy_helper.from_array(np.zeros(4, "f4"), "w")
        t.ClearField("raw_data")
        t.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            e = t.external_data.add()
            e.key, e.value = key, value
        return t

    add = [helper.make_node("Add", ["x", "w"], ["y"])]
    branch = helper.make_graph([helper.make_node("Constant", [], ["t"], value=outside(location="../secret"))], "b", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, [4])])
    for name, m in {
        "path-up": model(add, [outside(location="../../etc/passwd")]),
        "attribute": model(add, [outside(location="w.bin", _source="x")]),
        "path-up-in-a-branch": model([helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]),
        "python": model([helper.make_node("PyCustomOpDef", ["x"], ["y"], domain="ai.onnx.contrib")], opsets=(("", 17), ("ai.onnx.contrib", 1))),
    }.items():
        with open(path(name + ".onnx"), "wb") as f:
            f.write(m.SerializeToString())


def with_skops():
    import operator
    from functools import partial

    import skops.io
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import FunctionTransformer
    for name, value in {"partial": FunctionTransformer(partial(print, 1)), "function": FunctionTransformer(os.getcwd), "operator": operator.methodcaller("upper"), "method": LinearRegression().fit}.items():
        skops.io.dump(value, path(name + ".skops"))


def with_tensorflow():
    import shutil

    import tensorflow as tf

    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32)])
        def __call__(self, x):
            tf.io.write_file("out.txt", tf.strings.as_string(x[0]))
            return x

    m = Writes()
    tf.saved_model.save(m, path("d"))
    os.replace(path("d/saved_model.pb"), path("write-file.pb"))
    shutil.rmtree(path("d"))
    c = tf.lite.TFLiteConverter.from_concrete_functions([m.__call__.get_concrete_function()], m)
    c.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    with open(path("write-file.tflite"), "wb") as f:
        f.write(c.convert())
    with tf.Graph().as_default() as g:
        tf.compat.v1.py_func(lambda x: x, [tf.constant(1.0)], tf.float32)
        with open(path("python.pb"), "wb") as f:
            f.write(g.as_graph_def().SerializeToString())


def neutral(content):
    """Returns a torch archive, packed anew with x in the place of the directories that
    its code came from: they say where it was made, and nothing else."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as z, zipfile.ZipFile(out, "w") as packed:
        for info in z.infolist():
            data = re.sub(rb"/[\w./+-]+(?=/[\w.-]+\.py)", lambda m: b"/" + b"x" * (len(m[0]) - 1), z.read(info))
            packed.writestr(zipfile.ZipInfo(info.filename), data, info.compress_type)
    return out.getvalue()


def with_repo():
    import torch
    from torch import nn

    class Saves(nn.Module):
        def forward(self, x: torch.Tensor):
            torch.save(x, "out.pt")
            return x

    class Reads(nn.Module):
        def forward(self, x: torch.Tensor):
            return x + torch.from_file("in.bin", False, 3, dtype=torch.uint8)

    for name, m in {"saves.pt": Saves(), "reads.pt": Reads()}.items():
        b = io.BytesIO()
        torch.jit.save(torch.jit.script(m), b)
        with open(path(name), "wb") as f:
            f.write(neutral(b.getvalue()))


{"keras": with_keras, "onnx": with_onnx, "skops": with_skops, "tensorflow": with_tensorflow, "repo": with_repo}[sys.argv[1]]()
for name in os.listdir(out):
    print(name, os.path.getsize(path(name)))
