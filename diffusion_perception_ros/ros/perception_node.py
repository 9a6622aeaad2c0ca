"""The lifecycle node: camera topics in; depth, normals, segmentation and point clouds out."""

from __future__ import annotations


if __name__ == "__main__":
    from diffusion_perception_ros.ros.early_end import end_quietly

    end_quietly()

import functools
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.licences import notice
from diffusion_perception_ros.inference.remote_estimator import RemoteEstimator
from diffusion_perception_ros.ros.camera import CameraInput
from diffusion_perception_ros.ros.diagnostics import Snapshot, diagnose
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.loading import Loading, load_estimator
from diffusion_perception_ros.ros.managed_node import ManagedNode
from diffusion_perception_ros.ros.manager_bond import ManagerBond
from diffusion_perception_ros.ros.network import NodeNetwork
from diffusion_perception_ros.ros.node_parameters import NodeParameters
from diffusion_perception_ros.ros.parameters import CameraParameters, PerceptionParameters
from diffusion_perception_ros.ros.pipeline import Pipeline
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.recovery import Recovery
from diffusion_perception_ros.ros.running import run_node, serve
from diffusion_perception_ros.ros.sampling import check_sampling
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.ros.watchdog import Watchdog
from diffusion_perception_ros.ros.worker import FairWorker


WATCH_PERIOD = 0.5
"""Seconds between looks at the worker."""


class PerceptionNode(ManagedNode):
    """One model for one or several cameras.

    Model and output topics exist while configured, subscriptions and the worker while active.
    """

    def __init__(self, **options: Any) -> None:
        """Raises InputError for a wrong parameter."""
        super().__init__("perception_node", **options)
        self.problems = Problems(self.log)
        self._network: NodeNetwork | None = None
        self._pipeline: Pipeline | None = None
        self._worker: FairWorker[Job] | None = None
        self._loading: Loading | None = None
        self._bond = ManagerBond(self, self.log)
        self._cameras: list[CameraInput] = []
        self.parameters = NodeParameters(
            self, PerceptionParameters, self._why_not_now, self._why_wrong, self._on_parameters
        )
        self._watchdog = Watchdog(lambda: self.parameters.values.watchdog_seconds)
        self._recovery = Recovery(self._watchdog, self.problems, self.log, self._leave, self.autostart)
        names = self.parameters.values.cameras
        self.parameters.add_scopes(names, CameraParameters.model_fields)
        self._cameras = [
            CameraInput(self, name, self.log, functools.partial(self.parameters.of, name), self._listen_to_transforms)
            for name in names or [""]
        ]
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # In steady time: with simulated time, diagnostics must also come while the clock stands.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.parameters.values.diagnostics_period, self._publish_diagnostics, clock=steady)
        self.create_timer(WATCH_PERIOD, self._watch, clock=steady)

    @property
    def pipeline(self) -> Pipeline | None:
        """What an image goes through, while the node is active."""
        return self._pipeline

    def on_callback_error(self, error: Exception) -> None:
        """A callback raised, which must not happen."""
        self.problems.report(Kind.CALLBACK, f"a callback failed: {type(error).__name__}: {error}", error=True)

    # Lifecycle

    def autostart(self) -> None:
        """Configures and activates, in the background; if one of them fails the node stays, and can be tried again."""

        def start() -> None:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

        self.start_transition(start)

    @functools.cache  # noqa: B019 - the node lives as long as the process
    def _listen_to_transforms(self) -> Transforms:
        """From the first time that a transform is needed."""
        return Transforms(self)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and offers its topics; a model that cannot be used is a failure with a reason."""
        return self._attempt(Kind.CONFIGURE, self._configure, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras and starts the worker."""
        return self._attempt(Kind.ACTIVATE, self._activate, self._stop)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets go of the cameras; the model stays loaded."""
        self.in_executor(self._stop)
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes the topics back and frees the model."""
        self.in_executor(self._release)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything."""
        self.in_executor(self._release)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured."""
        self.in_executor(self._release)
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Nothing is published after this."""
        if self._loading is not None:
            self._loading.is_cancelled = True
        self._stop()
        super().destroy_node()

    def _attempt(self, kind: Kind, action: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        """A transition that fails with a reason; rclpy would swallow the exception."""
        try:
            action()
        except Exception as error:  # a broken model makes the runtime raise anything
            self.in_executor(undo)
            self.problems.report(kind, f"cannot {kind.value}: {error}", error=True)
            return TransitionCallbackReturn.FAILURE
        self.problems.clear(kind)
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        settings = self.parameters.values
        loading = self._loading = Loading(f"loading model '{settings.model}'", settings.load_timeout)
        try:
            estimator = loading.run(lambda: load_estimator(settings, loading.report, lambda: self._watchdog.limit))
        finally:
            self._loading = None
        self.in_executor(functools.partial(self._offer_topics, estimator))
        if estimator.fallback_reason:
            self.log.warning(f"running on {estimator.backend_name}: {estimator.fallback_reason}", again=True)
        licence = notice(estimator.card)
        if licence:
            self.log.warning(licence, again=True)
        tasks = ", ".join(estimator.card.tasks)
        self.log.event(f"model '{estimator.card.name}' on {estimator.backend_name} gives {tasks}")

    def _offer_topics(self, estimator: Estimator | RemoteEstimator) -> None:
        self._network = NodeNetwork(estimator, self.problems)
        for camera in self._cameras:
            camera.configure(estimator.card)

    def _activate(self) -> None:
        self.in_executor(self._start)

    def _start(self) -> None:
        assert self._network is not None
        stages = {camera.name: camera.prepare() for camera in self._cameras}
        pipeline = Pipeline(self._network, stages, lambda: self.parameters.values, self._watchdog)
        worker = FairWorker(stages, pipeline, pipeline.most, self._on_worker_failure)
        self._pipeline, self._worker = pipeline, worker
        for camera in self._cameras:
            camera.activate(functools.partial(worker.offer, camera.name))
        if not self.parameters.values.autostart:  # else there is no manager
            self._bond.start()

    def _stop(self) -> None:
        self._bond.stop()
        for camera in self._cameras:
            camera.deactivate()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        self._stop()
        for camera in self._cameras:
            camera.release()
        if self._network is not None:
            self._network.close()
        self._network = self._pipeline = None

    # What goes wrong in the worker

    def _on_worker_failure(self, items: Any, error: BaseException) -> None:
        """Its function raised, which must not happen; the worker goes on with the next image."""
        self.problems.report(Kind.WORKER, f"the worker failed: {type(error).__name__}: {error}", error=True)
        if self._pipeline is not None:
            self._pipeline.reject(items, error)

    def _watch(self) -> None:
        """Looks whether the network hangs, and starts again after it did."""
        if not self.is_changing:
            self._recovery.look(self._worker, self._pipeline, self.parameters.values, lambda: self.state)

    def _leave(self) -> None:
        """To unconfigured, in the background."""

        def leave() -> None:
            self.trigger_deactivate()
            self.trigger_cleanup()

        self.start_transition(leave)

    # Parameters and services

    def _why_not_now(self, name: str) -> str | None:
        if self._network is None and self._loading is None:
            return None
        return "it can only change while the node is unconfigured: deactivate and clean up the node first"

    def _why_wrong(self, values: PerceptionParameters) -> str | None:
        """What the loaded model cannot do."""
        network = self._network
        if network is None:
            return None
        try:
            check_sampling(network.estimator, values)
        except InputError as error:
            return str(error)
        return None

    def _on_parameters(self) -> None:
        for camera in self._cameras:
            camera.reset_rate_limit()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        for camera in self._cameras:
            camera.enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    # Diagnostics

    def _check_name(self) -> None:
        """Services, parameters and logs of two nodes of one name cannot be told apart."""
        own = (self.get_name(), self.get_namespace())
        if self.get_node_names_and_namespaces().count(own) > 1:
            name = self.get_fully_qualified_name()
            self.problems.report(
                Kind.NAME,
                f"another node is called {name}, too: its services answer at random; start one of them with "
                "-r __node:=OTHER_NAME, or in a namespace of its own",
            )
        else:
            self.problems.clear(Kind.NAME)

    def _publish_diagnostics(self) -> None:
        self._check_name()
        loading = self._loading
        snapshot = Snapshot(
            node=self.get_fully_qualified_name(),
            state=self.state,
            parameters=self.parameters.values,
            problems=self.problems,
            network=self._network,
            loading=str(loading) if loading is not None else "",
            limit=self._watchdog.limit,
            cameras=self._cameras,
            count_publishers=self.count_publishers,
        )
        array = DiagnosticArray(status=diagnose(snapshot))
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def spin(node: PerceptionNode) -> int:
    """Serves the node until the process is told to end."""
    if node.parameters.values.autostart:
        node.autostart()
    serve(node, node.on_callback_error)
    return 0


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable."""
    run_node("perception_node", PerceptionNode, spin, args)


if __name__ == "__main__":
    main()
