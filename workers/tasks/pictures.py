"""Pictures of data sets of the hub: each is decoded when it is asked for, since all of them fit no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from workers.errors import JobError
from workers.tasks.data import AnySplit, TaskData
from workers.tasks.hub import HubData, table_of

UNREADABLE = (OSError, ValueError, SyntaxError)
"""What Pillow raises for a picture that is torn or none, each seen in version 13."""


class Pictures(Sequence[Any]):
    """The pictures of a column, as PIL images in the mode they were stored in.

    Args:
        table: a data set of the library datasets, or what is indexed alike: a row number gives its columns by name.
        column: the pictures'.
        name: of the data set, for errors.
        places: rows of the table, in order.
    """

    def __init__(self, table: Any, column: str, name: str, places: Sequence[int]) -> None:  # noqa: ANN401 - datasets is untyped
        self._table, self._column, self._name, self._places = table, column, name, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, chosen: int) -> Any: ...  # noqa: ANN401 - a PIL image, whose door is elsewhere

    @overload
    def __getitem__(self, chosen: slice) -> Pictures: ...

    def __getitem__(self, chosen: int | slice) -> Any:
        """One picture, decoded now; or some of the pictures, none decoded.

        Raises:
            JobError: it is torn, or there is none.
        """
        if isinstance(chosen, slice):
            return Pictures(self._table, self._column, self._name, self._places[chosen])
        place = self._places[chosen]
        try:
            picture = self._table[place][self._column]
        except UNREADABLE as error:
            raise self._unreadable(place, f"{type(error).__name__}: {error}") from error
        if picture is None:
            raise self._unreadable(place, "there is none")
        return picture

    def _unreadable(self, place: int, fact: str) -> JobError:
        return JobError(
            f"the picture in row {place} of data set {self._name} cannot be read: {fact.rstrip('.')}. "
            "Fetch the data set again, or choose another."
        )


def picture_data(data: HubData, split_of: Callable[..., AnySplit], *, longest_answer: int) -> TaskData:
    """A task's data where all of it comes from the hub, as ``hub.hub_data``; the first column is the pictures.

    ``split_of`` makes a split of the pictures, read when asked for, and of the values of each further column.

    Raises:
        JobError: as ``hub.table_of``; a column that is no picture is found when the first is asked for.
    """
    image, *others = data.columns
    splits = []
    for name in ("train", "test"):
        table = table_of(data, name)
        pictures = Pictures(table.select_columns([image]), image, data.path, range(len(table)))
        splits.append(split_of(pictures, *(list(table[column]) for column in others)))
    train, test = splits
    return TaskData(source=None, train=train, test=test, longest_answer=longest_answer)
