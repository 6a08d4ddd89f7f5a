"""Sessions: who opened a stream, so that it is known later whether that still holds."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends import signed_cookies
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare


class Owner(NamedTuple):
    """Who opened a stream, and by what.

    `proof` changes with the password. `session` is the key of the session that the user
    was logged in by; None for those who came otherwise, and for sessions that are kept
    in cookies, of which a server does not know whether they have ended.
    """

    pk: str
    proof: str
    session: str | None


def owner_of(request: HttpRequest, user: Any) -> Owner | None:
    """Who is the owner of what this user opens by this request.

    None for nobody, and for one who is not in the table of users.
    """
    known: Owner | None = getattr(request, "stream_owner", None)
    if known is not None:
        return known
    if getattr(user, "pk", None) is None:
        return None
    if not hasattr(user, "get_session_auth_hash"):
        # Such as one made of a token's claims.
        user = _stored(user.pk)
    if user is None:
        return None
    return Owner(str(user.pk), _proof(user), _session(request, user))


def user_of(owner: Owner) -> Any:
    """The user, if that one is still who opened the stream; else None.

    Not after a logout, with another password, or when inactive or deleted.
    """
    user = _stored(owner.pk)
    if user is None or not getattr(user, "is_active", True):
        return None
    proofs = [_proof(user)]
    if hasattr(user, "get_session_auth_fallback_hash"):
        proofs += user.get_session_auth_fallback_hash()
    if not any(constant_time_compare(proof, owner.proof) for proof in proofs):
        return None
    if owner.session is not None:
        store = import_module(settings.SESSION_ENGINE).SessionStore(owner.session)
        if store.get(SESSION_KEY) != _text(user):
            return None
    return user


def _stored(pk: Any) -> Any:
    try:
        return get_user_model()._default_manager.filter(pk=pk).first()
    except (ImproperlyConfigured, ValidationError, ValueError, TypeError):
        return None


def _proof(user: Any) -> str:
    make = getattr(user, "get_session_auth_hash", None)
    return "" if make is None else str(make())


def _session(request: HttpRequest, user: Any) -> str | None:
    session = getattr(request, "session", None)
    key: str | None = getattr(session, "session_key", None)
    if key is None or isinstance(session, signed_cookies.SessionStore):
        return None
    return key if session.get(SESSION_KEY) == _text(user) else None  # type: ignore[union-attr]


def _text(user: Any) -> str:
    """A user's pk as login() writes it into the session."""
    return str(user._meta.pk.value_to_string(user))
