"""Room for further tokens in a model that has learned: all it knew stays, to the bit."""

from __future__ import annotations

import torch

from sanbai.model.heads import LanguageModel


@torch.no_grad()
def extend_vocabulary(model: LanguageModel, vocab_size: int, generator: torch.Generator) -> LanguageModel:
    """Return a model of more tokens; the logits of those before do not change.

    A new token's row, of the embedding and of an untied head, is the mean of all rows with a hundredth of their
    deviation as noise: as unlikely as an average token, and different from the others that are new (Hewitt 2021,
    nlp.stanford.edu/~johnhew/vocab-expansion.html).

    Args:
        model: left as it is.
        vocab_size: tokens wanted; a model that has as many is returned itself.
        generator: of the noise.
    """
    known = model.config.vocab_size
    if vocab_size <= known:
        return model
    wider = LanguageModel(model.config.with_vocabulary(vocab_size)).to(model.head_weight)
    before = dict(model.named_parameters())
    for name, parameter in wider.named_parameters():
        old = before[name]
        if parameter.shape == old.shape:
            parameter.copy_(old)
            continue
        noise = torch.randn(parameter[known:].shape, generator=generator).to(old)
        parameter[:known] = old
        parameter[known:] = old.mean(0) + 0.01 * old.std(0) * noise
    buffers = dict(model.named_buffers())
    for name, buffer in wider.named_buffers():
        buffer.copy_(buffers[name])
    return wider
