"""What the server costs over the bare engine, and how soon its tokens come.

    python -m benchmarks.bench_server --shapes 12m 124m --repeats 5

- *Overhead*: 32 streams of 64 tokens to prompts of 32, all asked at once, through `sanbai serve`; beside it the same
  requests given to a `ContinuousEngine` in this process. In turn, wall time, medians. One thread for products on both
  sides. The clients are one process that reads raw sockets and parses nothing while it measures; its processor time is
  stated apart. Beside wall time the processor time of both, which neighbours on the machine change less.
- *First token*: of a prompt of 512 tokens, asked alone: cold, and with the same 512 read before.
- *Between tokens*: at 32 streams, as the clients see it; events that arrive together count as one token each with no
  time between them, so the 95th percentile is of the moments at which something came.

Wanted (`WANTED`): each ratio is printed beside the most that it should be; nothing fails.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from benchmarks.served import Served, import_folder, make_folder, make_tokenizer, put_into_service, running_server
from benchmarks.shapes import SHAPES

from sanbai.foundation.device import describe_machine, tune_allocator
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import decoding_copy
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.hugging_face import load_language_model

STREAMS, PROMPT, NEW_TOKENS = 32, 32, 64
LONG_PROMPT = 512
WANTED = {"overhead": 0.10, "between_tokens": 2.0, "first_token": 0.25}
"""Ratios at most: time beyond the bare engine's, at 124 million parameters; 95th percentile to median; warm to cold."""
SETTINGS: dict[str, object] = {"max_running": STREAMS, "max_waiting": STREAMS, "step_tokens": 2048}


@dataclass
class Stream:
    """One answer as it comes in over a socket."""

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    moments: list[float] = field(default_factory=list)
    """When something came, seconds since the question."""


def ask(served: Served, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[Stream]:
    """Stream an answer to each prompt, all at once, and read them to their ends without a look at what they say."""
    selector = selectors.DefaultSelector()
    streams, questions = [], []
    for prompt in prompts:
        body = json.dumps(
            {
                "model": "sanbai", "prompt": list(prompt), "max_tokens": new_tokens, "temperature": 0, "stream": True,
                "logprobs": 0,
            }
        ).encode()  # fmt: skip
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.key}\r\n"
            f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", served.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        streams.append(Stream(connection))
        questions.append(head.encode() + body)
        selector.register(connection, selectors.EVENT_READ, streams[-1])
    start = time.perf_counter()
    for stream, question in zip(streams, questions, strict=True):
        stream.connection.sendall(question)
    left = len(streams)
    while left:
        for key, _ in selector.select():
            stream = key.data
            if piece := stream.connection.recv(1 << 20):
                stream.received += piece
                if b'"choices"' in piece:
                    stream.moments.append(time.perf_counter() - start)
            else:
                selector.unregister(stream.connection)
                stream.connection.close()
                left -= 1
    return streams


def check(streams: Sequence[Stream], new_tokens: int) -> None:
    """Refuse to measure answers that are not what was asked for."""
    for stream in streams:
        found = stream.received.count(b'"token_logprobs"')
        if found < new_tokens - 1 or b"data: [DONE]" not in stream.received:
            raise SystemExit(f"{found} tokens where {new_tokens} were asked for: {bytes(stream.received[:300])!r}")


def run_bare(engine: ContinuousEngine, prompts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return the seconds that the engine alone takes, by the wall's clock and the processor's."""
    engine.pool.forget()
    start, spent = time.perf_counter(), time.process_time()
    for prompt in prompts:
        sampling = Sampling(temperature=0.0, max_new_tokens=NEW_TOKENS)
        engine.submit(Request(prompt=prompt, sampling=sampling, seeds=[1]))
    while engine.busy:
        engine.step()
    return time.perf_counter() - start, time.process_time() - spent


def processor_seconds(served: Served) -> float:
    """Return what the server has used so far, in all its threads."""
    times = psutil.Process(served.process.pid).cpu_times()
    return times.user + times.system


def ratio(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]], clock: int) -> float:
    """Return the ratio of two medians, by the wall's clock (0) or the processor's (1)."""
    return statistics.median(pair[clock] for pair in one) / statistics.median(pair[clock] for pair in other)


def measure(shape: str, precision: Any, repeats: int) -> dict[str, Any]:
    """Return one shape's figures."""
    config = SHAPES[shape]
    tokenizer = make_tokenizer(1024)
    reserved = tokenizer.reserved_ids
    usable = [token for token in range(tokenizer.vocab_size) if token not in reserved]
    dice = random.Random(0)
    bare: list[tuple[float, float]] = []
    through: list[tuple[float, float]] = []
    clients: list[float] = []
    gaps: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        made = make_folder(Path(folder) / "model", config, tokenizer)
        workspace = Path(folder) / "workspace"
        import_folder(workspace, made, "model")
        put_into_service(workspace, "model")
        engine = ContinuousEngine(
            decoding_copy(load_language_model(made), precision),
            EngineSettings(num_blocks=STREAMS * 8, max_rows=STREAMS, step_tokens=2048),
            tokenizer=tokenizer,
        )
        with running_server(workspace, SETTINGS | {"precision": precision}, threads=1) as served:
            for repeat in range(repeats + 1):
                prompts = [[dice.choice(usable) for _ in range(PROMPT)] for _ in range(STREAMS)]
                alone = run_bare(engine, prompts)
                before, servers_before = time.process_time(), processor_seconds(served)
                streams = ask(served, prompts, NEW_TOKENS)
                spent, servers = time.process_time() - before, processor_seconds(served) - servers_before
                check(streams, NEW_TOKENS)
                long_prompt = [dice.choice(usable) for _ in range(LONG_PROMPT)]
                firsts = [ask(served, [long_prompt], 4)[0].moments[0] for _ in range(2)]
                if not repeat:
                    continue  # all that is compiled or filled once has been
                bare.append(alone)
                through.append((max(stream.moments[-1] for stream in streams), servers))
                clients.append(spent)
                gaps += [
                    late - early
                    for stream in streams
                    for early, late in zip(stream.moments[:-1], stream.moments[1:], strict=True)
                ]
                cold.append(firsts[0])
                warm.append(firsts[1])
    gaps.sort()
    return {
        "shape": shape,
        "precision": precision,
        "tokens": STREAMS * NEW_TOKENS,
        "bare_seconds": [wall for wall, _ in bare],
        "bare_processor_seconds": [processor for _, processor in bare],
        "server_seconds": [wall for wall, _ in through],
        "server_processor_seconds": [processor for _, processor in through],
        "clients_processor_seconds": clients,
        "overhead": ratio(through, bare, 0) - 1,
        "processor_overhead": ratio(through, bare, 1) - 1,
        "between_tokens_median": statistics.median(gaps),
        "between_tokens_p95": gaps[int(0.95 * len(gaps))],
        "first_token_cold": cold,
        "first_token_warm": warm,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, nargs="+", default=["12m", "124m"])
    parser.add_argument("--precision", choices=["stored", "bfloat16"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "server.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    records = []
    for shape in arguments.shapes:
        record = measure(shape, arguments.precision, arguments.repeats)
        records.append(record)
        bare, through = statistics.median(record["bare_seconds"]), statistics.median(record["server_seconds"])
        tokens = record["tokens"]
        print(f"{shape} {arguments.precision}, {STREAMS} streams: bare {tokens / bare:,.0f} tokens/s, server", end=" ")
        print(
            f"{tokens / through:,.0f} tokens/s: {record['overhead']:+.1%} time, wanted {WANTED['overhead']:.0%}",
            end=" ",
        )
        print(f"at 124m; {record['processor_overhead']:+.1%} processor time", end=" ")
        print(f"(clients {statistics.median(record['clients_processor_seconds']):.2f} s of their own)")
        middle, late = record["between_tokens_median"], record["between_tokens_p95"]
        print(
            f"  between tokens: median {1e3 * middle:.1f} ms, p95 {1e3 * late:.1f} ms: {late / middle:.2f} x", end=" "
        )
        print(f"(wanted {WANTED['between_tokens']:g})")
        cold, warm = statistics.median(record["first_token_cold"]), statistics.median(record["first_token_warm"])
        print(f"  first token of {LONG_PROMPT}: cold {1e3 * cold:.0f} ms, warm {1e3 * warm:.0f} ms:", end=" ")
        print(f"{warm / cold:.2f} (wanted {WANTED['first_token']:g})")
    result = {"machine": describe_machine(), "settings": SETTINGS, "wanted": WANTED, "shapes": records}
    arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
