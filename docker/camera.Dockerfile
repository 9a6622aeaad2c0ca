# A camera driver and a viewer beside the node, with the same Fast DDS profile. See compose.yaml.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends "ros-${ROS_DISTRO}-usb-cam" "ros-${ROS_DISTRO}-foxglove-bridge" \
    && rm -rf /var/lib/apt/lists/*
COPY config/fastdds_large_images.xml /opt/diffusion_perception/install/share/diffusion_perception_ros/config/
