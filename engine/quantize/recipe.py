"""A recipe: which formats a model's layers get and how their weights are fitted, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..formats import LayerFormat

ADALN_W4A16 = LayerFormat("int4", None)


@dataclass(frozen=True)
class Recipe:
    """weight, activation: formats as in LayerFormat, of all quantized layers but the adaLN ones, which get `adaln` (None: float).

    rank: of the low-rank branch, cut for small layers. smooth: search a smooth_factor. shift: unsigned activations after GELU.
    four_over_six: nvfp4 blocks take the better of two scales. gptq: solve the rounding on calibration rows, where it helps.
    iterations: rounds of the low-rank alternation at most; it stops when patience rounds in a row have not lowered the error by
    tolerance, a share of it.
    rows: calibration rows kept per layer, twice the input width when that is more, at most max_rows; a quarter of them held out.
    """

    name: str
    weight: str
    activation: str | None
    rank: int = 0
    smooth: bool = False
    shift: bool = False
    four_over_six: bool = False
    gptq: bool = False
    adaln: LayerFormat | None = ADALN_W4A16
    iterations: int = 32
    patience: int = 4
    tolerance: float = 1e-3
    rows: int = 2048
    max_rows: int = 8192

    def __post_init__(self) -> None:
        LayerFormat(self.weight, self.activation, self.rank, self.smooth, four_over_six=self.four_over_six)
        if self.shift and self.activation != "int4":
            raise ValueError(f"recipe.shift: only int4 activations are shifted, got {self.activation}")
        if self.rank and self.iterations < 1:
            raise ValueError(f"recipe.iterations: at least 1 needed with rank {self.rank}, got {self.iterations}")
        if self.patience < 1:
            raise ValueError(f"recipe.patience: at least 1 needed, got {self.patience}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"recipe.tolerance: a share from 0 to below 1 needed, got {self.tolerance}")
        if not 8 <= self.rows <= self.max_rows:
            raise ValueError(f"recipe.rows: 8 to max_rows ({self.max_rows}) needed, got {self.rows}")

    @property
    def uses_calibration(self) -> bool:
        return self.smooth or self.gptq or self.rank > 0

    def rows_for(self, columns: int) -> int:
        """Calibration rows to keep for a weight of so many columns, held-out rows included."""
        return min(max(self.rows, 2 * columns), self.max_rows)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        """The inverse of `to_dict`; raises TypeError or ValueError for a field that is unknown or out of range."""
        adaln = values.get("adaln")
        return cls(**values | {"adaln": LayerFormat.from_dict(adaln) if adaln else None})


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("svdq_int4", "int4", "int4", rank=32, smooth=True, shift=True, gptq=True),
        Recipe("svdq_nvfp4", "nvfp4", "nvfp4", rank=32, smooth=True, four_over_six=True, gptq=True),
        Recipe("rtn_int4", "int4", "int4"),
        Recipe("rtn_nvfp4", "nvfp4", "nvfp4"),
        Recipe("w4a16", "int4", None, gptq=True),
        Recipe("int8", "int8", "int8", adaln=LayerFormat("int8", None)),
        Recipe("fp8", "fp8", "fp8", adaln=LayerFormat("fp8", None)),
    )
}


def get_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe itself, or the named one; raises ValueError naming those there are."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe: one of {', '.join(RECIPES)} needed, got {recipe!r}")
    return RECIPES[recipe]
