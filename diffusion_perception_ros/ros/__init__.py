"""The nodes: topics in, predictions out; the only package that imports rclpy."""
