"""One row times a matrix, y = W x + b, in weights of 16, 8 or 4 bits: what writing a single text costs.

Such a product is bound by how fast the weights come from memory, and torch's products for many rows read them at half
the speed that the memory has, even packed. Microseconds at 768 to 3072 numbers, weights not in a cache (one Zen 4 core
that reads 23 to 30 GB/s, docs/experiments.md): bfloat16 630, bfloat16 packed 280 to 360, float16 as dot products 230 to
350, **float16 as here 225**, torch's int8 kernel 330, **eight bits as here 135 to 150**, torch's int4 kernel 150.

- `HalfMatrix`: bfloat16 weights as float16, which holds them exactly but for numbers below 6e-5 (then within 3e-8), in
  FBGEMM's packing. Inputs and sums are float32.
- `Int8Matrix`: a weighted sum of the columns of W, which is what torch's quantized embedding bag computes, with the
  memory read ahead. Columns are cut into pieces of `PIECE` numbers, so that their sum stays in registers; each piece
  has a scale and an offset of its own.
- `Int4Matrix`: torch's kernel for groups of `GROUP` weights of one output, each with scale and offset.

Weights are rounded to the nearest of 2^bits numbers from the least to the greatest of their piece or group. `rounded`
returns what is really multiplied by: for products of many rows, and for measuring what is lost.

Shapes: O outputs, I inputs, S pieces a column, P = PIECE, G groups a row, J = GROUP.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sanbai.foundation.errors import ModelError

PIECE = 192
"""Outputs a scale; 192 and 256 were fastest of 128 to 768."""
GROUP = 32
"""Inputs a scale of `Int4Matrix`; 64 and 128 are as fast and lose more."""


def can_multiply_rows() -> bool:
    """Return whether this torch has these products; it has on x86, unless told to take others."""
    return torch.backends.quantized.engine in {"x86", "fbgemm"}


class RowProduct(Protocol):
    """A matrix that multiplies one row."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        """Copy and round."""

    def __call__(self, x_1I: Tensor) -> Tensor:
        """Return W x + b, both float32."""

    @staticmethod
    def rounded(weight_OI: Tensor) -> Tensor:
        """Return weight_OI as it would be multiplied by."""


class HalfMatrix:
    """Sixteen bits a weight."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        """Pack."""
        bias_O = None if bias_O is None else bias_O.detach().float()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight_OI.detach().float(), bias_O)

    def __call__(self, x_1I: Tensor) -> Tensor:
        """Return W x + b."""
        y_1O: Tensor = torch.ops.quantized.linear_dynamic_fp16(x_1I, self._packed)
        return y_1O

    @staticmethod
    def rounded(weight_OI: Tensor) -> Tensor:
        """Return the weights: what float16 loses, bfloat16 does not hold."""
        return weight_OI


class Int8Matrix:
    """Eight bits a weight, and 64 for every `PIECE`."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        """Round the weights."""
        self._bias_O = None if bias_O is None else bias_O.detach().float()
        self._num_outputs, num_inputs = weight_OI.shape
        self._num_pieces = -(-self._num_outputs // PIECE)
        self._table = _table(weight_OI)
        self._index = torch.arange(self._num_pieces * num_inputs, dtype=torch.int32)
        self._bound_S1 = torch.arange(0, self._num_pieces * num_inputs + 1, num_inputs, dtype=torch.int32)

    def __call__(self, x_1I: Tensor) -> Tensor:
        """Return W x + b."""
        x_SI = x_1I.expand(self._num_pieces, -1)
        y_SP: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self._table, self._index, self._bound_S1, False, 0, False, x_SI.reshape(-1), None, True
        )
        y_1O = y_SP.view(1, -1)[:, : self._num_outputs]
        return y_1O if self._bias_O is None else y_1O + self._bias_O

    @staticmethod
    def rounded(weight_OI: Tensor) -> Tensor:
        """Return weight_OI in float32, within half a step of its pieces."""
        piece_AP: Tensor = torch.ops.quantized.embedding_bag_byte_unpack(_table(weight_OI))
        piece_SIP = piece_AP.view(-1, weight_OI.shape[1], PIECE)
        return piece_SIP.transpose(1, 2).flatten(0, 1)[: len(weight_OI)].contiguous()


class Int4Matrix:
    """Four bits a weight, and 32 for every `GROUP`."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        """Round the weights.

        Raises:
            ModelError: inputs that are no multiple of `GROUP`.
        """
        self._bias_O = None if bias_O is None else bias_O.detach().float()
        self._num_outputs = len(weight_OI)
        number_OGJ, scale_OG1, offset_OG1 = _numbers(weight_OI)
        # The kernel takes 16 outputs at a time, and reads (number - 8) scale + offset.
        number_OI, scale_OG2 = number_OGJ.flatten(1).int(), torch.cat((scale_OG1, offset_OG1), dim=-1)
        missing = -self._num_outputs % 16
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(F.pad(number_OI, (0, 0, 0, missing)), 1)  # noqa: SLF001
        self._scales_GO2 = F.pad(scale_OG2, (0, 0, 0, 0, 0, missing)).transpose(0, 1).contiguous().bfloat16()

    def __call__(self, x_1I: Tensor) -> Tensor:
        """Return W x + b; inputs and products are rounded to bfloat16."""
        y_1O: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(  # noqa: SLF001
            x_1I.bfloat16(), self._packed, GROUP, self._scales_GO2
        )
        y_1O = y_1O[:, : self._num_outputs].float()
        return y_1O if self._bias_O is None else y_1O + self._bias_O

    @staticmethod
    def rounded(weight_OI: Tensor) -> Tensor:
        """Return weight_OI in float32, within about half a step of its groups."""
        number_OGJ, scale_OG1, offset_OG1 = _numbers(weight_OI)
        return ((number_OGJ - 8) * scale_OG1 + offset_OG1).flatten(1)


def _table(weight_OI: Tensor) -> Tensor:
    """Return the S I pieces, each with its scale and offset behind it, in the order in which they are added."""
    num_outputs, num_inputs = weight_OI.shape
    padded_OI = F.pad(weight_OI.detach().float(), (0, 0, 0, -num_outputs % PIECE))
    piece_SIP = padded_OI.view(-1, PIECE, num_inputs).transpose(1, 2)
    table: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(piece_SIP.flatten(0, 1).contiguous())
    return table


def _numbers(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number_OGJ from 0 to 15, and scale_OG1 and offset_OG1 as bfloat16 holds them, all float32."""
    if weight_OI.shape[1] % GROUP:
        raise ModelError(f"a matrix of {weight_OI.shape[1]} inputs has no int4 form: wanted a multiple of {GROUP}")
    weight_OGJ = weight_OI.detach().float().reshape(len(weight_OI), -1, GROUP)
    least_OG1, greatest_OG1 = weight_OGJ.amin(dim=-1, keepdim=True), weight_OGJ.amax(dim=-1, keepdim=True)
    scale_OG1 = ((greatest_OG1 - least_OG1) / 15).clamp(min=1e-8).bfloat16().float()
    offset_OG1 = (least_OG1 + 8 * scale_OG1).bfloat16().float()
    number_OGJ = ((weight_OGJ - offset_OG1) / scale_OG1 + 8).round().clamp(0, 15)
    return number_OGJ, scale_OG1, offset_OG1
