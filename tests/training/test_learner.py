import pytest
import torch
from torch import Tensor

from sanbai.model.heads import LanguageModel
from sanbai.training.learner import Learner
from sanbai.training.optimizer import OptimizerRecipe


def weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(model: LanguageModel, *, keeps_average: bool) -> Learner:
    """A learner after one step by 1 in every weight: half a step in the average."""
    learner = Learner.gather(model, OptimizerRecipe(), ema_decay=0.5, keeps_average=keeps_average)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    learner.average.update(model)
    return learner


def test_the_policy_is_lent_with_the_average_and_gets_its_own_bits_back(model: LanguageModel) -> None:
    first = weights(model)
    learner = moved(model, keeps_average=True)
    own = weights(model)
    with learner.with_kept_weights() as policy:
        lent = dict(policy.named_parameters())
        for name, average in learner.average.tensors().items():
            torch.testing.assert_close(lent[name].detach(), first[name] + 0.5)
            assert lent[name].data_ptr() == average.data_ptr()  # no copy
    assert all(torch.equal(own[name], parameter) for name, parameter in model.named_parameters())


def test_the_policy_gets_its_own_back_when_judging_fails(model: LanguageModel) -> None:
    learner = moved(model, keeps_average=True)
    own = weights(model)
    with pytest.raises(RuntimeError, match="no judge"), learner.with_kept_weights():
        raise RuntimeError("no judge")
    assert all(torch.equal(own[name], parameter) for name, parameter in model.named_parameters())


def test_where_the_last_weights_are_kept_they_are_the_policys(model: LanguageModel) -> None:
    learner = moved(model, keeps_average=False)
    own = weights(model)
    with learner.with_kept_weights() as policy:
        assert all(torch.equal(own[name], parameter) for name, parameter in policy.named_parameters())
