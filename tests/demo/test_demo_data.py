"""The demonstration's data are what was published, and the traffic made of them is theirs."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rollout.demo.build import pack_arrivals, pack_questions
from rollout.demo.data import Answer, Question, arrivals, correct_rate, questions
from rollout.demo.traffic import SPEED, USERS, quietest_rate, requests, user_name
from rollout.stats.samples import srm_log_e
from rollout_client.evaluation.bucketing import BUCKETS, bucket

PUBLISHED = {"6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742}


def test_the_answers_are_correct_as_often_as_published() -> None:
    assert len(questions()) == 1_319
    for model, correct in PUBLISHED.items():
        assert sum(question.answers[model].correct for question in questions()) == correct
        assert correct_rate(model) == correct / 1_319


def test_every_question_has_a_text_and_an_answer_of_every_model() -> None:
    assert len({question.text for question in questions()}) == 1_319
    for question in questions():
        assert question.text
        assert set(question.answers) == set(PUBLISHED)
        assert all(answer.text for answer in question.answers.values())


def test_the_trace_is_whole_and_in_order() -> None:
    trace = arrivals()
    assert trace.at.size == trace.context_tokens.size == trace.generated_tokens.size == 19_366
    assert trace.at[0] == 0.0
    assert trace.at[-1] == pytest.approx(3501.722, abs=1e-3)
    assert (np.diff(trace.at) >= 0.0).all()
    assert (trace.context_tokens > 0).all()


def test_the_data_stay_small() -> None:
    folder = Path(sys.modules["rollout.demo.data"].__file__ or "").with_name("data")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_processes_share_the_traffic_without_changing_it() -> None:
    alone = list(islice(requests(), 20_001))  # more than one lap
    shared = [list(islice(requests(part, 3), 6_667)) for part in range(3)]
    assert sorted(request for share in shared for request in share) == sorted(alone)


def test_requests_come_when_the_trace_says_only_faster() -> None:
    due = [request.due for request in islice(requests(), 19_366)]
    assert np.allclose(np.array(due) * SPEED, arrivals().at)


def test_after_the_recorded_hour_it_begins_again() -> None:
    last, first = islice(requests(), 19_365, 19_367)
    assert 0.0 < first.due - last.due < 0.1
    assert first.context_tokens == int(arrivals().context_tokens[0])


def test_the_same_seed_gives_the_same_traffic_and_another_one_does_not() -> None:
    assert list(islice(requests(), 500)) == list(islice(requests(), 500))
    assert list(islice(requests(), 500)) != list(islice(requests(seed=1), 500))


def test_users_come_again() -> None:
    visits = Counter(request.user for request in islice(requests(), 19_366))
    assert 5_000 < len(visits) <= USERS
    assert sum(count > 1 for count in visits.values()) > len(visits) / 2


def test_the_quietest_minute_is_one_of_the_trace() -> None:
    per_minute = [int(((arrivals().at >= m * 60) & (arrivals().at < (m + 1) * 60)).sum()) for m in range(58)]
    assert quietest_rate() == min(per_minute)  # 60 times as fast: a minute is a second


@pytest.mark.parametrize("flag", ["tutor-better", "tutor-worse", "tutor-same"])
@pytest.mark.parametrize("percentage", [10, 25, 50])
def test_the_users_fall_into_the_arms_as_the_percentages_say(flag: str, percentage: int) -> None:
    """Users and salts are fixed, so whether the sample ratio is unremarkable is no matter of luck."""
    limit = percentage * BUCKETS // 100
    candidate = sum(bucket(flag, user_name(number)) < limit for number in range(USERS))
    assert srm_log_e(candidate, USERS - candidate, percentage / 100) < 1.0


def test_the_build_makes_the_same_form_from_published_files(tmp_path: Path) -> None:
    published = {"question": "1 + 1?", "ground_truth": "2"}
    published |= {model: {"is_correct": model == "6b_finetuning", "solution": "A: 2"} for model in PUBLISHED}
    answers, trace = tmp_path / "answers.jsonl", tmp_path / "trace.csv"
    answers.write_text(json.dumps(published) + "\n")
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    rows += ["2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109"]
    trace.write_text("\n".join(rows) + "\n")
    assert pack_questions(answers) == pack_questions(answers)
    folder = tmp_path / "data"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "rollout.demo.build", answers, trace, folder], check=True)
    assert (folder / "questions.jsonl.gz").read_bytes() == pack_questions(answers)
    assert (folder / "arrivals.csv.gz").read_bytes() == pack_arrivals(trace)
    assert Answer("A: 2", True) in questions_of(folder)


def questions_of(folder: Path) -> list[Answer]:
    line = gzip.decompress((folder / "questions.jsonl.gz").read_bytes())
    return list(msgspec.json.decode(line, type=Question).answers.values())
