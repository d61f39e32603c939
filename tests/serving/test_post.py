from __future__ import annotations

import asyncio
import threading

from sanbai.serving.post import Post


def test_a_loop_is_woken_once_for_all_that_waits_and_calls_keep_their_order():
    post, heard, wakes = Post(), [], []

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda call, *what: (wakes.append(1), wake(call, *what))[1]
        all_in = asyncio.Event()

        def work() -> None:
            for number in range(100):
                post.put(loop, lambda number=number: heard.append(number))
            post.put(loop, all_in.set)
            post.deliver()

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.wait_for(all_in.wait(), timeout=30)
        assert len(wakes) == 1
        loop.call_soon_threadsafe = wake
        await asyncio.to_thread(thread.join)

    asyncio.run(listen())
    assert heard == list(range(100))


def test_a_loop_that_has_ended_is_no_error_and_others_hear():
    post, heard = Post(), []
    ended = asyncio.new_event_loop()
    ended.close()

    async def listen() -> None:
        post.put(ended, lambda: heard.append("nobody"))
        post.put(asyncio.get_running_loop(), lambda: heard.append("here"))
        post.deliver()
        await asyncio.sleep(0.01)

    asyncio.run(listen())
    assert heard == ["here"]
