"""What each stage of aligning a model holds on one device, as this program computes it; pure arithmetic.

Either whole models learn, or LoRA over one set of weights (`players.py`). Held all the time are weights and what
learns: float32 weights, gradients, AdamW's two moments, and the copies that a stage keeps. On top of that comes the
larger of what one part's forward pass keeps for its backward pass and what answering needs. Left out, as below a
hundredth: scalar heads, tokens and masks. A whole scalar model counts as the language model it began as, head and all.
The kernels' own workspace and an allocator's waste are not known here; leave a tenth of a device free for them.

Units: bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sanbai.foundation.device import Compute
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.size import Shape, count_parameters
from sanbai.training.direct import SAMPLED_ROWS, DirectRecipe
from sanbai.training.ppo import PpoRecipe
from sanbai.training.practice import PracticeRecipe
from sanbai.training.reward import RewardRecipe
from sanbai.training.supervise import SuperviseRecipe

FLOAT = 4
#: Of what an optimizer moves: weight, gradient, the gradient of the part at hand, and AdamW's two moments.
LEARNING = 5 * FLOAT
#: A response token's logits: in half precision, in float32, over the temperature, their logarithms, and gradients.
LOGIT_BYTES = 2 + 5 * FLOAT
#: Rows of logits at a time in `chunked_next_token_loss`, and bytes each number takes there.
CHUNK, CHUNK_BYTES = 1024, 2 + 3 * FLOAT
#: Keys and values lie in the cache's blocks and in the engine's window, whose former room is there while it grows.
CACHE_COPIES = 3
#: A whole model's products are packed for a CPU: for many rows, and for one (`model/packed.py`).
PACKED = 2 * 2


@dataclass(frozen=True)
class StageMemory:
    """Bytes on the device."""

    weights: float
    """Of models that do not learn, and of the base under adapters."""
    learning: float
    """What learns, with gradients, moments and copies."""
    activations: float
    """Of the largest part of a step."""
    answering: float = 0.0
    """Cache, and the decoder's own weights."""
    sent: float = 0.0
    """Not on the device, but in main memory: weights that this role's workers elsewhere are given."""

    @property
    def total(self) -> float:
        """The most that is held at once on the device."""
        return self.weights + self.learning + max(self.activations, self.answering)


@dataclass(frozen=True)
class Aligned:
    """A model that is aligned: its shape, how it learns, and in which precision products are computed."""

    shape: Shape
    adapter: AdapterRecipe
    compute: Compute

    @property
    def is_whole(self) -> bool:
        """Whether the models themselves learn."""
        return self.adapter.method == "none"

    @property
    def product_bytes(self) -> int:
        """Of a number that takes part in a matrix product."""
        return 2 if self.compute.precision == "bfloat16" else FLOAT

    def model_bytes(self) -> float:
        """Return the bytes of a model as it is stored while it learns, or as the base of adapters."""
        parameters = count_parameters(self.shape)
        if self.is_whole:
            return FLOAT * parameters.total
        products = count_products(self.shape)
        return FLOAT * (parameters.total - products) + self.product_bytes * products

    def learned(self) -> float:
        """Return how many numbers of one model learn."""
        return count_parameters(self.shape).total if self.is_whole else count_factors(self.shape, self.adapter)


def supervise_memory(model: Aligned, recipe: SuperviseRecipe) -> StageMemory:
    """Return what supervised fine-tuning holds: one model, rows of which every token is learned."""
    tokens = recipe.micro_batch_rows * recipe.row_length
    activations = tokens * activation_bytes(model, length=recipe.row_length) + chunk_bytes(model)
    return _stage(model, num_learning=1, num_copies=0, num_frozen=0, activations=activations)


def reward_memory(model: Aligned, recipe: RewardRecipe, *, max_answers: int) -> StageMemory:
    """Return what a reward model's training holds; a prompt with all its answers is computed as one row."""
    row = recipe.max_prompt_tokens + max_answers * (recipe.max_response_tokens + 1)
    tokens = max(recipe.micro_batch_tokens, row)
    activations = tokens * activation_bytes(model, length=row)
    return _stage(model, num_learning=1, num_copies=0, num_frozen=0, activations=activations)


def direct_memory(model: Aligned, recipe: DirectRecipe, *, max_answers: int) -> StageMemory:
    """Return what direct preference holds: the policy learns, the reference is a copy of what learns.

    A prompt with all its answers is one row, of whose answers every token has logits; policy and reference read it one
    after the other. For an evaluation the policy answers prompts.
    """
    answers = max_answers * (recipe.max_response_tokens + 1)
    row = recipe.max_prompt_tokens + answers
    tokens = max(recipe.micro_batch_tokens, row)
    logits = tokens * answers / row * (LOGIT_BYTES - FLOAT) * model.shape.vocab_size  # over no temperature
    length = recipe.max_prompt_tokens + recipe.max_response_tokens
    rows = min(SAMPLED_ROWS, recipe.num_sampled_prompts)
    return _stage(
        model,
        num_learning=1,
        num_copies=1,
        num_frozen=0,
        activations=tokens * activation_bytes(model, length=row) + logits,
        answering=CACHE_COPIES * cache_bytes(model, rows=rows, length=length) + decoder_bytes(model),
    )


def practice_memory(model: Aligned, recipe: PracticeRecipe, *, max_prompt_tokens: int) -> StageMemory:
    """Return what PPO holds: policy and value model learn; reference, reward model and judge only answer.

    Of the policy there are two copies more, the average and the best so far, and the gradient of text where it is mixed
    in.
    """
    return _stage(
        model,
        num_learning=2,
        num_copies=3 if recipe.ptx_coef else 2,
        num_frozen=3,
        activations=_update_bytes(model, recipe, max_prompt_tokens=max_prompt_tokens),
        answering=_rollout_bytes(model, recipe, max_prompt_tokens=max_prompt_tokens),
    )


def rollout_worker_memory(model: Aligned, recipe: PpoRecipe, *, max_prompt_tokens: int) -> StageMemory:
    """Return what a rollout worker of PPO holds in another process (`roles.place = "ray"`), on a device of its own.

    It has copies of policy, reference and reward model, and with `staleness` 0 of the value model; nothing learns. The
    run's main memory holds the worker as it is sent to an actor that is started anew, the weights sent last, and with
    `staleness` 1 those that answer the batch under way.
    """
    num_read = 1 if recipe.staleness else 2
    held = _stage(
        model,
        num_learning=0,
        num_copies=0,
        num_frozen=2 + num_read,
        activations=_practice_bytes(model, recipe, max_prompt_tokens=max_prompt_tokens),
        answering=_rollout_bytes(model, recipe, max_prompt_tokens=max_prompt_tokens),
    )
    return replace(held, sent=held.weights + FLOAT * model.learned() * (num_read + recipe.staleness))


def learner_memory(model: Aligned, recipe: PpoRecipe, *, max_prompt_tokens: int) -> StageMemory:
    """Return what a learner of PPO holds in another process: policy, value model, and the gradient of a part."""
    held = _stage(
        model,
        num_learning=0,
        num_copies=1,
        num_frozen=2,
        activations=_update_bytes(model, recipe, max_prompt_tokens=max_prompt_tokens),
    )
    return replace(held, sent=held.weights + 2 * FLOAT * model.learned())


def ppo_memory(model: Aligned, recipe: PpoRecipe, *, max_prompt_tokens: int) -> dict[str, StageMemory]:
    """Return what PPO holds, by role: the run's own process, and one worker of each role that is elsewhere."""
    held = {"ppo": practice_memory(model, recipe, max_prompt_tokens=max_prompt_tokens)}
    if recipe.roles.place == "in-process":  # they take turns over the very models that learn
        return held
    held["ppo_rollout_worker"] = rollout_worker_memory(model, recipe, max_prompt_tokens=max_prompt_tokens)
    if recipe.roles.learners:
        held["ppo_learner"] = learner_memory(model, recipe, max_prompt_tokens=max_prompt_tokens)
    return held


def count_products(shape: Shape) -> int:
    """Return the numbers of all linear layers, the head among them where it is not the embedding."""
    matrices = sum(inputs * outputs for inputs, outputs in _projections(shape).values())
    head = 0 if shape.tied else shape.vocab_size * shape.width
    return shape.num_layers // shape.num_shared * matrices + head


def count_factors(shape: Shape, recipe: AdapterRecipe) -> int:
    """Return the numbers of LoRA beside the recipe's targets: rank · (inputs + outputs) each.

    Where query, key and value are one matrix to other programs (GPT-1 and 2), there are somewhat fewer.
    """
    sizes = _projections(shape)
    each = sum(sum(sizes[name]) for name in recipe.targets if name in sizes)
    return shape.num_layers // shape.num_shared * recipe.rank * each


def activation_bytes(model: Aligned, *, length: int) -> float:
    """Return what a token's forward pass keeps for its backward pass.

    A layer keeps the inputs of both norms, and queries and keys before theirs, in float32; in the products' precision
    the inputs of attention's projections (of LoRA once for each of the three), of the output and the feed-forward,
    queries, keys and values, the feed-forward's inner numbers (four times where it is gated, else twice), and each
    head's weights over up to `length` tokens, which a fused kernel would spare. Nothing is recomputed.
    """
    shape, half = model.shape, model.product_bytes
    queries, keys = shape.heads_width, shape.kv_heads_width
    pieces = 1 if model.is_whole else max(1, len({"query", "key", "value"} & set(model.adapter.targets)))
    inner = (4 if shape.gated else 2) * shape.feed_forward_width
    kept = (pieces + 1) * shape.width + queries + queries + 2 * keys + inner + shape.num_heads * length
    return shape.num_layers * (2 * FLOAT * shape.width + FLOAT * (queries + keys) + half * kept)


def chunk_bytes(model: Aligned) -> float:
    """Return what the pretraining loss holds of its logits, and of the head's gradient where it learns."""
    head = FLOAT * model.shape.vocab_size * model.shape.width if model.is_whole else 0
    return CHUNK * CHUNK_BYTES * model.shape.vocab_size + head


def cache_bytes(model: Aligned, *, rows: int, length: int) -> float:
    """Return the bytes of keys and values of all layers."""
    return 2 * model.shape.num_layers * model.shape.kv_heads_width * rows * length * model.product_bytes


def decoder_bytes(model: Aligned) -> float:
    """Return what decoding in half precision has of its own: a copy of whatever is not stored so, packed for a CPU."""
    if model.product_bytes == FLOAT:
        return 0.0
    total, products = count_parameters(model.shape).total, count_products(model.shape)
    if model.is_whole:
        return 2.0 * total + (PACKED * products if model.compute.device == "cpu" else 0)
    return 2.0 * (total - products) + 2.0 * model.learned()  # the base is in half precision already, and not packed


def _practice_bytes(model: Aligned, recipe: PracticeRecipe, *, max_prompt_tokens: int) -> float:
    """Return what is kept of a forward pass over answers; to read them has the update's kernels, and so its graph."""
    row = max_prompt_tokens + recipe.max_new_tokens
    tokens = max(recipe.micro_batch_tokens, row)
    responses = tokens * recipe.max_new_tokens / row
    return tokens * activation_bytes(model, length=row) + responses * LOGIT_BYTES * model.shape.vocab_size


def _update_bytes(model: Aligned, recipe: PracticeRecipe, *, max_prompt_tokens: int) -> float:
    """Return what is kept of the larger of the forward passes over answers and over pretraining text."""
    practice = _practice_bytes(model, recipe, max_prompt_tokens=max_prompt_tokens)
    pretraining = activation_bytes(model, length=recipe.ptx_row_length) * max(
        recipe.micro_batch_tokens, recipe.ptx_row_length
    ) + chunk_bytes(model)
    return max(practice, pretraining if recipe.ptx_coef else 0.0)


def _rollout_bytes(model: Aligned, recipe: PracticeRecipe, *, max_prompt_tokens: int) -> float:
    """Return what sampling answers holds beside the policy."""
    length = max_prompt_tokens + recipe.max_new_tokens
    return CACHE_COPIES * cache_bytes(model, rows=recipe.rollout_rows, length=length) + decoder_bytes(model)


def _stage(
    model: Aligned,
    *,
    num_learning: int,
    num_copies: int,
    num_frozen: int,
    activations: float,
    answering: float = 0.0,
) -> StageMemory:
    """Add up a stage's models: whole ones each have their weights, adapters share the base's.

    Of weights that learn, a forward pass keeps what their products are computed with.
    """
    learned = model.learned()
    frozen = num_frozen * (model.model_bytes() if model.is_whole else FLOAT * learned)
    base = 0.0 if model.is_whole else model.model_bytes()
    learning = (num_learning * LEARNING + num_copies * FLOAT) * learned
    if model.is_whole and model.product_bytes < FLOAT:
        activations += model.product_bytes * count_products(model.shape)
    return StageMemory(base + frozen, learning, activations, answering)


def _projections(shape: Shape) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of a layer's linear layers, named as an adapter's targets are."""
    D, Q, KV, F = shape.width, shape.heads_width, shape.kv_heads_width, shape.feed_forward_width
    sizes = {"query": (D, Q), "key": (D, KV), "value": (D, KV), "out": (Q, D), "up": (D, F), "down": (F, D)}
    return {**sizes, "gate": (D, F)} if shape.gated else sizes
