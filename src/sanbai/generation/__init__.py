"""Sampling, the batched engine, streaming and scoring: what chat, PPO and evaluation share."""
