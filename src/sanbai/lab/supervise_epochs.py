"""Does a supervised model that over-fits its demonstrations make a better start for practice?

InstructGPT's supervised models over-fit after one epoch, and sixteen were trained all the same, since reward and
people's preference went on rising (Ouyang et al. 2022, section 3.5). Here: 1, 4 and 16 epochs over a quarter of the
demonstrations, each then practised against one and the same reward model; the training loss tells of over-fitting.
Refuted if 16 epochs end, after practice, below 1 epoch.
"""

from __future__ import annotations

from sanbai.foundation.run import read_metrics
from sanbai.lab.assistants import Assistants, mean_of
from sanbai.lab.trials import Phenomenon

EPOCHS = (1, 4, 16)
#: Of the recipe's demonstrations; sixteen epochs over all of them would take longer than all else.
SHARE = 0.25


def measure(assistants: Assistants) -> dict[str, float]:
    """Train and practise from each number of epochs, and return the figures."""
    num = max(1, round(SHARE * assistants.recipe.num_demonstrations))
    score = assistants.reward_model(assistants.judges.reward)
    prompts = {prompt.id: prompt.messages for prompt in assistants.heldout_prompts()}
    figures: dict[str, float] = {}
    for epochs in EPOCHS:
        start = assistants.supervised(num, num_epochs=float(epochs))
        figures[f"nats a token, {epochs} epochs"] = _last(assistants, start.name, "loss")
        for stage, model in (
            ("supervised", start),
            ("practised", assistants.practised(start, assistants.judges)),
        ):
            found = assistants.measured("model", model)
            rewards = score.score_answers(
                assistants.tokenizer, [(prompts[answer.prompt], answer.answer) for answer in found.answers]
            )
            figures[f"reward, {stage}, {epochs} epochs"] = sum(rewards) / len(rewards)
            figures[f"gold utility, {stage}, {epochs} epochs"] = mean_of(found.answers, "gold_utility")
            figures[f"bits per byte, {stage}, {epochs} epochs"] = found.figures["bits_per_byte"]
    return figures


def _last(assistants: Assistants, name: str, metric: str) -> float:
    """Return the mean of a run's last ten values of a metric."""
    rows = [row[metric] for row in read_metrics(assistants.job.workspace.runs / name) if metric in row]
    return sum(rows[-10:]) / len(rows[-10:])


SUPERVISE_EPOCHS = Phenomenon[Assistants](
    name="supervise_epochs",
    claim="Supervised models that over-fit still make better starts for practice (arXiv:2203.02155, section 3.5).",
    measure=measure,
    effect=(
        *(f"gold utility, practised, {epochs} epochs" for epochs in EPOCHS),
        *(f"reward, practised, {epochs} epochs" for epochs in EPOCHS),
    ),
    control=(
        *(f"gold utility, supervised, {epochs} epochs" for epochs in EPOCHS),
        *(f"reward, supervised, {epochs} epochs" for epochs in EPOCHS),
    ),
    units={f"reward, {stage}, {epochs} epochs": "reward" for stage in ("supervised", "practised") for epochs in EPOCHS},
)
