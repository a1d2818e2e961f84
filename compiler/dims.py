"""Exact symbolic dimensions (language.md part G).

A `Dim` is a polynomial with integer coefficients over atoms. An atom is a name (`B`, `H`) or a frozen
`floor(expr / k)`. Sums, products and divisions that come out whole stay exact; division pulls out every
term whose coefficient the divisor divides, so `(32*h + 1) // 2` is `16*h`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

Monomial = tuple["Atom", ...]


@dataclass(frozen=True)
class Floor:
    """`floor(value / divisor)` that could not be simplified."""

    value: Dim
    divisor: int

    def __str__(self) -> str:
        return f"floor(({self.value}) / {self.divisor})"


Atom = str | Floor
DimLike = Union["Dim", int]


@dataclass(frozen=True)
class Dim:
    """`const + sum(coefficient * product of atoms)`; build with `dim` and operators."""

    const: int = 0
    terms: tuple[tuple[Monomial, int], ...] = ()

    @property
    def is_const(self) -> bool:
        """True if no atom is left."""
        return not self.terms

    def __add__(self, other: DimLike) -> Dim:
        other = dim(other)
        return _make(self.const + other.const, [*self.terms, *other.terms])

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _make(-self.const, [(m, -c) for m, c in self.terms])

    def __sub__(self, other: DimLike) -> Dim:
        return self + (-dim(other))

    def __rsub__(self, other: DimLike) -> Dim:
        return dim(other) + (-self)

    def __mul__(self, other: DimLike) -> Dim:
        other = dim(other)
        left = [((), self.const), *self.terms]
        right = [((), other.const), *other.terms]
        terms = [(tuple(sorted((*a, *b), key=str)), x * y) for a, x in left for b, y in right]
        return _make(0, terms)

    __rmul__ = __mul__

    def __floordiv__(self, k: int) -> Dim:
        if k == 1:
            return self
        whole = [(m, c // k) for m, c in self.terms if c % k == 0]
        rest = [(m, c) for m, c in self.terms if c % k]
        if not rest:
            return _make(self.const // k, whole)
        carried = self.const // k
        inner = _make(self.const - carried * k, rest)
        return _make(carried, [*whole, ((Floor(inner, k),), 1)])

    def divides_by(self, k: int) -> bool:
        """True if every value of this dim is a multiple of `k`, as far as coefficients tell."""
        return self.const % k == 0 and all(c % k == 0 for _, c in self.terms)

    def differs(self, other: DimLike) -> bool:
        """True if no sizes make the two equal: names stand for sizes, which are at least 1."""
        apart = self - other
        numbers = [c for _, c in apart.terms] + ([apart.const] if apart.const else [])
        return bool(numbers) and (min(numbers) > 0 or max(numbers) < 0)

    def __int__(self) -> int:
        if self.terms:
            raise ValueError(f"{self} is not a constant")
        return self.const

    def evaluate(self, values: dict[str, int]) -> int:
        """The number this dim has when its names have `values`."""
        total = self.const
        for monomial, coefficient in self.terms:
            product = coefficient
            for atom in monomial:
                if isinstance(atom, str):
                    product *= values[atom]
                else:
                    product *= atom.value.evaluate(values) // atom.divisor
            total += product
        return total

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            name = "*".join(map(str, monomial))
            parts.append(name if coefficient == 1 else f"{coefficient}*{name}")
        if self.const or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace("+ -", "- ")


def _make(const: int, terms: list[tuple[Monomial, int]]) -> Dim:
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        if not monomial:
            const += coefficient
            continue
        merged[monomial] = merged.get(monomial, 0) + coefficient
    kept = sorted(((m, c) for m, c in merged.items() if c), key=lambda t: str(t[0]))
    return Dim(const, tuple(kept))


def dim(value: DimLike | str) -> Dim:
    """Make a `Dim` of a number or a name."""
    if isinstance(value, Dim):
        return value
    if isinstance(value, str):
        return Dim(0, (((value,), 1),))
    return Dim(int(value))


def conv_size(size: Dim, kernel: int, stride: int, padding: int, dilation: int = 1) -> Dim:
    """The output size of a convolution or pooling window along one axis."""
    return (size + (2 * padding - dilation * (kernel - 1) - 1)) // stride + 1
