"""Whether the sums that a text writes down come out. Pure: a tiny calculator, no eval, bounded work."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EQUATIONS = 60  # looked at per text
_WORD = r"(?: ?[a-zA-Z]{1,12}){0,2} ?"
_OPERAND = r"\$?\d[\d,]{0,12}(?:\.\d{1,8})?%?"
_EQUATION = re.compile(
    rf"({_OPERAND}{_WORD}(?:[-+*/×÷x] ?\(?{_OPERAND}\)?{_WORD}){{1,8}})"
    r"= ?(-?\$?\d[\d,]{0,12}(?:\.\d{1,8})?)%?(?! ?[-+*/×÷x\d(])"
)
_SIGN = re.compile(r"\d+(?:\.\d+)?|[-+*/()]")
_CALCULATION = re.compile(r"[\d.\s+\-*/()]+")
_TOLERANCE = 0.011  # relative; prices are rounded to cents


@dataclass(frozen=True, slots=True)
class Sums:
    """Equations that hold, that do not, and the last one's stated result (None without any)."""

    right: int
    wrong: int
    last_result: float | None


def check_sums(text: str) -> Sums:
    """Check the first equations such as `3 x $4 = $12` in the text."""
    right = wrong = 0
    last: float | None = None
    if "=" not in text:
        return Sums(0, 0, None)
    for count, match in enumerate(_EQUATION.finditer(text)):
        if count == _EQUATIONS:
            break
        value = calculate(_plain(match.group(1)))
        if value is None:
            continue
        last = float(match.group(2).replace(",", "").replace("$", ""))
        slack = _TOLERANCE * max(1.0, abs(last))
        if abs(value - last) <= slack or abs(100 * value - last) <= slack:  # a share written as per cent
            right += 1
        else:
            wrong += 1
    return Sums(right, wrong, last)


def calculate(expression: str) -> float | None:
    """The value of numbers joined by + - * / and brackets; None when it is not one."""
    if not _CALCULATION.fullmatch(expression):
        return None
    signs = _SIGN.findall(expression)
    try:
        value, end = _sum(signs, 0)
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    return value if end == len(signs) else None


def _plain(expression: str) -> str:
    text = expression.replace("×", "*").replace("÷", "/").replace("$", "").replace(",", "")
    text = re.sub(r"(?<=[\d )%])x(?=[ (\d])", "*", text)
    text = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", text)
    return re.sub(r"[a-zA-Z]+", "", text)


def _sum(signs: list[str], at: int) -> tuple[float, int]:
    value, at = _product(signs, at)
    while at < len(signs) and signs[at] in "+-":
        sign = signs[at]
        more, at = _product(signs, at + 1)
        value = value + more if sign == "+" else value - more
    return value, at


def _product(signs: list[str], at: int) -> tuple[float, int]:
    value, at = _operand(signs, at)
    while at < len(signs) and signs[at] in "*/":
        sign = signs[at]
        more, at = _operand(signs, at + 1)
        value = value * more if sign == "*" else value / more
    return value, at


def _operand(signs: list[str], at: int) -> tuple[float, int]:
    if signs[at] == "(":
        value, at = _sum(signs, at + 1)
        return value, at + (at < len(signs) and signs[at] == ")")
    if signs[at] == "-":
        value, at = _operand(signs, at + 1)
        return -value, at
    return float(signs[at]), at + 1
