"""Where pixels lie on the ground: one immutable value for rasters, plans and coverage.

Knows arithmetic on pixel edges and nothing else: no file, no CRS library.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

Bounds = tuple[float, float, float, float]
"""(west, south, east, north) in CRS units."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A rectangle of square-edged pixels, cut into chunks.

    Pixel (row, col) covers ``x0 + col * dx`` to ``x0 + (col + 1) * dx`` and
    ``y0 + row * dy`` to ``y0 + (row + 1) * dy``. `dy` is negative for a
    north-up raster and positive for a south-up one (row 0 is the southern
    edge); `dx` is always positive. Chunks are numbered row by row from pixel
    (0, 0); those on the far edges may be smaller.

    Parameters
    ----------
    crs : str
        ``"EPSG:32616"`` where there is a code, else WKT.
    x0, y0 : float
        Corner of pixel (0, 0), CRS units.
    dx, dy : float
        Pixel size, CRS units.
    width, height : int
        Pixels.
    chunk_width, chunk_height : int
        Pixels of one chunk.
    """

    crs: str
    x0: float
    y0: float
    dx: float
    dy: float
    width: int
    height: int
    chunk_width: int
    chunk_height: int

    def __post_init__(self) -> None:
        if not (self.dx > 0 and self.dy != 0):
            raise ValueError(f"pixel size must be dx > 0, dy != 0; got {self.dx=} {self.dy=}")
        if min(self.width, self.height, self.chunk_width, self.chunk_height) < 1:
            raise ValueError(f"a grid needs at least one pixel: {self.width=} {self.height=}")

    @property
    def bounds(self) -> Bounds:
        """Ground extent (west, south, east, north), CRS units."""
        y1 = self.y0 + self.height * self.dy
        return (self.x0, min(self.y0, y1), self.x0 + self.width * self.dx, max(self.y0, y1))

    @property
    def pixel_area(self) -> float:
        """Area of one pixel, CRS units squared."""
        return self.dx * abs(self.dy)

    @property
    def chunk_columns(self) -> int:
        """Chunks side by side."""
        return ceil(self.width / self.chunk_width)

    @property
    def chunk_rows(self) -> int:
        """Rows of chunks."""
        return ceil(self.height / self.chunk_height)

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return self.chunk_columns * self.chunk_rows

    def chunk_offset(self, chunk: int) -> tuple[int, int]:
        """Pixel (row, col) at which a chunk begins."""
        if not 0 <= chunk < self.chunk_count:
            raise IndexError(f"chunk {chunk} of {self.chunk_count}")
        row, col = divmod(chunk, self.chunk_columns)
        return row * self.chunk_height, col * self.chunk_width

    def chunk(self, chunk: int) -> Grid:
        """Return the grid of one chunk: a grid of a single chunk, clipped at the far edges."""
        row, col = self.chunk_offset(chunk)
        width = min(self.chunk_width, self.width - col)
        height = min(self.chunk_height, self.height - row)
        return replace(
            self,
            x0=self.x0 + col * self.dx,
            y0=self.y0 + row * self.dy,
            width=width,
            height=height,
            chunk_width=width,
            chunk_height=height,
        )
