"""Objectives: losses, advantages and estimators as pure functions of tensors; no model, no recipe, no logging."""
