"""Mutation score of the evaluator: `python -m benches._sdk.mutation [--sample N] [--only FILE] [--processes N]`.

Each mutant is one small change of one function of `rollout_client/evaluation`, in a copy of the package; the
tests of the evaluator must fail on it. Survivors are listed. 1 if less than 90 % of the mutants are caught.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clients" / "python" / "src" / "rollout_client"
TESTS = [
    f"clients/python/tests/test_{name}.py"
    for name in ("evaluate", "targeting", "vectors", "editions", "evaluator_edges")
]
TESTS.append("tests/core/domain/test_compile.py")
LEAST = 0.9
LONGEST = 120.0

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: the file, the number of the change in it, its line, and what it is."""

    path: Path
    number: int
    line: int
    what: str


class Mutator(ast.NodeTransformer):
    """Makes change `number` in a tree, or with None lists them all; only within functions."""

    def __init__(self, number: int | None = None) -> None:
        self.found: list[tuple[int, str]] = []
        self._number = number
        self._inside = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Go through a body, past its docstring; annotations and decorators say nothing that runs."""
        self._inside += 1
        first = 1 if ast.get_docstring(node) is not None else 0
        node.body = node.body[:first] + [self.visit(each) for each in node.body[first:]]
        self._inside -= 1
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Leave the annotation."""
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Leave what only an error message says."""
        named = node.func.id if isinstance(node.func, ast.Name) else ""
        return node if named in ("RulesetError", "AssertionError", "ValueError") else self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Change this node if it is its turn, then go on."""
        super().generic_visit(node)
        if not self._inside:
            return node
        if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED and self._turn(node, "comparison"):
            node.ops[0] = SWAPPED[type(node.ops[0])]()
        elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPPED and self._turn(node, "operator"):
            node.op = SWAPPED[type(node.op)]()
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and self._turn(node, "not"):
            return node.operand
        elif isinstance(node, ast.Constant) and self._turn(node, f"constant {node.value!r}"):
            node.value = _other(node.value)
        elif isinstance(node, ast.Return) and node.value is not None and self._turn(node, "return"):
            node.value = ast.Constant(None if not isinstance(node.value, ast.Constant) else 7)
        return node

    def _turn(self, node: ast.expr | ast.stmt, what: str) -> bool:
        self.found.append((node.lineno, what))
        return self._number == len(self.found) - 1


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return value + "x" if isinstance(value, str) else "x"


def mutants(only: str | None) -> Iterator[Mutant]:
    """All of them."""
    for path in sorted((PACKAGE / "evaluation").glob("*.py")):
        if only in (None, path.stem):
            lister = Mutator()
            lister.visit(ast.parse(path.read_text()))
            yield from (Mutant(path, number, *found) for number, found in enumerate(lister.found))


def survives(mutant: Mutant | None) -> bool:
    """Whether the tests pass on it; without one, on the copy as it is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PACKAGE.name)
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            tree = Mutator(mutant.number).visit(ast.parse(mutant.path.read_text()))
            copy.joinpath(mutant.path.relative_to(PACKAGE)).write_text(ast.unparse(ast.fix_missing_locations(tree)))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
        env = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=LONGEST).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def main() -> int:
    """Run them and print the score."""
    parser = argparse.ArgumentParser(description=__doc__, prog="mutation")
    parser.add_argument("--sample", type=int, help="so many, chosen under a fixed seed")
    parser.add_argument("--only", help="one module, such as rules")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    if not survives(None):
        print("The tests fail without a mutation.")
        return 2
    chosen = list(mutants(wanted.only))
    if wanted.sample is not None:
        chosen = random.Random(1).sample(chosen, min(wanted.sample, len(chosen)))
    caught = 0
    with ThreadPoolExecutor(wanted.processes) as pool:
        for mutant, alive in zip(chosen, pool.map(survives, chosen), strict=True):
            caught += not alive
            if alive:
                print(f"survived: {mutant.path.name}:{mutant.line} {mutant.what}", flush=True)
    score = caught / len(chosen)
    print(f"{caught} of {len(chosen)} mutants were caught: {score:.1%}")
    return 0 if score >= LEAST else 1


if __name__ == "__main__":
    raise SystemExit(main())
