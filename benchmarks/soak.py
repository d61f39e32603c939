"""A soak: many clients with accidents against one server, its answers compared with isolated runs.

    python -m benchmarks.soak --requests 10000
    python -m benchmarks.soak --minutes 30 --clients 32

Each client asks, in any order: whole answers and streams, greedy and drawn, one to four to a prompt, over prompts that
share beginnings. Accidents, a fifth of all requests: a stream left in the middle, a request left before its first
byte, a slow reader, broken JSON, a wrong field, half a request and then silence. Thirty times another of two models is
put into service while answers are in the making.

A sample of the whole answers is compared with `generate` alone, one prompt at a time, on the model that says it
answered. Both compute in float32, so a first difference counts as near, not as wrong, where the isolated run's two
best tokens are within 1e-4, or its random number within 1e-4 of another token's. At the end nothing runs, and the
cache must hold no block. Memory is the server's resident set: the median over the tenth that follows a warm-up of a
fifth, which has touched everything, against the median over the last tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import random
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch
from benchmarks.served import (
    Served,
    import_folder,
    make_folder,
    make_tokenizer,
    put_into_service,
    running_server,
)

from sanbai.foundation.device import describe_machine
from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling, draw_uniforms
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer

CONFIG = ModelConfig(
    num_layers=3, width=160, num_heads=5, num_kv_heads=5, head_width=32, feed_forward_width=448, max_positions=512,
    initial_std=0.06,
)  # fmt: skip
MODELS = ("first", "second")
ROUNDING = 1e-4
ACCIDENTS = ("leave", "leave at once", "read slowly", "broken JSON", "wrong field", "half a request")
SHARE_OF_ACCIDENTS = 0.2
WARM, EARLY, LATE = 0.2, 0.3, 0.9
"""Shares of the run: memory is compared from the first to the second, and from the last on."""
GROWTH = 0.02
"""Of memory, wanted at most."""
FIGURES = ("num_requests_running", "kv_cache_usage_perc", "num_preemptions_total", "prefix_cache_hits_total")


@dataclass
class Asked:
    """A request for whole answers, and what came back."""

    prompt: list[int]
    temperature: float
    seed: int
    max_tokens: int
    tokens: list[str] = field(default_factory=list)
    """As the answer spells them."""
    model: str = ""


@dataclass
class Counts:
    """What happened."""

    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)
    checked: int = 0
    checked_tokens: int = 0
    near: int = 0
    wrong: list[str] = field(default_factory=list)


class Client:
    """One client: asks until all is done."""

    def __init__(
        self, number: int, served: Served, prompts: Sequence[Sequence[int]], counts: Counts, sample: queue.Queue[Asked]
    ) -> None:
        self._dice = random.Random(number)
        self._served, self._prompts, self._counts, self._sample = served, prompts, counts, sample
        self._headers = {"Authorization": f"Bearer {served.key}"}

    async def run(self, done: Callable[[], float]) -> None:
        """Ask until the share that is done is all."""
        async with httpx2.AsyncClient(base_url=self._served.url, headers=self._headers, timeout=120) as http:
            while done() < 1:
                accident = self._dice.random() < SHARE_OF_ACCIDENTS
                kind = self._dice.choice(ACCIDENTS if accident else ("whole", "stream", "several"))
                self._counts.requests[kind] += 1
                try:
                    await self._do(http, kind)
                except httpx2.HTTPError as error:
                    self._counts.unexpected.append(f"{kind}: {type(error).__name__} {error}")

    async def _do(self, http: httpx2.AsyncClient, kind: str) -> None:
        asked = self._ask()
        if kind == "whole":
            await self._whole(http, asked)
        elif kind == "several":
            await self._refusable(http, self._body(asked) | {"n": self._dice.randint(2, 4)})
        elif kind in {"stream", "leave", "read slowly"}:
            await self._stream(http, asked, kind)
        elif kind == "leave at once":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._refusable(http, self._body(asked)), self._dice.uniform(0.001, 0.2))
        elif kind == "broken JSON":
            broken = b'{"model": "sanbai", "prompt": ['
            typed = {"Content-Type": "application/json"}
            self._expect(await http.post("/v1/completions", content=broken, headers=typed), {400})
        elif kind == "wrong field":
            self._expect(await http.post("/v1/completions", json=self._body(asked) | {"temperature": "hot"}), {400})
        else:
            await self._half_a_request()

    def _ask(self) -> Asked:
        start = self._dice.choice(self._prompts)
        tail = [self._dice.choice(start) for _ in range(self._dice.randint(0, 40))]
        return Asked(
            prompt=[*start, *tail],
            temperature=self._dice.choice([0.0, 1.0]),
            seed=self._dice.getrandbits(31),
            max_tokens=self._dice.randint(1, 96),
        )

    @staticmethod
    def _body(asked: Asked) -> dict[str, Any]:
        return {
            "model": "sanbai", "prompt": asked.prompt, "temperature": asked.temperature, "top_p": 1.0,
            "seed": asked.seed, "max_tokens": asked.max_tokens,
        }  # fmt: skip

    def _expect(self, response: httpx2.Response, wanted: set[int]) -> bool:
        self._counts.statuses[response.status_code] += 1
        if response.status_code not in wanted:
            self._counts.unexpected.append(f"{response.status_code} {response.text[:200]}")
        return response.status_code == 200

    async def _refusable(self, http: httpx2.AsyncClient, body: dict[str, Any]) -> httpx2.Response | None:
        """Ask until the answer is there; who is refused comes again when told to."""
        start = time.monotonic()
        while True:
            response = await http.post("/v1/completions", json=body)
            if response.status_code != 429:
                break
            self._counts.statuses[429] += 1
            await asyncio.sleep(float(response.headers["retry-after"]))
        if not self._expect(response, {200}):
            return None
        self._counts.tokens += response.json()["usage"]["completion_tokens"]
        self._counts.seconds.append(time.monotonic() - start)
        return response

    async def _whole(self, http: httpx2.AsyncClient, asked: Asked) -> None:
        if (response := await self._refusable(http, self._body(asked) | {"logprobs": 0})) is not None:
            record = response.json()
            asked.tokens, asked.model = record["choices"][0]["logprobs"]["tokens"], record["model"]
            with contextlib.suppress(queue.Full):
                self._sample.put_nowait(asked)

    async def _stream(self, http: httpx2.AsyncClient, asked: Asked, kind: str) -> None:
        events = self._dice.randint(1, 30) if kind == "leave" else 10_000
        async with http.stream("POST", "/v1/completions", json=self._body(asked) | {"stream": True}) as response:
            self._counts.statuses[response.status_code] += 1
            if response.status_code == 429:
                return
            ended = False
            async for line in response.aiter_lines():
                if kind == "read slowly":
                    await asyncio.sleep(0.05)
                ended = ended or line == "data: [DONE]"
                events -= bool(line)
                if not events:
                    return
        if not ended:
            self._counts.unexpected.append(f"{kind}: a stream without its end")

    async def _half_a_request(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._served.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(self._dice.uniform(0.1, 2.0))
        writer.close()


class Checker(threading.Thread):
    """Compares answers with isolated runs for as long as some are there."""

    def __init__(
        self, models: dict[str, LanguageModel], tokenizer: Tokenizer, counts: Counts, sample: queue.Queue[Asked]
    ) -> None:
        super().__init__(name="checker", daemon=True)
        self._models, self._tokenizer, self._counts, self._sample = models, tokenizer, counts, sample
        self.done = threading.Event()

    def run(self) -> None:
        """Check until told to be done and nothing is left."""
        while not (self.done.is_set() and self._sample.empty()):
            with contextlib.suppress(queue.Empty):
                self._check(self._sample.get(timeout=0.5))

    def _check(self, asked: Asked) -> None:
        model, counts = self._models[asked.model], self._counts
        ends = self._tokenizer.reserved.ends()
        sampling = Sampling(temperature=asked.temperature, top_p=1.0, max_new_tokens=asked.max_tokens)
        alone = generate(model, [asked.prompt], sampling, seeds=[asked.seed], stop_ids=ends)[0]
        counts.checked += 1
        counts.checked_tokens += len(alone.tokens)
        spelled = [self._spell(token) for token in alone.tokens if token not in ends]
        if spelled == asked.tokens:
            return
        pairs = zip(spelled, asked.tokens, strict=False)
        first = next((place for place, (one, other) in enumerate(pairs) if one != other), len(spelled))
        margin = _margins(model, asked, alone.tokens)[min(first, len(asked.tokens), len(alone.tokens) - 1)]
        if margin < ROUNDING:
            counts.near += 1
        else:
            counts.wrong.append(f"{asked.model} seed {asked.seed}, token {first}: margin {margin:.1e}")

    def _spell(self, token: int) -> str:
        spelled = self._tokenizer.token_bytes(token)
        try:
            return spelled.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


@torch.no_grad()
def _margins(model: LanguageModel, asked: Asked, tokens: Sequence[int]) -> list[float]:
    """Return how near each of the isolated run's tokens was to being another."""
    logits_TV = model(torch.tensor([[*asked.prompt, *tokens]]))[0, len(asked.prompt) - 1 : -1].double()
    if asked.temperature == 0:
        best_T2 = logits_TV.topk(2).values
        return [float(margin) for margin in best_T2[:, 0] - best_T2[:, 1]]
    uniforms = draw_uniforms([asked.seed], len(tokens))[0].tolist()
    bounds_TV = logits_TV.softmax(-1).cumsum(-1)  # as it is drawn: in the order of ids
    return [float((bounds_V - uniform).abs().min()) for bounds_V, uniform in zip(bounds_TV, uniforms, strict=True)]


async def soak(
    served: Served, workspace: Path, prompts: Sequence[Sequence[int]], *, done: Callable[[], float], clients: int,
    changes: int, counts: Counts, sample: queue.Queue[Asked],
) -> list[tuple[float, int]]:  # fmt: skip
    """Run all clients and change models; return the server's resident bytes, each with the share that was done."""
    memory: list[tuple[float, int]] = []
    server = psutil.Process(served.process.pid)

    async def watch() -> None:
        turn = 0
        while (share := done()) < 1:
            memory.append((share, server.memory_info().rss))
            if share >= (turn + 1) / (changes + 1):
                turn += 1
                await asyncio.to_thread(put_into_service, workspace, MODELS[turn % 2])
            await asyncio.sleep(1)

    everyone = [Client(number, served, prompts, counts, sample).run(done) for number in range(clients)]
    await asyncio.gather(watch(), *everyone)
    return memory


def share_of(*, minutes: float, requests: int, counts: Counts) -> Callable[[], float]:
    """Return what tells the share that is done: of the requests, or of the time where no number of them is given."""
    start = time.monotonic()
    if requests:
        return lambda: counts.requests.total() / requests
    return lambda: (time.monotonic() - start) / (60 * minutes)


def figures_of(served: Served) -> dict[str, float]:
    """Return the server's own figures once nothing runs, summed over models."""
    headers = {"Authorization": f"Bearer {served.admin_key}"}
    for _ in range(100):
        page = httpx2.get(f"{served.url}/metrics", headers=headers).text
        figures: Counter[str] = Counter()
        for name, value in re.findall(r"^sanbai_(\w+)(?:\{.*\})? (\S+)$", page, re.MULTILINE):
            figures[name] += float(value)
        if not figures["num_requests_running"]:
            break
        time.sleep(0.2)
    return {name: figures[name] for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0)
    length.add_argument("--requests", type=int, default=0, help="that many, however long they take")
    parser.add_argument("--changes", type=int, default=30, help="of the model in service")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the server's products")
    parser.add_argument("--cache-mebibytes", type=int, default=8, help="small, so that answers must give way")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "soak.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(1024)
    config = CONFIG.with_vocabulary(tokenizer.vocab_size)
    counts, sample = Counts(), queue.Queue[Asked](maxsize=200)
    dice = random.Random(0)
    usable = [token for token in range(tokenizer.vocab_size) if token not in tokenizer.reserved_ids]
    prompts = [[dice.choice(usable) for _ in range(dice.randint(1, 300))] for _ in range(24)]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        models = {}
        for seed, name in enumerate(MODELS):
            made = make_folder(Path(folder) / name, config, tokenizer, seed=seed)
            import_folder(workspace, made, name)
            models[name] = load_language_model(made)
        put_into_service(workspace, MODELS[0])
        recipe = {"max_running": 16, "max_waiting": 32, "cache_mebibytes": arguments.cache_mebibytes}
        checker = Checker(models, tokenizer, counts, sample)
        checker.start()
        with running_server(workspace, recipe, threads=arguments.threads) as served:
            start = time.monotonic()
            done = share_of(minutes=arguments.minutes, requests=arguments.requests, counts=counts)
            memory = asyncio.run(
                soak(
                    served, workspace, prompts, done=done, clients=arguments.clients, changes=arguments.changes,
                    counts=counts, sample=sample,
                )
            )  # fmt: skip
            minutes = (time.monotonic() - start) / 60
            checker.done.set()
            checker.join()
            own = figures_of(served)
            alive = served.process.poll() is None
    early = statistics.median(rss for share, rss in memory if WARM <= share < EARLY)
    late = statistics.median(rss for share, rss in memory if share >= LATE)
    growth = late / early - 1
    seconds = sorted(counts.seconds)
    record = {
        "machine": describe_machine(),
        "minutes": round(minutes, 1),
        "model_changes": arguments.changes,
        "clients": arguments.clients,
        "recipe": recipe,
        "requests": dict(counts.requests),
        "statuses": {str(status): number for status, number in sorted(counts.statuses.items())},
        "tokens_of_whole_answers": counts.tokens,
        "seconds_median_and_p95": [statistics.median(seconds), seconds[int(0.95 * len(seconds))]],
        "checked_answers": counts.checked,
        "checked_tokens": counts.checked_tokens,
        "near": counts.near,
        "wrong": counts.wrong,
        "unexpected": counts.unexpected[:20],
        "num_unexpected": len(counts.unexpected),
        "memory_growth": growth,
        "memory_mebibytes": [round(rss / 2**20, 1) for rss in (early, late)],
        "server": own,
        "alive": alive,
    }
    print(json.dumps(record, indent=1))
    arguments.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    if counts.wrong or not alive or own["kv_cache_usage_perc"] or counts.unexpected or growth > GROWTH:
        raise SystemExit("the soak found faults")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
