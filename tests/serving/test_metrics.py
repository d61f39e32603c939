from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.serving.conftest import Site, running_site

from sanbai.text.tokenizer import Tokenizer

QUESTION = [{"role": "user", "content": "Who bakes bread?"}]


def figures(site: Site) -> dict[str, float]:
    """What a collector reads, labels left out; a histogram's count and sum, and counters by how answers ended."""
    page = site.program("admin").get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            reason = sample.labels.get("finished_reason")
            found[f"{sample.name}/{reason}" if reason else sample.name] = sample.value
    return found


def test_figures_are_those_of_the_answers_that_were_made(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer) as fresh:
        program, length, cut = fresh.program(), 0, 0
        for number in range(3):
            body = {"model": "sanbai", "messages": QUESTION, "max_tokens": 5, "n": 2, "seed": number, "logprobs": True}
            answer = program.post("/v1/chat/completions", json=body).json()
            length += sum(len(choice["logprobs"]["content"]) for choice in answer["choices"])
            cut += sum(choice["finish_reason"] == "length" for choice in answer["choices"])
        found = figures(fresh)
        assert found["sanbai_prompt_tokens_total"] == 3 * answer["usage"]["prompt_tokens"]
        assert found["sanbai_generation_tokens_total"] == length
        assert found.get("sanbai_request_success_total/length", 0) == cut
        assert found["sanbai_time_to_first_token_seconds_count"] == 6
        assert found["sanbai_inter_token_latency_seconds_count"] == length - 6
        assert found["sanbai_e2e_request_latency_seconds_count"] == 3
        assert found["sanbai_num_requests_running"] == 0
        assert found["sanbai_kv_cache_usage_perc"] == 0
        assert not [name for name in found if name.endswith("_created")]
        # The second and third question's beginning was known, in whole blocks of 16 tokens.
        assert found["sanbai_prefix_cache_hits_total"] == 2 * ((answer["usage"]["prompt_tokens"] - 1) // 16 * 16)


def test_figures_are_an_administrators(site: Site) -> None:
    assert site.stranger().get("/metrics").status_code == 401
    assert site.program("labeler").get("/metrics").status_code == 403
