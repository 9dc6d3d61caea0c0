"""The states of the USA: postal code, name and FIPS code, as a census file names them.

Knows one table and how people write its entries. Knows no file, no setting
and no geometry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class State:
    """A state, the District of Columbia, or a territory.

    Parameters
    ----------
    code : str
        Postal code, ``"WA"``.
    name : str
        Full name, ``"Washington"``.
    fips : str
        Two digits, ``"53"``.
    territory : bool
        Not one of the 50 states or DC, so not part of ``"all"``.
    """

    code: str
    name: str
    fips: str
    territory: bool = False


_TABLE = """
AL 01 Alabama
AK 02 Alaska
AZ 04 Arizona
AR 05 Arkansas
CA 06 California
CO 08 Colorado
CT 09 Connecticut
DE 10 Delaware
DC 11 District of Columbia
FL 12 Florida
GA 13 Georgia
HI 15 Hawaii
ID 16 Idaho
IL 17 Illinois
IN 18 Indiana
IA 19 Iowa
KS 20 Kansas
KY 21 Kentucky
LA 22 Louisiana
ME 23 Maine
MD 24 Maryland
MA 25 Massachusetts
MI 26 Michigan
MN 27 Minnesota
MS 28 Mississippi
MO 29 Missouri
MT 30 Montana
NE 31 Nebraska
NV 32 Nevada
NH 33 New Hampshire
NJ 34 New Jersey
NM 35 New Mexico
NY 36 New York
NC 37 North Carolina
ND 38 North Dakota
OH 39 Ohio
OK 40 Oklahoma
OR 41 Oregon
PA 42 Pennsylvania
RI 44 Rhode Island
SC 45 South Carolina
SD 46 South Dakota
TN 47 Tennessee
TX 48 Texas
UT 49 Utah
VT 50 Vermont
VA 51 Virginia
WA 53 Washington
WV 54 West Virginia
WI 55 Wisconsin
WY 56 Wyoming
AS 60 American Samoa
GU 66 Guam
MP 69 Northern Mariana Islands
PR 72 Puerto Rico
VI 78 U.S. Virgin Islands
"""


def _state(line: str) -> State:
    code, fips, name = line.split(maxsplit=2)
    return State(code, name, fips, territory=int(fips) >= 60)


STATES: tuple[State, ...] = tuple(_state(line) for line in _TABLE.split("\n") if line)
"""The 50 states, DC and five territories, in the order of their FIPS codes."""

BY_CODE: dict[str, State] = {state.code: state for state in STATES}
"""The same, by postal code."""


def _key(text: str) -> str:
    """Letters and digits of `text`, so that case, dots and spaces do not matter."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())


_BY_KEY = (
    {_key(state.code): state for state in STATES}
    | {_key(state.name): state for state in STATES}
    | {state.fips: state for state in STATES}
    | {state.fips.lstrip("0"): state for state in STATES}
    | {"virginislands": BY_CODE["VI"], "washingtondc": BY_CODE["DC"]}
)


def find(text: str) -> State | None:
    """Return the state that `text` means, or None.

    Parameters
    ----------
    text : str
        A postal code, a name or a FIPS code (``"WA"``, ``"washington"``, ``"53"``, ``"6"``).
    """
    return _BY_KEY.get(_key(text))


def nearest(text: str) -> str | None:
    """Return the state's name that is spelt most like `text`, or None where none is close."""
    names = {_key(state.name): state.name for state in STATES}
    close = get_close_matches(_key(text), names, n=1, cutoff=0.75)
    return names[close[0]] if close else None
