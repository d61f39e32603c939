"""What the stages are fed: the tiny world writes it, or people's own files hold it; the stages do not know which."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from sanbai.data.conversations import Conversation, read_conversations
from sanbai.data.documents import Document, read_documents
from sanbai.data.labeled import LabeledSplits, LabeledText, read_labeled
from sanbai.data.mixtures import InstructionMixture, read_instruction_tasks
from sanbai.data.preferences import read_preferences
from sanbai.data.prompts import Prompt
from sanbai.data.rankings import Ranking
from sanbai.data.sources import find_files
from sanbai.foundation.errors import UsageError
from sanbai.foundation.files import read_lines, sha256_file
from sanbai.foundation.seeds import derive_seed, python_random
from sanbai.rounds.panel import RankingsByUse
from sanbai.rounds.recipe import Recipe
from sanbai.world.demonstrations import conversations
from sanbai.world.documents import documents as world_documents
from sanbai.world.entities import names_and_phrases
from sanbai.world.instructions import instruction_tasks
from sanbai.world.labelers import SimulatedLabeler, best_possible_accuracy, comparisons_of
from sanbai.world.labelers import labelers as make_labelers
from sanbai.world.letters import letters
from sanbai.world.prompts import Prompt as WorldPrompt
from sanbai.world.prompts import prompts as world_prompts
from sanbai.world.village import Village, make_village

#: What prompts are for: answers that simulated labelers rank, that they rank for measuring, that people rank; practice;
#: what the second judge watches; the final evaluation.
Purpose = Literal["label", "label-heldout", "people", "practise", "watch", "evaluate"]


class Material(Protocol):
    """A source of documents, demonstrations and prompts."""

    def fingerprint(self) -> dict[str, str]:
        """Return what determines the content beyond the recipe: name -> hash."""

    def documents(self) -> Iterator[Document]:
        """Yield the documents to read."""

    def demonstrations(self) -> list[Conversation]:
        """Return the conversations to imitate."""

    def names(self) -> tuple[str, ...]:
        """Return the names and phrases that a model may learn whole."""

    def labeled(self) -> LabeledSplits:
        """Return texts with their classes, to learn from and to measure by."""

    def prompts(self, purpose: Purpose, num: int, *, round: int = 1) -> list[Prompt]:  # noqa: A002 - the word
        """Return up to `num` prompts for a purpose; those of one round differ from those of another."""


@dataclass(frozen=True)
class WorldMaterial:
    """The tiny world's."""

    recipe: Recipe

    @cached_property
    def village(self) -> Village:
        """The village of the recipe's seed."""
        return make_village(self.recipe.seed, self.recipe.world)

    def fingerprint(self) -> dict[str, str]:
        """Nothing: recipe, seed and source code say it all."""
        return {}

    def documents(self) -> Iterator[Document]:
        """Yield the world's documents, the truth about their dirt left aside."""
        for planted in world_documents(self.village, self.recipe.seed, recipe=self.recipe.world):
            yield Document(**planted.row)

    def demonstrations(self) -> list[Conversation]:
        """Return demonstrations with the faults of real ones, some of them further turns, or faultless instructions."""
        recipe = self.recipe
        if recipe.demonstrations == "instructions":
            seed = derive_seed(recipe.seed, "instructions")
            tasks = instruction_tasks(self.village, seed, num=recipe.num_demonstrations, recipe=recipe.world)
            mixture = InstructionMixture(tasks, cap=recipe.mixture_cap, seed=seed)
            return [mixture.conversation(index) for index in range(recipe.num_demonstrations)]
        seed = derive_seed(self.recipe.seed, "prompts", "supervise")
        asked = world_prompts(
            self.village, seed, split="train", num=self.recipe.num_demonstrations, recipe=self.recipe.world
        )
        return [
            Conversation(id=identity, messages=messages, source="world")
            for identity, messages in conversations(asked, self.recipe.seed, self.recipe.world)
        ]

    def names(self) -> tuple[str, ...]:
        """Return the village's names and phrases."""
        return names_and_phrases(self.village)

    def labeled(self) -> LabeledSplits:
        """Return letters with their writers' feelings; the held-out ones name other people."""
        recipe = self.recipe
        train = letters(self.village, recipe.seed, num=recipe.num_examples)
        heldout = letters(self.village, recipe.seed, num=recipe.num_heldout_examples, heldout=True)
        return LabeledSplits(
            *([LabeledText(letter.id, letter.text, letter.feeling) for letter in each] for each in (train, heldout))
        )

    def judged_prompts(self, purpose: Purpose, num: int, *, round: int = 1) -> list[WorldPrompt]:  # noqa: A002
        """Return prompts together with the truth that the oracle judges by."""
        split: Literal["train", "valid", "heldout"] = "train"
        if purpose == "evaluate":
            split = "heldout"
        elif purpose in {"label-heldout", "watch"}:
            split = "valid"
        seed = derive_seed(self.recipe.seed, "prompts", purpose, round)
        return list(world_prompts(self.village, seed, split=split, num=num, recipe=self.recipe.world))

    def prompts(self, purpose: Purpose, num: int, *, round: int = 1) -> list[Prompt]:  # noqa: A002
        """Return the prompts alone."""
        return [
            Prompt(prompt.id, tuple(prompt.messages), prompt.kind)
            for prompt in self.judged_prompts(purpose, num, round=round)
        ]

    @cached_property
    def labelers(self) -> tuple[SimulatedLabeler, ...]:
        """The simulated labelers of the recipe's seed."""
        return make_labelers(self.recipe.seed, self.recipe.label.num_labelers, self.recipe.world)

    def best_possible_accuracy(self, rankings: Sequence[Ranking]) -> float:
        """Return the accuracy that no judge can beat on held-out labelers' strict preferences over these answers.

        Rankings whose prompt the world did not ask are left aside: nobody knows their labelers' noise.
        """
        population = [labeler for labeler in self.labelers if labeler.name in {one.labeler for one in rankings}]
        known = self._known_prompts({ranking.round for ranking in rankings})
        tasks = {(_prompt_id(ranking.messages), ranking.responses) for ranking in rankings}
        comparisons = [
            pair
            for identity, responses in sorted(tasks)
            if identity in known
            for pair in comparisons_of(known[identity], responses)
        ]
        return best_possible_accuracy(population, comparisons)

    def _known_prompts(self, rounds: Collection[int]) -> dict[str, WorldPrompt]:
        """Return the held-out prompts of some rounds by the hash of their messages."""
        num = self.recipe.label.num_heldout_prompts
        asked = [self.judged_prompts("label-heldout", num, round=number) for number in sorted(rounds)]
        return {_prompt_id(prompt.messages): prompt for prompts in asked for prompt in prompts}


@dataclass(frozen=True)
class FilesMaterial:
    """People's own: paths of the recipe, relative to one data folder."""

    recipe: Recipe
    folder: Path

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of every file that the recipe names."""
        files = self.recipe.files
        patterns = [source.path for source in files.documents]
        patterns += [source.path for source in files.demonstrations]
        patterns += [source.path for source in files.preferences]
        patterns += [source.path for source in files.labeled]
        patterns += [source.path for source in files.instructions]
        patterns += files.names
        paths = {path for pattern in patterns for path in find_files(self.folder, pattern)}
        return {str(path.relative_to(self.folder)): sha256_file(path) for path in sorted(paths)}

    def documents(self) -> Iterator[Document]:
        """Yield the documents of the files."""
        return read_documents(self.folder, self.recipe.files.documents)

    def demonstrations(self) -> list[Conversation]:
        """Return the demonstrations of the files, and the mixture of their instructions."""
        files = self.recipe.files
        demonstrations = list(read_conversations(self.folder, files.demonstrations))
        if files.instructions:
            tasks = read_instruction_tasks(self.folder, files.instructions)
            seed = derive_seed(self.recipe.seed, "instructions")
            mixture = InstructionMixture(tasks, cap=self.recipe.mixture_cap, seed=seed)
            demonstrations += [mixture.conversation(index) for index in range(self.recipe.num_demonstrations)]
        return demonstrations

    def names(self) -> tuple[str, ...]:
        """Return the lines of the files of names."""
        paths = [path for pattern in self.recipe.files.names for path in find_files(self.folder, pattern)]
        return tuple(line.strip() for path in paths for _, line in read_lines(path) if line.strip())

    def labeled(self) -> LabeledSplits:
        """Return the labelled texts of the files; each is held out or not by its own hash."""
        splits = LabeledSplits([], [])
        for example in read_labeled(self.folder, self.recipe.files.labeled):
            place = _place(f"{example.text}\0{example.second}", "labeled")
            heldout = place < self.recipe.files.heldout_share
            (splits.heldout if heldout else splits.train).append(example)
        return splits

    @cached_property
    def preferences(self) -> RankingsByUse:
        """The compared answers of the files, by what they may be used for; each prompt has one use."""
        split = RankingsByUse([], [], [])
        for ranking in read_preferences(self.folder, self.recipe.files.preferences):
            identity = _prompt_id(ranking.messages)
            if _place(identity, "held out") < self.recipe.files.heldout_share:
                split.heldout.append(ranking)
            elif _place(identity, "judge") < self.recipe.files.judge_share:
                split.judge.append(ranking)
            else:
                split.training.append(ranking)
        return split

    def prompts(self, purpose: Purpose, num: int, *, round: int = 1) -> list[Prompt]:  # noqa: A002
        """Return different prompts of the preferences, in an order of their own for each purpose and round.

        Half of the held-out ones are for watching, so that what practice is stopped by is not what it is measured by.
        """
        if purpose in {"label", "people", "practise"}:
            rankings = [*self.preferences.training, *self.preferences.judge]
        else:
            rankings = self.preferences.heldout
        found = {_prompt_id(ranking.messages): ranking for ranking in rankings}
        order = sorted(found)
        if purpose in {"watch", "evaluate"}:
            order = [name for name in order if (_place(name, "watch") < 0.5) is (purpose == "watch")]
        python_random(self.recipe.seed, "prompts", purpose, round).shuffle(order)
        return [Prompt(name, found[name].messages, found[name].kind or "other") for name in order[:num]]


def _place(identity: str, purpose: str) -> float:
    """Return where a prompt falls in [0, 1) for a purpose; other prompts never move it."""
    digest = hashlib.sha256(f"{purpose}\0{identity}".encode()).hexdigest()
    return int(digest[:13], 16) / 16**13


def _prompt_id(messages: Sequence[dict[str, str]]) -> str:
    text = "\0".join(f"{message['role']}\0{message['content']}" for message in messages)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def open_material(recipe: Recipe, data: Path) -> WorldMaterial | FilesMaterial:
    """Return the recipe's material; `data` is the folder of people's own files, the current one if none was given.

    Raises:
        UsageError: a folder is given to a recipe that reads none.
    """
    if recipe.material == "files":
        return FilesMaterial(recipe, data)
    if data != Path():
        raise UsageError(f'--data {data}: a recipe with material = "world" reads no files; leave it out')
    return WorldMaterial(recipe)
