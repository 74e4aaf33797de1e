"""The plain timm recipe: name what is in one image.

python recipe.py MODEL WEIGHTS IMAGE
"""

import sys

import timm
import torch
from PIL import Image
from safetensors.torch import load_file

name, weights, path = sys.argv[1:]
model = timm.create_model(name, pretrained=False).eval()
model.load_state_dict(load_file(weights))
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open(path).convert("RGB")
with torch.inference_mode():
    probabilities = model(transform(image).unsqueeze(0)).softmax(dim=1)
for probability, index in zip(*(values[0].tolist() for values in probabilities.topk(5)), strict=True):
    print(index, probability, sep="\t")
