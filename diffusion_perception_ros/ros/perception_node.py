"""The lifecycle node: camera topics in; depth, normals, segmentation and point clouds out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.licences import notice
from diffusion_perception_ros.ros.camera import Camera
from diffusion_perception_ros.ros.diagnostics import Snapshot, diagnose
from diffusion_perception_ros.ros.monitor import Complaints
from diffusion_perception_ros.ros.node_parameters import NodeParameters
from diffusion_perception_ros.ros.parameters import CameraParameters, PerceptionParameters
from diffusion_perception_ros.ros.pipeline import Job
from diffusion_perception_ros.ros.predictor import Predictor
from diffusion_perception_ros.ros.running import run_node
from diffusion_perception_ros.ros.sampling import check_sampling
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.ros.worker import FairWorker


class PerceptionNode(LifecycleNode):
    """One model for one or several cameras.

    Model and output topics exist while configured, subscriptions and the worker while active.
    """

    def __init__(self, **options: Any) -> None:
        """Raises InputError for a wrong parameter."""
        super().__init__("perception_node", **options)
        self._estimator: Estimator | None = None
        self._worker: FairWorker[Job] | None = None
        self._cameras: list[Camera] = []
        self._complaints = Complaints(self.get_logger())
        self.parameters = NodeParameters(
            self, PerceptionParameters, self._why_not_now, self._why_wrong, self._on_parameters
        )
        names = self.parameters.values.cameras
        self.parameters.add_scopes(names, CameraParameters.model_fields)
        self._cameras = [
            Camera(self, name, functools.partial(self.parameters.of, name), self._listen_to_transforms)
            for name in names or [""]
        ]
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

    @functools.cache  # noqa: B019 - the node lives as long as the process
    def _listen_to_transforms(self) -> Transforms:
        """From the first time that a transform is needed."""
        return Transforms(self)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and offers its topics; a model that cannot be used is a failure with a reason."""
        return self._attempt("configure", self._configure, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras and starts the worker."""
        return self._attempt("activate", self._activate, self._stop)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets go of the cameras; the model stays loaded."""
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
            self._complaints.report(name, f"cannot {name}: {error}", error=True)
            return TransitionCallbackReturn.FAILURE
        self._complaints.clear(name)
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        settings = self.parameters.values
        estimator = Estimator.load(
            settings.model, settings.backend, settings.threads, engine_precision=settings.engine_precision
        )
        check_sampling(estimator, settings)
        if settings.warm_up:
            estimator.warm_up()
        if estimator.fallback_reason:
            self.get_logger().warning(f"running on {estimator.backend_name}: {estimator.fallback_reason}")
        self._estimator = estimator
        for camera in self._cameras:
            camera.configure(estimator)
        licence = notice(estimator.card)
        if licence:
            self.get_logger().warning(licence)
        tasks = ", ".join(estimator.card.tasks)
        self.get_logger().info(f"model '{estimator.card.name}' on {estimator.backend_name} gives {tasks}")

    def _activate(self) -> None:
        assert self._estimator is not None
        pipelines = {camera.name: camera.prepare(self._estimator) for camera in self._cameras}
        predictor = Predictor(self._estimator, pipelines, lambda: self.parameters.values, self._complaints)
        worker = FairWorker(pipelines, predictor, predictor.most)
        self._worker = worker
        for camera in self._cameras:
            camera.activate(functools.partial(worker.offer, camera.name))

    def _stop(self) -> None:
        for camera in self._cameras:
            camera.deactivate()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        self._stop()
        for camera in self._cameras:
            camera.release()
        self._estimator = None

    # Parameters and services

    def _why_not_now(self, name: str) -> str | None:
        if self._estimator is None:
            return None
        return "it can only change while the node is unconfigured: deactivate and clean up the node first"

    def _why_wrong(self, values: PerceptionParameters) -> str | None:
        """What the loaded model cannot do."""
        if self._estimator is None:
            return None
        try:
            check_sampling(self._estimator, values)
        except InputError as error:
            return str(error)
        return None

    def _on_parameters(self) -> None:
        for camera in self._cameras:
            camera.hurry()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        for camera in self._cameras:
            camera.enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        snapshot = Snapshot(
            node=self.get_fully_qualified_name(),
            state=self._state_machine.current_state[1],
            parameters=self.parameters.values,
            complaints=self._complaints,
            estimator=self._estimator,
            cameras=self._cameras,
            count_publishers=self.count_publishers,
        )
        array = DiagnosticArray(status=diagnose(snapshot))
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def spin(node: PerceptionNode) -> int:
    """Serves the node until the process is told to end."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if node.parameters.values.autostart:
        node.autostart()
    executor.spin()
    return 0


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable."""
    return run_node("perception_node", PerceptionNode, spin, args)


if __name__ == "__main__":
    sys.exit(main())
