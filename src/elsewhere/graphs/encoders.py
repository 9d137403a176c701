"""Encoders of nodes' own text or features: bags of terms, dense features, and published Transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.errors import UserError


class Bag(NamedTuple):
    """Rows of a sparse matrix for ``embedding_bag``: offsets [n], and columns and values [nnz]."""

    offsets: Tensor
    columns: Tensor
    values: Tensor


def as_bag(x: Any) -> Bag:
    """Return CSR rows as a bag."""
    x = sp.csr_array(x)
    return Bag(torch.from_numpy(x.indptr[:-1].astype(np.int64)), torch.from_numpy(x.indices.astype(np.int64)), torch.from_numpy(np.asarray(x.data, np.float32)))


class BagEncoder(nn.Module):
    """Sparse rows [n, terms] -> [n, width]: an embedding of each term, summed by its weight; ``deep``: LayerNorm, GELU, Linear on top.

    The table of embeddings has sparse gradients where it is large, so that a step touches the terms of its batch alone.
    """

    LARGE = 50_000

    def __init__(self, terms: int, width: int = 128, deep: bool = True) -> None:
        super().__init__()
        self.terms, self.width = terms, width
        self.table = nn.Parameter(torch.randn(terms, width) / width**0.5)
        self.top = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) if deep else nn.Identity()

    @property
    def sparse(self) -> bool:
        return self.terms > self.LARGE

    def forward(self, bag: Bag) -> Tensor:
        summed = functional.embedding_bag(bag.columns, self.table, bag.offsets, mode="sum", per_sample_weights=bag.values, sparse=self.sparse)
        made: Tensor = self.top(summed)
        return made


class FeatureEncoder(nn.Module):
    """Dense features [n, d] -> [n, width]: Linear, LayerNorm, GELU, Linear."""

    sparse = False

    def __init__(self, inputs: int, width: int = 128) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made


class TextEncoder(nn.Module):
    """Any Transformer of ``transformers``: tokens -> the mean of their last states [n, width].

    Args:
        config: of the model, as its ``config.json`` has it.
        tokenizer: of the texts, as ``tokenizer.json`` has it.
        length: tokens a text is cut at.
        weights: a folder or a name on the hub to begin with; "": as the configuration draws them.
    """

    sparse = False

    def __init__(self, config: Mapping[str, Any], tokenizer: str, length: int = 128, weights: str = "") -> None:
        super().__init__()
        transformers = _transformers()
        from tokenizers import Tokenizer

        kind = dict(config)
        made = transformers.AutoConfig.for_model(kind.pop("model_type"), **kind)
        self.model = transformers.AutoModel.from_pretrained(weights) if weights else transformers.AutoModel.from_config(made)
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.tokenizer.enable_truncation(length)
        self.tokenizer.no_padding()
        self.width = int(made.hidden_size)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of each text; an empty text gets one token 0."""
        return [e.ids or [0] for e in self.tokenizer.encode_batch(list(texts))]

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids, mask = batch
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[:, :, None].to(states.dtype)
        made: Tensor = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        return made


def padded(tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return token numbers [n, longest] and which are real."""
    longest = max(len(t) for t in tokens)
    ids = torch.zeros(len(tokens), longest, dtype=torch.long)
    mask = torch.zeros(len(tokens), longest, dtype=torch.long)
    for k, t in enumerate(tokens):
        ids[k, : len(t)] = torch.tensor(t)
        mask[k, : len(t)] = 1
    return ids, mask


def described(name: str) -> tuple[dict[str, Any], str]:
    """Return configuration and tokenizer of a published Transformer, by a folder or a name on the hub."""
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the Transformer {name!r}: {str(error).splitlines()[0]}") from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(f"the tokenizer of {name!r} has no fast form; choose a model with a tokenizer.json")
    return config.to_dict(), tokenizer.backend_tokenizer.to_str()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError("Transformers need the text extra: pip install 'elsewhere[text]'") from error
    return transformers


def bag_encoder(shape: Sequence[int], **options: Any) -> BagEncoder:
    """Build an encoder of sparse rows of a shape [terms]: width, deep."""
    return BagEncoder(int(shape[0]), **options)


def feature_encoder(shape: Sequence[int], **options: Any) -> FeatureEncoder:
    """Build an encoder of dense features of a shape [d]: width."""
    return FeatureEncoder(int(shape[0]), **options)


def text_encoder(shape: Sequence[int], **options: Any) -> TextEncoder:
    """Build an encoder of texts: config, tokenizer, length."""
    return TextEncoder(**options)
