"""What form answers must have, compiled: few at a time, off the engine's thread, under limits; the newest are kept."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sanbai.foundation.errors import DataError
from sanbai.generation.grammar import Grammar
from sanbai.serving.engine import ServedModel
from sanbai.serving.problems import Problem, overloaded

#: What people write takes a second at most.
COMPILE_SECONDS = 10.0
MOST_KEPT = 64
MOST_PENDING = 32
NUM_THREADS = 2


class Grammars:
    """Compiles grammars and keeps the newest, by model and rules."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(NUM_THREADS, "sanbai-grammar")
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._num_pending = 0
        self._lock = threading.Lock()

    async def of_form(self, served: ServedModel, rule: Mapping[str, Any] | str, *, param: str) -> Grammar:
        """Return the grammar of a JSON schema or a regular expression.

        Args:
            served: the model that is to keep to it.
            rule: the schema, or the expression.
            param: the request's field, for refusals.

        Raises:
            Problem: 400, it is malformed, not supported or too complex; 429, too many are being compiled.
        """

        def compiled() -> Grammar:
            if isinstance(rule, str):
                return Grammar.of_regex(rule, served.grammar_tokenizer)
            return Grammar.of_schema(rule, served.grammar_tokenizer)

        return await self._get(f"{served.artifact} form {json.dumps(rule)}", compiled, param=param)

    async def of_calls(self, served: ServedModel, schemas: Mapping[str, Mapping[str, Any]]) -> Grammar:
        """Return the grammar of one call of a function, by the schemas of their arguments.

        Raises:
            Problem: as `of_form`.
        """

        def compiled() -> Grammar:
            return Grammar.of_calls(schemas, served.grammar_tokenizer)

        return await self._get(f"{served.artifact} calls {json.dumps(schemas)}", compiled, param="tools")

    def close(self) -> None:
        """Compile no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _get(self, key: str, compiled: Callable[[], Grammar], *, param: str) -> Grammar:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if self._num_pending >= MOST_PENDING:
                raise overloaded("too many schemas and expressions are being read; try again", retry_after_seconds=2)
            self._num_pending += 1
        future = self._pool.submit(compiled)
        future.add_done_callback(self._note_done)
        try:
            grammar = await asyncio.wait_for(asyncio.wrap_future(future), COMPILE_SECONDS)
        except TimeoutError:
            message = f"{param}: could not be read within {COMPILE_SECONDS:g} seconds; make it simpler"
            raise Problem(400, message, "invalid_value", param=param) from None
        except DataError as error:
            raise Problem(400, f"{param}: {error}", "invalid_value", param=param) from None
        with self._lock:
            self._kept[key] = grammar
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return grammar

    def _note_done(self, _: object) -> None:
        with self._lock:
            self._num_pending -= 1
