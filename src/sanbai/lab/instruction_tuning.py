"""Instruction tuning lifts kinds of instructions that it never saw (Wei et al. 2021, arXiv:2109.01652, figure 4).

A base model is tuned on a mixture of all kinds of the world's tasks but some; of those the oracle judges its answers to
held-out prompts. Beside it stands the base model, given the same prompts in the same form. Control: the same tuning
with the answers of each task given round, which teaches the form of an answer and nothing of obeying.

The base model's documents hold exercises of every kind as questions and answers, as the web does; so it is also asked
as such a transcript. That figure says what tuning on other kinds could bring to light: in the paper, too, tuning makes
models of eight billion parameters and fewer worse at kinds that it left out (figure 7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sanbai.data.conversations import Conversation
from sanbai.data.mixtures import InstructionMixture, InstructionTask
from sanbai.evaluation.answers import Contestant, chat_contestant, transcript_contestant
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import derive_seed, python_random
from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling
from sanbai.lab.bench import Bench, shape
from sanbai.lab.trials import Phenomenon
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.supervise import SuperviseRecipe
from sanbai.world.instructions import instruction_tasks
from sanbai.world.oracle import judge
from sanbai.world.prompts import KINDS, Prompt, prompts
from sanbai.world.tasks.task import Kind

#: The kinds that are never trained on; their answers are short and judged without doubt.
UNSEEN: tuple[Kind, ...] = ("classify", "closed question", "extract")
CAP = 300
MAX_NEW_TOKENS = 48


def answers_given_round(tasks: list[InstructionTask], seed: int) -> list[InstructionTask]:
    """Return the tasks with the answers of each shuffled among its questions."""
    shuffled = []
    for task in tasks:
        answers = [row["answer"] for row in task.rows]
        python_random(seed, "answers", task.name).shuffle(answers)
        rows = [{**row, "answer": answer} for row, answer in zip(task.rows, answers, strict=True)]
        shuffled.append(replace(task, rows=rows))
    return shuffled


def helpfulness(contestant: Contestant, asked: list[Prompt]) -> float:
    """Return the mean of the oracle's helpfulness, in [0, 1], of one greedy answer to each prompt."""
    completions = generate(
        contestant.model,
        [contestant.encode(prompt.messages) for prompt in asked],
        Sampling(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS),
        seeds=[0] * len(asked),
        stop_ids=contestant.stop_ids,
    )
    judged = [
        judge(prompt, contestant.decode(completion.tokens))
        for prompt, completion in zip(asked, completions, strict=True)
    ]
    return sum(one.helpful for one in judged) / len(judged)


def measure(bench: Bench) -> dict[str, float]:
    """Tune the models and return the figures."""
    base = bench.pretrained(shape(bench.size))
    seen = [kind for kind in KINDS if kind not in UNSEEN]
    seed = derive_seed(bench.seed, "lab", "instructions")
    tasks = instruction_tasks(bench.village, seed, num=bench.size.num_demonstrations, kinds=seen, recipe=bench.world)
    recipe = SuperviseRecipe(
        num_epochs=2.0,
        row_length=256,
        batch_rows=8,
        micro_batch_rows=4,
        learning_rate=1e-3,
        warmup_steps=10,
        pretraining_share=0.2,
        evaluate_steps=10_000,
        optimizer=OptimizerRecipe(matrices="muon"),
    )

    def tuned(given: list[InstructionTask]) -> Artifact:
        mixture = InstructionMixture(given, cap=CAP, seed=seed)
        conversations: list[Conversation] = [mixture.conversation(n) for n in range(bench.size.num_demonstrations)]
        return bench.supervised(base, recipe, conversations)

    asked = list(
        prompts(bench.village, seed, split="heldout", num=bench.size.num_texts, kinds=UNSEEN, recipe=bench.world)
    )
    room = shape(bench.size).max_positions - MAX_NEW_TOKENS

    def chat(artifact: Artifact) -> Contestant:
        model: Any = bench.open(artifact)
        return chat_contestant("tuned", model, bench.tokenizer, max_prompt_tokens=room)

    model: Any = bench.open(base)
    transcript = transcript_contestant("base", model, bench.tokenizer, max_prompt_tokens=room)
    return {
        "tuned on other kinds": helpfulness(chat(tuned(tasks)), asked),
        "not tuned": helpfulness(chat(base), asked),
        "not tuned, asked as a transcript": helpfulness(transcript, asked),
        "tuned, answers given round": helpfulness(chat(tuned(answers_given_round(tasks, seed))), asked),
    }


INSTRUCTION_TUNING = Phenomenon(
    name="instruction_tuning",
    claim="Tuning on instructions lifts kinds of instructions never tuned on (FLAN, arXiv:2109.01652).",
    measure=measure,
    effect=("tuned on other kinds",),
    control=("not tuned", "tuned, answers given round", "not tuned, asked as a transcript"),
)
