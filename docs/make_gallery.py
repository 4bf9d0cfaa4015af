"""The page of cells, docs/cells.md, and its pictures, docs/pictures/cells/*.svg, from the code.

    python docs/make_gallery.py            writes them
    python docs/make_gallery.py --check    exits 1 with one line where what is there differs

Nothing on the page is written by hand but WHEN below.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from runpy import run_path

from headgate import Cell, Program, Recurrent, cells
from headgate.program.program import ELEMENTWISE, Node

ROOT = Path(__file__).parents[1]
PAGE = Path("docs/cells.md")
PICTURES = Path("docs/pictures/cells")
SIZE, NARROW = 64, 32
"""The sizes of the table: I and H, and every named width."""

WHEN = {
    "rnn": "As a baseline, and where what matters lies few steps back: it is the cheapest cell, "
    "and its gradient vanishes over longer distances.",
    "rnn_relu": "Where a plain network is to reach further back, with R started from the identity "
    "and gradients clipped; its values have no bound and explode without that care.",
    "lstm": "The first choice where nothing speaks for another: c carries gradients over many "
    "steps, and most other systems hold the same equations. Its four blocks make it the dearest "
    "of the usual cells.",
    "lstm_original": "To follow the paper, or where c is a sum that never has to be forgotten: on "
    "a long series it grows until tanh saturates.",
    "lstm_peephole": "Where exact intervals or counts matter: the gates see c even while the "
    "output gate hides it. Elsewhere it is seldom better than lstm.",
    "lstm_coupled": "To save a quarter of an LSTM's parameters and products; Greff et al. (2017) "
    "found no significant loss on their three tasks.",
    "lstm_projected": "Where c needs many units and h does not, as in large speech and language "
    "models; it is smaller than lstm as long as P is below four fifths of H.",
    "lstm_layer_norm": "Where training is unstable because the scale of W x or R h drifts. Each "
    "step waits for whole rows three times, so it is slower than lstm.",
    "gru": "Three blocks in place of the LSTM's four, often as accurate: the usual choice where a "
    "smaller cell is wanted. Of the three forms it is the one of torch and cuDNN.",
    "gru_single_bias": "For weights from MATLAB, where it is the default; a new model differs from "
    "gru by H biases alone.",
    "gru_reset_before": "For weights from Keras with reset_after=False and from ONNX's default, or "
    "to follow the paper. One product waits for the reset gate, so a step takes two in turn.",
    "NIG": "To measure what the input gate is worth. In the paper its loss hurt speech and "
    "handwriting recognition, and music not significantly.",
    "NFG": "To measure what the forget gate is worth. In the paper its loss hurt all three tasks.",
    "NOG": "To measure what the output gate is worth. In the paper its loss hurt speech and "
    "handwriting recognition, and music not significantly.",
    "NIAF": "To measure what the squashing of the candidate is worth. In the paper its loss hurt "
    "speech and handwriting recognition, and music not significantly.",
    "NOAF": "To measure what the squashing of c is worth. In the paper its loss hurt all three "
    "tasks.",
    "CIFG": "In the paper as good as the vanilla LSTM on all three tasks, with fewer parameters; "
    "lstm_coupled is the same without peepholes, and smaller still.",
    "NP": "In the paper as good as the vanilla LSTM on all three tasks, without its peepholes: the "
    "equations of lstm, here under the paper's name.",
    "FGR": "To follow the paper: its nine more matrices did not help on two tasks and hurt on the "
    "third.",
    "indrnn": "For long sequences and deep stacks: the recurrent weight u is a vector, so a step "
    "is cheap and each unit has a memory of its own. Units meet only in the next layer, so it "
    "wants two layers or more.",
    "janet": "Half of an LSTM's parameters and one state. The paper finds it no worse than an LSTM "
    "on tasks of long memory, with the forget gate's bias started from the expected time spans.",
    "mgu": "Two thirds of a GRU's parameters, where a model has to be small; the candidate's "
    "product waits for the gate, so a step takes two products in turn.",
    "slstm": "Where new input has to overrule what is stored: the exponential gate can outweigh "
    "all of the past. It carries four states, of which n and m keep c in range.",
}
"""When to use each cell."""

HEAD = f"""# The cells

Every built-in cell, and those of [`examples/cells/`](../examples/cells): the source, the equations,
one step as a picture, the code, its size and cost. All of it is taken from the code by
`python docs/make_gallery.py`; a cell of your own has it too: `print(cell.program)`, `cell.latex()`,
`cell.diagram()`.

H is the hidden size, I the input size, P the projection size; sizes and costs are of one layer and
direction, costs of one step of one row. A multiply–add is one multiplication and one addition of a
matrix product; the additions between products count as elementwise operations. Biases are counted
once: torch's LSTM and RNN hold two for each block, whose sum is b.

In the pictures blue boxes are sums of products and biases, orange ones functions unit by unit,
green ones normalisations of a whole row, round ones arithmetic; a dot is [h, x], the values side by
side. A thick line is a state that only arithmetic changes: an LSTM's conveyor belt, c.

Numbers are at I = H = {SIZE} and P = {NARROW}.
"""


class GalleryError(Exception):
    """What keeps the page from being made, in one line."""


@dataclass(frozen=True)
class Entry:
    """A cell with what its file says of it."""

    cell: Cell
    file: Path
    code: tuple[tuple[str, str], ...]
    source: str

    @property
    def name(self) -> str:
        return self.cell.name

    @property
    def title(self) -> str:
        return self.cell.doc.split("\n\n")[0].replace("\n", " ")


def entries() -> list[Entry]:
    """Every cell in the order of the page."""
    found = []
    for cell in cells.BUILT_IN.values():
        module = sys.modules[cell.__module__]
        found.append(entry(cell, Path(inspect.getfile(module))))
    for file in sorted((ROOT / "examples" / "cells").glob("*.py")):
        defined = run_path(str(file)).values()
        found += [entry(value, file) for value in defined if isinstance(value, Cell)]
    for each in found:
        if each.name not in WHEN:
            raise GalleryError(
                f"docs/make_gallery.py: WHEN has no text for the cell '{each.name}' of "
                f"{each.file}; say there in a sentence or two when to use it"
            )
    return found


def entry(cell: Cell, file: Path) -> Entry:
    """The cell's definition in its file, and the source that it, its maker or the file names."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    defined = {name: node for node in tree.body for name in names_of(node)}
    if cell.name not in defined:
        raise GalleryError(f"docs/make_gallery.py: {file} has no definition named '{cell.name}'")
    node = defined[cell.name]
    chosen, docs = [(cell.name, node)], [cell.doc]
    if isinstance(node, ast.Assign):
        used = [n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)]
        chosen = [(name, defined[name]) for name in used if name in defined] + chosen
    makers = [maker for _, maker in chosen if isinstance(maker, ast.FunctionDef)]
    docs += [ast.get_docstring(maker) or "" for maker in (*makers, tree)]
    sources = [
        s for doc in docs for s in re.findall(r"^Source: (.*?)(?:\n\n|\Z)", doc, re.M | re.S)
    ]
    if not sources:
        raise GalleryError(f"docs/make_gallery.py: {file} names no source for '{cell.name}'")
    code = tuple((name, lines_of(text, node)) for name, node in chosen)
    return Entry(cell, file.relative_to(ROOT), code, sources[0].replace("\n", " "))


def names_of(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def lines_of(text: str, node: ast.stmt) -> str:
    """A statement as it stands in its file, decorators included."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    first = min([node.lineno, *(d.lineno for d in decorators)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


class Amount(Counter[str]):
    """A sum of products of sizes: 4HI + 4H² is {"HI": 4, "HH": 4}."""

    @classmethod
    def of(cls, *widths: str) -> Amount:
        letters = {"input": "I", "hidden": "H", "1": ""}
        return cls({"".join(sorted(letters.get(w, w[0].upper()) for w in widths)): 1})

    def __str__(self) -> str:
        terms = []
        for letters in sorted(self, key=lambda k: (-len(k), k.count("H"), k)):
            written = "".join(
                letter + ("²" if letters.count(letter) == 2 else "")
                for letter in dict.fromkeys(letters)
            )
            terms.append(f"{self[letters] if self[letters] > 1 else ''}{written}")
        return " + ".join(terms) or "0"

    def number(self) -> int:
        size = {"I": SIZE, "H": SIZE}
        return sum(n * prod(size.get(k, NARROW) for k in key) for key, n in self.items())


def parameters(cell: Cell) -> Amount:
    """The parameters of one layer and direction, which a real layer must have as well."""
    total = Amount()
    for family in cell.program.families.values():
        for _, rows in family.blocks:
            total += columns_times(rows, family.columns)
    layer = Recurrent(cell, SIZE, SIZE, sizes=named_sizes(cell.program))
    held = sum(parameter.numel() for parameter in layer.parameters())
    if held != total.number():
        raise GalleryError(
            f"docs/make_gallery.py: by its formula {total} the cell '{cell.name}' has "
            f"{total.number()} parameters, but a Recurrent of it holds {held}"
        )
    return total


def columns_times(rows: str, columns: Sequence[str]) -> Amount:
    """rows × (the sum of the columns); a vector has no columns."""
    total = Amount() if columns else Amount.of(rows)
    for column in columns:
        total += Amount.of(rows, column)
    return total


def named_sizes(program: Program) -> dict[str, int]:
    return {name: NARROW for name in program.size_names if name not in ("input", "hidden")}


def needed(program: Program) -> list[tuple[int, Node]]:
    """The nodes that the new states follow from."""
    found: set[int] = set()
    stack = [state.next for state in program.states]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack.extend(program.nodes[index].args)
    return [(index, program.nodes[index]) for index in sorted(found)]


def products(program: Program) -> Amount:
    """Multiply–adds of the matrix products of a step."""
    total = Amount()
    for index, node in needed(program):
        if node.op == "product":
            total += columns_times(program.widths[index], [program.widths[a] for a in node.args])
    return total


def elementwise(program: Program) -> Amount:
    """Operations unit by unit of a step."""
    total = Amount()
    for index, node in needed(program):
        if node.op in ELEMENTWISE:
            total += Amount.of(program.widths[index])
    return total


def normalisations(program: Program) -> int:
    """Rows that are normalised in a step."""
    return len({node.args for _, node in needed(program) if node.op == "layer_norm"})


def gates(program: Program) -> list[str]:
    """Named values of a sigmoid or an exponential, or one minus such, that multiply another."""
    nodes = program.nodes
    factors = {a for node in nodes if node.op == "mul" for a in node.args}

    def gate(index: int) -> bool:
        node = nodes[index]
        if node.op == "sub" and nodes[node.args[0]].op == "constant":
            return nodes[node.args[0]]["value"] == 1 and gate(node.args[1])
        return node.op in ("sigmoid", "exp")

    return [name for name, index in program.names.items() if index in factors and gate(index)]


def states(program: Program) -> str:
    """The states with their widths; the first is the output."""
    return ", ".join(
        f"{state.name} ({Amount.of(state.width)})"
        + ("" if state.initial == 0 else f" from {state.initial:g}".replace("-inf", "−∞"))
        for state in program.states
    )


def short_source(source: str) -> str:
    """Gers et al. 2000."""
    authors = re.split(r', (?="|[A-Z]{2,})', source)[0]
    people = re.split(r", | & ", authors.removesuffix(" et al."))
    surnames = [re.sub(r"^(?:[A-Z]\.[- ]?)+", "", person) for person in people]
    if len(people) > 2 or authors.endswith(" et al."):
        surnames = [f"{surnames[0]} et al."]
    return f"{' & '.join(surnames)} {re.findall(r'(?:19|20)[0-9]{2}', source)[-1]}"


def summary(found: Sequence[Entry]) -> list[str]:
    """The table of all cells."""
    lines = [
        "| cell | states | gates | parameters | multiply–adds a step | source |",
        "|---|---|---|---:|---:|---|",
    ]
    for each in found:
        program = each.cell.program
        names = ", ".join(state.name for state in program.states)
        row = (
            f"[{each.name}](#{each.name.lower()})",
            names,
            ", ".join(gates(program)) or "none",
            f"{parameters(each.cell).number():,}",
            f"{products(program).number():,}",
            short_source(each.source),
        )
        lines.append(f"| {' | '.join(row)} |")
    return lines


def section(each: Entry, shown: dict[str, str]) -> list[str]:
    """What the page says of one cell. Code that cells share stands at the first: ``shown``."""
    program = each.cell.program
    picture = (PICTURES / f"{each.name}.svg").relative_to(PAGE.parent).as_posix()
    lines = [
        *(f"### {each.name}", "", each.title, ""),
        *(f"**When:** {WHEN[each.name]}", "", f"**Source:** {each.source}", ""),
        *("```math", each.cell.latex(), "```", "", f"![One step of {each.name}]({picture})", ""),
    ]
    file = f"[`{each.file.as_posix()}`](../{each.file.as_posix()})"
    elsewhere = [name for name, _ in each.code if shown.setdefault(name, each.name) != each.name]
    where = "".join(f"; `{n}` stands at [{shown[n]}](#{shown[n].lower()})" for n in elsewhere)
    code = "\n\n\n".join(text for name, text in each.code if name not in elsewhere)
    lines += [f"In {file}{where}:", "", "```python", code, "```", ""]
    lines += ["| | | at the sizes above |", "|---|---|---:|"]
    for what, amount in (
        ("parameters", parameters(each.cell)),
        ("multiply–adds a step", products(program)),
        ("elementwise operations a step", elementwise(program)),
    ):
        lines.append(f"| {what} | {amount} | {amount.number():,} |")
    if normalisations(program):
        lines.append(f"| rows normalised a step | | {normalisations(program)} |")
    return [*lines, f"| states, the first the output | {states(program)} | |", ""]


def files() -> dict[Path, str]:
    """Every generated file, from the project's root, with its text."""
    found = entries()
    lines = [*HEAD.splitlines(), "", *summary(found), ""]
    shown: dict[str, str] = {}
    last = ""
    for each in found:
        heading = "Built-in cells" if each.name in cells.BUILT_IN else "Examples"
        lines += [f"## {heading}", ""] if heading != last else []
        lines += section(each, shown)
        last = heading
    pictures = {PICTURES / f"{each.name}.svg": each.cell.diagram() for each in found}
    return {PAGE: "\n".join(lines).rstrip() + "\n", **pictures}


def differing(made: dict[Path, str], root: Path) -> list[Path]:
    """Files that are missing, have another text, or are pictures of no cell."""
    there = {path.relative_to(root) for path in (root / PICTURES).glob("*")}
    changed = [
        path
        for path, text in made.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]
    return changed + sorted(there - set(made))


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python docs/make_gallery.py [--check]", file=sys.stderr)
        return 2
    try:
        made = files()
    except GalleryError as error:
        print(error, file=sys.stderr)
        return 1
    changed = differing(made, root)
    if arguments and changed:
        print(
            f"docs/make_gallery.py --check: {len(changed)} files differ from what the code gives, "
            f"first {changed[0].as_posix()}; run python docs/make_gallery.py",
            file=sys.stderr,
        )
        return 1
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path in made:
            (root / path).write_text(made[path], encoding="utf-8")
        else:
            (root / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
