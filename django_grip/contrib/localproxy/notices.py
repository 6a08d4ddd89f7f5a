"""What the local proxy was asked for and cannot do, said once each."""

from __future__ import annotations

import logging
from collections.abc import Iterable

logger = logging.getLogger(__name__)


class Notices:
    """Logs each missing feature the first time it is asked for."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def ignored(self, features: Iterable[str]) -> None:
        """Warn of those features that were not warned of before."""
        for feature in features:
            if feature not in self._told:
                self._told.add(feature)
                logger.warning(
                    "The local GRIP proxy does not know %s and goes on without; "
                    "Pushpin knows. (Said once.)",
                    feature,
                )
