"""Layer normalisation of matrix products."""

from __future__ import annotations

from headgate.program.builder import Builder
from headgate.program.program import Family, Program
from headgate.program.transform.rewrite import Moved, fail, rewrite

GAIN = "gain_"
"""The family of gains that belongs to the products of family W is ``GAIN + "W"``."""

EPS = 1e-5


def layer_norm(program: Program) -> Program:
    """Every product replaced by its layer normalisation (Ba, Kiros & Hinton 2016).

        W·v  →  gain ∘ (W·v − mean) / sqrt(variance + 1e-5)

    Mean and variance span all the blocks of a family that multiply the same vector v. The gain is
    a new vector family, ``gain_W`` for family W, with W's blocks; it starts at one. Biases of the
    equations stay outside and so remain.

    Raises ProgramError for a cell without matrix products, or whose equations normalise already.
    """
    groups = _groups(program)
    families = dict(program.families)
    for name in dict.fromkeys(family for family, _ in groups):
        if GAIN + name in families:
            fail(program, "layer_norm", f"it already has a family {GAIN + name}; apply it once")
        families[GAIN + name] = Family(GAIN + name, program.families[name].blocks)
    done: dict[int, int] = {}

    def change(builder: Builder, index: int, moved: Moved) -> int | None:
        node = program.nodes[index]
        if node.op != "product":
            return None
        if index not in done:
            done.update(_normalised(builder, program, groups[node["family"], node.args], moved))
        return done[index]

    return rewrite(program, change, families)


def _groups(program: Program) -> dict[tuple[str, tuple[int, ...]], list[int]]:
    """The products that share statistics: one family times one operand."""
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for index, node in enumerate(program.nodes):
        if node.op == "product":
            groups.setdefault((node["family"], node.args), []).append(index)
        if node.op == "layer_norm":
            for member in (program.nodes[a] for a in node.args):
                if member.op == "product":
                    fail(
                        program,
                        "layer_norm",
                        f"its equations already normalise the products of {member['family']}",
                    )
    if not groups:
        fail(program, "layer_norm", "it has no matrix product (as in W @ x) to normalise")
    return groups


def _normalised(
    builder: Builder, program: Program, group: list[int], moved: Moved
) -> dict[int, int]:
    products = [builder.copy(program.nodes[k], program.widths[k], moved) for k in group]
    result: dict[int, int] = {}
    for part, index in enumerate(group):
        node, width = program.nodes[index], program.widths[index]
        gain = builder.add(
            "parameter", (), width, family=GAIN + node["family"], block=node["block"]
        )
        norm = builder.add("layer_norm", products, width, part=part, eps=EPS)
        result[index] = builder.add("mul", [gain, norm])
    return result
