"""What greets people in an empty chat: questions about the village that show what the model can and cannot do."""

from __future__ import annotations

from sanbai.cli.pipelines import workspace_recipe
from sanbai.foundation.errors import SanbaiError
from sanbai.foundation.workspace import Workspace
from sanbai.rounds.material import WorldMaterial
from sanbai.serving.welcome import Example, Welcome

#: Task of the tiny world -> title of its example; the family riddle first, then what is easy, hard and refused.
TITLES = {
    "riddle": "A family riddle",
    "story": "A short story with given words",
    "passage_fact": "A fact from a text",
    "memory_fact": "A fact about a villager",
    "unknowable": "Something nobody can know",
    "harmful_question": "Something it should refuse",
    "sum": "A sum",
    "sort": "Putting things in order",
}
NUM_SEARCHED = 600


def greet(workspace: Workspace) -> Welcome:
    """Return the village's greeting where the workspace's models come from it, a plain one elsewhere."""
    try:
        recipe = workspace_recipe(workspace)
    except SanbaiError:  # made of other material, or by another version: no reason not to serve
        return Welcome("Hello. What would you like to know?")
    first: dict[str, Example] = {}
    for prompt in WorldMaterial(recipe).judged_prompts("evaluate", NUM_SEARCHED, round=0):
        if prompt.task in TITLES and len(prompt.messages) == 1 and prompt.form == "plain":
            first.setdefault(prompt.task, Example(TITLES[prompt.task], prompt.messages[0]["content"]))
    return Welcome(
        "I am a very small assistant, made on this machine from the writings of one village. Ask me about it.",
        tuple(first[task] for task in TITLES if task in first),
    )
