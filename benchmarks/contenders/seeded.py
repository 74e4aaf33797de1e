"""Write the seeded weights that every contender gets.

python seeded.py MODEL FILE.safetensors
"""

import sys

import timm
import torch
from safetensors.torch import save_file

name, path = sys.argv[1:]
torch.manual_seed(0)
save_file(timm.create_model(name).state_dict(), path)
