"""Mutation score of the evaluator: `python -m benches._sdk.mutation [--sample N] [--only MODULE] [--processes N]`.

Each mutant is one small change of `rollout_client/evaluation`, made in a forked process and never on disk; the tests
of the evaluator must fail on it. What the evaluator writes as text (`straight`) is changed as the code it is. Survivors
are listed; what is left out is in IRRELEVANT, with the reason. 1 if less than 90 % are caught.
"""

import argparse
import ast
import gc
import math
import os
import random
import signal
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import httpx  # noqa: F401 (what the tests import, imported once)
import hypothesis
import hypothesis.strategies
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clients" / "python" / "src" / "rollout_client" / "evaluation"
SOURCES = {path.stem: path.read_text("utf-8") for path in sorted(PACKAGE.glob("*.py"))}
TESTS = [
    *(
        f"clients/python/tests/test_evaluator_{name}.py"
        for name in ("answers", "errors", "pins", "slices", "wire", "values", "edges")
    ),
    *(f"clients/python/tests/test_{name}.py" for name in ("evaluate", "targeting", "vectors", "lines")),
    "tests/core/domain/test_compile.py",
]
LEAST = 0.9
LONGEST = 40
"""Seconds of a processor; a mutant that runs on is caught."""

IRRELEVANT = {
    "frozen": "forbids what the evaluator never does",
    "gc": "what the garbage collector looks at",
    "maxsize": "how much is remembered of what can be read again",
    "_REMEMBERED": "the same",
    "_MOST": "where a table goes on in another function",
    "_EQUALITY": "which operators are asked without a call where that is possible",
    **dict.fromkeys(("__all__", "__slots__", "Reason", "ErrorCode", "_Answer", "_Document"), "read by people and mypy"),
}
"""Named arguments and names of constants that no answer shows, and why."""

SWAPPED: dict[type[ast.AST], type[Any]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.Mod: ast.Add, ast.Pow: ast.Mult,
}  # fmt: skip
NAMES = {"below": "above", "baseline": "candidate", "all": "any", "min": "max"}
NAMES |= {other: name for name, other in NAMES.items()}


class Mutant(NamedTuple):
    """One change: the module, the number of the change in it, its line, what it is, and where."""

    module: str
    number: int
    line: int
    what: str
    where: str

    @property
    def path(self) -> str:
        """Where the module is imported from."""
        return str(PACKAGE / f"{self.module}.py")

    def code(self) -> CodeType:
        """Return the module with the change."""
        tree = Mutator(self.number).visit(ast.parse(SOURCES[self.module]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(ast.fix_missing_locations(tree), self.path, "exec")


class Mutator(ast.NodeTransformer):
    """Makes change `number` in a tree, or with None lists them all."""

    def __init__(self, number: int | None = None, early: frozenset[str] = frozenset()) -> None:
        self.found: list[tuple[int, str, str]] = []
        self._early = early
        self._number = number
        self._seen = 0
        self._where = "module"

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Go through defaults, which belong to what is around, and the body; annotations and decorators stay."""
        node.args.defaults = [self.visit(each) for each in node.args.defaults]
        node.args.kw_defaults = [each and self.visit(each) for each in node.args.kw_defaults]
        return self._within(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Go through the body."""
        return self._within(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Go through the arguments and the body."""
        node.keywords = [self.visit(each) for each in node.keywords]
        node.body = [self.visit(each) for each in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Leave the annotation."""
        node.value = node.value and self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Leave what is irrelevant."""
        names = {each.id for each in node.targets if isinstance(each, ast.Name)}
        return node if names & IRRELEVANT.keys() else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Leave docstrings and what stands for nothing."""
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Change a text that is code as the code it is, any other constant as a value."""
        if not (isinstance(node.value, str) and node.value.startswith("\n        ")):
            return self.generic_visit(node)
        inner = Mutator(None if self._number is None else self._number - self._seen)
        changed = inner.visit(ast.parse(f"def text():{_filled(node.value)}"))
        self.found += [(node.lineno + line - 1, what, self._where) for line, what, _ in inner.found]
        self._seen += inner._seen
        if self._number is None or not self._seen - inner._seen <= self._number < self._seen:
            return node
        body = ast.unparse(ast.fix_missing_locations(changed)).split("\n", 1)[1]
        return ast.copy_location(ast.Constant(_emptied("\n" + textwrap.indent(body, "    "))), node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Go on, then change this node if it is its turn."""
        if isinstance(node, ast.keyword) and node.arg in IRRELEVANT:
            return node
        super().generic_visit(node)
        for other in _others(node):
            self._seen += 1
            if self._number is None:
                line = getattr(node, "iter", node).lineno
                self.found.append((line, f"{ast.unparse(node)} -> {ast.unparse(other)}", self._where))
            elif self._number == self._seen - 1:
                return ast.copy_location(other, node)
        return node

    def _within(self, node: Any) -> ast.AST:
        before, body = self._where, node.body
        if before == "module":
            self._where = "early function" if getattr(node, "name", "") in self._early else "function"
        node.body = [self.visit(each) for each in body] if isinstance(body, list) else self.visit(body)
        self._where = before
        return node


def _others(node: Any) -> Iterator[Any]:
    """What a node may be changed to, one change each."""
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                yield _like(node, ops=[*ops[:at], SWAPPED[type(op)](), *ops[at + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in SWAPPED:
            yield _like(node, op=SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=value) if value is not ...:
            yield _like(node, value=_other(value))
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _like(node, id=NAMES[name])
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield _like(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[_, *_]):
            yield _like(node, ifs=[])
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield _like(node, value=ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()


def _like(node: Any, **changes: Any) -> Any:
    other = copy(node)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, bytes):
        return value + b"x"
    return value + "x" if isinstance(value, str) else "x"


def _filled(text: str) -> str:
    """A text with names for its gaps: Python can read it."""
    return text.replace("{0}", "__number").replace("{whose}", ", __whose")


def _emptied(text: str) -> str:
    return text.replace("__number", "{0}").replace(", __whose", "{whose}")


def _early(tree: ast.Module) -> frozenset[str]:
    """The functions that run while their module is imported, and those that cannot be changed after it."""
    plain = [each for each in tree.body if not isinstance(each, ast.FunctionDef | ast.ClassDef)]
    calls = [each.func for body in plain for each in ast.walk(body) if isinstance(each, ast.Call)]
    return frozenset({"__init__", *(each.id for each in calls if isinstance(each, ast.Name))})


def mutants(only: str | None) -> Iterator[Mutant]:
    """All of them, but those of lines that are said to run in no test."""
    for module in SOURCES if only is None else [only]:
        tree, lines = ast.parse(SOURCES[module]), SOURCES[module].splitlines()
        lister = Mutator(None, _early(tree))
        lister.visit(tree)
        for number, (line, what, where) in enumerate(lister.found):
            if "pragma: no cover" not in lines[line - 1]:  # lines that need gigabytes, each with its reason
                yield Mutant(module, number, line, what, where)


def forks(chosen: Iterable[Mutant | None], processes: int) -> Iterator[tuple[Mutant | None, bool | None]]:
    """Fork for each mutant: yields it and None there, for the tests to be run, and here it and whether they passed."""
    waiting, running = list(chosen)[::-1], dict[int, Mutant | None]()
    while waiting or running:
        if not waiting or len(running) == processes:
            ended, status = os.wait()
            code = os.waitstatus_to_exitcode(status)
            if code == pytest.ExitCode.INTERNAL_ERROR or (code and running[ended] is None):
                raise RuntimeError(f"the tests cannot say anything of {running[ended] or 'the evaluator as it is'}")
            yield running.pop(ended), code == 0
            continue
        mutant = waiting.pop()
        forked = os.fork()
        if not forked:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            signal.setitimer(signal.ITIMER_PROF, LONGEST)
            yield mutant, None
            return
        running[forked] = mutant


class Tests:
    """Runs the tests; with mutants, collects once and runs in a fork for each, on the functions as changed."""

    def __init__(self, chosen: Iterable[Mutant | None] = (), processes: int = 1) -> None:
        self.outcomes: list[tuple[Mutant | None, bool]] = []
        self._chosen = list(chosen)
        self._processes = processes
        self._forked = not self._chosen

    def run(self) -> None:
        """Run them; a fork ends here."""
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = ["-x", "-q", "-s", "--assert=plain", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"]
        code = pytest.main([*options, *TESTS], [self])
        if self._forked:
            os._exit(code)
        if code == pytest.ExitCode.INTERNAL_ERROR:
            raise SystemExit(2)

    def pytest_configure(self) -> None:
        """Let the tests be the same for each mutant, and fail at once."""
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutation", derandomize=True, database=None, deadline=None, phases=phases)
        hypothesis.settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Begin with what is quick, and with one case of each test."""
        cases = Counter[str]()
        for item in items:
            cases[item.originalname] += 1
            item.case = hypothesis.is_hypothesis_test(item.obj), cases[item.originalname]
        items.sort(key=lambda item: item.case)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """Fork, or leave the loop over the tests to pytest."""
        functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
        for mutant, passed in forks(self._chosen, self._processes):
            if passed is None:
                self._forked = True
                if mutant is not None:
                    swap(mutant, functions)
                return None
            tell(mutant, passed)
            self.outcomes.append((mutant, passed))
        return None if self._forked else True


def swap(mutant: Mutant, functions: list[FunctionType]) -> None:
    """Give the functions of a module the code that they have after the change."""
    made = {(code.co_qualname, code.co_firstlineno): code for code in codes(mutant.code())}
    for function in functions:
        code = function.__code__
        if code.co_filename == mutant.path:
            function.__code__ = made[code.co_qualname, code.co_firstlineno]


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code and all within it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from codes(each)


def imported(mutant: Mutant) -> None:
    """Let the module of a mutant be imported with the change, whatever it holds."""
    plain = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return mutant.code() if loader.path == mutant.path else plain(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]  # in this fork, which ends with its tests


def tell(mutant: Mutant | None, passed: bool) -> None:
    """Print a survivor."""
    if mutant is not None and passed:
        print(f"survived: {mutant.module}.py:{mutant.line}  {' '.join(mutant.what.split())[:160]}", flush=True)


def judge(chosen: list[Mutant], processes: int) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant and whether the tests passed on it; those of functions last, when all is imported."""
    outcomes: list[tuple[Mutant | None, bool]] = []
    for mutant, passed in forks([None, *(each for each in chosen if each.where != "function")], processes):
        if passed is None:
            if mutant is not None:
                imported(mutant)
            Tests().run()
        tell(mutant, bool(passed))
        outcomes.append((mutant, bool(passed)))
    tests = Tests([None, *(each for each in chosen if each.where == "function")], processes)
    tests.run()
    yield from ((mutant, passed) for mutant, passed in [*outcomes, *tests.outcomes] if mutant is not None)


def main() -> int:
    """Run them and print the score."""
    parser = argparse.ArgumentParser(description=__doc__, prog="mutation")
    parser.add_argument("--sample", type=int, help="so many, chosen under a fixed seed")
    parser.add_argument("--only", help="one module, such as rules")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    wanted = parser.parse_args()
    os.chdir(ROOT)
    every = list(mutants(wanted.only))
    chosen = every if wanted.sample is None else random.Random(1).sample(every, min(wanted.sample, len(every)))
    caught, all_of = Counter[str](), Counter(each.module for each in chosen)
    for mutant, passed in judge(chosen, wanted.processes):
        caught[mutant.module] += not passed
    for module, number in sorted(all_of.items()):
        print(f"{module:12}{caught[module]:5} of {number:4}  {caught[module] / number:6.1%}")
    score = caught.total() / len(chosen)
    error = 1.96 * math.sqrt(score * (1 - score) / len(chosen) * (1 - len(chosen) / len(every)))
    print(f"{caught.total()} of {len(chosen)} mutants were caught: {score:.1%} (of all {len(every)}: ±{error:.1%})")
    return 0 if score >= LEAST else 1


if __name__ == "__main__":
    raise SystemExit(main())
