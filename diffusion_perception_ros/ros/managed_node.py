"""A lifecycle node whose transitions run beside the executor, so that services and diagnostics answer meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

from diffusion_perception_ros.ros.log import Log


class ManagedNode(LifecycleNode):
    """Transitions run one at a time in a thread of their own; one that is asked for meanwhile is refused.

    What they do with topics and timers they hand to the executor's thread with `in_executor`.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.log = Log(self.get_logger())
        self._transition: threading.Thread | None = None
        self._transition_lock = threading.Lock()
        services = {service.srv_type: service for service in self.services}
        self._get_state, change_state = services[GetState], services[ChangeState]
        self._change_state = change_state.callback
        change_state.callback = self._on_change_state
        # While a transition is awaited, the services of the default group must not wait.
        change_state.callback_group = ReentrantCallbackGroup()
        change_state.callback_group.add_entity(change_state)

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        response: GetState.Response = self._get_state.callback(GetState.Request(), GetState.Response())
        label: str = response.current_state.label
        return label

    @property
    def is_changing(self) -> bool:
        """A transition is under way."""
        transition = self._transition
        return transition is not None and transition.is_alive()

    def start_transition(self, work: Callable[[], object]) -> bool:
        """Runs transitions in a thread of their own; False if others are under way. `work` must not raise."""
        with self._transition_lock:
            if self.is_changing:
                return False
            self._transition = threading.Thread(target=work, name="transition", daemon=True)
            self._transition.start()
        return True

    def in_executor(self, action: Callable[[], None]) -> None:
        """Runs an action in the executor's thread, and waits for it, where a transition's thread calls this.

        Raises:
            Exception: what the action raised.
            RuntimeError: the node is being ended.
        """
        executor = self.executor
        if threading.current_thread() is not self._transition or executor is None:
            action()
            return
        done, errors = threading.Event(), list[Exception]()

        def run() -> None:
            try:
                action()
            except Exception as error:
                errors.append(error)
            finally:
                done.set()

        executor.create_task(run)
        while not done.wait(0.2):
            if not rclpy.ok(context=self.context):
                raise RuntimeError("the node is being ended")
        if errors:
            raise errors[0]

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        finished: Future[ChangeState.Response] = Future(executor=self.executor)
        finished.add_done_callback(lambda future: None)  # wakes the executor

        def work() -> None:
            try:
                self._change_state(request, response)
            except Exception as error:
                response.success = False
                self.log.error(f"the transition '{request.transition.label or request.transition.id}' failed: {error}")
            finished.set_result(response)

        if not self.start_transition(work):
            response.success = False
            wanted = request.transition.label or request.transition.id
            self.log.warning(f"the transition '{wanted}' is refused: the node is {self.state}, ask again afterwards")
            return response
        await finished
        return response
