"""Faults to plant: each trap of docs/stages/ppo.md as the line that falls into it, and the test that must notice.

`python -m tests.training.planted docs/stages/ppo.md` writes the page's table. `test_planted.py` plants them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/sanbai"
BEGIN, END = "<!-- planted: written by `make traps` -->", "<!-- /planted -->"


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong line.

    Attributes:
        trap: number in the page's table of traps.
        story: what goes wrong, for people.
        file: below `src/sanbai`.
        old: occurs there exactly once.
        new: takes its place.
        test: node id that must fail then, and passes without.
    """

    trap: int
    story: str
    file: str
    old: str
    new: str
    test: str

    @property
    def name(self) -> str:
        """A short name, unique by place in the list."""
        return f"{self.trap:02}-{self.story.split(',')[0].replace(' ', '-')}"

    def plant(self, package: Path) -> None:
        """Put the fault into a copy of the package."""
        path = package / self.file
        path.write_text(path.read_text("utf-8").replace(self.old, self.new), encoding="utf-8")


_ADVANTAGE, _KL = "tests/objectives/test_advantage.py::", "tests/objectives/test_kl.py::"
_LOSSES, _MASKED = "tests/objectives/test_ppo.py::", "tests/objectives/test_masked.py::"
_RANKING = "tests/objectives/test_reward.py::"
_TRAPS, _PPO, _ENUMERATED = (f"tests/training/test_{name}.py::" for name in ("traps", "ppo", "enumerated"))
_GROUP, _ADVANTAGES = "tests/training/test_group.py::", "tests/objectives/test_group.py::"
_ROLLOUTS, _ROWS = "tests/training/test_rollouts.py::", "tests/training/test_rows.py::"
_REWARD, _JUDGE = "tests/training/test_reward.py::", "tests/training/test_reward_model.py::"

FAULTS = (
    Fault(
        1,
        "the score is paid one token late",
        "objectives/advantage.py",
        "scatter_add(1, last_token(mask_BT).unsqueeze(1)",
        "scatter_add(1, (last_token(mask_BT) + 1).clamp(max=mask_BT.shape[1] - 1).unsqueeze(1)",
        _ADVANTAGE + "test_trap_01_the_score_lands_on_the_last_response_token_for_every_length",
    ),
    Fault(
        1,
        "the score is paid at the end of the longest answer",
        "objectives/advantage.py",
        "return (position_T * mask_BT.long()).amax(1)",
        "return torch.full_like(mask_BT[:, 0], int(position_T.max())).long()",
        _TRAPS + "test_trap_01_the_score_is_paid_at_the_last_token_of_answers_of_every_length",
    ),
    Fault(
        2,
        "the mask leaves out what looks like padding",
        "training/rollouts.py",
        "return (torch.arange(int(length_N.max())) < length_N[:, None]).float()",
        "return torch.nn.utils.rnn.pad_sequence("
        "[torch.tensor(each.tokens) for each in self.completions], batch_first=True).ne(0).float()",
        _TRAPS + "test_trap_02_the_drawn_end_is_learned_though_padding_and_prompt_hold_its_id",
    ),
    Fault(
        2,
        "supervision skips targets that equal the pad id",
        "data/packing.py",
        "loss_mask_BT[line, here] = items.loss_mask(item, slice(start, start + length))",
        "loss_mask_BT[line, here] = items.loss_mask(item, slice(start, start + length))"
        " & (tokens_BT[line, here] != pad_id)",
        _ROWS + "test_trap_02_the_end_of_a_turn_is_learned_even_if_pad_has_its_id",
    ),
    Fault(
        3,
        "an end in the prompt counts as the answer's",
        "training/ppo.py",
        'torch.tensor([completion.finish_reason == "length" for completion in rollouts.completions])',
        'torch.tensor([each.finish_reason == "length" and 6 not in prompt'
        " for prompt, each in zip(rollouts.prompts, rollouts.completions)])",
        _TRAPS + "test_trap_03_a_cut_answer_pays_once_whatever_its_prompt_holds",
    ),
    Fault(
        3,
        "the penalty is paid twice",
        "training/ppo.py",
        "score_N - recipe.unfinished_penalty,",
        "score_N - 2 * recipe.unfinished_penalty,",
        _PPO + "test_trap_03_and_04_the_penalty_falls_once_on_cut_answers_alone_though_prompts_hold_ends",
    ),
    Fault(
        4,
        "an answer that ends with the last token it may have counts as cut",
        "generation/row.py",
        "if token in self.request.stop_ids:",
        "if token in self.request.stop_ids and self.num_new < self.limit:",
        _TRAPS + "test_trap_04_the_longest_answer_that_ended_by_itself_is_not_cut",
    ),
    Fault(
        4,
        "more is expected after an answer that ended",
        "training/ppo.py",
        "torch.zeros(len(score_N)),",
        "readings.value_NR[:, 0],",
        _ENUMERATED + "test_the_policy_gradient_is_that_of_the_enumerated_objective",
    ),
    Fault(
        5,
        "responses are looked for as if all were of one length",
        "training/rollouts.py",
        "before_NR = (sequences.last() - response_length_N)[:, None] + step_R",
        "before_NR = (sequences.last() - num_steps)[:, None].clamp(min=0) + step_R",
        _ROLLOUTS + "test_trap_05_a_response_has_the_same_logprobs_alone_and_in_any_group",
    ),
    Fault(
        5,
        "positions count on through padding",
        "model/transformer.py",
        "positions_BT = positions_in_segments(segments_BT)",
        "positions_BT = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT)",
        _TRAPS + "test_trap_05_padding_on_either_side_moves_no_logprob_value_or_reward",
    ),
    Fault(
        6,
        "the reference is read at temperature 1",
        "training/rollouts.py",
        "response_logprobs(reference, layout, temperature=temperature, compute=compute)",
        "response_logprobs(reference, layout, temperature=1.0, compute=compute)",
        _ROLLOUTS + "test_trap_06_an_unchanged_policy_has_exactly_no_kl_at_any_temperature",
    ),
    Fault(
        6,
        "the update forgets the temperature",
        "training/ppo.py",
        "logprob_GR = response_logprobs(policy, layout, temperature=recipe.temperature, compute=compute)",
        "logprob_GR = response_logprobs(policy, layout, temperature=1.0, compute=compute)",
        _ENUMERATED + "test_the_policy_gradient_is_that_of_the_enumerated_objective",
    ),
    Fault(
        7,
        "rollouts are drawn with top-p",
        "training/practice.py",
        "Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens),",
        "Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens, top_p=0.9),",
        _TRAPS + "test_trap_07_answers_are_drawn_from_the_policy_itself",
    ),
    Fault(
        8,
        "k3 with the sign of the log-ratio turned",
        "objectives/kl.py",
        "return torch.expm1(-delta_BT) + delta_BT",
        "return torch.expm1(delta_BT) - delta_BT",
        _KL + "test_trap_08_k1_and_k3_are_unbiased",
    ),
    Fault(
        9,
        "the KL is rewarded",
        "objectives/advantage.py",
        "-kl_coef * kl_BT.to(exact)",
        "kl_coef * kl_BT.to(exact)",
        _ADVANTAGE + "test_trap_09_a_responses_rewards_sum_to_score_minus_beta_kl",
    ),
    Fault(
        9,
        "the KL in the reward is clamped",
        "training/ppo.py",
        'kl_NR = kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator="k1")',
        'kl_NR = kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator="k1").clamp(-0.01, 0.01)',
        _TRAPS + "test_trap_09_at_every_step_the_reward_learned_from_is_score_less_penalty_less_beta_kl",
    ),
    Fault(
        9,
        "a group's KL is priced in the reward and in the loss",
        "training/group.py",
        'if recipe.kl_in == "reward":\n                return loss',
        "if not recipe.kl_coef:\n                return loss",
        _GROUP + "test_trap_09_the_kl_is_in_the_reward_or_in_the_loss_and_never_in_both",
    ),
    Fault(
        10,
        "experts keep their noise",
        "training/watch.py",
        "policy.to(compute.device).eval(),",
        "policy.to(compute.device).train(),",
        _TRAPS + "test_trap_10_experts_neither_jitter_nor_drop_out_while_practising",
    ),
    Fault(
        10,
        "the old log-probabilities are the sampler's",
        "training/ppo.py",
        "readings.logprob_NR,\n                readings.value_NR,",
        "rollouts.sampler_logprobs(),\n                readings.value_NR,",
        _PPO + "test_trap_10_the_first_minibatchs_ratio_is_one",
    ),
    Fault(
        11,
        "packed answers see each other",
        "training/sequences.py",
        "segments_BT[row, start:end] = num_segments_B[row]",
        "segments_BT[row, start:end] = 1",
        "tests/training/test_sequences.py::test_trap_11_a_sequence_alone_gives_the_numbers_it_gives_among_others",
    ),
    Fault(
        12,
        "the sampler keeps old weights",
        "training/roles.py",
        "rollouts = sample(\n            self.models.policy,",
        "rollouts = sample(\n            self.reference,",
        _TRAPS + "test_trap_12_the_sampler_follows_the_trainer_through_every_update",
    ),
    Fault(
        12,
        "stale tokens count like fresh ones",
        "objectives/ppo.py",
        "surrogate_BT = weight_BT * surrogate_BT",
        "surrogate_BT = 1.0 * surrogate_BT",
        _LOSSES + "test_trap_12_the_decoupled_loss_equals_a_slow_loop_over_three_policies",
    ),
    Fault(
        12,
        "the sampler reports log-probabilities at temperature 1",
        "generation/drawing.py",
        "logprob_B1 = raw_BV.gather(-1, token_B1)",
        "logprob_B1 = logits_BV.log_softmax(dim=-1).gather(-1, token_B1)",
        _ROLLOUTS + "test_trap_12_the_samplers_logprobs_are_the_trainers",
    ),
    Fault(
        13,
        "padding takes part in whitening",
        "objectives/masked.py",
        "torch.rsqrt(masked_variance(exact_BT, mask_BT) + epsilon)",
        "torch.rsqrt(exact_BT.var(correction=0) + epsilon)",
        _MASKED + "test_trap_13_whitening_counts_valid_tokens_only_whatever_padding_holds",
    ),
    Fault(
        14,
        "means are taken over padding too",
        "objectives/masked.py",
        "return masked_sum(value_BT, mask_BT) / mask_BT.sum()",
        "return masked_sum(value_BT, mask_BT) / mask_BT.numel()",
        _LOSSES + "test_trap_14_metrics_count_response_tokens_only",
    ),
    Fault(
        14,
        "the KL of an answer is that of the longest, at the mean a token",
        "training/practice.py",
        '"kl": masked_sum(k1_NR, mask_NR) / num_responses,',
        '"kl": masked_mean(k1_NR, mask_NR) * mask_NR.shape[1],',
        _TRAPS + "test_trap_14_every_logged_number_counts_answers_tokens_only",
    ),
    Fault(
        15,
        "each part of a minibatch is a mean of its own",
        "training/ppo.py",
        "clip=recipe.clip,\n                denominator=denominator,",
        "clip=recipe.clip,\n                denominator=mask_GR.sum(),",
        _TRAPS + "test_trap_15_policy_and_value_gradients_do_not_depend_on_the_micro_batch",
    ),
    Fault(
        15,
        "each part of pretraining rows is a mean of its own",
        "training/rows.py",
        "model, rows, denominator=denominator, seed",
        "model, rows, denominator=int(rows.loss_mask_BT.sum()) / coefficient, seed",
        _ROWS + "test_trap_15_the_gradient_does_not_depend_on_how_the_batch_is_cut",
    ),
    Fault(
        16,
        "the value at a gap is taken for the next one",
        "objectives/advantage.py",
        "next_value_B = torch.where(here_B, value_BT[:, t], next_value_B)",
        "next_value_B = value_BT[:, t]",
        _ADVANTAGE + "test_trap_16_advantages_equal_the_slow_sum_over_random_masks_with_gaps",
    ),
    Fault(
        17,
        "the smaller of the two value errors counts",
        "objectives/ppo.py",
        "error_BT = torch.max((value_BT",
        "error_BT = torch.min((value_BT",
        _LOSSES + "test_trap_17_value_clipping_is_pessimistic_around_the_old_value",
    ),
    Fault(
        17,
        "values are clipped around their targets",
        "objectives/ppo.py",
        "clipped_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)",
        "clipped_BT = return_BT + (value_BT - return_BT).clamp(-clip, clip)",
        _LOSSES + "test_trap_17_value_clipping_is_pessimistic_around_the_old_value",
    ),
    Fault(
        18,
        "the reward model's bias is lost on its way to the critic",
        "model/hugging_face.py",
        "torch.tensor([float(stored.settings.get(BIAS_KEY, 0.0))], dtype=dtype)",
        "torch.zeros(1, dtype=dtype)",
        _TRAPS + "test_trap_18_the_critic_begins_as_the_loaded_reward_model_bias_included",
    ),
    Fault(
        18,
        "a token's value is read after it was written",
        "training/rollouts.py",
        "layout.to_grid(value_BT.flatten().index_select(0, layout.before_M))",
        "layout.to_grid(value_BT.flatten().index_select(0, layout.before_M + 1))",
        _ROLLOUTS + "test_trap_18_the_value_of_the_last_token_is_the_rewards_score_bias_included",
    ),
    Fault(
        19,
        "the zero is moved the wrong way",
        "training/reward_model.py",
        "model.head.bias.sub_(",
        "model.head.bias.add_(",
        _JUDGE + "test_trap_19_after_calibration_demonstrations_average_zero",
    ),
    Fault(
        19,
        "whitening divides by nothing where rewards are constant",
        "objectives/masked.py",
        "masked_variance(exact_BT, mask_BT) + epsilon)",
        "masked_variance(exact_BT, mask_BT))",
        _MASKED + "test_trap_19_constant_advantages_whiten_to_zero_not_to_infinity",
    ),
    Fault(
        19,
        "a group's deviation may be nothing",
        "objectives/group.py",
        "exact_PK.std(1, correction=0, keepdim=True) + epsilon",
        "exact_PK.std(1, correction=0, keepdim=True) + 0 * epsilon",
        _ADVANTAGES + "test_trap_19_constant_rewards_give_no_advantage_and_nothing_infinite",
    ),
    Fault(
        20,
        "a prompt weighs as many times as it has pairs",
        "objectives/reward.py",
        "return mean_over_pairs(-F.logsigmoid(pair_margins(reward_BK)), preference_BKK, denominator=denominator)",
        "return (preference_BKK * -F.logsigmoid(pair_margins(reward_BK))).sum() / preference_BKK.sum()",
        _RANKING + "test_trap_20_the_loss_is_a_mean_over_pairs_then_over_prompts_with_a_pair",
    ),
    Fault(
        20,
        "rankings are read backwards",
        "training/ranked_prompts.py",
        "preference_KK[number[chosen], number[rejected]] += 1",
        "preference_KK[number[rejected], number[chosen]] += 1",
        _REWARD + "test_trap_20_rankings_of_a_prompt_become_one_element_with_counted_preferences",
    ),
    Fault(
        20,
        "the reward is read one token early",
        "training/reward_model.py",
        "value_BT.flatten()[packed.last()].tolist()",
        "value_BT.flatten()[packed.last() - 1].tolist()",
        _JUDGE + "test_trap_20_a_row_is_read_at_its_last_token_alone_or_among_others",
    ),
    Fault(
        21,
        "pretraining's gradient is computed and forgotten",
        "training/learner.py",
        "        add_gradient(policy, gradient)\n",
        "        length(gradient)\n",
        _PPO + "test_trap_21_the_accumulated_gradient_is_ppos_plus_gamma_times_pretrainings",
    ),
    Fault(
        21,
        "the ratio of rows to answers is forgotten",
        "training/practice.py",
        "round(recipe.ptx_ratio * recipe.minibatch_prompts * num_answers)",
        "round(recipe.minibatch_prompts * num_answers)",
        _PPO + "test_trap_21_one_optimizer_step_a_minibatch_and_the_stated_number_of_pretraining_rows",
    ),
    Fault(
        21,
        "documents of a row see each other",
        "training/rows.py",
        "segments_BT=segments_BT,",
        "segments_BT=(segments_BT > 0).long(),",
        _TRAPS + "test_trap_21_documents_of_a_row_do_not_see_each_other",
    ),
    Fault(
        22,
        "optimizer steps are counted as episodes",
        "training/ppo.py",
        "num_episodes=len(gathered.score_N)",
        "num_episodes=len(gathered.score_N) // recipe.minibatch_prompts",
        _PPO + "test_trap_22_the_run_steers_beta_by_its_own_kl_and_pays_it",
    ),
    Fault(
        22,
        "the error of the KL is not clipped",
        "training/kl_controller.py",
        "error = min(max(kl / self._target - 1, -LARGEST_ERROR), LARGEST_ERROR)",
        "error = kl / self._target - 1",
        "tests/training/test_kl_controller.py::test_trap_22_at_twice_the_target_beta_follows_the_golden_trace",
    ),
    Fault(
        22,
        "the coefficient is not saved",
        "training/kl_controller.py",
        'self.coef = tensors["coef"].item()',
        'float(tensors["coef"])',
        "tests/training/test_kl_controller.py::test_trap_22_a_loaded_controller_goes_on_to_the_same_bit",
    ),
    Fault(
        23,
        "the reference is the policy itself",
        "training/learner.py",
        "reference=copy_learning(policy),",
        "reference=policy,",
        _TRAPS + "test_trap_23_the_reference_has_the_policys_first_bits_and_type_before_and_after",
    ),
    Fault(
        23,
        "adapters over one base are all the policy's",
        "model/adapters/shared.py",
        "return copy.deepcopy(model, {id(parameter): parameter for parameter in frozen})",
        "return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})",
        "tests/training/test_players.py::"
        "test_trap_23_the_base_is_byte_identical_and_the_reference_is_a_separate_copy_to_the_bit",
    ),
    Fault(
        24,
        "norms and biases decay too",
        "training/optimizer.py",
        '{"params": vectors, "weight_decay": 0.0}',
        '{"params": vectors, "weight_decay": decay}',
        "tests/training/test_optimizer.py::"
        "test_trap_24_steps_follow_the_formula_with_epsilon_beside_the_root_and_decay_on_matrices_only",
    ),
    Fault(
        25,
        "the critic's moments are not saved",
        "training/ppo.py",
        'return {"value": Weights(self.value), "value_optimizer": self.optimizer}',
        'return {"value": Weights(self.value)}',
        _PPO + "test_trap_25_killed_twice_it_ends_in_the_same_bits",
    ),
    Fault(
        25,
        "the averaged weights are not saved",
        "training/learner.py",
        '"optimizer": self.optimizer, "average": self.average}',
        '"optimizer": self.optimizer}',
        _PPO + "test_trap_25_killed_twice_it_ends_in_the_same_bits",
    ),
    Fault(
        25,
        "an update that was stopped begins again",
        "training/buffer.py",
        'self._num_steps = int(tensors["num_steps"])',
        "self._num_steps = 0",
        "tests/training/test_buffer.py::test_trap_25_stopped_before_any_step_of_an_update_it_goes_on_with_that_step",
    ),
    Fault(
        25,
        "the batch ahead is not saved",
        "training/ppo.py",
        '"buffer": buffer, "ahead": ahead}',
        '"buffer": buffer}',
        "tests/training/test_buffer.py::test_trap_25_stopped_before_any_step_of_an_update_it_goes_on_with_that_step",
    ),
    Fault(
        25,
        "pretraining rows begin again",
        "training/ppo.py",
        'cursor_in(state, "documents"),',
        'cursor_in({}, "documents"),',
        _PPO + "test_trap_25_killed_twice_it_ends_in_the_same_bits",
    ),
    Fault(
        26,
        "answers are scored as their text encodes",
        "training/roles.py",
        "self.reward(some.prompts, some.responses)",
        "self.reward(some.prompts, [self.tokenizer.encode(self.tokenizer.decode(each)) or [0]"
        " for each in some.responses])",
        _TRAPS + "test_trap_26_what_is_learned_is_what_was_drawn_though_its_text_encodes_otherwise",
    ),
    Fault(
        26,
        "what the user says is learned",
        "text/chat_template.py",
        'learned = int(canonical_role(message["role"]) == "assistant")',
        "learned = 1",
        "tests/training/test_supervise.py::test_trap_26_what_the_user_says_is_read_and_not_learned",
    ),
    Fault(
        27,
        "the reward model reads the beginning twice",
        "training/reward_model.py",
        "return [*prompt, *tokenizer.encode(answer), tokenizer.reserved.end]",
        "return [tokenizer.reserved.end_of_text, *prompt, *tokenizer.encode(answer), tokenizer.reserved.end]",
        _TRAPS + "test_trap_27_every_stage_and_the_server_read_a_prompt_as_the_same_tokens",
    ),
    Fault(
        27,
        "long prompts lose their end",
        "text/chat_template.py",
        "kept = [*range(opening), *range(first, len(turns))]",
        "kept = [*range(opening), *range(opening, opening + len(turns) - first)]",
        _TRAPS + "test_trap_27_every_stage_and_the_server_read_a_prompt_as_the_same_tokens",
    ),
    Fault(
        28,
        "the value clip is a constant",
        "training/ppo.py",
        "clip=recipe.value_clip,",
        "clip=0.2,",
        _PPO + "test_trap_28_every_field_of_the_recipe_changes_the_run",
    ),
)


def table(faults: tuple[Fault, ...] = FAULTS) -> str:
    """The page's table: trap, planted fault with its file, the test that caught it."""
    rows = [
        f"| {fault.trap} | {fault.story} ([{fault.file}](../../src/sanbai/{fault.file})) | "
        f"[{fault.test.rpartition('::')[2]}](../../{fault.test.partition('::')[0]}) |"
        for fault in faults
    ]
    return "\n".join([BEGIN, "", "| trap | planted fault | caught by |", "|---|---|---|", *rows, "", END])


def with_table(page: str) -> str:
    """The page with its table written anew."""
    before, _, rest = page.partition(BEGIN)
    return before + table() + rest.partition(END)[2]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text("utf-8")), encoding="utf-8")
