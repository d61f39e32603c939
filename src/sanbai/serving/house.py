"""What every handler may use: the parts of one running server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sanbai.feedback.store import Store
from sanbai.foundation.workspace import Workspace
from sanbai.serving.access import Throttle
from sanbai.serving.chat import Chat
from sanbai.serving.engine import Engine
from sanbai.serving.gateway import Gateway
from sanbai.serving.grammars import Grammars
from sanbai.serving.idempotency import KeptAnswers
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.rewards import Rewards
from sanbai.serving.welcome import Welcome

#: (round, reason for overruling the gate or "", who): put a round's policy into service.
Promote = Callable[[int, str, str], None]
#: (who): bring the model back that served before.
Rollback = Callable[[str], None]


@dataclass(frozen=True)
class House:
    """One server's parts."""

    workspace: Workspace
    store: Store
    settings: ServeRecipe
    welcome: Welcome
    engine: Engine
    """Never started where there is a gateway."""
    gateway: Gateway | None
    chat: Chat
    kept: KeptAnswers
    rewards: Rewards
    promote: Promote
    rollback: Rollback
    throttle: Throttle = field(default_factory=Throttle)
    grammars: Grammars = field(default_factory=Grammars)

    @property
    def source(self) -> Engine | Gateway:
        """Where answers come from."""
        return self.gateway or self.engine
