#!/bin/bash
# Sources ROS 2 and the workspace. Arguments are a command, or launch arguments of perception.launch.py.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
if [[ -f /opt/diffusion_perception/install/setup.bash ]]; then
  source /opt/diffusion_perception/install/setup.bash
fi
if [[ $# -eq 0 || "$1" == *":="* ]]; then
  exec ros2 launch diffusion_perception_ros perception.launch.py "$@"
fi
exec "$@"
