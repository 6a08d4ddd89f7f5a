"""Streams, and what a client fetches when a stream cannot answer."""

from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_grip.contrib.realtime import channel_for
from django_grip.contrib.realtime.answers import opening
from django_grip.contrib.realtime.grants import Grant
from tests.chaos.models import Mark, Row


def stream(request, kind, tenant=None, pk=None):
    if not request.grip.proxied:
        return HttpResponse("Ask the proxy.\n", status=501)
    model = {"rows": Row, "marks": Mark}[kind]
    if pk is not None:
        channel = channel_for(model.objects.get(pk=pk))
    elif tenant is not None:
        channel = channel_for(model, scope="tenant", value=tenant)
    else:
        channel = channel_for(model)
    return opening(
        request, Grant(channel=channel), request.headers.get("Last-Event-ID")
    )


def snapshot(request, kind, tenant=None, pk=None):
    rows = {"rows": Row, "marks": Mark}[kind].objects.all()
    if pk is not None:
        rows = rows.filter(pk=pk)
    elif tenant is not None:
        rows = rows.filter(tenant=tenant)
    return JsonResponse({"rows": list(rows.values_list("pk", "version"))})


urlpatterns = [
    path(f"<kind>{place}/{name}/", view)
    for place in ("", "/tenant/<tenant>", "/<int:pk>")
    for name, view in (("stream", stream), ("snapshot", snapshot))
]
