"""Metadata operations that wait to be sent, collapsed where one makes another needless. Pure."""

from itertools import islice
from typing import Any

Operation = dict[str, Any]
"""As the gateway reads it: ``{"type": "set", "key": …, "value": …}``."""


class MetadataBuffer:
    """
    Operations on one object, in order, with the effect of all that were added.

    Operations on one literal key are independent of those on another. A key that starts with
    ``$.`` is a path and may touch any: around those nothing is moved.
    """

    def __init__(self) -> None:
        self._operations: dict[int, Operation] = {}
        self._numbers_of_key: dict[str, list[int]] = {}
        self._next_number = 0
        self._newest_path = -1

    def __len__(self) -> int:
        return len(self._operations)

    def add(self, operation: Operation) -> None:
        """Put an operation behind the others."""
        kind = operation["type"]
        if kind == "update":
            self._clear()
            self._put(operation)
        elif operation["key"].startswith("$."):
            self._newest_path = self._put(operation)
        elif kind != "increment" or not self._added_to_another(operation):
            if kind in ("set", "delete"):
                self._forget(operation["key"])
            number = self._put(operation)
            self._numbers_of_key.setdefault(operation["key"], []).append(number)

    def take(self, limit: int) -> list[Operation]:
        """Take out the oldest operations, at most so many."""
        numbers = list(islice(self._operations, limit))
        taken = [self._operations.pop(number) for number in numbers]
        if not self._operations:
            self._clear()
        elif numbers:
            for key, of_key in list(self._numbers_of_key.items()):
                self._numbers_of_key[key] = [each for each in of_key if each > numbers[-1]]
        return taken

    def _put(self, operation: Operation) -> int:
        number = self._next_number
        self._next_number += 1
        self._operations[number] = operation
        return number

    def _forget(self, key: str) -> None:
        """What was done to a key does not matter once it is set; paths into it do no harm."""
        for number in self._numbers_of_key.pop(key, ()):
            del self._operations[number]

    def _added_to_another(self, increment: Operation) -> bool:
        numbers = self._numbers_of_key.get(increment["key"])
        if not numbers or numbers[-1] < self._newest_path:
            return False
        last = self._operations[numbers[-1]]
        if last["type"] != "increment":
            return False
        last["value"] += increment["value"]
        return True

    def _clear(self) -> None:
        self._operations.clear()
        self._numbers_of_key.clear()
