"""Several adapters in one batch against each request alone in a model that has its adapter and no other."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import pytest
import torch
from tests.generation.plainly import write_plainly
from tests.generation.small_models import GPT2, LLAMA, STOP, make_model
from tests.generation.test_engine import SMALL
from tests.generation.test_engine_encoder_decoder import T5
from tests.generation.test_engine_encoder_decoder import make_model as make_encoder_decoder

from sanbai.foundation.errors import ModelError, UnknownNameError, UsageError
from sanbai.generation.answering import answer_all, generate
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import decoding_copy
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.generation.weights import weights_digest
from sanbai.generation.writer import Writer
from sanbai.model.adapters.adapter import Adapted, add_adapter, merge_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.several import LowRankAdapter, SeveralAdapters, take_products
from sanbai.model.config import ModelConfig

TARGETS = {"ann": ("query", "value"), "bob": ("key", "out", "up", "down"), "eve": ("query", "value")}


def adapt(model: Writer, name: str) -> Adapted:
    """Return a copy of a model with an adapter that changes its answers."""
    generator = torch.Generator().manual_seed(len(name) + ord(name[0]))
    recipe = AdapterRecipe(method="lora", rank=2, alpha=3.0, targets=TARGETS[name])  # type: ignore[arg-type]
    adapted = add_adapter(copy.deepcopy(model), recipe, generator)
    with torch.no_grad():
        for parameter in adapted.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapted


def mixed_requests(count: int) -> list[Request]:
    dice = random.Random(4)
    stem = [dice.randrange(5, 61) for _ in range(12)]
    return [
        Request(
            prompt=[*stem[: dice.randint(4, 12)], dice.randrange(5, 61)],
            sampling=Sampling(temperature=dice.choice([0.0, 1.0]), max_new_tokens=12),
            seeds=[dice.randrange(99) for _ in range(dice.choice([1, 3]))],
            stop_ids=STOP,
            adapter=dice.choice([None, *TARGETS]),
        )
        for _ in range(count)
    ]


def check(models: dict[str | None, Writer], engine: ContinuousEngine, requests: Sequence[Request]) -> None:
    for request, answers in zip(requests, answer_all(engine, requests), strict=True):
        prompts = [request.prompt] * len(request.seeds)
        alone = write_plainly(models[request.adapter], prompts, request.sampling, seeds=request.seeds, stop_ids=STOP)
        for answer, other in zip(answers, alone, strict=True):
            assert (answer.tokens, answer.finish_reason) == (other.tokens, other.finish_reason)
            assert answer.logprobs == pytest.approx(other.logprobs, abs=1e-10)


@pytest.mark.parametrize("config", [LLAMA, GPT2, T5], ids=["llama", "gpt2", "t5"])
@pytest.mark.parametrize("blocks", [64, 14])
def test_each_answer_is_that_of_a_model_with_its_adapter_alone(config: ModelConfig, blocks: int) -> None:
    model: Writer = make_encoder_decoder(config) if config.encoder_layers else make_model(config).double()
    adapted = {name: adapt(model, name) for name in TARGETS}
    served = copy.deepcopy(model)
    before = weights_digest(served.state_dict())
    settings = EngineSettings(num_blocks=blocks, block_size=4, max_rows=6, step_tokens=24, speculation="ngram")
    engine = ContinuousEngine(served, settings)
    for name, each in adapted.items():
        engine.add_adapter(name, take_products(each))
    check({None: model, **{name: each.model for name, each in adapted.items()}}, engine, mixed_requests(24))  # type: ignore[dict-item]
    assert engine.pool.num_used == 0
    assert config.encoder_layers or engine.scheduler.num_found_tokens > 0
    assert weights_digest(served.state_dict()) == before
    # Whoever else uses the model, now or after, sees no adapter.
    assert generate(served, [[7, 8]], Sampling(), seeds=[1], stop_ids=()) == generate(
        model, [[7, 8]], Sampling(), seeds=[1], stop_ids=()
    )


def test_prefixes_are_shared_within_an_adapter_alone_even_if_its_name_returns() -> None:
    model, prompt = make_model().double(), list(range(5, 30))
    engine = ContinuousEngine(model, SMALL)
    ann, bob = (take_products(adapt(model, name)) for name in ("ann", "bob"))
    engine.add_adapter("one", ann)

    def found(adapter: str | None) -> int:
        before = engine.scheduler.num_found_tokens
        answer_all(engine, [Request(prompt=prompt, sampling=Sampling(max_new_tokens=2), seeds=[1], adapter=adapter)])
        return engine.scheduler.num_found_tokens - before

    assert [found(None), found("one"), found("one"), found(None)] == [0, 0, 24, 24]
    engine.remove_adapter("one")
    engine.add_adapter("one", bob)
    assert [found("one"), found("one")] == [0, 24]
    engine.add_adapter("other", ann)
    assert found("other") == 24  # the numbers are the adapter, not its name


def test_a_packed_copy_answers_with_adapters_too() -> None:
    model = make_model()
    adapted = adapt(model, "bob")
    engine = ContinuousEngine(decoding_copy(model, "bfloat16"), SMALL)
    engine.add_adapter("bob", take_products(adapted))
    requests = [
        Request(prompt=[9, 8, 7], sampling=Sampling(max_new_tokens=1), seeds=[1], top_logprobs=61, adapter="bob")
    ]
    ((answer,),) = answer_all(engine, requests)
    expected = merge_adapter(adapted)(torch.tensor([[9, 8, 7]]))[0, -1].log_softmax(-1)
    found = torch.tensor([logprob for _, logprob in sorted(answer.top[0])])
    assert (found - expected).abs().mean() < 0.05
    assert (found - model(torch.tensor([[9, 8, 7]]))[0, -1].log_softmax(-1)).abs().mean() > 0.2


def test_adapters_that_do_not_fit_and_names_that_are_not_there_are_refused() -> None:
    model = make_model()
    engine, ann = ContinuousEngine(model, SMALL), take_products(adapt(model, "ann"))
    engine.add_adapter("ann", ann)
    request = Request(prompt=[5], sampling=Sampling(max_new_tokens=4), seeds=[1], adapter="bob")
    with pytest.raises(UnknownNameError, match="no adapter bob; there are: ann"):
        engine.submit(request)
    with pytest.raises(UnknownNameError, match="no adapter bob"):
        engine.remove_adapter("bob")
    with pytest.raises(UsageError, match="an adapter ann is there already"):
        engine.add_adapter("ann", ann)
    with pytest.raises(UsageError, match="without a name"):
        engine.add_adapter("", ann)
    for config, match in (
        (LLAMA.model_copy(update={"width": 32}), "an adapter of 48 inputs"),
        (LLAMA.model_copy(update={"num_layers": 1}), "no such layer"),
    ):
        with pytest.raises(ModelError, match=match):
            SeveralAdapters(make_model(config)).add("ann", ann)
    prompts = add_adapter(make_model(), AdapterRecipe(method="prompt", num_virtual_tokens=3), torch.Generator())
    with pytest.raises(ModelError, match="an adapter of method prompt; only lora"):
        take_products(prompts)
    engine.add_adapter("bob", LowRankAdapter({}))
    number = engine.submit(request)
    engine.step()
    with pytest.raises(UsageError, match="the adapter bob is in use"):
        engine.remove_adapter("bob")
    engine.cancel(number)
    engine.remove_adapter("bob")
    engine.remove_adapter("ann")
