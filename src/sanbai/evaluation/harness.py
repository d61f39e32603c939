"""Sanbai's models for the lm-evaluation-harness, in its own process: `--model sanbai`. Needs the extra `harness`.

    python -m sanbai.evaluation.harness run --model sanbai --model_args pretrained=FOLDER --tasks arc_easy

is `lm_eval` with one model more. Token ids, log-probabilities and answers are those of the server's engine; the harness
splits contexts from continuations, and asks `local-completions` and `hf` the same. A context that is too long loses its
beginning.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from sanbai.foundation.errors import ModelError, SanbaiError, UsageError
from sanbai.generation.answering import answer_all
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

BLOCK_SIZE = 16
STEP_TOKENS = 2048
DEFAULT_MAX_NEW_TOKENS = 256  # the harness' own
GREEDY = Sampling(temperature=0.0, max_new_tokens=1)


@register_model("sanbai")
class SanbaiLM(TemplateLM):  # the harness' base class splits texts into contexts and continuations
    """A language model of a folder in Hugging Face layout, with its tokenizer."""

    def __init__(self, pretrained: str, batch_size: int | str = 16, seed: int = 1234, **unused: Any) -> None:
        """Load it.

        Args:
            pretrained: the folder; `sanbai model export` makes one of a registered model.
            batch_size: texts in work at the same time; `auto` is 16.
            seed: of answers that are drawn, which tasks may ask for.
            unused: the harness' device and largest batch, of no use here.

        Raises:
            UsageError: a setting that does not exist.
            ModelError: not a language model.
            ArtifactError: the folder is damaged or has no tokenizer.
        """
        super().__init__()
        if unknown := unused.keys() - {"device", "max_batch_size"}:
            raise UsageError(f"{min(unknown)}: unknown; --model sanbai takes pretrained, batch_size and seed")
        folder, rows = Path(pretrained), 16 if str(batch_size).startswith("auto") else int(batch_size)
        self._name, self._seed = folder.name, int(seed)
        self._model, self._reading = load_language_model(folder), Tokenizer.load(folder)
        num_blocks = rows * -(-self._model.config.max_positions // BLOCK_SIZE)
        settings = EngineSettings(
            num_blocks=num_blocks, block_size=BLOCK_SIZE, max_rows=rows, step_tokens=max(STEP_TOKENS, rows + 1)
        )
        self._engine = ContinuousEngine(self._model, settings, tokenizer=self._reading)

    @property
    def max_length(self) -> int:
        """Longest text that is scored at once: the engine keeps room for one more token."""
        return self._model.config.max_positions - 1

    @property
    def eot_token_id(self) -> int:
        """The mark between documents; it also stands before a continuation without context."""
        return self._reading.reserved.end_of_text

    @property
    def tokenizer_name(self) -> str:
        """What the harness' cache of requests knows the tokenizer by."""
        return self._name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: ARG002
        """Return a text's token ids; nothing is put around them."""
        return self._reading.encode(string)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Return the log-probability of each whole text, in nats, in windows as long as the context allows."""
        scores = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.eot_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(("", ""), *make_disjoint_window(window)) for window in windows]
            scores.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(parts)))
        return scores

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Return what the model writes after each context, up to the first of the task's stop texts."""
        asked = [self._question(*request.args) for request in requests]
        return [answers[0].text for answers in answer_all(self._engine, asked)]

    def _question(self, context: str, wishes: dict[str, Any]) -> Request:
        wanted = dict(normalize_gen_kwargs(wishes, DEFAULT_MAX_NEW_TOKENS))
        stops, limit = wanted.pop("until", []), int(wanted.pop("max_gen_toks"))
        drawn = {key: wanted.pop(key) for key in ("temperature", "top_p", "top_k") if wanted.get(key) is not None}
        if wanted.keys() - {"do_sample"}:
            raise UsageError(f"generation_kwargs: {min(wanted.keys() - {'do_sample'})} is not supported; leave it out")
        room = self._model.config.max_positions - limit
        if room < 1:
            raise ModelError(f"max_gen_toks {limit} leaves no room in a context of {room + limit}; ask for less")
        return Request(
            prompt=self.tok_encode(context)[-room:] or [self.eot_token_id],
            sampling=Sampling(max_new_tokens=limit, **{"temperature": 0.0, **drawn}),
            seeds=[self._seed],
            stop_ids=self._reading.reserved.ends(),
            stop_strings=stops,
        )

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], Sequence[int], Sequence[int]]],
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """Return of each continuation its log-probability in nats, and whether each of its tokens was the likeliest."""
        texts = [[*context, *continuation][-self.max_length :] for _, context, continuation in requests]
        asked = [
            Request(prompt=text, sampling=GREEDY, seeds=[0], top_logprobs=1, prompt_logprobs=True) for text in texts
        ]
        scored = []
        for request, text, (answer,) in zip(requests, texts, answer_all(self._engine, asked), strict=True):
            assert answer.prompt is not None
            begin = max(1, len(text) - len(request[2]))  # nothing precedes the first token
            likeliest = [top[0][0] for top in answer.prompt.top]
            scored.append((sum(answer.prompt.logprobs[begin - 1 :]), likeliest[begin - 1 :] == text[begin:]))
        return scored


def main() -> None:
    """Run `lm_eval`, which then knows `--model sanbai`."""
    from lm_eval.__main__ import cli_evaluate  # noqa: PLC0415 - its command line imports everything that it can do

    try:
        cli_evaluate()
    except SanbaiError as error:
        sys.exit(f"sanbai: error: {error}")


if __name__ == "__main__":
    main()
