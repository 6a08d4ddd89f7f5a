"""Streams: which models are announced, and what is said of their rows.

`ModelStream` is the one configuration object; the decorator, the mixin and
`register` all build one and put it in the registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar, overload
from urllib.parse import unquote

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, connections, models, router
from django.db.models.signals import class_prepared
from django.dispatch import receiver
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from django_grip.contrib.realtime.channels import RESERVED, channel_name
from django_grip.contrib.realtime.events import REFRESH, Change, Op, Place, Topic

M = TypeVar("M", bound=type[models.Model])
S = TypeVar("S", bound="type[ModelStream]")

ScopeSource: TypeAlias = str | Callable[[Any], Any]
"""A field path, or what computes a scope's value from a row."""

Serializer = Callable[..., Any]
"""Called as `cls(instance, context={"request": None})`; its `.data` is the payload."""


class ModelStream:
    """What is announced of a model, to whom.

    Without `fields`, `serializer_class` or `audiences` events are thin: op and pk.
    At most one of the three is set. `serializer_class`, and each value of
    `audiences`, is a class or its dotted path.

    `scopes` maps a scope's name to a field path (`"tenant_id"`, `"shop__region"`) or to
    a callable that is given the row; its value is the scope's value. True stands for
    `true`, None and False for none, an iterable for each of its values.

    `watch` names fields: an update that changes none of them is not told. `touch` names
    foreign keys: their rows are told as updated when this one changes. An operation on
    more than `bulk_limit` rows is told as one `bulk` event. With `refresh` there are
    channels too that say that something is new, and no more, for views with
    `stream_mode = "refresh"`.
    """

    fields: ClassVar[Sequence[str] | None] = None
    serializer_class: ClassVar[str | Serializer | None] = None
    audiences: ClassVar[Mapping[str, str | Serializer] | None] = None
    events: ClassVar[Sequence[Op]] = ("create", "update", "delete")
    scopes: ClassVar[Mapping[str, ScopeSource]] = {}
    watch: ClassVar[Sequence[str] | None] = None
    touch: ClassVar[Sequence[str]] = ()
    bulk_limit: ClassVar[int] = 100
    refresh: ClassVar[bool] = False

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self.label = model._meta.label_lower
        _check_options(self)

    @cached_property
    def serializers(self) -> Mapping[str | None, Serializer | None]:
        """The serializer of each audience; `{None: None}` for thin and `fields`.

        Raises ImproperlyConfigured for a path that cannot be imported.
        """
        if self.audiences is not None:
            return {
                name: self._load(given, f"audiences[{name!r}]")
                for name, given in self.audiences.items()
            }
        if self.serializer_class is not None:
            return {None: self._load(self.serializer_class, "serializer_class")}
        return {None: None}

    @property
    def told_audiences(self) -> tuple[str | None, ...]:
        """The audiences that have channels: of `serializers`, and that of refreshes."""
        return (*self.serializers, REFRESH) if self.refresh else (*self.serializers,)

    def _load(self, given: str | Serializer, option: str) -> Serializer:
        if not isinstance(given, str):
            return given
        try:
            loaded: Serializer = import_string(given)
        except ImportError as exc:
            raise ImproperlyConfigured(
                f"{option} of the stream of {self.label} is {given!r}, which cannot be "
                f"imported: {exc}"
            ) from exc
        return loaded

    @property
    def is_thin(self) -> bool:
        """Whether events say op and pk only."""
        return self.fields is None and self.serializers == {None: None}

    def get_queryset(self) -> models.QuerySet[Any]:
        """The rows that are told of, and where payloads are read from.

        A row that is not among them (any more) has left: hide a draft or a soft-deleted
        row here, and add `select_related` here.
        """
        return self.model._base_manager.all()

    def should_publish(self, change: Change) -> bool:
        """Whether a change is told. That a row has left is always told."""
        return True

    def get_data(self, change: Change, audience: str | None) -> Any:
        """The payload for an audience: of `change.instance`, the row as just stored."""
        instance = change.instance
        if self.fields is not None:
            return {name: _value(instance, name) for name in self.fields}
        serializer = self.serializers[audience]
        if serializer is None:
            return None
        return serializer(instance, context={"request": None}).data

    def encode(self, data: Any, audience: str | None) -> str:
        """`data` as JSON text, as the API would write it."""
        return json_text(data, _encoder(self.serializers[audience]))

    def channel(
        self,
        pk: Any = None,
        *,
        place: Place | None = None,
        audience: str | None = None,
        using: str | None = None,
    ) -> str:
        """The channel of the collection, of one object or of one scope value.

        `using` is the alias written on; the model's own is not named. Without
        GRIP_PREFIX.
        """
        on = None if using is None else self._suffix(using)
        return channel_name(self.label, pk, place=place, audience=audience, using=on)

    def topic(self, using: str) -> Topic:
        """What goes with every notice of a write on the alias `using`."""
        return Topic(
            label=self.label,
            on=self._suffix(using),
            audiences=tuple(self.serializers),
            events=tuple(self.events),
            watches=self.watch is not None,
            watched_sets=frozenset(self.watch or ()) - set(self.watched_columns),
            refresh=self.refresh,
        )

    def _suffix(self, using: str) -> str | None:
        return None if using == router.db_for_write(self.model) else using

    @property
    def is_own_query(self) -> bool:
        """Whether `get_queryset()` is the plain one."""
        return type(self).get_queryset is ModelStream.get_queryset

    @cached_property
    def is_restricted(self) -> bool:
        """Whether rows may be outside `get_queryset()`: judged by its first answer."""
        if self.is_own_query:
            return False
        query = self.get_queryset().query
        return bool(
            query.where or query.distinct or query.combinator or query.is_sliced
        )

    @cached_property
    def columns(self) -> frozenset[str] | None:
        """The names of fields that decide where a row stands or whether it is told.

        Those of scopes, `watch` and `touch`, and their columns; None if any may.
        """
        if self.is_restricted or self.computes_scopes:
            return None
        names: set[str] = set()
        paths = [str(path).split("__")[0] for path in self.scopes.values()]
        for name in (*paths, *(self.watch or ()), *self.touch):
            field = self.model._meta.get_field(name)
            if getattr(field, "generated", False):
                return None  # It changes with columns that a write names instead.
            names |= {field.name, getattr(field, "attname", field.name)}
        return frozenset(names)

    @cached_property
    def watched_columns(self) -> tuple[str, ...]:
        """`watch` without many-to-many fields, which have no column."""
        return tuple(
            name
            for name in self.watch or ()
            if not self.model._meta.get_field(name).many_to_many
        )

    @cached_property
    def asks_instances(self) -> bool:
        """Whether rows are needed besides payloads: by a scope or `should_publish`."""
        own = type(self).should_publish is ModelStream.should_publish
        return self.computes_scopes or not own

    @cached_property
    def computes_scopes(self) -> bool:
        """Whether a scope is a callable."""
        return any(callable(source) for source in self.scopes.values())

    @cached_property
    def runs_code(self) -> bool:
        """Whether reading a payload runs code that is not ours, and may fail."""
        own = (
            type(self).get_data is ModelStream.get_data
            and type(self).encode is ModelStream.encode
        )
        own &= self.is_own_query and not self.asks_instances
        return not own or self.fields is None

    def is_watched(self, changed: Iterable[str] | None) -> bool:
        """Whether a write to these columns may be told under `watch`."""
        return self.may_matter(changed) or (
            changed is not None and not set(self.watch or ()).isdisjoint(changed)
        )

    def may_matter(self, changed: Iterable[str] | None) -> bool:
        """Whether a write to these columns (None: any) may move a row or is watched."""
        columns = self.columns
        if columns is None or changed is None:
            return columns is None or bool(columns)
        return not columns.isdisjoint(changed)


_OPTIONS = (
    *("fields", "serializer_class", "audiences"),
    *("events", "scopes", "watch", "touch", "bulk_limit", "refresh"),
)


def _check_options(stream: ModelStream) -> None:
    where = f"the stream of {stream.label}"
    payloads = [
        name
        for name in ("fields", "serializer_class", "audiences")
        if getattr(stream, name) is not None
    ]
    if len(payloads) > 1:
        raise ImproperlyConfigured(f"{where} has {' and '.join(payloads)}: choose one.")
    if stream.audiences is not None and not stream.audiences:
        raise ImproperlyConfigured(f"audiences of {where} is empty.")
    if REFRESH in (stream.audiences or ()):
        raise ImproperlyConfigured(
            f"audiences of {where} has {REFRESH!r}, the audience of events without "
            "content: set refresh = True for these, or choose another name."
        )
    if not isinstance(stream.refresh, bool):
        raise ImproperlyConfigured(
            f"refresh of {where} is True or False; got {stream.refresh!r}."
        )
    if unknown := set(stream.events) - {"create", "update", "delete"}:
        raise ImproperlyConfigured(
            f"events of {where} has {sorted(unknown)}; known are create, update and "
            "delete."
        )
    for option in ("fields", "watch", "touch"):
        names = getattr(stream, option)
        if isinstance(names, str):
            raise ImproperlyConfigured(f"{option} of {where} is a list; got a str.")
        for name in names or ():
            field = _field(stream, option, name)
            if option == "touch" and not (field.many_to_one or field.one_to_one):
                raise ImproperlyConfigured(
                    f"touch of {where} names {name!r}, which is no foreign key."
                )
    for name, source in stream.scopes.items():
        if not name.isidentifier() or name in RESERVED:
            raise ImproperlyConfigured(
                f"{where} has a scope {name!r}; expected an identifier that is none of "
                f"{', '.join(sorted(RESERVED))}."
            )
        if not callable(source):
            _field(stream, f"scopes[{name!r}]", str(source).split("__")[0])


def _field(stream: ModelStream, option: str, name: str) -> Any:
    try:
        return stream.model._meta.get_field(name)
    except FieldDoesNotExist as exc:
        raise ImproperlyConfigured(
            f"{option} of the stream of {stream.label} names {name!r}, which is no "
            "field of it."
        ) from exc


def _value(instance: models.Model, name: str) -> Any:
    field = instance._meta.get_field(name)
    if field.many_to_many:
        return [related.pk for related in getattr(instance, name).order_by("pk")]
    return field.value_from_object(instance)  # type: ignore[union-attr]


def json_text(data: Any, encoder: type[json.JSONEncoder] = DjangoJSONEncoder) -> str:
    """`data` as JSON text. Raises ValueError and TypeError for what JSON has not."""
    return json.dumps(
        data,
        cls=encoder,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def _encoder(serializer: Serializer | None) -> type[json.JSONEncoder]:
    if any(
        base.__module__ == "rest_framework.serializers"
        for base in getattr(serializer, "__mro__", ())
    ):
        # GET goes through DRF's encoder, which writes dates unlike Django's; without
        # DRF no serializer gets here.
        from rest_framework.utils.encoders import JSONEncoder

        return JSONEncoder
    return DjangoJSONEncoder


class Registry:
    """The streams by concrete model, and who wants to hear of new ones."""

    def __init__(self) -> None:
        self._streams: dict[type[models.Model], ModelStream] = {}
        self._listener: Callable[[ModelStream], None] | None = None

    def add(self, stream: ModelStream) -> None:
        """Register a stream. Raises ImproperlyConfigured for a second one."""
        if stream.model in self._streams:
            raise ImproperlyConfigured(
                f"{stream.label} is registered for realtime twice. Keep one of "
                "@realtime, RealtimeModel and @register."
            )
        self._streams[stream.model] = stream
        if self._listener is not None:
            self._listener(stream)

    def listen(self, listener: Callable[[ModelStream], None]) -> None:
        """Call `listener` with every stream, those to come included."""
        self._listener = listener
        for stream in self:
            listener(stream)

    def get(self, model: type[models.Model]) -> ModelStream | None:
        """The stream of a model; a proxy model has that of its concrete model."""
        return self._streams.get(model._meta.concrete_model or model)

    def __iter__(self) -> Any:
        return iter(list(self._streams.values()))


registry = Registry()


def alias_of(channel: str) -> str:
    """The database that tells of a channel, and whose log has it, by its name."""
    name, _, suffix = channel.partition("~on.")
    if suffix:
        alias = unquote(suffix.partition("~")[0])
        return alias if alias in connections else DEFAULT_DB_ALIAS
    label = ".".join(name.partition("~")[0].split(".")[:2])
    for stream in registry:
        if stream.label == label:
            return str(router.db_for_write(stream.model))
    return DEFAULT_DB_ALIAS


def _concrete(model: type[models.Model]) -> type[models.Model]:
    if model._meta.abstract or model._meta.concrete_model is None:
        raise ImproperlyConfigured(
            f"{model.__name__} is abstract and has no rows; register its children."
        )
    return model._meta.concrete_model


def _build(
    model: type[models.Model], name: str, options: Mapping[str, Any]
) -> ModelStream:
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ImproperlyConfigured(
            f"Unknown realtime options for {model.__name__}: {', '.join(unknown)}. "
            f"Known are {', '.join(_OPTIONS)}."
        )
    stream_class = type(name, (ModelStream,), dict(options))
    stream: ModelStream = stream_class(_concrete(model))
    return stream


@overload
def realtime(model: M, /) -> M: ...
@overload
def realtime(**options: Any) -> Callable[[M], M]: ...
def realtime(model: Any = None, /, **options: Any) -> Any:
    """Announce the changes of a model: `@realtime` or `@realtime(fields=[…])`.

    Options are the attributes of `ModelStream`. Bare, events are thin. Raises
    ImproperlyConfigured for unknown options, abstract models and a model that is
    registered already.
    """

    def decorate(model: M) -> M:
        registry.add(_build(model, f"{model.__name__}Stream", options))
        return model

    return decorate if model is None else decorate(model)


def register(*model_classes: type[models.Model]) -> Callable[[S], S]:
    """Register a `ModelStream` for models of yours or of others.

    Put it in `streams.py` of an installed app, which is imported at start.
    """

    def decorate(stream_class: S) -> S:
        if not (
            isinstance(stream_class, type) and issubclass(stream_class, ModelStream)
        ):
            raise ImproperlyConfigured(
                f"@register decorates a ModelStream; got {stream_class!r}."
            )
        for model in model_classes:
            registry.add(stream_class(_concrete(model)))
        return stream_class

    return decorate


class RealtimeModel(models.Model):
    """Mixin: the options of `@realtime` as attributes of an inner class `Realtime`.

    A child inherits the inner class of its parent.
    """

    class Meta:
        abstract = True


@receiver(class_prepared, dispatch_uid="grip_realtime.mixin")
def _register_mixin(*, sender: type[models.Model], **kwargs: object) -> None:
    # Historical models of migrations live in a registry of their own.
    if (
        issubclass(sender, RealtimeModel)
        and sender._meta.apps is apps
        and not sender._meta.proxy
    ):
        inner: type | None = getattr(sender, "Realtime", None)
        registry.add(_build(sender, f"{sender.__name__}Stream", _inner_options(inner)))


def _inner_options(inner: type | None) -> dict[str, Any]:
    bases: Iterable[type] = reversed(inner.__mro__[:-1]) if inner else ()
    return {
        name: value
        for base in bases
        for name, value in vars(base).items()
        if not name.startswith("__")
    }
