"""The stage that evaluates models made from people's own files, where no program knows what a good answer is.

Three questions, each with what it has to be held against: how well held-out text is read (beside xz and a model that
only counts), how often the reward model agrees with held-out people (beside chance and the longer answer), what
practice brought by the second judge and cost in reading, with pretraining text mixed in and without.

The artifact holds `evaluation.json`, `samples.json`, `context.json`, `plots/*.svg` and `report.html`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sanbai.data.prompts import Prompt
from sanbai.data.rankings import Ranking
from sanbai.data.shards import ShardReader
from sanbai.evaluation.answers import Contestant
from sanbai.evaluation.compression import Compression
from sanbai.evaluation.divergence import response_divergence
from sanbai.evaluation.files_figures import draw_files_figures
from sanbai.evaluation.files_report import files_report_html
from sanbai.evaluation.models import NUM_SAMPLES_SHOWN, Context, write_report
from sanbai.evaluation.practice import accuracy_record, answer, practice_record, score_answers
from sanbai.evaluation.readers import HeldOutText, model_bits, ngram_bits, reading_record, xz_bits
from sanbai.evaluation.recipe import EvaluateRecipe
from sanbai.evaluation.tax import alignment_tax
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_json, write_json_atomic
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import RewardModel

REFERENCE = "supervised"
#: Pairs of models whose reading is compared: what each step cost.
TAXES = (("supervised", "base"), ("ppo", "supervised"), ("ppo_without_ptx", "supervised"), ("ppo", "ppo_without_ptx"))
#: Progress steps beside those of the models: counting, xz, two judges, samples, the page.
FIXED_STEPS = 6


@dataclass(frozen=True)
class FilesHeldOut:
    """What no model was trained on, and what the yardsticks may read.

    Attributes:
        text: documents to read.
        training: the split that every reader has read.
        prompts: to practise on for the record; neither trained on nor watched.
        rankings: people's comparisons on held-out prompts.
    """

    text: HeldOutText
    training: ShardReader
    prompts: Sequence[Prompt]
    rankings: Sequence[Ranking]


@dataclass(frozen=True)
class Judges:
    """The reward model that the policies were trained on, the second one that watched, and the rows that both read."""

    reward: RewardModel
    judge: RewardModel
    max_prompt_tokens: int
    max_response_tokens: int


def num_files_steps(num_models: int) -> int:
    """Return the progress steps of `evaluate_files`: each model reads, each but the base answers."""
    return 2 * num_models - 1 + FIXED_STEPS


def evaluate_files(
    stage: Stage,
    recipe: EvaluateRecipe,
    compute: Compute,
    contestants: Mapping[str, Contestant],
    *,
    tokenizer: Tokenizer,
    held_out: FilesHeldOut,
    judges: Judges,
    context: Context,
) -> dict[str, Any]:
    """Measure everything and write the report into the stage's folder.

    A killed evaluation keeps the pieces that had finished.

    Args:
        stage: `num_files_steps` steps.
        recipe: how much and how sure.
        compute: precision and device.
        contestants: base, supervised, and the policies.
        tokenizer: of all of them.
        held_out: text, prompts, comparisons.
        judges: both reward models.
        context: what else the page shows.

    Returns:
        The means, flat: `<reader>.bits_per_byte`, `reward_model.accuracy`, `<policy>.judge_reward_gain` and `.kl`.

    Raises:
        DataError: no text, no comparison or no prompt is held out.
        Interrupted: asked to stop; finished pieces are kept.
    """
    if not held_out.prompts:
        raise DataError("no held-out prompt to practise on; give more preferences or raise files.heldout_share")
    stage.run.load()
    pieces = _Pieces(stage)
    reading = _read(pieces, recipe, contestants, tokenizer, held_out)
    measure = partial(
        accuracy_record,
        rankings=held_out.rankings,
        tokenizer=tokenizer,
        compute=compute,
        max_prompt_tokens=judges.max_prompt_tokens,
        max_response_tokens=judges.max_response_tokens,
        seed=stage.seed,
        draws=recipe.bootstrap_draws,
    )
    evaluation = {
        "models": list(contestants),
        **reading,
        "reward_model": pieces.once("reward_model", partial(measure, judges.reward)),
        "judge": pieces.once("judge", partial(measure, judges.judge)),
        "practice": _practise(pieces, recipe, contestants, held_out.prompts, judges),
        "sampling": recipe.sampling.model_dump(),
        "seed": stage.seed,
    }
    samples = pieces.once(
        "samples", partial(_samples, recipe, contestants, held_out.prompts, seed=derive_seed(stage.seed, "practice"))
    )
    figures = draw_files_figures(evaluation, context.series)
    page = files_report_html(evaluation, samples=samples, figures=figures, seconds=context.seconds, facts=context.facts)
    write_report(stage, evaluation, samples, context, figures=figures, page=page)
    pieces.step()
    return _means(evaluation)


class _Pieces:
    """Pieces of an evaluation, each computed once and kept beside the run's checkpoints until the stage is whole."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._done = 0

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a piece of plain values, from before the kill where it was finished."""
        path = self.stage.run.checkpoints / f"{name}.json"
        if not path.exists():
            write_json_atomic(path, compute())
        self.step()
        self.stage.run.raise_if_stopping()
        return read_json(path)

    def step(self) -> None:
        self._done += 1
        self.stage.run.record(self._done)


def _read(
    pieces: _Pieces,
    recipe: EvaluateRecipe,
    contestants: Mapping[str, Contestant],
    tokenizer: Tokenizer,
    held_out: FilesHeldOut,
) -> dict[str, Any]:
    """Let every reader read the held-out text; return `reading` and `alignment_tax`."""
    text, begin_id, check = held_out.text, tokenizer.reserved.end_of_text, pieces.stage.run.raise_if_stopping
    seed, draws = pieces.stage.seed, recipe.bootstrap_draws

    def read(model: LanguageModel) -> Any:
        return model_bits(model, text, begin_id=begin_id, on_piece=check).tolist()

    def count() -> dict[str, Any]:
        bits_U, order = ngram_bits(held_out.training, text, begin_id=begin_id, on_piece=check)
        return {"bits": bits_U.tolist(), "order": order}

    def compress() -> dict[str, Any]:
        return xz_bits(held_out.training, text, tokenizer, on_piece=check).to_json()

    bits = {
        name: np.array(pieces.once(f"bits-{name}", partial(read, contestant.model)))
        for name, contestant in contestants.items()
    }
    counted = pieces.once("ngram", count)
    compression = Compression(**pieces.once("xz", compress))
    num_bytes = [document.num_bytes for document in text.documents]
    readers = {"ngram": np.array(counted["bits"]), **bits}
    return {
        "reading": {
            **reading_record(readers, compression, text, seed=seed, draws=draws),
            "ngram_order": counted["order"],
        },
        "alignment_tax": {
            f"{later}_vs_{earlier}": alignment_tax(
                bits[earlier], bits[later], num_bytes, seed=seed, draws=draws
            ).to_json()
            for later, earlier in TAXES
            if later in bits and earlier in bits
        },
    }


def _practise(
    pieces: _Pieces,
    recipe: EvaluateRecipe,
    contestants: Mapping[str, Contestant],
    prompts: Sequence[Prompt],
    judges: Judges,
) -> dict[str, Any]:
    """Let every model but the base answer the held-out prompts; return `practice`: scores, gains, distance."""
    stage, reference = pieces.stage, contestants[REFERENCE]

    def practise(policy: Contestant) -> dict[str, Any]:
        completions = answer(
            policy,
            prompts,
            recipe,
            seed=derive_seed(stage.seed, "practice"),
            on_batch=lambda _: stage.run.raise_if_stopping(),
        )
        encoded = [policy.encode(prompt.messages) for prompt in prompts]
        divergence = response_divergence(
            policy.model,
            reference.model,
            encoded,
            [completion.tokens for completion in completions],
            batch_size=recipe.batch_size,
            seed=stage.seed,
            draws=recipe.bootstrap_draws,
        )
        scores = score_answers(encoded, completions, reward=judges.reward, judge=judges.judge)
        return {"scores": scores, "kl": divergence.to_json()}

    found = {
        name: pieces.once(f"practice-{name}", partial(practise, contestant))
        for name, contestant in contestants.items()
        if name != "base"
    }
    practice = practice_record(
        {name: each["scores"] for name, each in found.items()},
        reference=REFERENCE,
        seed=stage.seed,
        draws=recipe.bootstrap_draws,
    )
    return {name: {**figures, "kl": found[name]["kl"]} for name, figures in practice.items()}


def _samples(
    recipe: EvaluateRecipe,
    contestants: Mapping[str, Contestant],
    prompts: Sequence[Prompt],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Return the first prompts with every model's answer; nobody chooses by looking."""
    shown = prompts[:NUM_SAMPLES_SHOWN]
    answers = {
        name: [
            contestant.decode([token for token in completion.tokens if token not in contestant.stop_ids])
            for completion in answer(contestant, shown, recipe, seed=seed)
        ]
        for name, contestant in contestants.items()
    }
    return [
        {
            "prompt": prompt.id,
            "kind": prompt.kind,
            "task": "held-out prompt",
            "messages": [dict(message) for message in prompt.messages],
            "answers": {name: {"answer": texts[number]} for name, texts in answers.items()},
        }
        for number, prompt in enumerate(shown)
    ]


def _means(evaluation: Mapping[str, Any]) -> dict[str, float]:
    readers = evaluation["reading"]["bits_per_byte"]
    return {
        **{f"{reader}.bits_per_byte": estimate["mean"] for reader, estimate in readers.items()},
        "xz.bits_per_byte": evaluation["reading"]["xz"]["after_training"],
        "reward_model.accuracy": evaluation["reward_model"]["accuracy"]["mean"],
        **{
            f"{policy}.{figure}": figures[figure]["mean"]
            for policy, figures in evaluation["practice"].items()
            for figure in ("judge_reward_gain", "kl")
            if figure in figures
        },
    }
