"""What `pyproject.toml` cannot say: the model folders of the checkout become part of the installed package."""

from pathlib import Path

from setuptools import find_packages, setup


MODELS = "diffusion_perception_ros.models"
model_files = [str(path.relative_to("models")) for path in Path("models").rglob("*") if path.is_file()]

setup(
    packages=[
        *find_packages(include=["diffusion_perception_ros", "diffusion_perception_ros.*"]),
        *([MODELS] if model_files else []),
    ],
    package_dir={MODELS: "models"},
    package_data={MODELS: model_files, "diffusion_perception_ros": ["**/*.html", "**/*.j2", "**/*.css", "**/*.yaml"]},
)
