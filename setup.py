"""What `pyproject.toml` cannot say: the model folders of the checkout become part of the installed package."""

from pathlib import Path

from setuptools import find_namespace_packages, setup


PACKAGE = "diffusion_perception_ros"
MODELS = f"{PACKAGE}.models"
DATA_FILES = ["py.typed", "robot_requirements.txt", "**/*.j2", "**/*.yaml", "**/*.frag", "**/*.vert", "**/*.jpg"]

model_files = [
    str(path.relative_to("models"))
    for path in Path("models").rglob("*")
    if path.is_file() and "engines" not in path.parts
]

setup(
    packages=[*find_namespace_packages(include=[PACKAGE, f"{PACKAGE}.*"]), *([MODELS] if model_files else [])],
    package_dir={MODELS: "models"},
    package_data={PACKAGE: DATA_FILES, MODELS: model_files},
)
