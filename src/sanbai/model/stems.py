"""Attention of texts that share their beginnings: one product over a beginning for all who have it, one over the rest.

K answers to a prompt of S positions would read K S keys and values at every step; here it is S and what each has
written. The two averages become one by their weights, the sums of the exponentials (as in Hydragen, Juravsky et al.
2024, arXiv:2402.05099).

Shapes: D texts, A of them with a stem, P stems, M texts of the stem that most have, S positions of the longest, H query
heads, G key-value heads, R = H / G, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sanbai.model.attention import attention_part
from sanbai.model.config import ModelConfig
from sanbai.model.mask import position_mask
from sanbai.model.window import Window


def can_have_stems(config: ModelConfig) -> bool:
    """Return whether all queries see all of a beginning alike, wherever they stand."""
    return config.positions != "relative" and "banded" not in config.masks


class StepStems:
    """Of one step."""

    def __init__(self, window: Window, lengths: Sequence[int], members: Sequence[Sequence[int]]) -> None:
        """Prepare what the layers share.

        Args:
            window: its first lanes hold the stems.
            lengths: positions of each.
            members: of each, which of the D texts begin with it.
        """
        self._window, self._num_stems = window, len(lengths)
        device, most = window.device, max(map(len, members))
        self._text_PM = torch.tensor([[*texts, *[texts[0]] * (most - len(texts))] for texts in members], device=device)
        places = {text: stem * most + at for stem, texts in enumerate(members) for at, text in enumerate(texts)}
        self._member_A = torch.tensor(sorted(places), device=device)
        self._place_A = torch.tensor([places[text] for text in sorted(places)], device=device)
        last_P1 = torch.tensor([[length - 1] for length in lengths], device=device)
        self._mask_P11S = position_mask(last_P1, window.num_positions, window.dtype)

    def attend(
        self, layer: int, q_DHK: Tensor, k_DGSK: Tensor, v_DGSK: Tensor, mask_D11S: Tensor, *, scaled: bool
    ) -> Tensor:
        """Return out_DH1K, each query's average over its stem, if it has one, and its own keys.

        Args:
            layer: which.
            q_DHK: queries.
            k_DGSK: the texts' own keys.
            v_DGSK: their values.
            mask_D11S: of their own.
            scaled: whether scores are divided by sqrt(K).
        """
        D, H, K = q_DHK.shape
        G = k_DGSK.shape[1]
        q_NRK = q_DHK.to(k_DGSK.dtype).reshape(D * G, -1, K)
        mask_N1S = mask_D11S.expand(-1, G, -1, -1).flatten(0, 1)
        out_NRK, weight_NR1 = attention_part(q_NRK, k_DGSK.flatten(0, 1), v_DGSK.flatten(0, 1), mask_N1S, scaled=scaled)
        own_DHK, own_DH1 = out_NRK.view(D, H, K), weight_NR1.view(D, H, 1)

        (P, M), (k_PGSK, v_PGSK) = self._text_PM.shape, self._window.lanes(layer, self._num_stems)
        grouped = q_DHK.to(k_PGSK.dtype)[self._text_PM].view(P, M, G, -1, K).transpose(1, 2)
        mask_N1S = self._mask_P11S.expand(-1, G, -1, -1).flatten(0, 1)
        out_NTK, weight_NT1 = attention_part(
            grouped.reshape(P * G, -1, K), k_PGSK.flatten(0, 1), v_PGSK.flatten(0, 1), mask_N1S, scaled=scaled
        )
        stem_AHK, stem_AH1 = (self._by_text(x, G) for x in (out_NTK, weight_NT1))
        member_A = self._member_A
        share_AH1 = torch.sigmoid(own_DH1[member_A] - stem_AH1).to(own_DHK.dtype)
        mixed_AHK = torch.lerp(stem_AHK.to(own_DHK.dtype), own_DHK[member_A], share_AH1)
        if len(member_A) < D:
            mixed_AHK = own_DHK.index_copy(0, member_A, mixed_AHK)
        return mixed_AHK.unsqueeze(2)

    def _by_text(self, x_NTK: Tensor, num_kv_heads: int) -> Tensor:
        """Return x_AHK of what has stems, heads and texts in the order of a product."""
        P, M = self._text_PM.shape
        x_PMGRK = x_NTK.view(P, num_kv_heads, M, -1, x_NTK.shape[-1]).transpose(1, 2)
        return x_PMGRK.reshape(P * M, -1, x_NTK.shape[-1])[self._place_A]
