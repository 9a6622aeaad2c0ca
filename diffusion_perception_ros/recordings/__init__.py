"""Recordings of any kind, whole or damaged: rosbag2 (sqlite3, mcap, compressed, split) and ROS 1, message by message.

`recording.Recording` is the one way in. It needs neither ROS nor a model, and never writes beside the recording.
"""
