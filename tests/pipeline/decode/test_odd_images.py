"""A folder of odd images that may lie beside the project: each is decoded, or told from an image."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.paths import ROOT

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode.image import decode

FOLDER = ROOT.parent / "shared" / "data" / "odd-images"
NO_IMAGES = {
    "bmp__b__shortfile.bmp": "damaged image: image file is truncated (3 bytes not processed)",
    "crash-c1b2595b8b0b92cc5f38b6635e98e3a119ade807.sgi": "damaged image: buffer overrun when reading image file",
    "eps__timeout-d675703545fee17acab56e5fec644c19979175de.eps": "not an image",
    "fli_oob__04r__04r00.fli": "not an image",
    "fli_oob__06r__others__06r02.fli": "not an image",
    "full_gimp_palette.gpl": "not an image",
    "ossfuzz-5730089102868480.sgi": "damaged image: buffer overrun when reading image file",
    "timeout-c60a3d7314213624607bfb3e38d551a8b24a7435.dds": "damaged image: not enough image data",
}
pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder is not there"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::DeprecationWarning:PIL"),
]


def test_each_is_an_image_or_told_from_one() -> None:
    told = {}
    for path in sorted(FOLDER.iterdir()):
        try:
            assert decode(path.read_bytes()).mode == "RGB"
        except InputError as error:
            assert error.kind is ErrorKind.UNDECODABLE
            told[path.name] = error.message
    assert told == NO_IMAGES


@pytest.mark.parametrize("name", ["hopper.pxr", "hopper_lzma.tif", "hopper_rgb.xpm"])
def test_one_picture_is_the_same_in_every_format(name: str) -> None:
    first, other = (
        np.asarray(decode((FOLDER / file).read_bytes())).astype(float) for file in ("hopper.bmp", name)
    )
    assert np.abs(first - other).mean() < 12
