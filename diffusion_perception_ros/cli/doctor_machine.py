"""The part of `doctor` that has nothing to do with ROS 2: interpreter, accelerators, rendering, packages, models."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime

from diffusion_perception_ros.cli.findings import Finding
from diffusion_perception_ros.inference import native
from diffusion_perception_ros.inference.backends import BackendUnavailable
from diffusion_perception_ros.inference.backends.cuda import CudaError, import_runtime
from diffusion_perception_ros.inference.backends.provider_options import library_version
from diffusion_perception_ros.inference.backends.tensorrt_engine import import_tensorrt
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, list_models
from diffusion_perception_ros.robot_environment import environment_folder, inside, package_problems


TRAINING_PACKAGES = ("torch", "diffusers", "accelerate", "transformers", "peft", "onnx", "onnxscript", "moderngl")
CUDA_LIBRARIES = ("libcudart.so", "libcublas.so", "libcudnn.so")
NEWEST_TRIED = (3, 13)


def python() -> list[Finding]:
    """The interpreter and the machine it runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    state = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores} cores"
    if sys.version_info[:2] <= NEWEST_TRIED:
        return [Finding("Python", "ok", state)]
    return [Finding("Python", "lack", state, "This version is untried: use Python 3.10 to 3.13 if packages fail.")]


def packages() -> list[Finding]:
    """The packages that the nodes need, and the environment that they come from on a robot."""
    problems = package_problems()
    if problems:
        found, _, remedy = problems[0].rpartition(": ")
        return [Finding("packages", "problem", found, f"{remedy}.")]
    origin = "the environment of install_dependencies" if inside(environment_folder()) else sys.prefix
    return [Finding("packages", "ok", f"NumPy, OpenCV, pydantic, ONNX Runtime and bag readers fit ({origin})")]


def compiler() -> list[Finding]:
    """What building the ROS 2 messages and the C++ library needs, and whether the library is there."""
    library = Finding("C++ library", "ok", "maps are made in C++")
    if native.load() is None:
        remedy = "Maps are made with NumPy and OpenCV, 4 to 15 times slower: run 'make setup', or build with colcon."
        library = Finding("C++ library", "lack", f"no {native.LIBRARY}, or {native.SWITCH}=0", remedy)
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if found:
        return [Finding("C++ compiler", "ok", found), library]
    remedy = "It is needed to build the ROS 2 messages: sudo apt install build-essential."
    return [Finding("C++ compiler", "lack", "none", remedy), library]


def accelerator() -> list[Finding]:
    """GPU, driver, and whether ONNX Runtime can use them."""
    gpus = _gpus()
    providers = onnxruntime.get_available_providers()
    names = [name.removesuffix("ExecutionProvider") for name in providers]
    runtime = f"ONNX Runtime {onnxruntime.__version__} with {', '.join(names)}"
    if not gpus:
        remedy = "Models run on the CPU; with an NVIDIA GPU, its driver has to be installed."
        return [Finding("GPU", "lack", "no NVIDIA GPU or no driver", remedy), Finding("inference", "ok", runtime)]
    return [*(Finding("GPU", "ok", gpu) for gpu in gpus), *_gpu_inference(providers, runtime), tensorrt()]


def _gpus() -> list[str]:
    """Name, driver and memory of every NVIDIA GPU."""
    if Path("/etc/nv_tegra_release").is_file():  # Jetson boards have no nvidia-smi before JetPack 6
        return [
            "NVIDIA Jetson, " + Path("/etc/nv_tegra_release").read_text(encoding="utf-8").splitlines()[0].strip("# ")
        ]
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _gpu_inference(providers: list[str], runtime: str) -> list[Finding]:
    if "CUDAExecutionProvider" not in providers:
        remedy = "In this environment: pip uninstall onnxruntime, then pip install --force-reinstall onnxruntime-gpu."
        return [Finding("inference", "lack", f"{runtime}: the GPU is not used", remedy)]
    missing = [name for name in CUDA_LIBRARIES if not _loads(name)]
    if missing:
        remedy = "Install CUDA and cuDNN, or 'pip install onnxruntime-gpu[cuda,cudnn]'."
        return [Finding("inference", "lack", f"{runtime}, but {', '.join(missing)} cannot be loaded", remedy)]
    return [Finding("inference", "ok", runtime)]


def tensorrt() -> Finding:
    """Whether 'backend: tensorrt' can work: the libraries, their Python bindings and CUDA's."""
    number = library_version()
    if number is None:
        remedy = "Only 'backend: tensorrt' needs it: pip install the extra [gpu]; a Jetson has it from JetPack."
        return Finding("TensorRT", "lack", "its libraries are not here", remedy)
    try:
        version = import_tensorrt().__version__
        import_runtime()
    except (BackendUnavailable, CudaError) as error:
        remedy = (
            "On a Jetson: sudo apt install python3-libnvinfer, make .venv with --system-site-packages, pip install "
            "cuda-bindings of the CUDA version that JetPack has; elsewhere pip install the extra [gpu]."
        )
        return Finding("TensorRT", "lack", f"its libraries (version {number}) are here, but {error}", remedy)
    state = f"{version} with its Python bindings; every engine is compared with the CPU when a model is opened"
    return Finding("TensorRT", "ok", state)


def _loads(library: str) -> bool:
    """Whether the dynamic linker finds a library, under any of the major versions that are in use."""
    for suffix in ("", ".13", ".12", ".11", ".10", ".9", ".8"):
        try:
            ctypes.CDLL(library + suffix)
        except OSError:
            continue
        return True
    return False


def rendering() -> list[Finding]:
    """What renders synthetic scenes."""
    try:
        import moderngl

        context = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
    except ImportError:
        remedy = "Only rendering training data needs it: 'make setup-test' or 'pip install moderngl'."
        return [Finding("rendering", "lack", "moderngl is not installed", remedy)]
    except Exception as error:  # moderngl passes on whatever the driver says
        remedy = (
            "Synthetic scenes are then rendered with PyTorch, slower; for OpenGL: "
            "sudo apt install libegl1 libegl-mesa0 libgl1-mesa-dri."
        )
        return [Finding("rendering", "lack", f"no OpenGL through EGL ({error})", remedy)]
    renderer = context.info["GL_RENDERER"]
    context.release()
    return [Finding("rendering", "ok", f"OpenGL through EGL: {renderer}")]


def training() -> list[Finding]:
    """What training, adapting and exporting need."""
    found, missing = [], []
    for package in TRAINING_PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if not missing:
        return [Finding("training", "ok", ", ".join(found))]
    remedy = "Only training and export need them: 'make setup-test', or pip install with the extra [train]."
    return [Finding("training", "lack", f"without {', '.join(missing)}", remedy)]


def models() -> list[Finding]:
    """Model folders that can be found."""
    entries = list_models()
    broken = [
        Finding(
            "model", "lack", f"{entry.folder} cannot be used: {entry.error}", "Fetch or export it again, or remove it."
        )
        for entry in entries
        if entry.error
    ]
    usable = [entry.name for entry in entries if not entry.error]
    if not usable:
        remedy = (
            "Clone the repository with its models folder, or set DIFFUSION_PERCEPTION_MODELS to a folder of models."
        )
        return [Finding("models", "problem", "none was found", remedy), *broken]
    if DEFAULT_MODEL not in usable:
        remedy = f"Name one of them with --model, or get '{DEFAULT_MODEL}' from the repository's models folder."
        return [Finding("models", "lack", f"{', '.join(usable)}, but not the default one", remedy), *broken]
    return [Finding("models", "ok", ", ".join(usable)), *broken]


CHECKS = (python, packages, compiler, accelerator, rendering, training, models)
