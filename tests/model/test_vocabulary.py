from __future__ import annotations

import pytest
import torch

from sanbai.foundation.seeds import torch_generator
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.vocabulary import extend_vocabulary

CONFIG = ModelConfig(
    vocab_size=50, num_layers=2, width=16, num_heads=2, num_kv_heads=2, head_width=8, feed_forward_width=24
)


@pytest.mark.parametrize("tied", [True, False])
def test_further_tokens_change_no_logit_of_those_before(tied: bool) -> None:
    model = LanguageModel(CONFIG.model_copy(update={"tied_embeddings": tied}), torch_generator(1, "model"))
    wider = extend_vocabulary(model, 57, torch_generator(2, "new"))
    tokens_BT = torch.randint(0, 50, (2, 9))
    assert wider.config.vocab_size == 57
    assert torch.equal(wider(tokens_BT)[..., :50], model(tokens_BT))
    new_logits = wider(torch.tensor([[50, 53, 56]]))
    assert new_logits.isfinite().all()
    assert not torch.equal(new_logits[0, 0], new_logits[0, 1])


def test_a_new_token_is_as_unlikely_as_an_average_one() -> None:
    model = LanguageModel(CONFIG, torch_generator(1, "model"))
    wider = extend_vocabulary(model, 57, torch_generator(2, "new"))
    logits_TV = wider(torch.randint(0, 50, (1, 30)))[0]
    average_T = logits_TV[:, :50].mean(1)
    assert (logits_TV[:, 50:] - average_T[:, None]).abs().max() < 0.1 * logits_TV[:, :50].std()


def test_a_model_with_room_is_returned_itself() -> None:
    model = LanguageModel(CONFIG, torch_generator(1, "model"))
    assert extend_vocabulary(model, 50, torch_generator(2, "new")) is model
