"""What an encoder of nodes predicts: embeddings, and the nodes that one would link to; and how that is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.errors import Undefined
from elsewhere.graphs.data import Nodes
from elsewhere.graphs.ranker import ranking_metrics
from elsewhere.task import Metric

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class NeighbourPrediction:
    """Embeddings of nodes [n, d], and perhaps the nodes each would link to [n, top] with scores, best first, -1 where there are fewer."""

    embeddings: Array
    ids: Array | None = None
    scores: Array | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getattr__(self, name: str) -> Any:
        """Tell metrics of classes and numbers, which ask for more than there is, that they have no value here."""
        if name in ("classes", "probabilities", "log_probabilities", "logits", "labels", "mean", "deviation"):
            raise Undefined("an encoder gives embeddings, no classes and no values: put a head on it (probe)")
        raise AttributeError(name)

    def to_frame(self) -> pd.DataFrame:
        """Return one column a number of the embedding, and the suggested nodes as lists where there are any."""
        import pandas as pd

        frame = pd.DataFrame(self.embeddings, columns=[f"embedding_{k}" for k in range(self.embeddings.shape[1])])
        return frame if self.ids is None else frame.assign(neighbours=[" ".join(str(i) for i in row if i >= 0) for row in self.ids.tolist()])


@dataclass(frozen=True)
class Linked(Nodes):
    """Nodes whose true neighbours are known here though the graph does not have those links.

    Args:
        truth: [n, N] CSR of ones; None where hidden.
    """

    truth: Any = None

    def take(self, rows: Any) -> Any:
        from dataclasses import replace

        made = super().take(rows)
        return replace(made, truth=None if self.truth is None else sp.csr_array(self.truth)[np.asarray(rows)])

    def unlabelled(self) -> Any:
        from dataclasses import replace

        return replace(super().unlabelled(), truth=None)


def neighbour_metrics() -> list[Metric]:
    """Return recall@20, precision and recall at 1, 5, 10, 20, and the reciprocal rank of suggested neighbours."""

    def judged(prediction: Any, data: Any) -> dict[str, Array]:
        if getattr(prediction, "ids", None) is None:
            raise Undefined("the learner suggests no neighbours")
        return ranking_metrics(prediction.ids, data.truth)

    def one(name: str) -> Metric:
        return Metric(name, lambda p, d: judged(p, d)[name], range=(0, 1))

    return [one(name) for name in ("recall@20", "recall@10", "recall@5", "precision@1", "precision@5", "precision@10", "reciprocal_rank")]
