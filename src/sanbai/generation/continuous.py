"""The continuous engine: many requests, one step at a time, joining and leaving at every step.

    engine = ContinuousEngine(model, EngineSettings(), tokenizer=tokenizer)
    number = engine.submit(Request(prompt=ids, sampling=Sampling(), seeds=[1, 2, 3]))
    while engine.busy:
        for new in engine.step():
            ...

A step is one pass of the training model's own code over one token of every answer in the making and chunks of new
prompts (`scheduler.py`, `model/paged.py`), one draw for all (`drawing.py`), and the accounts. One thread drives an
engine; everything takes effect between two steps.

Shapes: N tokens of the step, B rows that draw, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbai.foundation.errors import DataError, ResourceError, UsageError
from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.blocks import BlockPool
from sanbai.generation.drawing import Rules, bend, collect_rules, draw, top_logprobs
from sanbai.generation.engine import cast_for_decoding, check_prompts, draw_uniforms
from sanbai.generation.reading import Arranger, Reading
from sanbai.generation.request import NewToken, Request
from sanbai.generation.row import Row
from sanbai.generation.scheduler import Plan, Scheduler
from sanbai.generation.weights import replace_weights
from sanbai.model.fused_step import FusedStep, can_fuse
from sanbai.model.heads import LanguageModel
from sanbai.model.packed import Bits, PackedLinear, pack_linears, packed_bits, repack
from sanbai.model.paged import PagedCache, check_pageable
from sanbai.model.window import Window
from sanbai.text.stream import TextStream
from sanbai.text.tokenizer import Tokenizer

NUM_BITS: dict[str, Bits] = {"bfloat16": 16, "int8": 8, "int4": 4}


class EngineSettings(RecipeSection):
    """How much an engine takes on."""

    num_blocks: int = Field(default=1024, ge=1, le=100_000_000)
    """Blocks of the cache."""
    block_size: int = Field(default=16, ge=1, le=4096)
    """Positions a block; prefixes are shared by whole blocks."""
    max_rows: int = Field(default=64, ge=1, le=65_536)
    """Answers in the making at most."""
    step_tokens: int = Field(default=512, ge=2, le=10_000_000)
    """Tokens that one step reads at most; more than `max_rows`. More read prompts faster, fewer let nobody wait."""
    max_waiting: int = Field(default=1024, ge=1, le=10_000_000)
    """Requests that may wait."""


DecodingPrecision = Literal["stored", "bfloat16", "int8", "int4"]
"""Of the weights that write: as they were saved, or a copy in sixteen, eight or four bits a weight. The embeddings are
in bfloat16 in all copies."""


def decoding_copy(model: LanguageModel, precision: DecodingPrecision) -> LanguageModel:
    """Return a copy in the precision wanted, its weights packed where that is faster; the model itself if `stored`.

    Raises:
        ModelError: int8 or int4 where this processor or the model's shape has no such products.
    """
    if precision == "stored":
        return model
    copied = cast_for_decoding(model, "bfloat16")
    pack_linears(copied, NUM_BITS[precision])
    return copied


class ContinuousEngine:
    """A model, its cache, and the requests in work."""

    def __init__(self, model: LanguageModel, settings: EngineSettings, *, tokenizer: Tokenizer | None = None) -> None:
        """Take room for the cache.

        Args:
            model: used as it is, in its own precision; `decoding_copy` makes one that decodes faster.
            settings: how much to take on.
            tokenizer: the model's, where text or stop strings are wanted.

        Raises:
            ModelError: a model that cannot be paged.
            UsageError: `step_tokens` leaves no room for prompts.
        """
        check_pageable(model.config)
        if settings.step_tokens <= settings.max_rows:
            raise UsageError(
                f"step_tokens {settings.step_tokens} leaves none for prompts beside max_rows {settings.max_rows}; "
                "give more"
            )
        self._model, self.settings, self._tokenizer = model, settings, tokenizer
        self._device = model.head_weight.device
        self._prepare_weights()
        self.pool = BlockPool(settings.num_blocks, settings.block_size)
        self.scheduler = Scheduler(
            self.pool,
            max_rows=settings.max_rows,
            step_tokens=settings.step_tokens,
            max_waiting=settings.max_waiting,
        )
        dtype = model.head_weight.dtype
        with torch.inference_mode():
            self._cache = PagedCache(
                model.config,
                num_blocks=settings.num_blocks,
                block_size=settings.block_size,
                dtype=dtype,
                device=self._device,
            )
            window = Window(model.config, dtype=dtype, device=self._device)
        self._arranger = Arranger(self._cache, window, self._device)
        self._rows: dict[int, list[Row]] = {}
        self._ruled: tuple[list[Row], Rules] | None = None
        self._num_requests = self._num_rows = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.busy

    @property
    def num_waiting(self) -> int:
        """Requests, and answers sent back to wait, that no step has begun."""
        return len(self.scheduler.waiting)

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self._model.config.max_positions

    def submit(self, request: Request) -> int:
        """Queue a request; return its number.

        Raises:
            DataError: an empty prompt, or an id beyond the vocabulary.
            ModelError: the prompt fills the model's context.
            ResourceError: the queue is full, or the cache too small for this request alone.
            UsageError: no seed; stop strings without a tokenizer; a mask that allows nothing to begin with.
        """
        self._check(request)
        vocab_size = self._model.config.vocab_size
        number, self._num_requests = self._num_requests, self._num_requests + 1
        limit = min(request.sampling.max_new_tokens, self.context - len(request.prompt))
        uniforms: list[list[float]] = draw_uniforms(request.seeds, limit).tolist()
        rows = []
        for answer, numbers in enumerate(uniforms):
            row = Row(
                request, number=number, answer=answer, order=self._num_rows + answer, limit=limit, uniforms=numbers
            )
            if row.ask_mask() is not None or (row.mask is not None and row.mask.shape != (vocab_size,)):
                raise UsageError(
                    f"the request's mask failed, is not of {vocab_size} tokens, or allows none to begin with"
                )
            row.count(vocab_size, self._device)
            row.text = None if self._tokenizer is None else TextStream(self._tokenizer)
            rows.append(row)
        rows[0].siblings = rows[1:]
        self.scheduler.waiting.push(rows[0], request.tenant)
        self._num_rows += len(rows)
        self._rows[number] = rows
        return number

    def cancel(self, number: int) -> None:
        """End a request at once and return its blocks; one that has ended or never was is no error."""
        rows = self._rows.pop(number, [])
        behind = {id(sibling) for row in rows for sibling in row.siblings}  # nowhere on their own yet
        for row in rows:
            if id(row) not in behind:
                self.scheduler.remove(row)

    @torch.inference_mode()
    def step(self) -> list[NewToken]:
        """Read and draw once; return what each answer got."""
        plan = self.scheduler.plan()
        if not plan.decoding and not plan.chunks:
            return []
        reading = self._arranger.prepare(plan)
        wanted = self._wanted(reading, len(plan.decoding))
        hidden_AD = self._read(reading, wanted)
        self._score_prompts(reading, hidden_AD)
        drawing, places = self._rows_that_draw(plan, reading, wanted)
        if not drawing:
            return []
        return self._draw(drawing, self._logits(hidden_AD if places is None else hidden_AD[places]))

    def replace_weights(self, source: dict[str, Tensor]) -> str:
        """Put new weights in the place of the old; return their digest (`weights.py`).

        Known prefixes are forgotten. Answers in the making keep their tokens and go on with the new weights: what they
        hold is read again.

        Raises:
            ModelError: names or shapes differ (nothing has changed), or a tensor did not arrive.
        """
        digest = replace_weights(self._model, source)
        repack(self._model)
        self._prepare_weights()
        self.scheduler.preempt_all()
        self.pool.forget()
        with torch.inference_mode():
            self._cache.clear()
            self._arranger.clear()
        return digest

    def _check(self, request: Request) -> None:
        config = self._model.config
        check_prompts(self._model, [request.prompt])
        if not request.prompt:
            raise DataError("the prompt has no token; it needs at least one")
        if wrong := [id_ for id_ in (*request.prompt, *request.shaping.logit_bias) if not 0 <= id_ < config.vocab_size]:
            raise DataError(f"token id {wrong[0]} is not among the model's 0 to {config.vocab_size - 1}")
        if not request.seeds:
            raise UsageError("a request without seeds asks for no answer; give one seed an answer")
        if not 0 <= request.top_logprobs <= config.vocab_size:
            raise UsageError(f"top_logprobs {request.top_logprobs}; wanted 0 to {config.vocab_size}")
        if any(request.stop_strings) and self._tokenizer is None:
            raise UsageError("stop strings were given to an engine without a tokenizer; make it with one")
        longest = (
            min(len(request.prompt) + request.sampling.max_new_tokens, config.max_positions) - 1
        )  # the last is not read
        if (wanted := self.pool.blocks_for(longest)) > self.pool.num_blocks:
            raise ResourceError(
                f"prompt and answer may need {wanted} cache blocks and the engine has {self.pool.num_blocks}; lower "
                "max_new_tokens or give it more"
            )

    def _prepare_weights(self) -> None:
        """Bring weights into the form that decoding reads, again after they have changed."""
        bits = packed_bits(self._model)
        self._head = PackedLinear(self._model.head_weight, None, bits) if bits else None
        self._fused_step = FusedStep(self._model) if can_fuse(self._model) else None

    def _read(self, reading: Reading, wanted: list[int] | None) -> Tensor:
        """Run the model; return the hidden vectors of the tokens wanted, or of all."""
        wanted_A = None if wanted is None else torch.tensor(wanted, dtype=torch.int64, device=self._device)
        if self._fused_step is not None:
            return self._fused_step(reading.token_N1[:, 0], reading.position_N1[:, 0], reading.pages, wanted_A)
        hidden_N1D: Tensor = self._model.trunk(reading.token_N1, positions_BT=reading.position_N1, pages=reading.pages)
        reading.pages.store()
        return hidden_N1D[:, 0] if wanted_A is None else hidden_N1D[wanted_A, 0]

    @staticmethod
    def _wanted(reading: Reading, num_decoding: int) -> list[int] | None:
        """Return the tokens whose hidden vectors are needed: the last one of each row; None where that is all."""
        if not reading.chunks or any(row.needs_prompt_scores for row, _ in reading.chunks):
            return None
        return [*range(num_decoding), *reading.ends]

    def _rows_that_draw(
        self, plan: Plan, reading: Reading, wanted: list[int] | None
    ) -> tuple[list[Row], Tensor | None]:
        """Return the rows whose next token is due, and at which hidden vectors its logits are; None for one each."""
        num_decoding = len(plan.decoding)
        ends = reading.ends if wanted is None else range(num_decoding, len(wanted))
        last = {id(chunk.row): end for chunk, end in zip(reading.chunks, ends, strict=True)}
        drawing, places = list(plan.decoding), list(range(num_decoding))
        for leader in self.scheduler.note_read(plan):
            begun, sources, targets = self.scheduler.fork(leader)
            if targets:
                self._cache.copy(sources, targets)
            drawing += [leader, *begun]
            places += [last[id(leader)]] * (1 + len(begun))
        if not reading.chunks:
            return drawing, None
        return drawing, torch.tensor(places, dtype=torch.int64, device=self._device)

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        logits_BV: Tensor = self._model.logits(hidden_BD) if self._head is None else self._head.fused(hidden_BD)
        return logits_BV

    def _draw(self, rows: Sequence[Row], logits_BV: Tensor) -> list[NewToken]:
        logits_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
        rules = self._rules_of(rows, logits_BV.shape[1])
        uniform_B = torch.tensor([row.next_uniform for row in rows], device=self._device)
        drawn = draw(logits_BV, self._shape(rows, logits_BV), uniform_B, rules)
        tops: dict[int, list[tuple[int, float]]] = {}
        if asked := [place for place, row in enumerate(rows) if row.request.top_logprobs]:
            count = max(rows[place].request.top_logprobs for place in asked)
            best = top_logprobs(logits_BV[asked], rules.temperature_B1[asked], count)
            tops = {place: top[: rows[place].request.top_logprobs] for place, top in zip(asked, best, strict=True)}
        columns = zip(rows, *(column.tolist() for column in drawn), strict=True)
        return [
            self._settle(row, token, logprob, sampled, tops.get(place, []))
            for place, (row, token, logprob, sampled) in enumerate(columns)
        ]

    def _rules_of(self, rows: Sequence[Row], vocab_size: int) -> Rules:
        """Return the rows' rules; mostly the rows are those of the step before."""
        if self._ruled is None or self._ruled[0] != rows:
            rules = [(row.request.sampling, row.request.shaping) for row in rows]
            self._ruled = list(rows), collect_rules(rules, vocab_size, self._device)
        return self._ruled[1]

    def _shape(self, rows: Sequence[Row], logits_BV: Tensor) -> Tensor:
        """Return the logits after penalties, biases and masks; the same tensor where there are none."""
        bent = [place for place, row in enumerate(rows) if row.seen_V is not None]
        masked = [place for place, row in enumerate(rows) if row.mask is not None]
        shaped_BV = logits_BV.clone() if bent or masked else logits_BV
        if bent:
            seen_AV = torch.stack([seen for place in bent if (seen := rows[place].seen_V) is not None])
            count_AV = torch.stack([count for place in bent if (count := rows[place].count_V) is not None])
            shaped_BV[bent] = bend(
                logits_BV[bent], seen_AV, count_AV.to(logits_BV.dtype), [rows[place].request.shaping for place in bent]
            )
        if masked:
            allowed_AV = torch.stack([mask for place in masked if (mask := rows[place].mask) is not None])
            shaped_BV[masked] = shaped_BV[masked].where(allowed_AV.to(self._device), float("-inf"))
        return shaped_BV

    def _settle(self, row: Row, token: int, logprob: float, sampled: float, top: list[tuple[int, float]]) -> NewToken:
        text, reason = row.push(token)
        if reason is not None:
            self.scheduler.remove(row)
            rows = self._rows[row.number]
            rows.remove(row)
            if not rows:
                del self._rows[row.number]
        return NewToken(row.number, row.answer, token, logprob, sampled, top, text, reason, row.take_prompt_scores())

    def _score_prompts(self, reading: Reading, hidden_ND: Tensor) -> None:
        """Compute the log-probabilities of prompts whose requests ask for them; before the step is accounted for."""
        for (row, end), start in zip(reading.chunks, reading.starts, strict=True):
            if not row.needs_prompt_scores:
                continue
            target_T = torch.tensor(row.ids[row.num_cached + 1 : end + 1], device=self._device)
            logits_TV = self._logits(hidden_ND[start : start + len(target_T)])
            logprob_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32)).log_softmax(dim=-1)
            tops = top_logprobs(logprob_TV, torch.ones_like(logprob_TV[:, :1]), row.request.top_logprobs)
            row.prompt_scores.append((logprob_TV.gather(-1, target_T.unsqueeze(-1)).squeeze(-1).tolist(), tops))
