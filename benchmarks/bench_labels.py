"""How fast labels are taken: simulated labelers' answers, in batches, through the server's front door.

    python -m benchmarks.bench_labels

Prints tasks a second; each batch of 100 answers with six ratings is one request and one commit forced to disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import httpx2

from sanbai.feedback.accounts import add_account, make_api_key
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.foundation.workspace import Workspace
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Welcome

NUM_TASKS, BATCH = 2000, 100


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        workspace.create()
        store = Store(workspace.database_url)
        store.create()
        labeler = add_account(store, "labeler", "labeler", source="simulated")
        tasks = [LabelTask(({"role": "user", "content": str(number)},), tuple("abcdef")) for number in range(NUM_TASKS)]
        add_tasks(store, tasks, assignees={task.id: [labeler] for task in tasks})
        headers = {"Authorization": f"Bearer {make_api_key(store, labeler)}"}
        app = create_app(workspace, store, settings=ServeRecipe(), welcome=Welcome(""))
        with loopback_server(app) as url, httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
            began = time.monotonic()
            while given := client.get(f"/api/label/tasks?limit={BATCH}").json()["tasks"]:
                ratings = [{"likert": 4, "flags": ["opinion"], "note": ""}] * 6
                answers = [
                    {"task_id": task["id"], "buckets": [[1], [0, 2], [3], [5, 4]], "ratings": ratings} for task in given
                ]
                client.post("/api/label/answers", json={"answers": answers}).raise_for_status()
            seconds = time.monotonic() - began
        store.close()
    print(f"{NUM_TASKS} tasks in {seconds:.2f} s: {NUM_TASKS / seconds:.0f} a second")


if __name__ == "__main__":
    main()
