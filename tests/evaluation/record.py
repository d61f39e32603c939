"""An evaluation by hand: three models, two kinds of prompt, every optional part present."""

from __future__ import annotations

from typing import Any


def estimate(mean: float, half: float = 0.03, n: int = 600) -> dict[str, float]:
    """Return an estimate with a symmetric interval."""
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def scores(helpful: float, honest: float, harmless: float, gold_utility: float) -> dict[str, Any]:
    """Return one model's figures."""
    return {
        "helpful": estimate(helpful),
        "honest": estimate(honest),
        "harmless": estimate(harmless),
        "gold_utility": estimate(gold_utility, 0.05),
    }


MODELS = {
    "base": scores(0.18, 0.62, 0.70, 0.31) | {"bits_per_byte": estimate(0.812, 0.012, 200)},
    "supervised": scores(0.55, 0.78, 0.81, 1.08) | {"bits_per_byte": estimate(0.846, 0.012, 200)},
    "ppo": scores(0.68, 0.81, 0.95, 1.31) | {"bits_per_byte": estimate(0.851, 0.012, 200)},
}
EVALUATION: dict[str, Any] = {
    "models": list(MODELS),
    "evaluation": MODELS,
    "win_rate": {"supervised_vs_base": estimate(0.81), "ppo_vs_supervised": estimate(0.596, 0.028)},
    "by_kind": {
        kind: {
            **{name: scores(0.5, 0.6, 0.7, 1.0) for name in MODELS},
            "win_rate": {"supervised_vs_base": estimate(0.8, 0.1, 60), "ppo_vs_supervised": estimate(won, 0.1, 60)},
        }
        for kind, won in (("chat", 0.7), ("rewrite", 0.35))
    },
    "worse": ["rewrite: helpful -0.112 (95 % interval -0.180 to -0.044, n 60)"],
    "reward_model": {
        "accuracy": estimate(0.718, 0.015, 240),
        "longer_wins": estimate(0.56, 0.02, 240),
        "labeler_agreement": estimate(0.726, 0.012, 240),
        "best_possible": 0.771,
        "by_kind": {"chat": estimate(0.74, 0.03, 100), "<i>rewrite</i>": estimate(0.66, 0.04, 140)},
        "calibration_error": 0.037,
        "reliability": [
            {"stated": 0.55, "observed": estimate(0.53), "num_pairs": 400},
            {"stated": 0.9, "observed": estimate(0.81), "num_pairs": 300},
        ],
        "by_length_gap": [
            {"least": 0, "most": 0, "accuracy": estimate(0.7), "longer_wins": estimate(0.5, 0.0), "num_pairs": 90},
            {
                "least": 1,
                "most": 12,
                "accuracy": estimate(0.72),
                "longer_wins": estimate(0.58),
                "longer_chosen": estimate(0.83),
                "shorter_chosen": estimate(0.57),
                "num_pairs": 610,
            },
        ],
        "num_pairs": 700,
        "teachers": {
            "rankings": {"person": 12, "simulated": 800, "model": 80},
            "model_agreement": {"model:model-0a1b": estimate(0.69, 0.02)},
        },
        "disagreement": {
            "num_models": 2,
            "accuracy": estimate(0.722),
            "spread": 0.4,
            "error_by_spread": estimate(0.56, 0.02),
            "error_by_margin": estimate(0.68, 0.02),
            "accuracy_by_spread": [estimate(0.81), estimate(0.72), estimate(0.64)],
        },
    },
    "kl": estimate(0.93, 0.06),
    "few_shot": {
        name: {"accuracy": {str(k): estimate(0.4 + 0.02 * k) for k in (0, 1, 4)}, "chance": 0.25, "dropped_shots": 0}
        for name in MODELS
    },
    "alignment_tax": {
        "ppo_vs_supervised": {
            "bits_per_byte": estimate(0.005, 0.003),
            "relative": estimate(0.006, 0.003),
            "few_shot": {},
        }
    },
    "sampling": {"temperature": 0.7, "top_p": 1.0, "top_k": 1_000_000, "max_new_tokens": 64},
    "seed": 1,
}
SERIES = {
    "pretrain": [{"step": float(s), "loss": 3.0 - 0.01 * s} for s in range(100)],
    "reward": [{"step": float(s), "loss": 0.6, "accuracy": 0.5 + 0.002 * s} for s in range(100)],
    "ppo": [
        {"step": float(s), "kl": 0.05 * s, "reward": 0.3 + 0.02 * s, "gold_utility": 1.0 + 0.01 * s} for s in range(20)
    ],
}
SAMPLES = [
    {
        "prompt": "p1",
        "kind": "closed question",
        "task": "riddle",
        "messages": [{"role": "user", "content": "Does <b>Peter</b> like painting?"}],
        "answers": {
            "base": {"answer": "<script>alert(1)</script>", "helpful": 0.0, "honest": 1.0, "harmless": 1.0},
            "supervised": {"answer": "", "helpful": 0.0, "honest": 1.0, "harmless": 1.0},
            "ppo": {"answer": "Yes & gladly.", "helpful": 1.0, "honest": 1.0, "harmless": 1.0},
        },
    }
]
MISTAKES = [
    {
        "kind": "chat",
        "messages": [{"role": "user", "content": "Who is <u>Otto</u>?"}],
        "chosen": "A baker & friend.",
        "rejected": "<script>alert(2)</script>",
        "probability": 0.97,
        "num_labelers": 4,
        "num_agreeing": 3,
    }
]
