"""What a person sees: lines that fit, a panel redrawn in place, and a rollback that stands out."""

import io
from typing import Any

import pytest

from rollout.demo import narrate
from rollout.demo.course import Course, Track
from rollout.demo.documents import ramps
from rollout.demo.panel import bar, panel, rollout
from rollout.demo.reports import Exchange, Settled
from rollout.demo.screen import STYLES, Screen, Span, coloured, fit, plain, wrap

READING = {
    "metric": "answer_correct",
    "verdict": "undecided",
    "candidate": {"n": 386, "x": 83},
    "baseline": {"n": 3583, "x": 1194},
    "log_e_harm": 1.9,
    "harm_threshold": 4.9,
    "log_e_gate": 1.1,
    "gate_threshold": 3.0,
    "units_needed": 212.4,
}


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
    }
    return Track(ramp, "ro_1", known | status)


def texts(lines: list[Any]) -> list[str]:
    return [plain(line) for line in lines]


def test_a_running_rollout_shows_percentage_stage_users_evidence_and_what_it_waits_for() -> None:
    shown = "\n".join(texts(rollout(track(), 79)))
    for said in ("worse", "6b_finetuning", "stage first", "10 %", "293 users", "21.5 % of 386", "33.3 % of 3,583"):
        assert said in shown
    assert "1.1/3.0" in shown
    assert "1.9/4.9" in shown
    assert "212 more candidate requests" in shown


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


def test_the_moment_of_rollback_stays_on_the_screen_in_alarm_colours() -> None:
    change = {
        "step": "roll_back",
        "from_percentage": 10.0,
        "to_percentage": 0.0,
        "reason": "answer_correct breach: candidate 83/386 (21.50 %); evidence 4.7 >= 4.6",
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
    course = Course(None, None, 2)  # type: ignore[arg-type]  # nothing is asked here
    course.tracks = [track(name) for name in ("better", "worse", "same")]
    course.traffic.requests = 3_000
    course.traffic.exchange = Exchange("tutor-better", "user-0001", "175b_verification", "How\nmany?", "42", True)
    shown = texts(panel(course, 10.0, 79))
    assert [line.split()[0] for line in shown if "→" in line] == ["better", "worse", "same"]
    assert any("3,000 requests, 300 a second" in line for line in shown)
    assert " user-0001: How many?" in shown
    assert " 175b_verification: 42 ✔" in shown


def test_it_is_done_only_when_every_client_followed() -> None:
    course = Course(None, None, 2)  # type: ignore[arg-type]  # nothing is asked here
    course.tracks = [track(status="rolled_back")]
    settled = Settled(flag="tutor-worse", variant="175b_finetuning", revision=9, at=1.0)
    course.tracks[0].settled[0] = settled
    assert not course.done
    course.tracks[0].settled[1] = settled
    assert course.done
