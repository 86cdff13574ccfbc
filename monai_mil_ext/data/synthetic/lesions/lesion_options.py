"""Options of the drawing of a scan with lesions."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from monai_mil_ext.utils import check_not_negative, check_positive, check_positive_number

__all__ = ["LesionOptions"]

Range = tuple[float, float]


@dataclass(frozen=True)
class LesionOptions:
    """Options of the drawing; intensities are fractions of that of the bright tissue.

    With the defaults, a linear classifier of five neighboring slices, trained with the label of every slice on features
    of photographs, reaches a slice AUROC of .9.

    Args:
        size: pixels of a slice, in both directions.
        pixel_mm: size of a pixel.
        slice_mm: range of the distance of slices, uniform.
        contrast: range of the brightness that a lesion adds or, every other time, takes away.
        radius_mm: range of the radii of a lesion in the plane of the slices.
        half_length_mm: range of the radius of a lesion across the slices.
        texture: sd of the brightness within a lesion, as a fraction of its contrast.
        distractors: least and largest number of short bright or dark spots, in scans of both classes.
        noise: range of the sd of the noise.
        bias: sd of the logarithm of the bias field.
        gamma: range of the exponent that changes the contrast of tissues.
        min_area_mm2: smallest area of a lesion on a slice; where it has less, it is left out.

    Raises:
        ValueError: if a size is not positive, or a range not two numbers from 0, the lower one first.
    """

    size: int = 112
    pixel_mm: float = 1.75
    slice_mm: Range = (4.0, 5.5)
    contrast: Range = (0.6, 1.0)
    radius_mm: Range = (9.0, 18.0)
    half_length_mm: Range = (12.0, 30.0)
    texture: float = 0.12
    distractors: tuple[int, int] = (0, 4)
    noise: Range = (0.02, 0.04)
    bias: float = 0.12
    gamma: Range = (0.75, 1.35)
    min_area_mm2: float = 50.0

    def __post_init__(self) -> None:
        """Check the options."""
        check_positive(size=self.size)
        check_positive_number(pixel_mm=self.pixel_mm)
        check_not_negative(texture=self.texture, bias=self.bias, min_area_mm2=self.min_area_mm2)
        for name, value in asdict(self).items():
            if isinstance(value, (list, tuple)) and not (len(value) == 2 and 0 <= value[0] <= value[1]):
                raise ValueError(f"`{name}` must be two numbers from 0, the lower one first, got {value!r}.")
        check_positive_number(slice_mm=self.slice_mm[0])
