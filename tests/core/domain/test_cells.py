"""Sums by cluster cell: tables that add up, stay whole, and are stored as they are."""

import msgspec
import pytest

from rollout.domain.cells import NO_CELLS, Cells

COUNTED = {3: [10, 2], 255: [4, 1]}


def test_a_table_has_a_row_for_each_number_and_a_column_for_each_cell() -> None:
    cells = Cells.of(COUNTED)
    assert cells.table.shape == (2, 256)
    assert [cells.row(index)[[3, 4, 255]].tolist() for index in (0, 1, -1)] == [[10, 0, 4], [2, 0, 1], [2, 0, 1]]
    assert (cells.total(0), cells.total(1)) == (14.0, 3.0)


def test_tables_add_up_in_any_order_and_neither_is_changed() -> None:
    mine, more = Cells.of(COUNTED), Cells.of({3: [1, 1], 7: [5, 0]})
    before = (mine.table.copy(), more.table.copy())
    assert mine + more == more + mine == Cells.of({3: [11, 3], 7: [5, 0], 255: [4, 1]})
    assert (mine.table == before[0]).all()
    assert (more.table == before[1]).all()


def test_a_shorter_table_has_none_of_the_other_scores() -> None:
    joined = Cells.of({1: [4, 2]}) + Cells.of({1: [6, 3, 9], 2: [1, 1, 1]})
    assert joined == Cells.of({1: [10, 5, 9], 2: [1, 1, 1]})
    assert Cells.of({1: [6, 3, 9]}) + Cells.of({1: [4, 2]}) == Cells.of({1: [10, 5, 9]})


def test_nothing_counted_is_no_table_and_reads_as_zeros() -> None:
    assert Cells.of({}) is Cells.counts({}) is Cells.of({3: [0, 0]}) is NO_CELLS
    assert not NO_CELLS
    assert NO_CELLS + NO_CELLS == NO_CELLS
    assert NO_CELLS + Cells.of(COUNTED) == Cells.of(COUNTED) + NO_CELLS == Cells.of(COUNTED)
    assert NO_CELLS.scores(2).tolist() == [[0.0, 0.0]] * 256
    assert (NO_CELLS.row(-1).tolist(), NO_CELLS.total(0)) == ([0] * 256, 0.0)


def test_cells_that_are_not_equally_long_are_no_table() -> None:
    with pytest.raises(ValueError, match="are no table"):
        Cells.of({1: [4, 2], 2: [6, 3, 9]})


def test_only_cells_in_use_are_stored_and_none_of_them_is_named_when_all_are() -> None:
    assert msgspec.json.encode(Cells.of(COUNTED)) == b'{"at":[3,255],"rows":[[10,4],[2,1]]}'
    whole = Cells.counts(dict.fromkeys(range(256), 1))
    assert msgspec.json.encode(whole) == b'{"rows":[[' + b"1," * 255 + b"1]]}"
    assert msgspec.json.encode(Cells.of({255: [4, 1], 8: [0, 0], 3: [10, 2]})) == msgspec.json.encode(Cells.of(COUNTED))


@pytest.mark.parametrize("cells", [Cells.of(COUNTED), Cells.counts({0: 7}), Cells.of({9: [1.5, 2]}, whole=False)])
def test_what_is_stored_is_what_is_read_and_counts_stay_whole(cells: Cells) -> None:
    stored = msgspec.json.encode(cells)
    again = msgspec.json.decode(stored, type=Cells)
    assert again == cells
    assert again.table.dtype == cells.table.dtype
    assert msgspec.json.encode(again + NO_CELLS) == stored
    assert msgspec.json.encode(again + again) == msgspec.json.encode(cells + cells)
