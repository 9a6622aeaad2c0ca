"""The lifecycle node: a camera topic in; depth, normals, segmentation and a point cloud out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.ros.camera_topics import camera_info_topic, image_topic
from diffusion_perception_ros.ros.diagnostics import Input, Snapshot, diagnose
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Monitor
from diffusion_perception_ros.ros.parameters import NodeParameters, PerceptionParameters
from diffusion_perception_ros.ros.pipeline import Job, Pipeline
from diffusion_perception_ros.ros.publishers import Outputs
from diffusion_perception_ros.ros.qos import CAMERA_INFO_QOS, IMAGE_QOS, SPARSE_DEPTH_QOS, subscription_events
from diffusion_perception_ros.ros.worker import LatestWorker


class PerceptionNode(LifecycleNode):
    """Model and topics exist while configured; subscriptions and the worker while active."""

    def __init__(self, **options: Any) -> None:
        """Raises InputError for a wrong parameter."""
        super().__init__("perception_node", **options)
        self._estimator: Estimator | None = None
        self._outputs: Outputs | None = None
        self._pipeline: Pipeline | None = None
        self._worker: LatestWorker[Job] | None = None
        self._inputs: list[Subscription[Any]] = []
        self._enabled = True
        self._next_due = 0.0
        self._last_stamp: int | None = None
        self._last_format = ""
        self.parameters = NodeParameters(self, PerceptionParameters, self._why_not_now, self._on_parameters)
        self.monitor = Monitor(self.get_logger())
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # In steady time: with simulated time, diagnostics must also come while the clock stands.
        self.create_timer(
            self.parameters.values.diagnostics_period,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    # Lifecycle

    def autostart(self) -> bool:
        """Configures and activates; False if one of them failed (the node stays, and can be tried again)."""
        if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            return False
        return self.trigger_activate() == TransitionCallbackReturn.SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and offers its topics; a model that cannot be used is a failure with a reason."""
        return self._attempt("configure", self._configure, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the camera and starts the worker."""
        return self._attempt("activate", self._activate, self._stop)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets go of the camera; the model stays loaded."""
        self._stop()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes the topics back and frees the model."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Ends the worker before what it publishes on disappears."""
        self._stop()
        super().destroy_node()

    def _attempt(self, name: str, action: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        """A transition that fails with a reason; rclpy would swallow the exception."""
        try:
            action()
        except Exception as error:  # a broken model makes the runtime raise anything
            undo()
            self.monitor.complaints.report(name, f"cannot {name}: {error}", error=True)
            return TransitionCallbackReturn.FAILURE
        self.monitor.complaints.clear(name)
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        settings = self.parameters.values
        estimator = Estimator.load(settings.model, settings.backend, settings.threads)
        if settings.warm_up:
            estimator.warm_up()
        if estimator.fallback_reason:
            self.get_logger().warning(f"running on {estimator.backend_name}: {estimator.fallback_reason}")
        self._estimator = estimator
        self._outputs = Outputs(self, estimator.card, self.monitor.incompatible_qos)
        tasks = ", ".join(estimator.card.tasks)
        self.get_logger().info(f"model '{estimator.card.name}' on {estimator.backend_name} gives {tasks}")

    def _activate(self) -> None:
        assert self._estimator is not None
        assert self._outputs is not None
        self.monitor.restart()
        self._next_due, self._last_stamp, self._last_format = 0.0, None, ""
        self._pipeline = Pipeline(
            self._estimator, self._outputs, lambda: self.parameters.values, self.monitor, self.get_clock()
        )
        self._worker = LatestWorker(self._pipeline.process)
        transport = self.parameters.values.image_transport
        kind = Image if transport == "raw" else CompressedImage
        self._subscribe(kind, image_topic(self, transport), self._on_image, IMAGE_QOS)
        self._subscribe(CameraInfo, camera_info_topic(self), self._pipeline.infos.add, CAMERA_INFO_QOS)
        if "depth" in self._estimator.card.tasks and not self._outputs.is_metric:
            sparse = Image if self.parameters.values.sparse_depth_type == "image" else PointCloud2
            self._subscribe(sparse, self.resolve_topic_name("sparse_depth"), self._on_sparse_depth, SPARSE_DEPTH_QOS)
        self.get_logger().info(
            f"images from {self._inputs[0].topic_name}, camera_info from {self._inputs[1].topic_name}"
        )

    def _stop(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._outputs is not None:
            self._outputs.has_scale_source = False

    def _release(self) -> None:
        self._stop()
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = self._estimator = self._pipeline = None

    def _subscribe(self, kind: Any, topic: str, callback: Any, qos: QoSProfile) -> None:
        subscription = self.create_subscription(
            kind,
            topic,
            callback,
            qos,
            event_callbacks=subscription_events(topic, self.monitor.incompatible_qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._inputs.append(subscription)

    # Parameters and services

    def _why_not_now(self, name: str) -> str | None:
        if self._estimator is None:
            return None
        return "it can only change while the node is unconfigured: deactivate and clean up the node first"

    def _on_parameters(self) -> None:
        self._next_due = 0.0

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    # Images, in the executor's thread

    def _on_image(self, message: Image | CompressedImage) -> None:
        arrival = time.perf_counter()
        counts = self.monitor.statistics.counts
        self.monitor.statistics.arrived()
        self._notice_changes(message)
        if not self._is_wanted(arrival):
            counts["skipped"] += 1
        elif self._worker is not None and self._worker.offer(Job(message, arrival)):
            counts["dropped"] += 1

    def _on_sparse_depth(self, message: Image | PointCloud2) -> None:
        if self._pipeline is not None and self._outputs is not None:
            self._pipeline.sparse.add(message)
            self._outputs.has_scale_source = True

    def _is_wanted(self, now: float) -> bool:
        settings = self.parameters.values
        if not self._enabled or self._outputs is None or now < self._next_due or not self._outputs.tasks(settings):
            return False
        if settings.max_rate > 0:
            period = 1 / settings.max_rate
            # In step with the limit while images keep coming: their jitter must not lower the rate.
            self._next_due = period + (self._next_due if now - self._next_due < period else now)
        return True

    def _notice_changes(self, message: Image | CompressedImage) -> None:
        stamp = stamp_nanoseconds(message.header)
        if self._last_stamp is not None and stamp < self._last_stamp and self._pipeline is not None:
            seconds = (self._last_stamp - stamp) / 1e9
            self.get_logger().info(f"image stamps jumped back by {seconds:.3f} s: starting anew, as when a bag loops")
            self._pipeline.infos.clear()
            self._pipeline.sparse.clear()
        self._last_stamp = stamp
        is_raw = isinstance(message, Image)
        form = f"{message.width}x{message.height} {message.encoding}" if is_raw else message.format
        if self._last_format not in ("", form):
            self.get_logger().info(f"images changed from {self._last_format} to {form}")
        self._last_format = form

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        inputs = [Input(item.topic_name, self.count_publishers(item.topic_name)) for item in self._inputs]
        images, camera_info, sparse_depth = [*inputs, None, None, None][:3]
        snapshot = Snapshot(
            node=self.get_fully_qualified_name(),
            state=self._state_machine.current_state[1],
            enabled=self._enabled,
            parameters=self.parameters.values,
            monitor=self.monitor,
            estimator=self._estimator,
            outputs=self._outputs,
            images=images,
            camera_info=camera_info,
            sparse_depth=sparse_depth,
            sparse=self._pipeline.sparse if self._pipeline is not None else None,
            has_camera_info=self._pipeline is not None and self._pipeline.infos.any_yet,
        )
        array = DiagnosticArray(status=diagnose(snapshot))
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable."""
    rclpy.init(args=args)
    node: PerceptionNode | None = None
    try:
        node = PerceptionNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.parameters.values.autostart:
            node.autostart()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except InputError as error:
        print(f"perception_node: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
