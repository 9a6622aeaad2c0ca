"""The declared parameters of a node: descriptors from a typed table, and changes that are checked as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.ros.parameters import Change, ParameterTable


Table = TypeVar("Table", bound=ParameterTable)
Values = dict[str, Any]


class NodeParameters(Generic[Table]):
    """The declared parameters of a node; `values` is always a valid table.

    The parts of a node, such as its cameras, are scopes: `front.max_rate` is what `max_rate` is for the scope `front`.
    It is not set, and follows `max_rate`, until somebody sets it.
    """

    values: Table

    def __init__(
        self,
        node: Node,
        table: type[Table],
        refuse: Callable[[str], str | None] = lambda name: None,
        check: Callable[[Table], str | None] = lambda values: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Declares the parameters of `table` on `node`.

        Args:
            node: gets the parameters.
            table: the class to read them into.
            refuse: says why a parameter of class "unconfigured" cannot change now, None if it can.
            check: says what is wrong with a table that is valid by itself, None if nothing is.
            on_change: called after every change.

        Raises:
            InputError: a value given at the start is wrong.
        """
        self._node, self._table = node, table
        self._refuse, self._check, self._on_change = refuse, check, on_change
        self._own: dict[str, Values] = {}
        """Scope to the values that were set for it."""
        self._tables: dict[str, Table] = {}
        given = {name: self._declare(name, field, field.default) for name, field in table.model_fields.items()}
        self.values = self._validated({name: value for name, value in given.items() if value is not None})
        node.add_on_set_parameters_callback(self._set)

    def add_scopes(self, scopes: Collection[str], fields: Collection[str]) -> None:
        """Declares those fields of the table once more for each scope.

        Raises:
            InputError: a value given at the start is wrong.
        """
        for scope in scopes:
            given = {
                name: self._declare(f"{scope}.{name}", self._table.model_fields[name], None) for name in sorted(fields)
            }
            self._own[scope] = {name: value for name, value in given.items() if value is not None}
            self._tables[scope] = self._validated(self.values.model_dump() | self._own[scope], scope)

    def of(self, scope: str) -> Table:
        """The table as it holds for a scope; for "" the node's."""
        return self._tables[scope] if scope else self.values

    def _declare(self, name: str, field: FieldInfo, default: Any) -> Any:
        try:
            value = self._node.declare_parameter(name, default, _descriptor(field, writable=True)).value
            if value is None and default is not None:  # what rcl makes of an empty list in a YAML file
                value = default
                self._node.set_parameters([Parameter(name, value=default)])
            self._node.set_descriptor(name, _descriptor(field))
        except (ParameterException, TypeError, ValueError) as error:
            raise InputError(f"parameter {name}: {error}") from error
        return value

    def _validated(self, values: Values, scope: str = "") -> Table:
        """The table of these values; InputError says which of them is wrong."""
        try:
            table = self._table.model_validate(values)
        except ValidationError as error:
            raise InputError(_sentence(error, scope)) from error
        reason = self._check(table)
        if reason:
            raise InputError(f"{scope}: {reason}" if scope else reason)
        return table

    def _set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        try:
            return self._change(parameters)
        except Exception as error:  # the caller gets an answer whatever happens
            return SetParametersResult(successful=False, reason=f"{type(error).__name__}: {error}")

    def _change(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        try:
            changes = self._changes(parameters)
            values = self._validated(self.values.model_dump() | changes.get("", {}))
            own = {scope: _without_none(before | changes.get(scope, {})) for scope, before in self._own.items()}
            tables = {scope: self._validated(values.model_dump() | own[scope], scope) for scope in own}
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.values, self._own, self._tables = values, own, tables
        if changes:
            self._on_change()
        return SetParametersResult(successful=True)

    def _changes(self, parameters: list[Parameter[Any]]) -> dict[str, Values]:
        """Scope to new values, None where one is taken back; InputError says which cannot change now."""
        changes: dict[str, Values] = {}
        for item in parameters:
            scope, _, name = item.name.rpartition(".")
            if name not in self._table.model_fields or (scope and scope not in self._own):
                continue
            deleted = item.type_ == Parameter.Type.NOT_SET
            reason = "it cannot be deleted" if deleted and not scope else self._why_fixed(name)
            if reason:
                raise InputError(f"parameter {item.name}: {reason}")
            changes.setdefault(scope, {})[name] = item.value
        return changes

    def _why_fixed(self, name: str) -> str | None:
        return self._refuse(name) if _change_of(self._table.model_fields[name]) == "unconfigured" else None


def _without_none(values: Values) -> Values:
    return {name: value for name, value in values.items() if value is not None}


def _change_of(field: FieldInfo) -> Change:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return extra["change"]  # type: ignore[return-value]


def _descriptor(field: FieldInfo, writable: bool = False) -> ParameterDescriptor:
    # Dynamic typing lets `max_rate:=5` be a number; rclpy would insist on `5.0`. The table checks the type.
    descriptor = ParameterDescriptor(
        description=field.description or "",
        read_only=_change_of(field) == "never" and not writable,
        dynamic_typing=True,
    )
    notes = {"unconfigured": ["can change while the node is unconfigured"], "live": ["can change at any time"]}.get(
        _change_of(field), []
    )
    if get_origin(field.annotation) is Literal:
        notes.append("one of " + ", ".join(get_args(field.annotation)))
    descriptor.additional_constraints = "; ".join(notes)
    limits = {key: getattr(item, key) for item in field.metadata for key in ("ge", "gt", "le") if hasattr(item, key)}
    lower, upper = limits.get("ge", limits.get("gt")), limits.get("le")
    if lower is not None and upper is not None:
        if field.annotation is int:
            descriptor.integer_range = [IntegerRange(from_value=lower, to_value=upper, step=1)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(lower), to_value=float(upper))]
    return descriptor


def _sentence(error: ValidationError, scope: str) -> str:
    return "; ".join(
        _problem(problem["loc"], problem["msg"].removeprefix("Value error, "), scope) for problem in error.errors()
    )


def _problem(location: tuple[int | str, ...], message: str, scope: str) -> str:
    path = ".".join([*([scope] if scope else []), *(str(part) for part in location)])
    if not location:
        return f"{path}: {message}" if scope else message
    return f"parameter {path}: {message}"
