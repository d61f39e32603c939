"""Oracle: the plain next-token loss over each conversation alone, in a batch of one."""

import math

import pytest
import torch

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.text.chat_template import encode_conversation
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.gradients import differentiate
from sanbai.training.rows import row_parts


def test_the_loss_of_packed_rows_is_the_mean_over_learned_tokens_of_separate_conversations(
    model: LanguageModel,
    items: EncodedItems,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
    compute: Compute,
) -> None:
    losses = []
    for conversation in demonstrations:
        encoded = encode_conversation(tokenizer, conversation.messages)
        logprob_TV = torch.log_softmax(model(torch.tensor([encoded.tokens]))[0], -1)
        losses += [
            -logprob_TV[place - 1, encoded.tokens[place]].item()
            for place, learned in enumerate(encoded.loss_mask)
            if learned
        ]
    batches = PackedBatches(items, row_length=64, batch_rows=1, seed=0, pad_id=tokenizer.reserved.pad)
    rows = batches.plan.num_rows
    batch = next(PackedBatches(items, row_length=64, batch_rows=rows, seed=0, pad_id=tokenizer.reserved.pad))
    found = differentiate({"loss": row_parts(model, batch, compute, micro_batch_rows=1)})
    assert found["loss"].loss == pytest.approx(math.fsum(losses) / len(losses), rel=1e-5)


def test_trap_15_the_gradient_does_not_depend_on_how_the_batch_is_cut(
    model: LanguageModel, items: EncodedItems, compute: Compute
) -> None:
    batch = next(PackedBatches(items, row_length=40, batch_rows=8, seed=0, pad_id=1))
    batch.loss_mask_BT[0, 3:] = False  # parts of unequal weight

    def gradient(rows: int) -> list[torch.Tensor]:
        return differentiate({"loss": row_parts(model, batch, compute, micro_batch_rows=rows)})["loss"].gradient

    whole = gradient(8)
    for rows in (1, 2, 4):
        for found, expected in zip(gradient(rows), whole, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_trap_02_the_end_of_a_turn_is_learned_even_if_pad_has_its_id(
    model: LanguageModel, items: EncodedItems, tokenizer: Tokenizer, compute: Compute
) -> None:
    def gradient(pad_id: int) -> list[torch.Tensor]:
        batch = next(PackedBatches(items, row_length=64, batch_rows=2, seed=0, pad_id=pad_id))
        return differentiate({"loss": row_parts(model, batch, compute, micro_batch_rows=2)})["loss"].gradient

    with_pad, with_end = gradient(tokenizer.reserved.pad), gradient(tokenizer.reserved.end)
    for first, second in zip(with_pad, with_end, strict=True):
        assert torch.equal(first, second)
    ends = [items.loss_mask(index)[-1] and items.tokens(index)[-1] == tokenizer.reserved.end for index in range(5)]
    assert all(ends)


def test_routers_losses_are_part_of_the_loss_of_a_model_with_experts(
    config: ModelConfig, items: EncodedItems, compute: Compute
) -> None:
    settings = {"sparse_layers": "all", "experts": {"num_experts": 4, "dropless": True, "jitter": 0.0}}
    losses = {}
    for coefficient in (0.0, 0.5):
        settings["experts"] |= {"balance_coef": coefficient}
        sparse = ModelConfig.model_validate({**config.model_dump(), **settings})
        model = LanguageModel(sparse, torch_generator(0, "tests"))
        batch = next(PackedBatches(items, row_length=64, batch_rows=2, seed=0, pad_id=1))
        losses[coefficient] = differentiate({"loss": row_parts(model, batch, compute, micro_batch_rows=1)})["loss"]
    # Even use gives 1 a layer, use of one expert alone 4; the two parts share one mean.
    added = losses[0.5].loss - losses[0.0].loss
    assert 0.9 < added < 4
    routers = [name for name, _ in model.named_parameters() if name.endswith("router")]
    assert len(routers) == 2
    names = [name for name, _ in model.named_parameters()]
    for router in routers:
        with_loss, without = (losses[coefficient].gradient[names.index(router)] for coefficient in (0.5, 0.0))
        assert not torch.equal(with_loss, without)
