"""The plain timm loop over many images: a DataLoader with timm's transform, two workers, batches of 32.

    python loader.py MODEL WEIGHTS LIST [channels-last]

LIST names one image a line. The best five classes of each image are printed, one image a line.
"""

import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    """The images of a list, as the model wants them: float32, shape (3, H, W)."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def main(name, weights, images, layout="contiguous"):
    """Classify the images of the list."""
    memory_format = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    model = timm.create_model(name, pretrained=False).eval().to(memory_format=memory_format)
    model.load_state_dict(load_file(weights))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    dataset = Images(Path(images).read_text().splitlines(), transform)
    with torch.inference_mode():
        for batch in DataLoader(dataset, batch_size=32, num_workers=2):
            top = model(batch.to(memory_format=memory_format)).softmax(dim=1).topk(5)
            for indices in top.indices.tolist():
                print(*indices, sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
