"""nvidia-smi's CSV in every spelling: refused when it could mean two things, told when something is left out."""

from __future__ import annotations

import pytest

from workers.errors import InputError
from workers.telemetry.smi_columns import comma_is_decimal, milliwatts, plain, share, time_ns
from workers.telemetry.smi_log import SmiBoard, SmiLog, parse_smi_log
from workers.units import NS_PER_S

T0 = 1_678_285_804 * NS_PER_S
"""2023-03-08 14:30:04 UTC."""
NVIDIA_SMI = """\
timestamp, name, utilization.gpu [%], utilization.memory [%], memory.total [MiB], power.draw [W], power.max_limit [W]
2023/03/08 14:30:04.000, NVIDIA GeForce RTX 3090, 0 %, 0 %, 24268 MiB, 8.27 W, 350.00 W
2023/03/08 14:30:05.002, NVIDIA GeForce RTX 3090, 85 %, 43 %, 24268 MiB, 41.21 W, 350.00 W
"""
RENAMED = """\
timestamp,gpu_name,gpu_usage,gpu_memory_usage,gpu_total_memory,gpu_power_draw,gpu_max_power
2023-03-08 14:30:04.000,NVIDIA GeForce RTX 3090,0 %,0 %,24268 MiB,8.27 W,350.00 W
2023-03-08 14:30:05.002,NVIDIA GeForce RTX 3090,85 %,43 %,24268 MiB,41.21 W,350.00 W
"""
NO_UNITS = """\
power.draw [W],utilization.gpu [%],timestamp,name
8.27,0,2023/03/08 14:30:04.000,NVIDIA GeForce RTX 3090
41.21,85,2023/03/08 14:30:05.002,NVIDIA GeForce RTX 3090
"""
SPREADSHEET = """\
Timestamp;GPU Name;Power Draw (W);Utilization (%)
2023-03-08T14:30:04Z;NVIDIA GeForce RTX 3090;8,27;0
2023-03-08T14:30:05.002Z;NVIDIA GeForce RTX 3090;41,21;85
"""
TABS = """\
time\tpower_draw_mw\tgpu_util\tname
1678285804\t8270\t0\tNVIDIA GeForce RTX 3090
1678285805.002\t41210\t85\tNVIDIA GeForce RTX 3090
"""
QUOTED = """\
"timestamp","name","power.draw [W]","utilization.gpu [%]"
"2023-03-08 15:30:04+01:00","NVIDIA GeForce RTX 3090","8,27 W","0 %"
"2023-03-08 15:30:05.002+01:00","NVIDIA GeForce RTX 3090","41,21 W","85 %"
"""
BARE_COMMAS = """\
timestamp, name, power.draw [W], utilization.gpu [%]
2023/03/08 14:30:04.000, NVIDIA GeForce RTX 3090, 8,27 W, 0 %
2023/03/08 14:30:05.002, NVIDIA GeForce RTX 3090, 41,21 W, 85 %
"""


def parse(text: str) -> SmiLog:
    return parse_smi_log(text.encode(), source="power.csv")


def only_board(text: str) -> SmiBoard:
    (board,) = parse(text).boards
    return board


def powers(board: SmiBoard) -> list[tuple[float, int]]:
    """Seconds since ``T0`` and mW."""
    return [((sample.time_ns - T0) / NS_PER_S, sample.power_mw) for sample in board.samples]


def simple(*lines: str, header: str = "timestamp, power.draw [W]") -> str:
    """A log of one board, each line ``seconds, rest``."""
    stamped = [f"2023/03/08 14:30:{4 + float(line.split(',', 1)[0]):06.3f},{line.split(',', 1)[1]}" for line in lines]
    return "\n".join([header, *stamped, ""])


def test_an_empty_file_is_refused_with_the_command_that_records() -> None:
    for text in ("", "\n\n"):
        with pytest.raises(InputError, match=r"power\.csv is empty\. Record with nvidia-smi --query-gpu="):
            parse(text)


def test_a_log_without_power_is_refused_and_its_columns_are_named() -> None:
    with pytest.raises(InputError) as refused:
        parse("timestamp, name, power.max_limit [W]\n2023/03/08 14:30:04.049, T4, 70.00 W\n")
    assert str(refused.value) == (
        "power.csv has no power column; its columns are 'timestamp', 'name', 'power.max_limit [W]'. "
        "Record with nvidia-smi --query-gpu=timestamp,uuid,power.draw --format=csv -l 1."
    )


def test_a_log_without_times_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no time column; its columns are 'index', 'power\.draw \[W\]'"):
        parse("index, power.draw [W]\n0, 8.27 W\n")


def test_a_log_without_a_header_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"has no time or power column; its columns are '2023/03/08 14:30:04\.049', '8"
    ):
        parse("2023/03/08 14:30:04.049, 8.27 W\n2023/03/08 14:30:05.049, 8.27 W\n")


def test_a_log_whose_every_line_is_unusable_says_what_is_wrong_with_the_first() -> None:
    with pytest.raises(InputError) as refused:
        parse("timestamp, power.draw [W]\n08.03.2023 14:30, 8.27 W\n2023/03/08 14:30:04, [N/A]\n")
    assert str(refused.value).startswith(
        "power.csv has no line with both a time and a power "
        "(line 2: '08.03.2023 14:30' is not a time; line 3: '[N/A]' is not a power)."
    )


def test_a_comma_that_could_part_thousands_or_decimals_is_refused() -> None:
    with pytest.raises(InputError, match="could be a thousand or one and a bit"):
        parse("timestamp;power.draw [W]\n2023/03/08 14:30:04;1,234\n2023/03/08 14:30:05;8\n")


def test_one_line_that_is_clear_settles_the_commas_of_all() -> None:
    text = "timestamp;power.draw [W]\n2023/03/08 14:30:04;119,125\n2023/03/08 14:30:05;8,2\n"
    assert powers(only_board(text)) == [(0.0, 119_125), (1.0, 8_200)]
    text = "timestamp;power.draw [mW]\n2023/03/08 14:30:04;119,125\n2023/03/08 14:30:05;8,200.5\n"
    assert powers(only_board(text)) == [(0.0, 119_125), (1.0, 8_200)]


@pytest.mark.parametrize(
    "text",
    [NVIDIA_SMI, RENAMED, NO_UNITS, SPREADSHEET, TABS, QUOTED, BARE_COMMAS, NVIDIA_SMI.replace("\n", "\r\n")],
    ids=["nvidia-smi", "renamed", "nounits", "spreadsheet", "tabs", "quoted", "bare commas", "windows"],
)
def test_every_spelling_says_the_same(text: str) -> None:
    log = parse(text)
    (board,) = log.boards
    assert powers(board) == [(0.0, 8_270), (1.002, 41_210)]
    assert [sample.utilization for sample in board.samples] == [0.0, 0.85]
    assert (board.name, board.uuid, board.index) == ("NVIDIA GeForce RTX 3090", None, None)
    assert log.skipped == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_of_windows_are_understood(encoding: str) -> None:
    (board,) = parse_smi_log(NVIDIA_SMI.encode(encoding), source="power.csv").boards
    assert powers(board) == [(0.0, 8_270), (1.002, 41_210)]


def test_lines_above_the_header_do_not_matter() -> None:
    assert powers(only_board("started by cron\n\n" + NVIDIA_SMI)) == powers(only_board(NVIDIA_SMI))


def test_the_enforced_limit_is_the_limit_and_the_highest_possible_is_not() -> None:
    header = "timestamp, power.draw [W], power.max_limit [W], power.limit [W], enforced.power.limit [W]"
    text = f"{header}\n2023/03/08 14:30:04, 8.27 W, 350.00 W, 300.00 W, 250.00 W\n"
    assert [sample.limit_mw for sample in only_board(text).samples] == [250_000]
    assert [sample.limit_mw for sample in only_board(NVIDIA_SMI).samples] == [None, None]


@pytest.mark.parametrize("said", ["[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "[GPU is lost]", "ERR!", ""])
def test_a_missing_power_is_no_sample_and_no_zero(said: str) -> None:
    log = parse(simple("0, 10.00 W", f"1, {said}", "2, 30.00 W"))
    (board,) = log.boards
    assert powers(board) == [(0.0, 10_000), (2.0, 30_000)]
    assert log.skipped == ((3, f"{said!r} is not a power"),)


def test_other_missing_figures_leave_the_power_alone() -> None:
    header = "timestamp, power.draw [W], utilization.gpu [%], power.limit [W]"
    text = simple("0, 10.00 W, [N/A], [Not Supported]", "1, 11.00 W, 250 %, 4294967.29 W", header=header)
    (first, second) = only_board(text).samples
    assert (first.power_mw, first.utilization, first.limit_mw) == (10_000, None, None)
    assert (second.power_mw, second.utilization, second.limit_mw) == (11_000, None, None)


@pytest.mark.parametrize("said", ["-3.00 W", "4294967.29 W", "8.27 J", "8.2.7 W", "eight W"])
def test_what_no_board_draws_is_not_a_power(said: str) -> None:
    assert powers(only_board(simple("0, 10.00 W", f"1, {said}", "2, 30.00 W"))) == [(0.0, 10_000), (2.0, 30_000)]


@pytest.mark.parametrize(
    "torn",
    ["2023/03/08 14:3", "2023/03/08 14:30:05.002, NVIDIA GeF", "2023/03/08 14:30:05.002, NVIDIA GeForce RTX 3090, 8"],
)
def test_a_torn_last_line_is_left_out_and_told(torn: str) -> None:
    log = parse(f"timestamp, name, power.draw [W]\n2023/03/08 14:30:04, NVIDIA GeForce RTX 3090, 41.21 W\n{torn}")
    (board,) = log.boards
    assert powers(board) == [(0.0, 41_210)]
    assert [number for number, _ in log.skipped] == [3]


@pytest.mark.parametrize(
    ("whole", "cut"), [("41.21 W", "38.50 W"), ("41.21", "38.50")], ids=["up to its unit", "with all its decimals"]
)
def test_a_last_line_that_lacks_only_its_end_of_line_counts(whole: str, cut: str) -> None:
    log = parse(f"timestamp, power.draw [W]\n2023/03/08 14:30:04, {whole}\n2023/03/08 14:30:05, {cut}")
    assert powers(log.boards[0]) == [(0.0, 41_210), (1.0, 38_500)]


def test_a_whole_number_that_may_lack_a_digit_does_not_count() -> None:
    log = parse("timestamp, power.draw [W]\n2023/03/08 14:30:04, 331\n2023/03/08 14:30:05, 33")
    assert powers(log.boards[0]) == [(0.0, 331_000)]
    assert log.skipped == ((3, "it may be torn: the file ends in the middle of it"),)


def test_a_header_repeated_by_a_restarted_logger_is_no_line_and_may_differ() -> None:
    again = "power.draw [W], name, timestamp\n9.00 W, NVIDIA GeForce RTX 3090, 2023/03/08 14:30:06\n"
    first_header = NVIDIA_SMI.partition("\n")[0] + "\n"
    log = parse(NVIDIA_SMI + first_header + again)
    assert powers(log.boards[0]) == [(0.0, 8_270), (1.002, 41_210), (2.0, 9_000)]
    assert log.skipped == ()


def test_lines_out_of_order_are_put_in_order_and_a_repeated_time_counts_once() -> None:
    board = only_board(simple("2, 30.00 W", "0, 10.00 W", "1, 20.00 W", "1, 20.00 W", "3, 40.00 W"))
    assert powers(board) == [(0.0, 10_000), (1.0, 20_000), (2.0, 30_000), (3.0, 40_000)]


def test_of_two_lines_at_one_time_the_later_holds() -> None:
    board = only_board(simple("0, 10.00 W", "1, 20.00 W", "1, 25.00 W", "2, 30.00 W", "3, 30.00 W", "4, 30.00 W"))
    assert powers(board)[1] == (1.0, 25_000)


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [("index", "0", "1"), ("uuid", "GPU-aa", "GPU-bb"), ("pci.bus_id", "00000000:17:00.0", "00000000:65:00.0")],
)
def test_interleaved_boards_are_told_apart(column: str, first: str, second: str) -> None:
    rows = [f"{s}, {key}, A100, {w}.00 W" for s in range(3) for key, w in ((second, 200 + s), (first, 100 + s))]
    log = parse(simple(*rows, header=f"timestamp, {column}, name, power.draw [W]"))
    assert {board.key: powers(board) for board in log.boards} == {
        first: [(0.0, 100_000), (1.0, 101_000), (2.0, 102_000)],
        second: [(0.0, 200_000), (1.0, 201_000), (2.0, 202_000)],
    }
    assert [board.name for board in log.boards] == ["A100", "A100"]


def test_boards_come_in_the_order_of_their_index() -> None:
    log = parse(simple("0, 3, 1.00 W", "0, 1, 2.00 W", "1, 3, 1.00 W", header="timestamp, index, power.draw [W]"))
    assert [board.index for board in log.boards] == [1, 3]


def test_boards_of_different_names_need_no_other_mark() -> None:
    rows = [f"{s}, {name}, {w}.00 W" for s in range(4) for name, w in (("A100", 100), ("T4", 30))]
    log = parse(simple(*rows, header="timestamp, name, power.draw [W]"))
    assert [(board.key, len(board.samples)) for board in log.boards] == [("A100", 4), ("T4", 4)]


@pytest.mark.parametrize("apart_s", [0.0, 0.002], ids=["at the same time", "milliseconds apart"])
def test_boards_that_nothing_tells_apart_are_refused(apart_s: float) -> None:
    rows = [f"{s + k * apart_s:.3f}, A100, {100 * (k + 1)}.00 W" for s in range(5) for k in range(2)]
    with pytest.raises(InputError, match=r"seems to mix several boards .* Record the uuid too"):
        parse(simple(*rows, header="timestamp, name, power.draw [W]"))


def test_an_uneven_log_of_one_board_is_not_taken_for_several() -> None:
    assert len(only_board(simple("0, 1 W", "1, 2 W", "1.01, 2 W", "2, 3 W", "40, 4 W", "41, 5 W")).samples) == 6


def test_a_line_that_does_not_say_its_board_is_left_out() -> None:
    log = parse(simple("0, GPU-a, 1.00 W", "1, [N/A], 2.00 W", header="timestamp, uuid, power.draw [W]"))
    assert [board.key for board in log.boards] == ["GPU-a"]
    assert log.skipped == ((3, "it does not say which board it is of"),)


def test_a_board_that_never_tells_its_power_is_there_without_samples() -> None:
    header = "timestamp, index, power.draw [W]"
    log = parse(simple("0, 0, 1.00 W", "0, 1, [N/A]", "1, 0, 1.00 W", "1, 1, [N/A]", header=header))
    assert [len(board.samples) for board in log.boards] == [2, 0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023/03/08 14:30:04.049", 0.049),
        ("2023-03-08T14:30:04Z", 0.0),
        ("2023-03-08 15:30:04,5+0100", 0.5),
        ("2023-03-08 09:00:04.000-05:30", 0.0),
        ("1678285804", 0.0),
        ("1678285804.25", 0.25),
        ("1678285804250", 0.25),
        ("1678285804250000", 0.25),
        ("1678285804250000000", 0.25),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert time_ns(text) == T0 + round(seconds * NS_PER_S)


@pytest.mark.parametrize("text", ["", "14:30:04", "08.03.2023 14:30:04", "2023/13/08 14:30:04", "yesterday", "17"])
def test_what_is_not_a_time_is_none(text: str) -> None:
    assert time_ns(text) is None


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("power.draw [W]", ("power_draw", "w")),
        (" gpu_power_draw_w ", ("power_draw", "w")),
        ("Power Draw (mW)", ("power_draw", "mw")),
        ("utilization.gpu [%]", ("utilization_gpu", "%")),
        ("GPU", ("gpu", "")),
    ],
)
def test_a_column_has_a_plain_name_and_a_unit(column: str, expected: tuple[str, str]) -> None:
    assert plain(column) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["8.27 W", "350.00 W"], False),
        (["8,27 W"], True),
        (["0,125 kW"], True),
        (["1.234,5"], True),
        (["1,234.5"], False),
        (["1,234,567"], False),
        (["1,234", "7"], None),
        (["1,234", "8,2"], True),
    ],
)
def test_commas_are_understood_when_they_can_be(cells: list[str], expected: bool | None) -> None:
    assert comma_is_decimal(cells) is expected


def test_a_unit_in_the_cell_goes_before_the_one_in_the_column() -> None:
    assert milliwatts("8.27", unit="", decimal_comma=False) == 8_270
    assert milliwatts("8270", unit="mw", decimal_comma=False) == 8_270
    assert milliwatts("0.00827 kW", unit="mw", decimal_comma=False) == 8_270
    assert milliwatts("1.19e2 W", unit="", decimal_comma=False) == 119_000
    assert milliwatts("8.27 V", unit="w", decimal_comma=False) is None


def test_a_share_is_in_percent() -> None:
    assert share("22,5 %", decimal_comma=True) == 0.225
    assert share("85", decimal_comma=False) == 0.85
    assert share("85 MiB", decimal_comma=False) is None
