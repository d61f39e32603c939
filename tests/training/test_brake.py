import torch

from sanbai.training.brake import Brake, Verdict


def verdict(step: int, judge_reward: float, kl: float = 1.0) -> Verdict:
    return Verdict(step, judge_reward, reward=float(step), kl=kl)


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([value])}


def test_the_best_weights_by_the_second_judge_are_kept_not_the_last() -> None:
    brake = Brake(patience=5, kl_budget=10.0)
    for step, judge_reward in enumerate([0.0, 1.0, 3.0, 2.0]):
        brake.see(verdict(step, judge_reward), weights(float(step)))
    assert brake.best.step == 2
    assert brake.best_weights["w"].item() == 2.0
    assert brake.first.step == 0
    assert brake.stop_reason == ""


def test_training_stops_after_patience_without_a_better_verdict() -> None:
    brake = Brake(patience=2, kl_budget=10.0)
    reasons = []
    for step, judge_reward in enumerate([0.0, 1.0, 0.5, 1.0]):  # an equal one is no better one
        brake.see(verdict(step, judge_reward), weights(float(step)))
        reasons.append(brake.stop_reason)
    assert reasons == ["", "", "", "patience"]


def test_weights_beyond_the_kl_budget_are_never_kept_and_stop_training() -> None:
    brake = Brake(patience=5, kl_budget=2.0)
    brake.see(verdict(0, 0.0), weights(0.0))
    brake.see(verdict(1, 9.0, kl=2.5), weights(1.0))
    assert brake.best.step == 0
    assert brake.stop_reason == "kl_budget"


def test_kept_weights_are_copies() -> None:
    brake = Brake(patience=1, kl_budget=1.0)
    living = weights(1.0)
    brake.see(verdict(0, 0.0, kl=0.0), living)
    living["w"].fill_(7.0)
    assert brake.best_weights["w"].item() == 1.0


def test_trap_25_a_loaded_brake_goes_on_counting() -> None:
    def after(*, interrupted: bool) -> Brake:
        brake = Brake(patience=2, kl_budget=10.0)
        for step, judge_reward in enumerate([0.0, 1.0, 0.5, 0.9]):
            if interrupted:
                saved = brake.tensors() if step else None
                brake = Brake(patience=2, kl_budget=10.0)
                if saved is not None:
                    brake.load(saved)
            brake.see(verdict(step, judge_reward), weights(float(step)))
        return brake

    resumed, undisturbed = after(interrupted=True), after(interrupted=False)
    assert resumed.stop_reason == undisturbed.stop_reason == "patience"
    assert resumed.best == undisturbed.best
    assert resumed.first == undisturbed.first
