"""The words that describe a drawing, and what colours and sizes mean in numbers."""

from dataclasses import dataclass, fields

COLOUR_RGB = {  # hues that remain distinct under jitter, and are saturated, which no background is
    "red": (218, 30, 36),
    "orange": (250, 125, 10),
    "yellow": (246, 216, 25),
    "green": (35, 160, 60),
    "cyan": (45, 205, 220),
    "blue": (35, 75, 215),
    "purple": (125, 45, 170),
    "pink": (250, 130, 195),
}
BACKGROUND_RGB = {"white": (244, 244, 244), "grey": (132, 132, 132), "black": (26, 26, 26), "beige": (212, 184, 138)}
SIZE_SCALE = {"small": (0.23, 0.27), "large": (0.40, 0.47)}  # square root of the object's area, as a share of the side

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "arrow", "bolt")
COLOURS = tuple(COLOUR_RGB)
TEXTURES = ("plain", "striped", "dotted")
SIZES = tuple(SIZE_SCALE)
BACKGROUNDS = tuple(BACKGROUND_RGB)
_VALID = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES, "background": BACKGROUNDS}


@dataclass(frozen=True)
class Attributes:
    """What a drawing shows, in words.

    Raises ValueError for a word that is not in SHAPES, COLOURS, TEXTURES, SIZES or BACKGROUNDS.

    >>> star = Attributes("star", "red", "striped", "large", "grey")
    >>> star.label, star.caption
    ('red star', 'a large striped red star on a grey background')
    """

    shape: str
    colour: str
    texture: str
    size: str
    background: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value, valid = getattr(self, field.name), _VALID[field.name]
            if value not in valid:
                raise ValueError(f"{field.name} must be one of {', '.join(valid)}; found {value!r}")

    @property
    def label(self) -> str:
        """Colour and shape: two drawings with the same label are relevant to each other."""
        return f"{self.colour} {self.shape}"

    @property
    def caption(self) -> str:
        """All five attributes in one phrase."""
        return f"a {self.size} {self.texture} {self.label} on a {self.background} background"
