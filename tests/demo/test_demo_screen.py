"""What a person sees: lines that fit, a panel redrawn in place, and a rollback that stands out."""

import io
import math
from typing import Any

import pytest

from rollout.demo import narrate
from rollout.demo.course import Course, Track
from rollout.demo.documents import ramps
from rollout.demo.panel import bar, harm_of_all, panel, rollout
from rollout.demo.reports import Exchange, Settled
from rollout.demo.screen import STYLES, Screen, Span, coloured, fit, plain, wrap

READING: dict[str, Any] = {
    "metric": "answer_correct",
    "verdict": "undecided",
    "candidate": {"n": 386, "x": 83},
    "baseline": {"n": 3583, "x": 1194},
    "log_e_harm": -0.4,
    "harm_threshold": 4.9,
    "log_e_gate": 1.1,
    "gate_threshold": 3.0,
    "units_needed": 212.4,
}


WORSE = READING | {"log_e_harm": 1.9}
ERRORS = READING | {"metric": "error_rate", "log_e_harm": -2.0}


def track(name: str = "worse", **status: Any) -> Track:
    ramp = next(ramp for ramp in ramps() if ramp.name == name)
    known = {
        "status": "running",
        "stage": "first",
        "percentage": 10.0,
        "users_exposed": 293,
        "readings": [READING],
        "held": [{"code": "undecided", "metric": "answer_correct", "message": "undecided: ..."}],
        "breach": None,
        "judged_at": "2026-11-23T07:00:10+00:00",
    }
    return Track(ramp, "ro_1", known | status, [{"change": {"at": "2026-11-23T07:00:00+00:00"}}])


def texts(lines: list[Any]) -> list[str]:
    return [plain(line) for line in lines]


def test_a_running_rollout_shows_percentage_stage_users_evidence_and_what_it_waits_for() -> None:
    shown = "\n".join(texts(rollout(track(), 79)))
    for said in ("worse", "6b_finetuning", "stage first", "10 %", "293 users", "21.5 % of 386", "33.3 % of 3,583"):
        assert said in shown
    assert "1.1/3.0" in shown
    assert "0.0/4.6" in shown
    assert "212 more candidate requests" in shown


def test_past_luck_is_no_proof_of_safety_while_the_evidence_is_of_harm() -> None:
    shown = "\n".join(texts(rollout(track(readings=[WORSE]), 79)))
    assert "0.0/3.0" in shown
    assert "1.9/4.6" in shown
    assert "if they are equal" not in shown
    assert "at present it looks worse than accepted" in shown


def test_a_gate_that_is_open_keeps_its_proof() -> None:
    passed = WORSE | {"verdict": "pass", "log_e_gate": 3.2}
    assert "3.2/3.0" in plain(rollout(track(readings=[passed]), 79)[3])


def test_the_harm_shown_is_the_number_that_decides_with_its_line() -> None:
    """In the mean, three quarters of the weight are of the correct answers."""
    shown = track(readings=[WORSE, ERRORS])
    assert harm_of_all(shown) == pytest.approx(math.log(0.75 * math.exp(1.9) + 0.25 * math.exp(-2.0)))
    assert plain(rollout(shown, 79)[3]).endswith(" 1.6/4.6")


def test_the_legend_says_once_that_logs_are_natural_and_what_they_do() -> None:
    said = "\n".join(texts(narrate.legend()))
    assert "(natural log; 4.6 = 1 in 100)" in said
    assert "3.0 opens the gate" in said
    assert "4.6 takes it back" in said


@pytest.mark.parametrize(("second", "begun"), [(9.7, True), (9.0, True), (7.9, False)])
def test_a_stage_has_just_begun_for_two_seconds(second: float, begun: bool) -> None:
    nothing = READING | {"verdict": "no_traffic", "candidate": {"n": 0, "x": 0}, "baseline": {"n": 0, "x": 0}}
    held = [{"code": "no_traffic", "metric": "answer_correct", "message": "no request reached this stage lately"}]
    fresh = track(stage="quarter", readings=[nothing], held=held)
    fresh.transitions = [{"change": {"at": f"2026-11-23T07:00:{second:04.1f}+00:00"}}]
    shown = "\n".join(texts(rollout(fresh, 79)))
    assert ("stage quarter has just begun" in shown) is begun
    assert ("no request" in shown) is not begun
    assert ("nothing yet" in shown) is not begun


def test_numbers_of_the_stage_before_are_not_shown_for_the_new_one() -> None:
    fresh = track(stage="quarter")
    fresh.transitions = [{"change": {"at": fresh.status["judged_at"]}}]
    assert "386" not in "".join(texts(rollout(fresh, 79)))


@pytest.mark.parametrize("width", [60, 79, 119])
def test_a_rollout_fits_its_width(width: int) -> None:
    assert all(len(plain(fit(line, width))) <= width for line in rollout(track(), width))
    assert len("".join(span.text for span in rollout(track(), width)[0])) == width


def test_the_bar_is_as_full_as_the_percentage_and_marks_the_stages() -> None:
    full, empty = bar(track(percentage=25.0), 100)
    assert full.text == "█" * 25
    assert len(full.text + empty.text) == 100
    assert empty.text.count("┊") == 2  # at 25 and 50; the mark at 10 is passed


def test_an_end_is_not_overlooked() -> None:
    done = rollout(track("better", status="completed", percentage=100.0, held=[]), 79)
    back = rollout(track(status="rolled_back", percentage=0.0, held=[], breach={"metric": "answer_correct"}), 79)
    assert any(span.style == "done" and "COMPLETED" in span.text for span in done[0])
    assert any(span.style == "alarm" and "ROLLED BACK" in span.text for span in back[0])
    assert "back on 175b_finetuning: answer_correct breach" in plain(back[4])


BREACH = (
    "answer_correct breach: candidate 1083/5386 (20.11 %), baseline 1194/3583 (33.32 %) in this stage; "
    "evidence of harm beyond the margin 4.72 >= 4.61"
)


def test_a_rollback_is_told_in_three_lines_of_a_hundred_columns() -> None:
    stream = io.StringIO()
    change = {"step": "roll_back", "from_percentage": 10.0, "to_percentage": 0.0, "reason": BREACH}
    Screen(stream, live=False, colour=False).say(*narrate.change(track(), {"change": change}, 18.4))
    first, second, third = stream.getvalue().strip().splitlines()
    assert "ROLLED BACK from 10 %" in first
    assert "candidate 20.11 % of 5386, baseline 33.32 % of 3583 in this stage" in second
    assert "4.72 >= 4.61" in third
    assert max(map(len, (first, second, third))) < 100


def test_the_moment_of_rollback_stays_on_the_screen_in_alarm_colours() -> None:
    change = {
        "step": "roll_back",
        "from_percentage": 10.0,
        "to_percentage": 0.0,
        "reason": BREACH,
    }
    stream = io.StringIO()
    screen = Screen(stream, live=True, colour=True)
    screen.show([(Span("panel"),)])
    screen.say(*narrate.change(track(), {"change": change}, 18.4))
    written = stream.getvalue()
    assert STYLES["alarm"] in written
    assert "ROLLED BACK from 10 %" in written
    assert written.index("ROLLED BACK") < written.rindex("panel")


def test_the_panel_is_redrawn_over_itself() -> None:
    stream = io.StringIO()
    screen = Screen(stream, live=True, colour=False)
    screen.show([(Span("one"),), (Span("two"),)])
    screen.show([(Span("three"),)])
    assert "\x1b[2F\x1b[J" in stream.getvalue()
    screen.close()
    assert stream.getvalue().endswith("\x1b[?25h")


def test_without_a_terminal_there_are_plain_lines_and_no_panel() -> None:
    stream = io.StringIO()
    screen = Screen(stream, live=False, colour=False)
    screen.show([(Span("panel"),)])
    screen.say((Span("said", "alarm"),))
    screen.close()
    assert stream.getvalue() == "said\n"


def test_long_lines_are_wrapped_at_blanks_and_keep_their_styles() -> None:
    line = (Span("  a word and "), Span("another word that goes on", "red"))
    pieces = wrap(line, 20)
    assert texts(pieces) == ["  a word and another", "      word that goes", "      on"]
    assert coloured(pieces[2]) == f"      {STYLES['red']}on\x1b[0m"
    assert wrap((Span("x" * 50),), 20) == [(Span("x" * 50),)]


def test_the_whole_panel_shows_all_three_and_one_question_as_a_user_saw_it() -> None:
    course = Course(None, None, 2)  # nothing is asked here
    course.tracks = [track(name) for name in ("better", "worse", "same")]
    course.traffic.requests = 3_000
    course.traffic.exchange = Exchange("tutor-better", "user-0001", "175b_verification", "How\nmany?", "42", True)
    shown = texts(panel(course, 10.0, 79, 40))
    assert [line.split()[0] for line in shown if "→" in line] == ["better", "worse", "same"]
    assert any("3,000 requests, 300 a second" in line for line in shown)
    assert " user-0001: How many?" in shown
    assert " 175b_verification: 42 ✔" in shown


@pytest.mark.parametrize("rows", [3, 7, 11, 14, 15, 16, 17, 18, 21, 22, 40])
def test_in_a_small_terminal_a_hidden_rollout_is_named(rows: int) -> None:
    course = Course(None, None, 2)  # nothing is asked here
    course.tracks = [track(name) for name in ("better", "worse", "same")]
    course.tracks[0].status["status"] = "completed"
    shown = texts(panel(course, 10.0, 79, rows))
    assert len(shown) <= rows
    whole = [line.split()[0] for line in shown if "→" in line]
    hidden = [line for line in shown if line.startswith(" hidden: ")]
    named = hidden[0].removeprefix(" hidden: ").partition(";")[0].split(", ") if hidden else []
    assert sorted(whole + named) == ["better", "same", "worse"]
    assert bool(hidden) is (rows < 16)
    if 0 < len(whole) < 3:
        assert whole[0] == "worse"  # what still runs is shown first


def test_a_panel_that_is_too_long_says_that_it_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "4")
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    Screen(stream, live=True, colour=False).show([(Span(f"line {number}"),) for number in range(6)])
    assert stream.getvalue().endswith("line 0\nline 1\n … and 4 more lines in a taller terminal\n")


def test_it_is_done_only_when_every_client_followed() -> None:
    course = Course(None, None, 2)  # nothing is asked here
    course.tracks = [track(status="rolled_back")]
    settled = Settled(flag="tutor-worse", variant="175b_finetuning", revision=9, at=1.0)
    course.tracks[0].settled[0] = settled
    assert not course.done
    course.tracks[0].settled[1] = settled
    assert course.done
