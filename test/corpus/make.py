"""Writes small honest model files with the real libraries.

usage: make.py SET DIRECTORY [NAMES]. Runs inside of an environment that has the
libraries of the set; corpus.sh makes those. Files go to DIRECTORY/SET-*, and a
line for each to DIRECTORY/manifest.jsonl. With NAMES, the classes that fitted
estimators pickle under are added to that file.
"""
import datetime
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import os
import pickle
import pickletools
import pkgutil
import re
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

warnings.filterwarnings("ignore")
LIMIT = 40_000  # bytes of a file
NAME, DIRECTORY = sys.argv[1], sys.argv[2]
NAMES = sys.argv[3] if len(sys.argv) > 3 else None
os.makedirs(DIRECTORY, exist_ok=True)
names = set()


def version(*libraries):
    return {lib: importlib.metadata.version(lib) for lib in libraries}


def keep(name, what, content, libraries):
    """Writes a file, unless it is too large to be kept."""
    if len(content) > LIMIT:
        return
    file = f"{NAME}-{name}"
    with open(os.path.join(DIRECTORY, file), "wb") as f:
        f.write(content)
    row = {"file": file, "what": what, "sha256": hashlib.sha256(content).hexdigest(), "with": version(*libraries)}
    with open(os.path.join(DIRECTORY, "manifest.jsonl"), "a") as f:
        f.write(json.dumps(row, sort_keys=True) + "\n")


def saved(save):
    """Returns what save(file) writes to an open file."""
    f = io.BytesIO()
    save(f)
    return f.getvalue()


def note(content):
    """Adds the names that a pickle imports."""
    strings = []
    for op, arg, _ in pickletools.genops(content):
        if op.name == "GLOBAL":
            names.add(arg)
        elif op.name == "STACK_GLOBAL":
            names.add(strings[-2] + " " + strings[-1])
        elif isinstance(arg, str):
            strings.append(arg)


def plain():
    values = {
        "numbers": [1, -1, 255, 65536, 2**31, 2**70, -(2**70), 1.5, float("inf"), True, None],
        "text": {"a": "text", "ü": "unicode \u2028 \U0001f600", "long": "x" * 700, "empty": ""},
        "nested": {"a": [1, (2, {"b": {3, 4}})], "c": frozenset([1]), "d": bytearray(b"abc"), "e": b"\x00\xff" * 200},
        "collections": [OrderedDict(a=1), Counter("hello"), deque([1, 2], maxlen=5), defaultdict(list, a=[1]), defaultdict(int)],
        "times": [datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.date(2026, 1, 2), datetime.timedelta(days=1), datetime.timezone.utc],
        "exact": [Decimal("1.50"), Fraction(1, 3), UUID(int=7), complex(1, 2), slice(1, 2), range(3)],
        "shared": (lambda x: [x, x, {"again": x}])(["one list"]),
        "many": {f"key{i}": list(range(i % 7)) for i in range(400)},
    }
    for what, value in values.items():
        for protocol in range(6):
            keep(f"plain-{what}-{protocol}.pkl", f"{what}, protocol {protocol}", pickle.dumps(value, protocol), [])


def with_numpy():
    import numpy as np
    rng = np.random.RandomState(1)
    arrays = {t: np.arange(12).reshape(3, 4).astype(t) for t in ["f2", "f4", "f8", ">f8", "i1", "i4", "i8", "u2", "c8", "c16", "b1", "U5", "S3"]}
    arrays["datetime"] = np.array(["2026-01-01", "2026-01-02"], dtype="M8[D]")
    arrays["record"] = np.array([(1, 2.5, "a")], dtype=[("x", "i4"), ("y", "f8"), ("z", "U3")])
    arrays["fortran"] = np.asfortranarray(rng.rand(4, 5))
    arrays["objects"] = np.array([1, "a", None, [2, 3], {"k": 1.5}], dtype=object)
    arrays["empty"] = np.zeros((0, 3))
    arrays["scalar-shape"] = np.array(3.0)
    for what, a in arrays.items():
        clean = what.replace(">", "big-")
        keep(f"array-{clean}.npy", f"array of {what}", saved(lambda f: np.save(f, a)), ["numpy"])
        for protocol in (2, 4, 5):
            keep(f"array-{clean}-{protocol}.pkl", f"array of {what}, protocol {protocol}", pickle.dumps(a, protocol), ["numpy"])
    keep("two.npz", "two arrays", saved(lambda f: np.savez(f, a=arrays["f4"], b=arrays["U5"])), ["numpy"])
    keep("small.npz", "compressed, one of objects", saved(lambda f: np.savez_compressed(f, a=arrays["i8"], b=arrays["objects"])), ["numpy"])
    others = {
        "scalars": [np.float32(1), np.int64(2), np.bool_(True), np.str_("x"), np.complex64(1j), np.datetime64("2026-01-01")],
        "dtypes": [np.dtype("f4"), np.dtype([("a", "i4"), ("b", "O")]), np.float32],
        "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
        "matrix": np.matrix([[1, 2], [3, 4]]),
        "random-state": np.random.RandomState(7),
        "generator": np.random.default_rng(7),
        "many-scalars": [np.float64(i) for i in range(300)],
    }
    for what, value in others.items():
        for protocol in (2, 5):
            keep(f"numpy-{what}-{protocol}.pkl", f"{what}, protocol {protocol}", pickle.dumps(value, protocol), ["numpy"])


def with_joblib():
    import joblib
    import numpy as np
    values = {
        "array": np.arange(300.0).reshape(20, 15), "arrays": {"a": np.arange(5), "b": [np.zeros((2, 3), "f4"), np.array(["x", "yy"])]},
        "objects": np.array([1, "a", None, {"k": [1]}], dtype=object), "plain": {"a": [1, 2, 3]}, "fortran": np.asfortranarray(np.eye(9)),
        "empty": np.zeros((0,)), "bytes": np.frombuffer(b"cos\nsystem" * 3, dtype="u1"),
    }
    for what, value in values.items():
        for how in (0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)):
            label = how if isinstance(how, int) else how[0]
            keep(f"joblib-{what}-{label}.joblib", f"{what}, compression {label}", saved(lambda f: joblib.dump(value, f, compress=how)), ["joblib", "numpy"])


def fitted():
    """Yields every estimator of scikit-learn that fits a few numbers or texts."""
    import numpy as np
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import all_estimators
    rng = np.random.RandomState(0)
    x, y = rng.rand(30, 3), np.arange(30) % 2
    texts = ["one two", "two three", "three four five"] * 10
    for name, cls in all_estimators():
        try:
            params = {p: v for p, v in {"n_estimators": 3, "max_iter": 20, "n_components": 2, "random_state": 0, "estimator": None}.items()
                      if p in inspect.signature(cls).parameters and v is not None}
            e = cls(**params)
        except TypeError:
            continue
        except Exception:
            continue
        for args in ((x, y), (x,), (np.abs(x), y), (texts,), (y,), ([{"a": 1.0}, {"b": 2.0}],), (x, np.stack([y, y]).T)):
            try:
                yield name, e.fit(*args)
                break
            except Exception:
                continue
    from sklearn.linear_model import LogisticRegression
    yield "pipeline", make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    from sklearn.datasets import load_iris
    yield "bunch", load_iris()


def with_sklearn():
    import joblib
    for i, (name, e) in enumerate(fitted()):
        for protocol in (2, 4):
            try:
                note(pickle.dumps(e, protocol))
            except Exception:
                pass
        if i % 2 == 0:
            keep(f"sklearn-{name}.pkl", name, pickle.dumps(e, 4), ["scikit-learn"])
        else:
            keep(f"sklearn-{name}.joblib", name, saved(lambda f: joblib.dump(e, f, compress=i % 4)), ["scikit-learn", "joblib"])


def published(function):
    """Returns the module and name that a function is found under."""
    return f"{function.__module__} {function.__name__}"


def note_estimators():
    """Adds the classes that scikit-learn fits, splits and scores with, where they are
    defined, and with = the functions that it is given for that."""
    import sklearn
    from sklearn.base import BaseEstimator
    parts = ("gaussian_process.kernels", "model_selection._split", "metrics._scorer", "metrics._dist_metrics", "tree._", "_loss", "_metadata_requests",
             "_hist_gradient_boosting", "neighbors._", "_stochastic_optimizers", "_sgd_fast", "_column_transformer", "_iterative", "_set_output", "_tags")
    without = (".tests", "externals", "conftest", "datasets", "__check", "_testing", "_mocking", "_print", "inspection", "_plot", "_joblib", "tree._export", "_reingold")
    for found in pkgutil.walk_packages(sklearn.__path__, "sklearn."):
        if any(part in found.name for part in without):
            continue
        try:
            module = importlib.import_module(found.name)
        except Exception:
            continue
        scores = found.name.startswith("sklearn.metrics.") or found.name.startswith(("sklearn.feature_selection._univariate", "sklearn.feature_selection._mutual"))
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, type) and not issubclass(value, BaseException) and (issubclass(value, BaseEstimator) or any(part in found.name for part in parts)):
                names.add(f"{module.__name__} {name}")
            elif scores and inspect.isfunction(value) and not name.startswith(("_", "check", "get_", "make_")):
                names.add("=" + published(value))


def pipelines():
    """Yields what people build of estimators and keep."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, VotingClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import RFE, SelectKBest, chi2
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.impute import SimpleImputer
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, make_scorer
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, TimeSeriesSplit
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
    from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OneHotEncoder, StandardScaler
    rng = np.random.RandomState(0)
    x = pd.DataFrame({"a": rng.rand(30), "b": rng.randint(0, 9, 30), "c": rng.choice(list("xyz"), 30), "t": [f"text number {i % 5}" for i in range(30)]})
    n, y = x[["a", "b"]], np.arange(30) % 2
    columns = ColumnTransformer([("n", Pipeline([("i", SimpleImputer()), ("s", StandardScaler())]), ["a", "b"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["c"]), ("t", TfidfVectorizer(), "t")])
    whole = Pipeline([("columns", columns), ("model", LogisticRegression())])
    yield "columns", whole.fit(x, y)
    yield "selector", make_pipeline(ColumnTransformer([("n", StandardScaler(), make_column_selector(dtype_include="number"))]), LogisticRegression()).fit(x, y)
    yield "grid", GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=StratifiedKFold(3)).fit(n, y)
    yield "scored", GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=KFold(3), scoring=make_scorer(f1_score)).fit(n, y)
    yield "stacked", StackingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())], cv=3).fit(n, y)
    yield "voted", VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())]).fit(n, y)
    yield "boosted", HistGradientBoostingClassifier(max_iter=2).fit(n, y)
    yield "selected", make_pipeline(SelectKBest(chi2, k=1), LogisticRegression()).fit(n, y)
    yield "eliminated", RFE(LogisticRegression(), n_features_to_select=1).fit(n, y)
    yield "united", FeatureUnion([("a", TfidfVectorizer()), ("b", TfidfVectorizer(analyzer="char"))]).fit(x["t"])
    yield "process", GaussianProcessClassifier(RBF() + WhiteKernel()).fit(n, y)
    yield "logarithm", make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(n, y)
    yield "isotonic", IsotonicRegression().fit(x["a"], x["b"])
    yield "one-vs-rest", OneVsRestClassifier(LogisticRegression()).fit(n, rng.randint(0, 3, 30))
    yield "outputs", MultiOutputClassifier(LogisticRegression()).fit(n, np.c_[y, 1 - y])
    yield "bundle", {"model": LogisticRegression().fit(n, y), "labels": LabelEncoder().fit(x["c"]), "columns": list(n), "split": TimeSeriesSplit()}


def with_pipelines():
    import joblib
    note_estimators()
    for i, (name, e) in enumerate(pipelines()):
        note(pickle.dumps(e, 2))
        keep(f"people-{name}.pkl", name, pickle.dumps(e, 4), ["scikit-learn", "pandas"])
        keep(f"people-{name}.joblib", name, saved(lambda f: joblib.dump(e, f)), ["scikit-learn", "joblib"])
        if i < 3 and importlib.util.find_spec("lz4"):
            keep(f"people-{name}-lz4.joblib", name + ", packed with lz4", saved(lambda f: joblib.dump(e, f, compress=("lz4", 3))), ["scikit-learn", "joblib", "lz4"])
        keep(f"people-{name}.sav", name + ", compressed", saved(lambda f: joblib.dump(e, f, compress=3)), ["scikit-learn", "joblib"])


def with_tables():
    import numpy as np
    import pandas as pd
    values = {
        "categories": pd.Series(["a", "b", "a"], dtype="category"), "levels": pd.DataFrame(np.eye(4), index=pd.MultiIndex.from_product([[1, 2], ["a", "b"]])),
        "zone": pd.date_range("2026-01-01", periods=3, tz="Europe/Berlin").to_series(), "utc": pd.date_range("2026-01-01", periods=3, tz="UTC"),
        "sparse": pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])}), "periods": pd.period_range("2026-01", periods=3, freq="M"), "intervals": pd.interval_range(0, 3),
        "nullable": pd.DataFrame({"i": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean"), "f": pd.array([1.0, None], dtype="Float64"), "s": pd.array(["a", None], dtype="string")}),
        "spans": pd.to_timedelta([1, 2], unit="D"), "moments": [pd.Timestamp("2026-01-01", tz="UTC"), pd.Timedelta("1D"), pd.NaT, pd.NA], "ends": pd.offsets.MonthEnd(),
        "texts": pd.DataFrame({"a": ["x", "yy"]}), "described": pd.DataFrame({"a": [1.0, 2.0]}).describe(), "types": pd.DataFrame({"a": [1], "b": ["x"]}).dtypes,
    }
    for what, value in values.items():
        note(pickle.dumps(value, 2))
        for protocol in (2, 5):
            keep(f"table-{what}-{protocol}.pkl", f"{what}, protocol {protocol}", pickle.dumps(value, protocol), ["pandas"])
    records = {
        "nested": np.zeros(2, [("a", [("x", "f4"), ("y", "i2", (2, 3))]), ("b", "U5")]), "titles": np.zeros(2, [(("Title", "a"), "i4")]), "letters": np.zeros(1, [("gr\u00f6\u00dfe", "f4")]),
        "spaced": np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [0, 16], "itemsize": 32})), "raw": np.zeros(2, "V8"),
    }
    for what, value in records.items():
        keep(f"record-{what}.npy", what, saved(lambda f: np.save(f, value)), ["numpy"])
    keep("record-two.npy", "two arrays", saved(lambda f: (np.save(f, np.arange(3)), np.save(f, np.eye(2)))), ["numpy"])
    keep("record-all.npz", "all of them", saved(lambda f: np.savez_compressed(f, **records)), ["numpy"])


def with_trees():
    import lightgbm
    import numpy as np
    import xgboost
    x, y = np.random.RandomState(0).rand(40, 3), np.arange(40) % 2
    light = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=2, verbose=-1).fit(x, y)
    keep("lightgbm.pkl", "trees of LightGBM", pickle.dumps(light), ["lightgbm"])
    keep("lightgbm.txt", "trees of LightGBM, its own format", light.booster_.model_to_string().encode(), ["lightgbm"])
    extreme = xgboost.XGBClassifier(n_estimators=2).fit(x, y)
    keep("xgboost.pkl", "trees of XGBoost", pickle.dumps(extreme), ["xgboost-cpu"])
    for form in ("json", "ubj"):
        keep("xgboost." + form, "trees of XGBoost, its own format " + form, bytes(extreme.get_booster().save_raw(form)), ["xgboost-cpu"])


def with_pieces():
    import sentencepiece
    text = [f"the quick brown fox number {i} jumps over {i * 7} dogs" for i in range(300)]
    for kind in ("unigram", "bpe", "char", "word"):
        keep(f"pieces-{kind}.model", f"vocabulary of sentencepiece, {kind}", saved(lambda f: sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=f, vocab_size=80 if kind in ("unigram", "bpe") else 40, model_type=kind, hard_vocab_limit=False, minloglevel=2)), ["sentencepiece"])



def with_scipy():
    import numpy as np
    from scipy import sparse
    for kind in ("csr", "csc", "coo", "lil", "dok", "dia", "bsr"):
        m = sparse.random(5, 6, density=0.4, format=kind, random_state=0)
        content = pickle.dumps(m, 4)
        note(content)
        keep(f"scipy-{kind}.pkl", f"sparse {kind}", content, ["scipy"])
        if hasattr(sparse, kind + "_array"):
            content = pickle.dumps(getattr(sparse, kind + "_array")(np.eye(3)), 4)
            note(content)
            keep(f"scipy-{kind}-array.pkl", f"sparse array {kind}", content, ["scipy"])


def with_pandas():
    import numpy as np
    import pandas as pd
    frame = pd.DataFrame({"a": [1, 2], "b": [1.5, np.nan], "c": ["x", "y"], "d": pd.to_datetime(["2026-01-01", "2026-01-02"])})
    for what, value in {"frame": frame, "series": frame["a"], "indexed": frame.set_index("c"), "index": frame.index, "dates": pd.DatetimeIndex(frame["d"])}.items():
        for protocol in (2, 4):
            content = pickle.dumps(value, protocol)
            note(content)
            keep(f"pandas-{what}-{protocol}.pkl", f"{what}, protocol {protocol}", content, ["pandas"])


def with_torch():
    import torch
    from torch import nn
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    adam = torch.optim.Adam(net.parameters())
    net(torch.rand(2, 4)).sum().backward()
    adam.step()
    values = {
        "state": net.state_dict(), "checkpoint": {"model": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3, "best": 0.5},
        "tensor": torch.arange(6).reshape(2, 3), "half": torch.rand(3).half(), "bfloat16": torch.rand(3).bfloat16(), "bool": torch.tensor([True]),
        "views": (lambda t: {"a": t[1:], "b": t.t(), "c": t[:, 0]})(torch.rand(3, 4)), "parameter": nn.Parameter(torch.rand(2)),
        "sparse": torch.eye(3).to_sparse(), "sizes": [torch.Size([1, 2]), torch.device("cpu"), torch.float32], "complex": torch.rand(2, dtype=torch.complex64),
        "quantised": torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.quint8), "empty": torch.zeros(0), "scalar": torch.tensor(1.5),
        "ints": {k: torch.ones(2, dtype=k) for k in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float64)},
    }
    for what, value in values.items():
        keep(f"torch-{what}.pt", what, saved(lambda f: torch.save(value, f)), ["torch"])
        keep(f"torch-{what}-legacy.pth", what + ", before 1.6", saved(lambda f: torch.save(value, f, _use_new_zipfile_serialization=False)), ["torch"])
    for module in (net, nn.Conv2d(1, 2, 3), nn.LSTM(3, 4), nn.TransformerEncoderLayer(8, 2, 8), nn.BatchNorm1d(3), nn.Embedding(4, 3), nn.Dropout(0.1), nn.GRU(2, 2)):
        what = type(module).__name__
        keep(f"torch-module-{what}.pt", "the module " + what, saved(lambda f: torch.save(module, f)), ["torch"])
    for _, part, _ in pkgutil.iter_modules(nn.modules.__path__):
        for cls in vars(importlib.import_module("torch.nn.modules." + part)).values():
            if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__.startswith("torch.nn.modules."):
                names.add(cls.__module__ + " " + cls.__name__)


def neutral(content):
    """Returns a torch archive, packed anew with x in the place of the directories that
    its code came from: they say where it was made, and nothing else."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as z, zipfile.ZipFile(out, "w") as packed:
        for info in z.infolist():
            data = re.sub(rb"/[\w./+-]+(?=/[\w.-]+\.py)", lambda m: b"/" + b"x" * (len(m[0]) - 1), z.read(info))
            packed.writestr(zipfile.ZipInfo(info.filename), data, info.compress_type)
    return out.getvalue()


def with_torchscript():
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.names = ["a", "b"]
            self.register_buffer("b", torch.ones(3))

        def forward(self, x):
            if x.sum() > 0:
                x = x * torch.tensor([1.0, 2.0, 3.0])
            return torch.relu(self.linear(x + self.b))

    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    models = {
        "script": torch.jit.script(Net()), "frozen": torch.jit.freeze(torch.jit.script(Net().eval())), "sequence": torch.jit.script(layers),
        "traced": torch.jit.trace(layers, torch.zeros(1, 1, 8, 8)), "lstm": torch.jit.script(nn.LSTM(3, 4)),
    }
    for what, m in models.items():
        keep(f"torchscript-{what}.pt", what, neutral(saved(lambda f: torch.jit.save(m, f))), ["torch"])
        keep(f"torchscript-{what}.ptl", what + ", for phones", neutral(m._save_to_buffer_for_lite_interpreter()), ["torch"])


def with_safetensors():
    import numpy as np
    from safetensors.numpy import save
    values = {"two": {"a": np.ones((2, 3), "f4"), "b": np.arange(4)}, "one": {"w": np.zeros((3,), "f2")}, "empty": {}, "zero": {"z": np.zeros((0, 2), "f4")}}
    for what, value in values.items():
        for meta in (None, {"format": "np"}):
            if meta and not value:
                continue  # version 0.4 writes no JSON then
            keep(f"{what}-{'meta' if meta else 'bare'}.safetensors", what, save(value, meta), ["safetensors"])


def with_gguf():
    import tempfile

    import gguf
    import numpy as np
    for arch in ("llama", "gpt2"):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "m.gguf")
            w = gguf.GGUFWriter(path, arch)
            w.add_block_count(1)
            w.add_context_length(32)
            w.add_token_list([b"a", b"b"])
            w.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
            w.add_tensor("a", np.ones((4, 8), np.float32))
            w.add_tensor("b", np.ones((32,), np.float16))
            w.write_header_to_file()
            w.write_kv_data_to_file()
            w.write_tensors_to_file()
            w.close()
            with open(path, "rb") as f:
                keep(f"{arch}.gguf", arch, f.read(), ["gguf"])


def with_onnx():
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in ("x", "y")]

    def model(nodes, initializer=(), functions=(), opsets=(("", 17),), **more):
        graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], list(initializer))
        return helper.make_model(graph, functions=list(functions), opset_imports=[helper.make_opsetid(*o) for o in opsets], producer_name="corpus", **more)

    w = np.arange(16, dtype="f4").reshape(4, 4)
    node = helper.make_node
    models = {
        "plain": model([node("MatMul", ["x", "w"], ["y"])], [numpy_helper.from_array(w, "w")]),
        "typed": model([node("MatMul", ["x", "w"], ["y"])], [helper.make_tensor("w", TensorProto.FLOAT, [4, 4], w.ravel())]),
        "classic": model([node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0] * 4, scale=[2.0] * 4)], opsets=[("", 17), ("ai.onnx.ml", 3)]),
        "microsoft": model([node("Gelu", ["x"], ["y"], domain="com.microsoft")], opsets=[("", 17), ("com.microsoft", 1)]),
        "function": model([node("Mine", ["x"], ["y"], domain="own")], functions=[helper.make_function("own", "Mine", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)])], opsets=[("", 17), ("own", 1)]),
    }
    kinds = {t: getattr(TensorProto, t) for t in ("INT64", "INT32", "UINT8", "INT8", "UINT16", "BOOL", "FLOAT16", "DOUBLE", "COMPLEX64", "UINT32", "UINT64", "BFLOAT16", "FLOAT8E4M3FN")}
    typed = [helper.make_tensor(t, k, [2, 3], [1, 0, 1, 1, 0, 1]) for t, k in kinds.items()]
    typed.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"bc"]))
    typed.append(helper.make_tensor("scalar", TensorProto.INT64, [], [3]))
    typed.append(helper.make_tensor("empty", TensorProto.FLOAT, [0, 2], []))
    models["types"] = model([node("Identity", ["x"], ["y"])], typed)
    then = helper.make_graph([node("Constant", [], ["t"], value=numpy_helper.from_array(w[:1], "c"))], "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, [1, 4])])
    models["branches"] = model([node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "c")), node("If", ["c"], ["y"], then_branch=then, else_branch=then)])
    outside = model([node("MatMul", ["x", "w"], ["y"])], [numpy_helper.from_array(w, "w")])
    onnx.external_data_helper.convert_model_to_external_data(outside, location="m.onnx_data", size_threshold=0)
    outside.graph.initializer[0].ClearField("raw_data")
    for key, value in (("offset", "0"), ("length", "64")):
        entry = outside.graph.initializer[0].external_data.add()
        entry.key, entry.value = key, value
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    models["outside"] = outside
    for what, m in models.items():
        if what != "outside":
            onnx.checker.check_model(m)
        keep(f"{what}.onnx", what, m.SerializeToString(), ["onnx", "protobuf"])
    m = models["plain"]
    keep("other-name.weights", "a model by another name", m.SerializeToString(), ["onnx", "protobuf"])


def with_keras():
    os.environ["KERAS_BACKEND"] = "numpy"
    import tempfile

    import keras
    import numpy as np
    from keras import layers
    dense = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="relu", kernel_regularizer="l2"), layers.Dropout(0.1), layers.Dense(2, activation="softmax")])
    dense.compile(loss="mse", optimizer="adam", metrics=["mae"])
    i = layers.Input((8, 8, 3))
    x = layers.Conv2D(2, 3, activation=keras.activations.gelu, kernel_initializer=keras.initializers.HeNormal(3))(i)
    y = layers.BatchNormalization()(x)
    x = keras.ops.relu(layers.Add()([x, y]) + 1.0)
    images = keras.Model(i, layers.Dense(1, kernel_constraint="max_norm")(layers.GlobalAveragePooling2D()(x)))
    images.compile(loss=keras.losses.Huber(), optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)), metrics=["mae", keras.metrics.AUC()])
    t = layers.Input((6,), dtype="int32")
    e = layers.Embedding(10, 4)(t)
    a = layers.LayerNormalization()(e + layers.MultiHeadAttention(2, 2)(e, e))
    texts = keras.Model(t, layers.Dense(2)(layers.GlobalMaxPooling1D()(a)))
    rnn = keras.Sequential([layers.Input((5, 2)), layers.Bidirectional(layers.LSTM(2)), layers.ReLU(), layers.Dense(1)])
    rnn.compile(loss=keras.losses.binary_crossentropy, optimizer=keras.optimizers.Adam(1e-3))
    many = keras.Sequential([layers.Input((1,))] + [layers.Activation("relu") for _ in range(60)])
    for what, m in {"dense": dense, "images": images, "texts": texts, "rnn": rnn, "many": many}.items():
        with tempfile.TemporaryDirectory() as d:
            for name in (f"{what}.keras", f"{what}.h5", f"{what}.weights.h5"):
                p = os.path.join(d, name)
                try:
                    m.save_weights(p) if ".weights." in name else m.save(p)
                except Exception as err:
                    print(f"{NAME}: {name}: {err}", file=sys.stderr)
                    continue
                with open(p, "rb") as f:
                    keep(f"keras-{name}", what, f.read(), ["keras", "h5py"])
        keep(f"keras-{what}-architecture.json", what, m.to_json().encode(), ["keras"])
    x = np.zeros((1, 4), "f4")
    dense(x)


def with_h5py():
    import tempfile

    import h5py
    import numpy as np
    for libver in ("earliest", "latest"):
        for order in (False, True):
            with tempfile.TemporaryDirectory() as d:
                p = os.path.join(d, "m.h5")
                with h5py.File(p, "w", libver=libver, track_order=order) as f:
                    for n in range(40):
                        g = f.create_group(f"layer_{n}", track_order=order)
                        g.attrs["name"] = f"text {n}"
                        g.attrs["many"] = ["a", "bb", "ccc"]
                    for n in range(20):
                        f.attrs[f"fact{n}"] = n if n % 2 else np.bytes_(b"bytes")
                    f.create_dataset("packed", data=np.zeros((64, 64)), compression="gzip", shuffle=True, fletcher32=True)
                    f.create_dataset("lzf", data=np.zeros((64, 64), "f2"), compression="lzf")
                    f.create_dataset("texts", data=["a", "b"], dtype=h5py.string_dtype())
                    f["again"] = f["layer_3"]
                with open(p, "rb") as f:
                    keep(f"h5py-{libver}-{'ordered' if order else 'named'}.h5", f"{libver}, order {order}", f.read(), ["h5py"])


def with_tensorflow():
    import tempfile

    import tensorflow as tf
    from tensorflow.keras import layers
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def packed(d):
        """Returns a zip of a directory."""
        f = io.BytesIO()
        with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as z:
            for root, _, files in sorted(os.walk(d)):
                for name in sorted(files):
                    z.write(os.path.join(root, name), os.path.relpath(os.path.join(root, name), d))
        return f.getvalue()

    i = layers.Input((8, 8, 3))
    x = layers.Conv2D(2, 3, activation="relu")(i)
    x = layers.BatchNormalization()(x)
    x = tf.nn.relu(x * 2.0 + 1.0)
    images = tf.keras.Model(i, layers.Dense(1)(layers.GlobalAveragePooling2D()(x)))
    images.compile(loss="mse", optimizer="sgd", metrics=["mae"])
    dense = tf.keras.Sequential([layers.Input((4,)), layers.Dense(2, kernel_regularizer="l2"), layers.Dropout(0.1), layers.Softmax()])
    rnn = tf.keras.Sequential([layers.Input((5, 2)), layers.LSTM(2), layers.Dense(1)])
    for what, m in {"images": images, "dense": dense, "rnn": rnn}.items():
        with tempfile.TemporaryDirectory() as d:
            for name in (f"{what}.keras", f"{what}.h5", f"{what}.weights.h5"):
                p = os.path.join(d, name)
                m.save_weights(p) if ".weights." in name else m.save(p)
                with open(p, "rb") as f:
                    keep(f"keras2-{name}", what + " of Keras 2", f.read(), ["tensorflow-cpu", "keras", "h5py"])
        with tempfile.TemporaryDirectory() as d:
            m.save(d, save_format="tf")
            keep(f"savedmodel-{what}.zip", what + " as a saved model", packed(d), ["tensorflow-cpu", "keras"])
        if what != "rnn":  # its loop needs a fixed batch
            keep(f"{what}.tflite", what, tf.lite.TFLiteConverter.from_keras_model(m).convert(), ["tensorflow-cpu"])
        shape = [1] + list(m.input_shape[1:])
        frozen = convert_variables_to_constants_v2(tf.function(m).get_concrete_function(tf.TensorSpec(shape, tf.float32)))
        keep(f"frozen-{what}.pb", what + ", frozen", frozen.graph.as_graph_def().SerializeToString(), ["tensorflow-cpu"])

    class Words(tf.Module):
        def __init__(self):
            super().__init__()
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], [1, 2]), 0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, words):
            n = tf.constant(0)
            while n < 3:
                n += 1
            return self.table.lookup(tf.strings.lower(words)), tf.strings.length(words) + n

    with tempfile.TemporaryDirectory() as d:
        tf.saved_model.save(Words(), d)
        keep("savedmodel-words.zip", "a table and a loop", packed(d), ["tensorflow-cpu"])

    class Flex(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2, 2], tf.float32)])
        def __call__(self, x):
            return tf.linalg.inv(x)

    flex = Flex()
    c = tf.lite.TFLiteConverter.from_concrete_functions([flex.__call__.get_concrete_function()], flex)
    c.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    keep("flex.tflite", "an operation of TensorFlow", c.convert(), ["tensorflow-cpu"])


def with_skops():
    import skops.io
    every = int(os.environ.get("SKOPS_EVERY", "9"))
    for n, (name, e) in enumerate(fitted()):
        try:
            content = skops.io.dumps(e)
        except Exception as err:
            print(f"{NAME}: skops: {name}: {err}", file=sys.stderr)
            continue
        if n % every == 0 or name == "pipeline":
            keep(f"skops-{name}.skops", name, content, ["skops", "scikit-learn"])


def main():
    parts = (plain, with_numpy, with_joblib, with_scipy, with_pandas, with_sklearn, with_torch, with_safetensors, with_gguf)
    if NAME in ("k", "l"):
        parts = (with_onnx, with_keras, with_h5py, with_skops)
    elif NAME == "m":
        parts = (with_tensorflow,)
    elif NAME == "u":
        parts = (with_torchscript,)
    elif NAME in ("d", "e", "f"):
        parts = (with_pipelines, with_tables, with_trees, with_pieces)
    for part in parts:
        try:
            part()
        except ImportError as err:
            print(f"{NAME}: {part.__name__}: {err}", file=sys.stderr)
    if NAMES:
        wanted = {n for n in names if n.lstrip("=").split(" ")[0].split(".")[0] in ("sklearn", "scipy", "pandas", "torch", "joblib", "_loss")}
        with open(NAMES, "a") as f:
            f.writelines(n + "\n" for n in sorted(wanted))


main()
