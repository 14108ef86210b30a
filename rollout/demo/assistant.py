"""The application: an assistant that answers mathematical questions with the model that a flag chooses.

It is written as any application would be: it asks the client which variant a user gets, calls the model, and records
whether the answer was right. The models' answers are recorded ones: the same model answers a question the same way.
"""

from typing import NamedTuple

from rollout.demo.data import Answer, questions
from rollout.demo.traffic import Request
from rollout_client import Client, Context, Evaluation

CODE_DEFAULT = {"model": "175b_finetuning"}
"""What the assistant does before it has heard of any flag."""


class Reply(NamedTuple):
    """What a user got, from which model, and how that was decided."""

    answer: Answer
    model: str
    evaluation: Evaluation


def answer_with(model: str, question: int) -> Answer:
    """What a model answers to a question, given by its number.

    Raises:
        LookupError: there is no such model or question.
    """
    return questions()[question].answers[model]


def reply_to(request: Request, client: Client, flag: str) -> Reply:
    """Answer one request with the variant of its user; `error_rate` is recorded by the attempt itself."""
    context = Context(request.user, context_tokens=request.context_tokens)
    with client.attempt(flag, context) as attempt:
        model = (attempt.value or CODE_DEFAULT)["model"]
        answer = answer_with(model, request.question)
        attempt.record(answer_correct=answer.correct)
    return Reply(answer, model, attempt.evaluation)
