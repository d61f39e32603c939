"""A model as the continuous engine and its draft model run it: weights as decoding reads them best, one step a call.

A step goes through `FusedStep` where the model allows it, and else through the training model's own modules.

Shapes: A tokens wanted, D width, R tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.generation.reading import Reading
from sanbai.model.fused_step import FusedStep, can_fuse
from sanbai.model.heads import LanguageModel
from sanbai.model.packed import PackedLinear, first_packed


class ModelRunner:
    """Used by one thread."""

    def __init__(self, model: LanguageModel) -> None:
        """Use the model as it is, packed or not."""
        self._model = model
        self.prepare()

    def prepare(self) -> None:
        """Take up the weights as they stand now; to be called again after they have changed."""
        self._head = None
        if (packed := first_packed(self._model)) is not None:
            self._head = PackedLinear(self._model.head_weight, None, packed.bits, by_rows=packed.by_rows)
        self._fused_step = FusedStep(self._model) if can_fuse(self._model) else None

    def read(self, reading: Reading, *, every: bool = False, by_modules: bool = False) -> Tensor:
        """Run the trunk; its keys and values are then in the blocks.

        Args:
            reading: the step.
            every: whether the hidden vectors of all tokens are returned, in their order.
            by_modules: whether the model's modules must be called, since something stands beside them.

        Returns:
            hidden_AD of `Reading.wanted_A`.
        """
        token_N1, position_N1, pages = reading.token_N1, reading.position_N1, reading.pages
        wanted_A = None if every else reading.wanted_A
        if self._fused_step is not None and not by_modules:
            return self._fused_step(token_N1[:, 0], position_N1[:, 0], pages, wanted_A)
        hidden_ND: Tensor = self._model.trunk(token_N1, positions_BT=position_N1, pages=pages)[:, 0]
        pages.store()
        return hidden_ND if wanted_A is None else hidden_ND[wanted_A]

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Return logits_RV, in float32 at least."""
        logits_RV: Tensor = self._model.logits(hidden_RD) if self._head is None else self._head.fused(hidden_RD)
        return logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
