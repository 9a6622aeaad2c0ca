"""Dense visual perception for robots with one-step diffusion models."""

from pkgutil import extend_path


# The ROS 2 build installs the generated messages (`diffusion_perception_ros.msg`) beside an installed copy of this
# package. With this line a source checkout that comes first on `sys.path` still finds them.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
