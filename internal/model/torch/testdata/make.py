#!/usr/bin/env python3
"""make.py PREFIX: small checkpoints by the installed torch, as PREFIX-NAME.pt, and what
torch itself says of each tensor in them, in expected.json: name, type, shape, and
the SHA-256 of the elements in order. Legacy files end in -legacy.pth."""

import collections
import hashlib
import io
import json
import os
import sys
import zipfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = sys.argv[1]
SAFE = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
}
for name, safe in {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "uint16": "U16", "uint32": "U32", "uint64": "U64"}.items():
    if hasattr(torch, name):
        SAFE[getattr(torch, name)] = safe
NUMPY = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16"}


def raw(t):
    """The elements in order, as torch lays them out when it makes them contiguous."""
    t = t.detach().clone(memory_format=torch.contiguous_format).contiguous()
    s = t.untyped_storage() if hasattr(t, "untyped_storage") else t.storage().untyped()
    return bytes(s)[t.storage_offset() * t.element_size():][:t.numel() * t.element_size()]


def tensors(value, name=""):
    if isinstance(value, torch.Tensor):
        yield name or "tensor", SAFE[value.dtype], list(value.shape), raw(value)
    elif isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        yield name, NUMPY[value.dtype.newbyteorder("=").name], list(value.shape), little.tobytes()
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from tensors(v, f"{name}.{k}" if name else str(k))
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        for i, v in enumerate(value):
            yield from tensors(v, f"{name}.{i}" if name else str(i))


def network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    adam = torch.optim.Adam(net.parameters())
    net(torch.rand(2, 4)).sum().backward()
    adam.step()
    return net, adam


def values():
    torch.manual_seed(1)
    net, adam = network()
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    shared = torch.rand(6, 7)
    yield "types", {n: torch.randint(0, 2, (3, 5)).to(t) for n, t in {
        "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64, "i32": torch.int32,
        "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool, "c64": torch.complex64}.items()}
    yield "bits", {  # not-a-numbers with payloads, minus zero, denormal numbers
        "f32": torch.from_numpy(np.array([0x7fc00001, 0xffa00000, 0x80000000, 1, 0x7f800000], np.uint32).view(np.float32)),
        "f64": torch.from_numpy(np.array([0x7ff8000000000001, 0xfff4000000000000, 1 << 63, 1], np.uint64).view(np.float64)),
        "bf16": torch.from_numpy(np.array([0x7fc1, -0x40, -0x8000, 1], np.int16)).view(torch.bfloat16)}
    new = {}
    for n in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"):
        try:  # not every version that has a type can save it
            t = torch.arange(48, dtype=torch.uint8).view(getattr(torch, n)).reshape(2, -1)
            saved(t)
            new[n] = {"whole": t, "part": t.t()[1:]}
        except (AttributeError, KeyError):
            pass
    if new:
        yield "new-types", new
    yield "views", {
        "transposed": base[0].t(), "permuted": base.permute(2, 0, 1), "row": base[1], "column": base[:, 2, 3], "step": base[::2, 1::2, ::3],
        "expanded": torch.rand(3, 1).expand(3, 4), "repeated": torch.tensor(2.5).expand(2, 3), "windows": torch.arange(10.0).unfold(0, 4, 2),
        "diagonal": torch.rand(5, 5).diagonal(), "middle": torch.rand(4, 1, 3).expand(4, 2, 3).transpose(0, 2), "whole": base}
    yield "shared", {"embed": shared, "head": shared, "half": shared[:3], "turned": shared.t()}
    yield "shapes", {"scalar": torch.tensor(3.5), "empty": torch.zeros(0), "none": torch.zeros(2, 0, 3), "one": torch.ones(1, 1, 1), "list": [torch.ones(1), (torch.zeros(2), torch.ones(3))]}
    yield "one", torch.arange(6, dtype=torch.int16).reshape(2, 3)
    yield "parameters", {"w": torch.nn.Parameter(torch.rand(2, 3)), "still": torch.nn.Parameter(torch.rand(2), requires_grad=False)}
    yield "state", net.state_dict()
    yield "checkpoint", {
        "state_dict": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3, "loss": 0.1, "big": 1 << 70, "note": "böse", "flag": True, "nothing": None,
        "shape": torch.Size([2, 3]), "device": torch.device("cpu"), "dtype": torch.bfloat16, "defaults": collections.defaultdict(list, {"a": [1]}), "rng": torch.get_rng_state(), "raw": b"abc"}
    yield "numpy", {"c": np.arange(6, dtype="<f4").reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype="<i8").reshape(2, 3)), "big": np.arange(4, dtype=">u2"), "b": np.array([True, False]), "half": np.float16([1, 2]), "lr": np.float64(0.5)}


def keep(expected, name, content, value):
    name = f"{PREFIX}-{name}"
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(content)
    expected[name] = [{"name": n, "type": t, "shape": s, "sha256": hashlib.sha256(b).hexdigest()} for n, t, s, b in tensors(value)]


def saved(value, **how):
    f = io.BytesIO()
    torch.save(value, f, **how)
    return f.getvalue()


def turned(content, width):
    """The archive as a machine with the high byte first would have written it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as z, zipfile.ZipFile(out, "w") as w:
        for i in z.infolist():
            b = z.read(i)
            if "/data/" in i.filename:
                b = b"".join(b[k:k + width][::-1] for k in range(0, len(b), width))
            if i.filename.endswith("/byteorder"):
                b = b"big"
            w.writestr(i.filename, b)
    return out.getvalue()


def main():
    path = os.path.join(HERE, "expected.json")
    expected = json.load(open(path)) if os.path.exists(path) else {}
    expected = {k: v for k, v in expected.items() if not k.startswith(PREFIX + "-")}
    for name, value in values():
        keep(expected, name + ".pt", saved(value), value)
        if name != "new-types":
            keep(expected, name + "-legacy.pth", saved(value, _use_new_zipfile_serialization=False), value)
    state = dict(network()[0].state_dict())
    for protocol in (3, 4, 5):
        keep(expected, f"protocol{protocol}.pt", saved(state, pickle_protocol=protocol), state)
    if b"/byteorder" in saved(state):  # since 2.1
        for name, width, t in (("2", 2, torch.bfloat16), ("4", 4, torch.float32), ("8", 8, torch.int64), ("complex", 4, torch.complex64)):
            value = {"whole": torch.arange(6).to(t), "turned": torch.arange(6).reshape(2, 3).to(t).t()}
            content = turned(saved(value), width)
            assert all(torch.equal(v, value[k]) for k, v in torch.load(io.BytesIO(content), weights_only=True).items())
            keep(expected, f"big-endian-{name}.pt", content, value)
    with open(path, "w") as f:
        json.dump(expected, f, indent=1, sort_keys=True)
        f.write("\n")


main()
