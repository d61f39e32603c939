"""The continuous engine: many requests, one step at a time, joining and leaving at every step.

    engine = ContinuousEngine(model, EngineSettings(), tokenizer=tokenizer)
    number = engine.submit(Request(prompt=ids, sampling=Sampling(), seeds=[1, 2, 3]))
    while engine.busy:
        for new in engine.step():
            ...

A step is one pass of the model over one token of every answer in the making, tokens guessed to follow, and chunks of
new prompts (`scheduler.py`, `reading.py`, `model_runner.py`), one draw for all (`row_drawing.py`), and the accounts.
One thread drives an engine; everything takes effect between two steps.

Shapes: N tokens of the step, A of them wanted, B rows that draw, V vocabulary, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbai.foundation.errors import ModelError, UsageError
from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.admission import check_request
from sanbai.generation.blocks import BlockPool
from sanbai.generation.drafting import DraftProposer
from sanbai.generation.drawing import top_logprobs
from sanbai.generation.encoding import encode_rows
from sanbai.generation.model_runner import ModelRunner
from sanbai.generation.reading import Arranger, Reading
from sanbai.generation.request import NewToken, Request
from sanbai.generation.row import Row
from sanbai.generation.row_drawing import RowDrawer
from sanbai.generation.sampling import draw_uniforms
from sanbai.generation.scheduler import Plan, Scheduler
from sanbai.generation.speculation import NgramProposer, Speculator
from sanbai.generation.weights import replace_weights, weights_digest
from sanbai.generation.writer import Writer, decoder_of, room_for
from sanbai.model.adapters.several import LowRankAdapter, SeveralAdapters
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.packed import repack
from sanbai.model.paged import PagedCache, check_pageable
from sanbai.model.paged_memory import MemoryLanes
from sanbai.model.stems import can_have_stems
from sanbai.model.window import Window
from sanbai.text.stream import TextStream
from sanbai.text.tokenizer import Tokenizer

Speculation = Literal["off", "ngram", "draft"]


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
    speculation: Speculation = "off"
    """Whether tokens are guessed, so that a step may give an answer several: `ngram` from what the text repeats,
    `draft` by a small model. Answers stay the same; it stops by itself where it does not pay (`speculation.py`)."""
    max_guesses: int = Field(default=8, ge=1, le=1024)
    """Guesses a row and step; of no effect without speculation."""


class ContinuousEngine:
    """A model, its cache, and the requests in work."""

    def __init__(
        self,
        model: Writer,
        settings: EngineSettings,
        *,
        tokenizer: Tokenizer | None = None,
        draft: LanguageModel | None = None,
    ) -> None:
        """Take room for the cache.

        Args:
            model: used as it is, in its own precision; `decoding_copy` makes one that decodes faster.
            settings: how much to take on.
            tokenizer: the model's, where text or stop strings are wanted.
            draft: the small model that guesses, where `speculation` is `draft`.

        Raises:
            ModelError: a model that cannot be paged, or a draft model of another vocabulary.
            UsageError: `step_tokens` leaves no room for prompts; a draft model missing, or given for nothing.
        """
        check_pageable(model.config)
        if isinstance(model, LanguageModel) and model.config.encoder_layers:
            raise ModelError("half of a model was given: the decoder without its encoder; give both")
        if settings.step_tokens <= settings.max_rows:
            raise UsageError(
                f"step_tokens {settings.step_tokens} leaves none for prompts beside max_rows {settings.max_rows}; "
                "give more"
            )
        self._model, self.settings, self._tokenizer = model, settings, tokenizer
        self._decoder = decoder_of(model)
        self._device = self._decoder.head_weight.device
        self._runner = ModelRunner(self._decoder)
        self.pool = BlockPool(settings.num_blocks, settings.block_size)
        self.scheduler = Scheduler(
            self.pool,
            max_rows=settings.max_rows,
            step_tokens=settings.step_tokens,
            max_waiting=settings.max_waiting,
        )
        dtype = self._decoder.head_weight.dtype
        with torch.inference_mode():
            self._cache = PagedCache(
                model.config,
                num_blocks=settings.num_blocks,
                block_size=settings.block_size,
                dtype=dtype,
                device=self._device,
            )
            window, stems = (
                Window(model.config, dtype=dtype, device=self._device, max_lanes=settings.max_rows) for _ in range(2)
            )
            memory = None
            if isinstance(model, EncoderDecoder):
                memory = MemoryLanes(model.config, dtype=dtype, device=self._device)
        self._arranger = Arranger(
            self._cache, window, self._device, stems=stems if can_have_stems(model.config) else None, memory=memory
        )
        self.speculator = self._make_speculator(draft)
        """Who plans guesses; None without speculation."""
        self._adapters = SeveralAdapters(model)
        self._adapter_digests: dict[str, str] = {}
        self._rows: dict[int, list[Row]] = {}
        self._drawer = RowDrawer(self._device)
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
        """Longest prompt and answer together, in tokens; behind an encoder each of them alone."""
        return self._model.config.max_positions

    def submit(self, request: Request) -> int:
        """Queue a request; return its number.

        Raises:
            DataError: an empty prompt, or an id beyond the vocabulary.
            ModelError: the prompt fills the model's context, or is longer than an encoder reads.
            ResourceError: the queue is full, or the cache too small for this request alone.
            UnknownNameError: no adapter of the name asked for.
            UsageError: no seed; stop strings without a tokenizer; a mask that allows nothing to begin with; an
                encoder's text's log-probabilities.
        """
        check_request(
            request,
            self._model,
            pool=self.pool,
            adapters=self._adapter_digests,
            has_tokenizer=self._tokenizer is not None,
        )
        vocab_size = self._model.config.vocab_size
        number, self._num_requests = self._num_requests, self._num_requests + 1
        limit = room_for(self._model, request.prompt, request.sampling.max_new_tokens)
        start_token = self._model.config.start_token if isinstance(self._model, EncoderDecoder) else None
        uniforms: list[list[float]] = draw_uniforms(request.seeds, limit).tolist()
        rows = []
        for answer, numbers in enumerate(uniforms):
            row = Row(
                request,
                number=number,
                answer=answer,
                order=self._num_rows + answer,
                limit=limit,
                uniforms=numbers,
                start_token=start_token,
            )
            if row.ask_mask() is not None or (row.mask is not None and row.mask.shape != (vocab_size,)):
                raise UsageError(
                    f"the request's mask failed, is not of {vocab_size} tokens, or allows none to begin with"
                )
            row.count(vocab_size, self._device)
            row.salt = json.dumps([request.tenant, self._adapter_digests.get(request.adapter or "", "")])
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
        """Read and draw once; return what each answer got: a token, or several where guesses came true."""
        plan = self.scheduler.plan()
        if not plan.decoding and not plan.chunks:
            return []
        if isinstance(self._model, EncoderDecoder):
            beginning = [chunk.row for chunk in plan.chunks if chunk.row.memory is None]
            encode_rows(self._model, beginning, self._adapters)
        if self.speculator is None:
            return self._read_and_draw(plan)
        began = self.speculator.clock()
        plan = self.speculator.guess(plan)
        news = self._read_and_draw(plan)
        self.speculator.see(plan, news, self.speculator.clock() - began)
        return news

    def add_adapter(self, name: str, adapter: LowRankAdapter) -> None:
        """Let requests name an adapter; those of several adapters, and of none, are answered in the same steps.

        Raises:
            UsageError: the name is taken, or empty.
            ModelError: it belongs to another model.
        """
        if not name:
            raise UsageError("an adapter without a name; give it one that requests can say")
        self._adapters.add(name, adapter)
        self._adapter_digests[name] = weights_digest(adapter.tensors())

    def remove_adapter(self, name: str) -> None:
        """Let an adapter go that no request in work names.

        Raises:
            UnknownNameError: there is none of this name.
            UsageError: an answer in the making needs it.
        """
        if any(row.request.adapter == name for rows in self._rows.values() for row in rows):
            raise UsageError(f"the adapter {name} is in use; remove it when its answers have ended")
        self._adapters.remove(name)
        del self._adapter_digests[name]

    def replace_weights(self, source: dict[str, Tensor]) -> str:
        """Put new weights in the place of the old; return their digest (`weights.py`).

        Known prefixes are forgotten. Answers in the making keep their tokens and go on with the new weights: what they
        hold is read again.

        Raises:
            ModelError: names or shapes differ (nothing has changed), or a tensor did not arrive.
        """
        digest = replace_weights(self._model, source)
        repack(self._model)
        self._runner.prepare()
        self.scheduler.preempt_all()
        self.pool.forget()
        with torch.inference_mode():
            self._cache.clear()
            self._arranger.clear()
        return digest

    def _make_speculator(self, draft: LanguageModel | None) -> Speculator | None:
        settings = self.settings
        if (draft is not None) != (settings.speculation == "draft"):
            raise UsageError(
                f'speculation is "{settings.speculation}" and {"no" if draft is None else "a"} draft model was given; '
                "give one where it is draft, and only there"
            )
        if settings.speculation == "off":
            return None
        proposer = (
            NgramProposer()
            if draft is None
            else DraftProposer(
                draft,
                self.pool,
                vocab_size=self._model.config.vocab_size,
                max_rows=settings.max_rows,
                step_tokens=settings.step_tokens,
            )
        )
        return Speculator(
            proposer,
            self.scheduler,
            most=settings.max_guesses,
            step_tokens=settings.step_tokens,
            on_cpu=self._device.type == "cpu",
        )

    def _read_and_draw(self, plan: Plan) -> list[NewToken]:
        reading = self._arranger.prepare(plan)
        scored = any(chunk.row.needs_prompt_scores for chunk in plan.chunks)
        hidden_AD = self._read(plan, reading, every=scored)
        if scored:
            self._score_prompts(reading, hidden_AD)
            hidden_AD = hidden_AD[reading.wanted_A]
        drawing, places = self._rows_that_draw(plan)
        if not drawing:
            return []
        return self._draw(drawing, self._runner.logits(hidden_AD if places is None else hidden_AD[places]))

    def _read(self, plan: Plan, reading: Reading, *, every: bool) -> Tensor:
        names = reading.adapters(plan) if self._adapter_digests else []
        if not any(names):
            return self._runner.read(reading, every=every)
        self._adapters.route(names)
        hidden_AD = self._runner.read(reading, every=every, by_modules=True)
        self._adapters.route(())
        return hidden_AD

    def _rows_that_draw(self, plan: Plan) -> tuple[list[Row], Tensor | None]:
        """Return the rows whose next token is due, and at which of the vectors read its logits are; None for one each.

        A row with guesses comes once more for each, at once behind itself.
        """
        drawing = [row for row in plan.decoding for _ in range(1 + len(row.draft))]
        places = list(range(len(drawing)))
        place_of = {id(chunk.row): place for place, chunk in enumerate(plan.chunks, start=len(drawing))}
        for leader in self.scheduler.note_read(plan):
            begun, sources, targets = self.scheduler.fork(leader)
            if targets:
                self._cache.copy(sources, targets)
            drawing += [leader, *begun]
            places += [place_of[id(leader)]] * (1 + len(begun))
        if not plan.chunks:
            return drawing, None
        return drawing, torch.tensor(places, dtype=torch.int64, device=self._device)

    def _draw(self, rows: Sequence[Row], logits_BV: Tensor) -> list[NewToken]:
        ahead = _count_repeats(rows)
        drawn = self._drawer.draw(rows, ahead, logits_BV)
        tops = self._drawer.tops(rows, logits_BV)
        news: list[NewToken] = []
        agrees = False
        for row, guess, top, token, logprob, sampled in zip(
            rows, ahead, tops, *(column.tolist() for column in drawn), strict=True
        ):
            if guess and not agrees:
                continue  # drawn behind a wrong guess, or behind the end
            news.append(self._settle(row, token, logprob, sampled, top))
            agrees = news[-1].finish_reason is None and row.draft[guess : guess + 1] == [token]
            if agrees:
                self.scheduler.note_agreed(row)
        return news

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
        for (row, _, end), start in zip(reading.chunks, reading.starts, strict=True):
            if not row.needs_prompt_scores:
                continue
            targets = row.ids[row.num_cached + 1 : end + 1]
            if not targets:  # the chunk is the prompt's last token alone
                row.prompt_scores.append(([], []))
                continue
            target_T = torch.tensor(targets, device=self._device)
            logprob_TV = self._runner.logits(hidden_ND[start : start + len(targets)]).log_softmax(dim=-1)
            tops = top_logprobs(logprob_TV, torch.ones_like(logprob_TV[:, :1]), row.request.top_logprobs)
            row.prompt_scores.append((logprob_TV.gather(-1, target_T.unsqueeze(-1)).squeeze(-1).tolist(), tops))


def _count_repeats(rows: Sequence[Row]) -> list[int]:
    """Return for each row how often it has come before; a row's places lie together."""
    counts: list[int] = []
    for place, row in enumerate(rows):
        counts.append(counts[-1] + 1 if place and rows[place - 1] is row else 0)
    return counts
