"""Recognise models of other tools (Keras, open_clip, Ultralytics, ...), so that errors can name the tool."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz")
"""Extensions of weights files: those of tools built on torch, and JAX's `.npz`."""
_FILES = {
    ".caffemodel": "Caffe",
    ".engine": "TensorRT",
    ".gguf": "llama.cpp (GGUF)",
    ".h5": "Keras",
    ".hdf5": "Keras",
    ".keras": "Keras",
    ".mar": "TorchServe",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".mnn": "MNN",
    ".msgpack": "Flax",
    ".onnx": "ONNX Runtime",
    ".pb": "TensorFlow",
    ".pdmodel": "PaddlePaddle",
    ".pdparams": "PaddlePaddle",
    ".pkl": "fastai (learn.export), or another pickled object",
    ".plan": "TensorRT",
    ".prototxt": "Caffe",
    ".pte": "ExecuTorch",
    ".rknn": "RKNN",
    ".tflite": "TensorFlow Lite",
    ".torchscript": "TorchScript",
    ".xml": "OpenVINO",
}
_FOLDERS = {
    "saved_model.pb": "TensorFlow",
    "open_clip_config.json": "open_clip",
    "model_index.json": "diffusers",
    "adapter_config.json": "PEFT (an adapter, not a whole model)",
    "metadata.yaml": "Ultralytics",
}
_PICKLES = {
    "ultralytics": "Ultralytics (YOLO)",
    "models.yolo": "Ultralytics (YOLO)",
    "fastai": "fastai",
    "fastcore": "fastai",
    "mmengine": "OpenMMLab",
    "mmcv": "OpenMMLab",
    "pytorch_lightning": "Lightning",
    "lightning": "Lightning",
    "deepspeed": "DeepSpeed",
}
# In the tools' own spelling; only used for names that timm does not know.
_NAMES = {
    r"(?i:yolo|rtdetr)[\w.-]*": "Ultralytics",
    r"RN(50|101)(x\d+)?|ViT-[A-Za-z]+[-/]\d+.*|(coca_|EVA0|MobileCLIP|ViTamin)[\w-]+": "CLIP or open_clip",
    r"mobilenet_v[23](_\w+)?|efficientnet_v2_[sml]|vit_[blh]_\d+|swin(_v2)?_[tsb]|regnet_[xy]_\d+_?[mg]f"
    r"|shufflenet_v2_\w+|squeezenet1_[01]|alexnet|googlenet|mnasnet[01]_\w+|maxvit_t"
    r"|\w+_Weights(\.\w+)?": "torchvision",
    r"(ResNet\d+V2|(MobileNet|EfficientNet|DenseNet|NASNet|ConvNeXt|RegNet)(V\d|[BX]?\d|[A-Z])[A-Za-z0-9]*"
    r"|InceptionResNetV2|Xception)": "Keras",
    r"[a-z]+[\w.-]*_(in1k|in21k|imagenet)?_?\d+xb\d+[\w-]*|[a-z]+[\w.-]*_\d+xb\d+_\w+": "mmpretrain",
    r"dino(v[23])?_vit\w+": "torch.hub (DINO)",
}

_TENSORS = {
    r"\d+\.": "torch.nn.Sequential, as fastai makes its networks",
    r"model\.\d+\.": "Ultralytics",
    r"(\w+\.)?(embeddings|embedder|encoder\.(layer|stages|block))\.": "Hugging Face's transformers",
    r"(visual|text_model|vision_model|transformer\.resblocks)\.": "CLIP or open_clip",
    r"(backbone|neck|head)\.": "OpenMMLab",
    r"_(conv_stem|bn0|blocks|conv_head|fc)\b": "EfficientNet-PyTorch",
}


def tool_of_tensors(names: Iterable[str]) -> str | None:
    """Return the tool that uses most of these tensor names, if any."""
    names = list(names)
    for pattern, tool in _TENSORS.items():
        if 2 * sum(bool(re.match(pattern, name)) for name in names) > len(names):
            return tool
    return None


def tool_of_file(name: str) -> str | None:
    """Return the tool whose model files have this extension, if any."""
    return _FILES.get(PurePath(name).suffix.lower())


def tool_of_folder(names: set[str]) -> str | None:
    """Return the tool whose model folders contain one of these file names, if any."""
    return next((tool for name, tool in _FOLDERS.items() if name in names), None)


def tool_of_model(name: str) -> str | None:
    """Return the tool whose models have names like this, if any."""
    return next((tool for pattern, tool in _NAMES.items() if re.fullmatch(pattern, name)), None)


def tool_of_pickle(asked: str) -> str | None:
    """Return the tool whose objects a pickle holds, from a name that it imports."""
    return next((tool for start, tool in _PICKLES.items() if f"{asked}.".startswith(f"{start}.")), None)


def is_weights(name: str) -> bool:
    """Return whether a file has the extension of a weights file."""
    return PurePath(name).suffix.lower() in WEIGHTS
