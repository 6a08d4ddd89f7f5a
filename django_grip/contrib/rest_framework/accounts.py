"""Accounts: what happens to a user that ends the user's streams by itself.

Each cause is a name in REVOKE_ON. Private streams and WebSockets end when the
transaction commits; their clients come back, and are asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_out
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.revocations import revoke_users

logger = logging.getLogger("django_grip.rest_framework")

USERS_MAX = 10_000
"""Users of a group whose streams end at once. Those of more end at their next link."""

_CAUSES = {
    "password": "password",
    "is_active": "inactive",
    "is_superuser": "permissions",
    "is_staff": "permissions",
}
"""The cause that the change of a user's field is."""

_BEFORE = "_grip_account"


def connect() -> None:
    """Listen to what happens to users, their groups and their permissions."""
    user_logged_out.connect(_logged_out, dispatch_uid="grip")
    user_model = get_user_model()
    for model in apps.get_models():
        if issubclass(model, user_model):
            for signal, receiver in (
                (pre_save, _before_save),
                (post_save, _saved),
                (post_delete, _deleted),
            ):
                signal.connect(receiver, sender=model, dispatch_uid="grip")
    pre_delete.connect(_group_deleted, sender=Group, dispatch_uid="grip")
    sets: list[tuple[Any, Callable[..., None]]] = [
        (Group.permissions.through, _group_permissions_changed)
    ]
    if _has(user_model, "groups"):
        sets.append((user_model.groups.through, _groups_changed))
    if _has(user_model, "user_permissions"):
        through = user_model.user_permissions.through
        sets.append((through, _permissions_changed))
    for through, changed in sets:
        m2m_changed.connect(changed, sender=through, dispatch_uid="grip")


def _logged_out(sender: Any, user: Any = None, **kwargs: Any) -> None:
    if getattr(user, "pk", None) is not None:
        _end("logout", [user.pk], _alias(user))


def _before_save(
    sender: Any, instance: Any, raw: bool, using: str, update_fields: Any, **kw: Any
) -> None:
    """Read what is about to change, if it may be of those fields that matter."""
    instance.__dict__.pop(_BEFORE, None)
    causes = conf.revoke_on()
    names = [
        name
        for name, cause in _CAUSES.items()
        if cause in causes
        and _has(sender, name)
        and (update_fields is None or name in update_fields)
    ]
    if raw or instance._state.adding or not names:
        return
    row = sender._base_manager.using(using).filter(pk=instance.pk).values(*names)
    if (before := row.first()) is not None:
        instance.__dict__[_BEFORE] = before


def _saved(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    before = instance.__dict__.pop(_BEFORE, None) or {}
    for name, value in before.items():
        now = getattr(instance, name)
        # Who becomes active has no streams.
        if value != now and not (name == "is_active" and now is True):
            revoke_users([instance.pk], using)
            return


def _deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _end("deleted", [instance.pk], using)


def _groups_changed(
    instance: Any, action: str, reverse: bool, pk_set: Any, using: str, **kwargs: Any
) -> None:
    """Of a user, or in reverse of a group, which are told by their pks."""
    if action == "pre_clear" and reverse:
        _end_groups("groups", [instance.pk], using)
    elif action == "pre_clear" or (action in _AFTER and pk_set):
        _end("groups", pk_set if reverse else [instance.pk], using)


def _permissions_changed(
    instance: Any, action: str, reverse: bool, pk_set: Any, using: str, **kwargs: Any
) -> None:
    """Of a user, or in reverse of a permission."""
    if action == "pre_clear" and reverse:
        _end_users("permissions", {"user_permissions": instance.pk}, using)
    elif action == "pre_clear" or (action in _AFTER and pk_set):
        _end("permissions", pk_set if reverse else [instance.pk], using)


def _group_permissions_changed(
    instance: Any, action: str, reverse: bool, pk_set: Any, using: str, **kwargs: Any
) -> None:
    """Of a group, or in reverse of a permission."""
    if action == "pre_clear" and reverse:
        groups = Group._base_manager.using(using).filter(permissions=instance.pk)
        _end_groups("permissions", groups.values_list("pk", flat=True), using)
    elif action == "pre_clear" or (action in _AFTER and pk_set):
        _end_groups("permissions", pk_set if reverse else [instance.pk], using)


def _group_deleted(instance: Group, using: str, **kwargs: Any) -> None:
    _end_groups("groups", [instance.pk], using)


_AFTER = ("post_add", "post_remove")


def _end_groups(cause: str, groups: Iterable[Any], using: str) -> None:
    if _has(get_user_model(), "groups"):
        _end_users(cause, {"groups__in": list(groups)}, using)


def _end_users(cause: str, which: dict[str, Any], using: str) -> None:
    if cause not in conf.revoke_on():
        return
    found = get_user_model()._base_manager.using(using).filter(**which).distinct()
    pks = list(found.values_list("pk", flat=True)[: USERS_MAX + 1])
    if len(pks) > USERS_MAX:
        logger.warning(
            "The permissions of more than %d users have changed. The streams of the "
            "others end when they are asked for next, within twice LINK_TIMEOUT.",
            USERS_MAX,
        )
    revoke_users(pks[:USERS_MAX], using)


def _end(cause: str, pks: Iterable[Any], using: str) -> None:
    if cause in conf.revoke_on():
        revoke_users(pks, using)


def _alias(user: Any) -> str:
    state = getattr(user, "_state", None)
    return getattr(state, "db", None) or DEFAULT_DB_ALIAS


def _has(model: type[models.Model], name: str) -> bool:
    return any(field.name == name for field in model._meta.get_fields())
