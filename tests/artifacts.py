"""What flows of this process have shown on Prefect's pages: the server is that of all workers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

_made: list[UUID] = []


def watch(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """From here on `newest` knows what the flows of a module show."""
    from prefect.artifacts import create_markdown_artifact as create

    def kept(**given: Any) -> UUID:
        made: UUID = create(**given)  # type: ignore[assignment]
        _made.append(made)
        return made

    _made.clear()

    monkeypatch.setattr(f"{module}.create_markdown_artifact", kept)


def newest(key: str) -> Any:
    """The newest artifact of a key, as the server has it; None without any."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterId, ArtifactFilterKey

    if not _made:
        return None
    wanted = ArtifactFilter(id=ArtifactFilterId(any_=_made), key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    return max(found, key=lambda one: _made.index(one.id), default=None)
