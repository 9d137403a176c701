"""Leave-one-out and k-NN Shapley values by pyDVL, in an environment of its own (benchmarks/pydvl-requirements.txt): reads and writes .npy files in the folder given."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
from joblib import parallel_config
from pydvl.valuation import Dataset, KNNShapleyValuation, LOOValuation, ModelUtility, SupervisedScorer
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

folder, repeats = Path(sys.argv[1]), int(sys.argv[2])
x, y, v, u, labels, judged = (np.load(folder / f"{name}.npy") for name in ("x", "y", "v", "u", "labels", "judged"))
names = [f"f{k}" for k in range(x.shape[1])]
seconds: dict[str, list[float]] = {"loo": [], "knn": []}
for _ in range(repeats):
    train, test = Dataset(x, y, names, ["y"]), Dataset(v, u, names, ["y"])
    scorer = SupervisedScorer(lambda model, a, b: -float(np.square(model.predict(a) - b).sum()), test, default=0.0)
    utility = ModelUtility(Ridge(alpha=1.0), scorer, show_warnings=False)
    with parallel_config(n_jobs=1):
        start = time.perf_counter()
        made = LOOValuation(utility, progress=False).fit(train)
        seconds["loo"].append(time.perf_counter() - start)
        result = made.result if hasattr(made, "result") else made.values()
        np.save(folder / "pydvl-loo.npy", result.values[np.argsort(result.indices)])
        train, test = Dataset(x, labels, names, ["y"]), Dataset(v, judged, names, ["y"])
        start = time.perf_counter()
        made = KNNShapleyValuation(KNeighborsClassifier(n_neighbors=5), test, progress=False).fit(train)
        seconds["knn"].append(time.perf_counter() - start)
        result = made.result if hasattr(made, "result") else made.values()
        np.save(folder / "pydvl-knn.npy", result.values[np.argsort(result.indices)])
(folder / "seconds.json").write_text(json.dumps(seconds))
